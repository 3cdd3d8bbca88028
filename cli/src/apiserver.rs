//! `cmn apiserver`: the API server alone.
//!
//! Beside the administrator's kubeconfig it writes those of the other roles, so that
//! `cmn controllers` and `cmn agent` can be started with nothing else.

use std::process::ExitCode;

use clap::Args as ClapArgs;
use commonage_apiserver::{ApiServer, Config};

use crate::{
    errors::{Failure, Result},
    kubeconfig::{Beacon, default_data_dir},
    output::{self, Tone},
    role::{self, Log},
    server::ServerArgs,
};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn apiserver --data-dir DIR --agent node-1
  cmn controllers --kubeconfig DIR/controllers.kubeconfig
  cmn agent --kubeconfig DIR/agents/node-1.kubeconfig --data-dir DIR2")]
pub(crate) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// A name or address that clients reach this server by, beyond those of this machine
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Write DIR/agents/NAME.kubeconfig for an agent of this name
    #[arg(long = "agent", value_name = "NAME")]
    agents: Vec<String>,
    #[command(flatten)]
    log: Log,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Args { server, names, agents, log } = args;
    log.start();
    let data_dir = server.data_dir.clone().unwrap_or_else(default_data_dir);
    let data_dir = role::make_data_dir(&data_dir)?;
    let _beacon = Beacon::light(&data_dir)?;
    let config = Config { extra_names: names, ..server.config(&data_dir, false) };
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
        tokio::select! {
            asked = role::asked_to_stop() => asked?,
            error = server.store_failed() => return Err(role::store_failed(&error)),
        }
        server.shutdown().await;
        Ok(())
    })
}
