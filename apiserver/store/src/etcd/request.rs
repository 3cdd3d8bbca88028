//! One request to etcd: guarded writes as nested transactions, and what became of each.

use bytes::Bytes;
use etcd_client::{
    Compare as EtcdCompare, CompareOp, GetOptions, GetResponse, PutOptions, Txn, TxnOp,
    TxnOpResponse, TxnResponse,
};

use super::committer::{Pending, only_deletes};
use super::numbering::{self, Numbering};
use super::{Connection, header_revision};
use crate::check::write_bytes;
use crate::{
    COMPARES_PER_WRITE_MAX, Committed, Compare, GuardedWrite, OPS_PER_WRITE_MAX, Op, Revision,
    StoreError, WRITE_BYTES_MAX,
};

/// Operations in a request of several writes, at most. etcd counts the nested transactions and the
/// operations of the largest one against its limit of 128; indexes within a revision end at 255.
const OPS_PER_REQUEST_MAX: usize = 120;

/// Compares that are looked for in several writes, at most: in practice there are two or three.
const IN_COMMON_MAX: usize = 16;

/// Compares that are made once for all writes of a request. Nobody in it changes their keys, and etcd
/// makes all compares before it writes anything: so it is the same where they stand.
#[derive(Debug, Default)]
pub(super) struct InCommon(Vec<Compare>);

impl InCommon {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left for a write to compare by itself, with its place.
    fn without<'w>(
        &self,
        write: &'w GuardedWrite,
    ) -> impl Iterator<Item = (usize, &'w Compare)> + use<'_, 'w> {
        write.compares.iter().enumerate().filter(|(_, compare)| !self.0.contains(compare))
    }
}

/// Compares of keys that the write does not change.
fn foreign(write: &GuardedWrite) -> impl Iterator<Item = &Compare> {
    let changed = |key: &Bytes| write.ops.iter().any(|op| op.key() == key);
    write.compares.iter().filter(move |compare| !changed(compare.key()))
}

/// What became of each write of a request; or why nothing is known of it.
pub(super) type Outcomes = Result<Vec<Result<Committed, StoreError>>, StoreError>;

/// The writes that will share one transaction. No key is written by one and touched by another.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) writes: Vec<Pending>,
    ops: usize,
    /// The most operations or compares in any one write.
    largest: usize,
    bytes: usize,
}

impl Request {
    pub(super) fn has_room_for(&self, write: &GuardedWrite) -> bool {
        let writes = self.writes.len() + 1;
        let largest = self.largest.max(width(write));
        writes == 1
            || (writes + largest <= OPS_PER_WRITE_MAX
                && self.ops + write.ops.len() <= OPS_PER_REQUEST_MAX
                && self.bytes + write_bytes(write) <= WRITE_BYTES_MAX)
    }

    /// Whether a write may come in while etcd has no room. What only deletes goes by itself; what
    /// puts goes alone: etcd 3.4 does not look for puts in nested transactions, and would let them
    /// through.
    pub(super) fn suits_a_full_etcd(&self, write: &GuardedWrite) -> bool {
        let first = self.writes.first();
        first.is_none_or(|first| only_deletes(&first.write) && only_deletes(write))
    }

    pub(super) fn push(&mut self, pending: Pending) {
        self.ops += pending.write.ops.len();
        self.largest = self.largest.max(width(&pending.write));
        self.bytes += write_bytes(&pending.write);
        self.writes.push(pending);
    }

    /// What several of the writes demand of keys that nobody here changes: that a namespace is there,
    /// that a leader leads.
    pub(super) fn in_common(&self) -> InCommon {
        if self.writes.len() < 2 {
            return InCommon::default();
        }
        let mut counts: Vec<(&Compare, usize)> = Vec::new();
        for compare in self.writes.iter().flat_map(|pending| foreign(&pending.write)) {
            match counts.iter().position(|(known, _)| *known == compare) {
                Some(place) => counts[place].1 += 1,
                None if counts.len() < IN_COMMON_MAX => counts.push((compare, 1)),
                None => {}
            }
        }
        let shared = counts.into_iter().filter(|(_, count)| *count > 1);
        InCommon(shared.map(|(compare, _)| compare.clone()).collect())
    }

