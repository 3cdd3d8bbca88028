//! A task's state and its history, which only the server writes.

use commonage_schemas::{TaskState, reasons};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::meta;
use crate::resource::ResourceDef;
use crate::status::ApiError;

/// States kept in a task's history: an agent that comes and goes must not let the object grow for
/// ever. The first one stays, then the newest.
const HISTORY_MAX: usize = 64;

/// The state of a stored task; what can't be read counts as `Pending`, the default.
pub(super) fn state_of(task: &Value) -> TaskState {
    serde_json::from_value(task["status"]["state"].clone()).unwrap_or_default()
}

/// Puts the task into a state, whatever it was in, and writes the history.
pub(super) fn enter(task: &mut Value, state: TaskState, now: Timestamp) {
    let reason = task["status"]["reason"].clone();
    task["status"]["state"] = json!(state);
    let time = meta::time_text(now);
    let mut entry = json!({"state": state, "time": time});
    if reason.is_string() {
        entry["reason"] = reason;
    }
    let history = &mut task["status"]["history"];
    match history.as_array_mut() {
        Some(entries) => {
            if entries.len() >= HISTORY_MAX {
                entries.remove(1);
            }
            entries.push(entry);
        }
        None => *history = json!([entry]),
    }
    let stamp = match state {
        TaskState::Running => "startedAt",
        state if state.is_terminal() => "finishedAt",
        _ => return,
    };
    if task["status"][stamp].is_null() {
        task["status"][stamp] = json!(time);
    }
}

/// Checks what somebody reported against the state table. The history stays the server's.
pub(super) fn report(
    def: &ResourceDef,
    old: &Value,
    new: &mut Value,
    now: Timestamp,
) -> Result<(), ApiError> {
    let before = state_of(old);
    if !new["status"].is_object() {
        new["status"] = json!({});
    }
    match old["status"].get("history") {
        Some(history) => new["status"]["history"] = history.clone(),
        None => drop(new["status"].as_object_mut().and_then(|status| status.remove("history"))),
    }
    if new["status"]["state"].is_null() {
        new["status"]["state"] = json!(before);
    }
    let Ok(after) = serde_json::from_value::<TaskState>(new["status"]["state"].clone()) else {
        // The schema's validation says which states there are.
        return Ok(());
    };
    if !before.can_become(after) {
        let name = old["metadata"]["name"].as_str().unwrap_or_default();
        let why = format!("the task is {before} and can't become {after}");
        return Err(ApiError::refused(def, name, reasons::status::ILLEGAL_TRANSITION, &why));
    }
    if before != after {
        enter(new, after, now);
    }
    Ok(())
}
