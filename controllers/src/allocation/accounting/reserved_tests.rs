//! Reservations and volumes in the books: what is set aside, who gets it, what waits.

use commonage_schemas::{
    Reservation, ReservationSpec, ReservationStatus, Resources, TaskState, Volume, VolumeSpec,
    VolumeStatus, offer::ReservedPart, reservation::ReservationPhase, task::Mount,
    volume::VolumePhase,
};
use kube::{ResourceExt, runtime::watcher::Event};
use serde_json::Value;

use super::tests::*;
use super::*;
use crate::allocation::apply::Write;

pub(crate) fn reservation(name: &str, version: u64, cpu: &str) -> Reservation {
    let spec = ReservationSpec {
        queue: "q".to_owned(),
        resources: Resources::from_pairs([("cpu", cpu), ("disk", "10Gi")]).unwrap(),
        ..ReservationSpec::default()
    };
    let mut reservation = identified(Reservation::new(name, spec), name, version);
    reservation.metadata.namespace = None;
    reservation
}

pub(crate) fn bound(mut reservation: Reservation) -> Reservation {
    reservation.status = Some(ReservationStatus {
        phase: Some(ReservationPhase::Bound),
        agents: vec!["a".to_owned()],
        ..ReservationStatus::default()
    });
    reservation
}

/// One agent with 4 cpus and a framework that has its tasks placed.
pub(crate) fn placing() -> Accounting {
    let mut books = Accounting::new(Options::default());
    books.tick(Timestamp::from_second(100).unwrap());
    let mut agent = agent();
    let all = Resources::from_pairs([("cpu", "4"), ("disk", "100Gi")]).unwrap();
    agent.status.as_mut().unwrap().allocatable = Some(all);
    books.take_in(Input::Agent(Event::Apply(agent)));
    let mut framework = framework();
    framework.spec.placement = commonage_schemas::framework::Placement::Tasks;
    books.take_in(Input::Framework(Event::Apply(framework)));
    books
}

pub(crate) fn waiting(name: &str, version: u64, cpu: &str) -> Task {
    let mut task = launched(name, version, TaskState::Pending);
    task.spec.agent = None;
    task.spec.offer = None;
    task.spec.resources = resources(cpu);
    task
}

/// A whole turn; what it writes, in short.
fn turn(books: &mut Accounting) -> Vec<String> {
    let mut writes = books.serve_from_reservations();
    let plan = books.plan(1);
    writes.extend(books.writes(&plan));
    let short = |write: &Write| match write {
        Write::Bind(binding, parts, lent) => {
            let mut from: Vec<&str> = parts.iter().map(|part| part.reservation.as_str()).collect();
            from.extend((!lent.is_empty()).then_some("what is lent"));
            format!("bind {} to {} from {from:?}", binding.task.name, binding.agent)
        }
        Write::Kill(task, order) => {
            format!("kill {}: {}", task.name, order.message.clone().unwrap_or_default())
        }
        Write::Reserve(reservation, status) => {
            format!("reserve {} on {}", reservation.name_any(), status["agents"])
        }
        Write::Provide(volume, status) => {
            format!("provide {} {} on {}", volume.name_any(), status["phase"], status["agent"])
        }
        other => format!("{other:?}"),
    };
    writes.iter().map(short).collect()
}

fn status_of(books: &mut Accounting, named: &str) -> Value {
    let plan = books.plan(1);
    let writes = books.writes(&plan);
    let found = writes.into_iter().find_map(|write| match write {
        Write::Reserve(reservation, status) if reservation.name_any() == named => Some(status),
        _ => None,
    });
    found.unwrap()
}

