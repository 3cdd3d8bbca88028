//! The committer: the one thread that writes.
//!
//! It takes what waits, decides each guarded write in the order in which it came, writes all that
//! hold with one fsync, shows them, and answers. It must never answer before the fsync, not even a
//! conflict: the write that caused the conflict may be in the same group.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};

use super::expiry::{self, Expiring};
use super::log::Log;
use crate::check::{not_yet, write_bytes};
use crate::{
    Batch, Change, Committed, GuardedWrite, NO_CHANGE_INDEX, Op, Revision, StoreError, Version,
};

/// Guarded writes in one group, and in the queue for it: several times as many as clients are
/// expected to wait at once, and few enough to answer within milliseconds.
pub(super) const GROUP_WRITES_MAX: usize = 1_024;

/// Bytes in one group: half a second of a slow disk.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// Compacted changes removed between two groups: some milliseconds.
const FORGET_STEP: usize = 2_000;

pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

pub(super) enum Command {
    Commit {
        write: GuardedWrite,
        reply: Answer<Committed>,
    },
    Compact {
        revision: Revision,
        reply: Answer<()>,
    },
    /// Some time has passed.
    Expire,
}

pub(super) struct Committer {
    log: Arc<Log>,
    published: watch::Sender<Revision>,
    queue: mpsc::Receiver<Command>,
    /// There may be compacted changes to remove.
    forgetful: bool,
    expiring: Expiring,
    superseded_max: usize,
}

impl Committer {
    pub(super) fn new(
        log: Arc<Log>,
        published: watch::Sender<Revision>,
        queue: mpsc::Receiver<Command>,
        expiring: Expiring,
        superseded_max: usize,
    ) -> Committer {
        // A removal may have been cut short by the last exit.
        Committer { log, published, queue, forgetful: true, expiring, superseded_max }
    }

    /// Returns when the store is dropped or the disk fails; after that all writes are refused.
    pub(super) fn run(mut self) {
        let mut waiting = Vec::with_capacity(GROUP_WRITES_MAX);
        while self.receive(&mut waiting) {
            if let Err(error) = self.work_off(&mut waiting) {
                tracing::error!(%error, "the store cannot write any more");
                return;
            }
        }
    }

