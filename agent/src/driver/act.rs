//! Carrying out: each action becomes a job that ends in a [`Wake`].

use super::*;

impl Driver {
    pub(super) fn act(&mut self, uid: &Uid, action: Action) {
        match action {
            Action::Launch(launch) => self.launch(uid, *launch),
            Action::OrderKill(order) => self.order_kill(uid, order),
            Action::Signal(signal) => self.signal(uid, signal),
            Action::Watch => self.watch(uid),
            Action::Report(status) => self.report(uid, *status),
            Action::Forget => self.forget(uid),
        }
    }

    fn launch(&mut self, uid: &Uid, mut launch: Launch) {
        let Some(record) = self.records.get_mut(uid) else {
            return;
        };
        let Some(task) = &record.desired else { return };
        if self.launches.under_way >= self.launches.max {
            if !self.launches.waiting.contains(uid) {
                self.launches.waiting.push_back(uid.clone());
            }
            return;
        }
        let entry = Entry {
            uid: uid.clone(),
            namespace: task.namespace().unwrap_or_default(),
            name: task.name_any(),
            boot_id: self.parts.boot_id.clone(),
            kill: None,
        };
        launch.sandbox = self.parts.ledger.sandbox(uid);
        record.busy = true;
        record.actual = Some(Actual::launching(entry.clone(), Timestamp::now()));
        self.launches.under_way += 1;
        let shims = self.parts.shims.clone();
        let uid = uid.clone();
        self.jobs
            .spawn_blocking(move || Wake::Launched { uid, seen: shims.start(&entry, &launch) });
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
