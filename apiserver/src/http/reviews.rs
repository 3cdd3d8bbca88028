//! Reviews: questions about identities and permissions, asked by creating an object that is
//! answered and forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::chain::Call;
use super::negotiate::Format;
use super::resources::Target;
use super::{respond, writes};
use crate::auth::UserInfo;
use crate::auth::authorizer::Attributes;
use crate::auth::rbac::Rule;
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::{ApiError, Cause};

pub(super) async fn create(
    call: &Call<'_>,
    target: Target,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let format = Format::negotiate(call.headers, call.query)?;
    let (object, options) = writes::receive(call, &target, "CreateOptions", body).await?;
    let engine = &call.app.engine;
    let (mut object, warnings) =
        engine.prepare_review(&target.def, &target.namespace, None, object, &options)?;
    if let Some(object) = object.as_object_mut() {
        let parts: &[&str] = match target.def.kind.as_str() {
            "SelfSubjectReview" => &["metadata"],
            _ => &["metadata", "spec"],
        };
        fill_in(object, parts);
    }
    match target.def.kind.as_str() {
        "SelfSubjectReview" => self_subject(call, &mut object),
        "TokenReview" => token(call, &mut object).await?,
        "SelfSubjectRulesReview" => rules(call, &mut object)?,
        kind => access(call, kind, &target.namespace, &mut object)?,
    }
    let json = object.to_string().into();
    let mut response = respond::document(StatusCode::CREATED, json, format);
    respond::add_warnings(&mut response, &warnings);
    Ok(response)
}

