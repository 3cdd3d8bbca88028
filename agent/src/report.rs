//! Telling the API server how far a task is.
//!
//! A report is one merge patch on the status subresource, bound to the task's uid so that a late
//! one never lands on a new task of the same name. The driver keeps one per task under way and
//! decides about repeats; this only sends and reads the answer.

use std::time::Duration;

use commonage_failpoint::reach;
use commonage_schemas::{Task, TaskStatus};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

/// A request that has no answer by then gets none.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What became of a report.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Stored; this is the Task now.
    Accepted(Box<Task>),
    /// Refused because the Task is not what we thought; this is what it is.
    Stale { task: Box<Task>, message: String },
    /// There is no such Task any more.
    Gone,
    /// No answer, or one that says nothing about the task: worth a repeat.
    Failed(String),
}

/// Sends one status.
pub(crate) async fn send(client: kube::Client, task: &Task, status: &TaskStatus) -> Answer {
    let api: Api<Task> = Api::namespaced(client, &task.namespace().unwrap_or_default());
    let exchange = exchange(&api, task, status);
    match tokio::time::timeout(REQUEST_TIMEOUT, exchange).await {
        Ok(answer) => answer,
        Err(_) => Answer::Failed(format!("no answer within {REQUEST_TIMEOUT:?}")),
    }
}

async fn exchange(api: &Api<Task>, task: &Task, status: &TaskStatus) -> Answer {
    let name = task.name_any();
    let body = match patch(task, status) {
        Ok(body) => body,
        Err(error) => return Answer::Failed(format!("print the status: {error}")),
    };
    reach("agent.after_status_persist_before_send");
    let sent = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&body)).await;
    reach("agent.after_send_before_ack");
    match sent {
        Ok(stored) if stored.uid() == task.uid() => Answer::Accepted(Box::new(stored)),
        Ok(_) => Answer::Gone,
        Err(error) => match status_code(&error) {
            Some(404) => Answer::Gone,
            Some(409 | 422) => read_again(api, task, error.to_string()).await,
            _ => Answer::Failed(error.to_string()),
        },
    }
}

async fn read_again(api: &Api<Task>, task: &Task, message: String) -> Answer {
    match api.get_opt(&task.name_any()).await {
        Ok(Some(now)) if now.uid() == task.uid() => Answer::Stale { task: Box::new(now), message },
        Ok(_) => Answer::Gone,
        Err(error) => Answer::Failed(error.to_string()),
    }
}

/// The HTTP status of an answer of the API server; `None` when there was no answer.
pub(crate) fn status_code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => u16::try_from(code_of(status)).ok(),
        _ => None,
    }
}

fn code_of(status: &kube::core::Status) -> i64 {
    i64::from(status.code)
}

/// The patch: what is set, and `null` for what belonged to an earlier state. In the same state, what the task said
/// of itself stays. Of a task that is over there is only one thing left to say: that nothing is left of it.
fn patch(task: &Task, status: &TaskStatus) -> serde_json::Result<Value> {
    if task.state().is_terminal() {
        return Ok(json!({"metadata": {"uid": task.uid()}, "status": {"cleanupPending": null}}));
    }
    let mut fields = serde_json::to_value(status)?;
    for cleared in ["reason", "message", "whyPending"] {
        if fields.get(cleared).is_none() && task.state() != status.state {
            fields[cleared] = Value::Null;
        }
    }
    Ok(json!({"metadata": {"uid": task.uid()}, "status": fields}))
}
