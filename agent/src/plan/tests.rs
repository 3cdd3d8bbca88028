#![allow(clippy::unwrap_used)]
//! Each case is a record and the plan that must come of it, in one line.

use super::*;
use std::sync::Arc;

use crate::ledger::Entry;
use commonage_shim::launch::Exit;
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn site() -> Site {
    Site {
        agent: "node-1".to_owned(),
        host: "127.0.0.1".to_owned(),
        data_dir: "/var/lib/commonage".into(),
        group: "/commonage/node-1".to_owned(),
        server: "https://127.0.0.1:6443".to_owned(),
        leave: Default::default(),
    }
}

/// A Task as the API server has it; `changes` are merged over a plain one in state Staging.
fn task(state: &str, changes: Value) -> Task {
    let mut task = json!({
        "apiVersion": "commonage.dev/v1",
        "kind": "Task",
        "metadata": {"name": "web-0", "namespace": "shop", "uid": "u-1"},
        "spec": {"agent": "node-1", "container": {"command": ["sleep", "9"]}},
        "status": {"state": state},
    });
    for (part, fields) in changes.as_object().unwrap() {
        for (key, value) in fields.as_object().unwrap() {
            task[part][key] = value.clone();
        }
    }
    serde_json::from_value(task).unwrap()
}

fn deleting(state: &str) -> Task {
    task(state, json!({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}}))
}

fn actual(phase: Phase) -> Actual {
    Actual {
        phase,
        ..Actual::launching(
            Entry {
                uid: "u-1".to_owned(),
                namespace: "shop".to_owned(),
                name: "web-0".to_owned(),
                boot_id: "b".to_owned(),
                ..Entry::default()
            },
            at(0),
        )
    }
}

fn deleting_within(seconds: i64) -> Task {
    let mut task = deleting("Killing");
    task.metadata.deletion_grace_period_seconds = Some(seconds);
    task
}

fn running() -> Actual {
    actual(Phase::Running { started_at: at(0) })
}

fn killed_at(second: i64, actual: Actual) -> Actual {
    let kill = Some(KillOrder {
        cause: KillCause::Deleted,
        ordered_at: at(second),
        signal: 15,
        grace_seconds: 30,
    });
    Actual { entry: Entry { kill, ..actual.entry }, ..actual }
}

fn exited(code: i32) -> Actual {
    actual(Phase::Ended(End::Recorded(Exit {
        exit_code: Some(code),
        signal: None,
        oom_killed: false,
        oom_kills: 0,
        started_at: Some(at(0)),
        finished_at: at(5),
        error: None,
        log_bytes_dropped: 0,
        log_bytes_rotated_away: 0,
    })))
}

fn record(desired: Option<Task>, actual: Option<Actual>) -> Record {
    Record { desired, actual, ..Record::default() }
}

const KEEP: SignedDuration = SignedDuration::from_secs(60);

fn context(second: i64) -> Context<'static> {
    static SITE: std::sync::LazyLock<Site> = std::sync::LazyLock::new(site);
    Context {
        now: at(second),
        site: &SITE,
        kill_all_by: None,
        keep_deleted: KEEP,
        group: Standing::Free,
    }
}

/// The plan at a second, in words: actions, then when to look again.
fn said_with(record: &Record, second: i64, kill_all_by: Option<Timestamp>) -> String {
    let plan = plan(record, &Context { kill_all_by, ..context(second) });
    let mut words: Vec<String> = plan.actions.iter().map(word).collect();
    if let Some(wake_at) = plan.wake_at {
        let milliseconds = wake_at.duration_since(at(0)).as_millis();
        words.push(format!("look at {}", milliseconds as f64 / 1000.0));
    }
    words.join("; ")
}

fn said(record: &Record, second: i64) -> String {
    said_with(record, second, None)
}

fn word(action: &Action) -> String {
    match action {
        Action::Prepare => "prepare".to_owned(),
        Action::Launch(launch) => format!("launch {}", launch.command.join(" ")),
        Action::OrderKill(order) => format!(
            "order kill {:?} signal {} grace {}",
            order.cause, order.signal, order.grace_seconds
        ),
        Action::Signal(signal) => format!("signal {signal}"),
        Action::Watch => "watch".to_owned(),
        Action::Report(status) => format!(
            "report {} {} {}",
            status.state,
            status.reason.as_deref().unwrap_or("-"),
            status.exit_code.map_or("-".to_owned(), |code| code.to_string()),
        ),
        Action::Forget => "forget".to_owned(),
    }
}

