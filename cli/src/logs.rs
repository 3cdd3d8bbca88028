//! `cmn logs`: what a task wrote, or all tasks of a framework, merged.

use std::{collections::HashSet, process::ExitCode, time::Duration};

use clap::{Args as ClapArgs, ValueEnum};
use commonage_schemas::{Framework, Task, TaskState};
use futures::{AsyncReadExt, StreamExt, TryStreamExt, stream::FuturesUnordered};
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::{WatchStreamExt, watcher},
};

use crate::{
    errors::{Failure, Result, count},
    follow,
    kinds::{encode, request},
    kubeconfig::Cluster,
    output,
};

/// How many logs are followed at once; each is a connection here, at the server and at an agent.
const FOLLOWED_MAX: usize = 64;
/// Before a broken log stream is opened again.
const RETRY: Duration = Duration::from_millis(500);
/// Without a byte between them; then we give up. 40 times 500 ms, enough for a restart.
const RETRIES_MAX: u32 = 40;
/// How often, and how far apart, we look whether a task has ended whose log has.
const STATE_LOOKS: u32 = 20;
const STATE_PAUSE: Duration = Duration::from_millis(50);
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn logs -f hello               follow one task
  cmn logs --tail 20 hello        its last lines
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
    /// Only one of the task's two streams
    #[arg(long, value_enum)]
    stream: Option<Stream>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Which log, and how much of it.
#[derive(Clone, Copy)]
struct Source<'a> {
    client: &'a Client,
    namespace: &'a str,
    name: &'a str,
    follow: bool,
    tail: Option<u64>,
    stream: Option<Stream>,
}

pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<ExitCode> {
    let (kind, name) = args.what.split_once('/').unwrap_or(("task", &args.what));
    let work = async {
        match kind {
            "task" | "tasks" | "tk" => one(&args, cluster, name).await,
            "framework" | "frameworks" | "fw" => all_of(&args, cluster, name).await,
            _ => Err(Failure::new(format!("a {kind} has no log"))
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
    let source = Source {
        client: &cluster.client,
        namespace: &cluster.namespace,
        name,
        follow: args.follow,
        tail: args.tail,
        stream: args.stream,
    };
    source.copy(output::data).await
}

fn has_log(task: &Task) -> bool {
    let started = task.status.as_ref().is_some_and(|status| status.started_at.is_some());
    started || matches!(task.state(), TaskState::Running | TaskState::Killing)
}

/// A task's stdout to ours and its stderr to ours, to their ends.
pub(crate) async fn both_streams(client: &Client, namespace: &str, name: &str) -> Result<()> {
    let source =
        |stream| Source { client, namespace, name, follow: true, tail: None, stream: Some(stream) };
    let (out, err) = (source(Stream::Stdout), source(Stream::Stderr));
    let passed_on = |bytes: &[u8]| {
        output::passed_on(bytes);
        Ok(())
    };
    futures::try_join!(out.copy(output::data), err.copy(passed_on))?;
    Ok(())
}

impl Source<'_> {
    fn path(&self) -> String {
        let Self { client: _, namespace, name, follow, tail, stream } = self;
        let mut query = vec![format!("follow={follow}")];
        query.extend(tail.map(|lines| format!("tailLines={lines}")));
        query.extend(stream.map(|stream| format!("stream={stream:?}").to_lowercase()));
        let (namespace, name) = (encode(namespace), encode(name));
        format!(
            "/apis/commonage.dev/v1/namespaces/{namespace}/tasks/{name}/log?{}",
            query.join("&")
        )
    }

    /// Passes the log on. A stream that breaks off, or ends while the task lives (an agent or a
    /// server restarts, say), is opened again, and what had been passed on already is skipped.
    async fn copy(&self, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut passed: u64 = 0;
        let mut failures = 0;
        loop {
            let before = passed;
            match self.copy_once(&mut passed, &mut sink).await? {
                Stop::End if !self.follow || self.has_ended_soon().await => return Ok(()),
                Stop::End => {}
                Stop::Broken(error) if !self.follow || failures >= RETRIES_MAX => {
                    return Err(Failure::api(
                        format!("the log of task \"{}\" broke off", self.name),
                        &error,
                    ));
                }
                Stop::Broken(error) => tracing::debug!(%error, "log"),
            }
            if self.tail.is_some() && passed > 0 {
                output::note("the log broke off; lines may be missing here");
                return Ok(());
            }
            failures = if passed > before { 0 } else { failures + 1 };
            tokio::time::sleep(RETRY).await;
        }
    }

    /// One request to its end.
    async fn copy_once(
        &self,
        passed: &mut u64,
        sink: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Stop> {
        let answer = self.client.request_stream(request("GET", &self.path(), Vec::new())).await;
        let mut reader = match answer {
            Ok(reader) => Box::pin(reader),
            // Asking again helps when somebody is away for a moment, and not when we are refused.
            Err(kube::Error::Api(status)) if !matches!(status.code, 500..=599) => {
                let tried = format!("no log of task \"{}\"", self.name);
                return Err(Failure::status(tried, &status));
            }
            Err(error) => return Ok(Stop::Broken(error)),
        };
        let mut skip = *passed;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = match reader.read(&mut buffer).await {
                Ok(0) => return Ok(Stop::End),
                Ok(read) => read,
                Err(error) => return Ok(Stop::Broken(kube::Error::ReadEvents(error))),
            };
            let already = usize::try_from(skip).unwrap_or(usize::MAX).min(read);
            skip -= already as u64;
            *passed += (read - already) as u64;
            if already < read {
                sink(&buffer[already..read])?;
            }
        }
    }

    /// Whether the task has ended. Its log ends a moment before its state says so.
    async fn has_ended_soon(&self) -> bool {
        let api: Api<Task> = Api::namespaced(self.client.clone(), self.namespace);
        for _ in 0..STATE_LOOKS {
            match api.get_opt(self.name).await {
                Ok(task) if task.as_ref().is_none_or(|task| task.state().is_terminal()) => {
                    return true;
                }
                // Not known, so not ended; the next request will tell.
                _ => tokio::time::sleep(STATE_PAUSE).await,
            }
        }
        false
    }
}

/// How a request for a log came to its end.
enum Stop {
    End,
    Broken(kube::Error),
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
        for task in tasks.items.iter().filter(|task| has_log(task)) {
            prefixed(args, cluster, task.name_any()).await?;
        }
        return Ok(());
    }
    let started = watcher(api, watcher::Config::default().fields(&field)).applied_objects();
    let mut started = std::pin::pin!(follow::patiently(started));
    let mut seen = HashSet::new();
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            task = started.try_next() => {
                let Some(task) = task? else { return Ok(()) };
                if has_log(&task) && running.len() < FOLLOWED_MAX && seen.insert(task.uid()) {
                    running.push(prefixed(args, cluster, task.name_any()));
                    if running.len() == FOLLOWED_MAX {
                        output::note(&format!("following {}; others are left out", count(FOLLOWED_MAX, "task")));
                    }
                }
            }
            Some(result) = running.next() => result?,
        }
    }
}

/// One task's log with its name before every line.
async fn prefixed(args: &Args, cluster: &Cluster, name: String) -> Result<()> {
    let source = Source {
        client: &cluster.client,
        namespace: &cluster.namespace,
        name: &name,
        follow: args.follow,
        tail: args.tail,
        stream: args.stream,
    };
    let prefix = output::paint(output::Stream::Stdout, output::Tone::Hint, &format!("{name} | "));
    let mut pending = Vec::new();
    source
        .copy(|bytes| {
            pending.extend_from_slice(bytes);
            let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else {
                return Ok(());
            };
            let whole: Vec<u8> = pending.drain(..=end).collect();
            whole
                .split_inclusive(|byte| *byte == b'\n')
                .try_for_each(|line| output::data(&[prefix.as_bytes(), line].concat()))
        })
        .await?;
    match pending.is_empty() {
        true => Ok(()),
        false => output::data(&[prefix.as_bytes(), &pending, b"\n"].concat()),
    }
}
