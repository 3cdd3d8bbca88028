//! Create, update, patch, delete: the body decoded, the options read, the engine asked.
//!
//! The engine runs mutations detached from their connections: a client that goes away in the middle
//! of a write does not leave half of one.

use axum::body::Body;
use bytes::Bytes;
use commonage_schemas::names::DEFAULT_FRAMEWORK;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response, StatusCode};
use serde_json::Value;

use super::body;
use super::chain::Call;
use super::negotiate::Format;
use super::resources::Target;
use super::{list_options, options, protobuf, respond};
use crate::auth::authorizer::Verdict;
use crate::engine::{Deleted, FieldValidation, PatchKind, WriteOptions, Written};
use crate::resource::Origin;
use crate::schema;
use crate::status::{ApiError, success_status};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";

/// Without its parameters, in lower case; `None` when the client sent none.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media = value.split(';').next().unwrap_or_default().trim();
    (!media.is_empty()).then(|| media.to_ascii_lowercase())
}

/// The body as a tree, and the paths of the fields that it has twice.
fn decode(headers: &HeaderMap, bytes: &Bytes) -> Result<(Value, Vec<String>), ApiError> {
    match content_type(headers).as_deref() {
        // Some clients send no type at all.
        None | Some(JSON) => schema::decode_strict(bytes)
            .map_err(|error| ApiError::bad_request(format!("the body is not valid JSON: {error}"))),
        Some(YAML) => Ok((yaml(bytes)?, Vec::new())),
        // Go clients send it for built-in kinds; no client sends it for custom ones.
        Some(PROTOBUF) => {
            let object = protobuf::decode(bytes);
            let object = object.ok_or_else(|| ApiError::unsupported_media_type(&[JSON, YAML]))?;
            Ok((object, Vec::new()))
        }
        Some(_) => Err(ApiError::unsupported_media_type(&[JSON, YAML])),
    }
}

fn yaml(bytes: &Bytes) -> Result<Value, ApiError> {
    serde_saphyr::from_slice(bytes)
        .map_err(|error| ApiError::bad_request(format!("the body is not valid YAML: {error}")))
}

/// Reads the body and the options of a write that sends an object.
pub(super) async fn receive(
    call: &Call<'_>,
    kind: &str,
    body: Body,
) -> Result<(Value, WriteOptions), ApiError> {
    let mut options = options::write(kind, call.query, call.headers, call.user.clone())?;
    let bytes = body::read(call.headers, body).await?;
    let (object, duplicates) = decode(call.headers, &bytes)?;
    if options.field_validation != FieldValidation::Ignore {
        options.duplicate_fields = duplicates;
    }
    Ok((object, options))
}

fn written(
    call: &Call<'_>,
    target: &Target,
    written: &Written,
    format: Format,
) -> Result<Response<Body>, ApiError> {
    let status = match written.created {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    let mut response = respond::object(status, &target.def, &written.object, format, call.query)?;
    respond::add_warnings(&mut response, &written.warnings);
    Ok(response)
}

/// Where the authorizer's answer hangs on what a create sends.
fn check_what_is_sent(call: &Call<'_>, object: &Value) -> Result<(), ApiError> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    let allowed = match call.verdict {
        Verdict::Allowed | Verdict::Denied => return Ok(()),
        Verdict::IfNamedAsAgent => {
            text("/metadata/name").is_some() && text("/metadata/name") == call.user.agent_name()
        }
        Verdict::IfFrameworkIsOwn => {
            let framework = text("/spec/framework").unwrap_or(DEFAULT_FRAMEWORK);
            call.app.engine.access().may_use(&call.user, &call.info.namespace, framework)
        }
    };
    if allowed { Ok(()) } else { Err(call.forbidden()) }
}

pub(super) async fn create(
    call: &Call<'_>,
    target: Target,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let format = Format::negotiate(call.headers, call.query)?;
    let (object, options) = receive(call, "CreateOptions", body).await?;
    check_what_is_sent(call, &object)?;
    let engine = &call.app.engine;
    let done = engine.create(&target.def, &target.namespace, object, options).await?;
    written(call, &target, &done, format)
}

