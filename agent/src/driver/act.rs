//! Carrying out: each action becomes a job that ends in a [`Wake`].

use super::*;
use std::path::PathBuf;

use commonage_shim::memory;

use crate::plan::Preparation;
use crate::prepare::{Prepared, renew};
use crate::task::spec::{image_signal, mounts};

impl Driver {
    pub(super) fn act(&mut self, uid: &Uid, action: Action) {
        match action {
            Action::Prepare => self.prepare(uid),
            Action::Launch(launch) => self.launch(uid, *launch),
            Action::OrderKill(order) => self.order_kill(uid, order),
            Action::Signal(signal) => self.signal(uid, signal),
            Action::Watch => self.watch(uid),
            Action::Report(status) => self.report(uid, *status),
            Action::Forget => self.forget(uid),
        }
    }

    /// Gets ready what a task needs, beside everything else.
    fn prepare(&mut self, uid: &Uid) {
        let Some(record) = self.records.get_mut(uid) else {
            return;
        };
        let Some(task) = record.desired.clone() else { return };
        let words = match &record.preparation {
            Preparation::Waiting { words, .. } => Some(words.clone()),
            _ => None,
        };
        record.preparation = Preparation::UnderWay(words);
        let workshop = self.parts.workshop.clone();
        let sayings = self.sayings.sender.clone();
        let of = uid.clone();
        let handle = self.jobs.spawn(async move {
            // One that finds no room is followed by another a moment later.
            let say = |words| drop(sayings.try_send((of.clone(), words)));
            let outcome = workshop.prepare(&task, say).await;
            Wake::Prepared { uid: of, outcome }
        });
        self.preparations.insert(uid.clone(), handle);
    }

    /// Nobody wants the task any more.
    pub(super) fn stop_preparing(&mut self, uid: &Uid) {
        if let Some(preparation) = self.preparations.remove(uid) {
            preparation.abort();
        }
        if let Some(record) = self.records.get_mut(uid) {
            record.preparation = Preparation::NotBegun;
        }
    }

    /// Replaces the tokens of running tasks that will soon be worthless.
    pub(super) fn renew_tokens(&mut self) {
        let running = self.records.iter().filter(|(_, record)| is_alive(record));
        let wanted: Vec<_> = running
            .filter_map(|(uid, record)| Some((uid, record.desired.as_ref()?)))
            .filter(|(_, task)| task.spec.container.api_token)
            .map(|(uid, task)| (self.token_directory(uid), task.clone()))
            .collect();
        if wanted.is_empty() || std::mem::replace(&mut self.renewing, true) {
            return;
        }
        let client = self.parts.client.clone();
        self.jobs.spawn(async move {
            for (directory, task) in wanted {
                renew(&client, &task, &directory).await;
            }
            Wake::Renewed
        });
    }

    /// Tasks that agents of before have started have theirs in their directory.
    fn token_directory(&self, uid: &Uid) -> PathBuf {
        let before = self.parts.ledger.state_dir(uid).path().join(mounts::TOKEN_DIRECTORY);
        if before.exists() { before } else { memory::place(uid).join(mounts::TOKEN_DIRECTORY) }
    }

    /// Looks how much of the disk running tasks have that may have only so much; one such job at a time.
    pub(super) fn count_disk(&mut self) {
        if self.count_at.is_none_or(|at| Timestamp::now() < at) {
            return;
        }
        let running = self.records.iter().filter(|(_, record)| is_alive(record));
        let limited = running.filter_map(|(uid, record)| {
            let limit = record.actual.as_ref()?.entry.disk?;
            Some((uid.clone(), limit))
        });
        let limited: Vec<_> = limited.collect();
        if limited.is_empty() {
            return;
        }
        self.count_at = None;
        let shims = self.parts.shims.clone();
        self.jobs.spawn_blocking(move || {
            let began = std::time::Instant::now();
            let over = limited.into_iter().filter_map(|(uid, limit)| {
                let how = shims.disk_exceeded(&uid, &limit)?;
                Some((uid, how))
            });
            Wake::Counted { over: over.collect(), took: began.elapsed() }
        });
    }

    /// Removes what the shims of ended tasks did not come to remove; one such job at a time.
    pub(super) fn tidy(&mut self) {
        if std::mem::replace(&mut self.tidying, true) {
            return;
        }
        let has_ended = |record: &Record| {
            matches!(&record.actual, Some(Actual { phase: Phase::Ended(_), .. })) && !record.busy
        };
        let ended: Vec<Uid> = self
            .records
            .iter()
            .filter(|(_, record)| has_ended(record))
            .map(|(uid, _)| uid.clone())
            .collect();
        let shims = self.parts.shims.clone();
        self.jobs.spawn_blocking(move || Wake::Tidied { clean: shims.tidy(&ended) });
    }

    /// Waits until what has ended is gone.
    pub(super) fn await_removal(&mut self, uid: &Uid) {
        let shims = self.parts.shims.clone();
        let uid = uid.clone();
        self.jobs.spawn(async move {
            let remains = shims.remains(uid.clone()).await;
            Wake::Cleaned { uid, remains }
        });
    }

    /// Whether containers are still to go that the control plane has given up, because this agent had been silent
    /// for too long. What they hold has been given to others: before it is free nothing new starts.
    pub(super) fn is_closing(&self) -> bool {
        self.records.values().any(|record| {
            let state = record.desired.as_ref().map(Task::state);
            matches!(state, Some(TaskState::Lost | TaskState::Gone)) && is_alive(record)
        })
    }

