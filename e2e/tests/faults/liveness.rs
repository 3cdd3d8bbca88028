//! Agents that fall silent: cut off, suspended, many at once, emptied or given up by their operator. F-28, F-30,
//! F-34, F-35.

use std::time::{Duration, Instant};

use commonage_e2e::faults::field::{Field, Seat};
use commonage_e2e::faults::proxy::{Harm, Proxy};
use commonage_e2e::{eventually, soon};
use commonage_schemas::{Agent, Task, TaskState, reasons};
use kube::api::{DeleteParams, Patch, PatchParams};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::tasks::{endless, is, reason};

/// An agent is unreachable after this, and soon lost.
const IMPATIENT: [&str; 4] = ["--agent-unreachable-after", "4s", "--agent-lost-after", "8s"];
/// An agent is unreachable after this, and not lost as long as a test may take.
const PATIENT: [&str; 4] = ["--agent-unreachable-after", "4s", "--agent-lost-after", "10m"];
const ARGUMENTS: [&str; 5] = ["--lease-interval", "1s", "--keep-deleted-logs", "0s", "-v"];

/// An agent behind a cable that can be pulled.
struct Remote {
    seat: Seat,
    cable: Proxy,
}

impl Remote {
    async fn start(field: &Field, name: &str) -> Remote {
        let mut seat = field.agent(name);
        let address = field.servers.address(0);
        let cable = Proxy::start(address).await.unwrap();
        let kubeconfig = std::fs::read_to_string(&seat.kubeconfig).unwrap();
        let through = kubeconfig.replace(&address.to_string(), &cable.address().to_string());
        assert_ne!(kubeconfig, through);
        seat.kubeconfig = field.dir().join(format!("{name}.kubeconfig"));
        std::fs::write(&seat.kubeconfig, through).unwrap();
        seat.start(&ARGUMENTS, &[]).unwrap();
        field.until_ready(&seat).await;
        Remote { seat, cable }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.seat.pid().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    fn contained(&self) -> Vec<i32> {
        self.seat.contained()
    }

    /// Its tasks deleted by now, it leaves nothing.
    fn leave(self) {
        self.seat.leaves_nothing();
    }
}

async fn field(agents: &[&str], controllers: &[&str]) -> Field {
    Field::start(agents, controllers).await.unwrap()
}

async fn until_agent(field: &Field, name: &str, what: &str, good: impl Fn(&Agent) -> bool) {
    let agents = field.agents();
    soon(&format!("agent {name} {what}"), async || match agents.get(&field.name_of(name)).await {
        Ok(agent) if good(&agent) => Ok(()),
        Ok(agent) => Err(serde_json::to_string(&agent.status).unwrap_or_default()),
        Err(error) => Err(error.to_string()),
    })
    .await;
}

/// Whether a condition holds, for this reason if one is given.
fn holds(agent: &Agent, kind: &str, reason: Option<&str>) -> bool {
    let mut conditions = agent.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|c| {
        c.type_ == kind && c.status == "True" && reason.is_none_or(|reason| c.reason == reason)
    })
}