#[test]
fn a_reservation_is_set_aside_like_a_task_is_placed_and_kept_from_others() {
    let mut books = placing();
    let wanted = reservation("r", 10, "3");
    books.take_in(Input::Reservation(Event::Apply(wanted.clone())));
    let status = status_of(&mut books, "r");
    assert_eq!(
        (&status["phase"], &status["agents"]),
        (&Value::from("Bound"), &serde_json::json!(["a"]))
    );
    let now = bound(reservation("r", 11, "3"));
    books.take_in_outcome(Outcome::Reserved(Box::new(now)));
    books.take_in(Input::Task(Event::Apply(waiting("big", 12, "3"))));
    assert_eq!(turn(&mut books), ["bind big to a from [\"r\"]"], "its own queue may use it");
    // A queue that the reservation is not for.
    let mut other = framework();
    other.metadata.name = Some("g".to_owned());
    other.metadata.uid = Some("uid-g".to_owned());
    other.spec.queues = vec!["p".to_owned()];
    other.spec.placement = commonage_schemas::framework::Placement::Tasks;
    books.take_in(Input::Framework(Event::Apply(other)));
    books.take_in(Input::Task(Event::Delete(waiting("big", 13, "3"))));
    let mut stranger = waiting("stranger", 14, "2");
    stranger.spec.framework = Some("g".to_owned());
    stranger.spec.queue = Some("p".to_owned());
    books.take_in(Input::Task(Event::Apply(stranger.clone())));
    assert!(turn(&mut books).is_empty());
    stranger.spec.resources = resources("1");
    stranger.metadata.resource_version = Some("15".to_owned());
    books.take_in(Input::Task(Event::Apply(stranger)));
    assert_eq!(turn(&mut books), ["bind stranger to a from []"]);
}

#[test]
fn what_a_task_uses_of_a_reservation_is_booked_once() {
    let mut books = placing();
    books.take_in(Input::Reservation(Event::Apply(bound(reservation("r", 10, "3")))));
    let mut task = launched("t", 11, TaskState::Running);
    task.spec.offer = None;
    task.spec.resources = resources("2");
    task.spec.reserved =
        vec![ReservedPart { reservation: "r".to_owned(), resources: resources("2") }];
    books.take_in(Input::Task(Event::Apply(task.clone())));
    let cpus = |books: &Accounting| {
        let usage = books.allocator().agent_usage("a").unwrap();
        let part = books.reserved().portions(&books.view(), "a").sum;
        [part.cpu_millis(), usage.allocated.cpu_millis(), usage.free.cpu_millis()]
    };
    assert_eq!(cpus(&books), [3000, 2000, 1000]);
    assert_eq!(books.reserved().used("r", "a").cpu_millis(), 2000);
    task.status.as_mut().unwrap().state = TaskState::Finished;
    task.metadata.resource_version = Some("12".to_owned());
    books.take_in(Input::Task(Event::Apply(task)));
    assert_eq!(cpus(&books), [3000, 0, 1000]);
}

#[test]
fn who_waits_beside_a_volume_or_a_refinement_gets_what_they_leave() {
    let mut books = placing();
    books.take_in(Input::Reservation(Event::Apply(bound(reservation("r", 10, "3")))));
    let mut part = reservation("part", 11, "2");
    part.spec.parent = Some("r".to_owned());
    part.spec.resources = resources("2");
    books.take_in(Input::Reservation(Event::Apply(part)));
    books.take_in(Input::Task(Event::Apply(waiting("big", 12, "4"))));
    // Before it is known that the refinement has its part, the task may not have it.
    assert_eq!(turn(&mut books), ["reserve part on [\"a\"]"]);
}

