//! Server-side apply and `managedFields` over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, Server};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const GADGETS: &str = "/apis/example.com/v1/namespaces/default/gadgets";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Everything a test may wait for, before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that serves gadgets.
async fn server() -> Server {
    let server = Server::start().await;
    let text = json!({"type": "string"});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "gadgets", "kind": "Gadget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "size": {"type": "integer", "default": 1}, "colour": text,
                        "parts": {
                            "type": "array", "x-kubernetes-list-type": "map",
                            "x-kubernetes-list-map-keys": ["name"],
                            "items": {
                                "type": "object", "required": ["name"],
                                "properties": {"name": text, "value": text},
                            },
                        },
                    }},
                    "status": {"type": "object", "properties": {"state": text}},
                }}},
            }],
        },
    });
    let made = server.call("POST", DEFINITIONS, Some(definition)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    let served = async {
        while server.call("GET", GADGETS, None).await.status != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, served).await.unwrap();
    server
}

fn gadget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": name}, "spec": spec})
}

async fn apply(server: &Server, uri: &str, query: &str, body: Value) -> Answer {
    let kind = [("content-type", "application/apply-patch+yaml")];
    server.call_with("PATCH", &format!("{uri}?{query}"), Some(body), &kind).await
}

async fn merge(server: &Server, uri: &str, query: &str, body: Value) -> Answer {
    let kind = [("content-type", "application/merge-patch+json")];
    server.call_with("PATCH", &format!("{uri}?{query}"), Some(body), &kind).await
}

/// `manager/operation/subresource` and the fields.
fn owners(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let owner = |entry: &Value| {
        let of = ["manager", "operation", "subresource"].map(|member| text(&entry[member]));
        (of.join("/"), entry["fieldsV1"].clone())
    };
    entries.iter().map(owner).collect()
}

fn owner(object: &Value, name: &str) -> Value {
    let found = owners(object).into_iter().find(|(owner, _)| owner == name);
    found.unwrap_or_else(|| panic!("{name} owns nothing in {object}")).1
}

#[tokio::test]
async fn an_apply_creates_changes_and_drops() {
    let server = server().await;
    let uri = format!("{GADGETS}/g");
    let made = apply(&server, &uri, "fieldManager=a", gadget("g", json!({"colour": "red"}))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    let made = made.json();
    assert_eq!(made["spec"], json!({"colour": "red", "size": 1}));
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(made["metadata"]["namespace"], "default");
    assert_eq!(owner(&made, "a/Apply/"), json!({"f:spec": {"f:colour": {}}}));
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!(entry["apiVersion"], "example.com/v1");
    assert_eq!(entry["fieldsType"], "FieldsV1");
    assert!(entry["time"].as_str().unwrap().ends_with('Z'));

    let same = apply(&server, &uri, "fieldManager=a", gadget("g", json!({"colour": "red"}))).await;
    assert_eq!(same.status, StatusCode::OK);
    assert_eq!(same.json(), made, "nothing changed, the version included");

    let spec = json!({"size": 2, "parts": [{"name": "p", "value": "1"}]});
    let changed = apply(&server, &uri, "fieldManager=a", gadget("g", spec)).await.json();
    assert_eq!(changed["spec"], json!({"size": 2, "parts": [{"name": "p", "value": "1"}]}));
    assert_eq!(changed["metadata"]["generation"], 2);
    server.stop().await;
}

#[tokio::test]
async fn conflicts_force_and_shared_fields() {
    let server = server().await;
    let uri = format!("{GADGETS}/g");
    let part = |value: &str| gadget("g", json!({"parts": [{"name": "p", "value": value}]}));
    apply(&server, &uri, "fieldManager=a", part("1")).await;
    let refused = apply(&server, &uri, "fieldManager=b&force=false", part("2")).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(
        refused.json(),
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "Apply failed with 1 conflict: conflict with \"a\": .spec.parts[name=\"p\"].value",
            "reason": "Conflict",
            "details": {"causes": [{
                "reason": "FieldManagerConflict", "message": "conflict with \"a\"",
                "field": ".spec.parts[name=\"p\"].value",
            }]},
            "code": 409,
        })
    );
    let shared = apply(&server, &uri, "fieldManager=b", part("1")).await.json();
    assert_eq!(owner(&shared, "a/Apply/"), owner(&shared, "b/Apply/"));
    let forced = apply(&server, &uri, "fieldManager=c&force=true", part("3")).await.json();
    assert_eq!(forced["spec"]["parts"][0]["value"], "3");
    let lost = json!({"f:spec": {"f:parts": {"k:{\"name\":\"p\"}": {".": {}, "f:name": {}}}}});
    assert_eq!(owner(&forced, "a/Apply/"), lost);
    // The others still own the item; the applier that drops it takes only its value along.
    let dropped = apply(&server, &uri, "fieldManager=c", gadget("g", json!({}))).await.json();
    assert_eq!(dropped["spec"]["parts"], json!([{"name": "p"}]));
    server.stop().await;
}

