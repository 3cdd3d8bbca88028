//! Query strings of writes and `DeleteOptions` bodies as the engine's options, and their refusals.

use std::sync::Arc;

use http::HeaderMap;
use http::header::USER_AGENT;
use serde_json::Value;

use super::query::Query;
use crate::auth::UserInfo;
use crate::engine::{DeleteOptions, FieldValidation, Propagation, WriteOptions};
use crate::schema::go_types;
use crate::status::{ApiError, Cause};

/// Kubernetes' own bound on a field manager's name.
const FIELD_MANAGER_BYTES_MAX: usize = 128;

fn invalid(kind: &str, causes: Vec<Cause>) -> ApiError {
    ApiError::invalid_kind("meta.k8s.io", kind, "", causes)
}

/// The `PatchOptions` of a server-side apply.
pub(super) const APPLY_OPTIONS: &str = "PatchOptions of apply";

/// `kind` names the options in refusals: `CreateOptions`, `PatchOptions`, …; or [`APPLY_OPTIONS`].
///
/// # Errors
/// 422 with everything that is wrong.
pub(super) fn write(
    kind: &str,
    query: &Query,
    headers: &HeaderMap,
    user: Arc<UserInfo>,
) -> Result<WriteOptions, ApiError> {
    let mut causes = Vec::new();
    if kind == APPLY_OPTIONS && query.filled("fieldManager").is_none() {
        causes.push(Cause::required("fieldManager", "is required for apply patch"));
    }
    if kind == "PatchOptions" && query.filled("force").is_some() {
        causes.push(Cause::forbidden("force", "may not be specified for non-apply patch"));
    }
    let field_manager = field_manager(query, headers, &mut causes);
    let dry_run = dry_run(query.all("dryRun"), &mut causes);
    let field_validation = match query.filled("fieldValidation") {
        None | Some("Warn") => FieldValidation::Warn,
        Some("Strict") => FieldValidation::Strict,
        Some("Ignore") => FieldValidation::Ignore,
        Some(other) => {
            let supported = ["", "Ignore", "Strict", "Warn"];
            causes.push(Cause::not_supported("fieldValidation", &other.into(), supported));
            FieldValidation::Warn
        }
    };
    if !causes.is_empty() {
        return Err(invalid(kind.split(' ').next().unwrap_or(kind), causes));
    }
    Ok(WriteOptions { dry_run, field_manager, field_validation, user, ..WriteOptions::default() })
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, causes: &mut Vec<Cause>) -> bool {
    let values: Vec<&str> = values.collect();
    if values.iter().any(|value| *value != "All") {
        let cause = Cause::not_supported("dryRun", &Value::from(values.clone()), ["All"]);
        causes.push(cause);
    }
    !values.is_empty()
}

/// The parameter, or the program's name at the front of the User-Agent.
fn field_manager(query: &Query, headers: &HeaderMap, causes: &mut Vec<Cause>) -> Option<String> {
    const FIELD: &str = "fieldManager";
    if let Some(manager) = query.filled(FIELD) {
        if manager.len() > FIELD_MANAGER_BYTES_MAX {
            let why = format!("may not be more than {FIELD_MANAGER_BYTES_MAX} bytes");
            causes.push(Cause::too_long(FIELD, &why));
        }
        for (at, c) in manager.char_indices().filter(|(_, c)| !is_printable(*c)) {
            let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
            causes.push(Cause::invalid(FIELD, &manager.into(), &why));
        }
        return Some(manager.to_owned());
    }
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    let program = agent.and_then(|agent| agent.split('/').next()).unwrap_or_default();
    let room = |program: &str, c: char| program.len() + c.len_utf8() <= FIELD_MANAGER_BYTES_MAX;
    let mut name = String::new();
    for c in program.chars().filter(|c| is_printable(*c)) {
        if !room(&name, c) {
            break;
        }
        name.push(c);
    }
    Some(name).filter(|name| !name.is_empty())
}

/// White space other than the plain one counts as unprintable, as in Go.
fn is_printable(c: char) -> bool {
    c == ' ' || !(c.is_control() || c.is_whitespace())
}

