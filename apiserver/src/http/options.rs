//! Query strings of writes and `DeleteOptions` bodies as the engine's options, and their refusals.

use std::sync::Arc;

use http::HeaderMap;
use http::header::USER_AGENT;
use serde_json::Value;

use super::query::Query;
use crate::auth::UserInfo;
use crate::engine::{DeleteOptions, FieldValidation, Propagation, WriteOptions};
use crate::status::{ApiError, Cause};

/// Kubernetes' own bound on a field manager's name.
const FIELD_MANAGER_BYTES_MAX: usize = 128;

/// 422: an option's value is not one of `supported`.
pub(super) fn unsupported(kind: &str, field: &str, value: &str, supported: &[&str]) -> ApiError {
    let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
    invalid(
        kind,
        "FieldValueNotSupported",
        field,
        format!("Unsupported value: {value:?}: supported values: {}", supported.join(", ")),
    )
}

fn invalid(kind: &str, reason: &'static str, field: &str, message: String) -> ApiError {
    let cause = Cause { reason: reason.into(), message, field: field.to_owned() };
    ApiError::invalid_kind("meta.k8s.io", kind, "", vec![cause])
}

/// `kind` names the options in refusals: `CreateOptions`, `PatchOptions`, ….
pub(super) fn write(
    kind: &str,
    query: &Query,
    headers: &HeaderMap,
    user: Arc<UserInfo>,
) -> Result<WriteOptions, ApiError> {
    let field_validation = match query.filled("fieldValidation") {
        None | Some("Warn") => FieldValidation::Warn,
        Some("Strict") => FieldValidation::Strict,
        Some("Ignore") => FieldValidation::Ignore,
        Some(other) => {
            let supported = ["", "Ignore", "Strict", "Warn"];
            return Err(unsupported(kind, "fieldValidation", other, &supported));
        }
    };
    Ok(WriteOptions {
        dry_run: dry_run(kind, query.all("dryRun"))?,
        field_manager: field_manager(kind, query, headers)?,
        field_validation,
        duplicate_fields: Vec::new(),
        user,
    })
}

fn dry_run<'a>(kind: &str, values: impl Iterator<Item = &'a str>) -> Result<bool, ApiError> {
    let mut dry = false;
    for value in values.filter(|value| !value.is_empty()) {
        if value != "All" {
            return Err(unsupported(kind, "dryRun", value, &["All"]));
        }
        dry = true;
    }
    Ok(dry)
}

/// The parameter, or the program's name at the front of the User-Agent.
fn field_manager(
    kind: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Option<String>, ApiError> {
    if let Some(manager) = query.filled("fieldManager") {
        if manager.len() > FIELD_MANAGER_BYTES_MAX {
            let message = format!("Too long: may not be more than {FIELD_MANAGER_BYTES_MAX} bytes");
            return Err(invalid(kind, "FieldValueTooLong", "fieldManager", message));
        }
        if manager.chars().any(char::is_control) {
            let message =
                format!("Invalid value: {manager:?}: should only contain printable characters");
            return Err(invalid(kind, "FieldValueInvalid", "fieldManager", message));
        }
        return Ok(Some(manager.to_owned()));
    }
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    let program = agent.and_then(|agent| agent.split('/').next()).map(str::trim);
    Ok(program
        .filter(|program| !program.is_empty() && program.len() <= FIELD_MANAGER_BYTES_MAX)
        .map(str::to_owned))
}

/// The body wins over the query, as in Kubernetes. Returns `dryRun` beside the options.
pub(super) fn delete(
    query: &Query,
    body: Option<&Value>,
) -> Result<(DeleteOptions, bool), ApiError> {
    const KIND: &str = "DeleteOptions";
    let Some(body) = body.filter(|body| !body.is_null()) else {
        let orphan = query.flag("orphanDependents");
        let options = DeleteOptions {
            propagation: propagation(query.filled("propagationPolicy"), orphan)?,
            grace_s: query.filled("gracePeriodSeconds").map(grace_text).transpose()?,
            ..DeleteOptions::default()
        };
        return Ok((options, dry_run(KIND, query.all("dryRun"))?));
    };
    let Value::Object(body) = body else {
        return Err(ApiError::bad_request("DeleteOptions must be an object"));
    };
    let kind = body.get("kind").and_then(Value::as_str).unwrap_or(KIND);
    if kind != KIND {
        return Err(ApiError::bad_request(format!(
            "expect DeleteOptions as the body of a DELETE, got {kind:?}"
        )));
    }
    let precondition = |field: &str| -> Option<String> {
        let value = body.get("preconditions")?.get(field)?.as_str()?;
        Some(value.to_owned())
    };
    let options = DeleteOptions {
        uid: precondition("uid"),
        resource_version: precondition("resourceVersion"),
        propagation: propagation(
            body.get("propagationPolicy").and_then(Value::as_str),
            body.get("orphanDependents").and_then(Value::as_bool),
        )?,
        grace_s: grace(body.get("gracePeriodSeconds"))?,
    };
    let dry = body.get("dryRun").and_then(Value::as_array);
    let dry = dry.into_iter().flatten().filter_map(Value::as_str);
    Ok((options, dry_run(KIND, dry)?))
}

/// `gracePeriodSeconds`. A negative one counts as 1, as in Kubernetes.
fn grace(value: Option<&Value>) -> Result<Option<i64>, ApiError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_i64() {
            Some(seconds) => Ok(Some(if seconds < 0 { 1 } else { seconds })),
            None => Err(ApiError::bad_request(format!(
                "DeleteOptions.gracePeriodSeconds must be a whole number of seconds, got {value}"
            ))),
        },
    }
}

