//! `cmn exec`: a command in a running task, on this terminal.

use std::process::ExitCode;

use clap::Args as ClapArgs;

use crate::{
    detach::DetachKeys,
    errors::{Failure, Result, exit},
    follow,
    kinds::encode,
    kubeconfig::Cluster,
    output,
    session::{self, Door, End, Inputs, Stream},
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
    let session = start(cluster, task, Way::exec(command.collect()), args.with, &tried);
    match follow::unless_interrupted(session).await {
        Ok(Session { ended: Ok(End::Exit(code)), .. }) => Ok(ExitCode::from(code)),
        Ok(Session { ended: Ok(End::Detached), .. }) => unreachable!("it has no keys for it"),
        Ok(Session { ended: Err(failure), .. }) => Err(failure),
        Err(follow::Interrupted) => Err(Failure::quiet(exit::INTERRUPTED)),
    }
}

/// Which session it is.
pub(crate) struct Way {
    subresource: &'static str,
    query: Vec<String>,
    /// The keys that leave it.
    leave: Option<DetachKeys>,
}

impl Way {
    fn exec(query: Vec<String>) -> Way {
        Way { subresource: "exec", query, leave: None }
    }

    pub(crate) fn attach(query: Vec<String>, leave: Option<DetachKeys>) -> Way {
        Way { subresource: "attach", query, leave }
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
    way: Way,
    with: With,
    tried: &str,
) -> Session {
    let Way { subresource, mut query, leave } = way;
    let tty = with.tty && terminal::is_there();
    if with.tty && !tty {
        output::note("without a terminal: standard input is none");
    }
    query.push("stdout=true".into());
    // A terminal has one output.
    let asked = [("stderr", !tty), ("stdin", with.stdin), ("tty", tty)];
    query.extend(asked.iter().filter(|(_, on)| *on).map(|(name, _)| format!("{name}=true")));
    let query = query.join("&");
    let door = Door { cluster, task, subresource, query: &query, tried };
    let socket = match session::open(door, session::V5).await {
        Ok(socket) => socket,
        Err(error) => return Session { ended: Err(error), began: false },
    };
    // Without an input of ours nobody but this process would heed a Ctrl-C.
    let _raw = (tty && with.stdin).then(terminal::Raw::enter);
    let inputs = Inputs {
        stdin: with.stdin.then(|| session::pieces(std::io::stdin())),
        sizes: tty.then(terminal::sizes),
        leave: leave.filter(|_| tty && with.stdin),
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