    /// Takes what waits; while there is something to forget, does not wait for more. False when
    /// nothing will ever come again.
    fn receive(&mut self, waiting: &mut Vec<Command>) -> bool {
        if !self.forgetful {
            return self.queue.blocking_recv_many(waiting, GROUP_WRITES_MAX) != 0;
        }
        while waiting.len() < GROUP_WRITES_MAX {
            match self.queue.try_recv() {
                Ok(command) => waiting.push(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return !waiting.is_empty(),
            }
        }
        true
    }

    fn work_off(&mut self, waiting: &mut Vec<Command>) -> Result<(), fjall::Error> {
        let mut group = Group::begin(self.log.clone());
        let full = self.log.is_full();
        for command in waiting.drain(..) {
            match command {
                Command::Commit { write, reply } if full && !write.frees() => {
                    let _ = reply.send(Err(StoreError::Full(self.log.is_full_because())));
                }
                Command::Commit { write, reply } => {
                    group.decide(write, reply);
                    if group.bytes >= GROUP_BYTES_MAX {
                        group = self.finish(group)?;
                    }
                }
                Command::Compact { revision, reply } => {
                    group = self.finish(group)?;
                    // Nobody waiting for the answer is no reason not to compact.
                    let _ = reply.send(self.compact(revision)?);
                }
                Command::Expire => self.expire(&mut group),
            }
        }
        self.finish(group)?;
        let overgrown = self.log.index().read().overgrown(self.superseded_max);
        if let Some(revision) = overgrown.filter(|_| !self.forgetful) {
            tracing::warn!(
                revision = revision.0,
                "nobody compacts the store, so it does it itself"
            );
            self.log.set_compacted(revision.max(self.log.compacted()))?;
            self.forgetful = true;
        }
        if self.forgetful {
            self.forgetful = self.log.forget(FORGET_STEP)? == FORGET_STEP;
        }
        Ok(())
    }

    /// Makes the group durable, shows and answers it; returns the next, empty one.
    fn finish(&mut self, group: Group) -> Result<Group, fjall::Error> {
        let Group { log, batches, decided, expiring, .. } = group;
        let untils: HashMap<Version, u64> =
            expiring.iter().map(|(until, version, _)| (*version, *until)).collect();
        if !batches.is_empty() {
            let newest = batches[batches.len() - 1].revision;
            if let Err(error) = log.write(&batches, &untils) {
                for (reply, _) in decided {
                    let _ = reply.send(Err(StoreError::UnknownOutcome(error.to_string())));
                }
                return Err(error);
            }
            for (until, version, key) in expiring {
                self.expiring.add(until, version, key);
            }
            log.show(batches);
            self.published.send_replace(newest);
        }
        for (reply, outcome) in decided {
            // The caller may have gone; its write stays.
            let _ = reply.send(outcome);
        }
        Ok(Group::begin(log))
    }

    /// Deletes what is due, as anybody would; a few at a time, so that writers are not held up.
    fn expire(&mut self, group: &mut Group) {
        const STEP: usize = 500;
        let now = expiry::now_ms();
        let mut due = std::iter::from_fn(|| self.expiring.pop_due(now));
        for _ in 0..STEP {
            let Some((version, key)) = due.next() else { return };
            if group.newest(&key) == Some(version) {
                group.take(vec![Op::Delete { key }]);
            }
        }
    }

    fn compact(&mut self, revision: Revision) -> Result<Result<(), StoreError>, fjall::Error> {
        let newest = self.log.newest();
        if revision > newest {
            return Ok(Err(not_yet(revision, newest)));
        }
        if revision > self.log.compacted() {
            self.log.set_compacted(revision)?;
            self.forgetful = true;
        }
        Ok(Ok(()))
    }
}

/// Writes decided but not yet durable.
struct Group {
    log: Arc<Log>,
    revision: Revision,
    batches: Vec<Batch>,
    decided: Vec<(Answer<Committed>, Result<Committed, StoreError>)>,
    /// What the writes of this group did to their keys; the index does not know yet.
    changed: HashMap<Bytes, Option<Version>>,
    bytes: usize,
    /// When which of the versions go.
    expiring: Vec<(u64, Version, Bytes)>,
}

impl Group {
    fn begin(log: Arc<Log>) -> Group {
        let revision = log.newest();
        Group {
            log,
            revision,
            batches: Vec::new(),
            decided: Vec::new(),
            changed: HashMap::new(),
            bytes: 0,
            expiring: Vec::new(),
        }
    }

    fn newest(&self, key: &Bytes) -> Option<Version> {
        match self.changed.get(key) {
            Some(version) => *version,
            None => self.log.index().read().newest(key),
        }
    }

    fn decide(&mut self, write: GuardedWrite, reply: Answer<Committed>) {
        let failed = write
            .compares
            .iter()
            .position(|compare| !compare.holds(self.newest(compare.key()).map(Version::revision)));
        let outcome = match failed {
            Some(compare) => Err(StoreError::Conflict { compare }),
            None => {
                self.bytes += write_bytes(&write);
                Ok(self.take(write.ops))
            }
        };
        self.decided.push((reply, outcome));
    }

    fn take(&mut self, ops: Vec<Op>) -> Committed {
        let revision = Revision(self.revision.0 + 1);
        let mut changes: Vec<Change> = Vec::with_capacity(ops.len());
        let mut versions = Vec::with_capacity(ops.len());
        for op in ops {
            let version = Version::new(revision, changes.len() as u64);
            let (key, value) = match op {
                Op::Put { key, value } => (key, Some(value)),
                Op::PutFor { key, value, ttl } => {
                    self.expiring.push((expiry::until(ttl), version, key.clone()));
                    (key, Some(value))
                }
                Op::Delete { key } if self.newest(&key).is_some() => (key, None),
                Op::Delete { .. } => {
                    versions.push(Version::new(revision, NO_CHANGE_INDEX));
                    continue;
                }
            };
            self.changed.insert(key.clone(), value.is_some().then_some(version));
            versions.push(version);
            changes.push(Change { key, value, version });
        }
        if changes.is_empty() {
            versions.fill(Version::new(self.revision, NO_CHANGE_INDEX));
            return Committed { revision: self.revision, versions };
        }
        self.revision = revision;
        self.batches.push(Batch { revision, changes });
        Committed { revision, versions }
    }
}
