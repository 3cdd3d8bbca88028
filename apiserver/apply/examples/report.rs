//! What the entries cost in one report of an agent on a task: `report trees|text|none COUNT`.
//!
//! Reads a stored task, changes its status, notes who changed it and prints it, as the API server does
//! for each merge patch of a status. `trees` makes trees of `managedFields` too, `text` leaves them text,
//! `none` is of a task without any: what there is to do besides. Count the instructions of each with
//! `valgrind --tool=callgrind`.
#![forbid(unsafe_code)]

use commonage_apply::{Types, Writer, record, record_text};
use serde_json::{Value, json};

/// Who writes a status does not own the rest.
const IGNORED: [&str; 2] = ["spec", "metadata"];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, how, count] = arguments.as_slice() else { panic!("report trees|text|none COUNT") };
    let count: u64 = count.parse().expect("a number of reports");
    let types =
        Types::compile(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    let mut stored = stored(&types, how != "none");
    println!("{how}: {} bytes", stored.0.len() + stored.1.as_ref().map_or(0, String::len));
    if how == "trees" {
        let (rest, entries) = &stored;
        let mut whole: Value = serde_json::from_str(rest).expect("it was printed");
        let entries = entries.as_deref().expect("a task with entries");
        whole["metadata"]["managedFields"] = serde_json::from_str(entries).expect("likewise");
        stored = (whole.to_string(), None);
    }
    for number in 1..=count {
        stored = match how.as_str() {
            "trees" => (report_trees(&types, &stored.0, number), None),
            _ => report_text(&types, &stored, number),
        };
    }
}

fn writer(now: &str) -> Writer<'_> {
    Writer {
        manager: "commonage-agent",
        api_version: "commonage.dev/v1",
        subresource: "status",
        now,
    }
}

/// A task that was created and reported on: without its entries, and those.
fn stored(types: &Types, with_entries: bool) -> (String, Option<String>) {
    let mut task = json!({
        "apiVersion": "commonage.dev/v1", "kind": "Task",
        "metadata": {
            "name": "load-17", "namespace": "simulation", "generation": 2,
            "uid": "5b6a7c1e-6d0f-4a53-9c39-0d4f0f8d8f11", "creationTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": ["commonage.dev/container"], "labels": {"app": "load"},
        },
        "spec": {
            "resources": {"cpu": "100m", "memory": "64Mi"}, "framework": "default", "queue": "default",
            "container": {"command": ["sleep", "30"], "env": [{"name": "A", "value": "1"}]},
            "constraints": {"required": {"matchLabels": {"commonage.dev/simulated": "true"}}},
            "killPolicy": {"gracePeriodSeconds": 10}, "ttlSecondsAfterFinished": 5,
        },
    });
    if with_entries {
        let creator = Writer { manager: "cmn", subresource: "", ..writer("2026-01-01T00:00:00Z") };
        record(types, &["status"], None, &mut task, &creator);
        let before = task.clone();
        set_status(&mut task, 0);
        record(types, &IGNORED, Some(&before), &mut task, &writer("2026-01-01T00:00:01Z"));
    }
    let metadata = task["metadata"].as_object_mut().expect("it is above");
    let entries = metadata.remove("managedFields").map(|entries| entries.to_string());
    (task.to_string(), entries)
}

fn set_status(task: &mut Value, number: u64) {
    task["status"] = json!({
        "state": "Running", "agent": "sim-17", "message": format!("report {number}"),
        "startedAt": "2026-01-01T00:00:01Z", "containerId": "0d4f0f8d8f11", "ready": true,
        "history": [
            {"state": "Pending", "time": "2026-01-01T00:00:00Z"},
            {"state": "Staging", "time": "2026-01-01T00:00:00Z"},
            {"state": "Running", "time": "2026-01-01T00:00:01Z"},
        ],
    });
}

fn report_trees(types: &Types, stored: &str, number: u64) -> String {
    let old: Value = serde_json::from_str(stored).expect("it was printed");
    let mut new = old.clone();
    set_status(&mut new, number);
    record(types, &IGNORED, Some(&old), &mut new, &writer("2026-01-01T00:00:02Z"));
    assert_ne!(old, new);
    new.to_string()
}

fn report_text(
    types: &Types,
    (stored, entries): &(String, Option<String>),
    number: u64,
) -> (String, Option<String>) {
    let old: Value = serde_json::from_str(stored).expect("it was printed");
    let mut new = old.clone();
    set_status(&mut new, number);
    let writer = writer("2026-01-01T00:00:02Z");
    let entries = record_text(types, &IGNORED, &old, &new, &writer, entries.as_deref());
    assert_ne!(old, new);
    (new.to_string(), entries.expect("these entries are ours"))
}
