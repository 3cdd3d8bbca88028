//! Emptying an agent: because its operator says so, or because its maintenance has begun.
//!
//! Nothing new goes there (that is the allocator's doing); here its tasks are told to end, each with
//! its own grace period or the drain's, whichever is shorter, and the agent says how far it is.

use std::time::Duration;

use commonage_schemas::{
    Agent, Task, TaskKill, TaskState,
    agent::{Drain, condition},
    reasons,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{Api, Client, Resource, ResourceExt, api::ListParams};
use serde_json::json;

use crate::{events, patch};

/// What the agent is emptied by now, if it is.
pub(super) fn wanted(agent: &Agent, now: Timestamp) -> Option<Drain> {
    if let Some(drain) = &agent.spec.drain {
        return Some(drain.clone());
    }
    let window = agent.spec.maintenance.as_ref()?;
    (window.start.0 <= now)
        .then(|| Drain { reason: Some("its maintenance has begun".to_owned()), ..Drain::default() })
}

/// How long until its maintenance begins, if that is to come.
pub(super) fn begins_in(agent: &Agent, now: Timestamp) -> Option<Duration> {
    let start = agent.spec.maintenance.as_ref()?.start.0;
    Duration::try_from(start.duration_since(now)).ok().filter(|wait| !wait.is_zero())
}

fn says(agent: &Agent, kind: &str) -> Option<bool> {
    let mut conditions = agent.status.iter().flat_map(|s| &s.conditions);
    conditions.find(|c| c.type_ == kind).map(|c| c.status == "True")
}

/// One step; returns whether to look again soon.
pub(super) async fn step(client: &Client, agent: &Agent, now: Timestamp) -> kube::Result<bool> {
    let Some(drain) = wanted(agent, now) else {
        if says(agent, condition::DRAINING) == Some(true)
            || says(agent, condition::DRAINED) == Some(true)
        {
            set(client, agent, (false, false), "Reopened", now).await?;
        }
        return Ok(false);
    };
    if says(agent, condition::DRAINED) == Some(true) {
        return Ok(false);
    }
    let name = agent.name_any();
    let mine = ListParams::default().fields(&format!("spec.agent={name}"));
    let tasks = Api::<Task>::all(client.clone()).list(&mine).await?;
    let live: Vec<&Task> = tasks.iter().filter(|task| task.holds_resources()).collect();
    let why = drain.reason.as_deref().unwrap_or("its operator wants it empty");
    if says(agent, condition::DRAINING) != Some(true) {
        let message = format!("{} tasks are told to end: {why}", live.len());
        events::warn(client, agent, "Draining", message).await;
        set(client, agent, (true, live.is_empty()), "Draining", now).await?;
    } else if live.is_empty() {
        set(client, agent, (false, true), "Empty", now).await?;
    }
    for task in &live {
        if drain.mark_gone && task.state() == TaskState::Unreachable {
            mark_gone(client, task, &name).await?;
        } else if task.spec.kill.is_none() && task.metadata.deletion_timestamp.is_none() {
            kill(client, task, &name, &drain, why).await?;
        }
    }
    Ok(!live.is_empty())
}

async fn kill(
    client: &Client,
    task: &Task,
    agent: &str,
    drain: &Drain,
    why: &str,
) -> kube::Result<()> {
    let message = format!("agent {agent} is being drained: {why}");
    let mut order = TaskKill::new(reasons::task::AGENT_DRAINED, message.clone());
    order.metadata.uid = task.uid();
    order.grace_period_seconds = drain.grace_period_seconds;
    let namespace = task.namespace().unwrap_or_default();
    let path = format!("{}/{}/kill", Task::url_path(&(), Some(&namespace)), task.name_any());
    let request = http::Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(serde_json::to_vec(&order).map_err(kube::Error::SerdeError)?)
        .map_err(kube::Error::HttpError)?;
    patch::overtaken(client.request::<Task>(request).await)?;
    events::warn_once(client, task, reasons::task::AGENT_DRAINED, message).await;
    Ok(())
}

/// The agent will not come back to say what became of the task.
async fn mark_gone(client: &Client, task: &Task, agent: &str) -> kube::Result<()> {
    let message = format!("agent {agent} was drained while it was unreachable, and marked gone");
    let status = json!({
        "state": TaskState::Gone, "reason": reasons::task::AGENT_DRAINED, "message": message,
    });
    let api = Api::<Task>::namespaced(client.clone(), &task.namespace().unwrap_or_default());
    patch::status(&api, &task.name_any(), task.resource_version(), status).await?;
    Ok(())
}

/// Writes Draining and Drained, leaving the agent's other conditions as they are.
async fn set(
    client: &Client,
    agent: &Agent,
    (draining, drained): (bool, bool),
    reason: &str,
    now: Timestamp,
) -> kube::Result<()> {
    let made = |type_: &str, holds: bool| Condition {
        type_: type_.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        last_transition_time: Time(now),
        observed_generation: None,
    };
    let mut conditions: Vec<Condition> =
        agent.status.iter().flat_map(|s| s.conditions.clone()).collect();
    conditions.retain(|c| c.type_ != condition::DRAINING && c.type_ != condition::DRAINED);
    conditions.push(made(condition::DRAINING, draining && !drained));
    conditions.push(made(condition::DRAINED, drained));
    let api = Api::<Agent>::all(client.clone());
    let status = json!({"conditions": conditions});
    patch::status(&api, &agent.name_any(), agent.resource_version(), status).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use commonage_schemas::{AgentSpec, agent::Maintenance};

    use super::*;

    #[test]
    fn an_agent_is_emptied_on_demand_and_when_its_maintenance_begins() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut agent = Agent::new("a", AgentSpec::default());
        assert_eq!(wanted(&agent, at(100)), None);
        let start = Time(at(200));
        agent.spec.maintenance = Some(Maintenance { start, duration_seconds: 60 });
        assert_eq!(wanted(&agent, at(199)), None);
        assert!(wanted(&agent, at(200)).is_some());
        let drain = Drain { grace_period_seconds: Some(3), ..Drain::default() };
        agent.spec.drain = Some(drain.clone());
        assert_eq!(wanted(&agent, at(0)), Some(drain));
    }
}
