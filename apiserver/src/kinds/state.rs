//! A task's state and its history, which only the server writes.

use commonage_schemas::{TaskState, reasons};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::meta;
use crate::resource::ResourceDef;
use crate::status::{ApiError, Cause};

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

/// What is known once and for all when it is known: where the task runs, and as what.
const SETTLED: [&str; 3] = ["agent", "containerId", "hostPorts"];

/// What a finished task may still lose: what of it could not be removed has been. It never comes later, because what
/// the task held has been given to others by then.
const CLEANUP: &str = "cleanupPending";

/// The first field that a report on a finished task says otherwise. What it does not say stays: an
/// agent that repeats its report after a restart may know less.
fn contradiction<'s>(old: &Value, new: &'s Value) -> Option<&'s str> {
    let fields = new.as_object().into_iter().flatten();
    fields
        .filter(|(field, _)| *field != CLEANUP)
        .filter(|(field, value)| !value.is_null() && !same(&old[field.as_str()], value))
        .map(|(field, _)| field.as_str())
        .next()
}

/// Whether two values are the same; of times, whether they are of the same second: that is how
/// exactly they are written.
fn same(old: &Value, new: &Value) -> bool {
    let second =
        |value: &Value| value.as_str()?.parse::<Timestamp>().ok().map(Timestamp::as_second);
    let nothing = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    old == new
        || (nothing(old) && nothing(new))
        || second(old).is_some_and(|time| Some(time) == second(new))
}

/// Puts back what a report leaves out and no report may take away. `Err` with the field that it says
/// otherwise.
fn keep_settled(old: &Value, new: &mut Value) -> Result<(), &'static str> {
    for field in SETTLED {
        let known = &old[field];
        if known.is_null() {
            continue;
        }
        if !new[field].is_null() && !same(known, &new[field]) {
            return Err(field);
        }
        new[field] = known.clone();
    }
    // The first report counts. A later one may be off by how long it took to be made, which must
    // not keep the end of the task from being known.
    if !old["startedAt"].is_null() {
        new["startedAt"] = old["startedAt"].clone();
    }
    Ok(())
}

/// Checks what somebody reported against the state table. The history stays the server's.
pub(super) fn report(
    def: &ResourceDef,
    old: &Value,
    new: &mut Value,
    now: Timestamp,
) -> Result<(), ApiError> {
    let before = state_of(old);
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    let illegal =
        |why: &str| ApiError::refused(def, name, reasons::status::ILLEGAL_TRANSITION, why);
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
        return Err(illegal(&format!("the task is {before} and can't become {after}")));
    }
    if before.is_terminal() {
        if let Some(field) = contradiction(&old["status"], &new["status"]) {
            let why = format!("the task is {before}, which is final: status.{field} can't change");
            return Err(illegal(&why));
        }
        let remains = new["status"][CLEANUP].take();
        new["status"] = old["status"].clone();
        if let Some(status) = new["status"].as_object_mut().filter(|s| s.contains_key(CLEANUP)) {
            match remains.is_null() {
                true => drop(status.remove(CLEANUP)),
                false => drop(status.insert(CLEANUP.to_owned(), remains)),
            }
        }
        return Ok(());
    }
    keep_settled(&old["status"], &mut new["status"]).map_err(|field| {
        let value = new["status"][field].clone();
        let detail = "it was reported before and can't change";
        ApiError::invalid(
            def,
            name,
            vec![Cause::invalid(format!("status.{field}"), &value, detail)],
        )
    })?;
    if before != after {
        enter(new, after, now);
    }
    Ok(())
}
