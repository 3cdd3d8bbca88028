//! `kubectl get`: objects as rows of `meta.k8s.io/v1 Table`.
//!
//! Serializes row by row into one buffer; an object is borrowed for its row only.

use std::borrow::Borrow;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::object::Object;
use crate::resource::{Cell, Column, ResourceDef};

/// `includeObject=`: what of each object goes along with its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// A list's `metadata`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta<'a> {
    /// Empty: of an object that was not stored.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub resource_version: &'a str,
    /// Empty: nothing remains.
    #[serde(rename = "continue", skip_serializing_if = "str::is_empty")]
    pub continue_: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_item_count: Option<u64>,
}

/// `meta.k8s.io/v1` or, for old clients, `v1beta1`; the same shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableVersion {
    #[default]
    V1,
    V1Beta1,
}

impl TableVersion {
    fn as_str(self) -> &'static str {
        match self {
            TableVersion::V1 => "v1",
            TableVersion::V1Beta1 => "v1beta1",
        }
    }
}

/// How to render; the same for every row of a request.
#[derive(Clone, Copy, Debug)]
pub struct TableOptions {
    pub version: TableVersion,
    pub include: IncludeObject,
    /// Ages are relative to this.
    pub now: Timestamp,
}

/// Whether a table carries its column definitions: in a watch only the first event's does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headers {
    Shown,
    Omitted,
}

/// The Table of a list.
pub fn render_list<V: Borrow<Value>>(
    def: &ResourceDef,
    meta: &ListMeta<'_>,
    objects: impl IntoIterator<Item = V>,
    options: TableOptions,
) -> Vec<u8> {
    let mut out = begin(def, meta, Headers::Shown, options);
    for (index, object) in objects.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        row(&mut out, def, object.borrow(), options);
    }
    out.extend_from_slice(b"]}\n");
    out
}

/// The Table of one object: a GET, a write's answer, or a watch event's object.
pub fn render_one(
    def: &ResourceDef,
    object: &Value,
    headers: Headers,
    options: TableOptions,
) -> Vec<u8> {
    let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or("");
    let meta = ListMeta { resource_version: version, ..ListMeta::default() };
    let mut out = begin(def, &meta, headers, options);
    row(&mut out, def, object, options);
    out.extend_from_slice(b"]}");
    out
}

/// A Table without rows: the object of a watch's BOOKMARK.
pub fn render_empty(
    def: &ResourceDef,
    meta: &ListMeta<'_>,
    headers: Headers,
    options: TableOptions,
) -> Vec<u8> {
    let mut out = begin(def, meta, headers, options);
    out.extend_from_slice(b"]}");
    out
}

/// `PartialObjectMetadata` of one object; `lean`: without `managedFields`.
pub fn render_partial(object: &Object, version: TableVersion, lean: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    begin_partial(&mut out, version);
    object.put_metadata(&mut out, lean);
    out.push(b'}');
    out
}

/// `PartialObjectMetadata` of what is no object: a bookmark.
pub fn render_partial_of(value: &Value, version: TableVersion) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    partial(&mut out, value, version);
    out
}

