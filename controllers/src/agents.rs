//! Agents: whether they are alive, and what becomes of the tasks of those that are not.
//!
//! An agent renews a Lease, which is watched; when it stops, the agent is Unreachable and so are its tasks, which go
//! on running for all we know. After a while they are Lost, unless so many agents fell silent at once that
//! it is rather the network, or us. An agent that renews again is ready again, and reports for itself what its
//! tasks are.

mod drain;
mod forsaken;
mod silence;

use std::{sync::Arc, time::Duration};

use commonage_schemas::{
    Agent, Task, TaskState, agent::condition, names::AGENT_LEASE_NAMESPACE, reasons,
};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::Lease,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::{
        Controller,
        controller::Action,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use serde_json::json;
use silence::{Liveness, Silences};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{events, patch, reconciling::until_ended};

pub use silence::Patience;

/// How often a silent agent is looked at, at most; oftener where patience is short.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// One that is alive is looked at when it may have become silent, and this much later.
const CHECK_AFTER: Duration = Duration::from_millis(10);
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// While an agent is being emptied.
const DRAIN_EVERY: Duration = Duration::from_millis(500);
/// Of all agents, this part may fall silent at once and have its tasks given up: one in so many.
const GIVE_UP_ONE_IN: usize = 10;

/// Why an agent is `Unreachable`: the reasons of that condition.
const EXPIRED: &str = "LeaseExpired";
const MASS_LOSS: &str = "MassLoss";
const TASKS_LOST: &str = "TasksLost";

struct Context {
    client: Client,
    patience: Patience,
    silences: Silences,
    agents: Store<Agent>,
}

pub(crate) async fn run(
    client: Client,
    patience: Patience,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let controller = Controller::new(Api::<Agent>::all(client.clone()), watcher::Config::default());
    let context = Arc::new(Context {
        client: client.clone(),
        patience,
        silences: Silences::default(),
        agents: controller.store(),
    });
    let (heard, known) = (context.clone(), context.agents.clone());
    let forsaken = forsaken::run(context.clone(), shutdown.clone());
    let reconciling = controller
        .watches(
            Api::<Lease>::namespaced(client, AGENT_LEASE_NAMESPACE),
            watcher::Config::default(),
            move |lease| {
                let to_look = heard.silences.hear(&lease);
                to_look.then(|| ObjectRef::<Agent>::new(&lease.name_any()))
            },
        )
        .graceful_shutdown_on(shutdown.clone().cancelled_owned())
        .run(reconcile, |_, _, _| Action::requeue(RETRY_AFTER), context)
        .for_each(|result| async {
            match result {
                // A lease may be there a moment before its agent is.
                Ok(_) | Err(kube::runtime::controller::Error::ObjectNotFound(_)) => {}
                Err(error) => warn!(%error, "agent not reconciled"),
            }
        });
    tokio::join!(until_ended(reconciling, known, shutdown), forsaken);
    Ok(())
}

async fn reconcile(agent: Arc<Agent>, context: Arc<Context>) -> Result<Action, kube::Error> {
    let name = agent.name_any();
    let client = &context.client;
    let now = Timestamp::now();
    let said = context.patience.said(liveness_said(&agent));
    let mut silent = context.silences.of(&agent, said);
    if context.patience.judge(silent) != Liveness::Alive {
        let leases = Api::<Lease>::namespaced(client.clone(), AGENT_LEASE_NAMESPACE);
        let lease = leases.get_opt(&name).await?;
        silent = context.silences.confirmed(&agent, lease.as_ref(), said);
    }
    let liveness = context.patience.judge(silent);
    context.silences.judged(&agent, liveness);
    match liveness {
        Liveness::Alive if why_unreachable(&agent).is_some() => {
            info!(agent = %name, "agent is back");
            set_conditions(client, &agent, None, now).await?;
        }
        Liveness::Alive => {}
        Liveness::Unreachable => {
            if why_unreachable(&agent).is_none() {
                warn!(agent = %name, "agent is unreachable");
                let seconds = context.patience.unreachable_after.as_secs_f64();
                let message = format!("its lease has not been renewed for {seconds} s");
                events::warn(client, &*agent, reasons::task::AGENT_UNREACHABLE, message.clone())
                    .await;
                set_conditions(client, &agent, Some((EXPIRED, &message)), now).await?;
            }
            mark_tasks(client, &name, TaskState::Unreachable, &silent_words(&name)).await?;
        }
        Liveness::Lost => give_up(&context, &agent, now).await?,
    }
    let draining = drain::step(client, &agent, now).await?;
    let unreachable_after = context.patience.unreachable_after;
    let next = match liveness {
        Liveness::Alive => unreachable_after.saturating_sub(silent) + CHECK_AFTER,
        Liveness::Unreachable | Liveness::Lost => CHECK_EVERY.min(unreachable_after / 4),
    };
    let draining = draining.then_some(DRAIN_EVERY);
    let next = [draining, drain::begins_in(&agent, now)].into_iter().flatten().fold(next, Ord::min);
    Ok(Action::requeue(next))
}

/// The agent's tasks are lost, unless it is one of too many.
async fn give_up(context: &Context, agent: &Agent, now: Timestamp) -> kube::Result<()> {
    let (client, name) = (&context.client, agent.name_any());
    let all = context.agents.state();
    let silent = all.iter().filter(|other| {
        other.name_any() == name || why_unreachable(other).is_some_and(|why| why != TASKS_LOST)
    });
    let silent = silent.count();
    let why = why_unreachable(agent);
    if why != Some(TASKS_LOST) && is_mass_loss(silent, all.len()) {
        if why != Some(MASS_LOSS) {
            let message = format!(
                "{silent} of {} agents are silent: that is not one of them dying, so their tasks are not given up. \
                 They are when fewer are silent, or agent by agent with spec.drain.markGone",
                all.len()
            );
            warn!(agent = %name, silent, "mass loss: tasks are not given up");
            events::warn(client, agent, MASS_LOSS, message.clone()).await;
            set_conditions(client, agent, Some((MASS_LOSS, &message)), now).await?;
        }
        mark_tasks(client, &name, TaskState::Unreachable, &silent_words(&name)).await?;
        return Ok(());
    }
    if why != Some(TASKS_LOST) {
        let seconds = context.patience.lost_after.as_secs_f64();
        let message = format!("its lease has not been renewed for {seconds} s; its tasks are lost");
        set_conditions(client, agent, Some((TASKS_LOST, &message)), now).await?;
    }
    mark_tasks(client, &name, TaskState::Lost, &silent_words(&name)).await?;
    Ok(())
}

/// Whether so many agents are silent together that it can't be theirs. One always may be.
fn is_mass_loss(silent: usize, all: usize) -> bool {
    silent > (all / GIVE_UP_ONE_IN).max(1)
}

/// The reason of the condition `Unreachable`, if it holds.
fn why_unreachable(agent: &Agent) -> Option<&str> {
    let mut conditions = agent.status.iter().flat_map(|s| &s.conditions);
    let found = conditions.find(|c| c.type_ == condition::UNREACHABLE && c.status == "True");
    found.map(|c| c.reason.as_str())
}

/// What the agent's conditions say of its silence.
fn liveness_said(agent: &Agent) -> Liveness {
    match why_unreachable(agent) {
        None => Liveness::Alive,
        Some(TASKS_LOST) => Liveness::Lost,
        Some(_) => Liveness::Unreachable,
    }
}

/// Writes Ready and Unreachable, leaving the agent's other conditions as they are. `silent`: reason and message,
/// if it is.
async fn set_conditions(
    client: &Client,
    agent: &Agent,
    silent: Option<(&str, &str)>,
    now: Timestamp,
) -> kube::Result<()> {
    let (reason, message) = silent.unwrap_or(("LeaseRenewed", ""));
    let made = |type_: &str, status: &str| Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(now),
        observed_generation: None,
    };
    let mut conditions: Vec<Condition> =
        agent.status.iter().flat_map(|s| s.conditions.clone()).collect();
    conditions.retain(|c| c.type_ != condition::READY && c.type_ != condition::UNREACHABLE);
    conditions.insert(0, made(condition::READY, if silent.is_none() { "True" } else { "Unknown" }));
    conditions.push(made(condition::UNREACHABLE, if silent.is_none() { "False" } else { "True" }));
    let api = Api::<Agent>::all(client.clone());
    patch::status(
        &api,
        &agent.name_any(),
        agent.resource_version(),
        json!({"conditions": conditions}),
    )
    .await?;
    Ok(())
}

