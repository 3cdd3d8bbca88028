//! Event: one kind in two groups. Objects are stored as core/v1 has them; events.k8s.io/v1 calls
//! some fields otherwise, and asks for more.

use serde_json::{Value, json};

use crate::builtin;
use crate::status::Cause;
use crate::strategy::Strategy;

/// Names in core/v1 and in events.k8s.io/v1 of the fields that differ.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

const CORE: &str = "v1";
pub(crate) const GROUP: &str = "events.k8s.io";
const NEW: &str = "events.k8s.io/v1";

/// A stored event as events.k8s.io/v1 has it.
pub(crate) fn to_new(event: &mut Value) {
    rename(event, NAMES.map(|(old, new)| (old, new)), NEW);
    builtin::fill(&builtin::zero_of(GROUP, "Event").unwrap_or_default(), event);
}

/// An event of events.k8s.io/v1 as it is stored.
pub(crate) fn to_core(event: &mut Value) {
    rename(event, NAMES.map(|(old, new)| (new, old)), CORE);
    builtin::fill(&zero(), event);
}

/// What a core/v1 event always has.
pub(crate) fn zero() -> Value {
    json!({
        "involvedObject": {}, "source": {}, "firstTimestamp": null, "lastTimestamp": null,
        "eventTime": null, "reportingComponent": "", "reportingInstance": "",
    })
}

fn rename(event: &mut Value, names: [(&str, &str); 7], api_version: &str) {
    let Some(members) = event.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = members.remove(from) {
            members.insert(to.to_owned(), value);
        }
    }
    members.insert("apiVersion".to_owned(), api_version.into());
}

/// Events of both groups.
pub(super) struct Events;

impl Strategy for Events {
    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let is_new = object["apiVersion"] == NEW;
        let mut causes = Vec::new();
        if old.is_none() {
            check_namespace(object, is_new, &mut causes);
            check_reporter(object, is_new, &mut causes);
            if is_new {
                check_new(object, &mut causes);
            }
        }
        causes
    }
}

fn text<'o>(object: &'o Value, field: &str) -> &'o str {
    object[field].as_str().unwrap_or_default()
}

/// An event is where the object is that it is about; about what has no namespace, in `default`.
fn check_namespace(object: &Value, is_new: bool, causes: &mut Vec<Cause>) {
    let about = if is_new { "regarding" } else { "involvedObject" };
    let about = text(&object[about], "namespace");
    let namespace = text(&object["metadata"], "namespace");
    let fits = match about {
        "" => namespace == "default",
        about => about == namespace,
    };
    if !fits {
        let field = "involvedObject.namespace";
        causes.push(Cause::invalid(field, &about.into(), "does not match event.namespace"));
    }
}

/// Whoever says when exactly it happened says the rest too.
fn check_reporter(object: &Value, is_new: bool, causes: &mut Vec<Cause>) {
    if object["eventTime"].is_null() {
        return;
    }
    let controller = if is_new { "reportingController" } else { "reportingComponent" };
    let limits = [(controller, 0), ("reportingInstance", 128), ("action", 128), ("reason", 128)];
    for (field, longest) in limits {
        let value = text(object, field);
        if value.is_empty() {
            causes.push(Cause::required(field, ""));
        } else if field == controller {
            for why in crate::meta::qualified_name_errors(value) {
                causes.push(Cause::invalid(field, &value.into(), &why));
            }
        } else if value.len() > longest {
            let why = format!("can have at most {longest} characters");
            causes.push(Cause::invalid(field, &"".into(), &why));
        }
    }
    let words = if is_new { "note" } else { "message" };
    if text(object, words).len() > 1024 {
        let why = "can have at most 1024 characters";
        causes.push(Cause::invalid("message", &"".into(), why));
    }
}

/// What only events.k8s.io asks for.
fn check_new(object: &Value, causes: &mut Vec<Cause>) {
    if object["eventTime"].is_null() {
        causes.push(Cause::required("eventTime", ""));
    }
    let kind = text(object, "type");
    if !matches!(kind, "Normal" | "Warning") {
        let why = format!("has invalid value: {kind}");
        causes.push(Cause::invalid("type", &"".into(), &why));
    }
    let unset = [
        ("firstTimestamp", "deprecatedFirstTimestamp"),
        ("lastTimestamp", "deprecatedLastTimestamp"),
        ("count", "deprecatedCount"),
    ];
    for (field, name) in unset {
        if !object[name].is_null() && object[name] != 0 {
            causes.push(Cause::invalid(field, &"".into(), "needs to be unset"));
        }
    }
    let source = &object["deprecatedSource"];
    if !text(source, "component").is_empty() || !text(source, "host").is_empty() {
        causes.push(Cause::invalid("source", &"".into(), "needs to be unset"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_event() -> Value {
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": "a", "namespace": "ns"},
            "eventTime": "2026-01-02T03:04:05.000006Z", "type": "Normal", "reason": "r", "action": "a",
            "reportingController": "example.com/c", "reportingInstance": "c-1", "note": "words",
            "regarding": {"kind": "Task", "name": "t", "namespace": "ns"},
        })
    }

    #[test]
    fn an_event_goes_both_ways() {
        let mut event = new_event();
        to_core(&mut event);
        assert_eq!(event["apiVersion"], "v1");
        assert_eq!(event["involvedObject"]["name"], "t");
        assert_eq!((&event["message"], event.get("note")), (&json!("words"), None));
        assert_eq!(event["reportingComponent"], "example.com/c");
        to_new(&mut event);
        let mut whole = new_event();
        builtin::fill(&builtin::zero_of(GROUP, "Event").unwrap_or_default(), &mut whole);
        assert_eq!(event, whole);
    }

    #[test]
    fn each_group_asks_for_its_own() {
        let told = |event: &Value| -> Vec<String> {
            let causes = Events.validate(event, None);
            causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
        };
        assert_eq!(told(&new_event()), Vec::<String>::new());
        let mut event = new_event();
        event["eventTime"] = Value::Null;
        event["type"] = json!("Strange");
        event["deprecatedCount"] = json!(2);
        assert_eq!(
            told(&event),
            [
                "eventTime: Required value",
                "type: Invalid value: \"\": has invalid value: Strange",
                "count: Invalid value: \"\": needs to be unset",
            ]
        );
        let old = json!({
            "apiVersion": "v1", "metadata": {"namespace": "ns"}, "involvedObject": {"namespace": "other"},
            "eventTime": "2026-01-02T03:04:05.000006Z", "reportingInstance": "i", "action": "a", "reason": "r",
        });
        assert_eq!(
            told(&old),
            [
                "involvedObject.namespace: Invalid value: \"other\": does not match event.namespace",
                "reportingComponent: Required value",
            ]
        );
    }
}
