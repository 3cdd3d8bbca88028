//! `cmn agent`: the agent of this machine alone, as a client of an API server.
//!
//! Its kubeconfig holds its identity: the same certificate with which it calls the API server is
//! the one with which it serves it. A stopped agent leaves its tasks running; the next one on the
//! same data directory finds them.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Args as ClapArgs;
use commonage_agent::Identity;
use serde_json::Value;

use crate::{
    args::Global,
    errors::{Failure, Result, exit},
    kubeconfig::{Beacon, Cluster, default_data_dir},
    output,
    role::{self, Log, Machine, Part, Seat},
    up::start_zygote,
};

const USER_PREFIX: &str = "system:agent:";

#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  cmn agent --kubeconfig DIR/agents/node-1.kubeconfig    written by `cmn apiserver --agent node-1`")]
pub(crate) struct Args {
    /// Where the ledger, sandboxes and logs of tasks are kept
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the agent listens for the API server, which fetches logs there
    #[arg(long, value_name = "IP:PORT", default_value_t = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0))]
    listen: SocketAddr,
    /// On a stop, kill the tasks too
    #[arg(long)]
    kill_tasks: bool,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    log: Log,
}

pub(crate) fn run(args: Args, global: &Global) -> Result<ExitCode> {
    let Args { data_dir, listen, kill_tasks, machine, log } = args;
    // Before this process has its second thread: see the shim crate.
    let zygote = start_zygote()?;
    log.start();
    let data_dir = role::make_data_dir(&data_dir.unwrap_or_else(default_data_dir))?;
    let _beacon = Beacon::lock_only(&data_dir)?;
    role::block_on(async {
        let cluster = Cluster::connect(global).await?;
        let (user, identity) = identity(&cluster.source)?;
        let named = machine.name.clone().or(user.strip_prefix(USER_PREFIX).map(str::to_owned));
        let name = named.unwrap_or_else(role::host_name);
        let seat = Seat {
            name: name.clone(),
            client: role::lean(cluster.client.clone()),
            server: cluster.url.clone(),
            identity,
            data_dir,
            listen,
            zygote,
            kill_tasks_on_shutdown: kill_tasks,
        };
        let config = machine.config(seat)?;
        let mut agent = Part::start("agent", |stop| commonage_agent::run(config, stop));
        output::step(&format!("agent {name} of {}", cluster.url));
        tokio::select! {
            asked = role::asked_to_stop() => asked?,
            failure = agent.dies() => return Err(failure),
        }
        agent.stop().await
    })
}

/// The first user of the kubeconfig and its certificate, and the cluster's authority.
fn identity(kubeconfig: &Path) -> Result<(String, Identity)> {
    let lacking = |what: &str| {
        Failure::new(format!("the kubeconfig {} has no {what}", kubeconfig.display()))
            .hint("`cmn apiserver --agent NAME` writes one for an agent")
            .exit(exit::UNREACHABLE)
    };
    let text = fs::read_to_string(kubeconfig).map_err(|error| lacking(&error.to_string()))?;
    let config: Value = serde_saphyr::from_str(&text).map_err(|_| lacking("valid YAML"))?;
    let pem = |data: &Value, what: &str| {
        let decoded = data.as_str().and_then(|data| BASE64_STANDARD.decode(data).ok());
        decoded.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| lacking(what))
    };
    let user = &config["users"][0];
    let identity = Identity {
        certificate_pem: pem(&user["user"]["client-certificate-data"], "client-certificate-data")?,
        key_pem: pem(&user["user"]["client-key-data"], "client-key-data")?,
        ca_pem: pem(
            &config["clusters"][0]["cluster"]["certificate-authority-data"],
            "certificate-authority-data",
        )?,
    };
    Ok((user["name"].as_str().unwrap_or_default().to_owned(), identity))
}
