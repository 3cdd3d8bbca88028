//! CustomResourceDefinitions: what is said of unusual ones, in Kubernetes' words.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::Server;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const PATIENCE: Duration = Duration::from_secs(60);

fn definition(group: &str, schema: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("things.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

/// Makes a definition, and waits until its objects can be made.
async fn serve(server: &Server, definition: Value) -> Value {
    let group = definition["spec"]["group"].as_str().unwrap().to_owned();
    let made = server.call("POST", DEFINITIONS, Some(definition)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let path = format!("{DEFINITIONS}/things.{group}");
    let served = async {
        loop {
            let there = server.call("GET", &format!("/apis/{group}/v1/things"), None).await;
            if there.status == StatusCode::OK {
                return server.call("GET", &path, None).await.json();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, served).await.unwrap()
}

#[tokio::test]
async fn a_schema_says_nothing_that_no_schema_can_say() {
    let server = Server::start().await;
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "odd": 1}}});
    let path = format!("{DEFINITIONS}?fieldValidation=Strict");
    let refused = server.call("POST", &path, Some(definition("example.com", schema.clone()))).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        refused.json()["message"],
        "CustomResourceDefinition in version \"v1\" cannot be handled as a CustomResourceDefinition: strict decoding \
         error: unknown field \"spec.versions[0].schema.openAPIV3Schema.properties.spec.odd\""
    );
    let made = server.call("POST", DEFINITIONS, Some(definition("example.com", schema))).await;
    assert_eq!(
        made.header("warning"),
        "299 - \"unknown field \\\"spec.versions[0].schema.openAPIV3Schema.properties.spec.odd\\\"\""
    );
    let kept = made.json()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    assert_eq!(kept, json!({"type": "object", "properties": {"spec": {"type": "object"}}}));
    server.stop().await;
}

#[tokio::test]
async fn versions_are_printed_as_kubernetes_holds_them() {
    let server = Server::start().await;
    let mut none = definition("example.com", json!({"type": "object"}));
    none["spec"]["versions"][0]["storage"] = false.into();
    let refused = server.call("POST", DEFINITIONS, Some(none)).await;
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    let wanted = "spec.versions: Invalid value: [{\"Name\":\"v1\",\"Served\":true,\"Storage\":false,\"Deprecated\":false,\
                  \"DeprecationWarning\":null,\"Schema\":null,\"Subresources\":null,\"AdditionalPrinterColumns\":null,\
                  \"SelectableFields\":null}]: must have exactly one version marked as storage version";
    assert!(message.contains(wanted), "{message}");
    server.stop().await;
}

#[tokio::test]
async fn a_group_of_the_community_says_whether_it_is_approved() {
    let server = Server::start().await;
    let mut definition = definition("sig.k8s.io", json!({"type": "object"}));
    let refused = server.call("POST", DEFINITIONS, Some(definition.clone())).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    definition["metadata"]["annotations"] = json!({
        "api-approved.kubernetes.io": "unapproved, a test",
    });
    let served = serve(&server, definition).await;
    let conditions = served["status"]["conditions"].as_array().unwrap();
    let told: Vec<_> = conditions
        .iter()
        .map(|one| (&one["type"], &one["status"], &one["reason"], &one["message"]))
        .collect();
    assert_eq!(
        format!("{:?}", told[2]),
        r#"(String("KubernetesAPIApprovalPolicyConformant"), String("False"), String("UnapprovedAnnotation"), String("not approved: \"unapproved, a test\""))"#
    );
    server.stop().await;
}

#[tokio::test]
async fn objects_inside_of_objects_have_sound_metadata() {
    let server = Server::start().await;
    let embedded = json!({
        "type": "object", "x-kubernetes-embedded-resource": true,
        "x-kubernetes-preserve-unknown-fields": true,
    });
    let schema = json!({"type": "object", "properties": {"inner": embedded}});
    serve(&server, definition("example.com", schema)).await;
    let things = "/apis/example.com/v1/namespaces/default/things";
    let thing = |metadata: Value| {
        json!({
            "apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"},
            "inner": {"apiVersion": "v1", "kind": "Pod", "metadata": metadata},
        })
    };
    let refused = async |metadata: Value| {
        let answer = server.call("POST", things, Some(thing(metadata))).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
        answer.json()["details"]["causes"][0]["field"].as_str().unwrap().to_owned()
    };
    assert_eq!(refused(json!({"labels": {"not ok": "x"}})).await, "inner.metadata.labels");
    assert_eq!(refused(json!({"namespace": "Not_OK"})).await, "inner.metadata.namespace");
    assert_eq!(refused(json!({"finalizers": [""]})).await, "inner.metadata.finalizers");
    assert_eq!(refused(json!("x")).await, "inner.metadata");
    let made = server.call("POST", things, Some(thing(json!({"labels": {"a": "b"}})))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    server.stop().await;
}
