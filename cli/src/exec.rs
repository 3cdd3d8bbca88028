//! `cmn exec`: a command in a running task, on this terminal. `cmn attach`: what its own command
//! writes; tasks have no input.

use std::process::ExitCode;

use clap::Args as ClapArgs;

use crate::{
    errors::Result,
    kinds::encode,
    kubeconfig::Cluster,
    output,
    session::{self, Inputs, Stream},
    terminal,
};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn exec web -- ls -l           run a command in the task `web`
  cmn exec -it web -- sh          a shell in it, on this terminal
  cmn exec -i web -- tar xf - < files.tar")]
pub(crate) struct Args {
    #[command(flatten)]
    with: With,
    /// A task: `NAME` or `task/NAME`
    #[arg(value_name = "TASK")]
    task: String,
    /// The command, and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn attach web                  what the task `web` writes from now on
  cmn logs -f web                 what it has written before, too")]
pub(crate) struct AttachArgs {
    /// A task: `NAME` or `task/NAME`
    #[arg(value_name = "TASK")]
    task: String,
}

/// What of this terminal the command gets.
#[derive(Clone, Copy, Debug, ClapArgs)]
struct With {
    /// Pass our standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give it a terminal: ours
    #[arg(short, long)]
    tty: bool,
}

pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<ExitCode> {
    let task = session::task_name(&args.task)?;
    let tried = format!("cannot run {} in task \"{task}\"", args.command[0]);
    let command = args.command.iter().map(|word| format!("command={}", encode(word)));
    start(cluster, task, "exec", command.collect(), args.with, &tried).await
}

pub(crate) async fn attach(args: AttachArgs, cluster: &Cluster) -> Result<ExitCode> {
    let task = session::task_name(&args.task)?;
    let tried = format!("cannot attach to task \"{task}\"");
    let with = With { stdin: false, tty: false };
    start(cluster, task, "attach", Vec::new(), with, &tried).await
}

async fn start(
    cluster: &Cluster,
    task: &str,
    subresource: &str,
    mut query: Vec<String>,
    with: With,
    tried: &str,
) -> Result<ExitCode> {
    let tty = with.tty && terminal::is_there();
    if with.tty && !tty {
        output::note("without a terminal: standard input is none");
    }
    query.push("stdout=true".into());
    // A terminal has one output.
    let asked = [("stderr", !tty), ("stdin", with.stdin), ("tty", tty)];
    query.extend(asked.iter().filter(|(_, on)| *on).map(|(name, _)| format!("{name}=true")));
    let path = session::path(cluster, task, subresource, &query.join("&"));
    let inputs = Inputs {
        stdin: with.stdin.then(|| session::pieces(std::io::stdin())),
        sizes: tty.then(terminal::sizes),
    };
    let raw = tty.then(terminal::Raw::enter);
    let ended = session::run(cluster, &path, tried, inputs, |stream, data| match stream {
        Stream::Stdout => output::data(data),
        Stream::Stderr => {
            output::passed_on(data);
            Ok(())
        }
    });
    let ended = ended.await;
    drop(raw);
    ended.map(ExitCode::from)
}