/// What a DELETE asks for.
#[derive(Debug)]
pub(super) struct Deletion {
    pub(super) delete: DeleteOptions,
    pub(super) dry_run: bool,
    /// `orphanDependents: false`: who still says it gets 202 for what is not gone yet.
    pub(super) is_legacy_cascade: bool,
}

/// The body wins over the query, as in Kubernetes.
pub(super) fn delete(query: &Query, body: Option<&Value>) -> Result<Deletion, ApiError> {
    const KIND: &str = "DeleteOptions";
    /// Where Go's registry of such kinds is made: it has no other name.
    const SCHEME: &str = "pkg/apis/meta/internalversion/scheme/register.go:27";
    let mut causes = Vec::new();
    let Some(body) = body.filter(|body| !body.is_null()) else {
        let orphan = query.flag("orphanDependents");
        let policy = query.filled("propagationPolicy");
        let delete = DeleteOptions {
            propagation: propagation(policy, orphan, &mut causes),
            grace_s: query.number("gracePeriodSeconds")?.map(at_least_one_if_negative),
            ..DeleteOptions::default()
        };
        let dry_run = dry_run(query.all("dryRun"), &mut causes);
        let is_legacy_cascade = orphan == Some(false);
        return match causes.is_empty() {
            true => Ok(Deletion { delete, dry_run, is_legacy_cascade }),
            false => Err(invalid(KIND, causes)),
        };
    };
    let text = |field: &str, default: &'static str| {
        body[field].as_str().filter(|text| !text.is_empty()).unwrap_or(default).to_owned()
    };
    let (kind, api_version) = (text("kind", KIND), text("apiVersion", "meta.k8s.io/v1"));
    if kind != KIND {
        return Err(undecodable(format!(
            "no kind {kind:?} is registered for version {api_version:?} in scheme {SCHEME:?}"
        )));
    }
    if let Some(why) = go_types::mismatch(KIND, body) {
        return Err(undecodable(why));
    }
    let precondition = |field: &str| -> Option<String> {
        let value = body.get("preconditions")?.get(field)?.as_str()?;
        Some(value.to_owned())
    };
    let orphan = body.get("orphanDependents").and_then(Value::as_bool);
    let policy = body.get("propagationPolicy").and_then(Value::as_str);
    let delete = DeleteOptions {
        uid: precondition("uid"),
        resource_version: precondition("resourceVersion"),
        propagation: propagation(policy, orphan, &mut causes),
        grace_s: body["gracePeriodSeconds"].as_i64().map(at_least_one_if_negative),
    };
    let dry = body.get("dryRun").and_then(Value::as_array);
    let dry_run = dry_run(dry.into_iter().flatten().filter_map(Value::as_str), &mut causes);
    match causes.is_empty() {
        true => Ok(Deletion { delete, dry_run, is_legacy_cascade: orphan == Some(false) }),
        false => Err(invalid(KIND, causes)),
    }
}

/// kube-apiserver does not foresee a body that it cannot read here.
fn undecodable(why: String) -> ApiError {
    ApiError::unforeseen(why)
}

/// As in Kubernetes.
fn at_least_one_if_negative(seconds: i64) -> i64 {
    if seconds < 0 { 1 } else { seconds }
}

