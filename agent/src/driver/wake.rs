//! Hearing: each piece of news changes one record (or, for a list, several), then its task is
//! planned for.

use super::*;
use crate::plan::{Preparation, Words};
use crate::prepare::Outcome;

/// Pause after a failed report, at first; doubled with every further failure.
const REPORT_AGAIN: SignedDuration = SignedDuration::from_millis(250);
/// The longest such pause, so that an API server that is back is told within seconds.
const REPORT_AGAIN_LONGEST: SignedDuration = SignedDuration::from_secs(8);
/// Pause before a task is got ready once more, at first; doubled with every further failure.
const PREPARE_AGAIN: SignedDuration = SignedDuration::from_secs(1);
/// The longest such pause.
const PREPARE_AGAIN_LONGEST: SignedDuration = SignedDuration::from_secs(60);
/// A registry that is away for a quarter of an hour is not waited for any longer: the task holds resources.
const PREPARE_ATTEMPTS: u32 = 20;
/// Pause after the disk or a shim failed us.
const TRY_AGAIN: SignedDuration = SignedDuration::from_secs(1);

impl Driver {
    pub(super) fn hear(&mut self, wake: Wake) {
        match wake {
            Wake::Launched { uid, seen } => {
                self.launches.under_way -= 1;
                self.busy(&uid, false);
                self.settled(&uid, seen);
                self.look_at(&uid);
                self.launch_waiting();
            }
            Wake::Ended { uid, end } => {
                self.settled(&uid, Seen::Ended(end));
                self.look_at(&uid);
                self.launch_waiting();
            }
            Wake::Ordered { uid, order, written } => self.ordered(&uid, order, written),
            Wake::Signalled { uid, signal, sent } => self.signalled(&uid, signal, sent),
            Wake::Reported { uid, answer } => self.reported(&uid, answer),
            Wake::Verdict { uid, verdict } => self.judged(&uid, verdict),
            Wake::Forgotten { uid, removed } => self.forgotten(&uid, removed),
            Wake::Prepared { uid, outcome } => self.prepared(&uid, outcome),
            Wake::Saying { uid, words } => self.said(&uid, words),
            Wake::Collected { pressed } => self.collected(pressed),
            Wake::Renewed => self.renewing = false,
            Wake::Tidied { clean } => self.tidied(clean),
            Wake::Cleaned { uid, remains } => self.cleaned(&uid, remains),
            Wake::Counted { over, took } => self.counted(over, took),
            Wake::Parted { round, removed } => self.parted(&round, removed),
            Wake::Watched => {}
        }
    }

    fn prepared(&mut self, uid: &Uid, outcome: Outcome) {
        self.preparations.remove(uid);
        let Some(record) = self.records.get_mut(uid) else {
            return;
        };
        record.preparation = match outcome {
            Outcome::Ready(prepared) => Preparation::Ready(Arc::new(*prepared)),
            Outcome::Failed(words) => Preparation::Failed(words),
            Outcome::Again(words) if record.preparation_failures >= PREPARE_ATTEMPTS => {
                Preparation::Failed(words)
            }
            Outcome::Again(mut words) => {
                let doublings = record.preparation_failures.min(10);
                record.preparation_failures += 1;
                let pause = (PREPARE_AGAIN * (1 << doublings)).min(PREPARE_AGAIN_LONGEST);
                words.message = format!("{}; tried again in {} s", words.message, pause.as_secs());
                tracing::warn!(uid, words.message, "a task can't be got ready");
                Preparation::Waiting { words, until: Timestamp::now() + pause }
            }
        };
        self.look_at(uid);
    }

    /// A preparation that goes on has something to tell.
    fn said(&mut self, uid: &Uid, words: Words) {
        if let Some(record) = self.records.get_mut(uid)
            && let Preparation::UnderWay(known) = &mut record.preparation
        {
            *known = Some(words);
            self.look_at(uid);
        }
    }

    /// The watch repairs itself; an error is only worth a line.
    pub(super) fn hear_of_tasks(&mut self, event: watcher::Result<watcher::Event<Task>>) {
        match event {
            Ok(event) => self.observe(event),
            Err(error) => {
                tracing::warn!(error = describe(&error), "the watch of tasks was interrupted");
            }
        }
    }

