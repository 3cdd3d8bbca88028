//! Kinds on loan: Tasks as core/v1 Pods and Agents as Nodes, for clients that know no others.
//!
//! `kubectl logs`, `exec`, `attach`, `cp` and `port-forward` work on pods alone. A view has no
//! objects of its own: it is worked out of the objects of its source, at their versions, when
//! somebody looks. Pure; the engine reads and selects the sources.

mod cells;
mod definitions;
mod events;
mod node;
mod pod;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use commonage_schemas::GROUP;
use serde_json::Value;

pub(crate) use definitions::definitions;
pub(crate) use events::shown_in_events;
pub(crate) use pod::CONTAINER;

use crate::cache::EventKind;
use crate::object::Object;

/// What is shown, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Of Tasks.
    Pod,
    /// Of Agents.
    Node,
}

impl View {
    /// Group and kind of the objects that are shown.
    pub(crate) fn source(self) -> (&'static str, &'static str) {
        match self {
            View::Pod => (GROUP, "Task"),
            View::Node => (GROUP, "Agent"),
        }
    }

    /// The view's own kind, of core/v1.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            View::Pod => "Pod",
            View::Node => "Node",
        }
    }

    pub(crate) fn project(self, source: &Value) -> Value {
        match self {
            View::Pod => pod::project(source),
            View::Node => node::project(source),
        }
    }

    /// The source's object as this view shows it, and its watch line.
    pub(crate) fn object(self, source: &Object, kind: EventKind) -> (Object, Bytes) {
        source.shown_as(&uid(&source.uid), &self.project(&source.to_value()), kind)
    }

    /// A selectable field of the view; `source` knows those of the source.
    pub(crate) fn field<'o>(
        self,
        field: &str,
        source: impl Fn(&str) -> Option<&'o str>,
    ) -> Option<&'o str> {
        match (self, field) {
            (View::Pod, "status.phase") => Some(pod::phase(source("status.state").unwrap_or(""))),
            (View::Pod, "spec.restartPolicy") => Some(pod::RESTART_POLICY),
            (View::Pod, "spec.schedulerName") => Some(pod::SCHEDULER),
            _ => source(self.source_field(field)?),
        }
    }

    /// The field of the source that says the same.
    fn source_field(self, field: &str) -> Option<&'static str> {
        (self == View::Pod && field == "spec.nodeName").then_some("spec.agent")
    }

    /// The view's name for a field of the source, if it has one.
    pub(crate) fn name_of(self, field: &str) -> Option<&'static str> {
        match (self, field) {
            (_, "metadata.name") => Some("metadata.name"),
            (_, "metadata.namespace") => Some("metadata.namespace"),
            (View::Pod, "spec.agent") => Some("spec.nodeName"),
            _ => None,
        }
    }
}

/// Another uid than the source's, for clients that know objects by it alone: version 8 of UUIDs
/// ("vendor specific") instead of 4.
pub(crate) fn uid(source: &str) -> String {
    with_version(source, "4", "8")
}

/// The way back.
pub(crate) fn source_uid(uid: &str) -> String {
    with_version(uid, "8", "4")
}

fn with_version(uid: &str, from: &str, to: &str) -> String {
    /// Where a UUID's version stands in its text.
    const AT: usize = 14;
    match uid.get(AT..AT + 1) {
        Some(version) if version == from => format!("{}{to}{}", &uid[..AT], &uid[AT + 1..]),
        _ => uid.to_owned(),
    }
}

/// What every view takes over of its source's metadata: all but what speaks of the source alone.
fn metadata(source: &Value) -> serde_json::Map<String, Value> {
    const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
    const KEPT: [&str; 8] = [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
    ];
    let mut kept = serde_json::Map::new();
    for key in KEPT {
        if let Some(value) = source.pointer(&format!("/metadata/{key}")) {
            kept.insert(key.to_owned(), value.clone());
        }
    }
    if let Some(own) = kept.get("uid").and_then(Value::as_str).map(uid) {
        kept.insert("uid".to_owned(), own.into());
    }
    if let Some(annotations) = kept.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
        if annotations.is_empty() {
            kept.remove("annotations");
        }
    }
    kept
}

fn text<'v>(object: &'v Value, pointer: &str) -> Option<&'v str> {
    object.pointer(pointer)?.as_str().filter(|text| !text.is_empty())
}

/// Members that are there, in order.
fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    members
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// cpu, memory and disk, by the names that Kubernetes has for them.
fn resources(resources: Option<&Value>) -> Option<Value> {
    let names = [("cpu", "cpu"), ("memory", "memory"), ("disk", "ephemeral-storage")];
    let named: serde_json::Map<String, Value> = names
        .into_iter()
        .filter_map(|(ours, theirs)| Some((theirs.to_owned(), resources?.get(ours)?.clone())))
        .collect();
    (!named.is_empty()).then(|| named.into())
}
