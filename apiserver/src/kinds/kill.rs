//! `POST tasks/NAME/kill`: ends a task and keeps its object, as opposed to a DELETE.

use std::sync::Arc;

use bytes::Bytes;
use commonage_schemas::{TaskKill, TaskState, reasons};
use futures::FutureExt;
use jiff::Timestamp;
use serde_json::json;

use super::state;
use crate::engine::{Engine, Target, take_version};
use crate::object::Object;
use crate::status::ApiError;
use crate::strategy::SubresourceRequest;

/// Writes the order into the spec, where the agent sees it. The first order stays; one about a task
/// that is over changes nothing; a task that still waits is over at once.
pub(super) async fn kill(
    engine: &Arc<Engine>,
    request: &SubresourceRequest,
) -> Result<(u16, Bytes), ApiError> {
    let body = if request.body.is_null() { json!({}) } else { request.body.clone() };
    let order: TaskKill = serde_json::from_value(body)
        .map_err(|error| ApiError::bad_request(format!("the body is not a TaskKill: {error}")))?;
    let target = &Target::new(&request.def, &request.namespace, &request.name, None);
    let order = &order;
    let once = |current: Arc<Object>| async move {
        let mut task = current.to_value();
        let wanted = order.metadata.uid.as_deref();
        if let Some(uid) = wanted.filter(|uid| **uid != *current.uid) {
            let (namespace, name) = (&request.namespace, &request.name);
            return Err(
                ApiError::uid_conflict(&request.def, namespace, name, uid, &current.uid).into()
            );
        }
        let before = state::state_of(&task);
        if before.is_terminal() || !task["spec"]["kill"].is_null() {
            return Ok(current);
        }
        take_version(&mut task);
        let reason = order.reason.as_deref().unwrap_or(reasons::task::KILL_REQUESTED);
        let mut kill = json!({"reason": reason});
        if let Some(message) = &order.message {
            kill["message"] = json!(message);
        }
        if let Some(seconds) = order.grace_period_seconds {
            kill["gracePeriodSeconds"] = json!(seconds);
        }
        task["spec"]["kill"] = kill;
        crate::meta::bump_generation(&mut task);
        if before == TaskState::Pending {
            task["status"]["reason"] = json!(reason);
            task["status"]["message"] = json!(order.message);
            state::enter(&mut task, TaskState::Killed, Timestamp::now());
        }
        engine.store_edit(target, &current, &task, request.options.dry_run).await
    };
    let killed = engine.retrying(target, move |current| once(current).boxed()).await?;
    Ok((201, killed.body.clone()))
}
