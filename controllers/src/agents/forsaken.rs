//! Agents whose object somebody has deleted: nobody reconciles them any more, but their tasks are still there.
//!
//! An agent that lives makes its object anew. One that is silent as well is treated as any other that is: its tasks
//! are Unreachable and then Lost. That many are silent is no reason to wait here: somebody has deleted them one by one.

use std::collections::BTreeSet;
use std::sync::Arc;

use commonage_schemas::{Task, TaskState, names::AGENT_LEASE_NAMESPACE};
use k8s_openapi::{api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Resource,
    api::{DeleteParams, ListParams},
    runtime::reflector::ObjectRef,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{CHECK_EVERY, Context, Liveness, mark_tasks};
use crate::patch;

const PAGE: u32 = 500;

/// As much of a Task as tells whose it is.
#[derive(Clone, Debug, Default, Deserialize, Serialize, Resource)]
#[resource(inherit = "Task")]
struct Bound {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: BoundSpec,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct BoundSpec {
    #[serde(default)]
    agent: Option<String>,
}

/// Looks for them until `shutdown`.
pub(super) async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let every = CHECK_EVERY.min(context.patience.unreachable_after / 4);
    let mut has_searched = false;
    tokio::select! {
        () = shutdown.cancelled() => return,
        ready = context.agents.wait_until_ready() => if ready.is_err() { return },
    }
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        if !has_searched {
            match search(&context).await {
                Ok(()) => has_searched = true,
                Err(error) => warn!(%error, "tasks of agents that are gone are not looked for yet"),
            }
        }
        for name in context.silences.names() {
            if context.agents.get(&ObjectRef::new(&name)).is_some() {
                continue;
            }
            if let Err(error) = give_up(&context, &name).await {
                warn!(agent = name, %error, "tasks of an agent that is gone are not given up yet");
            }
        }
    }
}

/// Once, because those who were here before us may have known of agents of which there is nothing but tasks.
async fn search(context: &Context) -> kube::Result<()> {
    let api = Api::<Bound>::all(context.client.clone());
    let mut page = ListParams::default().limit(PAGE);
    let mut names = BTreeSet::new();
    loop {
        let tasks = api.list(&page).await?;
        names.extend(tasks.items.into_iter().filter_map(|task| task.spec.agent));
        match tasks.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = ListParams::default().limit(PAGE).continue_token(&token),
            None => break,
        }
    }
    names.iter().for_each(|name| context.silences.expect(name));
    Ok(())
}

async fn give_up(context: &Context, name: &str) -> kube::Result<()> {
    let client = &context.client;
    let leases = Api::<Lease>::namespaced(client.clone(), AGENT_LEASE_NAMESPACE);
    if context.patience.judge(context.silences.of_name(name, None)) == Liveness::Alive {
        return Ok(());
    }
    // The watch may be behind.
    let lease = leases.get_opt(name).await?;
    let state = match context.patience.judge(context.silences.of_name(name, lease.as_ref())) {
        Liveness::Alive => return Ok(()),
        Liveness::Unreachable => TaskState::Unreachable,
        Liveness::Lost => TaskState::Lost,
    };
    let why = format!("agent {name} was deleted, and does not renew its lease");
    let marked = mark_tasks(client, name, state, &why).await?;
    // Those that were overtaken are looked at once more.
    if state == TaskState::Lost && marked == 0 {
        info!(agent = name, "an agent that was deleted is given up");
        if lease.is_some() {
            patch::overtaken(leases.delete(name, &DeleteParams::default()).await)?;
        }
        context.silences.forget(name);
    }
    Ok(())
}
