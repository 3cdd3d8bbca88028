//! Kubernetes' own kinds that clients cannot do without, as definitions like any other, and the
//! scheme of everything compiled in.

mod events;
mod merging;
mod rbac;
pub(crate) mod reviews;
mod services;
mod zero;

use std::sync::Arc;

use commonage_apply::Types;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::jsonpath::JsonPath;
use crate::resource::{
    Cell, Column, DefinitionError, Origin, ResourceDef, Scheme, Scope, Storage, Subresource,
    VERBS_BUILT_IN, storage_version_hash,
};
use crate::schema::{SCHEMA_PROPS, Structural};

pub(crate) use zero::{fill, of as zero_of};

/// Group and plural name of CustomResourceDefinitions.
pub(crate) const DEFINITIONS: (&str, &str) = ("apiextensions.k8s.io", "customresourcedefinitions");
/// Holds a definition that is deleted until its objects are gone.
pub(crate) const DEFINITION_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The last column of kinds that kube-apiserver prints without special care.
const CREATED_AT: &str = "Created At";

/// Everything compiled in: Kubernetes' kinds and ours.
///
/// # Errors
/// A definition of ours is broken: a bug that a test of this module catches.
pub fn scheme() -> Result<Scheme, DefinitionError> {
    let mut defs = definitions();
    for crd in commonage_schemas::all_crds() {
        for mut def in ResourceDef::from_crd(&crd)? {
            def.subresources.extend(own_subresources(&def));
            defs.push(def);
        }
    }
    Ok(Scheme::new(defs))
}

/// What our kinds answer beyond the verbs of every kind.
fn own_subresources(def: &ResourceDef) -> Vec<Subresource> {
    let all: &[(&str, &str, &str)] = match def.kind.as_str() {
        "Task" => &[
            ("attach", "Task", "create,get"),
            ("binding", "TaskBinding", "create"),
            ("exec", "Task", "create,get"),
            ("kill", "TaskKill", "create"),
            ("log", "Task", "get"),
            ("portforward", "Task", "create,get"),
            ("sandbox", "SandboxListing", "get"),
            ("token", "TokenRequest", "create"),
        ],
        "Offer" => {
            &[("accept", "OfferAcceptance", "create"), ("decline", "OfferDecline", "create")]
        }
        _ => &[],
    };
    all.iter()
        .map(|(name, kind, verbs)| Subresource {
            name: (*name).into(),
            group: match *kind {
                "TokenRequest" => reviews::AUTHENTICATION.into(),
                _ => def.group.clone(),
            },
            version: def.version.clone(),
            kind: (*kind).into(),
            verbs: verbs.split(',').map(str::to_owned).collect(),
        })
        .collect()
}

/// Namespace, Event (in both groups), ConfigMap, Secret, ServiceAccount (core/v1), Lease (coordination.k8s.io/v1),
/// CustomResourceDefinition (apiextensions.k8s.io/v1), the kinds of RBAC, the reviews, a Service that
/// nobody can make, and what is measured (metrics.k8s.io/v1beta1).
pub fn definitions() -> Vec<ResourceDef> {
    let mut all = vec![namespace(), config_map(), secret(), service_account(), lease()];
    all.push(services::definition());
    all.extend(events::definitions());
    all.push(custom_resource_definition());
    all.extend(rbac::definitions());
    all.extend(reviews::definitions());
    all.extend(crate::kinds::measured::definitions());
    all
}

/// For kinds whose strategy says what is missing, in Kubernetes' words: the schema demands no
/// field, and takes Go's `null` for a list or object that is not there.
fn leniently(def: &mut ResourceDef) {
    fn relax(schema: &mut Value) {
        let Some(object) = schema.as_object_mut() else { return };
        object.remove("required");
        object.insert("nullable".into(), true.into());
        let properties = object.get_mut("properties").and_then(Value::as_object_mut);
        properties.into_iter().flatten().for_each(|(_, schema)| relax(schema));
        for inner in ["items", "additionalProperties"] {
            if let Some(schema) = object.get_mut(inner) {
                relax(schema);
            }
        }
    }
    let mut schema = def.openapi.clone();
    let metadata = schema["properties"]["metadata"].clone();
    relax(&mut schema);
    schema["properties"]["metadata"] = metadata;
    def.schema = Structural::compile_value(&schema).expect("Kubernetes' own schemas compile");
}

/// Columns as kube-apiserver prints them in Go: texts, whatever they show, with the words of the
/// field that is named for a column.
fn as_printed(columns: &mut [Column], openapi: &Value, fields: &[(&str, &str)]) {
    for column in columns {
        if column.name != CREATED_AT {
            column.type_ = "string".into();
        }
        if column.name == "Age" {
            column.cell = Cell::Computed(age);
        }
        let field = fields.iter().find(|(name, _)| *name == column.name);
        let words = field.and_then(|(_, field)| {
            let pointer = field.replace('.', "/properties/");
            openapi.pointer(&format!("/properties/{pointer}/description"))?.as_str()
        });
        if let Some(words) = words {
            column.description = words.to_owned();
        }
    }
}

