//! An agent whose containers are pretended: everything that a real one decides ([`crate::plan`]) and
//! says to the API server, over a runtime that only keeps time. Thousands fit into a process.
//!
//! Nothing is written to this machine: there is no ledger, so a simulated agent that is stopped has
//! forgotten its tasks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use commonage_schemas::agent::{AgentAddress, condition};
use commonage_schemas::reasons::task as reasons;
use commonage_schemas::{AgentStatus, Resources, Task, TaskState};
use commonage_shim::launch::Exit;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::collect::Sandboxes;
use crate::company::Standing;
use crate::gpus::scripted::Scripted;
use crate::gpus::{Choice, DEV, Gpus};
use crate::ledger::{Entry, Uid};
use crate::plan::{Action, Actual, Context, Phase, Preparation, Record, Words, plan, uid_of};
use crate::register::Registration;
use crate::report::{self, Answer};
use crate::task::outcome::End;
use crate::task::spec::{Leave, Site};

/// A real container takes about this long to reach its command.
const START_TIME: SignedDuration = SignedDuration::from_millis(10);
/// After a report without an answer.
const REPORT_AGAIN: SignedDuration = SignedDuration::from_secs(1);
/// Times that a task is planned for in a row: an order, its signal, the end, the report.
const LOOKS_MAX: usize = 6;

/// What all simulated agents have in common.
pub struct Simulation {
    /// What each has.
    pub allocatable: Resources,
    /// How long a task runs that does not say (`sleep N`), in seconds.
    pub task_seconds: f64,
    /// How much longer or shorter, at most.
    pub task_jitter_seconds: f64,
    /// How often each renews its Lease.
    pub lease_interval: Duration,
    /// Writes under way at once, of all of them together.
    pub writes: Arc<Semaphore>,
    /// The API server knows that the task runs, or how it ended.
    pub seen: Box<Seen>,
}

/// Told of each report that was taken.
pub type Seen = dyn Fn(&Task, TaskState) + Send + Sync;

/// One simulated agent.
struct Simulated {
    simulation: Arc<Simulation>,
    site: Site,
    gpus: Option<Gpus>,
    client: Client,
    // Large, and maps that grow would copy them.
    records: HashMap<Uid, Box<Record>>,
    /// When the pretended containers reach their command and their end.
    times: HashMap<Uid, (Timestamp, Timestamp)>,
    timers: BTreeSet<(Timestamp, Uid)>,
    reports: JoinSet<(Uid, TaskState, Answer)>,
    listed: Option<HashSet<Uid>>,
    synced: bool,
}

