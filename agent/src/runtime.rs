//! The driver's hands: starts, signals and watches containers through their shims.
//!
//! The only place that calls `commonage-shim`. A simulated runtime would take its place here. All
//! of it but [`Shims::ended`] blocks, so the driver calls it from blocking threads.

mod errors;

use std::collections::HashMap;
use std::net::{IpAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use commonage_failpoint::reach;
use commonage_schemas::reasons::task as reasons;
use commonage_shim::attach::Attachment;
use commonage_shim::client::{self, Observed, Shim};
use commonage_shim::exec::{Exec, ExecError, Order};
use commonage_shim::group::Shared;
use commonage_shim::quota::{Quotas, counted};
use commonage_shim::{Group, Launch, Phase, Status, ZygoteHandle, memory};
use jiff::Timestamp;
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt;

pub(crate) use self::errors::describe;
use self::errors::{StartError, is_disk_full, is_gone};
use crate::disk::{self, DiskLimit};
use crate::ledger::{Entry, Ledger, LedgerError};
use crate::prepare::{Files, Prepared};
use crate::task::outcome::End;

/// A container that is not made by then never will be: the slowest seen took half a second, with
/// 60 launched at once on two cores.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// First pause between two looks at a starting container: its shim listens after about as long.
const LOOK_FIRST: Duration = Duration::from_micros(400);
/// Longest pause between two looks.
const LOOK_LONGEST: Duration = Duration::from_millis(20);
/// A shim takes a few milliseconds for what is left of its container.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(2);
/// First pause between two looks at whether it is done.
const CLEAN_LOOK: Duration = Duration::from_millis(1);
/// The socket of a living shim, the last thing that it removes.
const SHIM_SOCKET: &str = "ctl.sock";
/// Pause before a shim is asked again that holds its lock but does not answer.
const RECONNECT: Duration = Duration::from_millis(200);

/// How far a container is found to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// No shim has ever had it.
    NotStarted,
    Starting,
    Running {
        started_at: Timestamp,
        /// The first address of its own network, if it has one.
        address: Option<IpAddr>,
    },
    Ended(End),
}

/// Ends the tasks below a control group whose data directory was deleted while they ran. Blocks.
pub fn end_orphans(group: &str) {
    match commonage_shim::orphans::end(group) {
        Ok(ended) if ended.is_empty() => {}
        Ok(ended) => tracing::warn!(?ended, group, "killed: their data directory was deleted"),
        Err(error) => tracing::warn!(%error, group, "orphaned tasks could not be ended"),
    }
}

/// The containers of this agent.
#[derive(Clone)]
pub struct Shims {
    zygote: Arc<ZygoteHandle>,
    ledger: Ledger,
    boot_id: Arc<str>,
    /// Control group that all tasks' groups lie in.
    group: Arc<str>,
    /// Held while what a group of tasks shares is made or removed.
    sharing: Arc<Mutex<HashMap<String, Arc<Mutex<()>>>>>,
    /// Of the disk that the ledger lies on, if it keeps any.
    quotas: Option<Quotas>,
}

/// What files take of a file system in memory.
fn size_in_memory(files: &Files) -> u64 {
    const PAGE: u64 = 4096;
    let sizes = files.values().map(|content| u64::try_from(content.len()).unwrap_or(u64::MAX));
    sizes.fold(PAGE, |sum, size| sum.saturating_add(size.div_ceil(PAGE).saturating_mul(PAGE)))
}

impl Shims {
    /// `group`: the control group that all tasks' groups lie in.
    pub fn new(zygote: Arc<ZygoteHandle>, ledger: Ledger, boot_id: &str, group: &str) -> Shims {
        let quotas = Quotas::of(&ledger.directory()).unwrap_or_else(|error| {
            tracing::warn!(%error, "whether the disk keeps quotas can't be found out");
            None
        });
        let sharing = Arc::default();
        Shims { zygote, ledger, boot_id: boot_id.into(), group: group.into(), sharing, quotas }
    }

