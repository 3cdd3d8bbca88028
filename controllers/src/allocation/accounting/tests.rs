//! The moment in which an offer becomes tasks, in every order in which the two watches can tell it.

use commonage_schemas::{
    Agent, AgentSpec, AgentStatus, Framework, FrameworkSpec, OfferSpec, OfferStatus, Resources,
    TaskSpec, TaskState, TaskStatus,
    offer::{OfferAnswer, OfferVerdict},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::runtime::watcher::Event;

use super::*;

pub(crate) fn resources(cpu: &str) -> Resources {
    Resources::from_pairs([("cpu", cpu)]).unwrap()
}

pub(crate) fn identified<K: Resource>(mut object: K, name: &str, version: u64) -> K {
    let meta = object.meta_mut();
    meta.name = Some(name.to_owned());
    meta.namespace = Some("ns".to_owned());
    meta.uid = Some(format!("uid-{name}"));
    meta.resource_version = Some(version.to_string());
    object
}

pub(crate) fn agent() -> Agent {
    let ready = Condition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        reason: String::new(),
        message: String::new(),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: None,
    };
    let mut agent = identified(Agent::new("a", AgentSpec::default()), "a", 1);
    agent.metadata.namespace = None;
    agent.status = Some(AgentStatus {
        allocatable: Some(resources("4")),
        conditions: vec![ready],
        ..AgentStatus::default()
    });
    agent
}

pub(crate) fn framework() -> Framework {
    let spec = FrameworkSpec { queues: vec!["q".to_owned()], ..FrameworkSpec::default() };
    identified(Framework::new("f", spec), "f", 2)
}

fn offer(version: u64) -> Offer {
    let spec = OfferSpec {
        framework: "f".to_owned(),
        queue: "q".to_owned(),
        agent: "a".to_owned(),
        resources: resources("4"),
        ..OfferSpec::default()
    };
    identified(Offer::new("o", spec), "o", version)
}

fn accepted(version: u64, tasks: &[&str]) -> Offer {
    let mut offer = offer(version);
    offer.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let answer = OfferAnswer {
        verdict: OfferVerdict::Accepted,
        refuse_seconds: Some(0.0),
        tasks: tasks.iter().map(|t| (*t).to_owned()).collect(),
        reservations: Vec::new(),
        volumes: Vec::new(),
        answered_at: Some(Time(Timestamp::UNIX_EPOCH)),
    };
    offer.status = Some(OfferStatus { answer: Some(answer) });
    offer
}

pub(crate) fn launched(name: &str, version: u64, state: TaskState) -> Task {
    let spec = TaskSpec {
        framework: Some("f".to_owned()),
        queue: Some("q".to_owned()),
        offer: Some("o".to_owned()),
        agent: Some("a".to_owned()),
        resources: resources("1"),
        ..TaskSpec::default()
    };
    let mut task = identified(Task::new(name, spec), name, version);
    task.status = Some(TaskStatus { state, ..TaskStatus::default() });
    task
}

fn books() -> Accounting {
    let mut books = Accounting::new(Options::default());
    books.tick(Timestamp::from_second(100).unwrap());
    books.take_in(Input::Agent(Event::Apply(agent())));
    books.take_in(Input::Framework(Event::Apply(framework())));
    books.take_in(Input::Offer(Event::Apply(offer(3))));
    books
}

/// CPU in thousandths that is held of the agent, by tasks and by offers.
fn held(books: &Accounting) -> (i64, i64) {
    let usage = books.allocator().agent_usage("a").unwrap();
    (usage.allocated.cpu_millis(), usage.offered.cpu_millis())
}

#[test]
fn an_offer_holds_until_it_is_answered_and_its_tasks_are_known() {
    let mut books = books();
    assert_eq!(held(&books), (0, 4000));
    books.take_in(Input::Offer(Event::Apply(accepted(9, &["t1", "t2"]))));
    assert_eq!(held(&books), (0, 4000));
    books.take_in(Input::Task(Event::Apply(launched("t1", 7, TaskState::Staging))));
    assert_eq!(held(&books), (0, 4000));
    books.take_in(Input::Task(Event::Apply(launched("t2", 8, TaskState::Staging))));
    assert_eq!(held(&books), (2000, 0));
    assert_eq!(books.writes(&Plan::default()).len(), 1, "the offer can be closed");
}

#[test]
fn tasks_that_come_before_the_answer_are_not_counted_twice() {
    let mut books = books();
    books.take_in(Input::Task(Event::Apply(launched("t1", 7, TaskState::Staging))));
    books.take_in(Input::Task(Event::Apply(launched("t2", 8, TaskState::Staging))));
    assert_eq!(held(&books), (0, 4000));
    books.take_in(Input::Offer(Event::Apply(accepted(9, &["t1", "t2"]))));
    assert_eq!(held(&books), (2000, 0));
}

