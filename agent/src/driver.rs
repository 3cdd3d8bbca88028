//! The one loop of the agent: something happened → plan for that task → carry it out.
//!
//! Owns every task's [`Record`] and is the only one that changes it. It never blocks: what takes
//! time (launching, signalling, reporting, the disk) runs as a job of its own and comes back as a
//! [`Wake`]. A job's failure is news like any other; the plan decides about repeats.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use commonage_schemas::{Task, TaskState, TaskStatus};
use commonage_shim::Launch;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::collect::Sandboxes;
use crate::company::{self, Company, Standing};
use crate::disk;
use crate::gpus::Gpus;

use crate::health::Verdict;
use crate::ledger::{Entry, KillOrder, Ledger, Uid};
use crate::plan::{Action, Actual, Context, Phase, Record, Remains, Words, plan, uid_of};
use crate::prepare::{Outcome, Workshop};
use crate::report::{self, Answer};
use crate::runtime::{Seen, Shims, describe};
use crate::task::outcome::End;
use crate::task::spec::Site;

mod act;
mod collect;
mod grants;
mod groups;
mod recover;
mod timers;
mod wake;

use timers::{Timers, until};

/// Launches at once. Making a container is work for the processor, so more than a few per core
/// only make each of them slower: 60 at once on two cores took half a second each, 8 some 80 ms.
const LAUNCHES_PER_CORE: usize = 2;
/// Reports on their way at once: enough to hide the server's latency behind its throughput.
const REPORTS_MAX: usize = 32;
/// Verdicts of checks that wait for the driver; a check waits rather than being dropped.
const VERDICTS_MAX: usize = 256;
/// Finished tasks whose Task is deleted and whose logs are kept for a moment; beyond this number
/// the oldest go at once, so that a fast turnover does not fill the disk.
const DELETED_KEPT_MAX: usize = 256;
/// Between looks at everything, in case some news was lost.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// A shutdown waits so long for actions under way.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// A shutdown that takes the tasks along is over after this, come what may.
const KILL_ALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Then tasks have this long to end by themselves before they get `SIGKILL`.
const KILL_ALL_GRACE: SignedDuration = SignedDuration::from_secs(4);

/// What the driver works with.
pub(crate) struct Parts {
    pub client: kube::Client,
    pub site: Site,
    pub boot_id: String,
    pub ledger: Ledger,
    pub shims: Shims,
    pub workshop: Workshop,
    /// When sandboxes go.
    pub sandboxes: Sandboxes,
    /// To be rung when there is something new to tell of the machine.
    pub changed: Arc<Notify>,
    /// Rung when the watch of tasks may be deaf.
    pub listen_anew: Arc<Notify>,
    /// What there is to give to tasks that ask for some.
    pub gpus: Option<Gpus>,
    /// See [`Context::keep_deleted`].
    pub keep_deleted: SignedDuration,
}

/// What to do with running tasks when the agent stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnShutdown {
    LeaveTasks,
    KillTasks,
}

/// Something that happened, other than on the watch of tasks.
enum Wake {
    Launched {
        uid: Uid,
        seen: Seen,
    },
    Ended {
        uid: Uid,
        end: End,
    },
    Ordered {
        uid: Uid,
        order: KillOrder,
        written: Result<(), String>,
    },
    Signalled {
        uid: Uid,
        signal: i32,
        sent: Result<(), String>,
    },
    Reported {
        uid: Uid,
        answer: Answer,
    },
    Verdict {
        uid: Uid,
        verdict: Verdict,
    },
    Forgotten {
        uid: Uid,
        removed: Result<(), String>,
    },
    Prepared {
        uid: Uid,
        outcome: Outcome,
    },
    /// A preparation that goes on.
    Saying {
        uid: Uid,
        words: Words,
    },
    /// What may go of images and sandboxes has gone; whether the disk is too full all the same.
    Collected {
        pressed: Option<bool>,
    },
    /// Old tokens of tasks were replaced.
    Renewed,
    /// What ended containers left was looked for; these have left nothing.
    Tidied {
        clean: Vec<Uid>,
    },
    /// A container has ended, and this cannot be removed for now, if anything.
    Cleaned {
        uid: Uid,
        remains: Option<String>,
    },
    /// Tasks that have reached their limit of disk, in words, and how long it took to find out.
    Counted {
        over: Vec<(Uid, String)>,
        took: Duration,
    },
    /// What a group shared was removed.
    Parted {
        round: Uid,
        removed: Result<(), String>,
    },
    /// A check's future ended; its verdicts came on their own way.
    Watched,
}

