#![allow(clippy::unwrap_used)]
use serde_json::json;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionVersion;

use super::*;

/// A CRD with one of everything.
pub(crate) fn task_crd() -> CustomResourceDefinition {
    let string = json!({"type": "string"});
    let schema = json!({
        "type": "object", "description": "Task is one unit of work.", "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object", "description": "desired state", "required": ["command"],
                "properties": {
                    "agent": {"type": "string", "description": "where it runs"},
                    "args": {"type": "array", "items": string, "x-kubernetes-list-type": "set"},
                    "command": {"type": "array", "minItems": 1, "items": string},
                    "cpus": {"type": "number", "default": 1, "minimum": 0},
                    "env": {
                        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                        "items": {
                            "type": "object", "required": ["name"],
                            "properties": {"name": string, "value": string},
                        },
                    },
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "limits": {
                        "type": "object",
                        "additionalProperties": {
                            "anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true,
                        },
                    },
                    "replicas": {"type": "integer", "format": "int32", "default": 1},
                    "restart": {"type": "string", "default": "Never", "enum": ["Always", "Never"]},
                },
            },
            "status": {"type": "object", "properties": {"phase": string}},
        },
    });
    serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "tasks.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {
                "plural": "tasks", "singular": "task", "kind": "Task", "listKind": "TaskList",
                "shortNames": ["tk"], "categories": ["all", "example"],
            },
            "versions": [
                {
                    "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": "Phase", "type": "string", "description": "the phase", "jsonPath": ".status.phase"},
                        {"name": "Agent", "type": "string", "jsonPath": ".spec.agent"},
                        {"name": "CPUs", "type": "number", "priority": 1, "jsonPath": ".spec.cpus"},
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    ],
                    "selectableFields": [{"jsonPath": ".spec.agent"}],
                },
                {"name": "v2", "served": false, "storage": false},
            ],
        },
    }))
    .unwrap()
}

pub(crate) fn task_def() -> ResourceDef {
    ResourceDef::from_crd(&task_crd()).unwrap().remove(0)
}

#[test]
fn a_crd_becomes_a_definition_per_served_version() {
    let defs = ResourceDef::from_crd(&task_crd()).unwrap();
    assert_eq!(defs.len(), 1);
    let def = &defs[0];
    assert_eq!(def.group_resource(), "tasks.example.com");
    assert_eq!(def.api_version(), "example.com/v1");
    assert_eq!(def.key("ns", "a"), "/example.com/tasks/ns/a");
    assert!(def.has_status && def.is_namespaced());
    assert_eq!(def.selectable_fields[0].0, "spec.agent");
    assert_eq!(def.trigger_fields, ["spec.agent"]);
    assert!(def.supports_field("spec.agent") && !def.supports_field("spec.cpus"));
    let columns: Vec<&str> = def.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(columns, ["Name", "Phase", "Agent", "CPUs", "Age"]);
    assert_eq!(
        def.columns[2].description,
        "Custom resource definition column (in JSONPath format): .spec.agent"
    );
    assert_eq!(def.openapi.pointer("/properties/spec/properties/cpus/minimum"), Some(&json!(0)));
}

#[test]
fn the_storage_hash_is_kubernetes_own() {
    // As every Kubernetes cluster's discovery shows them.
    assert_eq!(storage_version_hash("", "v1", "Namespace"), "Q3oi5N2YM8M=");
    assert_eq!(storage_version_hash("", "v1", "ConfigMap"), "qFsyl6wFWjQ=");
}

#[test]
fn a_definition_that_cannot_work_is_refused_with_its_place() {
    let break_it = |change: fn(&mut CustomResourceDefinitionVersion)| {
        let mut crd = task_crd();
        change(&mut crd.spec.versions[0]);
        ResourceDef::from_crd(&crd).unwrap_err().to_string()
    };
    assert_eq!(
        break_it(|version| version.schema = None),
        "spec.versions[0].schema.openAPIV3Schema: Required value"
    );
    let message = break_it(|version| {
        version.selectable_fields.as_mut().unwrap()[0].json_path = ".a[0]".into()
    });
    assert!(message.starts_with("spec.versions[0].selectableFields[0].jsonPath: "), "{message}");
}

#[test]
fn columns_that_cannot_be_followed_cost_the_columns() {
    let mut crd = task_crd();
    let asked = crd.spec.versions[0].additional_printer_columns.as_mut().unwrap();
    asked[1].json_path = "..a".into();
    let asked_before = asked[0].name.clone();
    let def = &ResourceDef::from_crd(&crd).unwrap()[0];
    let columns: Vec<&str> = def.columns.iter().map(|column| column.name.as_str()).collect();
    let before = asked_before.as_str();
    assert_eq!(columns, ["Name", before]);
}

#[test]
fn who_uses_a_deprecated_version_is_told() {
    let mut crd = task_crd();
    let told =
        |crd: &CustomResourceDefinition| ResourceDef::from_crd(crd).unwrap()[0].deprecation.clone();
    assert_eq!(told(&crd), None);
    crd.spec.versions[0].deprecated = Some(true);
    assert_eq!(told(&crd).as_deref(), Some("example.com/v1 Task is deprecated"));
    for (name, instead) in [
        ("v1beta1", ""),
        ("v2", "; use example.com/v2 Task"),
        ("v2beta1", "; use example.com/v2 Task"),
        ("v3", "; use example.com/v3 Task"),
    ] {
        let mut newer = crd.spec.versions[0].clone();
        (newer.name, newer.storage, newer.deprecated) = (name.into(), false, None);
        crd.spec.versions.push(newer);
        let wanted = format!("example.com/v1 Task is deprecated{instead}");
        assert_eq!(told(&crd), Some(wanted), "{name}");
    }
    crd.spec.versions[0].deprecation_warning = Some("use v2".into());
    assert_eq!(told(&crd).as_deref(), Some("use v2"));
}

#[test]
fn a_scheme_finds_its_kinds() {
    let scheme = Scheme::new([task_def()]);
    assert_eq!(scheme.get("example.com", "v1", "tasks").unwrap().kind, "Task");
    assert!(scheme.get("example.com", "v2", "tasks").is_none());
    assert_eq!(scheme.by_kind("example.com", "Task").unwrap().plural, "tasks");
    assert_eq!(scheme.group_versions(), [("example.com", "v1")]);
}
