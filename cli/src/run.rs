//! `cmn run`: one task from its creation to its end, seen by the person who typed it.
//!
//! The task's own output goes where the command's would have gone; everything that we say goes to
//! stderr. The exit code is the task's: 128 + signal if one ended it, 125 if it never ran.

use std::{collections::HashSet, process::ExitCode, time::Duration};

use clap::Args as ClapArgs;
use commonage_schemas::{
    Resources, Task, TaskSpec, TaskState, reasons,
    resources::{Amount, AmountError},
    task::{Container, ContainerPort, EnvVar, TaskStatus, WhyPending},
};
use futures::{FutureExt, StreamExt, TryFutureExt, future::BoxFuture};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};

use crate::{
    attach::{self, Attached, Left},
    detach::DetachKeys,
    errors::{Failure, Result, count, exit},
    exec::With,
    follow,
    kubeconfig::Cluster,
    logs,
    output::{self, Tone},
    terminal,
};

/// How long the last lines may take to arrive after the task's end was seen.
const LOG_GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn run --name hello --cpu 0.1 --memory 32Mi -- sh -c 'echo hello; sleep 5'
  cmn run --port http=http:0 -- sh -c 'exec busybox httpd -f -p $PORT_HTTP'
  cmn run -it --rm -- bash        a shell on some agent, on this terminal
  cmn run -i -- wc -l < lines     what it reads is our standard input
  cmn run --image docker.io/library/redis    with the image's own command
  cmn run --detach --queue batch -- make -C /src")]
pub(crate) struct Args {
    /// The task's name; made up from the command if not given
    #[arg(long)]
    name: Option<String>,
    /// How many processors, e.g. `0.1`, `500m`, `2`
    #[arg(long, default_value = "0.1", value_name = "QUANTITY")]
    cpu: String,
    /// How much memory, e.g. `32Mi`
    #[arg(long, default_value = "64Mi", value_name = "QUANTITY")]
    memory: String,
    /// How much disk, e.g. `1Gi`
    #[arg(long, value_name = "QUANTITY")]
    disk: Option<String>,
    /// How many GPUs
    #[arg(long, value_name = "COUNT")]
    gpu: Option<String>,
    /// The queue that pays; the framework's first if not given
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// The framework that the task belongs to; `default` if not given
    #[arg(long, value_name = "NAME")]
    framework: Option<String>,
    /// An image; without one, the agent's own root file system, read-only
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// A port, `NAME` or `NAME=PORT`; 0 has one picked. The task finds it in $PORT_NAME
    #[arg(long = "port", value_name = "NAME[=PORT]", value_parser = port)]
    ports: Vec<ContainerPort>,
    /// An environment variable
    #[arg(long = "env", short, value_name = "NAME=VALUE", value_parser = env_var)]
    env: Vec<EnvVar>,
    /// A label
    #[arg(long = "label", short = 'l', value_name = "NAME=VALUE", value_parser = env_var)]
    labels: Vec<EnvVar>,
    /// Killed after so many seconds
    #[arg(long, value_name = "SECONDS")]
    max_seconds: Option<i64>,
    /// Pass our standard input on to it
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Run it in a terminal: ours
    #[arg(short, long)]
    tty: bool,
    /// Keep its standard input open when we are gone, for `cmn attach -i`; otherwise it ends then
    #[arg(long, requires = "stdin")]
    leave_stdin_open: bool,
    /// The keys that leave its terminal; with --leave-stdin-open Ctrl-P Ctrl-Q if not given
    #[arg(long, value_name = "KEYS", requires = "leave_stdin_open")]
    detach_keys: Option<DetachKeys>,
    /// Return as soon as the task exists
    #[arg(long, short, conflicts_with = "rm")]
    detach: bool,
    /// Delete the task after its end, or when we are told to end
    #[arg(long)]
    rm: bool,
    /// The command and its arguments; the image's if not given
    #[arg(last = true, required_unless_present = "image", value_name = "COMMAND")]
    command: Vec<String>,
}