#[tokio::test]
async fn every_other_write_is_noted() {
    let server = server().await;
    let kubectl = [("user-agent", "kubectl/v1.33.1 (linux/amd64)")];
    let body = gadget("g", json!({"colour": "red"}));
    let made = server.call_with("POST", GADGETS, Some(body), &kubectl).await.json();
    let all = json!({"f:spec": {".": {}, "f:colour": {}, "f:size": {}}});
    assert_eq!(owner(&made, "kubectl/Update/"), all);
    let uri = format!("{GADGETS}/g");
    let patched = merge(&server, &uri, "fieldManager=p", json!({"spec": {"colour": "blue"}})).await;
    let patched = patched.json();
    assert_eq!(owner(&patched, "p/Update/"), json!({"f:spec": {"f:colour": {}}}));
    assert_eq!(owner(&patched, "kubectl/Update/"), json!({"f:spec": {".": {}, "f:size": {}}}));
    let mut put = patched.clone();
    put["metadata"]["labels"] = json!({"x": "y"});
    let put = server.call("PUT", &format!("{uri}?fieldManager=u"), Some(put)).await.json();
    assert_eq!(owner(&put, "u/Update/"), json!({"f:metadata": {"f:labels": {".": {}, "f:x": {}}}}));
    let same = merge(&server, &uri, "fieldManager=z", json!({"spec": {"colour": "blue"}})).await;
    assert_eq!(same.json(), put, "no change, no entry");
    let status = json!({"status": {"state": "up"}, "spec": {"colour": "ignored"}});
    let status = merge(&server, &format!("{uri}/status"), "fieldManager=s", status).await.json();
    let own = json!({"f:status": {".": {}, "f:state": {}}});
    assert_eq!(owner(&status, "s/Update/status"), own);
    assert_eq!(status["metadata"]["generation"], put["metadata"]["generation"]);
    server.stop().await;
}

#[tokio::test]
async fn the_status_is_applied_apart() {
    let server = server().await;
    let uri = format!("{GADGETS}/g/status");
    let mut wanted = gadget("g", json!({"colour": "ignored"}));
    wanted["status"] = json!({"state": "up"});
    let missing = apply(&server, &uri, "fieldManager=s", wanted.clone()).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    server.call("POST", GADGETS, Some(gadget("g", json!({})))).await;
    let applied = apply(&server, &uri, "fieldManager=s", wanted).await;
    assert_eq!(applied.status, StatusCode::OK, "{:?}", applied.body);
    let applied = applied.json();
    assert_eq!(applied["status"]["state"], "up");
    assert_eq!(applied["spec"].get("colour"), None);
    assert_eq!(owner(&applied, "s/Apply/status"), json!({"f:status": {"f:state": {}}}));
    server.stop().await;
}