/// Runs one agent, which pretends to have so many `gpus`, until `shutdown`. `watching` carries its watch, `client` all other requests.
///
/// # Errors
/// The watch of its tasks ends, which it never should.
pub async fn agent(
    name: String,
    (client, watching): (Client, Client),
    simulation: Arc<Simulation>,
    gpus: usize,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let library = Scripted::alike(&name, gpus);
    let gpus = Gpus::with(library, &Choice::Auto, Path::new(DEV))?;
    let mut labels = BTreeMap::from([("commonage.dev/simulated".to_owned(), "true".to_owned())]);
    labels.extend(gpus.iter().flat_map(Gpus::labels));
    let registration = Registration {
        client: client.clone(),
        name: name.clone(),
        labels,
        gpus: gpus.clone(),
        status: status(&simulation),
        lease_interval: simulation.lease_interval,
        data_dir: PathBuf::from("/"),
        // The machine's disk is none of theirs.
        sandboxes: Sandboxes { pressure: 1.0, ..Sandboxes::default() },
        images: None,
        returned: Arc::default(),
        listen_anew: Arc::default(),
        changed: Arc::default(),
    };
    {
        // The first of each, so that not all of them come at once.
        let _turn = simulation.writes.acquire().await;
        registration.begin().await;
    }
    let mut parts = JoinSet::new();
    parts.spawn(registration.clone().keep_agent(shutdown.clone()));
    parts.spawn(registration.keep_lease(shutdown.clone()));
    let mine = format!("spec.agent={name}");
    let site = Site {
        agent: name,
        host: "127.0.0.1".to_owned(),
        data_dir: PathBuf::from("/nonexistent"),
        group: "/simulated".to_owned(),
        server: String::new(),
        leave: Leave::default(),
    };
    let mut agent = Simulated {
        simulation,
        site,
        gpus,
        client,
        records: HashMap::new(),
        times: HashMap::new(),
        timers: BTreeSet::new(),
        reports: JoinSet::new(),
        listed: None,
        synced: false,
    };
    let config = watcher::Config::default().fields(&mine);
    let mut tasks = Box::pin(watcher(Api::<Task>::all(watching), config).default_backoff());
    loop {
        let next = agent.timers.first().map(|(at, _)| *at);
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            event = tasks.next() => match event {
                Some(Ok(event)) => agent.hear(event),
                Some(Err(error)) => tracing::debug!(%error, "watch interrupted"),
                None => anyhow::bail!("the watch of tasks ended"),
            },
            Some(Ok((uid, state, answer))) = agent.reports.join_next() => {
                agent.answered(&uid, state, answer);
            }
            () = until(next) => agent.ring(),
        }
    }
}

async fn until(time: Option<Timestamp>) {
    match time {
        None => std::future::pending().await,
        Some(time) => {
            let wait = Duration::try_from(time.duration_since(Timestamp::now()));
            tokio::time::sleep(wait.unwrap_or_default()).await;
        }
    }
}

fn status(simulation: &Simulation) -> AgentStatus {
    let ready = Condition {
        type_: condition::READY.to_owned(),
        status: "True".to_owned(),
        reason: "AgentRunning".to_owned(),
        message: "the agent is simulated".to_owned(),
        last_transition_time: Time(Timestamp::now()),
        observed_generation: None,
    };
    AgentStatus {
        capacity: Some(simulation.allocatable.clone()),
        allocatable: Some(simulation.allocatable.clone()),
        addresses: vec![AgentAddress {
            type_: "InternalIP".to_owned(),
            address: "127.0.0.1".to_owned(),
        }],
        conditions: vec![ready],
        ..AgentStatus::default()
    }
}