/// `NAME`, `NAME=PORT`, and with a protocol in between, which only documents: `NAME=http:PORT`.
fn port(text: &str) -> Result<ContainerPort, String> {
    let (name, rest) = text.split_once('=').unwrap_or((text, "0"));
    let number = rest.rsplit_once(':').map_or(rest, |(_protocol, number)| number);
    let host_port: u16 =
        number.parse().map_err(|_| format!("\"{number}\" is not a port (0 to 65535)"))?;
    if name.is_empty() {
        return Err("a port needs a name, e.g. http=0".to_owned());
    }
    Ok(ContainerPort {
        name: Some(name.to_owned()),
        host_port: host_port.into(),
        ..ContainerPort::default()
    })
}

fn env_var(text: &str) -> Result<EnvVar, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            Ok(EnvVar { name: name.to_owned(), value: value.to_owned(), value_from: None })
        }
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

impl Args {
    fn resources(&self) -> Result<Resources> {
        let asked = [
            ("cpu", Some(&self.cpu)),
            ("memory", Some(&self.memory)),
            ("disk", self.disk.as_ref()),
            ("gpu", self.gpu.as_ref()),
        ];
        let mut resources = Resources::new();
        for (name, text) in asked.into_iter().filter_map(|(name, text)| Some((name, text?))) {
            let amount = Amount::parse(name, text).map_err(|error: AmountError| {
                Failure::new(format!("--{name} {text}: {error}"))
                    .hint("quantities look like `0.1`, `500m`, `2` for cpu, and `32Mi`, `4Gi` for memory")
                    .exit(2)
            })?;
            resources.set(name, amount);
        }
        Ok(resources)
    }

    /// The command, or the image without its tag and digest.
    fn named_after(&self) -> &str {
        let image = self.image.as_deref().unwrap_or_default();
        let image = image.rsplit('/').next().unwrap_or_default();
        let image = image.split([':', '@']).next().unwrap_or_default();
        self.command.first().map_or(image, String::as_str)
    }

    fn attached(&self) -> Option<Attached> {
        let usual = || DetachKeys::USUAL.parse().ok();
        let leave = self.leave_stdin_open.then(|| self.detach_keys.clone().or_else(usual));
        let with = With { stdin: true, tty: self.tty };
        let attached = Attached { with, once: !self.leave_stdin_open, leave: leave.flatten() };
        self.stdin.then_some(attached)
    }

    fn task(&self) -> Result<Task> {
        let name = self.name.clone().unwrap_or_else(|| made_up_name(self.named_after()));
        let spec = TaskSpec {
            framework: self.framework.clone(),
            queue: self.queue.clone(),
            resources: self.resources()?,
            container: Container {
                image: self.image.clone(),
                command: self.command.clone(),
                env: self.env.clone(),
                ports: self.ports.clone(),
                stdin: self.stdin,
                // As kubectl has it. Whoever is to come later finds it open.
                stdin_once: self.stdin && !self.leave_stdin_open && !self.detach,
                tty: self.tty,
                ..Container::default()
            },
            max_completion_seconds: self.max_seconds,
            ..TaskSpec::default()
        };
        let mut task = Task::new(&name, spec);
        task.labels_mut()
            .extend(self.labels.iter().map(|label| (label.name.clone(), label.value.clone())));
        Ok(task)
    }
}

/// From the command's file name and the clock: readable, and different each time.
fn made_up_name(command: &str) -> String {
    const DIGITS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    const SUFFIX_LENGTH: usize = 5;
    let file = command.rsplit('/').next().unwrap_or_default().to_lowercase();
    let stem: String = file.chars().filter(|c| c.is_ascii_alphanumeric()).take(20).collect();
    let stem = if stem.is_empty() { "run" } else { &stem };
    let mut number = jiff::Timestamp::now().as_microsecond().unsigned_abs();
    let mut suffix = String::new();
    while suffix.len() < SUFFIX_LENGTH {
        // The remainder is below 36, so it is a valid index.
        suffix.push(char::from(DIGITS[(number % 36) as usize]));
        number /= 36;
    }
    format!("{stem}-{suffix}")
}

pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<ExitCode> {
    let api: Api<Task> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let task = args.task()?;
    let name = task.name_any();
    let created = api.create(&PostParams::default(), &task).await;
    let created = created
        .map_err(|error| Failure::api(format!("task \"{name}\" was not created"), &error))?;
    output::step(&format!("task {}/{name} created", cluster.namespace));
    if args.detach {
        let next = match (args.stdin, args.tty) {
            (true, true) => "attach -it",
            (true, false) => "attach -i",
            _ => "logs -f",
        };
        output::message(Tone::Hint, "next:", &format!("cmn {next} {name}"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut watched = Watched {
        cluster,
        name: &name,
        uid: created.uid().unwrap_or_default(),
        attached: args.attached(),
        shown: 0,
        said: HashSet::new(),
        why: None,
    };
    let ended = follow::unless_interrupted(watched.follow_to_end(api.clone())).await;
    let left = matches!(ended, Ok(Ok(None)));
    if args.rm && left {
        output::note(&format!("task \"{name}\" lives on, so --rm has not removed it"));
    } else if args.rm {
        // However we end: nobody else knows that it is to be removed.
        let deleted = api.delete(&name, &DeleteParams::default()).await;
        let failed = |error| Failure::api(format!("task \"{name}\" was not deleted"), &error);
        // What went wrong before says more.
        if let (Ok(Ok(_)), Err(error)) = (&ended, deleted) {
            return Err(failed(error));
        }
    }
    let ended = match ended {
        Ok(ended) => match ended? {
            Some(ended) => ended,
            None => return Ok(ExitCode::SUCCESS),
        },
        Err(follow::Interrupted) if args.rm => return Err(Failure::quiet(exit::INTERRUPTED)),
        Err(follow::Interrupted) => {
            let again =
                format!("cmn logs -f {name}        # the task goes on; this follows it again");
            let stop = format!("cmn delete task {name}   # this stops it");
            return Err(follow::resume_with(&[&again, &stop]));
        }
    };
    Ok(ExitCode::from(exit_code(&ended)))
}

/// One task that somebody looks at.
struct Watched<'a> {
    cluster: &'a Cluster,
    name: &'a str,
    uid: String,
    /// Whether we are attached to it, and how.
    attached: Option<Attached>,
    /// How many states of its history have been shown.
    shown: usize,
    /// What was said of its way to its start.
    said: HashSet<String>,
    why: Option<WhyPending>,
}

impl Watched<'_> {
    /// Shows states and passes on output until both have ended; `None` when its terminal was left before.
    async fn follow_to_end(&mut self, api: Api<Task>) -> Result<Option<TaskStatus>> {
        let mut states = follow::task(api, self.name);
        let uid = self.uid.clone();
        let mut log: Option<BoxFuture<'_, Result<Left>>> = None;
        let mut log_ended = false;
        let ended = loop {
            tokio::select! {
                state = states.next() => {
                    let Some(task) = state.transpose()?.flatten().filter(|task| task.uid().as_ref() == Some(&self.uid)) else {
                        return Err(Failure::new(format!("task \"{}\" was deleted by somebody else", self.name))
                            .exit(exit::NEVER_RAN));
                    };
                    let status = task.status.unwrap_or_default();
                    let over = status.state.is_terminal();
                    // The last state is shown after the last line of output.
                    let hidden = log.is_some() && self.has_the_terminal();
                    if !(over || hidden) {
                        self.show(&status);
                    }
                    if status.started_at.is_some() && log.is_none() {
                        log = Some(match self.attached.clone() {
                            Some(attached) => attach::to_new(self.cluster, self.name, &uid, attached).boxed(),
                            None => logs::both_streams(&self.cluster.client, &self.cluster.namespace, self.name)
                                .map_ok(|()| Left::AtItsEnd)
                                .boxed(),
                        });
                    }
                    if over {
                        break status;
                    }
                }
                result = async { log.as_mut().expect("guarded by the condition").await }, if log.is_some() && !log_ended => {
                    if result? == Left::Before {
                        attach::say_detached(self.name);
                        return Ok(None);
                    }
                    log_ended = true;
                }
            }
        };
        if let (Some(log), false) = (log, log_ended) {
            match tokio::time::timeout(LOG_GRACE, log).await {
                Ok(result) => drop(result?),
                Err(_) => output::note("the log did not end; some of it may be missing here"),
            }
        }
        self.show(&ended);
        Ok(Some(ended))
    }

    /// Whether what we say would be written over what it shows.
    fn has_the_terminal(&self) -> bool {
        self.attached.as_ref().is_some_and(|attached| attached.with.tty) && terminal::is_there()
    }

    /// What is new in the task's history, what is in the way of its start, and why it waits if it does.
    fn show(&mut self, status: &TaskStatus) {
        let now = state_words(status);
        for change in status.history.iter().skip(self.shown) {
            let is_now = change.state == status.state;
            let before = || change.reason.clone().unwrap_or_default();
            let words = if is_now { now.clone() } else { before() };
            let label = format!("   {:<9}", change.state.name());
            output::message(output::tone_of_state(change.state.name()), &label, &words);
        }
        // An image that cannot be fetched, say.
        let is_new = status.history.len() > self.shown;
        let words = status.message.as_ref().or(status.reason.as_ref());
        if let Some(words) = words.filter(|_| status.state == TaskState::Staging)
            && self.said.insert(words.clone())
            && !is_new
        {
            output::message(Tone::Busy, "            ", words);
        }
        self.shown = status.history.len().max(self.shown);
        if status.why_pending != self.why {
            self.why = status.why_pending.clone();
            if let Some(why) = &self.why {
                output::message(Tone::Faint, "            ", &waits(status, why));
            }
        }
    }
}

/// What a person wants to know beside the state's name.
fn state_words(status: &TaskStatus) -> String {
    let parts = match status.state.is_terminal() {
        true => [Some(how_it_ended(status)), took(status), None],
        false => {
            let agent = status.agent.as_ref().map(|agent| format!("on agent {agent}"));
            let ports: Vec<String> = status.host_ports.iter().map(ToString::to_string).collect();
            let ports = (!ports.is_empty()).then(|| format!("port {}", ports.join(", ")));
            [agent, ports, status.message.clone().or(status.reason.clone())]
        }
    };
    let words: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    words.join(", ")
}

/// The agent's words if it gave any, with the reason where that says more than they do.
fn how_it_ended(status: &TaskStatus) -> String {
    match (&status.message, &status.reason, status.exit_code, status.signal) {
        (Some(message), Some(reason), ..) if reason != reasons::task::EXIT_CODE => {
            format!("{message} ({reason})")
        }
        (Some(message), ..) => message.clone(),
        (None, _, _, Some(signal)) => format!("by signal {signal}"),
        (None, _, Some(code), None) => format!("exit code {code}"),
        (None, reason, None, None) => reason.clone().unwrap_or_default(),
    }
}

fn took(status: &TaskStatus) -> Option<String> {
    let (start, finish) = (status.started_at.as_ref()?, status.finished_at.as_ref()?);
    Some(format!("after {:.1} s", finish.0.duration_since(start.0).as_secs_f64()))
}

/// Why a task waits: in the control plane's words, else in ours.
pub(crate) fn waits(status: &TaskStatus, why: &WhyPending) -> String {
    status.message.as_ref().map_or_else(|| why_words(why), |words| format!("waits: {words}"))
}

/// `2 agents: 1 without enough memory, 1 excluded by constraints`.
fn why_words(why: &WhyPending) -> String {
    if why.agents == 0 {
        return "waits: no agent is ready (`cmn get agents`)".to_owned();
    }
    let causes: Vec<String> = why
        .excluded
        .iter()
        .map(|excluded| match excluded.by.as_str() {
            "cpu" | "memory" | "disk" | "gpu" | "ports" => {
                format!("{} without enough {}", excluded.agents, excluded.by)
            }
            other => format!("{} excluded by {other}", excluded.agents),
        })
        .collect();
    let agents = usize::try_from(why.agents).unwrap_or_default();
    format!("waits: {}: {}", count(agents, "agent"), causes.join(", "))
}

/// The exit code that a shell would give the task's end.
pub(crate) fn exit_code(status: &TaskStatus) -> u8 {
    let by_signal = |signal: i32| u8::try_from(128 + signal).unwrap_or(exit::REFUSED);
    match (status.exit_code, status.signal) {
        (_, Some(signal)) if signal > 0 => by_signal(signal),
        // Also of a command that could not be started: 126 or 127, as in a shell.
        (Some(code), _) => u8::try_from(code).unwrap_or(exit::REFUSED),
        _ if status.state == TaskState::Finished => 0,
        _ if status.started_at.is_none() => exit::NEVER_RAN,
        _ => exit::REFUSED,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;
    use commonage_schemas::task::Excluded;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn ended(state: TaskState, code: Option<i32>, signal: Option<i32>) -> TaskStatus {
        let started_at = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        TaskStatus { state, exit_code: code, signal, started_at, ..TaskStatus::default() }
    }

    #[test]
    fn the_exit_code_is_the_tasks() {
        assert_eq!(exit_code(&ended(TaskState::Finished, Some(0), None)), 0);
        assert_eq!(exit_code(&ended(TaskState::Failed, Some(7), None)), 7);
        assert_eq!(exit_code(&ended(TaskState::Failed, None, Some(9))), 137);
        assert_eq!(exit_code(&ended(TaskState::Lost, None, None)), exit::REFUSED);
        let never = TaskStatus { state: TaskState::Error, ..TaskStatus::default() };
        assert_eq!(exit_code(&never), exit::NEVER_RAN);
    }

    #[test]
    fn ports_are_understood() {
        let picked = port("http=http:0").unwrap();
        assert_eq!((picked.name.as_deref(), picked.host_port), (Some("http"), 0));
        assert_eq!(port("http").unwrap().host_port, 0);
        assert_eq!(port("http=31000").unwrap().host_port, 31_000);
        assert!(port("http=70000").is_err());
        assert!(port("=1").is_err());
    }

    #[test]
    fn names_are_made_from_commands() {
        let name = made_up_name("/usr/bin/My_Tool");
        assert!(name.starts_with("mytool-") && name.len() == "mytool-".len() + 5, "{name}");
    }

    fn parsed(line: &str) -> Result<Args, clap::Error> {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        Line::try_parse_from(["run"].into_iter().chain(line.split(' '))).map(|line| line.args)
    }

    #[test]
    fn a_task_is_named_after_its_command_or_its_image() {
        for (line, stem) in [
            ("--image docker.io/library/redis:7@sha256:0 -d", "redis-"),
            ("--image a.b:5000/c -- /bin/sh -c true", "sh-"),
            ("-- make", "make-"),
        ] {
            let args = parsed(line).unwrap();
            let name = args.task().unwrap().name_any();
            assert!(name.starts_with(stem), "{line}: {name}");
        }
        assert!(parsed("--name a").is_err(), "neither a command nor an image");
    }

    #[test]
    fn a_terminal_can_be_left_where_its_input_stays_open() {
        let leave = |line| parsed(line).unwrap().attached().map(|attached| attached.leave);
        let keys = |text: &str| Some(Some(text.parse().unwrap()));
        assert_eq!(leave("-t -- sh"), None);
        assert_eq!(leave("-it -- sh"), Some(None));
        assert_eq!(leave("-it --leave-stdin-open -- sh"), keys(DetachKeys::USUAL));
        assert_eq!(leave("-it --leave-stdin-open --detach-keys x -- sh"), keys("x"));
        assert!(parsed("-it --detach-keys x -- sh").is_err(), "its input would end");
    }

    #[test]
    fn waiting_is_explained() {
        let why = WhyPending {
            agents: 2,
            excluded: vec![
                Excluded { by: "memory".into(), agents: 1 },
                Excluded { by: "constraints".into(), agents: 1 },
            ],
        };
        assert_eq!(
            why_words(&why),
            "waits: 2 agents: 1 without enough memory, 1 excluded by constraints"
        );
    }
}