#[test]
fn a_task_from_its_arrival_to_its_end() {
    let staging = || Some(task("Staging", json!({})));
    let steps = [
        ("new", record(staging(), None), 0, "launch sleep 9"),
        (
            "being made",
            record(staging(), Some(actual(Phase::Launching { since: at(0) }))),
            0,
            "look at 0.25",
        ),
        (
            "slow to be made",
            record(staging(), Some(actual(Phase::Launching { since: at(0) }))),
            1,
            "report Starting - -",
        ),
        ("runs", record(staging(), Some(running())), 1, "report Running - -"),
        ("runs, known", record(Some(task("Running", json!({}))), Some(running())), 1, ""),
        (
            "ended",
            record(Some(task("Running", json!({}))), Some(exited(3))),
            6,
            "report Failed ExitCode 3",
        ),
        (
            "ended before anything was reported",
            record(staging(), Some(exited(0))),
            6,
            "report Finished - 0",
        ),
        (
            "terminal already reported",
            record(Some(task("Failed", json!({}))), Some(exited(3))),
            7,
            "",
        ),
        ("Task object gone", gone_since(6, exited(3)), 7, "look at 66"),
        ("… for long", gone_since(6, exited(3)), 66, "forget"),
        ("nothing left", record(None, None), 66, "forget"),
        ("not bound yet", record(Some(task("Pending", json!({}))), None), 0, ""),
    ];
    for (case, record, second, want) in steps {
        assert_eq!(said(&record, second), want, "{case}");
    }
}

#[test]
fn a_task_that_needs_something_is_launched_when_that_is_there() {
    let with_image = |state: &str, status: serde_json::Value| {
        let mut task = task(state, json!({}));
        task.spec.container.image = Some("redis:7".to_owned());
        if let (Some(known), Some(reason)) = (&mut task.status, status["reason"].as_str()) {
            known.reason = Some(reason.to_owned());
            known.message = status["message"].as_str().map(str::to_owned);
        }
        Some(task)
    };
    let known = json!({"reason": "Pulling", "message": "Pulling 43 %"});
    let words =
        |percent: u8| Words { reason: reasons::PULLING, message: format!("Pulling {percent} %") };
    let later = || Preparation::Waiting { words: words(0), until: at(9) };
    let ready = || Preparation::Ready(Arc::default());
    for (case, preparation, task, second, want) in [
        ("new", Preparation::NotBegun, with_image("Staging", json!({})), 0, "prepare"),
        ("nothing to say", Preparation::UnderWay(None), with_image("Staging", json!({})), 1, ""),
        (
            "something to say",
            Preparation::UnderWay(Some(words(43))),
            with_image("Staging", json!({})),
            1,
            "report Staging Pulling -",
        ),
        (
            "said",
            Preparation::UnderWay(Some(words(43))),
            with_image("Staging", known.clone()),
            1,
            "",
        ),
        (
            "further",
            Preparation::UnderWay(Some(words(44))),
            with_image("Staging", known),
            1,
            "report Staging Pulling -",
        ),
        (
            "failed for now",
            later(),
            with_image("Staging", json!({})),
            1,
            "report Staging Pulling -; look at 9",
        ),
        (
            "once more",
            later(),
            with_image("Staging", json!({})),
            9,
            "prepare; report Staging Pulling -",
        ),
        (
            "for good",
            Preparation::Failed(Words { reason: reasons::IMAGE_INVALID, message: String::new() }),
            with_image("Staging", json!({})),
            1,
            "report Failed ImageInvalid -",
        ),
        ("ready", ready(), with_image("Staging", json!({})), 1, "launch sleep 9"),
        ("deleted meanwhile", ready(), Some(deleting("Staging")), 1, "report Killed Deleted -"),
    ] {
        let record = Record { preparation, ..record(task, None) };
        assert_eq!(said(&record, second), want, "{case}");
    }
}

fn gone_since(second: i64, actual: Actual) -> Record {
    Record { gone_since: Some(at(second)), ..record(None, Some(actual)) }
}

