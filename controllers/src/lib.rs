//! The reconcilers, one per concern.
//!
//! Ordinary API clients on `kube-runtime`: a watch only wakes them, they read what is, compute a
//! plan and apply it with preconditions. Nothing here talks to the store or to an agent. The
//! allocator's driver is the only writer of offers and bindings.
#![forbid(unsafe_code)]

mod agenda;
mod agents;
mod allocation;
mod events;
mod frameworks;
mod garbage;
pub mod leader;
pub mod metrics;
mod namespaces;
mod patch;
mod reconciling;
mod resources;
mod tasks;

pub use allocation::whatif;
pub use commonage_allocator::replay;

use std::time::Duration;

use allocation::standby::Standby;
use anyhow::Context;
use kube::Client;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use agents::Patience;

/// What the controllers are told at their start.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The authority of the API server, for the ConfigMaps `kube-root-ca.crt`.
    pub ca_pem: Option<String>,
    /// How long agents may be silent.
    pub patience: Patience,
}

/// Nobody waits longer than this for the allocator: it may be in trouble that is none of theirs.
const ALLOCATOR_FIRST_MAX: Duration = Duration::from_secs(10);

/// Runs every controller until `shutdown`, for a cluster that has no others.
///
/// # Errors
/// One of them dies: a control plane without, say, its allocator must not look alive.
pub async fn run(
    client: Client,
    settings: Settings,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let standby = Standby::new(&client);
    lead(standby, client, settings, shutdown).await
}

/// The same, with an allocator that has perhaps followed the cluster for long.
async fn lead(
    standby: Standby,
    client: Client,
    settings: Settings,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Settings { ca_pem, patience } = settings;
    let mut controllers = JoinSet::new();
    let stop = || shutdown.child_token();
    let decided = CancellationToken::new();
    let allocation = allocation::run(standby, client.clone(), decided.clone(), stop());
    controllers.spawn(named("allocation", allocation));
    let next = Next { decided, shutdown: stop() };
    controllers.spawn(named("tasks", next.run(tasks::run(client.clone(), stop()))));
    controllers.spawn(named("frameworks", next.run(frameworks::run(client.clone(), stop()))));
    let defaults = frameworks::defaults::run(client.clone(), stop());
    controllers.spawn(named("default-frameworks", next.run(defaults)));
    controllers.spawn(named("garbage", next.run(garbage::run(client.clone(), stop()))));
    let namespaces = namespaces::run(client.clone(), ca_pem, stop());
    controllers.spawn(named("namespaces", next.run(namespaces)));
    controllers.spawn(named("agents", next.run(agents::run(client, patience, stop()))));
    while let Some(ended) = controllers.join_next().await {
        let (name, result) = ended.context("a controller panicked")?;
        result.with_context(|| format!("controller {name} failed"))?;
        if !shutdown.is_cancelled() {
            anyhow::bail!("controller {name} ended by itself");
        }
        info!(controller = name, "stopped");
    }
    Ok(())
}

/// Controllers whose turn comes when the allocator has decided for the first time: tasks wait for that, and the others
/// read the cluster too, each for itself.
struct Next {
    decided: CancellationToken,
    shutdown: CancellationToken,
}

impl Next {
    fn run<F>(&self, controller: F) -> impl Future<Output = anyhow::Result<()>> + use<F>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let (decided, shutdown) = (self.decided.clone(), self.shutdown.clone());
        async move {
            tokio::select! {
                () = decided.cancelled() => {}
                () = sleep(ALLOCATOR_FIRST_MAX) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            controller.await
        }
    }
}

async fn named<F>(name: &'static str, controller: F) -> (&'static str, anyhow::Result<()>)
where
    F: Future<Output = anyhow::Result<()>>,
{
    (name, controller.await)
}