fn propagation(
    policy: Option<&str>,
    orphan_dependents: Option<bool>,
    causes: &mut Vec<Cause>,
) -> Option<Propagation> {
    const FIELD: &str = "propagationPolicy";
    if let (Some(policy), Some(_)) = (policy, orphan_dependents) {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        causes.push(Cause::invalid(FIELD, &policy.into(), why));
    }
    match (policy, orphan_dependents) {
        (None, None) => None,
        (None, Some(true)) => Some(Propagation::Orphan),
        (None, Some(false)) | (Some("Background"), _) => Some(Propagation::Background),
        (Some("Foreground"), _) => Some(Propagation::Foreground),
        (Some("Orphan"), _) => Some(Propagation::Orphan),
        (Some(other), _) => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            causes.push(Cause::not_supported(FIELD, &other.into(), supported));
            None
        }
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
        let refused = |kind: &str, text: &str| {
            let refusal = write(kind, &query(text), &headers, Arc::default()).unwrap_err();
            let head = format!("{kind}.meta.k8s.io \"\" is invalid: ");
            assert_eq!((refusal.code, &*refusal.reason), (422, "Invalid"));
            refusal.message.strip_prefix(&head).unwrap().to_owned()
        };
        let dry = "dryRun: Unsupported value: [\"Some\"]: supported values: \"All\"";
        let validation = "fieldValidation: Unsupported value: \"x\": supported values: \"\", \"Ignore\", \
                          \"Strict\", \"Warn\"";
        for kind in ["CreateOptions", "UpdateOptions", "PatchOptions"] {
            assert_eq!(refused(kind, "dryRun=Some"), dry);
            assert_eq!(refused(kind, "fieldValidation=x"), validation);
            let both = format!("[{dry}, {validation}]");
            assert_eq!(refused(kind, "dryRun=Some&fieldValidation=x"), both);
            assert_eq!(
                refused(kind, "fieldManager=a%0Ab"),
                "fieldManager: Invalid value: \"a\\nb\": invalid character U+000A (at position 1)"
            );
            let long = format!("fieldManager={}", "x".repeat(129));
            let wanted = "fieldManager: Too long: may not be more than 128 bytes";
            assert_eq!(refused(kind, &long), wanted);
        }
        assert_eq!(
            refused("PatchOptions", "force=true"),
            "force: Forbidden: may not be specified for non-apply patch"
        );
    }

    #[test]
    fn the_body_of_a_delete_wins_over_its_query() {
        let body = json!({"propagationPolicy": "Foreground", "preconditions": {"uid": "u"}});
        let text = "propagationPolicy=Orphan&dryRun=All";
        let asked = delete(&query(text), Some(&body)).unwrap();
        assert_eq!(asked.delete.propagation, Some(Propagation::Foreground));
        assert_eq!(asked.delete.uid.as_deref(), Some("u"));
        assert!(!asked.dry_run);
        let asked = delete(&query(text), None).unwrap();
        assert_eq!(asked.delete.propagation, Some(Propagation::Orphan));
        assert!(asked.dry_run);
        assert!(!asked.is_legacy_cascade);
        let asked = delete(&query("orphanDependents=false"), None).unwrap();
        assert_eq!(asked.delete.propagation, Some(Propagation::Background));
        assert!(asked.is_legacy_cascade);
    }

    #[test]
    fn propagation_is_said_once_and_rightly() {
        let refused = |body: Value| delete(&query(""), Some(&body)).unwrap_err().message;
        let head = "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: ";
        assert_eq!(
            refused(json!({"propagationPolicy": "Orphan", "orphanDependents": true})),
            format!(
                "{head}Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot be both set"
            )
        );
        assert_eq!(
            refused(json!({"propagationPolicy": "Sideways"})),
            format!(
                "{head}Unsupported value: \"Sideways\": supported values: \"Foreground\", \"Background\", \
                 \"Orphan\", \"nil\""
            )
        );
        assert!(refused(json!({"dryRun": ["x"]})).contains("dryRun: Unsupported value: [\"x\"]"));
    }

    #[test]
    fn a_grace_period_is_said_or_not() {
        let of = |text: &str, body: Option<Value>| {
            delete(&query(text), body.as_ref()).map(|asked| asked.delete.grace_s)
        };
        assert_eq!(of("", None).unwrap(), None);
        assert_eq!(of("gracePeriodSeconds=0", None).unwrap(), Some(0));
        assert_eq!(of("", Some(json!({"gracePeriodSeconds": 7}))).unwrap(), Some(7));
        assert_eq!(of("", Some(json!({"gracePeriodSeconds": -3}))).unwrap(), Some(1));
        assert_eq!(of("gracePeriodSeconds=5", Some(json!({}))).unwrap(), None);
        assert_eq!(of("gracePeriodSeconds=x", None).unwrap_err().code, 400);
        assert_eq!(of("", Some(json!({"gracePeriodSeconds": "5"}))).unwrap_err().code, 500);
    }
}
