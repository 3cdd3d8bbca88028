//! `cmn exec`: a command in a running task, on this terminal.

use std::process::ExitCode;

use clap::Args as ClapArgs;

use crate::{
    errors::{Failure, Result, exit},
    follow,
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

/// What of this terminal the command gets.
#[derive(Clone, Copy, Debug, ClapArgs)]
pub(crate) struct With {
    /// Pass our standard input on
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// Give it a terminal: ours
    #[arg(short, long)]
    pub(crate) tty: bool,
}

pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<ExitCode> {
    let task = session::task_name(&args.task)?;
    let tried = format!("cannot run {} in task \"{task}\"", args.command[0]);
    let command = args.command.iter().map(|word| format!("command={}", encode(word)));
    let session = start(cluster, task, "exec", command.collect(), args.with, &tried);
    match follow::unless_interrupted(session).await {
        Ok(session) => session.ended.map(ExitCode::from),
        Err(follow::Interrupted) => Err(Failure::quiet(exit::INTERRUPTED)),
    }
}

/// What became of a session.
pub(crate) struct Session {
    pub(crate) ended: session::Ended,
    /// Whether it was opened: then its input was read, and something of that may have come to the task.
    pub(crate) began: bool,
}

/// A session of `exec` or `attach` from its beginning to its end, with its output on ours.
pub(crate) async fn start(
    cluster: &Cluster,
    task: &str,
    subresource: &str,
    mut query: Vec<String>,
    with: With,
    tried: &str,
) -> Session {
    let tty = with.tty && terminal::is_there();
    if with.tty && !tty {
        output::note("without a terminal: standard input is none");
    }
    query.push("stdout=true".into());
    // A terminal has one output.
    let asked = [("stderr", !tty), ("stdin", with.stdin), ("tty", tty)];
    query.extend(asked.iter().filter(|(_, on)| *on).map(|(name, _)| format!("{name}=true")));
    let path = session::path(cluster, task, subresource, &query.join("&"));
    let socket = match session::open(cluster, &path, session::V5, tried).await {
        Ok(socket) => socket,
        Err(error) => return Session { ended: Err(error), began: false },
    };
    let _raw = tty.then(terminal::Raw::enter);
    let inputs = Inputs {
        stdin: with.stdin.then(|| session::pieces(std::io::stdin())),
        sizes: tty.then(terminal::sizes),
    };
    let ended = session::run_on(socket, tried, inputs, |stream, data| match stream {
        Stream::Stdout => output::data(data),
        Stream::Stderr => {
            output::passed_on(data);
            Ok(())
        }
    });
    Session { ended: ended.await, began: true }
}