fn grace_text(text: &str) -> Result<i64, ApiError> {
    let value = text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from);
    Ok(grace(Some(&value))?.unwrap_or(0))
}

fn propagation(
    policy: Option<&str>,
    orphan_dependents: Option<bool>,
) -> Result<Option<Propagation>, ApiError> {
    match (policy, orphan_dependents) {
        (None, None) => Ok(None),
        (None, Some(true)) => Ok(Some(Propagation::Orphan)),
        (None, Some(false)) | (Some("Background"), _) => Ok(Some(Propagation::Background)),
        (Some("Foreground"), _) => Ok(Some(Propagation::Foreground)),
        (Some("Orphan"), _) => Ok(Some(Propagation::Orphan)),
        (Some(other), _) => Err(unsupported(
            "DeleteOptions",
            "propagationPolicy",
            other,
            &["Background", "Foreground", "Orphan"],
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(Some(text))
    }

    #[test]
    fn a_manager_comes_from_the_query_or_the_user_agent() {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, "kubectl/v1.33 (linux)".parse().unwrap());
        let write = |text| write("CreateOptions", &query(text), &headers, Arc::default()).unwrap();
        assert_eq!(write("").field_manager.as_deref(), Some("kubectl"));
        assert_eq!(write("fieldManager=me").field_manager.as_deref(), Some("me"));
        assert!(write("dryRun=All").dry_run);
    }

    #[test]
    fn other_values_are_refused_in_kubernetes_words() {
        let headers = HeaderMap::new();
        let refused = |text| {
            write("PatchOptions", &query(text), &headers, Arc::default()).unwrap_err().message
        };
        assert_eq!(
            refused("dryRun=Some"),
            "PatchOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: \"Some\": \
             supported values: \"All\""
        );
        assert!(refused("fieldValidation=x").contains("fieldValidation: Unsupported value"));
    }

    #[test]
    fn the_body_of_a_delete_wins_over_its_query() {
        let body = json!({"propagationPolicy": "Foreground", "preconditions": {"uid": "u"}});
        let (options, dry) =
            delete(&query("propagationPolicy=Orphan&dryRun=All"), Some(&body)).unwrap();
        assert_eq!(options.propagation, Some(Propagation::Foreground));
        assert_eq!(options.uid.as_deref(), Some("u"));
        assert!(!dry);
        let (options, dry) = delete(&query("propagationPolicy=Orphan&dryRun=All"), None).unwrap();
        assert_eq!(options.propagation, Some(Propagation::Orphan));
        assert!(dry);
    }

    #[test]
    fn a_grace_period_is_said_or_not() {
        let of = |text: &str, body: Option<Value>| {
            delete(&query(text), body.as_ref()).map(|(options, _)| options.grace_s)
        };
        assert_eq!(of("", None).unwrap(), None);
        assert_eq!(of("gracePeriodSeconds=0", None).unwrap(), Some(0));
        assert_eq!(of("", Some(json!({"gracePeriodSeconds": 7}))).unwrap(), Some(7));
        assert_eq!(of("", Some(json!({"gracePeriodSeconds": -3}))).unwrap(), Some(1));
        assert_eq!(of("gracePeriodSeconds=5", Some(json!({}))).unwrap(), None);
        assert_eq!(of("gracePeriodSeconds=x", None).unwrap_err().code, 400);
        assert_eq!(of("", Some(json!({"gracePeriodSeconds": "5"}))).unwrap_err().code, 400);
    }
}
