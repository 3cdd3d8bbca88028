//! The schemas that documents refer to: every kind, its list, and Kubernetes' shared types.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::shared::{bodies, shared};
use crate::resource::{Origin, ResourceDef, Scheme};

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

pub(super) const REFERENCE: &str = "#/components/schemas/";

/// The one body of a built-in subresource: the name of its schema, and its kind.
pub(super) const TOKEN_REQUEST: (&str, &str) =
    ("io.k8s.api.authentication.v1.TokenRequest", "TokenRequest");

/// Schemas by name, in the dialect of OpenAPI 3.0.
pub(super) struct Components {
    schemas: BTreeMap<String, Value>,
}

impl Components {
    pub(super) fn of(scheme: &Scheme) -> Components {
        let mut schemas = shared();
        for def in scheme.iter() {
            let kind = match def.origin {
                // Among the shared ones already, with references instead of everything inline.
                Origin::BuiltIn => {
                    schemas.remove(&name(def)).unwrap_or_else(|| def.openapi.clone())
                }
                Origin::Custom => with_object_meta(def.openapi.clone(), &schemas),
            };
            let fields: Vec<Value> = def
                .selectable_fields
                .iter()
                .map(|(field, _)| json!({ "fieldPath": field }))
                .collect();
            let finish = |mut schema: Value, kind: &str| {
                schema["x-kubernetes-group-version-kind"] =
                    json!([{"group": def.group, "version": def.version, "kind": kind}]);
                if def.origin == Origin::Custom && !fields.is_empty() {
                    schema["x-kubernetes-selectable-fields"] = fields.clone().into();
                }
                schema
            };
            schemas.insert(name(def), finish(kind, &def.kind));
            if def.allows("list") {
                let list = list_of(def, &schemas);
                schemas.insert(list_name(def), finish(list, &def.list_kind));
            }
        }
        add_bodies(scheme, &mut schemas);
        let mut token = crate::builtin::reviews::token_request().openapi;
        token["x-kubernetes-group-version-kind"] =
            json!([{"group": "authentication.k8s.io", "version": "v1", "kind": TOKEN_REQUEST.1}]);
        schemas.insert(TOKEN_REQUEST.0.into(), token);
        Components { schemas }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.schemas.iter()
    }

    /// The named schemas and all they refer to.
    pub(super) fn closure<'n>(
        &self,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Map<String, Value> {
        let mut found = Map::new();
        let mut open: Vec<String> = names.into_iter().map(str::to_owned).collect();
        while let Some(name) = open.pop() {
            if found.contains_key(&name) {
                continue;
            }
            let Some(schema) = self.schemas.get(&name) else { continue };
            references(schema, &mut open);
            found.insert(name, schema.clone());
        }
        found
    }
}

/// `dev.commonage.v1.Task`, `io.k8s.api.core.v1.Namespace`.
pub(super) fn name(def: &ResourceDef) -> String {
    name_of(def, &def.kind)
}

pub(super) fn list_name(def: &ResourceDef) -> String {
    name_of(def, &def.list_kind)
}

/// Another kind of the same group and version.
pub(super) fn name_of(def: &ResourceDef, kind: &str) -> String {
    match def.origin {
        Origin::BuiltIn => {
            let group =
                def.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
            format!("io.k8s.api.{group}.{}.{kind}", def.version)
        }
        Origin::Custom => {
            let reversed: Vec<&str> = def.group.rsplit('.').collect();
            format!("{}.{}.{kind}", reversed.join("."), def.version)
        }
    }
}

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("{REFERENCE}{name}") })
}

/// A custom kind's own schema says nothing about apiVersion, kind and metadata.
fn with_object_meta(mut schema: Value, schemas: &BTreeMap<String, Value>) -> Value {
    let metadata = json!({
        "description": "Standard object's metadata. More info: \
            https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
        "allOf": [reference(&format!("{META}.ObjectMeta"))],
    });
    add_type_fields(&mut schema, schemas);
    schema["properties"]["metadata"] = metadata;
    schema
}

/// What the subresources of our kinds take and answer.
fn add_bodies(scheme: &Scheme, schemas: &mut BTreeMap<String, Value>) {
    let ours: Vec<_> = scheme.iter().filter(|def| def.group == commonage_schemas::GROUP).collect();
    let Some(def) = ours.first() else { return };
    let kinds: Vec<&str> = ours
        .iter()
        .flat_map(|def| &def.subresources)
        .map(|subresource| subresource.kind.as_str())
        .collect();
    let prefix = name_of(def, "");
    for (name, mut schema) in bodies(&prefix) {
        let kind = name.strip_prefix(&prefix).unwrap_or_default();
        if kinds.contains(&kind) {
            schema = with_object_meta(schema, schemas);
            schema["x-kubernetes-group-version-kind"] =
                json!([{"group": def.group, "version": def.version, "kind": kind}]);
        }
        schemas.insert(name, schema);
    }
}

fn list_of(def: &ResourceDef, schemas: &BTreeMap<String, Value>) -> Value {
    let mut list = json!({
        "type": "object",
        "description": format!("{} is a list of {}", def.list_kind, def.kind),
        "required": ["items"],
        "properties": {
            "items": {
                "type": "array",
                "items": reference(&name(def)),
                "description": format!(
                    "List of {}. More info: \
                     https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md",
                    def.plural
                ),
            },
            "metadata": {
                "description": "Standard list metadata. More info: \
                    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
                "allOf": [reference(&format!("{META}.ListMeta"))],
            },
        },
    });
    add_type_fields(&mut list, schemas);
    list
}

/// apiVersion and kind, in the words Kubernetes has for them everywhere.
fn add_type_fields(schema: &mut Value, schemas: &BTreeMap<String, Value>) {
    let described =
        schemas.get(&format!("{META}.DeleteOptions")).map(|options| &options["properties"]);
    for field in ["apiVersion", "kind"] {
        let described = described.map_or(Value::Null, |properties| properties[field].clone());
        schema["properties"][field] =
            if described.is_null() { json!({"type": "string"}) } else { described };
    }
}

fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            let name = map
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|name| name.strip_prefix(REFERENCE));
            found.extend(name.map(str::to_owned));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}