impl Simulated {
    fn hear(&mut self, event: watcher::Event<Task>) {
        match event {
            watcher::Event::Init => self.listed = Some(HashSet::new()),
            watcher::Event::InitApply(task) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(uid_of(&task));
                }
                self.store(task);
            }
            watcher::Event::InitDone => {
                self.synced = true;
                let listed = self.listed.take().unwrap_or_default();
                self.records.retain(|uid, _| listed.contains(uid));
                let all: Vec<Uid> = self.records.keys().cloned().collect();
                all.iter().for_each(|uid| self.look_at(uid));
            }
            watcher::Event::Apply(task) => {
                let uid = uid_of(&task);
                self.store(task);
                self.look_at(&uid);
            }
            watcher::Event::Delete(task) => {
                // Its container has ended, or else its finalizer would be there.
                let uid = uid_of(&task);
                self.records.remove(&uid);
                self.times.remove(&uid);
            }
        }
    }

    fn store(&mut self, task: Task) {
        let record = self.records.entry(uid_of(&task)).or_default();
        let known = record.desired.as_ref().map_or(0, version);
        if version(&task) >= known {
            record.desired = Some(task);
        }
    }

    /// Those whose time has come.
    fn ring(&mut self) {
        let now = Timestamp::now();
        while let Some((at, uid)) = self.timers.first().cloned() {
            if at > now {
                return;
            }
            self.timers.remove(&(at, uid.clone()));
            self.look_at(&uid);
        }
    }

    fn look_at(&mut self, uid: &Uid) {
        for _ in 0..LOOKS_MAX {
            let now = Timestamp::now();
            self.pretend(uid, now);
            let Some(record) = self.records.get(uid).filter(|_| self.synced) else { return };
            let context = Context {
                now,
                site: &self.site,
                kill_all_by: None,
                keep_deleted: SignedDuration::ZERO,
                // What is pretended shares nothing.
                group: Standing::Free,
            };
            let plan = plan(record, &context);
            if let Some(at) = plan.wake_at {
                self.timers.insert((at, uid.clone()));
            }
            let mut again = false;
            for action in plan.actions {
                again |= self.act(uid, action, now);
            }
            if !again {
                return;
            }
        }
    }

    /// Brings the pretended container to where it is by now.
    fn pretend(&mut self, uid: &Uid, now: Timestamp) {
        let Some((starts_at, ends_at)) = self.times.get(uid).copied() else { return };
        let actual = self.records.get_mut(uid).and_then(|record| record.actual.as_mut());
        let Some(actual) = actual else { return };
        if matches!(actual.phase, Phase::Launching { .. }) && now >= starts_at {
            actual.phase = Phase::Running { started_at: starts_at };
            self.timers.insert((ends_at, uid.clone()));
        }
        if matches!(actual.phase, Phase::Running { .. }) && now >= ends_at {
            actual.phase = Phase::Ended(End::Recorded(exit(starts_at, ends_at, None)));
        }
    }

    /// Returns whether something has changed that the plan should know of.
    fn act(&mut self, uid: &Uid, action: Action, now: Timestamp) -> bool {
        let Some(record) = self.records.get_mut(uid) else { return false };
        match action {
            Action::Prepare => {
                record.preparation = Preparation::Ready(Arc::default());
                true
            }
            Action::Launch(_) => {
                let Some(task) = record.desired.clone() else { return false };
                let mut entry = Entry {
                    uid: uid.clone(),
                    namespace: task.namespace().unwrap_or_default(),
                    name: task.name_any(),
                    boot_id: "simulated".to_owned(),
                    ..Entry::default()
                };
                let starts_at = now + START_TIME;
                let runs = SignedDuration::from_millis(self.simulation.milliseconds(&task));
                let wanted = task.spec.resources.gpus();
                let given = self.pick_gpus(wanted);
                let Some(record) = self.records.get_mut(uid) else { return false };
                match given {
                    Ok(gpus) => entry.gpus = gpus,
                    Err(message) => {
                        let reason = reasons::GPU_UNAVAILABLE;
                        record.preparation = Preparation::Failed(Words { reason, message });
                        return true;
                    }
                }
                record.actual = Some(Actual::launching(entry, now));
                self.times.insert(uid.clone(), (starts_at, starts_at + runs));
                self.timers.insert((starts_at, uid.clone()));
                false
            }
            Action::OrderKill(order) => {
                if let Some(actual) = &mut record.actual {
                    actual.entry.kill = Some(order);
                }
                true
            }
            Action::Signal(signal) => {
                let started_at = self.times.get(uid).map_or(now, |times| times.0);
                if let Some(actual) = &mut record.actual {
                    let end = End::Recorded(exit(started_at.min(now), now, Some(signal)));
                    actual.phase = Phase::Ended(end);
                }
                true
            }
            Action::Watch => {
                if let Some(actual) = &mut record.actual {
                    actual.health.watched = true;
                    actual.health.healthy = Some(true);
                    actual.health.ready = Some(true);
                }
                true
            }
            Action::Report(status) => {
                let Some(task) = record.desired.clone() else { return false };
                record.report.in_flight = true;
                let (client, uid) = (self.client.clone(), uid.clone());
                let writes = self.simulation.writes.clone();
                self.reports.spawn(async move {
                    let _turn = writes.acquire().await;
                    let answer = report::send(client, &task, &status).await;
                    (uid, status.state, answer)
                });
                false
            }
            Action::Forget => {
                self.records.remove(uid);
                self.times.remove(uid);
                false
            }
        }
    }

    /// As a real agent does it.
    fn pick_gpus(&self, wanted: i64) -> Result<Vec<String>, String> {
        let wanted = usize::try_from(wanted).unwrap_or(0);
        let Some(gpus) = self.gpus.as_ref().filter(|_| wanted > 0) else {
            return match wanted {
                0 => Ok(Vec::new()),
                _ => Err("this agent has no GPUs".to_owned()),
            };
        };
        let actual = self.records.values().filter_map(|record| record.actual.as_ref());
        let alive = actual.filter(|actual| !matches!(actual.phase, Phase::Ended(_)));
        let held = alive.flat_map(|actual| &actual.entry.gpus).map(String::as_str).collect();
        let given = gpus.pick(wanted, &held)?;
        Ok(given.into_iter().map(|gpu| gpu.description.uuid).collect())
    }

    fn answered(&mut self, uid: &Uid, state: TaskState, answer: Answer) {
        let Some(record) = self.records.get_mut(uid) else { return };
        record.report.in_flight = false;
        match answer {
            Answer::Accepted(task) => {
                (self.simulation.seen)(&task, state);
                self.store(*task);
            }
            Answer::Stale { task, .. } => self.store(*task),
            Answer::Gone => {
                self.records.remove(uid);
                self.times.remove(uid);
                return;
            }
            Answer::Failed(error) => {
                tracing::debug!(uid, error, "report failed");
                record.report.not_before = Some(Timestamp::now() + REPORT_AGAIN);
            }
        }
        self.look_at(uid);
    }
}

