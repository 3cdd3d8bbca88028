//! What goes on inside a running Task, of Tasks and of the pods that show them: `log`, `exec`,
//! `attach`, `portforward`. Refuses what Kubernetes refuses, in its words; agents do the rest.

use axum::body::Body;
use http::Response;

use super::chain::Call;
use super::query::Query;
use super::resources::Target;
use crate::kinds::view::CONTAINER;
use crate::proxy::{self, Located};
use crate::status::{ApiError, Cause};
use crate::streams::{self, Kind};

/// Of a log, passed on to agents as they are.
const LOG_PARAMETERS: [&str; 7] =
    ["follow", "tailLines", "stream", "sinceSeconds", "sinceTime", "timestamps", "limitBytes"];

fn is_pod(target: &Target) -> bool {
    !target.def.is_stored()
}

/// There is one container; to name another is a mistake.
fn check_container(query: &Query, target: &Target) -> Result<(), ApiError> {
    match query.filled("container") {
        None | Some(CONTAINER) => Ok(()),
        Some(other) => Err(ApiError::bad_request(format!(
            "container {other} is not valid for {} {}",
            target.def.singular, target.name
        ))),
    }
}

pub(super) async fn log(call: &Call<'_>, target: &Target) -> Result<Response<Body>, ApiError> {
    check_log_options(call.query, &target.name)?;
    let located = proxy::locate(call.app, target).await?;
    check_container(call.query, target)?;
    if call.query.flag("previous") == Some(true) {
        return Err(ApiError::bad_request(format!(
            "previous terminated container \"{CONTAINER}\" in {} \"{}\" not found",
            target.def.singular, target.name
        )));
    }
    let waits = matches!(located.state.as_str(), "" | "Pending" | "Staging" | "Starting");
    let Some(place) = &located.place else {
        return Err(no_log_yet(target, &located));
    };
    match call
        .app
        .agents
        .log(call.ends.clone(), place, &parameters(call.query, &LOG_PARAMETERS))
        .await
    {
        Err(error) if error.code == 404 && waits => Err(no_log_yet(target, &located)),
        answer => answer,
    }
}

/// What lies in a Task's sandbox, of one that has ended too.
pub(super) async fn sandbox(call: &Call<'_>, target: &Target) -> Result<Response<Body>, ApiError> {
    let located = proxy::locate(call.app, target).await?;
    let Some(place) = &located.place else {
        return Err(ApiError::bad_request(format!(
            "task {:?} has no sandbox yet: it has not been placed on an agent",
            target.name
        )));
    };
    let parameters = parameters(call.query, &["path"]);
    call.app.agents.document(place, "sandbox", &parameters).await
}

/// Those of a query that an agent is told.
fn parameters(query: &Query, names: &[&str]) -> String {
    let mut parameters = form_urlencoded::Serializer::new(String::new());
    for parameter in names {
        if let Some(value) = query.get(parameter) {
            parameters.append_pair(parameter, value);
        }
    }
    parameters.finish()
}

fn no_log_yet(target: &Target, located: &Located) -> ApiError {
    if is_pod(target) {
        let reason = match (&located.place, located.reason.as_str()) {
            (Some(_), _) | (None, "") => "ContainerCreating",
            (None, reason) => reason,
        };
        return ApiError::bad_request(format!(
            "container \"{CONTAINER}\" in pod \"{}\" is waiting to start: {reason}",
            target.name
        ));
    }
    ApiError::bad_request(match located.place {
        None => {
            format!("task {:?} has no log yet: it has not been placed on an agent", target.name)
        }
        Some(_) => format!("task {:?} has no log yet: it has not started", target.name),
    })
}

fn cause(reason: &'static str, field: &str, message: String) -> Cause {
    Cause { reason: reason.into(), message, field: field.to_owned() }
}

/// As `ValidatePodLogOptions` of Kubernetes has it.
fn check_log_options(query: &Query, name: &str) -> Result<(), ApiError> {
    let mut causes = Vec::new();
    let mut at_least = |field: &str, value: Option<i64>, least: i64, words: &str| {
        if let Some(value) = value.filter(|value| *value < least) {
            let message = format!("Invalid value: {value}: must be {words}");
            causes.push(cause("FieldValueInvalid", field, message));
        }
    };
    let tail = query.number("tailLines")?;
    at_least("tailLines", tail, 0, "greater than or equal to 0");
    at_least("limitBytes", query.number("limitBytes")?, 1, "greater than 0");
    let since = query.number("sinceSeconds")?;
    match (since, query.filled("sinceTime")) {
        (Some(_), Some(_)) => causes.push(cause(
            "FieldValueForbidden",
            "",
            "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified".to_owned(),
        )),
        (since, None) => at_least("sinceSeconds", since, 1, "greater than 0"),
        (None, Some(time)) if time.parse::<jiff::Timestamp>().is_err() => {
            return Err(ApiError::bad_request(format!(
                "parsing time {time:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse"
            )));
        }
        (None, Some(_)) => {}
    }
    match query.filled("stream") {
        None | Some("All") => {}
        Some("Stdout" | "Stderr" | "stdout" | "stderr" | "all") => {}
        Some(other) => causes.push(cause(
            "FieldValueNotSupported",
            "stream",
            format!(
                "Unsupported value: \"{other}\": supported values: \"All\", \"Stderr\", \"Stdout\""
            ),
        )),
    }
    match causes.is_empty() {
        true => Ok(()),
        false => Err(ApiError::invalid_kind("", "PodLogOptions", name, causes)),
    }
}

pub(super) async fn stream(
    call: &Call<'_>,
    target: &Target,
    kind: Kind,
) -> Result<Response<Body>, ApiError> {
    // A WebSocket begins with a GET, and who may only look must not get in by it.
    call.demand("create")?;
    let located = proxy::locate(call.app, target).await?;
    if kind != Kind::PortForward {
        check_container(call.query, target)?;
    }
    let place = located.place.ok_or_else(|| {
        ApiError::bad_request(match is_pod(target) {
            true => format!("pod {} does not have a host assigned", target.name),
            false => format!("task {} has not been placed on an agent", target.name),
        })
    })?;
    let upgrade = call.upgrade.lock().take();
    streams::open(streams::Request {
        app: call.app,
        ends: &call.ends,
        kind,
        place,
        query: call.query,
        headers: call.headers,
        upgrade,
    })
    .await
}
