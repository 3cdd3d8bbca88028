//! Create, update, patch, delete: the body decoded, the options read, the engine asked.
//!
//! The engine runs mutations detached from their connections: a client that goes away in the middle
//! of a write does not leave half of one.

use axum::body::Body;
use commonage_schemas::names::DEFAULT_FRAMEWORK;
use http::{Response, StatusCode};
use serde_json::Value;

use super::body;
use super::chain::Call;
use super::negotiate::Format;
use super::resources::Target;
use super::{decode, list_options, options, respond};
use crate::auth::authorizer::Verdict;
use crate::engine::{Deleted, FieldValidation, PatchKind, WriteOptions, Written, scale};
use crate::resource::Origin;
use crate::schema;
use crate::status::{ApiError, success_status};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// Reads the body and the options of a write that sends an object.
pub(super) async fn receive(
    call: &Call<'_>,
    target: &Target,
    kind: &str,
    body: Body,
) -> Result<(Value, WriteOptions), ApiError> {
    let bytes = body::read(call.headers, body).await?;
    let mut options = options::write(kind, call.query, call.headers, call.user.clone())?;
    let (object, findings) = decode::object(&target.def, call.headers, &bytes)?;
    if options.field_validation != FieldValidation::Ignore {
        options.findings = findings;
        if decode::is_read_in_order(&target.def, call.headers) {
            options.text = bytes;
        }
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
    let mut response = match target.subresource() {
        Some("scale") => {
            let scale = scale::answer(&target.def, &written.object)?;
            respond::document(status, scale.to_string().into(), format)
        }
        _ => respond::object(status, &target.def, &written.object, format, call.query)?,
    };
    respond::add_warnings(&mut response, &written.warnings);
    Ok(response)
}

/// Where the authorizer's answer hangs on what a create sends.
fn check_what_is_sent(call: &Call<'_>, object: &Value) -> Result<(), ApiError> {
    if holds(call, call.verdict, object) { Ok(()) } else { Err(call.forbidden()) }
}

fn holds(call: &Call<'_>, verdict: Verdict, object: &Value) -> bool {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    match verdict {
        Verdict::Allowed | Verdict::Denied => true,
        Verdict::IfNamedAsAgent => {
            text("/metadata/name").is_some() && text("/metadata/name") == call.user.agent_name()
        }
        Verdict::IfFrameworkIsOwn => {
            let framework = text("/spec/framework").unwrap_or(DEFAULT_FRAMEWORK);
            call.app.engine.access().may_use(&call.user, &call.info.namespace, framework)
        }
    }
}

/// Why a client may not create what is not there: `sent`.
fn create_refused(call: &Call<'_>, sent: impl FnOnce() -> Option<Value>) -> Option<Box<ApiError>> {
    let (verdict, refusal) = call.verdict_on("create");
    let allowed = match verdict {
        Verdict::Allowed => true,
        Verdict::Denied => false,
        verdict => sent().is_some_and(|object| holds(call, verdict, &object)),
    };
    (!allowed).then(|| Box::new(refusal))
}

pub(super) async fn create(
    call: &Call<'_>,
    target: Target,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let format = Format::negotiate(call.headers, call.query)?;
    let received = receive(call, &target, "CreateOptions", body).await;
    // Who may send only some objects learns nothing about others, not even that they can't be read.
    let (object, options) = match received {
        Err(_) if call.verdict != Verdict::Allowed => return Err(call.forbidden()),
        received => received?,
    };
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
    let (object, mut options) = receive(call, &target, "UpdateOptions", body).await?;
    if target.def.is_created_by_update() {
        options.create_refused = create_refused(call, || Some(object.clone()));
    }
    let (def, namespace, name) = (&target.def, &target.namespace, &target.name);
    let engine = &call.app.engine;
    let done = engine.update(def, namespace, name, target.subresource(), object, options).await?;
    written(call, &target, &done, format)
}