fn age(object: &Value, now: Timestamp) -> Value {
    let created = object.pointer("/metadata/creationTimestamp").and_then(Value::as_str);
    created.map_or_else(|| "<unknown>".into(), |created| crate::table::age_of(created, now)).into()
}

fn namespace() -> ResourceDef {
    let mut def = core::<Namespace>("Namespace", "namespaces", &["ns"]);
    def.scope = Scope::Cluster;
    // Deleting every namespace at once is a mistake Kubernetes does not offer.
    def.verbs = &["create", "delete", "get", "list", "patch", "update", "watch"];
    def.has_status = true;
    def.subresources.push(Subresource {
        name: "finalize".into(),
        group: String::new(),
        version: "v1".into(),
        kind: "Namespace".into(),
        verbs: vec!["update".into()],
    });
    def.selectable_fields = vec![field("status.phase", ".status.phase")];
    def.columns = vec![
        Column::name(),
        Column::path("Status", "string", ".status.phase", "The status of the namespace"),
        Column::age(),
    ];
    as_printed(&mut def.columns, &def.openapi, &[]);
    def
}

fn config_map() -> ResourceDef {
    let mut def = core::<ConfigMap>("ConfigMap", "configmaps", &["cm"]);
    def.columns = vec![Column::name(), computed("Data", "", data_count), Column::age()];
    as_printed(&mut def.columns, &def.openapi, &[("Data", "data")]);
    def
}

fn secret() -> ResourceDef {
    let mut def = core::<Secret>("Secret", "secrets", &[]);
    def.selectable_fields = vec![field("type", ".type")];
    def.columns = vec![
        Column::name(),
        Column::path("Type", "string", ".type", ""),
        computed("Data", "", data_count),
        Column::age(),
    ];
    as_printed(&mut def.columns, &def.openapi, &[("Type", "type"), ("Data", "data")]);
    def
}

fn service_account() -> ResourceDef {
    let mut def = core::<ServiceAccount>("ServiceAccount", "serviceaccounts", &["sa"]);
    def.subresources = vec![Subresource {
        name: "token".into(),
        group: reviews::AUTHENTICATION.into(),
        version: "v1".into(),
        kind: "TokenRequest".into(),
        verbs: vec!["create".into()],
    }];
    def.columns = vec![Column::name(), computed("Secrets", "", secret_count), Column::age()];
    as_printed(&mut def.columns, &def.openapi, &[("Secrets", "secrets")]);
    def
}

fn lease() -> ResourceDef {
    let mut def = definition::<Lease>("coordination.k8s.io", "Lease", "leases", &[]);
    // As in Kubernetes: a lease taken blindly is no lease.
    def.allow_unconditional_update = false;
    def.columns = vec![
        Column::name(),
        computed("Holder", "", |lease, _| {
            lease.pointer("/spec/holderIdentity").and_then(Value::as_str).unwrap_or("").into()
        }),
        Column::age(),
    ];
    as_printed(&mut def.columns, &def.openapi, &[("Holder", "spec.holderIdentity")]);
    def
}

fn custom_resource_definition() -> ResourceDef {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let mut openapi =
        settings.into_generator().into_root_schema_for::<CustomResourceDefinition>().to_value();
    // A schema of schemas has no end: what is in there is looked at when the definition is checked.
    let version = "/properties/spec/properties/versions/items/properties";
    if let Some(schema) =
        openapi.pointer_mut(&format!("{version}/schema/properties/openAPIV3Schema"))
    {
        *schema = json!({
            "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "description": "The OpenAPI v3 schema to use for validation and pruning.",
        });
    }
    if let Some(openapi) = openapi.as_object_mut() {
        openapi.remove("components");
    }
    // As Go writes an empty list that it never made.
    for list in ["conditions", "storedVersions"] {
        if let Some(list) = openapi.pointer_mut(&format!("/properties/status/properties/{list}")) {
            list["nullable"] = true.into();
        }
    }
    let mut def = definition_of(
        DEFINITIONS.0,
        "CustomResourceDefinition",
        DEFINITIONS.1,
        &["crd", "crds"],
        openapi,
    );
    // What is missing is said in apiextensions' words, all at once.
    let mut schema = without_required(&zero::with_nulls(&def.openapi, def.zero.as_ref()));
    if let Some(schemas) =
        schema.pointer_mut(&format!("{version}/schema/properties/openAPIV3Schema"))
    {
        schemas[SCHEMA_PROPS] = true.into();
    }
    def.schema = Structural::compile_value(&schema).expect("Kubernetes' own schemas compile");
    def.scope = Scope::Cluster;
    def.categories = vec!["api-extensions".into()];
    def.has_status = true;
    def.allow_unconditional_update = false;
    // kube-apiserver keeps its own in the older version, which is the shorter one.
    def.storage_version_hash = storage_version_hash(&def.group, "v1beta1", &def.kind);
    def.columns = vec![
        Column::name(),
        Column { name: CREATED_AT.into(), cell: Cell::Computed(created_at), ..Column::age() },
    ];
    def
}

