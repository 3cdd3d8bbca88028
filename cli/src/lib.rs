//! The executable `cmn`: every role of a cluster, and the command line of its users.
//!
//! Roles (`up`, `apiserver`, `controllers`, `agent`) put library crates together and wait for the
//! end; verbs (`get`, `run`, …) are ordinary API clients with an ordinary kubeconfig, and know
//! nothing that another client could not know. One file per verb, with its arguments in it.

mod agent;
mod allocator;
mod apiserver;
mod apply;
mod args;
mod attach;
mod backup;
mod completion;
mod controllers;
mod cp;
mod delete;
mod describe;
mod detach;
mod doctor;
mod errors;
mod exec;
mod follow;
mod get;
mod kinds;
mod kubeconfig;
mod logs;
mod mistyped;
mod output;
mod port_forward;
mod ports;
mod restore;
mod role;
mod run;
mod sandbox;
mod server;
mod session;
mod simulate;
mod table;
mod terminal;
mod top;
mod up;
mod version;
mod wait;

use std::{future::Future, process::ExitCode};

use crate::{
    args::{Cli, Global, Verb},
    errors::{Failure, Result},
    kubeconfig::Cluster,
};

/// Runs the command line of this process and says how it ended.
///
/// To be called before the process has threads: as a shim or its parent, it forks.
pub fn main() -> ExitCode {
    commonage_shim::dispatch();
    let Cli { global, verb } = mistyped::parse();
    errors::report(dispatch(global, verb))
}

fn dispatch(global: Global, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Up(args) => up::run(args),
        Verb::Apiserver(args) => apiserver::run(args),
        Verb::Controllers(args) => controllers::run(args, &global),
        Verb::Agent(args) => agent::run(args, &global),
        Verb::Allocator(args) => allocator::run(&args, &global),
        Verb::Simulate(args) => simulate::run(args, &global),
        Verb::Backup(args) => block_on(backup::run(args)),
        Verb::Restore(args) => block_on(restore::run(args)),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Version(args) => block_on(version::run(args, &global)),
        Verb::Completion(args) => completion::run(&args),
        Verb::Complete(words) => completion::complete(&words),
        Verb::Run(args) => as_client(&global, async |cluster| run::run(args, cluster).await),
        Verb::Get(args) => as_client(&global, async |cluster| get::run(args, cluster).await),
        Verb::Describe(args) => {
            as_client(&global, async |cluster| describe::run(args, cluster).await)
        }
        Verb::Logs(args) => as_client(&global, async |cluster| logs::run(args, cluster).await),
        Verb::Top(args) => as_client(&global, async |cluster| top::run(args, cluster).await),
        Verb::Exec(args) => as_client(&global, async |cluster| exec::run(args, cluster).await),
        Verb::Attach(args) => as_client(&global, async |cluster| attach::run(args, cluster).await),
        Verb::Cp(args) => as_client(&global, async |cluster| cp::run(args, cluster).await),
        Verb::Sandbox(args) => {
            as_client(&global, async |cluster| sandbox::run(args, cluster).await)
        }
        Verb::PortForward(args) => {
            as_client(&global, async |cluster| port_forward::run(args, cluster).await)
        }
        Verb::Apply(args) => as_client(&global, async |cluster| apply::run(args, cluster).await),
        Verb::Delete(args) => as_client(&global, async |cluster| delete::run(args, cluster).await),
        Verb::Wait(args) => as_client(&global, async |cluster| wait::run(args, cluster).await),
    }
}

/// A verb needs one thread, a connection, and nothing else.
fn as_client(
    global: &Global,
    verb: impl AsyncFnOnce(&Cluster) -> Result<ExitCode>,
) -> Result<ExitCode> {
    block_on(async {
        let cluster = Cluster::connect(global).await?;
        verb(&cluster).await
    })
}

fn block_on(future: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    runtime.block_on(future)
}
