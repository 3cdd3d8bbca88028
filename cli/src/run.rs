//! `cmn run`: one task from its creation to its end, seen by the person who typed it.
//!
//! The task's own output goes where the command's would have gone; everything that we say goes to
//! stderr. The exit code is the task's: 128 + signal if one ended it, 125 if it never ran.

use std::{process::ExitCode, time::Duration};

use clap::Args as ClapArgs;
use commonage_schemas::{
    Resources, Task, TaskSpec, TaskState, reasons,
    resources::{Amount, AmountError},
    task::{Container, ContainerPort, EnvVar, TaskStatus, WhyPending},
};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};

use crate::{
    attach,
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
    #[arg(short, long, requires = "stdin")]
    tty: bool,
    /// Keep its standard input open when we are gone, for `cmn attach -i`; otherwise it ends then
    #[arg(long, requires = "stdin")]
    leave_stdin_open: bool,
    /// Return as soon as the task exists
    #[arg(long, short, conflicts_with = "rm")]
    detach: bool,
    /// Delete the task after its end, or when we are told to end
    #[arg(long)]
    rm: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
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

    fn task(&self) -> Result<Task> {
        let name = self.name.clone().unwrap_or_else(|| made_up_name(&self.command[0]));
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
        with: args.stdin.then_some(With { stdin: true, tty: args.tty }),
        once: task.spec.container.stdin_once,
        shown: 0,
        why: None,
    };
    let ended = follow::unless_interrupted(watched.follow_to_end(api.clone())).await;
    if args.rm {
        // However we end: nobody else knows that it is to be removed.
        let deleted = api.delete(&name, &DeleteParams::default()).await;
        let failed = |error| Failure::api(format!("task \"{name}\" was not deleted"), &error);
        // What went wrong before says more.
        if let (Ok(Ok(_)), Err(error)) = (&ended, deleted) {
            return Err(failed(error));
        }
    }
    let ended = match ended {
        Ok(ended) => ended?,
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
    /// What of ours it gets, if anything: then we are attached to it.
    with: Option<With>,
    /// Its input ends with us.
    once: bool,
    /// How many states of its history have been shown.
    shown: usize,
    why: Option<WhyPending>,
}

impl Watched<'_> {
    /// Shows states and passes on output until both have ended.
    async fn follow_to_end(&mut self, api: Api<Task>) -> Result<TaskStatus> {
        let mut states = follow::task(api, self.name);
        let uid = self.uid.clone();
        let mut log: Option<BoxFuture<'_, Result<()>>> = None;
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
                        log = Some(match self.with {
                            Some(with) => attach::to_new(self.cluster, self.name, &uid, with, self.once).boxed(),
                            None => logs::both_streams(&self.cluster.client, &self.cluster.namespace, self.name).boxed(),
                        });
                    }
                    if over {
                        break status;
                    }
                }
                result = async { log.as_mut().expect("guarded by the condition").await }, if log.is_some() && !log_ended => {
                    result?;
                    log_ended = true;
                }
            }
        };
        if let (Some(log), false) = (log, log_ended) {
            match tokio::time::timeout(LOG_GRACE, log).await {
                Ok(result) => result?,
                Err(_) => output::note("the log did not end; some of it may be missing here"),
            }
        }
        self.show(&ended);
        Ok(ended)
    }

    /// Whether what we say would be written over what it shows.
    fn has_the_terminal(&self) -> bool {
        self.with.is_some_and(|with| with.tty) && terminal::is_there()
    }

    /// What is new in the task's history, and why it waits if it does.
    fn show(&mut self, status: &TaskStatus) {
        let new = status.history.iter().skip(self.shown);
        for change in new {
            let words = match change.state == status.state {
                true => state_words(status),
                false => change.reason.clone().unwrap_or_default(),
            };
            let label = format!("   {:<9}", change.state.name());
            output::message(output::tone_of_state(change.state.name()), &label, &words);
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
