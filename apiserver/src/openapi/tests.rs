#![allow(clippy::unwrap_used)]
use prost::Message;

use super::*;

fn documents() -> Documents {
    Documents::build(&crate::builtin::scheme().unwrap())
}

fn parsed(path: &str) -> Value {
    serde_json::from_slice(&documents().v3(path).unwrap().bytes).unwrap()
}

fn each_reference(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str) {
                visit(name);
            }
            map.values().for_each(|value| each_reference(value, visit));
        }
        Value::Array(list) => list.iter().for_each(|value| each_reference(value, visit)),
        _ => {}
    }
}

#[test]
fn the_index_leads_to_every_document_by_its_hash() {
    let documents = documents();
    let index: Value = serde_json::from_slice(&documents.v3_index.bytes).unwrap();
    let paths = index["paths"].as_object().unwrap();
    assert!(paths.contains_key("api/v1") && paths.contains_key("apis/commonage.dev/v1"));
    for (path, entry) in paths {
        let hash = &documents.v3(path).unwrap().hash;
        assert_eq!(entry["serverRelativeURL"], format!("/openapi/v3/{path}?hash={hash}"));
    }
    assert!(documents.v3("apis/nobody.dev/v1").is_none());
}

#[test]
fn every_reference_is_answered_in_its_own_document() {
    for path in ["api/v1", "apis/coordination.k8s.io/v1", "apis/commonage.dev/v1"] {
        let document = parsed(path);
        let mut count = 0;
        each_reference(&document, &mut |name| {
            count += 1;
            let pointer = name.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{path}: {name}");
        });
        assert!(count > 50, "{path}");
    }
}

#[test]
fn a_kind_is_found_by_its_group_version_kind() {
    let document = parsed("apis/commonage.dev/v1");
    let task = &document["components"]["schemas"]["dev.commonage.v1.Task"];
    assert_eq!(
        task["x-kubernetes-group-version-kind"],
        json!([{"group": "commonage.dev", "version": "v1", "kind": "Task"}])
    );
    assert_eq!(
        task["properties"]["metadata"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    assert!(task["properties"]["kind"]["description"].is_string());
    let list = &document["components"]["schemas"]["dev.commonage.v1.TaskList"];
    assert_eq!(list["x-kubernetes-group-version-kind"][0]["kind"], "TaskList");
    let namespace = &parsed("api/v1")["components"]["schemas"]["io.k8s.api.core.v1.Namespace"];
    assert_eq!(namespace["x-kubernetes-group-version-kind"][0]["kind"], "Namespace");
}

#[test]
fn kubectl_reads_from_patch_that_fields_are_validated() {
    let document = parsed("apis/commonage.dev/v1");
    let item = &document["paths"]["/apis/commonage.dev/v1/namespaces/{namespace}/tasks/{name}"];
    let patch = &item["patch"];
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(patch["operationId"], "patchCommonageDevV1NamespacedTask");
    let names: Vec<&str> = patch["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|parameter| parameter["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    assert_eq!(
        item["parameters"][0],
        json!({"name": "name", "in": "path", "required": true,
        "schema": {"type": "string", "uniqueItems": true}})
    );
}

#[test]
fn answering_an_offer_is_described_with_its_body() {
    let document = parsed("apis/commonage.dev/v1");
    let path = "/apis/commonage.dev/v1/namespaces/{namespace}/offers/{name}/accept";
    let accept = &document["paths"][path]["post"];
    assert_eq!(accept["operationId"], "createCommonageDevV1NamespacedOfferAccept");
    assert_eq!(accept["x-kubernetes-group-version-kind"]["kind"], "OfferAcceptance");
    let acceptance = &document["components"]["schemas"]["dev.commonage.v1.OfferAcceptance"];
    assert!(acceptance["properties"]["operations"].is_object());
    assert_eq!(acceptance["x-kubernetes-group-version-kind"][0]["kind"], "OfferAcceptance");
    let binding = &document["components"]["schemas"]["dev.commonage.v1.TaskBinding"];
    assert!(binding["properties"]["agent"].is_object());
}

#[test]
fn kubectl_learns_how_finalizers_merge() {
    let meta = &parsed("api/v1")["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"];
    assert_eq!(meta["properties"]["finalizers"]["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(meta["properties"]["ownerReferences"]["x-kubernetes-patch-merge-key"], "uid");
}

#[test]
fn swagger_says_the_same_without_what_it_cannot_say() {
    let document: Value = serde_json::from_slice(&documents().v2_json.unwrap().bytes).unwrap();
    let task = &document["definitions"]["dev.commonage.v1.Task"];
    assert_eq!(
        task["properties"]["metadata"]["$ref"],
        "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    assert_eq!(task["x-kubernetes-group-version-kind"][0]["kind"], "Task");
    each_reference(&document, &mut |name| {
        assert!(document.pointer(name.strip_prefix('#').unwrap()).is_some(), "{name}");
    });
    assert!(!document.to_string().contains("\"nullable\""));
}

#[test]
fn swagger_as_protobuf_reads_back() {
    let documents = documents();
    let document = messages::Document::decode(documents.v2_protobuf.unwrap().bytes).unwrap();
    assert_eq!(document.swagger, "2.0");
    let definitions = document.definitions.unwrap().additional_properties;
    let task = definitions
        .iter()
        .find(|one| one.name == "dev.commonage.v1.Task")
        .unwrap()
        .value
        .as_ref()
        .unwrap();
    assert!(!task.description.is_empty());
    let properties: Vec<&str> = task
        .properties
        .as_ref()
        .unwrap()
        .additional_properties
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(properties, ["apiVersion", "kind", "metadata", "spec", "status"]);
    let extension = &task.vendor_extension[0];
    assert_eq!(extension.name, "x-kubernetes-group-version-kind");
    assert!(extension.value.as_ref().unwrap().yaml.contains("\"kind\":\"Task\""));
    let paths = document.paths.unwrap().path;
    let name = "/apis/commonage.dev/v1/namespaces/{namespace}/tasks/{name}";
    let item = paths.iter().find(|item| item.name == name).unwrap().value.as_ref().unwrap();
    assert_eq!(item.patch.as_ref().unwrap().operation_id, "patchCommonageDevV1NamespacedTask");
}
