//! Agents behind cables of their own, each in a network namespace: F-28, F-29, F-30, with packets that do not arrive.

use commonage_e2e::faults::field::{Field, Seat};
use commonage_e2e::faults::lan::{Harm, Lan};
use commonage_e2e::{eventually, soon};
use commonage_schemas::{Task, TaskState};

use crate::tasks::{container, endless, is};

const ARGUMENTS: [&str; 5] = ["--lease-interval", "1s", "--keep-deleted-logs", "0s", "-v"];
const NAMES: [&str; 2] = ["one", "two"];

/// Machines, and on each an agent with a task.
struct Place {
    // Dropped in this order.
    seats: Vec<Seat>,
    field: Field,
    lan: Lan,
}

impl Place {
    async fn start(controllers: &[&str]) -> Place {
        let lan = Lan::make(NAMES.len()).unwrap();
        let field = Field::start_at(lan.host().into(), &NAMES, controllers).await.unwrap();
        let mut seats = Vec::new();
        for (number, name) in NAMES.into_iter().enumerate() {
            let mut seat = field.agent(name);
            seat.namespace = Some(lan.path(number));
            let listen = format!("{}:0", lan.address(number));
            let arguments = [&ARGUMENTS[..], &["--listen", &listen]].concat();
            seat.start(&arguments, &[]).unwrap();
            field.until_ready(&seat).await;
            field.create(name, endless(&field, name)).await.unwrap();
            field.until(name, "to run", is(TaskState::Running)).await;
            seats.push(seat);
        }
        Place { seats, field, lan }
    }

    async fn task(&self, name: &str) -> Task {
        self.field.tasks().get(name).await.unwrap()
    }

    async fn leave(self) {
        self.field.delete_all().await;
        self.seats.into_iter().for_each(Seat::leaves_nothing);
    }
}

/// How often it was in a state.
fn count(task: &Task, state: TaskState) -> usize {
    let history = task.status.iter().flat_map(|status| &status.history);
    history.filter(|change| change.state == state).count()
}

async fn until_condition(field: &Field, name: &str, kind: &str, reason: Option<&str>) {
    let agents = field.agents();
    soon(&format!("agent {name} to be {kind}"), async || {
        let agent = agents.get(&field.name_of(name)).await.map_err(|error| error.to_string())?;
        let conditions = agent.status.unwrap_or_default().conditions;
        let mut good = conditions.iter().filter(|c| c.type_ == kind && c.status == "True");
        match good.any(|c| reason.is_none_or(|reason| c.reason == reason)) {
            true => Ok(()),
            false => Err(format!("{conditions:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f28_and_f29_an_agent_is_cut_off_deaf_or_mute_and_comes_back_once() {
    // Never lost as long as a test may take; unreachable only after more than one renewal without an answer, of
    // which the first after the return may be on a connection that is dead.
    let controllers = ["--agent-unreachable-after", "8s", "--agent-lost-after", "10m"];
    let place = Place::start(&controllers).await;
    let before = container(&place.task("one").await);
    for (turn, harm) in [Harm::Cut, Harm::Deaf, Harm::Mute].into_iter().enumerate() {
        place.lan.harm(0, harm);
        place
            .field
            .until("one", &format!("{harm:?}: unreachable"), is(TaskState::Unreachable))
            .await;
        // It runs on, and nothing is decided about it.
        assert!(!place.seats[0].contained().is_empty());
        place.lan.harm(0, Harm::None);
        let task = place.field.until("one", "to run again", is(TaskState::Running)).await;
        until_condition(&place.field, "one", "Ready", None).await;
        assert_eq!(container(&task), before);
        // Once gone and once back: whichever way the packets went, nobody wavered.
        assert_eq!(count(&task, TaskState::Unreachable), turn + 1, "{harm:?}: {:?}", task.status);
    }
    let neighbour = place.task("two").await;
    assert_eq!(count(&neighbour, TaskState::Unreachable), 0, "{:?}", neighbour.status);
    // What it is told now, it hears.
    place.field.create("later", endless(&place.field, "one")).await.unwrap();
    place.field.until("later", "to run", is(TaskState::Running)).await;
    place.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f28_and_f30_lost_behind_a_cable_that_is_pulled_and_all_of_them_at_once() {
    let controllers = ["--agent-unreachable-after", "4s", "--agent-lost-after", "8s"];
    let place = Place::start(&controllers).await;
    // All at once: nothing is given up.
    for number in 0..NAMES.len() {
        place.lan.harm(number, Harm::Cut);
    }
    for name in NAMES {
        until_condition(&place.field, name, "Unreachable", Some("MassLoss")).await;
        assert_eq!(place.task(name).await.state(), TaskState::Unreachable);
    }
    // One of them is back: the other may be given up, and on its return it ends what was.
    let old = place.seats[0].contained();
    place.lan.harm(1, Harm::None);
    place.field.until("two", "to run again", is(TaskState::Running)).await;
    place.field.until("one", "to be lost", is(TaskState::Lost)).await;
    assert!(old.iter().any(|pid| place.seats[0].contained().contains(pid)), "it runs on meanwhile");
    place.lan.harm(0, Harm::None);
    until_condition(&place.field, "one", "Ready", None).await;
    eventually("what was lost to be gone", || match place.seats[0].contained() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    assert_eq!(place.task("one").await.state(), TaskState::Lost);
    assert_eq!(place.task("two").await.state(), TaskState::Running);
    place.leave().await;
}
