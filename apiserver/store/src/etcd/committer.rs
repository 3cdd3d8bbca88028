//! The committer: packs the writes that wait into transactions, and keeps those apart that touch
//! the same keys.
//!
//! etcd decides all compares of a transaction before it writes any of it, and transactions that are
//! on the way at once land in any order. So a key that a write changes must not be touched by
//! another one that is in the same transaction, or on the way. Writes that only compare a key (the
//! fence of a leader) may go together.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Txn, TxnResponse};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::request::{InCommon, Outcomes, Request};
use super::{Connection, fault};
use crate::{Committed, GuardedWrite, Op, StoreError};

/// Writes queued, at most; callers wait for room.
pub(super) const QUEUE_WRITES_MAX: usize = 1_024;

/// Writes taken out of the queue but not sent yet, at most: they wait for a key, and all of them are
/// looked at for each request.
const WAITING_WRITES_MAX: usize = 1_024;

/// How long after a transaction the next one goes while that one is still on its way. One to an etcd nearby
/// takes about as long when thirty writers keep two cores busy, and less otherwise; over a network of some
/// milliseconds two or three are on their way.
const REQUEST_SPACING: Duration = Duration::from_millis(3);

/// How long a transaction waits, when none is on its way, for those to come back whom the last one
/// answered. Without it they and those who waited meanwhile take turns for ever, and each transaction is
/// half as large as it could be: etcd's cost is that of the transaction, much more than that of a write.
const GATHER_TIME_MAX: Duration = Duration::from_millis(1);

/// Of so many in ten who may come: the rest may be busy, or gone.
const GATHER_OF_TEN: usize = 7;

/// Fewer are not waited for.
const GATHERED_MIN: usize = 8;

/// After a conflict so many requests are sent as nested transactions at once: as plain ones they would
/// be sent twice if another write of theirs fails too.
const NESTED_AFTER_CONFLICT: usize = 16;

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) write: GuardedWrite,
    /// What its expiring keys are bound to; 0 without any.
    pub(super) lease: i64,
    pub(super) reply: oneshot::Sender<Result<Committed, StoreError>>,
}

pub(super) struct Committer {
    connection: Connection,
    queue: mpsc::Receiver<Pending>,
    waiting: VecDeque<Pending>,
    /// Keys of the writes on the way.
    held: Keys,
    on_the_way: FuturesUnordered<BoxFuture<'static, (Request, Outcomes)>>,
    requests_max: usize,
    /// No other goes before, if one is on its way.
    next_at: Instant,
    /// If none is on its way, the next one goes when so many writes wait, or then.
    gather: (usize, Instant),
    /// Requests that are not to be plain transactions.
    nested: usize,
    /// The newest revision of what was written.
    landed: Arc<AtomicU64>,
    /// etcd has no room: see [`Request::suits_a_full_etcd`].
    full: bool,
}

impl Committer {
    pub(super) fn new(
        connection: Connection,
        queue: mpsc::Receiver<Pending>,
        requests_max: usize,
        landed: Arc<AtomicU64>,
    ) -> Committer {
        Committer {
            connection,
            queue,
            waiting: VecDeque::new(),
            held: Keys::default(),
            on_the_way: FuturesUnordered::new(),
            requests_max,
            next_at: Instant::now(),
            gather: (0, Instant::now()),
            nested: 0,
            landed,
            full: false,
        }
    }

    /// Returns when the store is dropped and all its writes are answered.
    pub(super) async fn run(mut self) {
        let mut arrived = Vec::new();
        let mut open = true;
        loop {
            while self.is_due() {
                let request = self.pack();
                if request.writes.is_empty() {
                    break;
                }
                self.send(request);
            }
            if !open && self.waiting.is_empty() && self.on_the_way.is_empty() {
                return;
            }
            // Whoever waits for a key that is held waits for an answer.
            let (at, waits) = match self.on_the_way.len() {
                0 => (self.gather.1, true),
                on_the_way => {
                    let has_room = on_the_way < self.requests_max;
                    (self.next_at, has_room && Instant::now() < self.next_at)
                }
            };
            let later = waits && !self.waiting.is_empty();
            let room = WAITING_WRITES_MAX.saturating_sub(self.waiting.len());
            tokio::select! {
                biased;
                Some((request, outcomes)) = self.on_the_way.next() => self.finish(request, outcomes),
                count = self.queue.recv_many(&mut arrived, room), if open && room > 0 => {
                    open = count > 0;
                    self.waiting.extend(arrived.drain(..));
                }
                () = tokio::time::sleep_until(at), if later => {}
            }
        }
    }