    /// Writes the entry, has a shim make the container and waits until its command runs or its
    /// end is known. Never [`Seen::NotStarted`] or [`Seen::Starting`].
    pub fn start(&self, entry: &Entry, launch: &Launch, prepared: &Prepared) -> Seen {
        match self.ask_for_shim(entry, launch, prepared) {
            Ok(()) => {
                let seen = self.settle(&entry.uid);
                reach("agent.after_shim_before_report");
                seen
            }
            Err(error) => {
                let reason = match &error {
                    StartError::Group(error) => error.reason.as_str(),
                    error if is_disk_full(error) => reasons::DISK_FULL,
                    _ => reasons::CREATE_FAILED,
                };
                Seen::Ended(self.never_started(&entry.uid, reason, describe(&error)))
            }
        }
    }

    fn ask_for_shim(
        &self,
        entry: &Entry,
        launch: &Launch,
        prepared: &Prepared,
    ) -> Result<(), StartError> {
        reach("agent.after_watch_before_ledger");
        // Before the entry, whose flush of the directory holds for both.
        let dir = self.ledger.state_dir(&entry.uid);
        let mut launch = launch.clone();
        if let Some(group) = &entry.group {
            // What nobody has an entry for is removed by the next agent.
            let shared = self.share(&group.round, &launch)?;
            (launch.network, launch.ipc) = (shared.network, Some(shared.ipc));
        }
        dir.prepare(&launch).map_err(|source| StartError::Prepare { source })?;
        self.ledger.write(entry)?;
        match &prepared.fetched {
            Some(fetched) => self.ledger.take_sandbox(&entry.uid, &fetched.path())?,
            None => self.ledger.make_sandbox(&entry.uid)?,
        }
        self.write_in_memory(entry, &launch, prepared)?;
        if let (Some(limit), Some(quotas)) = (&entry.disk, &self.quotas)
            && let Some(project) = limit.project
        {
            let directories = counted(&dir);
            for directory in &directories {
                self.ledger.make_dir(directory)?;
            }
            let limited = quotas.limit(project, &directories, limit.bytes);
            limited.map_err(|source| StartError::Quota { source })?;
        }
        reach("agent.after_ledger_before_shim");
        self.zygote.launch(dir.path()).map_err(|source| StartError::Shim { source })?;
        Ok(())
    }

    /// Secrets, ConfigMaps and the token: no disk has them.
    fn write_in_memory(
        &self,
        entry: &Entry,
        launch: &Launch,
        prepared: &Prepared,
    ) -> Result<(), StartError> {
        let all: Vec<_> = prepared.files_in_memory().collect();
        if all.is_empty() {
            return Ok(());
        }
        let bytes = all.iter().map(|(_, files)| size_in_memory(files)).sum();
        let memory = memory::make(&entry.uid, bytes);
        let memory = memory.map_err(|source| StartError::Memory { source })?;
        let owner = launch.user_namespace.map(|ids| ids.first);
        for (path, files) in all {
            self.ledger.write_files(&memory.join(path), files, owner)?;
        }
        Ok(())
    }

    /// Takes away what a task that has ended had to read.
    fn clear_memory(&self, uid: &str) {
        if let Err(error) = memory::remove(uid) {
            tracing::error!(uid, %error, "what a task had to read is still in memory");
        }
    }

    /// Whether the disk itself keeps tasks from taking more than they may.
    pub fn keeps_quotas(&self) -> bool {
        self.quotas.is_some()
    }

