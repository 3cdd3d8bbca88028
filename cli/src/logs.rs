//! `cmn logs`: what a task wrote, or all tasks of a framework, merged.

mod source;

use std::{
    collections::{HashSet, VecDeque},
    process::ExitCode,
};

use clap::{Args as ClapArgs, ValueEnum};
use commonage_schemas::{Framework, Task, TaskState};
use futures::{StreamExt, TryStreamExt, stream::FuturesUnordered};
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::{WatchStreamExt, watcher},
};

use crate::{
    errors::{Failure, Result, a, count},
    follow,
    kubeconfig::Cluster,
    output,
};
use source::Source;

/// How many logs are followed at once; each is a connection here, at the server and at an agent.
const FOLLOWED_MAX: usize = 64;

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn logs -f hello               follow one task
  cmn logs --tail 20 hello        its last lines
  cmn logs --since 10m -t hello   what it wrote in the last ten minutes, with the times
  cmn logs -f framework/web       all tasks of a framework, each line with its task's name")]
pub(crate) struct Args {
    /// A task, `task/NAME`, or `framework/NAME` for all its tasks
    #[arg(value_name = "NAME")]
    what: String,
    /// Go on until the task ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many lines
    #[arg(long, value_name = "LINES")]
    tail: Option<u64>,
    /// Only what was written so recently, e.g. `90s`, `10m`, `2h`
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    since: Option<u64>,
    /// Before each line, when it was written
    #[arg(short, long)]
    timestamps: bool,
    /// Only one of the task's two streams
    #[arg(long, value_enum)]
    stream: Option<Stream>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<ExitCode> {
    let (kind, name) = args.what.split_once('/').unwrap_or(("task", &args.what));
    let work = async {
        match kind {
            "task" | "tasks" | "tk" | "pod" | "pods" | "po" => one(&args, cluster, name).await,
            "framework" | "frameworks" | "fw" => all_of(&args, cluster, name).await,
            _ => Err(Failure::new(format!("{} has no log", a(kind)))
                .hint("logs are of `task/NAME` or `framework/NAME`")),
        }
    };
    match follow::unless_interrupted(work).await {
        Ok(result) => result.map(|()| ExitCode::SUCCESS),
        Err(follow::Interrupted) => {
            Err(follow::resume_with(&[&format!("cmn logs -f {}", args.what)]))
        }
    }
}

async fn one(args: &Args, cluster: &Cluster, name: &str) -> Result<()> {
    let api: Api<Task> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let tried = format!("no log of task \"{name}\"");
    let task = api.get(name).await.map_err(|error| Failure::api(&tried, &error))?;
    if !has_log(&task) {
        let state = task.state();
        if !args.follow || state.is_terminal() {
            return Err(Failure::new(format!("{tried}: it is {state} and has not started"))
                .hint(format!("cmn describe task {name}")));
        }
        output::note(&format!("task {name} is {state}; waiting for it to start"));
        let mut states = follow::task(api, name);
        loop {
            match states.next().await.transpose()?.flatten() {
                None => {
                    return Err(Failure::new(format!("{tried}: it was deleted before it started")));
                }
                Some(task) if has_log(&task) => break,
                Some(task) if task.state().is_terminal() => {
                    return Err(Failure::new(format!("{tried}: it never started"))
                        .hint(format!("cmn describe task {name}")));
                }
                Some(_) => {}
            }
        }
    }
    args.source(cluster, name).copy(output::data).await
}

impl Args {
    fn source<'a>(&self, cluster: &'a Cluster, name: &'a str) -> Source<'a> {
        Source {
            client: &cluster.client,
            namespace: &cluster.namespace,
            name,
            follow: self.follow,
            timestamps: self.timestamps,
            since_seconds: self.since,
            tail: self.tail,
            stream: self.stream,
        }
    }
}

/// `90s`, `10m`, `2h`, `1d`, or a number of seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("a duration is a number and s, m, h or d, such as 10m".to_owned()),
    };
    let number = digits.parse::<u64>().ok().filter(|number| *number > 0);
    number
        .and_then(|number| number.checked_mul(scale))
        .ok_or_else(|| "a duration is a number and s, m, h or d, such as 10m".to_owned())
}