/// The state of the loop.
pub(crate) struct Driver {
    parts: Parts,
    /// Boxed, because a table has a third of its places empty, and a record is some kilobytes.
    records: HashMap<Uid, Box<Record>>,
    /// Tasks with a group, by its key.
    groups: HashMap<String, BTreeSet<Uid>>,
    /// Groups that may share something here, by round, with their keys.
    rounds: HashMap<Uid, String>,
    /// Those that are being let go.
    leaving: HashSet<Uid>,
    /// Checks by task; dropped with the task.
    checks: HashMap<Uid, AbortHandle>,
    /// What is being got ready, by task.
    preparations: HashMap<Uid, AbortHandle>,
    sayings: Sayings,
    /// Images and sandboxes are being collected.
    collecting: bool,
    /// Whether the disk was too full when that was looked at last.
    pressed: Option<bool>,
    /// Tokens are being renewed.
    renewing: bool,
    /// Remains of containers are being looked for.
    tidying: bool,
    /// When what tasks have on the disk is counted next; `None`: it is being counted.
    count_at: Option<Timestamp>,
    timers: Timers,
    launches: Launches,
    reports: Arc<Semaphore>,
    jobs: JoinSet<Wake>,
    verdicts: Verdicts,
    /// Whether the first list has been read; before that, absence means nothing.
    synced: bool,
    /// Uids of the list that is being read.
    listed: Option<HashSet<Uid>>,
    /// Deleted tasks whose logs are still there, oldest first.
    deleted: VecDeque<Uid>,
    kill_all_by: Option<Timestamp>,
}

/// From the checks to the driver; the driver keeps a sender to give to new checks.
struct Verdicts {
    sender: mpsc::Sender<(Uid, Verdict)>,
    receiver: mpsc::Receiver<(Uid, Verdict)>,
}

/// From preparations to the driver.
struct Sayings {
    sender: mpsc::Sender<(Uid, Words)>,
    receiver: mpsc::Receiver<(Uid, Words)>,
}

/// Bounds the launches under way.
#[derive(Default)]
struct Launches {
    max: usize,
    under_way: usize,
    waiting: VecDeque<Uid>,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Driver {
        let (sender, receiver) = mpsc::channel(VERDICTS_MAX);
        let (said, sayings) = mpsc::channel(VERDICTS_MAX);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Driver {
            parts,
            records: HashMap::new(),
            groups: HashMap::new(),
            rounds: HashMap::new(),
            leaving: HashSet::new(),
            checks: HashMap::new(),
            preparations: HashMap::new(),
            sayings: Sayings { sender: said, receiver: sayings },
            collecting: false,
            pressed: None,
            renewing: false,
            tidying: false,
            count_at: Some(Timestamp::UNIX_EPOCH),
            timers: Timers::default(),
            launches: Launches { max: cores * LAUNCHES_PER_CORE, ..Launches::default() },
            reports: Arc::new(Semaphore::new(REPORTS_MAX)),
            jobs: JoinSet::new(),
            verdicts: Verdicts { sender, receiver },
            synced: false,
            listed: None,
            deleted: VecDeque::new(),
            kill_all_by: None,
        }
    }