    /// Whether a task has reached its limit of disk, in words. Blocks.
    pub fn disk_exceeded(&self, uid: &str, limit: &DiskLimit) -> Option<String> {
        let used = disk::used(&self.ledger.state_dir(uid), limit, self.quotas.as_ref());
        match used {
            Ok(used) if used + limit.slack() >= limit.bytes => Some(disk::exceeded(used, limit)),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(uid, %error, "what a task has on the disk can't be counted");
                None
            }
        }
    }

    /// Makes what the tasks of a group share, if it is not there.
    fn share(&self, round: &str, launch: &Launch) -> Result<Shared, StartError> {
        let turn = self.turn(round);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let group = Group::new(&self.ledger.groups(), round);
        group.make(round, &launch.network).map_err(StartError::Group)
    }

    /// Removes what the tasks of a group shared, when none of them needs it any more. Safe to repeat.
    pub fn part(&self, round: &str) -> std::io::Result<()> {
        let turn = self.turn(round);
        let removed = {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            Group::new(&self.ledger.groups(), round).remove()
        };
        self.sharing.lock().unwrap_or_else(PoisonError::into_inner).remove(round);
        removed
    }

    /// The groups that may share something, by round.
    pub fn groups(&self) -> Vec<String> {
        let found = commonage_shim::group::remembered(&self.ledger.groups());
        found.unwrap_or_else(|error| {
            tracing::warn!(%error, "what groups of tasks share can't be looked for");
            Vec::new()
        })
    }

    fn turn(&self, round: &str) -> Arc<Mutex<()>> {
        let mut all = self.sharing.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(round.to_owned()).or_default().clone()
    }

    /// Waits until a container that was asked for runs or has ended.
    pub fn settle(&self, uid: &str) -> Seen {
        let deadline = Instant::now() + START_TIMEOUT;
        let mut pause = LOOK_FIRST;
        loop {
            // A shim that listens says when the command runs; only one too young for that is polled.
            let left = deadline.saturating_duration_since(Instant::now()).max(LOOK_LONGEST);
            let shim = Shim::connect(self.ledger.state_dir(uid).path());
            let settled = shim.and_then(|shim| shim.settle(left));
            match settled.map_or_else(|_| self.look(uid), |status| self.running(uid, &status)) {
                Seen::NotStarted | Seen::Starting if Instant::now() < deadline => {
                    #[allow(clippy::disallowed_methods)]
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LOOK_LONGEST);
                }
                Seen::NotStarted | Seen::Starting => {
                    return Seen::Ended(self.never_started(
                        uid,
                        reasons::CREATE_FAILED,
                        format!("the container was not there after {START_TIMEOUT:?}"),
                    ));
                }
                settled => return settled,
            }
        }
    }

    /// How far a container is. What is left of one whose shim is lost is killed first.
    pub fn look(&self, uid: &str) -> Seen {
        let dir = self.ledger.state_dir(uid);
        match client::scan(dir.path()) {
            Ok(Observed::NotStarted) => Seen::NotStarted,
            Ok(Observed::Alive(Some(status))) if status.phase == Phase::Running => {
                self.running(uid, &status)
            }
            Ok(Observed::Alive(_)) => Seen::Starting,
            Ok(Observed::Exited(exit)) => Seen::Ended(End::Recorded(exit)),
            Ok(Observed::Lost) => Seen::Ended(self.clean_up_lost(uid)),
            Err(error) => {
                tracing::warn!(uid, %error, "state directory can't be read");
                Seen::Starting
            }
        }
    }

    fn running(&self, uid: &str, status: &Status) -> Seen {
        let started_at = status.started_at.unwrap_or_else(Timestamp::now);
        let address = self.ledger.state_dir(uid).addresses().into_iter().next();
        Seen::Running { started_at, address }
    }

    fn clean_up_lost(&self, uid: &str) -> End {
        self.remove_remains(uid);
        let seen_at = Timestamp::now();
        let entry = self.ledger.entry(uid);
        match entry.is_some_and(|entry| entry.boot_id != *self.boot_id) {
            true => End::Rebooted { seen_at },
            false => End::ShimLost { seen_at },
        }
    }

    /// Gives up on a container. Its order is taken away first, so that a shim which comes to it
    /// only now finds nothing to do.
    fn never_started(&self, uid: &str, reason: &'static str, message: String) -> End {
        let order = self.ledger.state_dir(uid).task_json();
        let launch = self.ledger.state_dir(uid).launch();
        if let Err(error) = std::fs::remove_file(&order)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(uid, %error, "order of a failed launch can't be removed");
        }
        if let Ok(launch) = launch {
            self.clean_up(uid, &launch);
        }
        self.mark_ended(uid);
        End::NeverStarted { seen_at: Timestamp::now(), reason, message }
    }

    fn remove_remains(&self, uid: &str) {
        let launch = self.ledger.state_dir(uid).launch().unwrap_or_else(|error| {
            tracing::warn!(uid, %error, "the order of a lost container can't be read");
            self.any_launch(uid)
        });
        self.clean_up(uid, &launch);
        self.mark_ended(uid);
    }

    /// What every order of ours has in common: enough to find all that a container leaves.
    fn any_launch(&self, uid: &str) -> Launch {
        Launch::new(uid, &format!("{}/{uid}", self.group), self.ledger.sandbox(uid))
    }

    /// Kills a container of which the ledger knows nothing but that it is there.
    pub fn give_up(&self, uid: &str) -> (Entry, Seen) {
        if let Err(error) = client::kill_by_cgroup(&self.any_launch(uid)) {
            tracing::error!(uid, %error, "a container can't be killed");
        }
        self.wait_until_clean(&[uid.to_owned()]);
        self.remove_remains(uid);
        let entry =
            Entry { uid: uid.to_owned(), boot_id: self.boot_id.to_string(), ..Entry::default() };
        (entry, Seen::Ended(End::ShimLost { seen_at: Timestamp::now() }))
    }

    fn clean_up(&self, uid: &str, launch: &Launch) {
        let dir = self.ledger.state_dir(uid);
        if let Err(error) = client::cleanup(dir.path(), launch) {
            tracing::error!(uid, %error, "remains of a container can't be removed");
        }
    }

    /// Removes what the containers of ended tasks left whose shims died over it, or could not remove it. Returns the
    /// tasks of which nothing is left now.
    pub fn tidy(&self, uids: &[String]) -> Vec<String> {
        for uid in uids {
            let dir = self.ledger.state_dir(uid);
            match (client::is_left_over(dir.path()), dir.launch()) {
                (Ok(true), Ok(launch)) => {
                    tracing::warn!(uid, "its shim ended before it had removed the container");
                    self.clean_up(uid, &launch);
                }
                (Err(error), _) => tracing::debug!(uid, %error, "cannot look for remains"),
                _ => {}
            }
        }
        uids.iter().filter(|uid| self.is_clean(uid)).cloned().collect()
    }

    /// Whether nothing is left of a container that has ended: its shim removes the socket last.
    fn is_clean(&self, uid: &str) -> bool {
        !self.ledger.state_dir(uid).path().join(SHIM_SOCKET).exists()
    }

    /// Waits until nothing is left of a container that has ended; not for long. In words, what is.
    pub async fn remains(self, uid: String) -> Option<String> {
        let deadline = Instant::now() + CLEAN_TIMEOUT;
        let mut pause = CLEAN_LOOK;
        while !self.is_clean(&uid) {
            if Instant::now() > deadline {
                let log = self.ledger.state_dir(&uid).path().join("shim.log");
                let log = std::fs::read_to_string(log).unwrap_or_default();
                let why = log.lines().next_back().unwrap_or("its shim has not done it yet");
                return Some(format!("its container's remains cannot be removed: {why}"));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_LONGEST);
        }
        let _ = tokio::task::spawn_blocking(move || self.clear_memory(&uid)).await;
        None
    }

    fn mark_ended(&self, uid: &str) {
        if let Err(error) = self.ledger.mark_ended(uid) {
            tracing::warn!(uid, error = describe(&error), "end can't be noted");
        }
    }

    /// Has the shim send a signal. A shim that is gone is no error: then the container has ended,
    /// and whoever waits in [`Shims::ended`] says how.
    pub fn signal(&self, uid: &str, signal: i32) -> std::io::Result<()> {
        let dir = self.ledger.state_dir(uid);
        let sent = Shim::connect(dir.path()).and_then(|mut shim| shim.kill(signal));
        match sent {
            Err(error) if is_gone(&error) => Ok(()),
            // A shim that does not answer must not keep its task alive.
            Err(error) if signal == Signal::SIGKILL as i32 => {
                tracing::warn!(uid, %error, "a shim does not answer, killing its control group");
                client::kill_by_cgroup(&dir.launch()?)
            }
            sent => sent,
        }
    }

    /// Has a further command started in a task's container.
    pub fn exec(&self, uid: &str, order: &Order) -> Result<Exec, ExecError> {
        let dir = self.ledger.state_dir(uid);
        Shim::connect(dir.path()).map_err(ExecError::Container)?.exec(order)
    }

    /// The order that a task was started by.
    pub fn launch(&self, uid: &str) -> std::io::Result<Launch> {
        self.ledger.state_dir(uid).launch()
    }

    /// Attaches to a running task: `stdin` to write to it, else only to size its terminal.
    pub fn attach(&self, uid: &str, stdin: bool) -> std::io::Result<Attachment> {
        Shim::connect(self.ledger.state_dir(uid).path())?.attach(stdin)
    }

    /// Connects to a port in a task's network.
    pub fn connect(&self, uid: &str, port: u16) -> std::io::Result<TcpStream> {
        Shim::connect(self.ledger.state_dir(uid).path())?.connect_port(port)
    }

    /// Waits until the shims of ended tasks have removed what their containers left, and so have
    /// themselves gone. False if that takes too long.
    pub fn wait_until_clean(&self, uids: &[String]) -> bool {
        let deadline = Instant::now() + CLEAN_TIMEOUT;
        uids.iter().all(|uid| {
            let socket = self.ledger.state_dir(uid).path().join(SHIM_SOCKET);
            while socket.exists() && Instant::now() < deadline {
                // A process that is no child of ours does not announce its end.
                #[allow(clippy::disallowed_methods)]
                std::thread::sleep(LOOK_LONGEST);
            }
            !socket.exists()
        })
    }

    /// Removes all that is left of a task that has ended: its directory, and what its shim may not
    /// have come to remove. Safe to repeat.
    pub fn remove(&self, uid: &str) -> Result<(), LedgerError> {
        reach("agent.after_ack_before_trim");
        if let Ok(launch) = self.ledger.state_dir(uid).launch() {
            self.clean_up(uid, &launch);
        }
        self.clear_memory(uid);
        let disk = self.ledger.entry(uid).and_then(|entry| entry.disk);
        self.ledger.remove(uid)?;
        if let (Some(quotas), Some(project)) = (&self.quotas, disk.and_then(|disk| disk.project))
            && let Err(error) = quotas.forget(project)
        {
            tracing::warn!(uid, %error, "the limit of disk of a task that is gone stays");
        }
        Ok(())
    }

    /// Waits for the end of a container, however long that takes.
    pub async fn ended(self, uid: String) -> End {
        loop {
            match self.subscribe(&uid).await {
                Ok(mut stream) => {
                    // The content says nothing that `exit.json` does not; the end of it does.
                    let mut line = Vec::new();
                    if let Err(error) = stream.read_to_end(&mut line).await {
                        tracing::debug!(uid, %error, "connection to a shim broke");
                    }
                }
                Err(error) => tracing::debug!(uid, %error, "no connection to a shim"),
            }
            let shims = self.clone();
            let of = uid.clone();
            let seen = tokio::task::spawn_blocking(move || shims.look(&of)).await;
            if let Ok(Seen::Ended(end)) = seen {
                return end;
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    async fn subscribe(&self, uid: &str) -> std::io::Result<tokio::net::UnixStream> {
        let dir = self.ledger.state_dir(uid);
        let connected = tokio::task::spawn_blocking(move || {
            Shim::connect(dir.path()).and_then(Shim::subscribe)
        });
        let stream = connected.await.map_err(std::io::Error::other)??;
        tokio::net::UnixStream::from_std(stream)
    }
}
