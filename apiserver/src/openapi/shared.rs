//! Schemas generated from Rust types: Kubernetes' shared ones, and the bodies of our subresources.

use std::collections::BTreeMap;

use commonage_schemas::{OfferAcceptance, OfferDecline, TaskBinding, TaskKill};
use k8s_openapi::api::authentication::v1 as authentication;
use k8s_openapi::api::authorization::v1 as authorization;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1 as rbac;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, ObjectMeta, Status};
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::components::{META, REFERENCE};

/// How lists of Kubernetes' types merge: k8s-openapi leaves it out, and kubectl computes wrong
/// strategic patches without it. Schema, field, merge key (none: a set of scalars).
const MERGED_LISTS: [(&str, &str, Option<&str>); 4] = [
    ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers", None),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "ownerReferences", Some("uid")),
    ("io.k8s.api.core.v1.ServiceAccount", "secrets", Some("name")),
    ("io.k8s.api.core.v1.NamespaceStatus", "conditions", Some("type")),
];

/// Kubernetes' types, generated from k8s-openapi with their documentation.
pub(super) fn shared() -> BTreeMap<String, Value> {
    let mut generator = SchemaSettings::openapi3().into_generator();
    generator.subschema_for::<ObjectMeta>();
    generator.subschema_for::<ListMeta>();
    generator.subschema_for::<DeleteOptions>();
    generator.subschema_for::<Status>();
    generator.subschema_for::<Namespace>();
    generator.subschema_for::<Event>();
    generator.subschema_for::<ConfigMap>();
    generator.subschema_for::<Secret>();
    generator.subschema_for::<ServiceAccount>();
    generator.subschema_for::<Lease>();
    generator.subschema_for::<rbac::Role>();
    generator.subschema_for::<rbac::RoleBinding>();
    generator.subschema_for::<rbac::ClusterRole>();
    generator.subschema_for::<rbac::ClusterRoleBinding>();
    generator.subschema_for::<authentication::SelfSubjectReview>();
    generator.subschema_for::<authentication::TokenReview>();
    generator.subschema_for::<authorization::LocalSubjectAccessReview>();
    generator.subschema_for::<authorization::SelfSubjectAccessReview>();
    generator.subschema_for::<authorization::SelfSubjectRulesReview>();
    generator.subschema_for::<authorization::SubjectAccessReview>();
    let mut schemas: BTreeMap<String, Value> =
        generator.take_definitions(true).into_iter().collect();
    for kind in ["DeleteOptions", "Status"] {
        if let Some(schema) = schemas.get_mut(&format!("{META}.{kind}")) {
            schema["x-kubernetes-group-version-kind"] =
                json!([{"group": "", "version": "v1", "kind": kind}]);
        }
    }
    for (schema, field, key) in MERGED_LISTS {
        let Some(field) =
            schemas.get_mut(schema).and_then(|schema| schema["properties"].get_mut(field))
        else {
            continue;
        };
        field["x-kubernetes-patch-strategy"] = "merge".into();
        match key {
            None => field["x-kubernetes-list-type"] = "set".into(),
            Some(key) => {
                field["x-kubernetes-patch-merge-key"] = key.into();
                field["x-kubernetes-list-type"] = "map".into();
                field["x-kubernetes-list-map-keys"] = json!([key]);
            }
        }
    }
    let patch = json!({
        "type": "object",
        "description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.",
    });
    schemas.insert(format!("{META}.Patch"), patch);
    schemas
}

/// The bodies of our subresources and the types only they use, each name with `prefix` before it.
pub(super) fn bodies(prefix: &str) -> BTreeMap<String, Value> {
    let mut generator = SchemaSettings::openapi3().into_generator();
    generator.subschema_for::<OfferAcceptance>();
    generator.subschema_for::<OfferDecline>();
    generator.subschema_for::<TaskBinding>();
    generator.subschema_for::<TaskKill>();
    let definitions = generator.take_definitions(true);
    let mut found = BTreeMap::new();
    let bodies = ["OfferAcceptance", "OfferDecline", "TaskBinding", "TaskKill"];
    let mut open: Vec<String> = bodies.map(str::to_owned).into();
    while let Some(name) = open.pop() {
        // A Task is served as a kind of its own.
        let Some(schema) = definitions.get(&name).filter(|_| name != "Task") else { continue };
        let full_name = format!("{prefix}{name}");
        if found.contains_key(&full_name) {
            continue;
        }
        let mut schema = schema.clone();
        prefix_references(&mut schema, prefix, &mut open);
        found.insert(full_name, schema);
    }
    found
}

/// Prefixes every reference, and adds the names referred to, without the prefix, to `found`.
fn prefix_references(schema: &mut Value, prefix: &str, found: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref")
                && let Some(name) = reference.strip_prefix(REFERENCE)
            {
                found.push(name.to_owned());
                *reference = format!("{REFERENCE}{prefix}{name}");
            }
            map.values_mut().for_each(|value| prefix_references(value, prefix, found));
        }
        Value::Array(list) => {
            list.iter_mut().for_each(|value| prefix_references(value, prefix, found))
        }
        _ => {}
    }
}
