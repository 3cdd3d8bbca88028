//! `cmn controllers`: the controllers alone, as a client of an API server.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use clap::{ArgAction, Args as ClapArgs};
use commonage_controllers::{
    Patience, Settings,
    leader::{self, Election},
    metrics,
};
use commonage_schemas::names::{CONTROLLERS_LEASE, SYSTEM_NAMESPACE};
use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    args::Global,
    errors::{Failure, Result},
    kubeconfig::Cluster,
    output,
    role::{self, Log, Part},
    wait,
};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  cmn controllers --kubeconfig DIR/controllers.kubeconfig    DIR: the API server's data directory")]
pub(crate) struct Args {
    /// Serve /metrics here, for Prometheus, over plain HTTP
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    #[command(flatten)]
    liveness: LivenessArgs,
    #[command(flatten)]
    election: ElectionArgs,
    #[command(flatten)]
    log: Log,
}

/// How long agents may be silent.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Liveness of agents")]
pub(crate) struct LivenessArgs {
    /// An agent that has not renewed its lease for so long is unreachable, and nothing new goes there
    #[arg(long, value_name = "TIME", default_value = "40s", value_parser = wait::duration)]
    agent_unreachable_after: Duration,
    /// The tasks of an agent that has been silent for so long are lost. Not while more than a tenth of all
    /// agents, and more than one, are silent together
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = wait::duration)]
    agent_lost_after: Duration,
}

impl LivenessArgs {
    pub(crate) fn patience(self) -> Result<Patience> {
        let patience = Patience {
            unreachable_after: self.agent_unreachable_after,
            lost_after: self.agent_lost_after,
        };
        if patience.unreachable_after.is_zero() || patience.lost_after < patience.unreachable_after
        {
            return Err(Failure::new(
                "--agent-lost-after must not be shorter than --agent-unreachable-after, and neither 0s",
            )
            .exit(2));
        }
        Ok(patience)
    }
}

/// Which of several control planes' controllers decide; the options are kube-controller-manager's.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Leader election")]
pub(crate) struct ElectionArgs {
    /// Decide only while holding the lease; without, nothing else may run controllers of this cluster
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
        default_value = "true", default_missing_value = "true")]
    leader_elect: bool,
    /// So long after a leader was last heard of, another one takes over
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = wait::duration)]
    leader_elect_lease_duration: Duration,
    /// A leader that cannot renew its lease for so long stops deciding
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = wait::duration)]
    leader_elect_renew_deadline: Duration,
    /// Between attempts to take over or to renew
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = wait::duration)]
    leader_elect_retry_period: Duration,
    /// The lease's name
    #[arg(long, value_name = "NAME", default_value = CONTROLLERS_LEASE)]
    leader_elect_resource_name: String,
    /// The lease's namespace
    #[arg(long, value_name = "NAME", default_value = SYSTEM_NAMESPACE)]
    leader_elect_resource_namespace: String,
}

impl ElectionArgs {
    /// `None`: without one. `rejoin`: whoever is deposed waits for another term, instead of ending.
    pub(crate) fn election(self, rejoin: bool) -> Result<Option<Election>> {
        let election = Election {
            namespace: self.leader_elect_resource_namespace,
            name: self.leader_elect_resource_name,
            identity: leader::identity(),
            lease_duration: self.leader_elect_lease_duration,
            renew_deadline: self.leader_elect_renew_deadline,
            retry_period: self.leader_elect_retry_period,
            rejoin,
        };
        election.check().map_err(|error| {
            Failure::new(format!("these times of the leader election cannot work: {error}"))
        })?;
        Ok(self.leader_elect.then_some(election))
    }
}

/// Decides while elected, or always.
pub(crate) async fn start(
    client: Client,
    settings: Settings,
    election: Option<Election>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    match election {
        Some(election) => leader::run(client, settings, election, stop).await,
        None => commonage_controllers::run(client, settings, stop).await,
    }
}

pub(crate) fn run(args: Args, global: &Global) -> Result<ExitCode> {
    let Args { metrics_listen, liveness, election, log } = args;
    // Which of several leads is what one wants to know of them.
    log.start_telling(",commonage_controllers::leader=info");
    let election = election.election(false)?;
    let patience = liveness.patience()?;
    role::block_on(async {
        let cluster = Cluster::connect(global).await?;
        let client = role::lean(cluster.client.clone());
        let settings = Settings { ca_pem: cluster.ca_pem.clone(), patience };
        let mut controllers =
            Part::start("controllers", |stop| start(client, settings, election, stop));
        output::step(&format!("controllers of {}", cluster.url));
        let stop = CancellationToken::new();
        if let Some(address) = metrics_listen {
            let listener = TcpListener::bind(address).await.map_err(|error| {
                Failure::new(format!("cannot listen on {address} for metrics: {error}"))
            })?;
            tokio::spawn(metrics::serve(listener, stop.clone()));
        }
        let _stop = stop.drop_guard();
        tokio::select! {
            asked = role::asked_to_stop() => asked?,
            failure = controllers.dies() => return Err(failure),
        }
        controllers.stop().await
    })
}