    fn launch(&mut self, uid: &Uid, mut launch: Launch) {
        let is_closing = self.is_closing();
        let task = self.records.get(uid).and_then(|record| record.desired.as_ref());
        let Some(task) = task else { return };
        if self.launches.under_way >= self.launches.max || is_closing {
            if !self.launches.waiting.contains(uid) {
                self.launches.waiting.push_back(uid.clone());
            }
            return;
        }
        self.parts.workshop.events.placed(task);
        let mut entry = Entry {
            uid: uid.clone(),
            namespace: task.namespace().unwrap_or_default(),
            name: task.name_any(),
            boot_id: self.parts.boot_id.clone(),
            ..Entry::default()
        };
        let granted = self.grant(task, &mut entry, &mut launch);
        let Some(record) = self.records.get_mut(uid) else {
            return;
        };
        if let Err(words) = granted {
            record.preparation = Preparation::Failed(words);
            return self.look_at(uid);
        }
        let prepared = match std::mem::take(&mut record.preparation) {
            Preparation::Ready(prepared) => Some(prepared),
            _ => None,
        };
        let image = prepared.as_ref().and_then(|prepared| prepared.image.as_deref());
        entry.image = image.map(|image| image.digest.to_string());
        entry.stop_signal = image.and_then(|image| image_signal(&image.config.stop_signal));
        if let Some(group) = &entry.group {
            self.rounds.insert(group.round.clone(), group.key.clone());
        }
        launch.sandbox = self.parts.ledger.sandbox(uid);
        mounts::settle(&mut launch.mounts, &memory::place(uid));
        record.busy = true;
        record.actual = Some(Actual::launching(entry.clone(), Timestamp::now()));
        self.launches.under_way += 1;
        let shims = self.parts.shims.clone();
        let uid = uid.clone();
        self.jobs.spawn_blocking(move || {
            let nothing = Prepared::default();
            let prepared = prepared.as_deref().unwrap_or(&nothing);
            Wake::Launched { uid, seen: shims.start(&entry, &launch, prepared) }
        });
    }

    /// Waits for a container that an earlier agent had asked for.
    pub(super) fn settle(&mut self, uid: &Uid) {
        self.busy(uid, true);
        self.launches.under_way += 1;
        let shims = self.parts.shims.clone();
        let uid = uid.clone();
        self.jobs.spawn_blocking(move || Wake::Launched { seen: shims.settle(&uid), uid });
    }

    fn order_kill(&mut self, uid: &Uid, order: KillOrder) {
        let Some(record) = self.records.get_mut(uid) else {
            return;
        };
        let Some(actual) = &record.actual else { return };
        if let Some(task) = &record.desired {
            self.parts.workshop.events.killing(task, &order.cause, order.grace_seconds);
        }
        record.busy = true;
        let entry = Entry { kill: Some(order.clone()), ..actual.entry.clone() };
        tracing::info!(
            uid,
            task = entry.name,
            cause = ?order.cause,
            grace_s = order.grace_seconds,
            "to be ended"
        );
        let ledger = self.parts.ledger.clone();
        let uid = uid.clone();
        self.jobs.spawn_blocking(move || Wake::Ordered {
            written: ledger.write(&entry).map_err(|error| describe(&error)),
            uid,
            order,
        });
    }

    fn signal(&mut self, uid: &Uid, signal: i32) {
        self.busy(uid, true);
        let shims = self.parts.shims.clone();
        let uid = uid.clone();
        self.jobs.spawn_blocking(move || Wake::Signalled {
            sent: shims.signal(&uid, signal).map_err(|error| describe(&error)),
            uid,
            signal,
        });
    }

    /// Waits for the end of a running container.
    pub(super) fn await_end(&mut self, uid: &Uid) {
        let shims = self.parts.shims.clone();
        let uid = uid.clone();
        self.jobs.spawn(async move {
            let end = shims.ended(uid.clone()).await;
            Wake::Ended { uid, end }
        });
    }

    fn watch(&mut self, uid: &Uid) {
        let Some(record) = self.records.get_mut(uid) else {
            return;
        };
        let (Some(task), Some(actual)) = (&record.desired, &mut record.actual) else {
            return;
        };
        actual.health.watched = true;
        let watching = crate::health::watch(
            task.clone(),
            actual.address,
            self.parts.shims.clone(),
            self.verdicts.sender.clone(),
        );
        let handle = self.jobs.spawn(async move {
            watching.await;
            Wake::Watched
        });
        self.checks.insert(uid.clone(), handle);
    }

    fn report(&mut self, uid: &Uid, status: TaskStatus) {
        let Some(record) = self.records.get_mut(uid) else {
            return;
        };
        let Some(task) = record.desired.clone() else {
            return;
        };
        record.report.in_flight = true;
        self.parts.workshop.events.changed(&task, &status);
        let client = self.parts.client.clone();
        let slots = Arc::clone(&self.reports);
        let uid = uid.clone();
        self.jobs.spawn(async move {
            // The semaphore is never closed; were it, the reports would only be unbounded.
            let _slot = slots.acquire().await;
            let answer = report::send(client, &task, &status).await;
            Wake::Reported { uid, answer }
        });
    }

    fn forget(&mut self, uid: &Uid) {
        let begun = self.records.get(uid).is_some_and(|r| r.actual.is_some());
        if !begun {
            self.leave_company(uid);
            self.records.remove(uid);
            self.timers.set(uid, None);
            self.deleted.retain(|deleted| deleted != uid);
            return;
        }
        self.busy(uid, true);
        let shims = self.parts.shims.clone();
        let uid = uid.clone();
        self.jobs.spawn_blocking(move || Wake::Forgotten {
            removed: shims.remove(&uid).map_err(|error| describe(&error)),
            uid,
        });
    }

    pub(super) fn busy(&mut self, uid: &Uid, busy: bool) {
        if let Some(record) = self.records.get_mut(uid) {
            record.busy = busy;
        }
    }
}
