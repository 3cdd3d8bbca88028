//! `cmn attach`: what a running task writes from now on, and with `-i` what it reads. Also how `cmn run -i` gets to the
//! task that it has created.

use std::process::ExitCode;

use clap::Args as ClapArgs;
use commonage_schemas::{Task, task::TaskStatus};
use futures::StreamExt;
use kube::{Api, ResourceExt};

use crate::{
    detach::DetachKeys,
    errors::{Failure, Result, exit},
    exec::{self, Way, With},
    follow,
    kubeconfig::Cluster,
    logs, output,
    run::exit_code,
    session::{self, End},
    terminal,
};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn attach web                  what the task `web` writes from now on
  cmn attach -it shell            this terminal is the task's
  cmn logs -f web                 what it has written before, too

On a terminal, Ctrl-P Ctrl-Q leaves without ending what runs there (--detach-keys). `-i` needs a task with a standard input (`cmn run -i`, spec.container.stdin), `-t` one with a terminal
(`cmn run -it`, spec.container.tty). The task goes on when we are gone, unless it was to have its input from
the first one only (spec.container.stdinOnce). If the task ends first, we end with its exit code.")]
pub(crate) struct Args {
    #[command(flatten)]
    with: With,
    /// The keys that leave the task's terminal, e.g. `ctrl-a,d`
    #[arg(long, value_name = "KEYS", default_value = DetachKeys::USUAL)]
    detach_keys: DetachKeys,
    /// A task: `NAME` or `task/NAME`
    #[arg(value_name = "TASK")]
    task: String,
}

pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<ExitCode> {
    let Args { with, detach_keys, task } = args;
    let name = session::task_name(&task)?;
    let tried = format!("cannot attach to task \"{name}\"");
    let api: Api<Task> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let attached = async {
        let task = api.get(name).await.map_err(|error| Failure::api(&tried, &error))?;
        let task = started(api.clone(), task, &tried).await?;
        let with = fitting(with, &task);
        if with.tty && terminal::is_there() {
            output::note("if you don't see a command prompt, try pressing enter");
        }
        let way = Way::attach(Vec::new(), Some(detach_keys));
        let session = exec::start(cluster, name, way, with, &tried).await;
        let end = session.ended.map_err(|error| match session.began {
            true => broke_off(error, name, with, task.spec.container.stdin_once),
            false => error,
        })?;
        if end == End::Detached {
            say_detached(name);
            return Ok(0);
        }
        // Nothing but the task's end ends a session without a word.
        let ended = until_ended(api, name, &task.uid().unwrap_or_default()).await?;
        Ok(exit_code(&ended))
    };
    match follow::unless_interrupted(attached).await {
        Ok(code) => code.map(ExitCode::from),
        Err(follow::Interrupted) => {
            let again = format!(
                "cmn attach{} {name}   # the task goes on; this attaches again",
                flags(with)
            );
            Err(follow::resume_with(&[&again]))
        }
    }
}

/// After the keys that leave a terminal; the cursor is where the task has left it.
pub(crate) fn say_detached(name: &str) {
    output::note("");
    let again = format!("cmn attach -it {name}   # detached; this attaches again");
    output::message(output::Tone::Hint, "next:", &again);
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

/// How somebody is attached to a task that he has made.
#[derive(Clone)]
pub(crate) struct Attached {
    pub(crate) with: With,
    /// Its input ends with us.
    pub(crate) once: bool,
    /// The keys that leave it.
    pub(crate) leave: Option<DetachKeys>,
}

/// Passes on what a task reads and writes, from its beginning to its end, or until we leave it.
pub(crate) async fn to_new(
    cluster: &Cluster,
    name: &str,
    uid: &str,
    attached: Attached,
) -> Result<Left> {
    let Attached { with, once, leave } = attached;
    let tried = format!("cannot attach to task \"{name}\"");
    let way = Way::attach(vec!["logs=true".to_owned()], leave);
    let session = exec::start(cluster, name, way, with, &tried).await;
    let error = match session.ended {
        Ok(End::Exit(_)) => return Ok(Left::AtItsEnd),
        Ok(End::Detached) => return Ok(Left::Before),
        Err(error) => error,
    };
    if session.began {
        // The task may have read only some of our input and taken that for all: how it ends means nothing.
        return Err(broke_off(error, name, with, once));
    }
    // A task can be too short to be attached to; what it printed is there.
    let api: Api<Task> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    match tokio::time::timeout(END_SOON, until_ended(api, name, uid)).await {
        Ok(Ok(_)) => {
            logs::both_streams(&cluster.client, &cluster.namespace, name).await?;
            Ok(Left::AtItsEnd)
        }
        _ => Err(error),
    }
}

/// When somebody has turned away from a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    AtItsEnd,
    Before,
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
