//! `cmn version`: this program's version, and the server's if one answers.

use std::process::ExitCode;

use clap::Args as ClapArgs;

use crate::{
    args::Global,
    errors::{Failure, Result},
    kubeconfig::Cluster,
    output,
};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Only this program's version
    #[arg(long)]
    client: bool,
}

pub(crate) async fn run(args: Args, global: &Global) -> Result<ExitCode> {
    output::line(&format!("client: {}", env!("CARGO_PKG_VERSION")))?;
    if args.client {
        return Ok(ExitCode::SUCCESS);
    }
    let cluster = Cluster::connect(global).await?;
    let version = cluster.client.apiserver_version().await;
    let version =
        version.map_err(|error| Failure::api(format!("cannot ask {}", cluster.url), &error))?;
    output::line(&format!("server: {} at {}", version.git_version, cluster.url))?;
    output::note(&format!("        (by {})", cluster.source.display()));
    Ok(ExitCode::SUCCESS)
}