    /// Whether a request may go now.
    fn is_due(&self) -> bool {
        let (enough, until) = self.gather;
        match self.on_the_way.len() {
            0 => self.waiting.len() >= enough || Instant::now() >= until,
            on_the_way => on_the_way < self.requests_max && Instant::now() >= self.next_at,
        }
    }

    /// The next request: the oldest writes whose keys are free, in their order.
    fn pack(&mut self) -> Request {
        let mut request = Request::default();
        // Keys of writes passed over: nobody who came later may overtake them.
        let mut passed_keys = Keys::default();
        let mut passed: Vec<Pending> = Vec::new();
        while let Some(pending) = self.waiting.pop_front() {
            let busy = !self.held.are_free_for(&pending.write)
                || !passed_keys.are_free_for(&pending.write);
            if busy || (self.full && !request.suits_a_full_etcd(&pending.write)) {
                passed_keys.hold(&pending.write);
                passed.push(pending);
            } else if request.has_room_for(&pending.write) {
                self.held.hold(&pending.write);
                request.push(pending);
            } else {
                self.waiting.push_front(pending);
                break;
            }
        }
        passed.into_iter().rev().for_each(|pending| self.waiting.push_front(pending));
        request
    }

    fn send(&mut self, request: Request) {
        let connection = self.connection.clone();
        self.next_at = Instant::now() + REQUEST_SPACING;
        let plain = self.nested == 0;
        self.nested = self.nested.saturating_sub(1);
        self.on_the_way.push(Box::pin(async move {
            let outcomes = settle(&connection, &request, plain).await;
            (request, outcomes)
        }));
    }

    /// Sets what the next request waits for.
    fn gather(&mut self, answered: &Outcomes) {
        let back = answered.as_ref().map_or(0, Vec::len);
        let expected = match back + self.waiting.len() {
            few if few < GATHERED_MIN => 0,
            expected => expected,
        };
        self.gather = (expected * GATHER_OF_TEN / 10, Instant::now() + GATHER_TIME_MAX);
    }

    fn finish(&mut self, request: Request, outcomes: Outcomes) {
        self.gather(&outcomes);
        for pending in &request.writes {
            self.held.release(&pending.write);
        }
        let deletes_only = request.writes.iter().all(|pending| only_deletes(&pending.write));
        // The callers may have gone; their writes stay.
        match outcomes {
            Ok(outcomes) => {
                self.full &= deletes_only;
                let is_conflict = |outcome| matches!(outcome, &Err(StoreError::Conflict { .. }));
                if outcomes.iter().any(is_conflict) {
                    self.nested = NESTED_AFTER_CONFLICT;
                }
                // All that landed did so at one revision. (One that changed nothing names an older one.)
                let revisions = outcomes.iter().flatten().map(|committed| committed.revision.0);
                if let Some(newest) = revisions.max() {
                    self.landed.fetch_max(newest, Ordering::AcqRel);
                }
                for (pending, outcome) in request.writes.into_iter().zip(outcomes) {
                    let _ = pending.reply.send(outcome);
                }
            }
            Err(error) => {
                tracing::warn!(%error, writes = request.writes.len(), "a transaction failed");
                let full = matches!(error, StoreError::Full(_));
                if full {
                    self.full = true;
                }
                for pending in request.writes.into_iter().rev() {
                    // Nothing of it was done; alone, what only deletes is let through.
                    if full && !deletes_only && only_deletes(&pending.write) {
                        self.waiting.push_front(pending);
                        continue;
                    }
                    let _ = pending.reply.send(Err(again(&error)));
                }
            }
        }
    }
}

