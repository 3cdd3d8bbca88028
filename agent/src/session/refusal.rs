//! No, as a Status: before a session as the answer to the request, in a session on its channel.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Why a request does not become a session.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into() }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Refusal {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// What an ended task has left is not there any more; `since` when and why.
    pub(crate) fn collected(task: &str, since: &str) -> Refusal {
        Self::new(
            StatusCode::GONE,
            format!(
                "the sandbox and the logs of task {task:?} were removed at {since}; how it ended is in its status"
            ),
        )
    }

    pub(crate) fn internal(message: impl Into<String>) -> Refusal {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Refusal { status, message } = self;
        let reason = match status {
            StatusCode::NOT_FOUND => "NotFound",
            StatusCode::GONE => "Gone",
            StatusCode::BAD_REQUEST => "BadRequest",
            StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
            _ => "InternalError",
        };
        let body = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": status.as_u16(),
        });
        (status, Json(body)).into_response()
    }
}

/// A session that did what it was for.
pub(super) fn success() -> Value {
    json!({ "metadata": {}, "status": "Success" })
}

/// A command that ended with another code than 0, in the form from which clients take the code.
pub(super) fn exit_code(code: i32) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}

/// A session whose task did not do its part in time.
pub(super) fn timeout(what: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": what,
        "reason": "Timeout",
        "details": { "causes": [{ "message": what }] },
        "code": 504,
    })
}

/// A session that broke on our side.
pub(super) fn internal(what: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {what}"),
        "reason": "InternalError",
        "details": { "causes": [{ "message": what }] },
        "code": 500,
    })
}
