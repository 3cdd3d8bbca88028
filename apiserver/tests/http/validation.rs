//! What is wrong with an object, in the words and codes that clients know from kube-apiserver.

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, Server};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const GAUGES: &str = "/apis/example.com/v1/namespaces/default/gauges";
const TASKS: &str = "/apis/commonage.dev/v1/namespaces/default/tasks";

async fn with_gauges() -> Server {
    let server = Server::start().await;
    let spec = json!({
        "type": "object", "required": ["size"],
        "x-kubernetes-validations": [
            {"rule": "self.size <= self.limit", "messageExpression": "'at most %d'.format([self.limit])", "fieldPath": ".size"},
        ],
        "properties": {
            "size": {"type": "integer", "minimum": 0},
            "limit": {"type": "integer", "default": 10},
            "mode": {"type": "string", "enum": ["a", "b"], "x-kubernetes-validations": [
                {"rule": "self == oldSelf", "message": "mode is immutable", "reason": "FieldValueForbidden"}]},
            "name": {"type": "string", "maxLength": 5, "pattern": "^[a-z]*$"},
            "parts": {"type": "array", "maxItems": 2, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}},
        },
    });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gauges.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "gauges", "kind": "Gauge"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": spec, "status": {"type": "object", "properties": {"n": {"type": "integer"}}}}}}}],
        },
    });
    let made = server.call("POST", DEFINITIONS, Some(definition)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let ready = async {
        while server.call("GET", GAUGES, None).await.status != StatusCode::OK {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), ready).await.unwrap();
    server
}

fn gauge(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Gauge", "metadata": {"name": name}, "spec": spec})
}

fn invalid(answer: &Answer) -> (String, Value) {
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
    let status = answer.json();
    assert_eq!(status["reason"], "Invalid");
    (status["message"].as_str().unwrap().to_owned(), status["details"]["causes"].clone())
}

