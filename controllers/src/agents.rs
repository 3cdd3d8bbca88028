//! Agents: whether they are alive, and what becomes of the tasks of those that are not.
//!
//! An agent renews a Lease; when it stops, the agent is Unreachable and so are its tasks, which go
//! on running for all we know. After [`LOST_AFTER`] they are Lost. An agent that renews again is
//! ready again, and reports for itself what its tasks are.

mod drain;

use std::{sync::Arc, time::Duration};

use commonage_schemas::{
    Agent, Task, TaskState, agent::condition, names::AGENT_LEASE_NAMESPACE, reasons,
};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::coordination::v1::Lease,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::{Controller, controller::Action, reflector::ObjectRef, watcher},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{events, patch};

/// An agent that has not renewed its lease for so long is unreachable: four renewals missed.
const UNREACHABLE_AFTER: SignedDuration = SignedDuration::from_secs(40);
/// The tasks of an agent that has been silent for so long are lost (Kubernetes and Mesos use five
/// and ten minutes).
const LOST_AFTER: SignedDuration = SignedDuration::from_secs(600);
const CHECK_EVERY: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// While an agent is being emptied.
const DRAIN_EVERY: Duration = Duration::from_millis(500);

pub(crate) async fn run(client: Client, shutdown: CancellationToken) -> anyhow::Result<()> {
    Controller::new(Api::<Agent>::all(client.clone()), watcher::Config::default())
        .watches(
            Api::<Lease>::namespaced(client.clone(), AGENT_LEASE_NAMESPACE),
            watcher::Config::default(),
            |lease| Some(ObjectRef::<Agent>::new(&lease.name_any())),
        )
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, |_, _, _| Action::requeue(RETRY_AFTER), Arc::new(client))
        .for_each(|result| async {
            match result {
                // A lease may be there a moment before its agent is.
                Ok(_) | Err(kube::runtime::controller::Error::ObjectNotFound(_)) => {}
                Err(error) => warn!(%error, "agent not reconciled"),
            }
        })
        .await;
    Ok(())
}

/// What an agent's silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Liveness {
    Alive,
    Unreachable,
    Lost,
}

fn liveness(agent: &Agent, lease: Option<&Lease>, now: Timestamp) -> Liveness {
    let renewed =
        lease.and_then(|l| l.spec.as_ref()).and_then(|s| s.renew_time.as_ref()).map(|t| t.0);
    let since = renewed.or(agent.metadata.creation_timestamp.as_ref().map(|t| t.0)).unwrap_or(now);
    let silent = now.duration_since(since);
    if silent <= UNREACHABLE_AFTER {
        Liveness::Alive
    } else if silent <= LOST_AFTER {
        Liveness::Unreachable
    } else {
        Liveness::Lost
    }
}

async fn reconcile(agent: Arc<Agent>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let name = agent.name_any();
    let leases = Api::<Lease>::namespaced((*client).clone(), AGENT_LEASE_NAMESPACE);
    let lease = leases.get_opt(&name).await?;
    let now = Timestamp::now();
    let liveness = liveness(&agent, lease.as_ref(), now);
    let unreachable = holds(&agent, condition::UNREACHABLE);
    match liveness {
        Liveness::Alive if unreachable => {
            info!(agent = %name, "agent is back");
            set_conditions(&client, &agent, liveness, now).await?;
        }
        Liveness::Alive => {}
        _ => {
            if !unreachable {
                warn!(agent = %name, "agent is unreachable");
                let message =
                    format!("its lease has not been renewed for {} s", UNREACHABLE_AFTER.as_secs());
                events::warn(&client, &*agent, reasons::task::AGENT_UNREACHABLE, message).await;
                set_conditions(&client, &agent, liveness, now).await?;
            }
            mark_tasks(&client, &name, liveness).await?;
        }
    }
    let draining = drain::step(&client, &agent, now).await?;
    Ok(Action::requeue(if draining { DRAIN_EVERY } else { CHECK_EVERY }))
}

fn holds(agent: &Agent, kind: &str) -> bool {
    let conditions = agent.status.iter().flat_map(|s| &s.conditions);
    conditions.into_iter().any(|c| c.type_ == kind && c.status == "True")
}

/// Writes Ready and Unreachable, leaving the agent's other conditions as they are.
async fn set_conditions(
    client: &Client,
    agent: &Agent,
    liveness: Liveness,
    now: Timestamp,
) -> kube::Result<()> {
    let alive = liveness == Liveness::Alive;
    let made = |type_: &str, status: &str| Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: if alive { "LeaseRenewed" } else { "LeaseExpired" }.to_owned(),
        message: String::new(),
        last_transition_time: Time(now),
        observed_generation: None,
    };
    let mut conditions: Vec<Condition> =
        agent.status.iter().flat_map(|s| s.conditions.clone()).collect();
    conditions.retain(|c| c.type_ != condition::READY && c.type_ != condition::UNREACHABLE);
    conditions.insert(0, made(condition::READY, if alive { "True" } else { "Unknown" }));
    conditions.push(made(condition::UNREACHABLE, if alive { "False" } else { "True" }));
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

/// Marks the agent's live tasks Unreachable or Lost.
async fn mark_tasks(client: &Client, agent: &str, liveness: Liveness) -> kube::Result<()> {
    let (state, reason) = match liveness {
        Liveness::Lost => (TaskState::Lost, reasons::task::AGENT_LOST),
        _ => (TaskState::Unreachable, reasons::task::AGENT_UNREACHABLE),
    };
    let mine = ListParams::default().fields(&format!("spec.agent={agent}"));
    for task in Api::<Task>::all(client.clone()).list(&mine).await? {
        let now = task.state();
        if now == state || now.is_terminal() || !now.can_become(state) {
            continue;
        }
        let api = Api::<Task>::namespaced(client.clone(), &task.namespace().unwrap_or_default());
        let message = format!("agent {agent} does not renew its lease");
        let status = json!({"state": state, "reason": reason, "message": message});
        patch::status(&api, &task.name_any(), task.resource_version(), status).await?;
        if state == TaskState::Lost {
            events::warn(client, &task, reason, message).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use commonage_schemas::AgentSpec;
    use k8s_openapi::{
        api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime,
    };

    use super::*;

    #[test]
    fn silence_is_first_unreachable_then_lost() {
        let agent = Agent::new("a", AgentSpec::default());
        let lease = Lease {
            spec: Some(LeaseSpec {
                renew_time: Some(MicroTime(Timestamp::from_second(1000).unwrap())),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        let at = |second| liveness(&agent, Some(&lease), Timestamp::from_second(second).unwrap());
        assert_eq!(at(1040), Liveness::Alive);
        assert_eq!(at(1041), Liveness::Unreachable);
        assert_eq!(at(1600), Liveness::Unreachable);
        assert_eq!(at(1601), Liveness::Lost);
    }
}