#[test]
fn a_task_that_is_not_wanted_any_more_is_ended_with_grace() {
    let killing = || Some(deleting("Killing"));
    let with_policy = task(
        "Running",
        json!({
            "metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"},
            "spec": {"killPolicy": {"signal": "INT", "gracePeriodSeconds": 5}},
        }),
    );
    let asked = task(
        "Running",
        json!({"metadata": {
            "deletionTimestamp": "2027-01-15T08:00:00Z", "deletionGracePeriodSeconds": 2,
        }}),
    );
    let at_once = task(
        "Running",
        json!({"metadata": {
            "deletionTimestamp": "2027-01-15T08:00:00Z", "deletionGracePeriodSeconds": 0,
        }}),
    );
    let term_sent = Actual { signalled: Some((15, at(10))), ..killed_at(10, running()) };
    let kill_sent = Actual { signalled: Some((9, at(40))), ..killed_at(10, running()) };
    let steps = [
        (
            "deleted before it was begun",
            record(Some(deleting("Staging")), None),
            "report Killed Deleted -",
        ),
        (
            "deleted while it is being made: at once when it is",
            record(Some(deleting("Staging")), Some(actual(Phase::Launching { since: at(10) }))),
            "order kill Deleted signal 15 grace 30; look at 10.25",
        ),
        (
            "deleted",
            record(Some(deleting("Running")), Some(running())),
            "order kill Deleted signal 15 grace 30",
        ),
        (
            "deleted, with a policy of its own",
            record(Some(with_policy), Some(running())),
            "order kill Deleted signal 2 grace 5",
        ),
        (
            "deleted with --grace-period",
            record(Some(asked), Some(running())),
            "order kill Deleted signal 15 grace 2",
        ),
        (
            "deleted with --grace-period=0",
            record(Some(at_once), Some(running())),
            "order kill Deleted signal 15 grace 0",
        ),
        (
            "ordered",
            record(Some(deleting("Running")), Some(killed_at(10, running()))),
            "signal 15; look at 10.25",
        ),
        (
            "signalled, and it takes its time",
            record(
                Some(deleting("Running")),
                Some(Actual { signalled: Some((15, at(9))), ..killed_at(9, running()) }),
            ),
            "report Killing Deleted -; look at 39",
        ),
        ("signalled", record(killing(), Some(term_sent.clone())), "look at 40"),
        (
            "container of a Task that was deleted while the agent was down",
            record(None, Some(running())),
            "order kill Abandoned signal 15 grace 30",
        ),
        (
            "the control plane has given it up",
            record(Some(task("Lost", json!({}))), Some(running())),
            "order kill Abandoned signal 15 grace 30",
        ),
        (
            "gone after the kill",
            record(killing(), Some(killed_at(1, exited(143)))),
            "report Killed Deleted 143",
        ),
        (
            "ended by itself just before the order",
            record(killing(), Some(killed_at(6, exited(0)))),
            "report Finished - 0",
        ),
    ];
    for (case, record, want) in steps {
        assert_eq!(said(&record, 10), want, "{case}");
    }
    let ignored = record(killing(), Some(term_sent));
    assert_eq!(said(&ignored, 40), "signal 9");
    let stubborn = record(killing(), Some(kill_sent));
    assert_eq!(said(&stubborn, 41), "look at 46");
    assert_eq!(said(&stubborn, 45), "signal 9; look at 50");
}

#[test]
fn what_a_restarted_agent_finds() {
    let steps = [
        (
            "ended while the agent was down",
            record(Some(task("Running", json!({}))), Some(exited(40))),
            "report Failed ExitCode 40",
        ),
        (
            "its shim was lost",
            record(
                Some(task("Running", json!({}))),
                Some(actual(Phase::Ended(End::ShimLost { seen_at: at(9) }))),
            ),
            "report Failed ShimLost -",
        ),
        (
            "the machine was started anew",
            record(
                Some(task("Running", json!({}))),
                Some(actual(Phase::Ended(End::Rebooted { seen_at: at(9) }))),
            ),
            "report Failed AgentRebooted -",
        ),
        (
            "half way into a kill: the grace period goes on where it was",
            record(Some(deleting("Killing")), Some(killed_at(-25, running()))),
            "signal 15; look at 5",
        ),
        (
            "past the grace period",
            record(Some(deleting("Killing")), Some(killed_at(-35, running()))),
            "signal 9",
        ),
        (
            "deleted again, with less patience",
            record(Some(deleting_within(20)), Some(killed_at(-25, running()))),
            "signal 9",
        ),
        (
            "deleted again, with more patience: it was promised less",
            record(Some(deleting_within(600)), Some(killed_at(-35, running()))),
            "signal 9",
        ),
        (
            "the control plane had called it unreachable",
            record(Some(task("Unreachable", json!({}))), Some(running())),
            "report Running - -",
        ),
        (
            "a task that ran here and that the ledger has lost: never run it twice",
            record(Some(task("Running", json!({}))), None),
            "report Failed ShimLost -",
        ),
        (
            "unreachable before it was ever begun",
            record(Some(task("Unreachable", json!({}))), None),
            "launch sleep 9",
        ),
        (
            "terminal, and its directory is gone",
            record(Some(task("Finished", json!({}))), None),
            "",
        ),
    ];
    for (case, record, want) in steps {
        assert_eq!(said(&record, 0), want, "{case}");
    }
}

