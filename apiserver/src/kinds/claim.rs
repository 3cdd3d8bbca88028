//! A task that claims one agent, instead of waiting for any.
//!
//! Here it is only seen whether there is room at all, by what the agent's status says is held. Who
//! gets what remains the allocator's to decide: the task is bound by it, or waits and says why.

use commonage_schemas::{Agent, GROUP, Resources, TaskSpec, agent::condition, reasons};
use serde_json::Value;

use crate::status::{ApiError, Cause};
use crate::strategy::Context;

/// # Errors
/// 422 when there is no such agent, 409 `DoesNotFit` when it has no room or takes nothing new.
pub(super) fn check(cx: Context<'_>, task: &Value) -> Result<(), ApiError> {
    let Some(name) = task["spec"]["agent"].as_str() else { return Ok(()) };
    let of = task["metadata"]["name"].as_str().unwrap_or_default();
    let scheme = cx.engine.scheme();
    let Some(agents) = scheme.by_kind(GROUP, "Agent") else { return Ok(()) };
    let Some(found) = cx.engine.resource(agents)?.get(&format!("/{name}")) else {
        let cause = Cause::invalid("spec.agent", &task["spec"]["agent"], "there is no such agent");
        return Err(ApiError::invalid(cx.def, of, vec![cause]));
    };
    // What can't be read is refused by validation, which names it better.
    let agent = serde_json::from_value::<Agent>(found.to_value());
    let spec = serde_json::from_value::<TaskSpec>(task["spec"].clone());
    let (Ok(agent), Ok(spec)) = (agent, spec) else { return Ok(()) };
    match obstacle(&agent, &spec) {
        None => Ok(()),
        Some(why) => {
            let why = format!("agent {name:?} {why}");
            Err(ApiError::refused(cx.def, of, reasons::status::DOES_NOT_FIT, &why))
        }
    }
}

/// Why the agent can't take such a task now.
fn obstacle(agent: &Agent, task: &TaskSpec) -> Option<String> {
    let status = agent.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().any(|c| c.type_ == condition::READY && c.status == "True");
    if !ready {
        return Some("is not ready".to_owned());
    }
    if agent.spec.drain.is_some() {
        return Some("is being drained".to_owned());
    }
    if agent.spec.unschedulable {
        return Some("is unschedulable".to_owned());
    }
    // What is held may be lent: how much of it, only the allocator knows.
    let lent = status.revocable.iter().chain(&agent.spec.overcommit);
    let all = lent.fold(status.allocatable.unwrap_or_default(), |sum, some| {
        sum.checked_add(some).unwrap_or(sum)
    });
    let held = all.min(&status.allocated.unwrap_or_default());
    let free = all.checked_sub(&held).unwrap_or_else(|_| Resources::new());
    let short = free.missing(&task.resources);
    let name = short.first()?;
    let text = |of: &Resources| of.get(name).map_or("nothing".to_owned(), |a| a.to_text(name));
    Some(format!(
        "has {} of {name} left, and the task wants {}",
        text(&free),
        text(&task.resources)
    ))
}