/// Has a request done; as a plain transaction first, if it may be one.
async fn settle(connection: &Connection, request: &Request, plain: bool) -> Outcomes {
    let in_common = request.in_common();
    if plain && request.can_be_plain(&in_common) {
        let response = ask(connection, || request.plain(connection, &in_common)).await?;
        if response.succeeded() {
            return request.plain_outcomes(&response);
        }
        // Nothing of it was done.
    }
    let response = ask(connection, || request.transaction(connection, &in_common)).await?;
    if in_common.is_empty() || response.succeeded() {
        return request.outcomes(&response, &in_common);
    }
    // Nothing of it was done.
    let each_by_itself = InCommon::default();
    let response = ask(connection, || request.transaction(connection, &each_by_itself)).await?;
    request.outcomes(&response, &each_by_itself)
}

/// Sends a transaction to one member; to the next one only when it surely was not done.
async fn ask(
    connection: &Connection,
    transaction: impl Fn() -> Txn,
) -> Result<TxnResponse, StoreError> {
    let Connection { members, timeout, .. } = connection;
    let mut left = members.count();
    loop {
        let member = members.current();
        let mut kv = member.kv.clone();
        let error = match tokio::time::timeout(*timeout, kv.txn(transaction())).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => error,
            Err(_) => {
                members.leave(member);
                return Err(StoreError::UnknownOutcome(format!("no answer within {timeout:?}")));
            }
        };
        if fault::is_of_member(&error) {
            members.leave(member);
        }
        left -= 1;
        if left == 0 || !fault::surely_not_sent(&error) {
            return Err(fault::of_write(&error));
        }
    }
}

/// Which etcd does even when it has no room left.
pub(super) fn only_deletes(write: &GuardedWrite) -> bool {
    write.ops.iter().all(|op| matches!(op, Op::Delete { .. }))
}

/// One error for each of those that shared it.
pub(super) fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Refused(why) => StoreError::Refused(why.clone()),
        StoreError::Unavailable(why) => StoreError::Unavailable(why.clone()),
        StoreError::Full(why) => StoreError::Full(why.clone()),
        error => StoreError::UnknownOutcome(error.to_string()),
    }
}

/// Keys and how they are held: by one who changes them, or by any number who compare them.
#[derive(Debug, Default)]
struct Keys(HashMap<Bytes, Hold>);

#[derive(Debug, Default)]
struct Hold {
    changed: bool,
    holders: usize,
}

impl Keys {
    fn are_free_for(&self, write: &GuardedWrite) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let unchanged = |key| self.0.get(key).is_none_or(|hold: &Hold| !hold.changed);
        write.ops.iter().map(Op::key).all(|key| !self.0.contains_key(key))
            && write.compares.iter().map(|compare| compare.key()).all(unchanged)
    }

    fn hold(&mut self, write: &GuardedWrite) {
        for op in &write.ops {
            let hold = self.0.entry(op.key().clone()).or_default();
            hold.changed = true;
            hold.holders += 1;
        }
        for compare in &write.compares {
            self.0.entry(compare.key().clone()).or_default().holders += 1;
        }
    }

    fn release(&mut self, write: &GuardedWrite) {
        let compared = write.compares.iter().map(|compare| compare.key());
        for key in write.ops.iter().map(Op::key).chain(compared) {
            if let Some(hold) = self.0.get_mut(key) {
                hold.holders -= 1;
                if hold.holders == 0 {
                    self.0.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Compare;

    fn write(changes: &[&'static str], compares: &[&'static str]) -> GuardedWrite {
        let key = |key: &&'static str| Bytes::from_static(key.as_bytes());
        GuardedWrite {
            ops: changes.iter().map(|k| Op::Delete { key: key(k) }).collect(),
            compares: compares.iter().map(|k| Compare::Present { key: key(k) }).collect(),
        }
    }

    #[test]
    fn comparing_a_key_is_shared_and_changing_it_is_not() {
        let mut keys = Keys::default();
        keys.hold(&write(&["/a"], &["/a", "/fence"]));
        assert!(keys.are_free_for(&write(&["/b"], &["/fence", "/b"])));
        assert!(!keys.are_free_for(&write(&["/fence"], &[])));
        assert!(!keys.are_free_for(&write(&[], &["/a"])));
        keys.hold(&write(&["/b"], &["/fence"]));
        keys.release(&write(&["/a"], &["/a", "/fence"]));
        assert!(keys.are_free_for(&write(&["/a"], &[])));
        assert!(!keys.are_free_for(&write(&["/fence"], &[])));
        keys.release(&write(&["/b"], &["/fence"]));
        assert!(keys.0.is_empty());
    }
}
