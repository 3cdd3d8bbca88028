#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;
use crate::resource::tests::task_def;

fn json_of(error: &ApiError) -> Value {
    serde_json::from_slice(&error.to_json()).unwrap()
}

#[test]
fn a_missing_object_is_named_by_its_resource() {
    assert_eq!(
        json_of(&ApiError::not_found(&task_def(), "x")),
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "tasks.example.com \"x\" not found", "reason": "NotFound",
            "details": {"name": "x", "group": "example.com", "kind": "tasks"}, "code": 404,
        })
    );
    assert_eq!(ApiError::not_found_in("", "namespaces", "x").message, "namespaces \"x\" not found");
}

#[test]
fn an_invalid_object_is_named_by_its_kind_and_lists_its_causes() {
    let required = Cause::required("spec.command", "");
    let one = ApiError::invalid(&task_def(), "x", vec![required.clone()]);
    assert_eq!(one.message, "Task.example.com \"x\" is invalid: spec.command: Required value");
    let restart = Cause::not_supported("spec.restart", &json!("Maybe"), ["Always", "Never"]);
    let two = ApiError::invalid(&task_def(), "x", vec![required, restart]);
    assert_eq!(
        two.message,
        "Task.example.com \"x\" is invalid: [spec.command: Required value, spec.restart: Unsupported value: \
         \"Maybe\": supported values: \"Always\", \"Never\"]"
    );
    assert_eq!(
        json_of(&two)["details"]["causes"][0],
        json!({"reason": "FieldValueRequired", "message": "Required value", "field": "spec.command"})
    );
}

#[test]
fn values_are_printed_as_go_does() {
    assert_eq!(Cause::invalid("a", &Value::Null, "why").message, "Invalid value: null: why");
    assert_eq!(Cause::invalid("a", &json!(5), "").message, "Invalid value: 5");
    assert_eq!(Cause::invalid("a", &json!(2.0), "").message, "Invalid value: 2");
    assert_eq!(Cause::duplicate("a", &json!({"n": 1})).message, "Duplicate value: {\"n\":1}");
    assert_eq!(Cause::too_many("a", 5, 1).message, "Too many: 5: must have at most 1 item");
    assert_eq!(Cause::too_many("a", 5, 3).message, "Too many: 5: must have at most 3 items");
}

#[test]
fn refusals_name_the_resource_as_far_as_it_is_known() {
    let message = |group, resource, name| ApiError::forbidden(group, resource, name, "no").message;
    assert_eq!(message("example.com", "tasks", "x"), "tasks.example.com \"x\" is forbidden: no");
    assert_eq!(message("", "secrets", ""), "secrets is forbidden: no");
    assert_eq!(message("", "", ""), "forbidden: no");
}

#[test]
fn a_version_from_the_future_times_out() {
    let error = ApiError::timeout_rv_too_large(9, 5);
    assert_eq!(error.message, "Timeout: Too large resource version: 9, current: 5");
    assert_eq!((error.code, error.retry_after_s()), (504, Some(1)));
    assert_eq!(error.details.unwrap().causes[0].reason, "ResourceVersionTooLarge");
}

#[test]
fn success_and_continuation_have_their_places() {
    let success: Value = serde_json::from_slice(&success_status(&task_def(), "x", "u")).unwrap();
    assert_eq!(
        success,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": "x", "group": "example.com", "kind": "tasks", "uid": "u"}})
    );
    assert_eq!(
        json_of(&ApiError::expired_continue("abc".into()))["metadata"],
        json!({"continue": "abc"})
    );
}