#[tokio::test]
async fn a_body_may_be_yaml_and_a_dry_run_leaves_nothing() {
    let server = server().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\ndata:\n  k: v\n";
    let headers =
        [("authorization", "Bearer t-root"), ("content-type", "application/apply-patch+yaml")];
    let uri = format!("{MAPS}/m?fieldManager=a");
    let dry = server.raw("PATCH", &format!("{uri}&dryRun=All"), Bytes::from(yaml), &headers).await;
    assert_eq!(dry.status, StatusCode::CREATED);
    assert_eq!(server.call("GET", &format!("{MAPS}/m"), None).await.status, StatusCode::NOT_FOUND);
    let made = server.raw("PATCH", &uri, Bytes::from(yaml), &headers).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    assert_eq!(owner(&made.json(), "a/Apply/"), json!({"f:data": {"f:k": {}}}));
    server.stop().await;
}

#[tokio::test]
async fn refusals_are_in_kubernetes_words() {
    let server = server().await;
    let uri = format!("{GADGETS}/g");
    let good = gadget("g", json!({}));
    let refused = |query: &'static str, body: Value| {
        let (server, uri) = (&server, &uri);
        async move {
            let answer = apply(server, uri, query, body).await;
            let message = answer.json()["message"].as_str().unwrap().to_owned();
            (answer.status.as_u16(), message)
        }
    };
    let (code, message) = refused("", good.clone()).await;
    assert_eq!(code, 422);
    assert_eq!(
        message,
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    let mut other = good.clone();
    other["apiVersion"] = json!("example.com/v2");
    let answer = refused("fieldManager=a", other).await;
    assert_eq!(answer, (400, "invalid object type: example.com/v2, Kind=Gadget".into()));
    let answer = refused("fieldManager=a", json!({})).await;
    assert_eq!(answer, (400, "invalid object type: /, Kind=".into()));
    let mut managed = good.clone();
    managed["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    let answer = refused("fieldManager=a", managed).await;
    assert_eq!(answer, (400, "metadata.managedFields must be nil".into()));
    let mut nameless = good.clone();
    nameless["metadata"] = json!({});
    let answer = refused("fieldManager=a", nameless).await;
    let message =
        "the name of the object (g based on URL) was undeterminable: name must be provided";
    assert_eq!(answer, (400, message.into()));
    let answer = refused("fieldManager=a", gadget("h", json!({}))).await;
    let message = "the name of the object (h) does not match the name on the URL (g)";
    assert_eq!(answer, (400, message.into()));
    let answer = refused("fieldManager=a", gadget("g", json!({"bogus": 1}))).await;
    let message = "failed to create typed patch object (/g; example.com/v1, Kind=Gadget): .spec.bogus: field not declared in schema";
    assert_eq!(answer, (500, message.into()));
    let mut strange = good.clone();
    strange["metadata"]["uid"] = json!("u");
    let answer = refused("fieldManager=a", strange).await;
    let message = "Operation cannot be fulfilled on gadgets.example.com \"g\": uid mismatch: the provided object specified uid u, and no existing object was found";
    assert_eq!(answer, (409, message.into()));
    let merged = merge(&server, &uri, "force=true", json!({})).await;
    let message = "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch";
    assert_eq!(merged.json()["message"], message);
    server.stop().await;
}

#[tokio::test]
async fn entries_can_be_reset_and_come_back_with_the_next_apply() {
    let server = server().await;
    let uri = format!("{GADGETS}/g");
    apply(&server, &uri, "fieldManager=a", gadget("g", json!({"colour": "red"}))).await;
    let reset = json!({"metadata": {"managedFields": [{}]}});
    let reset = merge(&server, &uri, "", reset).await;
    assert_eq!(reset.status, StatusCode::OK);
    assert!(reset.json()["metadata"].get("managedFields").is_none());
    let refused =
        apply(&server, &uri, "fieldManager=b", gadget("g", json!({"colour": "blue"}))).await;
    assert_eq!(
        refused.json()["message"],
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using example.com/v1: .spec.colour"
    );
    server.stop().await;
}
