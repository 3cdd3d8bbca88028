//! `cmn up`: a whole cluster on this machine, in this process.
//!
//! The same parts as `cmn apiserver`, `cmn controllers` and `cmn agent`, with one difference: the
//! controllers and the agent reach the API server through its router and not through a socket.
//! Stopping takes the parts down in the order in which they need each other: the agent kills its
//! tasks and reports it, the controllers stop, the API server finishes what it has begun.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args as ClapArgs;
use commonage_agent::Identity;
use commonage_apiserver::{ApiServer, auth::UserInfo};
use commonage_controllers::Settings;
use commonage_schemas::{Agent, Resources, agent::AgentStatus, resources::Ranges};
use commonage_shim::ZygoteHandle;
use kube::{Api, Client, runtime::wait::await_condition};

use crate::{
    controllers::{self, ElectionArgs, LivenessArgs},
    doctor,
    errors::{Failure, Result, exit},
    kubeconfig::{Beacon, default_data_dir},
    output::{self, Tone},
    ports::Claim,
    role::{self, Log, Machine, Part, Seat},
    server::{ServerArgs, Store},
};

/// An agent that is not ready by then has a problem that its log tells.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn up                                                 stays in front; Ctrl-C stops everything
  cmn up --data-dir /tmp/a --listen 127.0.0.1:0          another one beside it
  cmn up --store etcd://127.0.0.1:2379                   objects in etcd")]
pub(crate) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    liveness: LivenessArgs,
    #[command(flatten)]
    election: ElectionArgs,
    #[command(flatten)]
    log: Log,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let began = Instant::now();
    // Before this process has its second thread: see the shim crate.
    let zygote = start_zygote()?;
    args.log.start();
    let data_dir = args.server.data_dir.clone().unwrap_or_else(default_data_dir);
    doctor::insist(&doctor::Needs {
        data_dir: &data_dir,
        listen: args.server.listen,
        store: &args.server.store(),
    })?;
    let data_dir = role::make_data_dir(&data_dir)?;
    let beacon = Beacon::light(&data_dir)?;
    let claim = match args.machine.has_ports() {
        true => None,
        false => Some(Claim::make(&data_dir)?),
    };
    let ports = claim.as_ref().map(Claim::ports);
    let result = role::block_on(async {
        let mut cluster = Cluster::start(args, &data_dir, zygote, ports).await?;
        cluster.introduce(&data_dir, began).await;
        let Cluster { server, controllers, agent, .. } = &mut cluster;
        let died = tokio::select! {
            asked = role::asked_to_stop() => asked.err(),
            failure = controllers.dies() => Some(failure),
            failure = agent.dies() => Some(failure),
            // Nothing could be written down of tasks that are ended now: they are left as they are.
            error = server.store_failed() => return Err(role::store_failed(&error)),
        };
        cluster.stop(died).await
    });
    drop((beacon, claim));
    result
}

pub(crate) fn start_zygote() -> Result<ZygoteHandle> {
    commonage_shim::zygote::start().map_err(|error| {
        Failure::new(format!("cannot start the process that starts containers: {error}"))
    })
}

/// The running parts.
struct Cluster {
    server: ApiServer,
    controllers: Part,
    agent: Part,
    agent_name: String,
    /// Where the agent served before this start, if there was one: what it says of itself then is old.
    before: Option<String>,
}

impl Cluster {
    async fn start(
        args: Args,
        data_dir: &Path,
        zygote: ZygoteHandle,
        ports: Option<Ranges>,
    ) -> Result<Self> {
        let Args { server, machine, liveness, election, log: _ } = args;
        // The agent and the API server beside them go on, whoever leads.
        let election = election.election(true)?;
        let patience = liveness.patience()?;
        let store = server.store();
        let mut config = server.config(data_dir, true);
        config.more_metrics = Some(commonage_controllers::metrics::text);
        let server = ApiServer::start(config).await.map_err(|error| {
            Failure::new(format!("the API server did not start: {error:#}")).hint("cmn doctor")
        })?;
        let kept = match &store {
            Store::Embedded => format!("objects in {}", data_dir.join("store").display()),
            Store::Etcd(members) => format!("objects in etcd at {}", members.join(", ")),
        };
        output::step(&format!("API server at {}, {kept}", server.server_url()));

        let client = role::lean(server.client_for(UserInfo::controllers()));
        let settings = Settings { ca_pem: Some(server.ca_pem().to_owned()), patience };
        let controllers =
            Part::start("controllers", |stop| controllers::start(client, settings, election, stop));
        output::step("controllers");

        let agent_name = machine.name.clone().unwrap_or_else(role::host_name);
        let issued = server.issue_agent_identity(&agent_name).map_err(|error| {
            Failure::new(format!("no certificate for agent {agent_name}: {error}"))
        })?;
        let seat = Seat {
            name: agent_name.clone(),
            client: role::lean(server.client_for(UserInfo::agent(&agent_name))),
            server: server.server_url().to_owned(),
            identity: Identity {
                certificate_pem: issued.certificate_pem,
                key_pem: issued.key_pem,
                ca_pem: server.ca_pem().to_owned(),
            },
            data_dir: data_dir.to_owned(),
            listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
            zygote,
            // Who stops the machine's whole cluster has nobody left who could look after tasks.
            kill_tasks_on_shutdown: true,
        };
        let mut config = machine.config(seat)?;
        if let Some(ports) = ports {
            config.overrides.ports = Some(ports);
        }
        let agents = Api::<Agent>::all(server.client_for(UserInfo::admin()));
        let before = agents
            .get_opt(&agent_name)
            .await
            .ok()
            .flatten()
            .and_then(|agent| agent.status?.endpoint);
        let agent = Part::start("agent", |stop| commonage_agent::run(config, stop));
        Ok(Self { server, controllers, agent, agent_name, before })
    }