pub(super) async fn update(
    call: &Call<'_>,
    target: Target,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let format = Format::negotiate(call.headers, call.query)?;
    let (object, options) = receive(call, "UpdateOptions", body).await?;
    let (def, namespace, name) = (&target.def, &target.namespace, &target.name);
    let engine = &call.app.engine;
    let done = engine.update(def, namespace, name, target.subresource(), object, options).await?;
    written(call, &target, &done, format)
}

fn patch_kind(target: &Target, headers: &HeaderMap) -> Result<PatchKind, ApiError> {
    match content_type(headers).as_deref() {
        Some(JSON_PATCH) => Ok(PatchKind::Json),
        Some(MERGE_PATCH) => Ok(PatchKind::Merge),
        Some(STRATEGIC_PATCH) if target.def.origin == Origin::BuiltIn => Ok(PatchKind::Strategic),
        _ => Err(ApiError::unsupported_media_type(match target.def.origin {
            Origin::BuiltIn => &[JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH],
            Origin::Custom => &[JSON_PATCH, MERGE_PATCH],
        })),
    }
}

pub(super) async fn patch(
    call: &Call<'_>,
    target: Target,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let format = Format::negotiate(call.headers, call.query)?;
    let kind = patch_kind(&target, call.headers)?;
    let options = options::write("PatchOptions", call.query, call.headers, call.user.clone())?;
    let patch = body::read(call.headers, body).await?;
    let (def, namespace, name) = (&target.def, &target.namespace, &target.name);
    let engine = &call.app.engine;
    let done =
        engine.patch(def, namespace, name, target.subresource(), kind, patch, options).await?;
    written(call, &target, &done, format)
}

/// The `DeleteOptions` of the body, if there is one.
async fn delete_body(call: &Call<'_>, body: Body) -> Result<Option<Value>, ApiError> {
    let bytes = body::read(call.headers, body).await?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        // Some clients announce a type and send nothing.
        return Ok(None);
    }
    decode(call.headers, &bytes).map(|(value, _)| Some(value))
}

pub(super) async fn delete(
    call: &Call<'_>,
    target: Target,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let format = Format::negotiate(call.headers, call.query)?;
    let sent = delete_body(call, body).await?;
    let (delete, dry_run) = options::delete(call.query, sent.as_ref())?;
    let options = WriteOptions { dry_run, user: call.user.clone(), ..WriteOptions::default() };
    let engine = &call.app.engine;
    let deleted =
        engine.delete(&target.def, &target.namespace, &target.name, delete, options).await?;
    match deleted {
        Deleted::Gone(object) => {
            let status = success_status(&target.def, &target.name, &object.uid);
            Ok(respond::document(StatusCode::OK, status.into(), format))
        }
        Deleted::Marked(object) => {
            respond::object(StatusCode::OK, &target.def, &object, format, call.query)
        }
    }
}

pub(super) async fn delete_collection(
    call: &Call<'_>,
    target: Target,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let format = Format::negotiate(call.headers, call.query)?;
    let list = list_options::list(call.query)?;
    let sent = delete_body(call, body).await?;
    let (delete, dry_run) = options::delete(call.query, sent.as_ref())?;
    let options = WriteOptions { dry_run, user: call.user.clone(), ..WriteOptions::default() };
    let engine = &call.app.engine;
    let deleted =
        engine.delete_collection(&target.def, target.namespaces(), list, delete, options).await?;
    respond::list(&target.def, deleted, format, call.query).await
}

pub(super) async fn post_subresource(
    call: &Call<'_>,
    target: Target,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let format = Format::negotiate(call.headers, call.query)?;
    let (object, options) = receive(call, "CreateOptions", body).await?;
    let (def, namespace, name) = (&target.def, &target.namespace, &target.name);
    let engine = &call.app.engine;
    let (status, answer) =
        engine.post_subresource(def, namespace, name, &target.subresource, object, options).await?;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    Ok(respond::document(status, answer, format))
}
