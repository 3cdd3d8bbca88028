//! OpenAPI 3.0: one document per group version.

use serde_json::{Map, Value, json};

use super::components::{Components, reference};
use super::operations::{self, Operation, PathItem, tag};
use crate::resource::{Origin, ResourceDef, Scheme};

pub(super) fn document(
    scheme: &Scheme,
    group: &str,
    version: &str,
    components: &Components,
) -> Value {
    let mut paths = Map::new();
    let mut used = Vec::new();
    let mut custom = false;
    for def in scheme.in_group_version(group, version) {
        custom |= def.origin == Origin::Custom;
        for item in operations::of(def) {
            for operation in &item.operations {
                used.extend(operation.responses.iter().map(|(_, schema)| schema.clone()));
                used.extend(operation.body.iter().map(|(_, schema)| schema.clone()));
            }
            paths.insert(item.path.clone(), path_item(def, &item));
        }
    }
    // Kubernetes builds the documents of definitions apart from its own.
    let info = match custom {
        true => json!({"title": "Kubernetes CRD Swagger", "version": "v0.1.0"}),
        false => json!({"title": "Commonage", "version": crate::discovery::GIT_VERSION}),
    };
    json!({
        "openapi": "3.0.0",
        "info": info,
        "paths": paths,
        "components": {"schemas": components.closure(used.iter().map(String::as_str))},
    })
}

fn path_item(def: &ResourceDef, item: &PathItem) -> Value {
    let mut value = Map::new();
    for operation in &item.operations {
        value.insert(operation.method.into(), operation_value(def, operation));
    }
    let in_path = item.path_parameters.iter().map(|name| {
        json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
    });
    let pretty =
        json!({"name": "pretty", "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    value.insert("parameters".into(), in_path.chain([pretty]).collect());
    Value::Object(value)
}

fn operation_value(def: &ResourceDef, operation: &Operation) -> Value {
    let parameters: Vec<Value> = operation
        .query
        .iter()
        .map(|(name, type_)| {
            json!({"name": name, "in": "query", "schema": {"type": type_.name(), "uniqueItems": true}})
        })
        .collect();
    let mut responses = Map::new();
    for (code, schema) in &operation.responses {
        let words = operations::words_of(code);
        let content = content(operation.produces, schema);
        responses.insert((*code).into(), json!({"description": words, "content": content}));
    }
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    let mut value = json!({
        "tags": [tag(def)],
        "operationId": operation.id,
        "parameters": parameters,
        "responses": responses,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {"group": def.group, "version": def.version, "kind": operation.kind},
    });
    if let Some((kinds, schema)) = &operation.body {
        value["requestBody"] = json!({ "content": content(kinds, schema) });
        if matches!(operation.method, "post" | "put" | "patch") {
            value["requestBody"]["required"] = true.into();
        }
    }
    value
}

fn content(kinds: &[&str], schema: &str) -> Value {
    kinds
        .iter()
        .map(|kind| ((*kind).to_owned(), json!({ "schema": reference(schema) })))
        .collect::<Map<_, _>>()
        .into()
}