    fn observe(&mut self, event: watcher::Event<Task>) {
        match event {
            watcher::Event::Init => self.listed = Some(HashSet::new()),
            watcher::Event::InitApply(task) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(uid_of(&task));
                }
                self.store(task);
            }
            watcher::Event::InitDone => self.finish_list(),
            watcher::Event::Apply(task) => {
                let uid = uid_of(&task);
                self.store(task);
                self.look_at(&uid);
            }
            watcher::Event::Delete(task) => self.gone(&uid_of(&task)),
        }
    }

    /// What the list did not name does not exist.
    fn finish_list(&mut self) {
        let listed = self.listed.take().unwrap_or_default();
        self.synced = true;
        let gone: Vec<Uid> =
            self.records.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
        for uid in gone {
            self.gone(&uid);
        }
        self.look_at_all();
    }

    /// Takes a Task over, unless a newer one is known: the answer to a report often overtakes the
    /// watch.
    fn store(&mut self, task: Task) {
        let uid = uid_of(&task);
        if !crate::ledger::is_uid(&uid) {
            tracing::error!(task = task.name_any(), uid, "a Task with an impossible uid");
            return;
        }
        if let Some(key) = crate::company::key(&task) {
            self.groups.entry(key).or_default().insert(uid.clone());
        }
        let record = self.records.entry(uid).or_default();
        let known = record.desired.as_ref().and_then(version);
        if known.is_some_and(|known| version(&task).is_some_and(|new| new < known)) {
            return;
        }
        record.desired = Some(task);
        record.gone_since = None;
    }

    /// Takes the answer to a report over, unless the Task's deletion has already been seen.
    fn store_known(&mut self, task: Task) {
        let known = self.records.get(&uid_of(&task));
        if known.is_some_and(|record| record.desired.is_some()) {
            self.store(task);
        }
    }

    fn gone(&mut self, uid: &Uid) {
        let Some(record) = self.records.get_mut(uid) else {
            return;
        };
        record.desired = None;
        if record.gone_since.is_none() {
            record.gone_since = Some(Timestamp::now());
            self.deleted.push_back(uid.clone());
        }
        self.look_at(uid);
        if self.deleted.len() > DELETED_KEPT_MAX
            && let Some(oldest) = self.deleted.pop_front()
            && let Some(record) = self.records.get_mut(&oldest)
            && record.gone_since.is_some()
        {
            record.gone_since = Some(Timestamp::UNIX_EPOCH);
            self.look_at(&oldest);
        }
    }

    /// A container has reached its command, or its end.
    pub(super) fn settled(&mut self, uid: &Uid, seen: Seen) {
        let Some(actual) = self.records.get_mut(uid).and_then(|r| r.actual.as_mut()) else {
            return;
        };
        match seen {
            Seen::Running { started_at, address } => {
                actual.address = address;
                actual.phase = Phase::Running { started_at };
                self.await_end(uid);
            }
            Seen::Ended(end) => {
                tracing::info!(uid, task = actual.entry.name, ?end, "ended");
                actual.phase = Phase::Ended(end);
                actual.remains = Remains::Unknown;
                self.stop_checks(uid);
                self.await_removal(uid);
            }
            Seen::NotStarted | Seen::Starting => {
                tracing::error!(uid, ?seen, "a container that settled in no state");
            }
        }
    }

    fn cleaned(&mut self, uid: &Uid, remains: Option<String>) {
        let Some(actual) = self.records.get_mut(uid).and_then(|r| r.actual.as_mut()) else {
            return;
        };
        actual.remains = match remains {
            None => Remains::Nothing,
            Some(what) => {
                tracing::warn!(uid, what, "tried again with every look at everything");
                Remains::Something(what)
            }
        };
        self.look_at(uid);
    }

    fn tidied(&mut self, clean: Vec<Uid>) {
        self.tidying = false;
        for uid in clean {
            let actual = self.records.get_mut(&uid).and_then(|r| r.actual.as_mut());
            if let Some(actual) = actual.filter(|a| matches!(a.remains, Remains::Something(_))) {
                actual.remains = Remains::Nothing;
                tracing::info!(uid, "nothing is left of its container any more");
                self.look_at(&uid);
            }
        }
    }

    fn stop_checks(&mut self, uid: &Uid) {
        if let Some(checks) = self.checks.remove(uid) {
            checks.abort();
        }
    }

    /// Gives free launch slots to those that wait, in order.
    fn launch_waiting(&mut self) {
        if self.launches.waiting.is_empty() || self.is_closing() {
            return;
        }
        while self.launches.under_way < self.launches.max
            && let Some(uid) = self.launches.waiting.pop_front()
        {
            self.look_at(&uid);
        }
    }

    fn ordered(&mut self, uid: &Uid, order: KillOrder, written: Result<(), String>) {
        self.busy(uid, false);
        match written {
            Ok(()) => {
                if let Some(actual) = self.records.get_mut(uid).and_then(|r| r.actual.as_mut()) {
                    actual.entry.kill = Some(order);
                }
                self.stop_checks(uid);
                self.look_at(uid);
            }
            Err(error) => {
                tracing::error!(uid, error, "the order to end a task can't be written");
                self.timers.set(uid, Some(Timestamp::now() + TRY_AGAIN));
            }
        }
    }

    fn signalled(&mut self, uid: &Uid, signal: i32, sent: Result<(), String>) {
        self.busy(uid, false);
        match sent {
            Ok(()) => {
                if let Some(actual) = self.records.get_mut(uid).and_then(|r| r.actual.as_mut()) {
                    actual.signalled = Some((signal, Timestamp::now()));
                }
                self.look_at(uid);
            }
            Err(error) => {
                tracing::warn!(uid, signal, error, "a signal can't be sent");
                self.timers.set(uid, Some(Timestamp::now() + TRY_AGAIN));
            }
        }
    }

    fn reported(&mut self, uid: &Uid, answer: Answer) {
        if let Some(record) = self.records.get_mut(uid) {
            record.report.in_flight = false;
        }
        match answer {
            Answer::Accepted(task) => {
                if let Some(record) = self.records.get_mut(uid) {
                    record.report = Default::default();
                }
                self.store_known(*task);
            }
            Answer::Stale { task, message } => {
                tracing::warn!(uid, message, state = %task.state(), "a report was refused");
                self.report_later(uid);
                self.store_known(*task);
            }
            Answer::Gone => self.gone(uid),
            Answer::Failed(error) => {
                tracing::warn!(uid, error, "a report failed; it will be repeated");
                self.report_later(uid);
            }
        }
        self.look_at(uid);
    }

    fn report_later(&mut self, uid: &Uid) {
        let Some(record) = self.records.get_mut(uid) else {
            return;
        };
        let doublings = record.report.failures.min(10);
        let pause = (REPORT_AGAIN * (1 << doublings)).min(REPORT_AGAIN_LONGEST);
        record.report.failures += 1;
        record.report.not_before = Some(Timestamp::now() + pause);
    }

    fn counted(&mut self, over: Vec<(Uid, String)>, took: std::time::Duration) {
        let pause = took.saturating_mul(crate::disk::COUNT_SHARE);
        let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
        self.count_at = Some(Timestamp::now().saturating_add(pause).unwrap_or(Timestamp::MAX));
        for (uid, how) in over {
            if let Some(actual) = self.records.get_mut(&uid).and_then(|r| r.actual.as_mut()) {
                actual.over_disk = Some(how);
                self.look_at(&uid);
            }
        }
    }

    fn judged(&mut self, uid: &Uid, verdict: Verdict) {
        let Some(actual) = self.records.get_mut(uid).and_then(|r| r.actual.as_mut()) else {
            return;
        };
        match verdict {
            Verdict::Healthy(healthy) => actual.health.healthy = Some(healthy),
            Verdict::Ready(ready) => actual.health.ready = Some(ready),
            Verdict::Failed(why) => actual.health.failed = Some(why),
        }
        self.look_at(uid);
    }

    fn forgotten(&mut self, uid: &Uid, removed: Result<(), String>) {
        self.busy(uid, false);
        match removed {
            Ok(()) => {
                if let Some(record) = self.records.get_mut(uid) {
                    record.actual = None;
                }
                self.look_at(uid);
            }
            Err(error) => {
                tracing::warn!(uid, error, "a state directory can't be removed");
                // The next sweep tries again.
                self.timers.set(uid, None);
            }
        }
    }
}

/// A number that grows with every change of an object. Kubernetes promises since 1.35, and our
/// server always, that resource versions of one kind compare as numbers.
fn version(task: &Task) -> Option<u64> {
    task.resource_version()?.parse().ok()
}
