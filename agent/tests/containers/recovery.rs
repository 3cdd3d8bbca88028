//! The agent dies with `kill -9`, its shims do, or the ledger is only half written.

use std::path::Path;
use std::process::{Child, Command, ExitCode};

use commonage_agent::ledger::Entry;
use commonage_agent::runtime::Seen;
use commonage_agent::task::outcome::End;
use commonage_shim::Shim;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Test;
use crate::fixture::{Hands, directory, eventually};

pub const TESTS: &[Test] = &[
    ("a_killed_agent_leaves_its_task_to_the_next", a_killed_agent_leaves_its_task_to_the_next),
    ("an_end_while_no_agent_was_there_is_found", an_end_while_no_agent_was_there_is_found),
    ("a_lost_shim_takes_its_container_along", a_lost_shim_takes_its_container_along),
    ("what_was_only_written_down_never_ran", what_was_only_written_down_never_ran),
];

/// `argv[1]` of the agent that is killed.
pub const STAND_IN: &str = "stand-in-agent";

const WAITS: &str = "echo ready; until [ -e go ]; do sleep 0.01; done; exit 41";

/// An agent that starts one task and then does nothing until it is killed.
pub fn stand_in(data_dir: &Path, script: &str) -> ExitCode {
    let hands = Hands::new(data_dir, script);
    let seen = hands.shims.start(&hands.entry, &hands.launch, &Default::default());
    println!("{seen:?}");
    loop {
        std::thread::park();
    }
}

fn agent_on(data_dir: &Path, script: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([STAND_IN.as_ref(), data_dir.as_os_str(), script.as_ref()])
        .spawn()
        .unwrap()
}

fn kill_9(mut agent: Child) {
    agent.kill().unwrap();
    agent.wait().unwrap();
}

fn a_killed_agent_leaves_its_task_to_the_next() {
    let dir = directory();
    let next = Hands::new(dir.path(), WAITS);
    let agent = agent_on(dir.path(), WAITS);
    eventually("the task runs", || next.stdout().contains("ready").then_some(()));
    kill_9(agent);
    assert_eq!(next.ledger.entries().unwrap().len(), 1);
    let seen = eventually("the task is found", || match next.shims.look(next.uid()) {
        Seen::Starting => None,
        seen => Some(seen),
    });
    assert!(matches!(seen, Seen::Running { .. }), "{seen:?}");
    next.go();
    let End::Recorded(exit) = next.end() else { panic!("not recorded") };
    assert_eq!(exit.exit_code, Some(41));
    assert_eq!(next.stdout(), "ready\n");
}

fn an_end_while_no_agent_was_there_is_found() {
    let dir = directory();
    let next = Hands::new(dir.path(), WAITS);
    let agent = agent_on(dir.path(), WAITS);
    eventually("the task runs", || next.stdout().contains("ready").then_some(()));
    kill_9(agent);
    next.go();
    let exit_json = next.ledger.state_dir(next.uid()).exit_json();
    eventually("the shim records the end", || exit_json.exists().then_some(()));
    let Seen::Ended(End::Recorded(exit)) = next.shims.look(next.uid()) else {
        panic!("not found");
    };
    assert_eq!(exit.exit_code, Some(41));
}

fn a_lost_shim_takes_its_container_along() {
    let dir = directory();
    let hands = Hands::new(dir.path(), "echo ready; sleep 1000 & sleep 1000");
    hands.shims.start(&hands.entry, &hands.launch, &Default::default());
    eventually("the task runs", || hands.stdout().contains("ready").then_some(()));
    let path = hands.ledger.state_dir(hands.uid());
    let status = Shim::connect(path.path()).unwrap().status().unwrap();
    kill(Pid::from_raw(status.shim_pid), Signal::SIGKILL).unwrap();
    let end = hands.end();
    assert!(matches!(end, End::ShimLost { .. }), "{end:?}");
    assert!(hands.ledger.has_ended(hands.uid()));
    // Its init and with it the whole container is gone; the id may only belong to a stranger.
    let init = status.pid.unwrap();
    let comm = std::fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap_or_default();
    assert!(!comm.contains(hands.uid()), "still there: {comm}");
}

fn what_was_only_written_down_never_ran() {
    let dir = directory();
    let hands = Hands::new(dir.path(), "true");
    hands.ledger.write(&hands.entry).unwrap();
    assert_eq!(hands.shims.look(hands.uid()), Seen::NotStarted);
    // The order was given, the shim was never asked for.
    hands.ledger.make_sandbox(hands.uid()).unwrap();
    hands.ledger.state_dir(hands.uid()).prepare(&hands.launch).unwrap();
    assert_eq!(hands.shims.look(hands.uid()), Seen::NotStarted);
    // On another start of the machine nothing of it is left either.
    let before = Entry { boot_id: "another".to_owned(), ..hands.entry.clone() };
    hands.ledger.write(&before).unwrap();
    assert_eq!(hands.shims.look(hands.uid()), Seen::NotStarted);
}
