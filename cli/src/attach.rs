//! `cmn attach`: what a running task writes from now on, and with `-i` what it reads. Also how `cmn run -i` gets to the
//! task that it has created.

use std::process::ExitCode;

use clap::Args as ClapArgs;
use commonage_schemas::{Task, task::TaskStatus};
use futures::StreamExt;
use kube::{Api, ResourceExt};

use crate::{
    errors::{Failure, Result, exit},
    exec::{self, With},
    follow,
    kubeconfig::Cluster,
    logs, output,
    run::exit_code,
    session, terminal,
};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn attach web                  what the task `web` writes from now on
  cmn attach -it shell            this terminal is the task's
  cmn logs -f web                 what it has written before, too

`-i` needs a task with a standard input (`cmn run -i`, spec.container.stdin), `-t` one with a terminal
(`cmn run -it`, spec.container.tty). The task goes on when we are gone, unless it was to have its input from
the first one only (spec.container.stdinOnce). If the task ends first, we end with its exit code.")]
pub(crate) struct Args {
    #[command(flatten)]
    with: With,
    /// A task: `NAME` or `task/NAME`
    #[arg(value_name = "TASK")]
    task: String,
}

pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<ExitCode> {
    let name = session::task_name(&args.task)?;
    let tried = format!("cannot attach to task \"{name}\"");
    let api: Api<Task> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let attached = async {
        let task = api.get(name).await.map_err(|error| Failure::api(&tried, &error))?;
        let task = started(api.clone(), task, &tried).await?;
        let with = fitting(args.with, &task);
        if with.tty && terminal::is_there() {
            output::note("if you don't see a command prompt, try pressing enter");
        }
        let session = exec::start(cluster, name, "attach", Vec::new(), with, &tried).await;
        session.ended.map_err(|error| match session.began {
            true => broke_off(error, name, with, task.spec.container.stdin_once),
            false => error,
        })?;
        // Nothing but the task's end ends a session without a word.
        until_ended(api, name, &task.uid().unwrap_or_default()).await
    };
    match follow::unless_interrupted(attached).await {
        Ok(ended) => Ok(ExitCode::from(exit_code(&ended?))),
        Err(follow::Interrupted) => Err(Failure::quiet(exit::INTERRUPTED)),
    }
}

/// The task once it has started.
async fn started(api: Api<Task>, task: Task, tried: &str) -> Result<Task> {
    if logs::has_log(&task) {
        return Ok(task);
    }
    let (name, state) = (task.name_any(), task.state());
    let never = |name: &str| {
        Failure::new(format!("{tried}: it never started")).hint(format!("cmn describe task {name}"))
    };
    if state.is_terminal() {
        return Err(never(&name));
    }
    output::note(&format!("task {name} is {state}; waiting for it to start"));
    let mut states = follow::task(api, &name);
    loop {
        match states.next().await.transpose()?.flatten() {
            None => {
                return Err(Failure::new(format!("{tried}: it was deleted before it started")));
            }
            Some(task) if logs::has_log(&task) => return Ok(task),
            Some(task) if task.state().is_terminal() => return Err(never(&name)),
            Some(_) => {}
        }
    }
}

/// A session that had begun is over, and the task is not.
fn broke_off(error: Failure, name: &str, with: With, once: bool) -> Failure {
    match with.stdin && once {
        true => error.hint(format!(
            "cmn logs -f {name}   # its input ended with us; `cmn run --leave-stdin-open` has it wait for others"
        )),
        false => error
            .hint(format!("cmn attach{} {name}   # attaches again, if the task still runs", flags(with))),
    }
}

fn flags(with: With) -> &'static str {
    match (with.stdin, with.tty) {
        (true, true) => " -it",
        (true, false) => " -i",
        _ => "",
    }
}

/// What of ours such a task can have, by kubectl's rules.
fn fitting(with: With, task: &Task) -> With {
    let has_terminal = task.spec.container.tty;
    if with.tty && !has_terminal {
        output::note("the task has no terminal (spec.container.tty): attached to it without one");
    }
    With { tty: with.stdin && has_terminal, ..with }
}

async fn until_ended(api: Api<Task>, name: &str, uid: &str) -> Result<TaskStatus> {
    let mut states = follow::task(api, name);
    loop {
        let state = states.next().await.transpose()?.flatten();
        match state.filter(|task| task.uid().as_deref() == Some(uid)) {
            Some(task) if task.state().is_terminal() => return Ok(task.status.unwrap_or_default()),
            Some(_) => {}
            None => {
                let words = format!("task \"{name}\" was deleted; how it ended is not known");
                return Err(Failure::new(words).exit(exit::REFUSED));
            }
        }
    }
}

/// Passes on what a task reads and writes, from its beginning to its end.
pub(crate) async fn to_new(
    cluster: &Cluster,
    name: &str,
    uid: &str,
    with: With,
    once: bool,
) -> Result<()> {
    let tried = format!("cannot attach to task \"{name}\"");
    let query = vec!["logs=true".to_owned()];
    let session = exec::start(cluster, name, "attach", query, with, &tried).await;
    let Err(error) = session.ended else { return Ok(()) };
    if session.began {
        // The task may have read only some of our input and taken that for all: how it ends means nothing.
        return Err(broke_off(error, name, with, once));
    }
    // A task can be too short to be attached to; what it printed is there.
    let api: Api<Task> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    match tokio::time::timeout(END_SOON, until_ended(api, name, uid)).await {
        Ok(Ok(_)) => logs::both_streams(&cluster.client, &cluster.namespace, name).await,
        _ => Err(error),
    }
}

/// For an end that the agent knows of already.
const END_SOON: std::time::Duration = std::time::Duration::from_secs(5);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use commonage_schemas::{TaskSpec, task::Container};

    #[test]
    fn a_terminal_goes_with_an_input_and_where_the_task_has_one() {
        let task = |tty| {
            let container = Container { stdin: true, tty, ..Container::default() };
            Task::new("a", TaskSpec { container, ..TaskSpec::default() })
        };
        let tty = |stdin, tty, of: &Task| fitting(With { stdin, tty }, of).tty;
        assert!(tty(true, true, &task(true)));
        assert!(tty(true, false, &task(true)), "it has one output, whatever is asked for");
        assert!(!tty(true, true, &task(false)) && !tty(false, true, &task(true)));
    }
}