    /// Finds the containers of the agents before this one, then works until `shutdown`.
    pub(crate) async fn run(
        mut self,
        on_shutdown: OnShutdown,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        self.recover().await?;
        let api: Api<Task> = Api::all(self.parts.client.clone());
        let mine = format!("spec.agent={}", self.parts.site.agent);
        let config = watcher::Config::default().fields(&mine);
        let watch = || Box::pin(watcher(api.clone(), config.clone()).default_backoff());
        let mut tasks = watch();
        let listen_anew = self.parts.listen_anew.clone();
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        let mut count = tokio::time::interval(disk::COUNT_EVERY);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                event = tasks.next() => match event {
                    Some(event) => self.hear_of_tasks(event),
                    None => anyhow::bail!("the watch of tasks ended"),
                },
                () = listen_anew.notified() => tasks = watch(),
                _ = sweep.tick() => {
                    self.look_at_all();
                    self.collect();
                    self.renew_tokens();
                    self.tidy();
                    self.part_all();
                }
                _ = count.tick() => {
                    self.count_disk();
                    self.watch_disk();
                }
                woken = self.next_wake() => self.hear(woken?),
            }
        }
        match on_shutdown {
            OnShutdown::LeaveTasks => self.drain().await,
            OnShutdown::KillTasks => self.kill_all().await,
        }
    }

    /// The next news of a job, a check or a timer. Safe to drop at any await: each of the three
    /// gives its news only when it returns.
    async fn next_wake(&mut self) -> anyhow::Result<Wake> {
        loop {
            let timer = self.timers.next();
            tokio::select! {
                Some(job) = self.jobs.join_next() => match job {
                    Ok(wake) => return Ok(wake),
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => return Err(anyhow::Error::new(error).context("a job panicked")),
                },
                Some((uid, verdict)) = self.verdicts.receiver.recv() => {
                    return Ok(Wake::Verdict { uid, verdict });
                }
                Some((uid, words)) = self.sayings.receiver.recv() => {
                    return Ok(Wake::Saying { uid, words });
                }
                () = until(timer) => self.ring(),
            }
        }
    }

    /// Looks at the tasks whose time has come.
    fn ring(&mut self) {
        for uid in self.timers.due(Timestamp::now()) {
            self.look_at(&uid);
        }
    }

    fn look_at_all(&mut self) {
        let uids: Vec<Uid> = self.records.keys().cloned().collect();
        for uid in uids {
            self.look_at(&uid);
        }
    }

    /// A task that nobody wants before it was ready.
    fn abandon(&mut self, uid: &Uid) {
        self.stop_preparing(uid);
        self.look_at(uid);
    }

    /// Plans for one task, and for those whose fate it shares.
    fn look_at(&mut self, uid: &Uid) {
        let key = self.records.get(uid).and_then(|record| company::key_of(record));
        self.look_at_one(uid);
        if let Some(key) = key {
            let others: Vec<Uid> = self.groups.get(&key).into_iter().flatten().cloned().collect();
            others.iter().filter(|other| *other != uid).for_each(|other| self.look_at_one(other));
            self.part(&key);
        }
    }

    /// Plans for one task and carries the plan out.
    fn look_at_one(&mut self, uid: &Uid) {
        let Some(record) = self.records.get(uid) else {
            return;
        };
        if self.preparations.contains_key(uid) && !is_wanted(record) {
            return self.abandon(uid);
        }
        // What is not in a list that was never read may well exist.
        if !self.synced && self.kill_all_by.is_none() {
            return;
        }
        let now = Timestamp::now();
        let group = match company::key_of(record) {
            Some(key) => self.company(&key).standing(uid, now),
            None => Standing::Free,
        };
        let context = Context {
            now,
            group,
            site: &self.parts.site,
            kill_all_by: self.kill_all_by,
            keep_deleted: self.parts.keep_deleted,
        };
        let plan = plan(record, &context);
        self.timers.set(uid, plan.wake_at);
        for action in plan.actions {
            self.act(uid, action);
        }
    }

    /// Waits until nothing is half done: the next agent finds a ledger at rest.
    async fn drain(&mut self) -> anyhow::Result<()> {
        let rest = async {
            while self.records.values().any(|r| r.busy || r.report.in_flight) {
                let woken = self.next_wake().await?;
                self.hear(woken);
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(DRAIN_TIMEOUT, rest).await {
            Ok(result) => result,
            Err(_) => {
                tracing::warn!("stopped with actions under way; the next agent takes them up");
                Ok(())
            }
        }
    }

    /// Ends every task, and waits until they are gone and reported.
    async fn kill_all(&mut self) -> anyhow::Result<()> {
        self.kill_all_by = Some(Timestamp::now() + KILL_ALL_GRACE);
        self.look_at_all();
        let gone = async {
            while self.records.values().any(|record| is_alive_or_owed(record)) {
                let woken = self.next_wake().await?;
                self.hear(woken);
            }
            anyhow::Ok(())
        };
        let result = tokio::time::timeout(KILL_ALL_TIMEOUT, gone).await;
        let alive: Vec<&Uid> =
            self.records.iter().filter(|(_, r)| is_alive(r)).map(|(uid, _)| uid).collect();
        if !alive.is_empty() {
            tracing::error!(?alive, "these tasks could not be ended in time");
        }
        if let Ok(result) = result {
            result?;
        }
        let uids: Vec<Uid> = self.records.keys().cloned().collect();
        let rounds: Vec<Uid> = self.rounds.keys().cloned().collect();
        let shims = self.parts.shims.clone();
        let clean = tokio::task::spawn_blocking(move || {
            let clean = shims.wait_until_clean(&uids);
            rounds.iter().for_each(|round| drop(shims.part(round)));
            clean
        });
        if !clean.await? {
            tracing::warn!("some shims are still cleaning up");
        }
        Ok(())
    }
}

fn is_wanted(record: &Record) -> bool {
    let task = record.desired.as_ref();
    task.is_some_and(|task| {
        task.metadata.deletion_timestamp.is_none() && !task.state().is_terminal()
    })
}

fn is_alive(record: &Record) -> bool {
    let phase = record.actual.as_ref().map(|actual| &actual.phase);
    matches!(phase, Some(Phase::Launching { .. } | Phase::Running { .. }))
}

fn is_alive_or_owed(record: &Record) -> bool {
    let is_unsaid = record.actual.as_ref().is_some_and(|a| a.remains == Remains::Unknown);
    is_alive(record) || is_unsaid || record.report.in_flight
}