#[test]
fn what_an_agent_lends_goes_to_revocable_tasks_and_is_called_in() {
    let mut books = placing();
    let lending = |version: u64, own: Option<&str>, operators: Option<&str>| {
        let mut agent = agent();
        agent.metadata.resource_version = Some(version.to_string());
        agent.spec.overcommit = operators.map(resources);
        agent.status.as_mut().unwrap().revocable = own.map(resources);
        Input::Agent(Event::Apply(agent))
    };
    books.take_in(lending(10, Some("1"), Some("2")));
    let revocable = |name: &str, version: u64, priority: i32| {
        let mut task = waiting(name, version, "1");
        (task.spec.revocable, task.spec.priority) = (true, priority);
        task
    };
    books.take_in(Input::Task(Event::Apply(waiting("firm", 11, "5"))));
    for (name, version, priority) in [("low", 12, -1), ("high", 13, 1), ("middle", 14, 0)] {
        books.take_in(Input::Task(Event::Apply(revocable(name, version, priority))));
    }
    let from = |name: &str| format!("bind {name} to a from [\"what is lent\"]");
    assert_eq!(turn(&mut books), [from("high"), from("middle"), from("low")]);
    for (name, version, priority) in [("low", 15, -1), ("high", 16, 1), ("middle", 17, 0)] {
        let mut running = revocable(name, version, priority);
        (running.spec.agent, running.spec.lent) = (Some("a".to_owned()), Some(resources("1")));
        running.status.as_mut().unwrap().state = TaskState::Running;
        books.take_in(Input::Task(Event::Apply(running)));
    }
    let usage = books.allocator().agent_usage("a").unwrap();
    assert_eq!((usage.allocated.cpu_millis(), usage.free.cpu_millis()), (3000, 4000));
    assert!(turn(&mut books).is_empty());
    // It lends less: who is least important goes, and only once.
    books.take_in(lending(18, None, Some("1500m")));
    let told = "agent a takes back what it had lent";
    let kills = [format!("kill low: {told}"), format!("kill middle: {told}")];
    assert_eq!(turn(&mut books), kills);
    for (name, version, priority) in [("low", 19, -1), ("middle", 20, 0)] {
        let mut ending = revocable(name, version, priority);
        (ending.spec.agent, ending.spec.lent) = (Some("a".to_owned()), Some(resources("1")));
        ending.spec.kill = Some(commonage_schemas::task::KillOrder::default());
        ending.status.as_mut().unwrap().state = TaskState::Killing;
        books.take_in_outcome(Outcome::Killing(Box::new(ending)));
    }
    assert!(turn(&mut books).is_empty());
    assert_eq!(books.lent.called_in.len(), 2, "both are told");
}

#[test]
fn a_group_shares_its_fate() {
    let mut books = placing();
    let member = |name: &str, version: u64, state: TaskState| {
        let mut task = launched(name, version, state);
        (task.spec.offer, task.spec.group) = (None, Some("pod".to_owned()));
        task
    };
    for (name, version) in [("one", 10), ("two", 11), ("three", 12)] {
        books.take_in(Input::Task(Event::Apply(member(name, version, TaskState::Running))));
    }
    books.take_in(Input::Task(Event::Apply(member("one", 13, TaskState::Finished))));
    assert!(turn(&mut books).is_empty(), "one that is done leaves the others alone");
    books.take_in(Input::Task(Event::Apply(member("two", 14, TaskState::Failed))));
    let kills = ["kill three: task two of its group pod is Failed"];
    assert_eq!(turn(&mut books), kills);
    assert_eq!(turn(&mut books), kills, "until it is known that it was told");
    let mut told = member("three", 15, TaskState::Running);
    told.spec.kill = Some(commonage_schemas::task::KillOrder::default());
    books.take_in_outcome(Outcome::Killing(Box::new(told.clone())));
    assert!(turn(&mut books).is_empty());
    // A group made anew under the same name, while the last of the old one ends.
    books.take_in(Input::Task(Event::Apply(member("four", 16, TaskState::Running))));
    told.metadata.resource_version = Some("17".to_owned());
    told.status.as_mut().unwrap().state = TaskState::Killed;
    books.take_in(Input::Task(Event::Apply(told)));
    assert!(turn(&mut books).is_empty());
    // Nobody else's end concerns it.
    let mut strange = member("five", 18, TaskState::Failed);
    strange.spec.group = Some("other".to_owned());
    books.take_in(Input::Task(Event::Apply(strange)));
    assert!(turn(&mut books).is_empty());
}