    /// Says what there is now and what to type next, as soon as a task could run.
    async fn introduce(&mut self, data_dir: &Path, began: Instant) {
        let client = self.server.client_for(UserInfo::admin());
        let ready = tokio::time::timeout(
            READY_TIMEOUT,
            ready(client, &self.agent_name, self.before.clone()),
        );
        let agent = tokio::select! {
            ready = ready => ready,
            // Whoever waits for the end hears of it.
            _ = until_dead(&self.agent) => return,
        };
        match agent {
            Ok(Some(resources)) => {
                output::step(&format!("agent {} with {resources}", self.agent_name))
            }
            _ => output::message(
                Tone::Busy,
                " !",
                &format!(
                    "agent {} is not ready yet: cmn describe agent {}",
                    self.agent_name, self.agent_name
                ),
            ),
        }
        let kubeconfig = data_dir.join("kubeconfig");
        output::note(&format!(
            "\nReady after {:.1} s. Ctrl-C stops the cluster and its tasks. Next, in another terminal:\n",
            began.elapsed().as_secs_f64()
        ));
        for command in [
            format!("export KUBECONFIG={}", kubeconfig.display()),
            "cmn run --name hello --cpu 0.1 --memory 32Mi -- sh -c 'echo hello; sleep 5'"
                .to_owned(),
            "kubectl get tasks -w".to_owned(),
        ] {
            output::message(Tone::Hint, "  $", &command);
        }
        output::note("");
    }

    /// Takes everything down, after a failure as well as without one; a second Ctrl-C does
    /// not wait.
    async fn stop(self, died: Option<Failure>) -> Result<()> {
        let Self { server, controllers, agent, agent_name: _, before: _ } = self;
        output::note("stopping: tasks first, then the control plane (again to stop at once)");
        let parts = async {
            let mut first = died;
            for part in [agent, controllers] {
                // One that has died has said so.
                if !part.is_dead()
                    && let Err(failure) = part.stop().await
                {
                    first.get_or_insert(failure);
                }
            }
            server.shutdown().await;
            first.map_or(Ok(()), Err)
        };
        let result = tokio::select! {
            result = parts => result,
            // Only a person hurries us. A SIGTERM beside a Ctrl-C is some script's way to be sure.
            Ok(()) = tokio::signal::ctrl_c() => Err(Failure::new("stopped at once: tasks may still be running")
                .hint("`cmn up` with the same data directory finds them again")
                .exit(exit::INTERRUPTED)),
        };
        if result.is_ok() {
            output::step("stopped");
        }
        result
    }
}

async fn until_dead(part: &Part) {
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    while !part.is_dead() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What the agent has to give, as soon as it is ready and serves elsewhere than before.
async fn ready(client: Client, name: &str, before: Option<String>) -> Option<String> {
    let is_ready = |agent: Option<&Agent>| {
        let status = agent.and_then(|agent| agent.status.as_ref());
        let is_new = |status: &&AgentStatus| before.is_none() || status.endpoint != before;
        status.filter(is_new).is_some_and(|status| {
            status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
        })
    };
    let agent = await_condition(Api::<Agent>::all(client), name, is_ready).await.ok()??;
    Some(for_people(&agent.status?.allocatable?))
}

/// Exact byte counts are for programs.
fn for_people(resources: &Resources) -> String {
    let gib = |bytes: i64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    let words = resources.iter().map(|(name, amount)| match name {
        "cpu" => format!("{:.1} cpu", resources.cpu_millis() as f64 / 1e3),
        "memory" => format!("{} of memory", gib(resources.memory_bytes())),
        "disk" => format!("{} of disk", gib(resources.disk_bytes())),
        _ => format!("{name} {}", amount.to_text(name)),
    });
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn amounts_are_rounded_for_people() {
        let amounts = [("cpu", "1930m"), ("memory", "23683132Ki"), ("ports", "31000-32000")];
        let text = for_people(&Resources::from_pairs(amounts).unwrap());
        assert_eq!(text, "1.9 cpu, 22.6 GiB of memory, ports 31000-32000");
    }
}
