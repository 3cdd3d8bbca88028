//! What a request answers when it does not answer an object: `Status`, in Kubernetes' own words.
//!
//! Clients branch on `code` and `reason` and print `message`, so the texts are those of
//! apimachinery's `api/errors` and must not be rephrased. Everything above the store speaks
//! [`ApiError`]; only `http/` turns one into a response.

mod cause;
#[cfg(test)]
mod tests;
mod wire;

pub use cause::Cause;
pub use wire::success_status;

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::resource::{Origin, ResourceDef};

/// What the failure is about. `kind` is the plural resource name for NotFound, Conflict,
/// AlreadyExists and Forbidden, and the Kind for Invalid: a quirk clients rely on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDetails {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Also sent as the `Retry-After` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub code: u16,
    /// Machine-readable; empty when Kubernetes gives none.
    pub reason: Cow<'static, str>,
    pub message: String,
    pub details: Option<Box<StatusDetails>>,
    /// `metadata.continue`: an expired page token is answered with one to go on with.
    pub continue_: Option<String>,
    /// Texts for `Warning` headers: what was noticed before the request failed.
    pub warnings: Vec<String>,
}

impl ApiError {
    /// Any status; prefer the named constructors.
    pub fn new(
        code: u16,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> ApiError {
        ApiError {
            code,
            reason: reason.into(),
            message: message.into(),
            details: None,
            continue_: None,
            warnings: Vec::new(),
        }
    }

    #[must_use]
    pub fn with_warnings(mut self, warnings: &[String]) -> ApiError {
        self.warnings.extend_from_slice(warnings);
        self
    }

    #[must_use]
    pub fn with_details(mut self, details: StatusDetails) -> ApiError {
        self.details = Some(Box::new(details));
        self
    }

    #[must_use]
    pub fn with_retry_after_s(mut self, seconds: u32) -> ApiError {
        self.details.get_or_insert_default().retry_after_seconds = Some(seconds);
        self
    }

    #[must_use]
    pub fn with_cause(mut self, cause: Cause) -> ApiError {
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    pub fn not_found(def: &ResourceDef, name: &str) -> ApiError {
        Self::not_found_in(&def.group, &def.plural, name)
    }

    /// For a resource there is no definition at hand of, such as a missing namespace.
    pub fn not_found_in(group: &str, resource: &str, name: &str) -> ApiError {
        let message = format!("{} {name:?} not found", qualified(resource, group));
        Self::new(404, "NotFound", message).with_details(about(group, resource, name))
    }

    pub fn already_exists(def: &ResourceDef, name: &str) -> ApiError {
        let message = format!("{} {name:?} already exists", def.group_resource());
        Self::new(409, "AlreadyExists", message).with_details(about(&def.group, &def.plural, name))
    }

    /// A generated name clashed as often as we were willing to try.
    pub fn generate_name_conflict(def: &ResourceDef, name: &str) -> ApiError {
        let message = format!(
            "{} {name:?} already exists, the server was not able to generate a unique name for the object",
            def.group_resource()
        );
        Self::new(409, "AlreadyExists", message)
            .with_details(about(&def.group, &def.plural, name))
            .with_retry_after_s(1)
    }

    /// The object changed between the client's read and its write.
    pub fn conflict(def: &ResourceDef, name: &str) -> ApiError {
        Self::conflict_because(
            def,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub fn conflict_because(def: &ResourceDef, name: &str, why: &str) -> ApiError {
        let message =
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", def.group_resource());
        Self::new(409, "Conflict", message).with_details(about(&def.group, &def.plural, name))
    }

    /// An update that names another uid. kube-apiserver lets its storage say so, key and all.
    pub fn uid_conflict(
        def: &ResourceDef,
        namespace: &str,
        name: &str,
        wanted: &str,
        found: &str,
    ) -> ApiError {
        let group = match def.origin {
            Origin::Custom => format!("{}/", def.group),
            Origin::BuiltIn => String::new(),
        };
        let namespace = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{group}{}/{namespace}{name}, ResourceVersion: 0, \
             AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}",
            def.plural
        );
        Self::conflict_because(def, name, &why)
    }

    /// A precondition of a DELETE that does not hold. The object is called by its Kind, as in
    /// Kubernetes.
    pub fn delete_conflict(def: &ResourceDef, name: &str, why: &str) -> ApiError {
        let kind = qualified(&def.kind, &def.group);
        let message = format!("Operation cannot be fulfilled on {kind} {name:?}: {why}");
        Self::new(409, "Conflict", message).with_details(about(&def.group, &def.kind, name))
    }

    /// What kube-apiserver did not foresee: 500 without a reason.
    pub fn unforeseen(message: impl Into<String>) -> ApiError {
        Self::new(500, "", message)
    }

    /// 409 with one of our own reasons (`OfferGone`, `IllegalTransition`).
    pub fn refused(def: &ResourceDef, name: &str, reason: &'static str, why: &str) -> ApiError {
        let mut error = Self::conflict_because(def, name, why);
        error.reason = reason.into();
        error
    }

    pub fn invalid(def: &ResourceDef, name: &str, causes: Vec<Cause>) -> ApiError {
        Self::invalid_kind(&def.group, &def.kind, name, causes)
    }

    /// For a kind without a definition, such as `ListOptions.meta.k8s.io` or a subresource's body.
    pub fn invalid_kind(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> ApiError {
        let mut lines: Vec<String> = Vec::with_capacity(causes.len());
        for cause in &causes {
            let line = format!("{}: {}", cause.field, cause.message);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        let all =
            if lines.len() == 1 { lines.remove(0) } else { format!("[{}]", lines.join(", ")) };
        let message = if causes.is_empty() {
            format!("{} {name:?} is invalid", qualified(kind, group))
        } else {
            format!("{} {name:?} is invalid: {all}", qualified(kind, group))
        };
        let details = StatusDetails { causes, ..about(group, kind, name) };
        Self::new(422, "Invalid", message).with_details(details)
    }

    /// A patch that parsed but cannot be applied.
    pub fn unprocessable_patch() -> ApiError {
        Self::new(422, "Invalid", "the server rejected our request due to an error in our request")
            .with_details(StatusDetails::default())
    }

    /// `name` empty: the whole collection.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> ApiError {
        let message = match (resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{} is forbidden: {why}", qualified(resource, group)),
            (false, false) => {
                format!("{} {name:?} is forbidden: {why}", qualified(resource, group))
            }
        };
        Self::new(403, "Forbidden", message).with_details(about(group, resource, name))
    }

    /// A create in a namespace that is being deleted.
    pub fn namespace_terminating(def: &ResourceDef, name: &str, namespace: &str) -> ApiError {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        Self::forbidden(&def.group, &def.plural, name, &why).with_cause(Cause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".into(),
        })
    }

    pub fn bad_request(message: impl Into<String>) -> ApiError {
        Self::new(400, "BadRequest", message)
    }

    /// The body of a write can't be read as the kind that the URL names.
    pub fn undecodable(def: &ResourceDef, object: &Value, why: &str) -> ApiError {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let version = text("apiVersion").rsplit('/').next().unwrap_or_default();
        let kind = &def.kind;
        Self::bad_request(format!(
            "{} in version {version:?} cannot be handled as a {kind}: {why}",
            text("kind")
        ))
    }

    /// What came out of a patch is not an object of the kind; `patched` is its text.
    pub fn invalid_patch(patched: &str, why: &str) -> ApiError {
        let cause = Cause::invalid("patch", &patched.into(), why);
        Self::invalid_kind("", "", "", vec![cause])
    }

    pub fn unauthorized() -> ApiError {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// `verb` as Kubernetes says it: `delete`, `patch`.
    pub fn method_not_allowed(group: &str, resource: &str, verb: &str) -> ApiError {
        let message = format!(
            "{verb} is not supported on resources of kind {:?}",
            qualified(resource, group)
        );
        Self::new(405, "MethodNotAllowed", message).with_details(about(group, resource, ""))
    }

    /// A method that no kind of kube-apiserver's own knows on this path.
    pub fn method_not_allowed_here() -> ApiError {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message).with_details(StatusDetails::default())
    }

    /// The kind of the object is going away.
    pub fn definition_terminating(def: &ResourceDef, verb: &str) -> ApiError {
        let mut error = Self::method_not_allowed(&def.group, &def.plural, verb);
        error.message =
            format!("{verb} not allowed while custom resource definition is terminating");
        error
    }

    /// A path that kube-apiserver's router does not know.
    pub fn not_found_here() -> ApiError {
        let message = "the server could not find the requested resource";
        Self::new(404, "NotFound", message).with_details(StatusDetails::default())
    }

    /// Nothing that kube-apiserver's router could answer there is asked for.
    pub fn not_acceptable_here(available: &[&str]) -> ApiError {
        let available = available.join(", ");
        let message = format!("406: Not Acceptable\n\nAvailable representations: {available}");
        Self::new(406, "NotAcceptable", message).with_details(StatusDetails::default())
    }

    /// A body of a type that kube-apiserver's router gives to no handler.
    pub fn unsupported_media_type_here() -> ApiError {
        Self::new(415, "UnsupportedMediaType", "415: Unsupported Media Type")
            .with_details(StatusDetails::default())
    }

    pub fn not_acceptable(accepted: &[&str]) -> ApiError {
        let message =
            format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, "NotAcceptable", message)
    }

    /// 406 of an object that has not the form asked for.
    pub fn not_acceptable_because(message: String) -> ApiError {
        Self::new(406, "NotAcceptable", message)
    }

    pub fn unsupported_media_type(accepted: &[&str]) -> ApiError {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub fn too_large(limit_bytes: usize) -> ApiError {
        let message = format!("Request entity too large: limit is {limit_bytes}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// A list at a revision that is no longer there.
    pub fn expired_list() -> ApiError {
        Self::new(410, "Expired", "The resourceVersion for the provided list is too old.")
    }

    /// A watch from a version whose events are no longer there.
    pub fn expired_watch(requested: u64, oldest: u64) -> ApiError {
        Self::new(410, "Expired", format!("too old resource version: {requested} ({oldest})"))
    }

    /// A page token too old; `fresh` continues after the same key in the present.
    pub fn expired_continue(fresh: String) -> ApiError {
        let mut error = Self::new(
            410,
            "Expired",
            "The provided continue parameter is too old to display a consistent list result. You can start \
             a new list without the continue parameter, or use the continue token in this response to \
             retrieve the remainder of the results. Continuing with the provided token results in an \
             inconsistent list - objects that were created, modified, or deleted between the time the first \
             chunk was returned and now may show up in the list.",
        );
        error.continue_ = Some(fresh);
        error
    }

    pub fn too_many(message: impl Into<String>, retry_after_s: u32) -> ApiError {
        Self::new(429, "TooManyRequests", message).with_retry_after_s(retry_after_s)
    }

    /// `message` goes to the client: never put an internal chain in it, log that.
    pub fn internal(message: impl fmt::Display) -> ApiError {
        let message = message.to_string();
        let cause = Cause { reason: "".into(), message: message.clone(), field: String::new() };
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
            .with_cause(cause)
    }

    pub fn unavailable(message: impl Into<String>) -> ApiError {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// The store does not answer: nothing was done, and the same request may succeed in a moment.
    pub fn store_unavailable(why: &str) -> ApiError {
        Self::new(503, "StoreUnavailable", format!("the store is not available: {why}"))
            .with_retry_after_s(1)
    }

    /// The store has something under the object's key that is no object.
    pub fn unreadable(def: &ResourceDef, name: &str, why: &str) -> ApiError {
        Self::internal(format!(
            "{} {name:?} can't be read from the store: {why}",
            def.group_resource()
        ))
        .with_details(about(&def.group, &def.plural, name))
    }

    /// The store takes nothing more until somebody makes room.
    pub fn store_full(why: &str) -> ApiError {
        let hint = match why.starts_with("etcd: ") {
            true => {
                "objects without finalizers can still be deleted; make room and clear the alarm: \
                 `etcdctl compact REVISION`, `etcdctl defrag`, `etcdctl alarm disarm`; or raise etcd's \
                 --quota-backend-bytes"
            }
            false => "objects without finalizers can still be deleted; make room on that disk",
        };
        Self::new(507, "StoreFull", format!("the store is full: {why} ({hint})"))
    }

    /// The request took longer than it may.
    pub fn deadline_exceeded() -> ApiError {
        let message = "Timeout: request did not complete within requested timeout - context deadline exceeded";
        Self::new(504, "Timeout", message).with_details(StatusDetails::default())
    }

    pub fn timeout(message: &str) -> ApiError {
        Self::new(504, "Timeout", format!("Timeout: {message}")).with_retry_after_s(1)
    }

    /// A read "not older than" a version that has not happened yet.
    pub fn timeout_rv_too_large(requested: u64, current: u64) -> ApiError {
        Self::timeout(&format!("Too large resource version: {requested}, current: {current}"))
            .with_cause(Cause {
                reason: "ResourceVersionTooLarge".into(),
                message: "Too large resource version".into(),
                field: String::new(),
            })
    }

    pub fn retry_after_s(&self) -> Option<u32> {
        self.details.as_ref().and_then(|details| details.retry_after_seconds)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

fn about(group: &str, kind: &str, name: &str) -> StatusDetails {
    StatusDetails {
        name: name.into(),
        group: group.into(),
        kind: kind.into(),
        ..StatusDetails::default()
    }
}

/// `tasks.commonage.dev`; the core group has no suffix.
fn qualified(resource: &str, group: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}