/// A Scale is no object of the kind: it is read as what it says it is.
pub(super) async fn update_scale(
    call: &Call<'_>,
    target: Target,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let format = Format::negotiate(call.headers, call.query)?;
    let bytes = body::read(call.headers, body).await?;
    let options = options::write("UpdateOptions", call.query, call.headers, call.user.clone())?;
    let scale = decode::scale(call.headers, &bytes)?;
    let (def, namespace, name) = (&target.def, &target.namespace, &target.name);
    let engine = &call.app.engine;
    let done = engine.update(def, namespace, name, target.subresource(), scale, options).await?;
    written(call, &target, &done, format)
}

fn patch_kind(call: &Call<'_>, target: &Target) -> Result<PatchKind, ApiError> {
    match decode::content_type(call.headers).as_deref() {
        Some(JSON_PATCH) => Ok(PatchKind::Json),
        Some(MERGE_PATCH) => Ok(PatchKind::Merge),
        Some(STRATEGIC_PATCH) if target.def.origin == Origin::BuiltIn => Ok(PatchKind::Strategic),
        Some(APPLY_PATCH) => {
            Ok(PatchKind::Apply { force: call.query.flag("force").unwrap_or(false) })
        }
        _ => Err(match target.def.origin {
            Origin::BuiltIn => ApiError::unsupported_media_type_here(),
            Origin::Custom => ApiError::unsupported_media_type(&PatchKind::CUSTOM),
        }),
    }
}

pub(super) async fn patch(
    call: &Call<'_>,
    target: Target,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let kind = patch_kind(call, &target)?;
    let format = Format::negotiate(call.headers, call.query)?;
    let patch = body::read(call.headers, body).await?;
    let is_apply = matches!(kind, PatchKind::Apply { .. });
    let which = if is_apply { options::APPLY_OPTIONS } else { "PatchOptions" };
    let mut options = options::write(which, call.query, call.headers, call.user.clone())?;
    if is_apply {
        let sent = || schema::decode_yaml(&patch).ok().map(|(object, _)| object);
        options.create_refused = create_refused(call, sent);
    }
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
    let read = decode::options(call.headers, &bytes).map_err(|error| match error.code {
        // kube-apiserver does not foresee that.
        400 => ApiError::unforeseen(error.message),
        _ => error,
    });
    read.map(Some)
}

pub(super) async fn delete(
    call: &Call<'_>,
    target: Target,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let format = Format::negotiate(call.headers, call.query)?;
    let sent = delete_body(call, body).await?;
    let asked = options::delete(call.query, sent.as_ref())?;
    let options =
        WriteOptions { dry_run: asked.dry_run, user: call.user.clone(), ..WriteOptions::default() };
    let engine = &call.app.engine;
    let deleted =
        engine.delete(&target.def, &target.namespace, &target.name, asked.delete, options).await?;
    match deleted {
        // One of the few kinds whose objects kube-apiserver shows once more.
        Deleted::Gone(object) if target.def.kind == "ServiceAccount" => {
            respond::object(StatusCode::OK, &target.def, &object, format, call.query)
        }
        Deleted::Gone(object) => {
            let status = success_status(&target.def, &target.name, &object.uid);
            Ok(respond::document(StatusCode::OK, status.into(), format))
        }
        Deleted::Marked(object) => {
            let status =
                if asked.is_legacy_cascade { StatusCode::ACCEPTED } else { StatusCode::OK };
            respond::object(status, &target.def, &object, format, call.query)
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
    let asked = options::delete(call.query, sent.as_ref())?;
    let options =
        WriteOptions { dry_run: asked.dry_run, user: call.user.clone(), ..WriteOptions::default() };
    let engine = &call.app.engine;
    let deleted = engine
        .delete_collection(&target.def, target.namespaces(), list, asked.delete, options)
        .await?;
    respond::list(&target.def, deleted, format, call.query).await
}

pub(super) async fn post_subresource(
    call: &Call<'_>,
    target: Target,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let format = Format::negotiate(call.headers, call.query)?;
    let bytes = body::read(call.headers, body).await?;
    let options = options::write("CreateOptions", call.query, call.headers, call.user.clone())?;
    let object = decode::options(call.headers, &bytes)?;
    let (def, namespace, name) = (&target.def, &target.namespace, &target.name);
    let engine = &call.app.engine;
    let (status, answer) =
        engine.post_subresource(def, namespace, name, &target.subresource, object, options).await?;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    Ok(respond::document(status, answer, format))
}