#[tokio::test]
async fn a_bad_object_is_answered_with_every_cause() {
    let server = with_gauges().await;
    let cases = [
        (json!({}), "spec.size: Required value", "FieldValueRequired"),
        (
            json!({"size": "x"}),
            "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
            "FieldValueTypeInvalid",
        ),
        (
            json!({"size": 1, "mode": "c"}),
            "spec.mode: Unsupported value: \"c\": supported values: \"a\", \"b\"",
            "FieldValueNotSupported",
        ),
        (
            json!({"size": 1, "name": "abcdef"}),
            "spec.name: Too long: may not be more than 5 bytes",
            "FieldValueTooLong",
        ),
        (
            json!({"size": 1, "parts": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}),
            "spec.parts: Too many: 3: must have at most 2 items",
            "FieldValueTooMany",
        ),
    ];
    let unchecked = "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
    for (spec, wanted, reason) in cases {
        let answer = server.call("POST", GAUGES, Some(gauge("g", spec.clone()))).await;
        let (message, causes) = invalid(&answer);
        assert_eq!(
            message,
            format!("Gauge.example.com \"g\" is invalid: [{wanted}, {unchecked}]"),
            "{spec}"
        );
        assert_eq!(causes[0]["reason"], reason);
    }
    let alone = [
        (
            json!({"size": -1}),
            "spec.size: Invalid value: -1: spec.size in body should be greater than or equal to 0",
        ),
        (
            json!({"size": 1, "name": "A"}),
            "spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]*$'",
        ),
        (
            json!({"size": 1, "parts": [{"name": "a"}, {"name": "a"}]}),
            "spec.parts[1]: Duplicate value: {\"name\":\"a\"}",
        ),
        (json!({"size": 11}), "spec.size: Invalid value: at most 10"),
    ];
    for (spec, wanted) in alone {
        let answer = server.call("POST", GAUGES, Some(gauge("g", spec.clone()))).await;
        let (message, _) = invalid(&answer);
        assert_eq!(message, format!("Gauge.example.com \"g\" is invalid: {wanted}"), "{spec}");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_update_is_compared_with_what_was_there() {
    let server = with_gauges().await;
    let made = server.call("POST", GAUGES, Some(gauge("g", json!({"size": 1, "mode": "a"})))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let mut changed = made.json();
    changed["spec"]["mode"] = json!("b");
    let answer = server.call("PUT", &format!("{GAUGES}/g"), Some(changed)).await;
    let (message, causes) = invalid(&answer);
    assert_eq!(
        message,
        "Gauge.example.com \"g\" is invalid: spec.mode: Forbidden: mode is immutable"
    );
    assert_eq!(
        causes,
        json!([{"reason": "FieldValueForbidden", "message": "Forbidden: mode is immutable", "field": "spec.mode"}])
    );
    let mut status = made.json();
    status["status"] = json!({"n": "x"});
    let answer = server.call("PUT", &format!("{GAUGES}/g/status"), Some(status)).await;
    let (message, causes) = invalid(&answer);
    assert!(
        message.contains(
            "status.n: Invalid value: \"string\": n in body must be of type integer: \"string\""
        ),
        "{message}"
    );
    assert_eq!(causes[0]["field"], "status.n");
    server.stop().await;
}

#[tokio::test]
async fn strict_requests_name_duplicate_and_unknown_fields() {
    let server = with_gauges().await;
    let mut body = gauge("g", json!({"size": 1, "x": 1, "parts": [{"name": "a", "y": 1}]}));
    body["metadata"]["bogus"] = json!(1);
    let uri = format!("{GAUGES}?fieldValidation=Strict");
    let answer = server.call("POST", &uri, Some(body)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        answer.json()["message"],
        "Gauge in version \"v1\" cannot be handled as a Gauge: strict decoding error: unknown field \"metadata.bogus\", unknown field \"spec.parts[0].y\", unknown field \"spec.x\""
    );
    server.stop().await;
}

#[tokio::test]
async fn our_own_kinds_speak_as_any_custom_resource() {
    let server = Server::start().await;
    let task = |spec: Value| json!({"apiVersion": "commonage.dev/v1", "kind": "Task", "metadata": {"name": "t"}, "spec": spec});
    let cases = [
        (
            json!({"container": {"command": ["true"]}, "priority": 3_000_000_000_u64}),
            "spec.priority: Invalid value: 3000000000: spec.priority in body should be less than or equal to 2147483647",
        ),
        (
            json!({"container": {"command": "true"}}),
            "spec.container.command: Invalid value: \"string\": spec.container.command in body must be of type array: \"string\"",
        ),
        (
            json!({"container": {"command": ["true"]}, "killPolicy": {"gracePeriodSeconds": -1}}),
            "spec.killPolicy.gracePeriodSeconds: Invalid value: -1: spec.killPolicy.gracePeriodSeconds in body should be greater than or equal to 0",
        ),
    ];
    for (spec, wanted) in cases {
        let (message, _) = invalid(&server.call("POST", TASKS, Some(task(spec))).await);
        assert!(message.contains(wanted), "{message}");
    }
    server.stop().await;
}

/// Kinds with rules of their own look into `spec` and `status`; those who send something else there are told
/// so, by whatever verb.
#[tokio::test]
async fn parts_that_are_no_objects_are_refused_by_every_kind() {
    let server = Server::start().await;
    let task = json!({"apiVersion": "commonage.dev/v1", "kind": "Task", "metadata": {"name": "there"},
        "spec": {"container": {"command": ["true"]}}});
    assert_eq!(server.call("POST", TASKS, Some(task)).await.status, StatusCode::CREATED);
    let groups = server.call("GET", "/apis", None).await.json();
    let groups = groups["groups"].as_array().unwrap();
    let versions =
        groups.iter().map(|group| group["preferredVersion"]["groupVersion"].as_str().unwrap());
    let mut asked = 0;
    for version in std::iter::once("v1").chain(versions) {
        let root = if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") };
        let found = server.call("GET", &root, None).await.json();
        for resource in found["resources"].as_array().unwrap() {
            let creates = resource["verbs"].as_array().unwrap().contains(&"create".into());
            let name = resource["name"].as_str().unwrap();
            if !creates || name.contains('/') {
                continue;
            }
            let namespace = if resource["namespaced"] == true { "/namespaces/default" } else { "" };
            for (part, value) in [
                ("spec", json!("x")),
                ("spec", json!(5)),
                ("spec", json!([])),
                ("status", json!("x")),
            ] {
                let mut body = json!({"apiVersion": version, "kind": resource["kind"], "metadata": {"name": "wrong"}});
                body[part] = value;
                let path = format!("{root}{namespace}/{name}?dryRun=All");
                let answer = server.call("POST", &path, Some(body.clone())).await;
                assert!(answer.status.as_u16() < 500, "{body}: {answer:?}");
                asked += 1;
            }
        }
    }
    assert!(asked > 60, "{asked} requests");
    let made = server.call("GET", &format!("{TASKS}/there"), None).await.json();
    let mut changed = made.clone();
    changed["spec"] = json!("x");
    let answer = server.call("PUT", &format!("{TASKS}/there"), Some(changed)).await;
    let (message, _) = invalid(&answer);
    assert!(message.contains("spec in body must be of type object: \"string\""), "{message}");
}
