//! The store: one ordered, durable log of guarded writes.
//!
//! Owns keys, revisions, group commit and compaction. Its only caller is the API server. It must
//! never interpret a value: to the store an object is a key and some bytes.
//!
//! Three engines keep the one contract of [`Store`]: [`etcd::EtcdStore`], the embedded
//! [`embedded::EmbeddedStore`], and [`memory::MemoryStore`], the model that tests measure the others
//! by. `tests/contract.rs` is that contract, run against all three.

#![forbid(unsafe_code)]

pub mod backup;
mod check;
pub mod embedded;
pub mod etcd;
pub mod memory;
pub mod renumbered;

pub use check::{
    COMPARES_PER_WRITE_MAX, KEY_BYTES_MAX, OPS_PER_WRITE_MAX, WRITE_BYTES_MAX, write_bytes,
};

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

/// A point in the log: grows by one with every transaction, whatever keys it touches. Zero is the
/// empty store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A single change in the log; what clients see as `resourceVersion`.
///
/// `revision * 256 + index of the change within its transaction`. Guarded writes that shared one
/// transaction share its revision; without the index a client that disconnects in the middle of
/// such a batch and resumes would lose the rest of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// Changes in one transaction, at most: the index has eight bits.
pub const CHANGES_PER_REVISION_MAX: u64 = 256;

/// The index of "no change", behind all changes of its revision: those are fewer.
pub const NO_CHANGE_INDEX: u64 = CHANGES_PER_REVISION_MAX - 1;

impl Version {
    pub const fn new(revision: Revision, index: u64) -> Version {
        Version(revision.0 * CHANGES_PER_REVISION_MAX + index)
    }
    pub const fn revision(self) -> Revision {
        Revision(self.0 / CHANGES_PER_REVISION_MAX)
    }
    pub const fn index(self) -> u64 {
        self.0 % CHANGES_PER_REVISION_MAX
    }
}

/// What must hold for a guarded write to land.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key exists and its last change is in this version's revision.
    At { key: Bytes, version: Version },
    /// The key does not exist.
    Absent { key: Bytes },
    /// The key exists, whatever its version.
    Present { key: Bytes },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put {
        key: Bytes,
        value: Bytes,
    },
    /// A put of a key that goes by itself: not before `ttl` has passed, and soon after. The engine
    /// deletes it as anybody would, and tails see it. Putting the key again, in whatever way,
    /// begins anew.
    PutFor {
        key: Bytes,
        value: Bytes,
        ttl: Duration,
    },
    /// Deleting an absent key is no change and produces no event.
    Delete {
        key: Bytes,
    },
}

/// All of `ops` or nothing, if and only if every compare holds at that point of the log.
/// A key appears at most once in `ops`, and begins with `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardedWrite {
    pub compares: Vec<Compare>,
    pub ops: Vec<Op>,
}

impl GuardedWrite {
    /// It only deletes: a store that is full takes it.
    pub fn frees(&self) -> bool {
        self.ops.iter().all(|op| matches!(op, Op::Delete { .. }))
    }
}

/// A guarded write that landed. `versions[i]` is the version of `ops[i]`.
///
/// A delete that found nothing made no change: its version has [`NO_CHANGE_INDEX`]. If nothing at
/// all was written, `revision` is the one at which the compares held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub revision: Revision,
    pub versions: Vec<Version>,
}

/// One key as it stood at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Bytes,
    pub value: Bytes,
    pub version: Version,
}

/// One change of the log. `value` is `None` when the key was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: Bytes,
    pub value: Option<Bytes>,
    pub version: Version,
}

/// All changes of one revision, in order: never split, never merged with another revision's.
///
/// `changes` is empty when the revision was spent on keys that are not ours (an etcd shared with
/// others); it still says how far the log is. Indexes grow within a batch but may have gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub revision: Revision,
    pub changes: Vec<Change>,
}

#[derive(Clone, Debug)]
pub struct RangeQuery {
    pub prefix: Bytes,
    /// Return keys strictly after this one (for the next page).
    pub after: Option<Bytes>,
    /// Read as of this revision; `None` is now, linearizable.
    pub at: Option<Revision>,
    /// Entries at most; 0 is no limit.
    pub limit: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// The revision that the page was read at.
    pub revision: Revision,
    pub more: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Compare number `compare` of the guarded write did not hold; nothing was written.
    #[error("compare {compare} of the write does not hold")]
    Conflict { compare: usize },
    /// The revision asked for has been compacted away; `oldest` is the first that can be read.
    #[error("revision {} has been compacted, the oldest is {}", .asked.0, .oldest.0)]
    Compacted { asked: Revision, oldest: Revision },
    /// What followed `asked` is not what follows it now: the engine was taken back to an older state
    /// while it was followed.
    #[error("revision {} is not of the history that the store has now", .asked.0)]
    Restored { asked: Revision },
    /// The write may or may not have landed. Read, compare, decide; never just retry.
    #[error("the outcome of the write is unknown: {0}")]
    UnknownOutcome(String),
    /// Nothing was done.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// There is no room. Nothing was done; writes that only delete still work.
    #[error("the store is full: {0}")]
    Full(String),
    /// The write can never succeed as it is (too large, a key twice in one write).
    #[error("the store refuses the write: {0}")]
    Refused(String),
}

/// The log. Cheap to share behind an `Arc`; every method may be called from any task at once.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Returns when the write is durable. Many callers share one transaction and one fsync.
    async fn commit(&self, write: GuardedWrite) -> Result<Committed, StoreError>;
    /// The newest revision, linearizable: at least that of every commit acknowledged before.
    async fn revision(&self) -> Result<Revision, StoreError>;
    /// A revision that is known without asking anybody to be in the log, so that tails will come to
    /// it: at least that of every commit whose caller is being woken. 0 where nothing is known.
    fn landed(&self) -> Revision {
        Revision(0)
    }
    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<Entry>, StoreError>;
    async fn range(&self, query: RangeQuery) -> Result<Page, StoreError>;
    /// Every change after `after`, in order, without gap or duplicate; ends with an error
    /// (`Compacted`, `Unavailable`) or never. One stream over all keys.
    fn tail(&self, after: Revision) -> BoxStream<'static, Result<Batch, StoreError>>;
    /// Forget history before `revision`; current values stay.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;
    /// Returns when nothing but opening it anew mends the store. Most engines mend themselves.
    async fn failed(&self) -> StoreError {
        std::future::pending().await
    }
}
