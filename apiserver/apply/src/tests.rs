#![allow(clippy::unwrap_used)]

mod entries;
mod lists;
mod owners;
mod sets;
mod text;
mod types;

use serde_json::{Map, Value, json};

use crate::{ApplyError, Types, Unusual, Writer, apply, record, record_new_text, record_text};

/// An object that several managers write to, through the main resource unless said otherwise.
struct Cluster {
    types: Types,
    ignored: Vec<&'static str>,
    subresource: &'static str,
    live: Option<Value>,
    clock: u32,
}

impl Cluster {
    fn new() -> Cluster {
        Cluster::of(&schema())
    }

    fn of(schema: &Value) -> Cluster {
        Cluster {
            types: Types::compile(schema),
            ignored: vec!["status"],
            subresource: "",
            live: None,
            clock: 0,
        }
    }

    fn status(&mut self, then: impl FnOnce(&mut Cluster)) {
        let before =
            (std::mem::replace(&mut self.ignored, vec!["spec", "metadata"]), self.subresource);
        self.subresource = "status";
        then(self);
        (self.ignored, self.subresource) = before;
    }

    fn now(&mut self) -> String {
        self.clock += 1;
        format!("2026-01-01T00:00:{:02}Z", self.clock)
    }

    fn apply(&mut self, manager: &str, spec: Value, force: bool) -> Result<(), ApplyError> {
        self.apply_object(manager, body(spec), force)
    }

    fn apply_object(&mut self, manager: &str, body: Value, force: bool) -> Result<(), ApplyError> {
        let now = self.now();
        let writer =
            Writer { manager, api_version: "x/v1", subresource: self.subresource, now: &now };
        let live = self.live.as_ref();
        let done = apply(&self.types, &self.ignored, live, &body, &writer, force)?;
        self.live = Some(done.object);
        Ok(())
    }

    /// Fails the test on a conflict.
    fn applied(&mut self, manager: &str, spec: Value) {
        self.apply(manager, spec, false).unwrap();
    }

    fn conflict(&mut self, manager: &str, spec: Value) -> String {
        self.apply(manager, spec, false).unwrap_err().to_string()
    }

    fn update(&mut self, manager: &str, change: impl FnOnce(&mut Value)) {
        let now = self.now();
        let mut new = self.live.clone().unwrap_or_else(|| body(json!({})));
        change(&mut new);
        let writer =
            Writer { manager, api_version: "x/v1", subresource: self.subresource, now: &now };
        let text = match &self.live {
            Some(live) => self.recorded_text(live, &new, &writer),
            None if new["metadata"].get("managedFields").is_some() => None,
            None => Some(record_new_text(&self.types, &self.ignored, &new, &writer)),
        };
        record(&self.types, &self.ignored, self.live.as_ref(), &mut new, &writer);
        if let Some(text) = text {
            let entries = new["metadata"].get("managedFields").map(Value::to_string);
            assert_eq!(text, entries, "as text and as trees");
        }
        self.live = Some(new);
    }

    /// What comes of the same write when the entries stay text; `None` if the client says something
    /// about them, or they are unusual.
    fn recorded_text(
        &self,
        live: &Value,
        new: &Value,
        writer: &Writer<'_>,
    ) -> Option<Option<String>> {
        let apart = |object: &Value| {
            let mut object = object.clone();
            let entries = object["metadata"].as_object_mut()?.remove("managedFields");
            Some((object, entries))
        };
        let ((old, before), (new, sent)) = (apart(live)?, apart(new)?);
        if sent.is_some() && sent != before {
            return None;
        }
        let before = before.map(|entries| entries.to_string());
        record_text(&self.types, &self.ignored, &old, &new, writer, before.as_deref()).ok()
    }

    fn spec(&self) -> Value {
        self.live.as_ref().unwrap()["spec"].clone()
    }

    /// `manager/operation` to its fields of the spec.
    fn owners(&self) -> Value {
        let mut owners = Map::new();
        for entry in self.entries() {
            let name = format!(
                "{}/{}",
                entry["manager"].as_str().unwrap(),
                entry["operation"].as_str().unwrap()
            );
            owners.insert(name, entry["fieldsV1"]["f:spec"].clone());
        }
        Value::Object(owners)
    }

    fn entries(&self) -> Vec<Value> {
        let metadata = &self.live.as_ref().unwrap()["metadata"];
        metadata["managedFields"].as_array().cloned().unwrap_or_default()
    }

    fn time_of(&self, manager: &str) -> Option<String> {
        let entries = self.entries();
        let entry = entries.iter().find(|entry| entry["manager"] == manager)?;
        Some(entry.get("time")?.as_str().unwrap().to_owned())
    }
}

fn body(spec: Value) -> Value {
    json!({
        "apiVersion": "x/v1", "kind": "Thing", "metadata": {"name": "a", "namespace": "n"},
        "spec": spec,
    })
}

fn schema() -> Value {
    let keyed = json!({
        "type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "properties": {
            "name": {"type": "string"}, "value": {"type": "string"},
            "tags": {
                "type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"},
            },
        }},
    });
    let ports = json!({
        "type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["port", "protocol"],
        "items": {"type": "object", "properties": {
            "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"},
            "name": {"type": "string"},
        }},
    });
    let text = json!({"type": "string"});
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "text": text, "other": text, "count": {"type": "integer"}, "on": {"type": "boolean"},
            "port": {"x-kubernetes-int-or-string": true},
            "atoms": {"type": "array", "items": text},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": text},
            "env": keyed, "ports": ports,
            "inner": {"type": "object", "properties": {"a": text, "b": text}},
            "map": {"type": "object", "additionalProperties": text},
            "whole": {
                "type": "object", "x-kubernetes-map-type": "atomic",
                "properties": {"a": text, "b": text},
            },
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }},
        "status": {"type": "object", "properties": {"state": text, "count": {"type": "integer"}}},
    }})
}