#[test]
fn a_volume_is_made_of_reserved_disk_and_only_one_task_has_it_at_a_time() {
    let mut books = placing();
    books.take_in(Input::Reservation(Event::Apply(bound(reservation("r", 10, "1")))));
    let spec = VolumeSpec { reservation: "r".to_owned(), size: "8Gi".to_owned(), shared: false };
    let mut volume = identified(Volume::new("v", spec.clone()), "v", 11);
    let mut second = identified(Volume::new("w", spec), "w", 11);
    second.spec.size = "3Gi".to_owned();
    books.take_in(Input::Volume(Event::Apply(volume.clone())));
    assert_eq!(turn(&mut books), ["provide v \"Bound\" on \"a\""]);
    volume.status = Some(VolumeStatus {
        phase: Some(VolumePhase::Bound),
        size: Some("8Gi".to_owned()),
        agent: Some("a".to_owned()),
        ..VolumeStatus::default()
    });
    volume.metadata.resource_version = Some("12".to_owned());
    books.take_in_outcome(Outcome::Provided(Box::new(volume)));
    books.take_in(Input::Volume(Event::Apply(second.clone())));
    assert_eq!(turn(&mut books), ["provide w \"Pending\" on null"], "too little disk is left");
    books.take_in(Input::Volume(Event::Delete(second)));
    let mounting = |name: &str, version| {
        let mut task = waiting(name, version, "1");
        task.spec.container.mounts =
            vec![Mount { path: "/d".to_owned(), volume: Some("v".to_owned()), ..Mount::default() }];
        task
    };
    books.take_in(Input::Task(Event::Apply(mounting("one", 13))));
    books.take_in(Input::Task(Event::Apply(mounting("two", 14))));
    let why: Vec<String> = books.waiting_for_volumes().map(|(_, why)| why.to_owned()).collect();
    assert_eq!(why, ["volume v goes to one next"]);
    assert_eq!(turn(&mut books), ["bind one to a from [\"r\"]"]);
    let mut running = mounting("one", 15);
    running.spec.agent = Some("a".to_owned());
    running.status.as_mut().unwrap().state = TaskState::Running;
    books.take_in(Input::Task(Event::Apply(running.clone())));
    let why: Vec<String> = books.waiting_for_volumes().map(|(_, why)| why.to_owned()).collect();
    assert_eq!(why, ["volume v is used by one"]);
    running.status.as_mut().unwrap().state = TaskState::Finished;
    running.metadata.resource_version = Some("16".to_owned());
    books.take_in(Input::Task(Event::Apply(running)));
    assert_eq!(books.waiting_for_volumes().count(), 0);
    assert_eq!(turn(&mut books), ["bind two to a from [\"r\"]"]);
}

#[test]
fn a_claimed_agent_is_the_only_one_that_will_do_even_for_a_framework_with_offers() {
    let mut books = placing();
    let mut other = agent();
    other.metadata.name = Some("b".to_owned());
    other.metadata.uid = Some("uid-b".to_owned());
    books.take_in(Input::Agent(Event::Apply(other)));
    let mut answers = framework();
    answers.metadata.resource_version = Some("9".to_owned());
    answers.spec.offers = Some(commonage_schemas::framework::OfferPolicy {
        suppressed_queues: vec!["q".to_owned()],
        ..Default::default()
    });
    books.take_in(Input::Framework(Event::Apply(answers)));
    let mut task = waiting("t", 10, "4");
    task.spec.agent = Some("b".to_owned());
    books.take_in(Input::Task(Event::Apply(task)));
    assert_eq!(turn(&mut books), ["bind t to b from []"]);
    let mut more = waiting("more", 11, "5");
    more.spec.agent = Some("b".to_owned());
    books.take_in(Input::Task(Event::Apply(more)));
    let plan = books.plan(1);
    let why = plan.why.iter().find(|(key, _)| &*key.name == "more").unwrap();
    assert_eq!(why.1.agents, 2);
}
