//! `cmn controllers`: the controllers alone, as a client of an API server.

use std::process::ExitCode;

use clap::Args as ClapArgs;

use crate::{
    args::Global,
    errors::Result,
    kubeconfig::Cluster,
    output,
    role::{self, Log, Part},
};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  cmn controllers --kubeconfig DIR/controllers.kubeconfig    DIR: the API server's data directory")]
pub(crate) struct Args {
    #[command(flatten)]
    log: Log,
}

pub(crate) fn run(args: Args, global: &Global) -> Result<ExitCode> {
    args.log.start();
    role::block_on(async {
        let cluster = Cluster::connect(global).await?;
        let (client, ca_pem) = (cluster.client.clone(), cluster.ca_pem.clone());
        let mut controllers =
            Part::start("controllers", |stop| commonage_controllers::run(client, ca_pem, stop));
        output::step(&format!("controllers of {}", cluster.url));
        tokio::select! {
            asked = role::asked_to_stop() => asked?,
            failure = controllers.dies() => return Err(failure),
        }
        controllers.stop().await
    })
}