    /// Whether there is something to gain by [`Request::plain`], and not too much to compare at once.
    pub(super) fn can_be_plain(&self, in_common: &InCommon) -> bool {
        let own = |pending: &Pending| in_common.without(&pending.write).count();
        let compares = in_common.0.len() + self.writes.iter().map(own).sum::<usize>();
        self.writes.len() > 1 && compares <= COMPARES_PER_WRITE_MAX
    }

    /// All compares and all operations of all writes as one plain transaction, which costs etcd less than
    /// nested ones: it lands as a whole if no compare of any write fails, and otherwise nothing of it is
    /// done.
    pub(super) fn plain(&self, connection: &Connection, in_common: &InCommon) -> Txn {
        let mut index = 0;
        let mut all = Vec::with_capacity(in_common.0.len() + self.writes.len());
        let mut ops = Vec::with_capacity(self.ops);
        all.extend(in_common.0.iter().map(|shared| compare(connection, shared)));
        for Pending { write, lease, .. } in &self.writes {
            all.extend(in_common.without(write).map(|(_, own)| compare(connection, own)));
            ops.extend(write.ops.iter().map(|op| operation(connection, op, *lease, &mut index)));
        }
        let txn = Txn::new();
        let txn = if all.is_empty() { txn } else { txn.when(all) };
        txn.and_then(ops)
    }

    /// What became of each write of a plain transaction that landed.
    pub(super) fn plain_outcomes(&self, response: &TxnResponse) -> Outcomes {
        let revision = header_revision(response.header())?;
        let mut numbering = Numbering::of(revision);
        let responses = response.op_responses();
        if responses.len() != self.ops {
            return Err(strange());
        }
        let mut next = 0;
        let each = self.writes.iter().map(|pending| {
            let first = next;
            next += pending.write.ops.len();
            landed(&pending.write, &responses[first..next], revision, first, &mut numbering)
        });
        each.collect()
    }

    /// `in_common` is compared once for all: if that fails nothing is done, and who failed is known
    /// only from a transaction without it.
    pub(super) fn transaction(&self, connection: &Connection, in_common: &InCommon) -> Txn {
        let mut index = 0;
        let mut nested: Vec<Txn> = Vec::with_capacity(self.writes.len());
        for pending in &self.writes {
            nested.push(guarded(connection, pending, in_common, &mut index));
        }
        match nested.pop() {
            Some(only) if nested.is_empty() => only,
            last => {
                nested.extend(last);
                let nested: Vec<_> = nested.into_iter().map(TxnOp::txn).collect();
                let shared: Vec<_> =
                    in_common.0.iter().map(|shared| compare(connection, shared)).collect();
                let all = Txn::new();
                let all = if shared.is_empty() { all } else { all.when(shared) };
                all.and_then(nested)
            }
        }
    }

    /// What became of each write, in their order; of the answer to [`Request::transaction`] with the
    /// same `in_common`, which held.
    pub(super) fn outcomes(&self, response: &TxnResponse, in_common: &InCommon) -> Outcomes {
        let revision = header_revision(response.header())?;
        let mut numbering = Numbering::of(revision);
        let mut next = 0;
        let mut outcome = |write: &GuardedWrite, response: &TxnResponse| {
            let first = next;
            next += write.ops.len();
            if response.succeeded() {
                landed(write, &response.op_responses(), revision, first, &mut numbering)
            } else {
                let compare = failed_compare(write, in_common, response);
                Ok(Err(StoreError::Conflict { compare }))
            }
        };
        if let [only] = &*self.writes {
            return Ok(vec![outcome(&only.write, response)?]);
        }
        let responses = response.op_responses();
        if responses.len() != self.writes.len() {
            return Err(strange());
        }
        let pairs = self.writes.iter().zip(&responses);
        pairs
            .map(|(pending, response)| match response {
                TxnOpResponse::Txn(response) => outcome(&pending.write, response),
                _ => Err(strange()),
            })
            .collect()
    }
}

/// How much of etcd's limit of operations one write needs.
fn width(write: &GuardedWrite) -> usize {
    write.ops.len().max(write.compares.len())
}

