//! Event, in core/v1 and in events.k8s.io/v1: one store, two shapes.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::events::v1::Event as GroupEvent;
use serde_json::Value;

use super::{computed, core, definition, field};
use crate::kinds::event;
use crate::resource::{Column, Conversion, ResourceDef, StoredAs};
use crate::table::age_of;

pub(super) fn definitions() -> [ResourceDef; 2] {
    let core = core_event();
    let group = event_of_group(&core);
    [core, group]
}

fn core_event() -> ResourceDef {
    let mut def = core::<Event>("Event", "events", &["ev"]);
    def.selectable_fields =
        ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"]
            .map(|name| {
                field(&format!("involvedObject.{name}"), &format!(".involvedObject.{name}"))
            })
            .into();
    def.selectable_fields.extend([
        field("reason", ".reason"),
        field("reportingComponent", ".reportingComponent"),
        field("source", ".source.component"),
        field("type", ".type"),
    ]);
    def.trigger_field = None;
    def.columns = columns([".involvedObject.fieldPath", ".source.component", ".message", ".count"]);
    def
}

/// The same objects under other names of some fields.
fn event_of_group(core: &ResourceDef) -> ResourceDef {
    let mut def = definition::<GroupEvent>(event::GROUP, "Event", "events", &["ev"]);
    // Looked up in what is stored.
    let about = ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"];
    def.selectable_fields = about
        .map(|name| field(&format!("regarding.{name}"), &format!(".involvedObject.{name}")))
        .into();
    def.selectable_fields.extend([
        field("reason", ".reason"),
        field("reportingController", ".reportingComponent"),
        field("type", ".type"),
    ]);
    def.columns =
        columns([".regarding.fieldPath", ".reportingController", ".note", ".deprecatedCount"]);
    let (stored, conversion) = (Arc::new(core.clone()), Conversion::Event);
    def.storage_version_hash.clone_from(&core.storage_version_hash);
    def.stored_as = Some(StoredAs { def: stored, conversion });
    def
}

fn event_first_seen(event: &Value, now: Timestamp) -> Value {
    let names = ["firstTimestamp", "deprecatedFirstTimestamp", "eventTime"];
    let first = names.map(|name| event.get(name)).into_iter().flatten().find_map(Value::as_str);
    first.map_or("<unknown>".to_owned(), |first| age_of(first, now)).into()
}

fn event_last_seen(event: &Value, now: Timestamp) -> Value {
    let last = event.pointer("/series/lastObservedTime");
    let last = ["lastTimestamp", "deprecatedLastTimestamp"]
        .into_iter()
        .fold(last, |last, name| last.or_else(|| event.get(name)));
    match last.and_then(Value::as_str) {
        Some(last) => age_of(last, now).into(),
        None => event_first_seen(event, now),
    }
}

fn event_object(event: &Value, _now: Timestamp) -> Value {
    let about = event.get("involvedObject").or_else(|| event.get("regarding"));
    let text = |name: &str| about.and_then(|one| one.get(name)?.as_str()).unwrap_or("");
    let kind = text("kind").to_lowercase();
    match text("name") {
        "" => kind.into(),
        name => format!("{kind}/{name}").into(),
    }
}

/// The same columns for both groups, from the fields that each of them names differently.
fn columns([subobject, source, message, count]: [&str; 4]) -> Vec<Column> {
    let wide = |mut column: Column| {
        column.priority = 1;
        column
    };
    let path = |name: &str, path: &str, words: &str| Column::path(name, "string", path, words);
    vec![
        computed("Last Seen", "When the event was last seen", event_last_seen),
        path("Type", ".type", "Normal or Warning"),
        path("Reason", ".reason", "Machine-readable cause"),
        computed("Object", "What the event is about", event_object),
        wide(path("Subobject", subobject, "Part of the object")),
        wide(path("Source", source, "Who reported it")),
        path("Message", message, "What happened, in words"),
        wide(computed("First Seen", "When the event was first seen", event_first_seen)),
        wide(Column::path("Count", "integer", count, "How often it was seen")),
        wide(Column::name()),
    ]
}