fn without_required(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => members
            .iter()
            .filter(|(name, value)| *name != "required" || !value.is_array())
            .map(|(name, value)| (name.clone(), without_required(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(list) => list.iter().map(without_required).collect(),
        other => other.clone(),
    }
}

fn core<T: JsonSchema>(kind: &str, plural: &str, short_names: &[&str]) -> ResourceDef {
    definition::<T>("", kind, plural, short_names)
}

/// A namespaced kind of version v1 without a status.
fn definition<T: JsonSchema>(
    group: &str,
    kind: &str,
    plural: &str,
    short_names: &[&str],
) -> ResourceDef {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let openapi = settings.into_generator().into_root_schema_for::<T>().to_value();
    definition_of(group, kind, plural, short_names, openapi)
}

/// A namespaced kind of version v1 without a status, whose schema is this.
pub(crate) fn definition_of(
    group: &str,
    kind: &str,
    plural: &str,
    short_names: &[&str],
    openapi: Value,
) -> ResourceDef {
    let types = Types::compile(&merging::annotated(&openapi, kind));
    let zero = zero_of(group, kind);
    ResourceDef {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        list_kind: format!("{kind}List"),
        plural: plural.into(),
        singular: kind.to_lowercase(),
        short_names: short_names.iter().map(|name| (*name).into()).collect(),
        categories: Vec::new(),
        scope: Scope::Namespaced,
        origin: Origin::BuiltIn,
        storage: Storage::Stored,
        verbs: VERBS_BUILT_IN,
        schema: Structural::compile_value(&zero::with_nulls(&openapi, zero.as_ref()))
            .expect("Kubernetes' own schemas compile"),
        types: Arc::new(match &zero {
            Some(zero) => types.with_zero(zero.clone()),
            None => types,
        }),
        zero,
        openapi,
        columns: Vec::new(),
        selectable_fields: Vec::new(),
        has_status: false,
        subresources: Vec::new(),
        storage_version_hash: storage_version_hash(group, "v1", kind),
        allow_unconditional_update: true,
        trigger_fields: Vec::new(),
        scale: None,
        stored_as: None,
        may_change: false,
        never_changed: true,
        terminating: false,
        deprecation: None,
    }
}

fn field(name: &str, path: &str) -> (String, JsonPath) {
    (name.into(), JsonPath::parse(path).expect("a compiled-in path parses"))
}

fn computed(name: &str, description: &str, cell: fn(&Value, Timestamp) -> Value) -> Column {
    Column { cell: Cell::Computed(cell), ..Column::path(name, "string", ".", description) }
}

/// Kubernetes shows when, not how long ago, for the kinds that it prints without special care.
fn created_at(object: &Value, _now: Timestamp) -> Value {
    object["metadata"]["creationTimestamp"].clone()
}

fn data_count(object: &Value, _now: Timestamp) -> Value {
    let entries =
        |field: &str| object.get(field).and_then(Value::as_object).map_or(0, serde_json::Map::len);
    (entries("data") + entries("binaryData")).into()
}

fn secret_count(object: &Value, _now: Timestamp) -> Value {
    object.get("secrets").and_then(Value::as_array).map_or(0, Vec::len).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_compiled_in_is_a_sound_definition() {
        let scheme = scheme().unwrap();
        assert_eq!(scheme.get("", "v1", "namespaces").unwrap().scope, Scope::Cluster);
        let task = scheme.get("commonage.dev", "v1", "tasks").unwrap();
        assert!(task.has_status);
        assert!(task.supports_field("spec.agent"));
    }

    #[test]
    fn built_in_objects_survive_their_schema() {
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a", "namespace": "b"},
            "involvedObject": {"kind": "Task", "name": "t", "uid": "u"}, "reason": "r", "message": "m",
            "eventTime": "2026-11-20T15:41:51.123456Z", "firstTimestamp": null, "count": 1, "type": "Normal",
            "source": {"component": "c"}, "series": {"count": 2, "lastObservedTime": "2026-11-20T15:41:51.123456Z"},
        });
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a"},
            "spec": {"holderIdentity": "x", "leaseDurationSeconds": 15, "renewTime": "2026-11-20T15:41:51.123456Z"},
        });
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"},
            "data": {"k": "aGk="}, "stringData": {"x": "y"}, "type": "Opaque", "immutable": true});
        for object in [event, lease, secret] {
            let kind = object["kind"].as_str().unwrap();
            let def = definitions().into_iter().find(|def| def.kind == kind).unwrap();
            let mut kept = object.clone();
            assert_eq!(def.schema.prune(&mut kept), Vec::<String>::new(), "{kind}");
            def.schema.default(&mut kept);
            assert_eq!(def.schema.validate(&kept), vec![], "{kind}");
        }
    }
}
