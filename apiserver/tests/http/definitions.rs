//! CustomResourceDefinitions: kinds that come, change and go while the server runs.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, Server};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";
/// Everything a test may wait for, before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

fn version(name: &str, storage: bool) -> Value {
    json!({
        "name": name, "served": true, "storage": storage,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer", "default": 1}, "colour": {"type": "string"},
            }},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}},
        "subresources": {"status": {}},
    })
}

fn definition(plural: &str, kind: &str, versions: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind}, "versions": versions,
        },
    })
}

fn widgets() -> Value {
    definition("widgets", "Widget", json!([version("v1", true)]))
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

/// Asks again until the answer is as wanted.
async fn until(server: &Server, uri: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let asking = async {
        loop {
            let answer = server.call("GET", uri, None).await;
            if wanted(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .unwrap_or_else(|_| panic!("{uri} never came to that"))
}

fn condition(definition: &Value, type_: &str) -> Value {
    let all = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default()
}

/// Creates a definition and waits as `kubectl wait --for=condition=established` does.
async fn define(server: &Server, definition: Value) -> Value {
    let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
    let made = server.call("POST", DEFINITIONS, Some(definition)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    established(server, &name).await
}

async fn established(server: &Server, name: &str) -> Value {
    let is_established =
        |answer: &Answer| condition(&answer.json(), "Established")["status"] == "True";
    until(server, &format!("{DEFINITIONS}/{name}"), is_established).await.json()
}

#[tokio::test]
async fn a_kind_is_served_as_soon_as_it_is_established() {
    let server = Server::start().await;
    assert_eq!(server.call("GET", WIDGETS, None).await.status, StatusCode::NOT_FOUND);
    let defined = define(&server, widgets()).await;
    let names = json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"});
    assert_eq!(defined["status"]["acceptedNames"], names);
    assert_eq!(defined["status"]["storedVersions"], json!(["v1"]));
    let accepted = condition(&defined, "NamesAccepted");
    assert_eq!(accepted["reason"], "NoConflicts");
    assert_eq!(accepted["message"], "no conflicts found");
    assert_eq!(condition(&defined, "Established")["reason"], "InitialNamesAccepted");

    let made = server.call("POST", WIDGETS, Some(widget("a", json!({"colour": "red"})))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    assert_eq!(made.json()["spec"], json!({"colour": "red", "size": 1}));
    let list = server.call("GET", WIDGETS, None).await.json();
    assert_eq!(list["kind"], "WidgetList");
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let resources = server.call("GET", "/apis/example.com/v1", None).await.json();
    assert_eq!(resources["resources"][0]["name"], "widgets");
    until(&server, "/openapi/v3/apis/example.com/v1", |answer| answer.status == 200).await;
    server.stop().await;
}

#[tokio::test]
async fn a_definition_goes_after_its_objects() {
    let server = Server::start().await;
    define(&server, widgets()).await;
    let mut held = widget("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    for body in [widget("free", json!({})), held] {
        let made = server.call("POST", WIDGETS, Some(body)).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    }
    let uri = format!("{DEFINITIONS}/widgets.example.com");
    let deleted = server.call("DELETE", &uri, None).await;
    assert_eq!(deleted.status, StatusCode::OK);
    assert_eq!(deleted.json()["kind"], "CustomResourceDefinition");
    let finalizers = json!(["customresourcecleanup.apiextensions.k8s.io"]);
    assert_eq!(deleted.json()["metadata"]["finalizers"], finalizers);
    assert_eq!(condition(&deleted.json(), "Terminating")["reason"], "InstanceDeletionPending");
    let under_way = |answer: &Answer| {
        condition(&answer.json(), "Terminating")["reason"] == "InstanceDeletionInProgress"
    };
    until(&server, &uri, under_way).await;
    until(&server, &format!("{WIDGETS}/free"), |answer| answer.status == 404).await;
    let late = server.call("POST", WIDGETS, Some(widget("late", json!({})))).await;
    assert_eq!(late.status, StatusCode::METHOD_NOT_ALLOWED);
    let message = "create not allowed while custom resource definition is terminating";
    assert_eq!(late.json()["message"], message);

    let patch = json!({"metadata": {"finalizers": null}});
    let merge = [("content-type", "application/merge-patch+json")];
    let freed = server.call_with("PATCH", &format!("{WIDGETS}/held"), Some(patch), &merge).await;
    assert_eq!(freed.status, StatusCode::OK, "{freed:?}");
    until(&server, &uri, |answer| answer.status == 404).await;
    let gone = server.call("GET", WIDGETS, None).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    assert_eq!(&gone.body[..], b"404 page not found\n");
    // The name is free again, and nothing of the past is left.
    define(&server, widgets()).await;
    assert_eq!(server.call("GET", WIDGETS, None).await.json()["items"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn a_changed_schema_holds_at_once() {
    let server = Server::start().await;
    define(&server, widgets()).await;
    server.call("POST", WIDGETS, Some(widget("a", json!({"colour": "red", "size": 3})))).await;
    let uri = format!("{DEFINITIONS}/widgets.example.com");
    let mut changed = server.call("GET", &uri, None).await.json();
    let version = &mut changed["spec"]["versions"][0];
    version["additionalPrinterColumns"] =
        json!([{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]);
    version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"] = json!({"size": {"type": "integer", "maximum": 5}, "shape": {"type": "string", "default": "round"}});
    let put = server.call("PUT", &uri, Some(changed)).await;
    assert_eq!(put.status, StatusCode::OK, "{put:?}");
    // What was stored before is pruned and defaulted as it is read.
    let old = server.call("GET", &format!("{WIDGETS}/a"), None).await.json();
    assert_eq!(old["spec"], json!({"size": 3, "shape": "round"}));
    let large = server.call("POST", WIDGETS, Some(widget("b", json!({"size": 6})))).await;
    assert_eq!(large.status, StatusCode::UNPROCESSABLE_ENTITY, "{large:?}");
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = server.call_with("GET", WIDGETS, None, &accept).await.json();
    assert_eq!(table["columnDefinitions"][1]["name"], "Size");
    assert_eq!(table["rows"][0]["cells"], json!(["a", 3]));
    server.stop().await;
}

#[tokio::test]
async fn versions_share_their_objects() {
    let server = Server::start().await;
    define(
        &server,
        definition("widgets", "Widget", json!([version("v1", true), version("v2", false)])),
    )
    .await;
    server.call("POST", WIDGETS, Some(widget("a", json!({"colour": "red"})))).await;
    let other = "/apis/example.com/v2/namespaces/default/widgets";
    let mut seen = server.call("GET", &format!("{other}/a"), None).await.json();
    assert_eq!(seen["apiVersion"], "example.com/v2");
    assert_eq!(seen["spec"], json!({"colour": "red", "size": 1}));
    seen["spec"]["colour"] = "blue".into();
    let put = server.call("PUT", &format!("{other}/a"), Some(seen)).await;
    assert_eq!(put.status, StatusCode::OK, "{put:?}");
    assert_eq!(put.json()["apiVersion"], "example.com/v2");
    let first = server.call("GET", &format!("{WIDGETS}/a"), None).await.json();
    assert_eq!(first["apiVersion"], "example.com/v1");
    assert_eq!(first["spec"]["colour"], "blue");
    let list = server.call("GET", other, None).await.json();
    assert_eq!(list["items"][0]["apiVersion"], "example.com/v2");
    let watched = server.call("GET", &format!("{other}?watch=1&timeoutSeconds=1"), None).await;
    let line: Value =
        serde_json::from_slice(watched.body.split(|b| *b == b'\n').next().unwrap()).unwrap();
    assert_eq!(line["object"]["apiVersion"], "example.com/v2");
    server.stop().await;
}