impl Simulation {
    /// How long a task runs: what `sleep` says, else about as long as all do. The same task always
    /// the same.
    fn milliseconds(&self, task: &Task) -> i64 {
        if let [program, seconds] = task.spec.container.command.as_slice()
            && program == "sleep"
            && let Ok(seconds) = seconds.parse::<f64>()
        {
            return (seconds.clamp(0.0, 1e9) * 1000.0) as i64;
        }
        let uid = task.uid().unwrap_or_default();
        // FNV, spread over -1 to 1.
        let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let spread = (hash >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
        ((self.task_seconds + spread * self.task_jitter_seconds).max(0.0) * 1000.0) as i64
    }
}

fn exit(started_at: Timestamp, finished_at: Timestamp, signal: Option<i32>) -> Exit {
    Exit {
        exit_code: signal.is_none().then_some(0),
        signal,
        oom_killed: false,
        oom_kills: 0,
        started_at: Some(started_at),
        finished_at,
        error: None,
        log_bytes_dropped: 0,
        log_bytes_rotated_away: 0,
    }
}

fn version(task: &Task) -> u64 {
    task.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use commonage_schemas::TaskSpec;

    use super::*;

    #[test]
    fn a_task_runs_as_long_as_it_says_or_about_as_long_as_all_do() {
        let simulation = Simulation {
            allocatable: Resources::new(),
            task_seconds: 30.0,
            task_jitter_seconds: 10.0,
            lease_interval: Duration::from_secs(10),
            writes: Arc::new(Semaphore::new(1)),
            seen: Box::new(|_, _| {}),
        };
        let mut task = Task::new("t", TaskSpec::default());
        task.spec.container.command = vec!["sleep".to_owned(), "2.5".to_owned()];
        assert_eq!(simulation.milliseconds(&task), 2500);
        task.spec.container.command = vec!["work".to_owned()];
        let all: Vec<i64> = (0..100)
            .map(|number| {
                task.metadata.uid = Some(format!("uid-{number}"));
                simulation.milliseconds(&task)
            })
            .collect();
        assert!(all.iter().all(|ms| (20_000..=40_000).contains(ms)), "{all:?}");
        assert!(all.iter().max() > all.iter().min());
    }
}