fn strange() -> StoreError {
    StoreError::UnknownOutcome("etcd's answer does not fit the transaction".into())
}

/// One guarded write. If one of several compares fails, it reads what the keys are at instead: all but
/// the last, which is the one that failed if none of the others did.
fn guarded(
    connection: &Connection,
    pending: &Pending,
    in_common: &InCommon,
    index: &mut u8,
) -> Txn {
    let Pending { write, lease, .. } = pending;
    let own: Vec<&Compare> = in_common.without(write).map(|(_, compare)| compare).collect();
    let compares: Vec<_> = own.iter().map(|own| compare(connection, own)).collect();
    let ops: Vec<_> = write.ops.iter().map(|op| operation(connection, op, *lease, index)).collect();
    let txn = Txn::new();
    let txn = if compares.is_empty() { txn } else { txn.when(compares) };
    let asked = own.len().saturating_sub(1);
    let states: Vec<_> = own[..asked]
        .iter()
        .map(|compare| {
            let keys_only = GetOptions::new().with_keys_only();
            TxnOp::get(connection.key(compare.key()), Some(keys_only))
        })
        .collect();
    let txn = txn.and_then(ops);
    if states.is_empty() { txn } else { txn.or_else(states) }
}

fn operation(connection: &Connection, op: &Op, lease: i64, index: &mut u8) -> TxnOp {
    let own = *index;
    // A request has at most `OPS_PER_WRITE_MAX` operations, which is less than 256.
    *index += 1;
    match op {
        Op::Put { key, value } => {
            TxnOp::put(connection.key(key), numbering::join(value, own), None)
        }
        Op::PutFor { key, value, .. } => {
            let options = PutOptions::new().with_lease(lease);
            TxnOp::put(connection.key(key), numbering::join(value, own), Some(options))
        }
        Op::Delete { key } => TxnOp::delete(connection.key(key), None),
    }
}

fn compare(connection: &Connection, compare: &Compare) -> EtcdCompare {
    let key = connection.key(compare.key());
    match compare {
        Compare::At { version, .. } => {
            // To etcd an absent key is at revision 0; nothing is ever at the largest one.
            let revision = match i64::try_from(version.revision().0) {
                Ok(0) | Err(_) => i64::MAX,
                Ok(revision) => revision,
            };
            EtcdCompare::mod_revision(key, CompareOp::Equal, revision)
        }
        Compare::Absent { .. } => EtcdCompare::create_revision(key, CompareOp::Equal, 0),
        Compare::Present { .. } => EtcdCompare::create_revision(key, CompareOp::Greater, 0),
    }
}

fn landed(
    write: &GuardedWrite,
    responses: &[TxnOpResponse],
    revision: Revision,
    first: usize,
    numbering: &mut Numbering,
) -> Result<Result<Committed, StoreError>, StoreError> {
    if responses.len() != write.ops.len() {
        return Err(strange());
    }
    let mut versions = Vec::with_capacity(write.ops.len());
    for (place, response) in responses.iter().enumerate() {
        versions.push(match response {
            TxnOpResponse::Put(_) => numbering.put((first + place) as u64),
            TxnOpResponse::Delete(deleted) if deleted.deleted() > 0 => numbering.delete(),
            TxnOpResponse::Delete(_) => numbering.nothing(),
            _ => return Err(strange()),
        });
    }
    Ok(Ok(Committed { revision, versions }))
}

/// The first compare that does not hold for what the keys were at; the last is not asked for.
fn failed_compare(write: &GuardedWrite, in_common: &InCommon, response: &TxnResponse) -> usize {
    let current = |state: &GetResponse| {
        let pair = state.kvs().first()?;
        u64::try_from(pair.mod_revision()).ok().map(Revision)
    };
    let responses = response.op_responses();
    let states = responses.iter().map(|state| match state {
        TxnOpResponse::Get(state) => current(state),
        _ => None,
    });
    let last = in_common.without(write).last().map_or(0, |(place, _)| place);
    let mut checked = in_common.without(write).zip(states);
    let failed = checked.find(|((_, compare), state)| !compare.holds(*state));
    failed.map_or(last, |((place, _), _)| place)
}
