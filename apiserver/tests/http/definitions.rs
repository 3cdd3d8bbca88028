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

#[tokio::test]
async fn what_is_wrong_is_said_as_apiextensions_says_it() {
    let server = Server::start().await;
    let mut wrong = widgets();
    wrong["metadata"]["name"] = "other.example.com".into();
    wrong["spec"]["scope"] = "Galaxy".into();
    wrong["spec"]["versions"][0]["storage"] = false.into();
    wrong["spec"]["versions"][0]["subresources"]["scale"] =
        json!({"specReplicasPath": ".size", "statusReplicasPath": ""});
    wrong["spec"]["conversion"] = json!({"strategy": "Webhook"});
    let refused = server.call("POST", DEFINITIONS, Some(wrong)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let body = refused.json();
    let message = body["message"].as_str().unwrap();
    let begin = "CustomResourceDefinition.apiextensions.k8s.io \"other.example.com\" is invalid: [";
    assert!(message.starts_with(begin), "{message}");
    let fields: Vec<&str> = body["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| cause["field"].as_str().unwrap())
        .collect();
    let expected = [
        "metadata.name",
        "spec.scope",
        "spec.versions",
        "spec.subresources.scale.specReplicasPath",
        "spec.subresources.scale.statusReplicasPath",
        "spec.conversion.webhookClientConfig",
        "spec.conversion.conversionReviewVersions",
        "status.storedVersions",
    ];
    assert_eq!(fields, expected);
    for words in [
        "metadata.name: Invalid value: \"other.example.com\": must be spec.names.plural+\".\"+spec.group",
        "spec.scope: Unsupported value: \"Galaxy\": supported values: \"Cluster\", \"Namespaced\"",
        "must have exactly one version marked as storage version",
        "specReplicasPath: Invalid value: \".size\": should be a json path under .spec",
        "statusReplicasPath: Required value",
        "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
    let empty = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "x.y"}, "spec": {},
    });
    let refused = server.call("POST", DEFINITIONS, Some(empty)).await.json();
    let message = refused["message"].as_str().unwrap().to_owned();
    for words in [
        "spec.group: Required value",
        "spec.scope: Required value",
        "spec.names.kind: Required value",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_fixed_stays_and_stored_versions_are_remembered() {
    let server = Server::start().await;
    define(&server, widgets()).await;
    let uri = format!("{DEFINITIONS}/widgets.example.com");
    let merge = [("content-type", "application/merge-patch+json")];
    let scope = json!({"spec": {"scope": "Cluster"}});
    let refused = server.call_with("PATCH", &uri, Some(scope), &merge).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let cause = &refused.json()["details"]["causes"][0];
    assert_eq!(cause["field"], "spec.scope");
    assert_eq!(cause["message"], "Invalid value: \"Cluster\": field is immutable");

    server.call("POST", WIDGETS, Some(widget("a", json!({"colour": "red"})))).await;
    let versions = json!({"spec": {"versions": [version("v1", false), version("v2", true)]}});
    let patched = server.call_with("PATCH", &uri, Some(versions), &merge).await;
    assert_eq!(patched.status, StatusCode::OK, "{patched:?}");
    assert_eq!(patched.json()["status"]["storedVersions"], json!(["v1", "v2"]));
    for wanted in ["v1", "v2"] {
        let uri = format!("/apis/example.com/{wanted}/namespaces/default/widgets/a");
        let seen = server.call("GET", &uri, None).await.json();
        assert_eq!(seen["apiVersion"], format!("example.com/{wanted}"));
        assert_eq!(seen["spec"]["colour"], "red");
    }
    let only = json!({"spec": {"versions": [version("v2", true)]}});
    let refused = server.call_with("PATCH", &uri, Some(only), &merge).await;
    assert_eq!(refused.json()["details"]["causes"][0]["field"], "status.storedVersions[0]");
    server.stop().await;
}

#[tokio::test]
async fn names_belong_to_who_came_first() {
    let server = Server::start().await;
    define(&server, widgets()).await;
    let late = definition("gadgets", "Widget", json!([version("v1", true)]));
    let made = server.call("POST", DEFINITIONS, Some(late)).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let uri = format!("{DEFINITIONS}/gadgets.example.com");
    let judged = |answer: &Answer| condition(&answer.json(), "Established").is_object();
    let judged = until(&server, &uri, judged).await.json();
    let names = condition(&judged, "NamesAccepted");
    assert_eq!(names["status"], "False");
    assert_eq!(names["reason"], "ListKindConflict");
    assert_eq!(names["message"], "\"WidgetList\" is already in use");
    assert_eq!(condition(&judged, "Established")["reason"], "NotAccepted");
    let gadgets = "/apis/example.com/v1/namespaces/default/gadgets";
    assert_eq!(server.call("GET", gadgets, None).await.status, StatusCode::NOT_FOUND);
    // The names are free once the other is gone.
    server.call("DELETE", &format!("{DEFINITIONS}/widgets.example.com"), None).await;
    established(&server, "gadgets.example.com").await;
    assert_eq!(server.call("GET", gadgets, None).await.status, StatusCode::OK);
    server.stop().await;
}

#[tokio::test]
async fn what_is_built_in_cannot_be_defined() {
    let server = Server::start().await;
    let mut ours = definition("tasks", "Task", json!([version("v9", true)]));
    ours["metadata"]["name"] = "tasks.commonage.dev".into();
    ours["spec"]["group"] = "commonage.dev".into();
    let refused = server.call("POST", DEFINITIONS, Some(ours)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    let words = "tasks.commonage.dev is built into this server and cannot be defined";
    assert!(message.contains(words), "{message}");
    server.stop().await;
}

#[tokio::test]
async fn a_watch_goes_on_over_a_change_of_the_schema_and_ends_with_the_kind() {
    let server = Server::start().await;
    define(&server, widgets()).await;
    server.call("POST", WIDGETS, Some(widget("a", json!({"size": 1})))).await;
    let uri = format!("{DEFINITIONS}/widgets.example.com");
    let watching = async {
        let uri = format!("{WIDGETS}?watch=1");
        let answer = server.call("GET", &uri, None).await;
        let lines = answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let events: Vec<String> = lines
            .map(|line| {
                let event: Value = serde_json::from_slice(line).unwrap();
                let name = event["object"]["metadata"]["name"].as_str().unwrap();
                format!("{} {name}", event["type"].as_str().unwrap())
            })
            .collect();
        events
    };
    let changing = async {
        let counters = server.api.engine().watch_counters();
        // Three of them are the server's own.
        while counters.open.load(std::sync::atomic::Ordering::Relaxed) < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut changed = server.call("GET", &uri, None).await.json();
        changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            ["shape"] = json!({"type": "string", "default": "round"});
        assert_eq!(server.call("PUT", &uri, Some(changed)).await.status, StatusCode::OK);
        let made = server.call("POST", WIDGETS, Some(widget("b", json!({})))).await.json();
        assert_eq!(made["spec"], json!({"size": 1, "shape": "round"}));
        server.call("DELETE", &uri, None).await;
    };
    let (mut events, ()) =
        tokio::time::timeout(PATIENCE, async { tokio::join!(watching, changing) })
            .await
            .expect("the watch ends with its kind");
    events[2..].sort();
    assert_eq!(events, ["ADDED a", "ADDED b", "DELETED a", "DELETED b"]);
    server.stop().await;
}

#[tokio::test]
async fn another_selectable_field_takes_a_new_cache() {
    let server = Server::start().await;
    define(&server, widgets()).await;
    for (name, colour) in [("a", "red"), ("b", "blue")] {
        server.call("POST", WIDGETS, Some(widget(name, json!({"colour": colour})))).await;
    }
    let by_colour = format!("{WIDGETS}?fieldSelector=spec.colour%3Dblue");
    assert_eq!(server.call("GET", &by_colour, None).await.status, StatusCode::BAD_REQUEST);
    let uri = format!("{DEFINITIONS}/widgets.example.com");
    let mut changed = server.call("GET", &uri, None).await.json();
    changed["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.colour"}]);
    assert_eq!(server.call("PUT", &uri, Some(changed)).await.status, StatusCode::OK);
    let found = server.call("GET", &by_colour, None).await.json();
    let names: Vec<&Value> =
        found["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["b"]);
    server.stop().await;
}

#[tokio::test]
async fn definitions_and_their_objects_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_in(dir.path()).await;
    define(&server, widgets()).await;
    let made =
        server.call("POST", WIDGETS, Some(widget("a", json!({"colour": "red"})))).await.json();
    server.stop().await;
    let server = Server::start_in(dir.path()).await;
    let found = server.call("GET", &format!("{WIDGETS}/a"), None).await;
    assert_eq!(found.json(), made);
    assert_eq!(server.call("GET", "/openapi/v3/apis/example.com/v1", None).await.status, 200);
    // A watch resumes from before the restart.
    let version = made["metadata"]["resourceVersion"].as_str().unwrap();
    server.call("DELETE", &format!("{WIDGETS}/a"), None).await;
    let uri = format!("{WIDGETS}?watch=1&timeoutSeconds=1&resourceVersion={version}");
    let watched = server.call("GET", &uri, None).await;
    assert!(watched.body.starts_with(b"{\"type\":\"DELETED\""), "{watched:?}");
    server.stop().await;
}

/// As kubectl applied it, and as kube-apiserver 1.36 then answered it.
#[tokio::test]
async fn a_definition_reads_back_as_from_kube_apiserver() {
    let server = Server::start().await;
    let real: Value = serde_json::from_str(include_str!("definition.json")).unwrap();
    let applied = "kubectl.kubernetes.io/last-applied-configuration";
    let applied = real["metadata"]["annotations"][applied].as_str().unwrap();
    let mut defined = define(&server, serde_json::from_str(applied).unwrap()).await;
    assert_eq!(defined["spec"], real["spec"]);
    let conditions = defined["status"]["conditions"].as_array_mut().unwrap();
    for (condition, real) in
        conditions.iter_mut().zip(real["status"]["conditions"].as_array().unwrap())
    {
        condition["lastTransitionTime"] = real["lastTransitionTime"].clone();
    }
    assert_eq!(defined["status"], real["status"]);
    assert_eq!(defined["metadata"]["generation"], 1);
    let tasks = server.call("GET", "/apis/example.com/v1alpha1", None).await.json();
    let scale = json!({
        "name": "tasks/scale", "singularName": "", "namespaced": true, "group": "autoscaling",
        "version": "v1", "kind": "Scale", "verbs": ["get", "patch", "update"],
    });
    let rows = tasks["resources"].as_array().unwrap();
    assert!(rows.contains(&scale), "{rows:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_schema_must_be_structural() {
    let server = Server::start().await;
    let mut wrong = widgets();
    let properties = &mut wrong["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    properties["spec"]["properties"]["size"] = json!({"minimum": 1});
    let refused = server.call("POST", DEFINITIONS, Some(wrong)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let field = "spec.validation.openAPIV3Schema.properties[spec].properties[size].type";
    let causes = refused.json()["details"]["causes"].clone();
    let cause = causes.as_array().unwrap().iter().find(|cause| cause["field"] == field);
    let message = &cause.unwrap_or_else(|| panic!("{causes}"))["message"];
    assert_eq!(message, "Required value: must not be empty for specified object fields");
    server.stop().await;
}