#[test]
fn a_task_does_not_outlive_its_time_or_its_health() {
    let limited = || Some(task("Running", json!({"spec": {"maxCompletionSeconds": 60}})));
    let in_time = record(limited(), Some(running()));
    assert_eq!(said(&in_time, 59), "look at 60");
    assert_eq!(said(&in_time, 60), "order kill MaxCompletionTime signal 15 grace 30");

    let checked = || {
        Some(task(
            "Running",
            json!({"spec": {
                "healthCheck": {"tcp": {}},
                "container": {"command": ["x"], "ports": [{"hostPort": 31000}]},
            }}),
        ))
    };
    assert_eq!(said(&record(checked(), Some(running())), 1), "watch");
    let mut sick = running();
    sick.health.watched = true;
    sick.health.healthy = Some(false);
    assert_eq!(said(&record(checked(), Some(sick.clone())), 1), "report Running - -");
    sick.health.failed = Some("no answer".to_owned());
    assert_eq!(
        said(&record(checked(), Some(sick)), 1),
        "order kill HealthCheckFailed(\"no answer\") signal 15 grace 30; report Running - -"
    );
}

#[test]
fn what_this_agent_cannot_do_is_refused() {
    let image = task("Staging", json!({"spec": {"container": {"image": "redis:7"}}}));
    assert_eq!(said(&record(Some(image), None), 0), "prepare");
}

#[test]
fn an_end_is_told_with_what_is_left_and_once_more_when_that_is_gone() {
    let ended = |remains| Actual { remains, ..exited(3) };
    let running = || Some(task("Running", json!({})));
    let stuck = || Remains::Something("busy".to_owned());
    assert_eq!(said(&record(running(), Some(ended(Remains::Unknown))), 6), "");
    let told = |record: &Record| match &plan(record, &context(6)).actions[..] {
        [Action::Report(status)] => (status.state, status.cleanup_pending.clone()),
        other => panic!("{other:?}"),
    };
    let failed = TaskState::Failed;
    assert_eq!(told(&record(running(), Some(ended(Remains::Nothing)))), (failed, None));
    let busy = Some("busy".to_owned());
    assert_eq!(told(&record(running(), Some(ended(stuck())))), (failed, busy));
    let pending = || Some(task("Failed", json!({"status": {"cleanupPending": "busy"}})));
    assert_eq!(said(&record(pending(), Some(ended(stuck()))), 6), "");
    assert_eq!(said(&record(pending(), Some(ended(Remains::Unknown))), 6), "");
    assert_eq!(told(&record(pending(), Some(ended(Remains::Nothing)))), (failed, None));
    // What was given away without it is never taken back.
    let closed = Some(task("Failed", json!({})));
    assert_eq!(said(&record(closed, Some(ended(stuck()))), 6), "");
    let lost = Some(task("Lost", json!({})));
    assert_eq!(said(&record(lost, Some(ended(Remains::Nothing))), 6), "");
}

#[test]
fn one_report_and_one_change_at_a_time() {
    let mut record = record(Some(deleting("Staging")), Some(running()));
    record.busy = true;
    assert_eq!(said(&record, 0), "report Running - -");
    record.report.in_flight = true;
    assert_eq!(said(&record, 0), "");
    record.report.in_flight = false;
    record.report.not_before = Some(at(3));
    assert_eq!(said(&record, 0), "look at 3");
    assert_eq!(said(&record, 3), "report Running - -");
}

#[test]
fn a_shutdown_that_takes_the_tasks_along() {
    let by = Some(at(4));
    let live = record(Some(task("Running", json!({}))), Some(running()));
    assert_eq!(said_with(&live, 0, by), "order kill AgentShutdown signal 15 grace 30");
    let ordered = record(Some(deleting("Killing")), Some(killed_at(0, running())));
    assert_eq!(said_with(&ordered, 0, by), "signal 15; look at 4");
    assert_eq!(said_with(&ordered, 4, by), "signal 9");
    // Not begun: left for the next agent.
    assert_eq!(said_with(&record(Some(task("Staging", json!({}))), None), 0, by), "");
    // The API server was never reached, so absence of the Task says nothing.
    assert_eq!(
        said_with(&record(None, Some(running())), 0, by),
        "order kill AgentShutdown signal 15 grace 30"
    );
}

#[test]
fn a_plan_takes_no_notice_of_how_often_it_is_made() {
    let record = record(Some(deleting("Running")), Some(killed_at(0, running())));
    assert_eq!(said(&record, 1), said(&record, 1));
}