async fn patch_agent(field: &Field, name: &str, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    field.agents().patch(&field.name_of(name), &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f28_an_agent_is_cut_off_for_a_while_and_its_tasks_are_what_they_were() {
    let field = field(&["far"], &PATIENT).await;
    let remote = Remote::start(&field, "far").await;
    field.create("t", endless(&field, "far")).await.unwrap();
    let before = field.until("t", "to run", is(TaskState::Running)).await;
    remote.cable.set(Harm::Hold);
    let task = field.until("t", "to be unreachable", is(TaskState::Unreachable)).await;
    assert_eq!(reason(&task), reasons::task::AGENT_UNREACHABLE);
    until_agent(&field, "far", "to be unreachable", |agent| holds(agent, "Unreachable", None))
        .await;
    // Nothing new goes there, and nothing stops there.
    let refused = field.create("new", endless(&field, "far")).await;
    if let Ok(waiting) = refused {
        assert_eq!(waiting.state(), TaskState::Pending);
    }
    assert!(!remote.contained().is_empty());
    remote.cable.set(Harm::None);
    let after = field.until("t", "to run again", is(TaskState::Running)).await;
    let container = |task: &Task| task.status.as_ref().and_then(|s| s.container_id.clone());
    assert_eq!(container(&after), container(&before));
    until_agent(&field, "far", "to be back", |agent| holds(agent, "Ready", None)).await;
    field.delete_all().await;
    remote.leave();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f28_an_agent_returns_too_late_and_its_tasks_go_before_anything_starts() {
    let field = field(&["far"], &IMPATIENT).await;
    let remote = Remote::start(&field, "far").await;
    // It does not go at once when it is told to.
    let mut stubborn = endless(&field, "far");
    stubborn["killPolicy"]["gracePeriodSeconds"] = 3.into();
    stubborn["container"]["command"] =
        json!(["sh", "-c", "trap '' TERM; while :; do sleep 0.2; done"]);
    field.create("old", stubborn).await.unwrap();
    field.until("old", "to run", is(TaskState::Running)).await;
    let old = remote.contained();
    remote.cable.set(Harm::Hold);
    let task = field.until("old", "to be lost", is(TaskState::Lost)).await;
    assert_eq!(reason(&task), reasons::task::AGENT_LOST);
    until_agent(&field, "far", "to have lost its tasks", |agent| {
        holds(agent, "Unreachable", Some("TasksLost"))
    })
    .await;
    // It runs on, for all that the agent knows.
    assert!(old.iter().any(|pid| remote.contained().contains(pid)));
    remote.cable.set(Harm::None);
    until_agent(&field, "far", "to be back", |agent| holds(agent, "Ready", None)).await;
    field.create("new", endless(&field, "far")).await.unwrap();
    field.until("new", "to run", is(TaskState::Running)).await;
    // Its grace is over by now, or the new one would not run.
    let left: Vec<i32> = remote.contained().into_iter().filter(|pid| old.contains(pid)).collect();
    assert_eq!(left, Vec::<i32>::new());
    assert_eq!(field.tasks().get("old").await.unwrap().state(), TaskState::Lost);
    field.delete_all().await;
    remote.leave();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f30_two_of_three_agents_fall_silent_and_nothing_is_given_up() {
    let field = field(&["one", "two", "three"], &IMPATIENT).await;
    let mut remotes = Vec::new();
    for name in ["one", "two", "three"] {
        let remote = Remote::start(&field, name).await;
        field.create(name, endless(&field, name)).await.unwrap();
        field.until(name, "to run", is(TaskState::Running)).await;
        remotes.push(remote);
    }
    for remote in &remotes[..2] {
        remote.cable.set(Harm::Hold);
    }
    for name in ["one", "two"] {
        until_agent(&field, name, "to be one of many", |agent| {
            holds(agent, "Unreachable", Some("MassLoss"))
        })
        .await;
        assert_eq!(field.tasks().get(name).await.unwrap().state(), TaskState::Unreachable);
    }
    assert_eq!(field.tasks().get("three").await.unwrap().state(), TaskState::Running);
    // One of them comes back: the other may be given up.
    remotes[0].cable.set(Harm::None);
    field.until("one", "to run again", is(TaskState::Running)).await;
    field.until("two", "to be lost", is(TaskState::Lost)).await;
    remotes[1].cable.set(Harm::None);
    eventually("what was lost to be gone", || match remotes[1].contained() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    field.delete_all().await;
    remotes.into_iter().for_each(Remote::leave);
}

/// Nobody can renew while there is no server, and nobody leads: that is no agent's silence, nor does it hide one
/// that fell silent before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_task_is_given_up_because_the_server_was_away_for_long() {
    let mut field = field(&["near", "far"], &IMPATIENT).await;
    let mut near = field.agent("near");
    near.start(&ARGUMENTS, &[]).unwrap();
    field.until_ready(&near).await;
    let far = Remote::start(&field, "far").await;
    for name in ["near", "far"] {
        field.create(name, endless(&field, name)).await.unwrap();
        field.until(name, "to run", is(TaskState::Running)).await;
    }
    far.cable.set(Harm::Hold);
    field.until("far", "to be unreachable", is(TaskState::Unreachable)).await;
    field.servers.kill(0);
    // As long as an agent may be silent before its tasks are lost, and then some.
    let away = Instant::now();
    soon("the end of the outage", async || match away.elapsed() > Duration::from_secs(10) {
        true => Ok(()),
        false => Err(format!("{:?} of 10 s", away.elapsed())),
    })
    .await;
    field.servers.up(0).unwrap();
    field.servers.ready(0).await.unwrap();
    // Judged by those who lead now, by when the other one is lost at last.
    let lost = field.until("far", "to be lost", is(TaskState::Lost)).await;
    assert_eq!(reason(&lost), reasons::task::AGENT_LOST);
    let task = field.tasks().get("near").await.unwrap();
    assert_eq!(task.state(), TaskState::Running, "{:?}", task.status);
    let agent = field.agents().get(&field.name_of("near")).await.unwrap();
    assert!(!holds(&agent, "Unreachable", None), "{:?}", agent.status);
    far.cable.set(Harm::None);
    eventually("what was lost to be gone", || match far.contained() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    field.delete_all().await;
    near.leaves_nothing();
    far.leave();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f35_an_agent_sleeps_through_the_order_to_end_its_task() {
    let field = field(&["far"], &IMPATIENT).await;
    let remote = Remote::start(&field, "far").await;
    field.create("t", endless(&field, "far")).await.unwrap();
    field.until("t", "to run", is(TaskState::Running)).await;
    remote.signal(Signal::SIGSTOP);
    field.until("t", "to be lost", is(TaskState::Lost)).await;
    remote.signal(Signal::SIGCONT);
    eventually("what was lost to be gone", || match remote.contained() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    // What it may still have had to say about it changes nothing.
    let task = field.tasks().get("t").await.unwrap();
    assert_eq!(task.state(), TaskState::Lost);
    field.delete_all().await;
    remote.leave();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_drained_maintained_and_marked_gone() {
    let field = field(&["far"], &PATIENT).await;
    let remote = Remote::start(&field, "far").await;
    let drained = |agent: &Agent| holds(agent, "Drained", None);
    // With the drain's grace, which is shorter than the task's.
    let mut stubborn = endless(&field, "far");
    stubborn["killPolicy"]["gracePeriodSeconds"] = 600.into();
    stubborn["container"]["command"] =
        json!(["sh", "-c", "trap '' TERM; while :; do sleep 0.2; done"]);
    field.create("stubborn", stubborn).await.unwrap();
    field.until("stubborn", "to run", is(TaskState::Running)).await;
    patch_agent(&field, "far", json!({"drain": {"gracePeriodSeconds": 1, "reason": "new disk"}}))
        .await;
    let task = field.until("stubborn", "to end", |task| task.state().is_terminal()).await;
    assert_eq!(
        (task.state(), reason(&task).as_str()),
        (TaskState::Killed, reasons::task::AGENT_DRAINED)
    );
    until_agent(&field, "far", "to be empty", drained).await;
    patch_agent(&field, "far", json!({"drain": null})).await;
    until_agent(&field, "far", "to be open again", |agent| !drained(agent)).await;
    // Maintenance that begins now.
    field.create("second", endless(&field, "far")).await.unwrap();
    field.until("second", "to run", is(TaskState::Running)).await;
    let start = jiff::Timestamp::now().to_string();
    let window = json!({"maintenance": {"start": start, "durationSeconds": 3600}});
    patch_agent(&field, "far", window).await;
    field.until("second", "to end", |task| task.state() == TaskState::Killed).await;
    until_agent(&field, "far", "to be empty", drained).await;
    patch_agent(&field, "far", json!({"maintenance": null})).await;
    until_agent(&field, "far", "to be open again", |agent| !drained(agent)).await;
    // One that does not come back, as far as its operator knows.
    field.create("third", endless(&field, "far")).await.unwrap();
    field.until("third", "to run", is(TaskState::Running)).await;
    remote.cable.set(Harm::Hold);
    field.until("third", "to be unreachable", is(TaskState::Unreachable)).await;
    patch_agent(&field, "far", json!({"drain": {"markGone": true}})).await;
    field.until("third", "to be gone", is(TaskState::Gone)).await;
    // It was wrong.
    remote.cable.set(Harm::None);
    eventually("what was given up to be gone", || match remote.contained() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    field.delete_all().await;
    remote.leave();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_agent_whose_object_was_deleted_loses_its_tasks_all_the_same() {
    let field = field(&["far"], &IMPATIENT).await;
    let remote = Remote::start(&field, "far").await;
    field.create("t", endless(&field, "far")).await.unwrap();
    field.until("t", "to run", is(TaskState::Running)).await;
    remote.cable.set(Harm::Hold);
    let name = field.name_of("far");
    field.agents().delete(&name, &DeleteParams::default()).await.unwrap();
    let task = field.until("t", "to be lost", is(TaskState::Lost)).await;
    assert_eq!(reason(&task), reasons::task::AGENT_LOST);
    let message = task.status.and_then(|status| status.message).unwrap_or_default();
    assert!(message.contains("was deleted"), "{message}");
    // It lives, and comes back: as a new agent, without what was lost.
    remote.cable.set(Harm::None);
    until_agent(&field, "far", "to be back", |agent| holds(agent, "Ready", None)).await;
    eventually("what was lost to be gone", || match remote.contained() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    field.delete_all().await;
    remote.leave();
}
