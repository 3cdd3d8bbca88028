//! Swagger 2.0: one document for everything. kubectl up to 1.26 and ArgoCD read it.
//!
//! Swagger knows neither nullable values nor alternatives: where a schema has them the type is
//! left out, which says "anything", as kube-apiserver does.

use serde_json::{Map, Value, json};

use super::components::{Components, REFERENCE};
use super::operations::{self, Operation, PathItem, tag};
use crate::resource::{ResourceDef, Scheme};

const REFERENCE_V2: &str = "#/definitions/";

/// Of OpenAPI 3.0 only, or of structural schemas only.
const UNKNOWN: [&str; 5] = ["nullable", "oneOf", "anyOf", "not", "x-kubernetes-validations"];

pub(super) fn document(scheme: &Scheme, components: &Components) -> Value {
    let mut paths = Map::new();
    for def in scheme.iter() {
        for item in operations::of(def) {
            paths.insert(item.path.clone(), path_item(def, &item));
        }
    }
    let definitions: Map<String, Value> =
        components.all().map(|(name, schema)| (name.clone(), swagger(schema))).collect();
    json!({
        "swagger": "2.0",
        "info": {"title": "Commonage", "version": crate::discovery::GIT_VERSION},
        "paths": paths,
        "definitions": definitions,
    })
}

/// A schema of OpenAPI 3.0 in the words of Swagger 2.0.
fn swagger(schema: &Value) -> Value {
    let Value::Object(schema) = schema else { return schema.clone() };
    let mut out: Map<String, Value> = Map::new();
    for (key, value) in schema {
        match key.as_str() {
            key if UNKNOWN.contains(&key) => continue,
            "$ref" => out.insert(key.clone(), reference_v2(value)),
            "properties" => {
                let each = value.as_object().into_iter().flatten();
                let properties =
                    each.map(|(name, schema)| (name.clone(), swagger(schema))).collect();
                out.insert(key.clone(), Value::Object(properties))
            }
            "items" | "additionalProperties" => out.insert(key.clone(), swagger(value)),
            // `allOf` of one reference is how 3.0 puts a description beside a reference.
            "allOf" => {
                let Some(reference) = value.pointer("/0/$ref") else { continue };
                out.insert("$ref".into(), reference_v2(reference))
            }
            _ => out.insert(key.clone(), value.clone()),
        };
    }
    let flag = |name: &str| schema.get(name) == Some(&Value::Bool(true));
    let anything = flag("nullable")
        || flag("x-kubernetes-int-or-string")
        || flag("x-kubernetes-preserve-unknown-fields")
        || ["oneOf", "anyOf", "not"].iter().any(|key| schema.contains_key(*key));
    if anything {
        for key in ["type", "items", "properties", "additionalProperties"] {
            out.remove(key);
        }
    }
    Value::Object(out)
}

fn reference_v2(reference: &Value) -> Value {
    let name =
        reference.as_str().and_then(|reference| reference.strip_prefix(REFERENCE)).unwrap_or("");
    format!("{REFERENCE_V2}{name}").into()
}

fn path_item(def: &ResourceDef, item: &PathItem) -> Value {
    let mut value = Map::new();
    for operation in &item.operations {
        value.insert(operation.method.into(), operation_value(def, operation));
    }
    let in_path = item.path_parameters.iter().map(
        |name| json!({"name": name, "in": "path", "required": true, "type": "string", "uniqueItems": true}),
    );
    let pretty = json!({"name": "pretty", "in": "query", "type": "string", "uniqueItems": true});
    value.insert("parameters".into(), in_path.chain([pretty]).collect());
    Value::Object(value)
}

fn operation_value(def: &ResourceDef, operation: &Operation) -> Value {
    let schema = |name: &str| json!({ "$ref": format!("{REFERENCE_V2}{name}") });
    let mut parameters = Vec::new();
    if let Some((_, name)) = &operation.body {
        let required = matches!(operation.method, "post" | "put" | "patch");
        parameters.push(
            json!({"name": "body", "in": "body", "required": required, "schema": schema(name)}),
        );
    }
    parameters.extend(operation.query.iter().map(
        |(name, type_)| json!({"name": name, "in": "query", "type": type_.name(), "uniqueItems": true}),
    ));
    let mut responses = Map::new();
    for (code, name) in &operation.responses {
        let words = operations::words_of(code);
        responses.insert((*code).into(), json!({"description": words, "schema": schema(name)}));
    }
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    json!({
        "tags": [tag(def)],
        "operationId": operation.id,
        "schemes": ["https"],
        "consumes": operation.body.as_ref().map_or(&["*/*"][..], |(kinds, _)| kinds),
        "produces": operation.produces,
        "parameters": parameters,
        "responses": responses,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {"group": def.group, "version": def.version, "kind": operation.kind},
    })
}
