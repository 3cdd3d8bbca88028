//! `cmn apiserver`: the API server alone.
//!
//! Beside the administrator's kubeconfig it writes those of the other roles, so that
//! `cmn controllers` and `cmn agent` can be started with nothing else.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{ArgAction, Args as ClapArgs};
use commonage_apiserver::{ApiServer, Config};

use crate::{
    errors::{Failure, Result},
    kubeconfig::{Beacon, default_data_dir},
    output::{self, Tone},
    role::{self, Log},
    up::{LISTEN_DEFAULT, Store},
};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn apiserver --data-dir DIR --agent node-1
  cmn controllers --kubeconfig DIR/controllers.kubeconfig
  cmn agent --kubeconfig DIR/agents/node-1.kubeconfig --data-dir DIR2")]
pub(crate) struct Args {
    /// Where certificates and the embedded store are kept
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen; port 0 picks a free one
    #[arg(long, value_name = "IP:PORT", default_value = LISTEN_DEFAULT)]
    listen: SocketAddr,
    /// `embedded`, or `etcd://HOST:PORT`
    #[arg(long, value_name = "STORE", default_value = "embedded")]
    store: Store,
    /// Bearer tokens, in the format of kube-apiserver: token,user,uid,"group1,group2"
    #[arg(long, value_name = "CSV")]
    token_auth_file: Option<PathBuf>,
    /// A name or address that clients reach this server by, beyond those of this machine
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Write DIR/agents/NAME.kubeconfig for an agent of this name
    #[arg(long = "agent", value_name = "NAME")]
    agents: Vec<String>,
    /// Show tasks as pods and agents as nodes too, so that `kubectl logs`, `exec`, `attach`, `cp` and
    /// `port-forward` work
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1,
        default_value_t = false, default_missing_value = "true")]
    serve_pods: bool,
    #[command(flatten)]
    log: Log,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Args { data_dir, listen, store, token_auth_file, names, agents, serve_pods, log } = args;
    log.start();
    let data_dir = role::make_data_dir(&data_dir.unwrap_or_else(default_data_dir))?;
    let _beacon = Beacon::light(&data_dir)?;
    let store = role::store_kind(&store);
    let config = Config { extra_names: names, serve_pods, ..Config::new(&data_dir, listen, store) }
        .with_tokens(token_auth_file);
    role::block_on(async {
        let server = ApiServer::start(config)
            .await
            .map_err(|error| Failure::new(format!("the API server did not start: {error:#}")))?;
        let unwritten = |error| Failure::new(format!("cannot write a kubeconfig: {error}"));
        server
            .write_controllers_kubeconfig(&data_dir.join("controllers.kubeconfig"))
            .map_err(unwritten)?;
        let of_agents = data_dir.join("agents");
        role::make_data_dir(&of_agents)?;
        for agent in agents {
            let path = of_agents.join(format!("{agent}.kubeconfig"));
            server.write_agent_kubeconfig(&agent, &path).map_err(unwritten)?;
            output::step(&format!("kubeconfig of agent {agent}: {}", path.display()));
        }
        output::step(&format!("API server at {}", server.server_url()));
        let kubeconfig = server.admin_kubeconfig_path().display();
        output::message(
            Tone::Hint,
            "next:",
            &format!("export KUBECONFIG={kubeconfig}; kubectl get agents"),
        );
        role::asked_to_stop().await?;
        server.shutdown().await;
        Ok(())
    })
}