fn silent_words(agent: &str) -> String {
    format!("agent {agent} does not renew its lease")
}

/// Marks the agent's live tasks Unreachable or Lost; returns how many there were that were not.
async fn mark_tasks(
    client: &Client,
    agent: &str,
    state: TaskState,
    message: &str,
) -> kube::Result<usize> {
    let reason = match state {
        TaskState::Lost => reasons::task::AGENT_LOST,
        _ => reasons::task::AGENT_UNREACHABLE,
    };
    let mine = ListParams::default().fields(&format!("spec.agent={agent}"));
    let mut marked = 0;
    for task in Api::<Task>::all(client.clone()).list(&mine).await? {
        let now = task.state();
        if now == state || now.is_terminal() || !now.can_become(state) {
            continue;
        }
        let api = Api::<Task>::namespaced(client.clone(), &task.namespace().unwrap_or_default());
        marked += 1;
        let status = json!({"state": state, "reason": reason, "message": message});
        patch::status(&api, &task.name_any(), task.resource_version(), status).await?;
        if state == TaskState::Lost {
            events::warn(client, &task, reason, message.to_owned()).await;
        }
    }
    Ok(marked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_may_always_be_lost_and_more_than_a_tenth_never() {
        assert!(!is_mass_loss(1, 1));
        assert!(!is_mass_loss(1, 3));
        assert!(is_mass_loss(2, 3));
        assert!(!is_mass_loss(10, 100));
        assert!(is_mass_loss(11, 100));
    }
}
