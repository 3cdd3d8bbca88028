//! Plays sequences of writes from standard input, one per line, and prints what each made of the
//! object and of its owners: for comparing this crate with another implementation.
//!
//! A line is `{"schema": …, "ops": [{"manager", "op": "apply"|"update", "object", "force"}]}`,
//! where an op may bring another `schema`; the answer a list with `{"object", "managed": {"MANAGER OPERATION": fieldsV1}}`, `{"conflicts"}` or
//! `{"error"}` for each of them.
#![allow(clippy::unwrap_used)]

use std::io::BufRead;

use commonage_apply::{ApplyError, Types, Writer, apply, record};
use serde_json::{Map, Value, json};

fn main() {
    for line in std::io::stdin().lock().lines() {
        let case: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let mut types = Types::compile(&case["schema"]);
        let mut live = None;
        let played: Vec<Value> = case["ops"]
            .as_array()
            .unwrap()
            .iter()
            .map(|op| play(&mut types, &mut live, op))
            .collect();
        println!("{}", Value::Array(played));
    }
}

fn play(types: &mut Types, live: &mut Option<Value>, op: &Value) -> Value {
    if let Some(schema) = op.get("schema") {
        *types = Types::compile(schema);
    }
    let writer = Writer {
        manager: op["manager"].as_str().unwrap(),
        api_version: op["object"]["apiVersion"].as_str().unwrap(),
        subresource: "",
        now: "2026-01-01T00:00:00Z",
    };
    let mut object = op["object"].clone();
    if op["op"] == "update" {
        record(types, &[], live.as_ref(), &mut object, &writer);
    } else {
        let force = op["force"] == true;
        match apply(types, &[], live.as_ref(), &object, &writer, force) {
            Ok(applied) => object = applied.object,
            Err(ApplyError::Conflicts(conflicts)) => {
                let texts: Vec<String> = conflicts
                    .iter()
                    .map(|conflict| format!("{}: {}", conflict.manager, conflict.path))
                    .collect();
                return json!({ "conflicts": texts });
            }
            Err(error) => return json!({"error": error.to_string()}),
        }
    }
    *live = Some(object.clone());
    shown(object)
}

fn shown(mut object: Value) -> Value {
    let mut managed = Map::new();
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    if let Some(Value::Array(entries)) = metadata.and_then(|meta| meta.remove("managedFields")) {
        for entry in entries {
            let text = |name: &str| entry[name].as_str().unwrap().to_owned();
            let name = format!("{} {}", text("manager"), text("operation"));
            managed.insert(name, entry["fieldsV1"].clone());
        }
    }
    if object.get("metadata") == Some(&json!({})) {
        object.as_object_mut().unwrap().remove("metadata");
    }
    json!({"object": object, "managed": managed})
}
