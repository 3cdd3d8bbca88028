//! The command line as a whole: what there is, and what is common to all of it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Commonage: many schedulers share one set of machines, fairly and safely.
#[derive(Debug, Parser)]
#[command(
    name = "cmn",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "A cluster of your own, then a task on it:
  cmn up
  cmn run --name hello --cpu 0.1 --memory 32Mi -- sh -c 'echo hello; sleep 5'

Which cluster: --kubeconfig, else $KUBECONFIG, else the `cmn up` that runs here, else ~/.kube/config.
Exit codes: 1 refused or failed, 2 wrong command line, 3 no API server, 4 the machine lacks something,
124 timed out, 130 interrupted; `cmn run` ends with the task's own code, or 125 if it never ran."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Which cluster, and where in it.
#[derive(Debug, Default, Args)]
pub(crate) struct Global {
    /// The kubeconfig of the cluster to talk to
    #[arg(long, global = true, value_name = "FILE", help_heading = "Cluster")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig
    #[arg(long, global = true, value_name = "NAME", help_heading = "Cluster")]
    pub(crate) context: Option<String>,
    /// The namespace; the kubeconfig's, or `default`, if not given
    #[arg(short, long, global = true, value_name = "NAME", help_heading = "Cluster")]
    pub(crate) namespace: Option<String>,
    /// Ask nothing: what would need an answer fails
    #[arg(long, global = true, help_heading = "Cluster")]
    pub(crate) no_input: bool,
}

// One of them is made, once in a process.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start a whole cluster on this machine, in this process
    Up(crate::up::Args),
    /// Run a task, show what becomes of it, end as it ends
    Run(crate::run::Args),
    /// List objects
    Get(crate::get::Args),
    /// Show one object, what happened to it, and why
    Describe(crate::describe::Args),
    /// Print what a task, or all tasks of a framework, wrote
    Logs(crate::logs::Args),
    /// Show what tasks, frameworks and agents use right now
    #[command(visible_alias = "stats")]
    Top(crate::top::Args),
    /// Run a command in a running task
    Exec(crate::exec::Args),
    /// Print what a running task writes from now on, and type into it
    Attach(crate::attach::Args),
    /// Copy files into or out of a running task
    Cp(crate::cp::Args),
    /// Look into the directory of a task, also of one that has ended
    Sandbox(crate::sandbox::Args),
    /// Make ports of a running task ports of this machine
    PortForward(crate::port_forward::Args),
    /// Create or change objects to be as files say
    Apply(crate::apply::Args),
    /// Delete objects
    Delete(crate::delete::Args),
    /// Wait until objects are in some state
    Wait(crate::wait::Args),
    /// Run this machine's agent
    Agent(crate::agent::Args),
    /// Run the API server
    Apiserver(crate::apiserver::Args),
    /// Run the controllers
    Controllers(crate::controllers::Args),
    /// Ask what the allocator would decide
    Allocator(crate::allocator::Args),
    /// Load the cluster with simulated agents, frameworks and tasks, and measure
    Simulate(crate::simulate::Args),
    /// Write everything that a cluster's store has into a file
    Backup(crate::backup::Args),
    /// Fill an empty store from a backup
    Restore(crate::restore::Args),
    /// Say what this machine lacks, and how to fix it
    Doctor(crate::doctor::Args),
    /// Print the versions of this program and of the server
    Version(crate::version::Args),
    /// Print what a shell needs to finish words of cmn's command line
    Completion(crate::completion::Args),
    #[command(name = "__complete", hide = true)]
    Complete(crate::completion::Words),
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
