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
mod resources;
mod tasks;

pub use allocation::whatif;
pub use commonage_allocator::replay;

use anyhow::Context;
use kube::Client;
use tokio::task::JoinSet;
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

/// Runs every controller until `shutdown`.
///
/// # Errors
/// One of them dies: a control plane without, say, its allocator must not look alive.
pub async fn run(
    client: Client,
    settings: Settings,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Settings { ca_pem, patience } = settings;
    let mut controllers = JoinSet::new();
    let stop = || shutdown.child_token();
    controllers.spawn(named("allocation", allocation::run(client.clone(), stop())));
    controllers.spawn(named("tasks", tasks::run(client.clone(), stop())));
    controllers.spawn(named("frameworks", frameworks::run(client.clone(), stop())));
    controllers
        .spawn(named("default-frameworks", frameworks::defaults::run(client.clone(), stop())));
    controllers.spawn(named("garbage", garbage::run(client.clone(), stop())));
    controllers.spawn(named("namespaces", namespaces::run(client.clone(), ca_pem, stop())));
    controllers.spawn(named("agents", agents::run(client, patience, stop())));
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

async fn named<F>(name: &'static str, controller: F) -> (&'static str, anyhow::Result<()>)
where
    F: Future<Output = anyhow::Result<()>>,
{
    (name, controller.await)
}
