//! Tokens of service accounts and of tasks over HTTP: `serviceaccounts/NAME/token`, `tasks/NAME/token`, and the two documents by
//! which others recognize such tokens (OpenID Connect discovery, and the keys).

use std::sync::{Arc, LazyLock};

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use super::chain::Call;
use super::negotiate::Format;
use super::resources::Target;
use super::{respond, writes};
use crate::auth::authenticator;
use crate::auth::service_accounts::{Bound, BoundKind, Holder, Order};
use crate::builtin::reviews::token_request;
use crate::resource::ResourceDef;
use crate::status::{ApiError, Cause};

const EXPIRATION_DEFAULT_S: i64 = 60 * 60;
const EXPIRATION_MIN_S: i64 = 10 * 60;
const EXPIRATION_MAX_S: i64 = 1 << 32;

static TOKEN_REQUEST: LazyLock<Arc<ResourceDef>> = LazyLock::new(|| Arc::new(token_request()));

/// POST of a TokenRequest to an account or a task.
pub(super) async fn create(
    call: &Call<'_>,
    account: Target,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let format = Format::negotiate(call.headers, call.query)?;
    let holder = match account.def.kind.as_str() {
        "Task" => Holder::Task,
        _ => Holder::Account,
    };
    let Target { def: account_def, namespace, name, subresource } = account;
    let target = Target { def: TOKEN_REQUEST.clone(), namespace, name, subresource };
    let (mut object, options) = writes::receive(call, &target, "CreateOptions", body).await?;
    if let Some(Value::Object(spec)) = object.get_mut("spec") {
        spec.entry("expirationSeconds").or_insert(EXPIRATION_DEFAULT_S.into());
    }
    let engine = &call.app.engine;
    let part = Some(target.subresource.as_str());
    let (mut request, warnings) =
        engine.prepare_review(&target.def, &target.namespace, part, object, &options)?;
    let given = request["metadata"]["name"].as_str().unwrap_or_default();
    if !given.is_empty() && given != target.name {
        let why = match holder {
            Holder::Account => "must match the service account name if specified",
            Holder::Task => "must match the task's name if specified",
        };
        let cause = Cause::invalid("metadata.name", &given.into(), why);
        return Err(ApiError::invalid(&target.def, &target.name, vec![cause]));
    }
    // A task's agent may have heard of it before this server's cache has.
    let account = engine.get(&account_def, &target.namespace, &target.name, None).await?;
    let over = authenticator::find(engine, &account_def.plural, &target.namespace, &target.name);
    if holder == Holder::Task && over.is_some_and(|task| task.deleting) {
        let why = "the task is over";
        return Err(ApiError::conflict_because(&account_def, &target.name, why));
    }
    complete(call, &target, &mut request)?;
    let bound = bound(call, &target, &request["spec"]["boundObjectRef"])?;
    let now = Timestamp::now();
    let spec = &request["spec"];
    let audiences: Vec<String> = spec["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    let valid_for_s = spec["expirationSeconds"].as_i64().unwrap_or(EXPIRATION_DEFAULT_S);
    let order = Order {
        holder,
        namespace: &target.namespace,
        name: &target.name,
        uid: &account.uid,
        audiences: &audiences,
        now_s: now.as_second(),
        valid_for_s,
        bound: bound.as_ref(),
    };
    let token = call.app.authenticator.accounts().issue(&order);
    let token = token.ok_or_else(|| ApiError::internal("a token can't be signed"))?;
    let until = now + SignedDuration::from_secs(valid_for_s);
    request["metadata"]["creationTimestamp"] = in_seconds(now).into();
    request["status"] = json!({"token": token, "expirationTimestamp": in_seconds(until)});
    let json = request.to_string().into();
    let mut response = respond::document(StatusCode::CREATED, json, format);
    respond::add_warnings(&mut response, &warnings);
    Ok(response)
}

fn in_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Fills in what may be left out, and checks what was not.
fn complete(call: &Call<'_>, target: &Target, request: &mut Value) -> Result<(), ApiError> {
    request["metadata"]["name"] = target.name.as_str().into();
    request["metadata"]["namespace"] = target.namespace.as_str().into();
    if !request["spec"].is_object() {
        request["spec"] = json!({});
    }
    let spec = &mut request["spec"];
    if spec["audiences"].as_array().is_none_or(Vec::is_empty) {
        spec["audiences"] = json!(call.app.authenticator.audiences());
    }
    if spec["expirationSeconds"].is_null() {
        spec["expirationSeconds"] = EXPIRATION_DEFAULT_S.into();
    }
    // Go writes a missing reference as null.
    if spec["boundObjectRef"].is_null() {
        spec["boundObjectRef"] = Value::Null;
    }
    let asked_s = spec["expirationSeconds"].as_i64().unwrap_or_default();
    let why = match asked_s {
        ..EXPIRATION_MIN_S => "may not specify a duration less than 10 minutes",
        EXPIRATION_MIN_S..=EXPIRATION_MAX_S => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let cause = Cause::invalid("spec.expirationSeconds", &asked_s.into(), why);
    Err(ApiError::invalid(&target.def, "", vec![cause]))
}

/// The object that the token is to end with.
fn bound(call: &Call<'_>, target: &Target, asked: &Value) -> Result<Option<Bound>, ApiError> {
    if asked.is_null() {
        return Ok(None);
    }
    let text = |field: &str| asked[field].as_str().unwrap_or_default();
    let kind = match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => BoundKind::Pod,
        ("v1", "Secret") => BoundKind::Secret,
        ("v1", "Node") => BoundKind::Node,
        (version, kind) => {
            // As Go prints a group, version and kind.
            let version =
                if version.contains('/') { version.into() } else { format!("/{version}") };
            let why = format!("cannot bind token to object of type {version}, Kind={kind}");
            return Err(ApiError::bad_request(why));
        }
    };
    let name = text("name");
    let engine = &call.app.engine;
    let namespace = kind.namespace(&target.namespace);
    let found = authenticator::find(engine, kind.plural(), namespace, name)
        .ok_or_else(|| ApiError::not_found_in("", kind.plural(), name))?;
    let uid = found.uid.into_string();
    if !matches!(text("uid"), "") && text("uid") != uid {
        let kind = text("kind");
        let mut error = ApiError::not_found_in("", kind, name);
        (error.code, error.reason) = (409, "Conflict".into());
        error.message = format!(
            "Operation cannot be fulfilled on {kind} {name:?}: the UID in the bound object reference ({}) does not \
             match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(error);
    }
    Ok(Some(Bound { kind, name: name.to_owned(), uid }))
}

/// `/.well-known/openid-configuration`, in the order in which Kubernetes writes it.
#[derive(Serialize)]
struct Issuer<'a> {
    issuer: &'a str,
    jwks_uri: String,
    response_types_supported: [&'static str; 1],
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: [&'static str; 1],
}

pub(super) fn issuer_document(call: &Call<'_>) -> Response<Body> {
    let document = Issuer {
        issuer: &call.app.authenticator.accounts().issuers()[0],
        jwks_uri: format!("{}/openid/v1/jwks", call.app.server_url),
        response_types_supported: ["id_token"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: ["ES256"],
    };
    let json = serde_json::to_string(&document).expect("texts and lists of texts are JSON");
    published(json, "application/json")
}

pub(super) fn key_set(call: &Call<'_>) -> Response<Body> {
    let keys = call.app.authenticator.accounts().key_set();
    published(keys.to_string(), "application/jwk-set+json")
}

fn published(json: String, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(json));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_requests_is_a_sound_definition() {
        assert_eq!(TOKEN_REQUEST.group, crate::builtin::reviews::AUTHENTICATION);
        assert_eq!(TOKEN_REQUEST.group_resource(), "tokenrequests.authentication.k8s.io");
    }
}
