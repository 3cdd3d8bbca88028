//! From the start of a container to its end.

use commonage_agent::runtime::Seen;
use commonage_agent::task::outcome::{self, End};
use commonage_schemas::TaskState;

use crate::Test;
use crate::fixture::{Hands, directory, eventually};

pub const TESTS: &[Test] = &[
    ("a_container_runs_and_ends", a_container_runs_and_ends),
    ("a_short_one_may_be_over_before_it_is_seen", a_short_one_may_be_over_before_it_is_seen),
    ("a_command_that_does_not_exist_is_named", a_command_that_does_not_exist_is_named),
    ("a_signal_reaches_the_command", a_signal_reaches_the_command),
];

fn a_container_runs_and_ends() {
    let dir = directory();
    let hands = Hands::new(
        dir.path(),
        "echo $COMMONAGE_TASK; until [ -e go ]; do sleep 0.01; done; exit 3",
    );
    let seen = hands.shims.start(&hands.entry, &hands.launch, &Default::default());
    assert!(matches!(seen, Seen::Running { .. }), "{seen:?}");
    assert_eq!(hands.ledger.entries().unwrap(), std::slice::from_ref(&hands.entry));
    assert!(!hands.ledger.has_ended(hands.uid()));
    hands.go();
    let End::Recorded(exit) = hands.end() else { panic!("not recorded") };
    assert_eq!(exit.exit_code, Some(3));
    assert!(hands.ledger.has_ended(hands.uid()));
    assert_eq!(hands.stdout(), "t\n");
}

fn a_short_one_may_be_over_before_it_is_seen() {
    let dir = directory();
    let hands = Hands::new(dir.path(), "true");
    let end = match hands.shims.start(&hands.entry, &hands.launch, &Default::default()) {
        Seen::Ended(end) => end,
        Seen::Running { .. } => hands.end(),
        seen => panic!("{seen:?}"),
    };
    assert_eq!(outcome::of(&end, None).state, TaskState::Finished);
}

fn a_command_that_does_not_exist_is_named() {
    let dir = directory();
    let mut hands = Hands::new(dir.path(), "");
    hands.launch.command = vec!["no-such-program".to_owned()];
    let end = match hands.shims.start(&hands.entry, &hands.launch, &Default::default()) {
        Seen::Ended(end) => end,
        Seen::Running { .. } => hands.end(),
        seen => panic!("{seen:?}"),
    };
    let status = outcome::of(&end, None);
    assert_eq!(status.reason.as_deref(), Some("CommandNotFound"), "{status:?}");
    assert!(status.message.unwrap().contains("no-such-program"));
}

fn a_signal_reaches_the_command() {
    let dir = directory();
    let hands =
        Hands::new(dir.path(), "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done");
    hands.shims.start(&hands.entry, &hands.launch, &Default::default());
    eventually("the trap is set", || hands.stdout().contains("ready").then_some(()));
    hands.shims.signal(hands.uid(), 15).unwrap();
    let End::Recorded(exit) = hands.end() else { panic!("not recorded") };
    assert_eq!(exit.exit_code, Some(7));
    // Whoever comes too late is told nothing bad.
    hands.shims.signal(hands.uid(), 9).unwrap();
}
