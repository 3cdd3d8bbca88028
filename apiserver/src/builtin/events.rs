//! Event, in core/v1 and in events.k8s.io/v1: one store, two shapes.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::events::v1::Event as GroupEvent;
use serde_json::Value;

use super::{as_printed, computed, core, definition, field};
use crate::kinds::event;
use crate::resource::{Column, Conversion, ResourceDef, StoredAs};
use crate::table::age_of;

/// The columns in which fields of a core/v1 event are shown, whatever the other group calls them.
const SHOWN: [(&str, &str); 9] = [
    ("Last Seen", "lastTimestamp"),
    ("Type", "type"),
    ("Reason", "reason"),
    ("Object", "involvedObject"),
    ("Subobject", "involvedObject.fieldPath"),
    ("Source", "source"),
    ("Message", "message"),
    ("First Seen", "firstTimestamp"),
    ("Count", "count"),
];

pub(super) fn definitions() -> [ResourceDef; 2] {
    let mut core = core_event();
    as_printed(&mut core.columns, &core.openapi, &SHOWN);
    let mut group = event_of_group(&core);
    as_printed(&mut group.columns, &core.openapi, &SHOWN);
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
    def.trigger_fields.clear();
    def.columns = columns();
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
    def.columns = columns();
    let (stored, conversion) = (Arc::new(core.clone()), Conversion::Event);
    def.storage_version_hash.clone_from(&core.storage_version_hash);
    def.stored_as = Some(StoredAs { def: stored, conversion });
    def
}

/// A field of an event of either group: by its name in core/v1, or by the other.
fn either<'e>(event: &'e Value, core: &str, group: &str) -> Option<&'e Value> {
    let found = event.get(core).or_else(|| event.get(group));
    found.filter(|value| !value.is_null())
}

fn text<'e>(of: Option<&'e Value>, field: &str) -> &'e str {
    of.and_then(|of| of.get(field)?.as_str()).unwrap_or_default()
}

fn ago(time: Option<&Value>, now: Timestamp) -> Option<Value> {
    Some(age_of(time?.as_str()?, now).into())
}

fn first_seen(event: &Value, now: Timestamp) -> Value {
    let first = either(event, "firstTimestamp", "deprecatedFirstTimestamp");
    let first = ago(first, now).or_else(|| ago(event.get("eventTime"), now));
    first.unwrap_or_else(|| "<unknown>".into())
}

fn last_seen(event: &Value, now: Timestamp) -> Value {
    let last = either(event, "lastTimestamp", "deprecatedLastTimestamp");
    ago(event.pointer("/series/lastObservedTime"), now)
        .or_else(|| ago(last, now))
        .unwrap_or_else(|| first_seen(event, now))
}

fn object(event: &Value, _now: Timestamp) -> Value {
    let about = either(event, "involvedObject", "regarding");
    let kind = text(about, "kind").to_lowercase();
    match text(about, "name") {
        "" => kind.into(),
        name => format!("{kind}/{name}").into(),
    }
}

fn subobject(event: &Value, _now: Timestamp) -> Value {
    text(either(event, "involvedObject", "regarding"), "fieldPath").into()
}

fn source(event: &Value, _now: Timestamp) -> Value {
    let source = either(event, "source", "deprecatedSource");
    let reporter = either(event, "reportingComponent", "reportingController");
    let first = |one: &str, other: &str| if one.is_empty() { other } else { one }.to_owned();
    let reporter = reporter.and_then(Value::as_str).unwrap_or_default();
    let component = first(text(source, "component"), reporter);
    match first(text(source, "host"), text(Some(event), "reportingInstance")) {
        instance if instance.is_empty() => component.into(),
        instance => format!("{component}, {instance}").into(),
    }
}

fn message(event: &Value, _now: Timestamp) -> Value {
    let message = either(event, "message", "note").and_then(Value::as_str);
    message.unwrap_or_default().trim().into()
}

/// Those that were seen once need not count.
fn count(event: &Value, _now: Timestamp) -> Value {
    let count = event.pointer("/series/count").and_then(Value::as_i64);
    let own = || either(event, "count", "deprecatedCount").and_then(Value::as_i64);
    count.unwrap_or_else(|| own().filter(|count| *count != 0).unwrap_or(1)).into()
}

/// The same columns for both groups.
fn columns() -> Vec<Column> {
    let wide = |mut column: Column| {
        column.priority = 1;
        column
    };
    let of = |name: &str, cell| computed(name, "", cell);
    vec![
        of("Last Seen", last_seen),
        of("Type", |event, _| text(Some(event), "type").into()),
        of("Reason", |event, _| text(Some(event), "reason").into()),
        of("Object", object),
        wide(of("Subobject", subobject)),
        wide(of("Source", source)),
        of("Message", message),
        wide(of("First Seen", first_seen)),
        wide(of("Count", count)),
        wide(Column::name()),
    ]
}
