//! Groups: who waits for whom, who starts, who ends with whom.

#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use commonage_shim::launch::Exit;
use serde_json::{Value, json};

use super::*;
use crate::ledger::Entry;
use crate::plan::Actual;
use crate::task::outcome::End;

const KEY: &str = "shop//pod";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// One of a group of `size` that was bound at second 0; `changes` are merged over it.
fn waiting(name: &str, size: i32, changes: Value) -> Record {
    let mut task = json!({
        "apiVersion": "commonage.dev/v1",
        "kind": "Task",
        "metadata": {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": at(0).to_string()},
        "spec": {"group": "pod", "agent": "node-1", "container": {"command": ["sleep", "9"]}},
        "status": {"state": "Staging", "groupSize": size, "history": [{"state": "Staging", "time": at(0).to_string()}]},
    });
    for (part, fields) in changes.as_object().unwrap() {
        for (field, value) in fields.as_object().unwrap() {
            task[part][field] = value.clone();
        }
    }
    Record { desired: Some(serde_json::from_value(task).unwrap()), ..Record::default() }
}

fn begun(name: &str, round: &str, members: &[&str], phase: Phase) -> Record {
    let entry = Entry {
        uid: name.to_owned(),
        name: name.to_owned(),
        group: Some(Membership {
            key: KEY.to_owned(),
            round: round.to_owned(),
            members: members.iter().map(|member| (*member).to_owned()).collect(),
        }),
        ..Entry::default()
    };
    let actual = Actual { phase, ..Actual::launching(entry, at(0)) };
    Record { actual: Some(actual), ..waiting(name, 2, json!({})) }
}

fn running(name: &str, round: &str, members: &[&str]) -> Record {
    begun(name, round, members, Phase::Running { started_at: at(1) })
}

fn ended(name: &str, round: &str, members: &[&str], exit_code: i32) -> Record {
    let exit: Exit =
        serde_json::from_value(json!({"exitCode": exit_code, "finishedAt": at(5).to_string()}))
            .unwrap();
    begun(name, round, members, Phase::Ended(End::Recorded(exit)))
}

/// How things stand for the first of them at a second, in short.
fn standing(records: &[(&str, Record)], second: i64) -> String {
    let uids: Vec<Uid> = records.iter().map(|(name, _)| (*name).to_owned()).collect();
    let company = Company(uids.iter().zip(records.iter().map(|(_, record)| record)).collect());
    match company.standing(&uids[0], at(second)) {
        Standing::Free => "free".to_owned(),
        Standing::Wait { until, words } => {
            let words = words.map_or("-".to_owned(), |words| words.message);
            format!("wait {} {words}", (until.duration_since(at(0))).as_secs())
        }
        Standing::Over(words) => format!("{}: {}", words.reason, words.message),
    }
}

#[test]
fn a_task_alone_is_free() {
    let mut alone = waiting("a", 0, json!({}));
    assert_eq!(standing(&[("a", alone.clone())], 0), "free", "an old API server says no size");
    alone = waiting("a", 1, json!({}));
    assert_eq!(standing(&[("a", alone)], 0), "free");
}

#[test]
fn all_start_when_all_are_here_and_ready() {
    let plain = |name: &str| waiting(name, 2, json!({}));
    assert_eq!(standing(&[("a", plain("a"))], 0), "wait 5 -");
    assert_eq!(
        standing(&[("a", plain("a"))], 6),
        "wait 60 waits for 1 more of the 2 tasks of group \"pod\""
    );
    assert_eq!(
        standing(&[("a", plain("a"))], 60),
        "GroupIncomplete: of the 2 tasks of group \"pod\" only 1 came to this agent within 60 s"
    );
    assert_eq!(standing(&[("a", plain("a")), ("b", plain("b"))], 0), "free");
    let mut pulls = waiting("b", 2, json!({"spec": {"container": {"image": "x"}}}));
    let pair = [("a", plain("a")), ("b", pulls.clone())];
    assert_eq!(standing(&pair, 0), "wait 5 -");
    let said = "wait 605 waits until 1 of group \"pod\" are ready to start with it";
    assert_eq!(standing(&pair, 600), said, "an image may take its time");
    pulls.preparation = Preparation::Ready(Arc::default());
    assert_eq!(standing(&[("a", plain("a")), ("b", pulls)], 600), "free");
}

#[test]
fn what_strikes_one_before_the_start_strikes_all() {
    let plain = || waiting("a", 2, json!({}));
    let cases = [
        (json!({"metadata": {"deletionTimestamp": at(1).to_string()}}), "deleted"),
        (json!({"spec": {"kill": {"reason": "Preempted"}}}), "told to end"),
        (json!({"spec": {"container": {}}}), "Error"),
        (json!({"status": {"state": "Error", "finishedAt": at(0).to_string()}}), "Error"),
        (json!({"status": {"state": "Killed", "finishedAt": at(2).to_string()}}), "Killed"),
    ];
    for (changes, what) in cases {
        let other = waiting("b", 2, changes);
        let said = format!("GroupEnded: task b of its group is {what}");
        assert_eq!(standing(&[("a", plain()), ("b", other)], 1), said);
    }
    let mut other = waiting("b", 2, json!({}));
    let words = Words { reason: reasons::IMAGE_INVALID, message: String::new() };
    other.preparation = Preparation::Failed(words);
    let said = "GroupEnded: task b of its group is Failed (ImageInvalid)";
    assert_eq!(standing(&[("a", plain()), ("b", other)], 1), said);
}

#[test]
fn an_attempt_of_the_past_is_no_concern_of_the_next() {
    let of_old = json!({"status": {"state": "Error", "finishedAt": at(-1).to_string()}});
    let pair = [("a", waiting("a", 1, json!({}))), ("b", waiting("b", 2, of_old))];
    assert_eq!(standing(&pair, 0), "free");
    let pair = [("a", waiting("a", 1, json!({}))), ("b", ended("b", "b", &["b"], 3))];
    assert_eq!(standing(&pair, 6), "free");
}

#[test]
fn the_failure_of_one_ends_its_round_and_success_does_not() {
    let both = ["a", "b"];
    let pair = |other: Record| [("a", running("a", "a", &both)), ("b", other)];
    assert_eq!(standing(&pair(running("b", "a", &both)), 2), "free");
    assert_eq!(standing(&pair(ended("b", "a", &both, 0)), 6), "free");
    let failed = "GroupEnded: task b of its group is Failed (ExitCode)";
    assert_eq!(standing(&pair(ended("b", "a", &both, 3)), 6), failed);
    assert_eq!(standing(&pair(ended("b", "other", &["b"], 3)), 6), "free");
    // One that was to start with it, and has not yet.
    assert_eq!(standing(&pair(waiting("b", 2, json!({}))), 2), "free");
    let gone = waiting("b", 2, json!({"metadata": {"deletionTimestamp": at(1).to_string()}}));
    let said = "GroupEnded: task b of its group is deleted";
    assert_eq!(standing(&pair(gone), 2), said);
    let late = [("b", waiting("b", 2, json!({}))), ("a", ended("a", "a", &both, 3))];
    let said = "GroupEnded: task a of its group is Failed (ExitCode)";
    assert_eq!(standing(&late, 6), said, "it belongs to that round");
}

#[test]
fn one_network_for_all() {
    let own = waiting("b", 2, json!({"spec": {"container": {"command": ["x"], "network": "lan"}}}));
    let said = "Unsupported: spec.container.network: \"lan\", but the tasks of a group share one network, and a has \
                \"Host\"";
    assert_eq!(standing(&[("b", own), ("a", waiting("a", 2, json!({})))], 1), said);
}

#[test]
fn rounds_are_joined_begun_and_ended() {
    fn company<'a>(all: &'a [(Uid, Record)]) -> Company<'a> {
        Company(all.iter().map(|(uid, record)| (uid, record)).collect())
    }
    let of = |records: Vec<(&str, Record)>| -> Vec<(Uid, Record)> {
        records.into_iter().map(|(name, record)| (name.to_owned(), record)).collect()
    };
    let (a, b) = ("a".to_owned(), "b".to_owned());
    let fresh = of(vec![("a", waiting("a", 2, json!({}))), ("b", waiting("b", 2, json!({})))]);
    let first = company(&fresh).join(&b, KEY.to_owned());
    assert_eq!((first.round.as_str(), first.members), ("b", vec![a.clone(), b.clone()]));
    let half = of(vec![("a", waiting("a", 2, json!({}))), ("b", running("b", "b", &["a", "b"]))]);
    let second = company(&half).join(&a, KEY.to_owned());
    assert_eq!((second.round.as_str(), second.members), ("b", vec![a.clone(), b.clone()]));
    assert_eq!(company(&half).rounds_alive(), BTreeSet::from([b.clone()]));
    let late = of(vec![("c", waiting("c", 1, json!({}))), ("b", running("b", "b", &["b"]))]);
    let third = company(&late).join(&"c".to_owned(), KEY.to_owned());
    assert_eq!((third.round.as_str(), third.members), ("b", vec!["c".to_owned()]));
    let over = of(vec![("c", waiting("c", 1, json!({}))), ("b", ended("b", "b", &["b"], 0))]);
    assert_eq!(company(&over).join(&"c".to_owned(), KEY.to_owned()).round, "c");
    assert!(company(&over).rounds_alive().is_empty());
    // Nobody joins those who are about to end.
    let ill = of(vec![
        ("c", waiting("c", 1, json!({}))),
        ("b", running("b", "b", &["a", "b"])),
        ("a", ended("a", "b", &["a", "b"], 1)),
    ]);
    assert_eq!(company(&ill).join(&"c".to_owned(), KEY.to_owned()).round, "c");
}