/// `PartialObjectMetadataList`.
pub fn render_partial_list<'o>(
    meta: &ListMeta<'_>,
    objects: impl IntoIterator<Item = &'o Object>,
    version: TableVersion,
) -> Vec<u8> {
    let mut out = br#"{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/"#.to_vec();
    out.extend_from_slice(version.as_str().as_bytes());
    out.extend_from_slice(br#"","metadata":"#);
    json(&mut out, meta);
    out.extend_from_slice(br#","items":["#);
    for (index, object) in objects.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        begin_partial(&mut out, version);
        object.put_metadata(&mut out, false);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}\n");
    out
}

/// A duration as `kubectl get` shows ages: `5m`, `3h7m`, `12d`.
pub fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |whole: i64, unit: &str, part: i64, part_unit: &str| {
        if part == 0 { format!("{whole}{unit}") } else { format!("{whole}{unit}{part}{part_unit}") }
    };
    match seconds {
        // Two machines' clocks may differ a little; more is worth showing.
        ..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        _ if seconds < 2 * MINUTE => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => two(seconds / MINUTE, "m", seconds % MINUTE, "s"),
        _ if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 8 * HOUR => two(seconds / HOUR, "h", seconds % HOUR / MINUTE, "m"),
        _ if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        _ if seconds < 8 * DAY => two(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two(seconds / YEAR, "y", seconds % YEAR / DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// The age of an RFC 3339 time.
pub(crate) fn age_of(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => human_duration(now.duration_since(time).as_secs()),
        Err(_) => "<invalid>".into(),
    }
}

/// Everything up to and including `"rows":[`.
fn begin(
    def: &ResourceDef,
    meta: &ListMeta<'_>,
    headers: Headers,
    options: TableOptions,
) -> Vec<u8> {
    let version = options.version.as_str();
    let mut out = Vec::with_capacity(4096);
    out.extend_from_slice(br#"{"kind":"Table","apiVersion":"meta.k8s.io/"#);
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(br#"","metadata":"#);
    json(&mut out, meta);
    out.extend_from_slice(br#","columnDefinitions":"#);
    match headers {
        Headers::Omitted => out.extend_from_slice(b"null"),
        Headers::Shown => {
            let columns: Vec<ColumnDefinition<'_>> =
                def.columns.iter().map(ColumnDefinition::of).collect();
            json(&mut out, &columns);
        }
    }
    out.extend_from_slice(br#","rows":["#);
    out
}

#[derive(Serialize)]
struct ColumnDefinition<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    type_: &'a str,
    format: &'a str,
    description: &'a str,
    priority: i32,
}

impl<'a> ColumnDefinition<'a> {
    fn of(column: &'a Column) -> ColumnDefinition<'a> {
        ColumnDefinition {
            name: &column.name,
            type_: &column.type_,
            format: &column.format,
            description: &column.description,
            priority: column.priority,
        }
    }
}

fn row(out: &mut Vec<u8>, def: &ResourceDef, object: &Value, options: TableOptions) {
    out.extend_from_slice(br#"{"cells":["#);
    for (index, column) in def.columns.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        cell(out, column, object, options.now);
    }
    out.extend_from_slice(br#"],"object":"#);
    match options.include {
        IncludeObject::None => out.extend_from_slice(b"null"),
        IncludeObject::Metadata => partial(out, object, options.version),
        IncludeObject::Object => json(out, object),
    }
    out.push(b'}');
}

fn cell(out: &mut Vec<u8>, column: &Column, object: &Value, now: Timestamp) {
    let value = match &column.cell {
        Cell::Computed(compute) => return json(out, &compute(object, now)),
        Cell::Path(path) => path.first(object).unwrap_or(&Value::Null),
    };
    match (column.type_.as_str(), value) {
        // A bookmark has no name.
        (_, Value::Null) if column.format == "name" => json(out, ""),
        (_, Value::Null) => out.extend_from_slice(b"null"),
        ("string", Value::String(_)) | ("boolean", Value::Bool(_)) => json(out, value),
        ("string", other) => json(out, &other.to_string()),
        ("integer", Value::Number(number)) => match number.as_i64() {
            Some(integer) => json(out, &integer),
            None => json(out, &number.as_f64().map(|float| float as i64)),
        },
        ("number", Value::Number(_)) => json(out, value),
        ("date", Value::String(time)) => json(out, &age_of(time, now)),
        _ => out.extend_from_slice(b"null"),
    }
}

fn begin_partial(out: &mut Vec<u8>, version: TableVersion) {
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/"#);
    out.extend_from_slice(version.as_str().as_bytes());
    out.extend_from_slice(br#"","metadata":"#);
}

fn partial(out: &mut Vec<u8>, object: &Value, version: TableVersion) {
    begin_partial(out, version);
    match object.get("metadata") {
        Some(metadata) => json(out, metadata),
        None => out.extend_from_slice(b"{}"),
    }
    out.push(b'}');
}

fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value)
        .expect("a Vec takes every byte and our types have string keys");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::resource::tests::task_def;

    fn options() -> TableOptions {
        TableOptions {
            version: TableVersion::V1,
            include: IncludeObject::Metadata,
            now: "2026-11-20T15:52:51Z".parse().unwrap(),
        }
    }

    fn task() -> Value {
        json!({
            "kind": "Task", "metadata": {"name": "c000", "creationTimestamp": "2026-11-20T15:41:51Z"},
            "spec": {"cpus": 1}, "status": {"phase": "Running"},
        })
    }

    #[test]
    fn a_list_is_a_table_of_rows() {
        let meta =
            ListMeta { resource_version: "871", continue_: "abc", remaining_item_count: Some(110) };
        let table: Value =
            serde_json::from_slice(&render_list(&task_def(), &meta, [task()], options())).unwrap();
        assert_eq!(table["apiVersion"], "meta.k8s.io/v1");
        assert_eq!(
            table["metadata"],
            json!({"resourceVersion": "871", "continue": "abc", "remainingItemCount": 110})
        );
        assert_eq!(table["columnDefinitions"][0]["format"], "name");
        assert_eq!(
            table["columnDefinitions"][1],
            json!({"name": "Phase", "type": "string", "format": "", "description": "the phase", "priority": 0})
        );
        assert_eq!(
            table["rows"],
            json!([{
                "cells": ["c000", "Running", null, 1, "11m"],
                "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": task()["metadata"],
                },
            }])
        );
    }

    #[test]
    fn an_empty_list_has_rows_all_the_same() {
        let none: [Value; 0] = [];
        let table = render_list(&task_def(), &ListMeta::default(), none, options());
        let table: Value = serde_json::from_slice(&table).unwrap();
        assert_eq!(table["rows"], json!([]));
    }

    #[test]
    fn a_watch_event_may_leave_out_headers_and_object() {
        let bare = TableOptions { include: IncludeObject::None, ..options() };
        let table: Value =
            serde_json::from_slice(&render_one(&task_def(), &task(), Headers::Omitted, bare))
                .unwrap();
        assert_eq!(table["columnDefinitions"], Value::Null);
        assert_eq!(table["rows"][0]["object"], Value::Null);
        let whole = TableOptions { include: IncludeObject::Object, ..options() };
        let table: Value =
            serde_json::from_slice(&render_one(&task_def(), &task(), Headers::Shown, whole))
                .unwrap();
        assert_eq!(table["rows"][0]["object"], task());
    }

    #[test]
    fn partial_lists_carry_metadata_only() {
        let meta = ListMeta { resource_version: "5", ..ListMeta::default() };
        let stored = crate::object::encode(&task());
        let (version, kind) = (commonage_store::Version(7), crate::cache::EventKind::Added);
        let fields = crate::object::Fields::default();
        let (task, _) = Object::decode(&fields, "ns/c000", &stored, version, kind).unwrap();
        let list: Value =
            serde_json::from_slice(&render_partial_list(&meta, [&task], TableVersion::V1)).unwrap();
        assert_eq!(list["kind"], "PartialObjectMetadataList");
        assert_eq!(list["metadata"], json!({"resourceVersion": "5"}));
        assert_eq!(list["items"][0]["metadata"]["name"], "c000");
        assert_eq!(list["items"][0]["metadata"]["resourceVersion"], "7");
        assert_eq!(list["items"][0].get("spec"), None);
    }

    #[test]
    fn events_are_shown_by_what_happened() {
        let def =
            crate::builtin::definitions().into_iter().find(|def| def.kind == "Event").unwrap();
        let event = json!({
            "metadata": {"name": "e"}, "type": "Normal", "reason": "Started", "message": "m", "count": 2,
            "involvedObject": {"kind": "Task", "name": "t"}, "lastTimestamp": null,
            "firstTimestamp": "2026-11-20T15:52:01Z",
        });
        let table: Value =
            serde_json::from_slice(&render_one(&def, &event, Headers::Shown, options())).unwrap();
        assert_eq!(
            table["rows"][0]["cells"],
            json!(["50s", "Normal", "Started", "task/t", "", "", "m", "50s", 2, "e"])
        );
    }

    #[test]
    fn ages_read_like_kubectls() {
        let (minute, hour, day) = (60, 3600, 86400);
        let cases = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (10 * minute + 5, "10m"),
            (179 * minute, "179m"),
            (3 * hour, "3h"),
            (7 * hour + 59 * minute, "7h59m"),
            (8 * hour + 59 * minute, "8h"),
            (47 * hour, "47h"),
            (2 * day, "2d"),
            (2 * day + hour, "2d1h"),
            (8 * day + hour, "8d"),
            (729 * day, "729d"),
            (730 * day, "2y"),
            (731 * day, "2y1d"),
            (3000 * day, "8y"),
        ];
        for (seconds, wanted) in cases {
            assert_eq!(human_duration(seconds), wanted, "{seconds}");
        }
    }
}