#[test]
fn a_task_that_is_over_before_the_answer_is_seen_holds_nothing() {
    let mut books = books();
    books.take_in(Input::Task(Event::Apply(launched("t1", 12, TaskState::Finished))));
    books.take_in(Input::Offer(Event::Apply(accepted(9, &["t1"]))));
    assert_eq!(held(&books), (0, 0));
}

#[test]
fn a_task_that_was_deleted_before_anybody_saw_it_is_asked_for_and_let_go() {
    let mut books = books();
    books.take_in(Input::Offer(Event::Apply(accepted(9, &["t1"]))));
    let missing = books.missing_tasks();
    assert_eq!(missing, [("ns".to_owned(), "t1".to_owned())]);
    books.take_in_found(&missing, vec![None]);
    assert_eq!(held(&books), (0, 0));
    assert_eq!(books.writes(&Plan::default()).len(), 1);
}

#[test]
fn a_closed_offer_is_closed_once() {
    let mut books = books();
    books.take_in(Input::Offer(Event::Apply(accepted(9, &[]))));
    assert_eq!(books.writes(&Plan::default()).len(), 1);
    books.take_in_outcome(Outcome::Closed(Box::new(accepted(9, &[]))));
    assert_eq!(books.writes(&Plan::default()).len(), 0);
    books.take_in(Input::Offer(Event::Delete(accepted(10, &[]))));
    assert_eq!(held(&books), (0, 0));
}

#[test]
fn what_was_just_written_counts_before_the_watch_shows_it() {
    let mut books = books();
    books.take_in(Input::Offer(Event::Delete(offer(4))));
    let mut bound = launched("t", 20, TaskState::Staging);
    bound.spec.offer = None;
    books.take_in_outcome(Outcome::Bound(Box::new(bound.clone())));
    assert_eq!(held(&books), (1000, 0));
    bound.spec.agent = None;
    bound.metadata.resource_version = Some("15".to_owned());
    books.take_in(Input::Task(Event::Apply(bound)));
    assert_eq!(held(&books), (1000, 0), "an older version must not free it");
}

/// The offer ends as `reason` says, or by its time; returns until when its framework is spared.
fn spared_until(books: &mut Accounting, name: &str, reason: Option<RescindReason>) -> Option<u64> {
    let mut ended = accepted(90, &[]);
    ended.metadata.name = Some(name.to_owned());
    ended.metadata.uid = Some(format!("uid-{name}"));
    let mut open = offer(80);
    (open.metadata.name, open.metadata.uid) =
        (ended.metadata.name.clone(), ended.metadata.uid.clone());
    books.take_in(Input::Offer(Event::Apply(open)));
    let key = ObjectKey::new("ns", name);
    let mut plan = Plan::default();
    match reason {
        Some(reason) => plan.rescind.push(commonage_allocator::Rescind { offer: key, reason }),
        None => plan.expire.push(key),
    }
    books.writes(&plan);
    let answer = ended.status.as_mut().and_then(|s| s.answer.as_mut()).unwrap();
    answer.verdict = if reason.is_some() { OfferVerdict::Rescinded } else { OfferVerdict::Expired };
    books.take_in_outcome(Outcome::Ending(Box::new(ended.clone())));
    books.take_in_outcome(Outcome::Closed(Box::new(ended)));
    let plan = books.plan(0);
    assert!(plan.offers.is_empty() || plan.next_wake_ms.is_none(), "a refusal holds it back");
    plan.next_wake_ms
}

#[test]
fn silence_refuses_for_twice_as_long_each_time_until_an_answer() {
    let mut books = books();
    // The one that is there from the start is answered, so that the agent is free.
    books.take_in(Input::Offer(Event::Apply(accepted(4, &[]))));
    books.take_in_outcome(Outcome::Closed(Box::new(accepted(4, &[]))));
    let mut now_ms = 100_000;
    for (number, seconds) in [5, 10, 20, 40].into_iter().enumerate() {
        // What is in the way of a task counts like what has expired.
        let reason = (number % 2 == 1).then_some(RescindReason::NeededForTask);
        let until = spared_until(&mut books, &format!("o{number}"), reason);
        assert_eq!(until, Some(now_ms + 1000 * seconds));
        now_ms += 1_000_000;
        books.tick(Timestamp::from_millisecond(i64::try_from(now_ms).unwrap()).unwrap());
        books.plan(0);
    }
    let obsolete = spared_until(&mut books, "gone", Some(RescindReason::AgentShrank));
    assert_eq!(obsolete, None, "that was not the framework's fault");
    // An answer, even one that comes just when the offer is taken back.
    books.take_in(Input::Offer(Event::Apply(identified(offer(80), "answered", 80))));
    let key = ObjectKey::new("ns", "answered");
    books.writes(&Plan { expire: vec![key], ..Plan::default() });
    let answered = identified(accepted(91, &[]), "answered", 91);
    books.take_in(Input::Offer(Event::Apply(answered.clone())));
    books.take_in_outcome(Outcome::Closed(Box::new(answered)));
    let until = spared_until(&mut books, "again", None);
    assert_eq!(until, Some(now_ms + 5_000));
}