pub(crate) fn has_log(task: &Task) -> bool {
    let started = task.status.as_ref().is_some_and(|status| status.started_at.is_some());
    started || matches!(task.state(), TaskState::Running | TaskState::Killing)
}

/// A task's stdout to ours and its stderr to ours, to their ends.
pub(crate) async fn both_streams(client: &Client, namespace: &str, name: &str) -> Result<()> {
    let source = |stream| Source {
        client,
        namespace,
        name,
        follow: true,
        timestamps: false,
        since_seconds: None,
        tail: None,
        stream: Some(stream),
    };
    let (out, err) = (source(Stream::Stdout), source(Stream::Stderr));
    let passed_on = |bytes: &[u8]| {
        output::passed_on(bytes);
        Ok(())
    };
    futures::try_join!(out.copy(output::data), err.copy(passed_on))?;
    Ok(())
}

/// All tasks of a framework; with `--follow`, also those that start later.
async fn all_of(args: &Args, cluster: &Cluster, framework: &str) -> Result<()> {
    let api: Api<Task> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let field = format!("spec.framework={framework}");
    let failed =
        |error| Failure::api(format!("cannot list the tasks of framework \"{framework}\""), &error);
    // Tasks may outlive their framework, and their logs with them.
    let frameworks: Api<Framework> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let known = frameworks.get_metadata_opt(framework).await.map_err(failed)?.is_some();
    let any = ListParams::default().fields(&field).limit(1);
    if !known && api.list_metadata(&any).await.map_err(failed)?.items.is_empty() {
        return Err(Failure::new(format!("there is no framework \"{framework}\" here"))
            .hint("cmn get frameworks -A"));
    }
    if !args.follow {
        let tasks = api.list(&ListParams::default().fields(&field)).await.map_err(failed)?;
        for (number, task) in tasks.items.iter().filter(|task| has_log(task)).enumerate() {
            prefixed(args, cluster, task.name_any(), number).await?;
        }
        return Ok(());
    }
    let started = watcher(api, watcher::Config::default().fields(&field)).applied_objects();
    let mut started = std::pin::pin!(follow::patiently(started));
    let mut seen = HashSet::new();
    let mut running = FuturesUnordered::new();
    let (mut waiting, mut begun) = (VecDeque::new(), 0);
    loop {
        while running.len() < FOLLOWED_MAX
            && let Some(name) = waiting.pop_front()
        {
            running.push(prefixed(args, cluster, name, begun));
            begun += 1;
        }
        tokio::select! {
            task = started.try_next() => {
                let Some(task) = task? else { return Ok(()) };
                if has_log(&task) && seen.insert(task.uid()) {
                    waiting.push_back(task.name_any());
                    if running.len() == FOLLOWED_MAX && waiting.len() == 1 {
                        let followed = count(FOLLOWED_MAX, "task");
                        output::note(&format!("following {followed}; others wait until one of them ends"));
                    }
                }
            }
            Some(result) = running.next() => result?,
        }
    }
}

/// One task's log with its name before every line. That one task's log can't be had (its agent is away, its Task
/// was deleted) is no reason to stop reading the others'.
async fn prefixed(args: &Args, cluster: &Cluster, name: String, number: usize) -> Result<()> {
    let prefix = output::tell_apart(output::Stream::Stdout, number, &format!("{name} | "));
    let mut pending = Vec::new();
    let mut writable = true;
    let copied = args
        .source(cluster, &name)
        .copy(|bytes| {
            pending.extend_from_slice(bytes);
            let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else {
                return Ok(());
            };
            let whole: Vec<u8> = pending.drain(..=end).collect();
            whole
                .split_inclusive(|byte| *byte == b'\n')
                .try_for_each(|line| output::data(&[prefix.as_bytes(), line].concat()))
                .inspect_err(|_| writable = false)
        })
        .await;
    match copied {
        Err(failure) if !writable => return Err(failure),
        Err(failure) => output::note(failure.what()),
        Ok(()) => {}
    }
    match pending.is_empty() {
        true => Ok(()),
        false => output::data(&[prefix.as_bytes(), &pending, b"\n"].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("10m"), Ok(600));
        assert_eq!(seconds("2h"), Ok(7200));
        for bad in ["", "0s", "-1s", "1w", "1.5h", "m", "99999999999999999999d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