fn user_value(user: &UserInfo) -> Value {
    let mut value = json!({"username": user.name});
    if !user.uid.is_empty() {
        value["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        value["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

fn self_subject(call: &Call<'_>, object: &mut Value) {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    object["metadata"] = json!({"creationTimestamp": now});
    object["status"] = json!({"userInfo": user_value(&call.user)});
}

async fn token(call: &Call<'_>, object: &mut Value) -> Result<(), ApiError> {
    let spec = &object["spec"];
    let token = spec["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        let message = "token is required for TokenReview in authentication";
        return Err(ApiError::bad_request(message));
    }
    let asked = texts(&spec["audiences"]);
    let app = call.app;
    object["status"] = match app.authenticator.review(&app.engine, token, &asked).await {
        Err(why) => json!({"user": {}, "error": why}),
        Ok((user, audiences)) => {
            json!({"authenticated": true, "user": user_value(&user), "audiences": audiences})
        }
    };
    Ok(())
}

fn rules(call: &Call<'_>, object: &mut Value) -> Result<(), ApiError> {
    let namespace = object["spec"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let (rules, errors) = call.app.engine.access().rules_for(&call.user, namespace);
    let pick = |wanted: fn(&Rule) -> bool| rules.iter().filter(|rule| wanted(rule)).collect();
    let on_resources: Vec<&Rule> = pick(|rule| !rule.resources.is_empty());
    let on_paths: Vec<&Rule> = pick(|rule| !rule.non_resource_urls.is_empty());
    let mut status = json!({
        "resourceRules": on_resources,
        "nonResourceRules": on_paths,
        "incomplete": false,
    });
    match errors.as_slice() {
        [] => {}
        [one] => status["evaluationError"] = one.as_str().into(),
        many => status["evaluationError"] = format!("[{}]", many.join(", ")).into(),
    }
    // The question is not repeated, as in kube-apiserver.
    object["metadata"] = json!({});
    object["spec"] = json!({});
    object["status"] = status;
    Ok(())
}

/// The three reviews that ask whether a user may do something.
fn access(
    call: &Call<'_>,
    kind: &str,
    namespace: &str,
    object: &mut Value,
) -> Result<(), ApiError> {
    let causes = causes(kind, object);
    if !causes.is_empty() {
        // kube-apiserver has forgotten the kind by then.
        return Err(ApiError::invalid_kind(crate::builtin::reviews::AUTHORIZATION, "", "", causes));
    }
    let spec = &object["spec"];
    let user = match kind {
        "SelfSubjectAccessReview" => call.user.clone(),
        _ => Arc::new(user_in(spec)),
    };
    if kind == "LocalSubjectAccessReview" && spec["resourceAttributes"]["namespace"] != namespace {
        let message =
            format!("spec.resourceAttributes.namespace must match namespace: {namespace}");
        return Err(ApiError::bad_request(message));
    }
    let mut errors = Vec::new();
    let resource = &spec["resourceAttributes"];
    let selector = field_selector(&resource["fieldSelector"], &mut errors);
    check_label_selector(&resource["labelSelector"], &mut errors);
    let text = |of: &'static str, field: &str| spec[of][field].as_str().unwrap_or_default();
    let request = if resource.is_object() {
        let of = "resourceAttributes";
        Attributes {
            verb: text(of, "verb"),
            is_resource: true,
            path: "",
            group: text(of, "group"),
            resource: text(of, "resource"),
            subresource: text(of, "subresource"),
            namespace: text(of, "namespace"),
            name: text(of, "name"),
            field_selector: &selector,
        }
    } else {
        let of = "nonResourceAttributes";
        Attributes { verb: text(of, "verb"), path: text(of, "path"), ..Attributes::default() }
    };
    let decision = call.app.engine.access().decide(&user, &request);
    let mut status = json!({"allowed": !decision.is_denied()});
    for (field, text) in [("reason", decision.reason()), ("evaluationError", errors.join("; "))] {
        if !text.is_empty() {
            status[field] = text.into();
        }
    }
    object["status"] = status;
    Ok(())
}

fn causes(kind: &str, object: &Value) -> Vec<Cause> {
    let spec = &object["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let mut causes = Vec::new();
    if resource.is_object() && path.is_object() {
        let why = "cannot be specified in combination with resourceAttributes";
        causes.push(Cause::invalid("spec.nonResourceAttributes", &in_go(path), why));
    }
    if !resource.is_object() && !path.is_object() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        causes.push(Cause::invalid("spec.resourceAttributes", &"null".into(), why));
    }
    let own = kind == "SelfSubjectAccessReview";
    let nobody = spec["user"].as_str().unwrap_or_default().is_empty()
        && spec["groups"].as_array().is_none_or(Vec::is_empty);
    if !own && nobody {
        let why = "at least one of user or group must be specified";
        causes.push(Cause::invalid("spec.user", &"".into(), why));
    }
    check_selector(&resource["fieldSelector"], "fieldSelector", &mut causes);
    check_selector(&resource["labelSelector"], "labelSelector", &mut causes);
    let local = kind == "LocalSubjectAccessReview";
    let given = object["metadata"].as_object().into_iter().flatten().any(|(field, value)| {
        let empty = value.is_null() || value == "";
        !empty && field != "managedFields" && !(local && field == "namespace")
    });
    if given {
        let why = if local { "must be empty except for namespace" } else { "must be empty" };
        causes.push(Cause::invalid("metadata", &object["metadata"], why));
    }
    if local {
        let asked = resource["namespace"].as_str().unwrap_or_default();
        if resource.is_object() && object["metadata"]["namespace"] != asked {
            let field = "spec.resourceAttributes.namespace";
            causes.push(Cause::invalid(field, &asked.into(), "must match metadata.namespace"));
        }
        if path.is_object() {
            let why = "disallowed on this kind of request";
            causes.push(Cause::invalid("spec.nonResourceAttributes", &in_go(path), why));
        }
    }
    causes
}

/// A selector is a text or requirements. Operators that nobody knows yet are let through.
fn check_selector(selector: &Value, name: &str, causes: &mut Vec<Cause>) {
    if !selector.is_object() {
        return;
    }
    let at = format!("spec.resourceAttributes.{name}");
    let raw = selector["rawSelector"].as_str().unwrap_or_default();
    let requirements = selector["requirements"].as_array().map_or(&[][..], Vec::as_slice);
    match (raw.is_empty(), requirements.is_empty()) {
        (false, false) => {
            let why = "may not specified at the same time as requirements";
            causes.push(Cause::invalid(format!("{at}.rawSelector"), &raw.into(), why));
        }
        (true, true) => {
            let why = format!("when {at} is specified, requirements or rawSelector is required");
            causes.push(Cause::required(format!("{at}.requirements"), &why));
        }
        _ => {}
    }
    for (place, requirement) in requirements.iter().enumerate() {
        let field = |name: &str| format!("{at}.requirements[{place}].{name}");
        let (key, values) =
            (requirement["key"].as_str().unwrap_or_default(), &requirement["values"]);
        let of_fields = name == "fieldSelector";
        if key.is_empty() && of_fields {
            causes.push(Cause::required(field("key"), "must be specified"));
        }
        let empty = values.as_array().is_none_or(Vec::is_empty);
        match requirement["operator"].as_str().unwrap_or_default() {
            "In" | "NotIn" if empty => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                causes.push(Cause::required(field("values"), why));
            }
            "Exists" | "DoesNotExist" if !empty => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.push(Cause::forbidden(field("values"), why));
            }
            _ => {}
        }
        for why in crate::meta::qualified_name_errors(key).into_iter().filter(|_| !of_fields) {
            causes.push(Cause::invalid(field("key"), &key.into(), &why));
        }
    }
}

/// Attributes as kube-apiserver's own type of them prints: all of its fields, by their names in Go.
fn in_go(path: &Value) -> Value {
    let text = |field: &str| path[field].as_str().unwrap_or_default();
    json!({"Path": text("path"), "Verb": text("verb")})
}

fn texts(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

fn user_in(spec: &Value) -> UserInfo {
    let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
    let extra: BTreeMap<String, Vec<String>> = spec["extra"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, values)| (key.clone(), texts(values)))
        .collect();
    UserInfo { name: text("user"), uid: text("uid"), groups: texts(&spec["groups"]), extra }
}

/// What of a selector is understood, as the text that a list would send. What is not makes the
/// question a broader one, and the answer says so.
fn field_selector(asked: &Value, errors: &mut Vec<String>) -> String {
    let raw = asked["rawSelector"].as_str().unwrap_or_default();
    if !raw.is_empty() {
        return match FieldSelector::parse(raw) {
            Ok(_) => raw.to_owned(),
            Err(_) => {
                errors.push(ignored("fieldSelector", false));
                String::new()
            }
        };
    }
    let (mut terms, mut broken) = (Vec::new(), false);
    for requirement in asked["requirements"].as_array().into_iter().flatten() {
        let key = requirement["key"].as_str().unwrap_or_default();
        let values = texts(&requirement["values"]);
        match (requirement["operator"].as_str().unwrap_or_default(), values.as_slice()) {
            ("In", [value]) => terms.push(format!("{key}={}", escaped(value))),
            ("NotIn", [value]) => terms.push(format!("{key}!={}", escaped(value))),
            _ => broken = true,
        }
    }
    if broken {
        errors.push(ignored("fieldSelector", !terms.is_empty()));
    }
    terms.join(",")
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

/// No authorizer of ours looks at labels; a question that cannot be read is still told.
fn check_label_selector(asked: &Value, errors: &mut Vec<String>) {
    let raw = asked["rawSelector"].as_str().unwrap_or_default();
    if LabelSelector::parse(raw).is_err() {
        errors.push(ignored("labelSelector", false));
    }
    let known = |requirement: &Value| {
        let operator = requirement["operator"].as_str().unwrap_or_default();
        ["In", "NotIn", "Exists", "DoesNotExist"].contains(&operator)
    };
    let requirements = asked["requirements"].as_array().map_or(&[][..], Vec::as_slice);
    let understood = requirements.iter().filter(|one| known(one)).count();
    if understood < requirements.len() {
        errors.push(ignored("labelSelector", understood > 0));
    }
}

fn ignored(selector: &str, partially: bool) -> String {
    let how = if partially { "partially ignored" } else { "ignored" };
    format!("spec.resourceAttributes.{selector} {how} due to parse error")
}

/// Go writes an empty object where a part is missing.
fn fill_in(object: &mut Map<String, Value>, parts: &[&str]) {
    for part in parts {
        let entry = object.entry(*part).or_insert(Value::Null);
        if entry.is_null() {
            *entry = json!({});
        }
    }
}
