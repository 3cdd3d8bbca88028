//! What every engine checks alike: the bounds of a guarded write, and which revisions can be read.
//!
//! The bounds are etcd's, with its default flags. The other engines keep them too, so that nothing
//! works on one machine and fails on a cluster.

use std::collections::HashSet;

use crate::{Compare, GuardedWrite, Op, Revision, StoreError};

/// Puts and deletes in one guarded write, at most: etcd's default `--max-txn-ops`.
pub const OPS_PER_WRITE_MAX: usize = 128;

/// Compares in one guarded write, at most: etcd counts them against the same limit.
pub const COMPARES_PER_WRITE_MAX: usize = 128;

/// Bytes of one guarded write, at most, by [`write_bytes`]: etcd's default `--max-request-bytes`.
pub const WRITE_BYTES_MAX: usize = 1_536 * 1_024;

/// Bytes of one key, at most: a group, a resource, a namespace and a name of 253 bytes each, twice
/// over.
pub const KEY_BYTES_MAX: usize = 2_048;

/// Framing and key prefix of one operation on the wire, in bytes, rounded up.
const FRAME_BYTES: usize = 96;

/// What a guarded write takes in a request to etcd, in bytes, never less than it really does.
pub fn write_bytes(write: &GuardedWrite) -> usize {
    let ops: usize = write.ops.iter().map(op_bytes).sum();
    // A compare travels twice: as itself, and as the read that finds out which one failed.
    let compares: usize =
        write.compares.iter().map(|compare| 2 * (compare.key().len() + FRAME_BYTES)).sum();
    ops + compares
}

fn op_bytes(op: &Op) -> usize {
    match op {
        Op::Put { key, value } | Op::PutFor { key, value, .. } => {
            key.len() + value.len() + FRAME_BYTES
        }
        Op::Delete { key } => key.len() + FRAME_BYTES,
    }
}

/// Refuses a write which could never succeed.
pub(crate) fn check_write(write: &GuardedWrite) -> Result<(), StoreError> {
    let refuse = |why: String| Err(StoreError::Refused(why));
    if write.ops.len() > OPS_PER_WRITE_MAX {
        return refuse(format!(
            "{} changes in one write, at most {OPS_PER_WRITE_MAX} are allowed",
            write.ops.len()
        ));
    }
    if write.compares.len() > COMPARES_PER_WRITE_MAX {
        return refuse(format!(
            "{} compares in one write, at most {COMPARES_PER_WRITE_MAX} are allowed",
            write.compares.len()
        ));
    }
    let bytes = write_bytes(write);
    if bytes > WRITE_BYTES_MAX {
        return refuse(format!(
            "{bytes} bytes in one write, at most {WRITE_BYTES_MAX} are allowed"
        ));
    }
    for key in write.ops.iter().map(Op::key).chain(write.compares.iter().map(Compare::key)) {
        if key.len() > KEY_BYTES_MAX {
            let bytes = key.len();
            return refuse(format!("a key of {bytes} bytes, at most {KEY_BYTES_MAX} are allowed"));
        }
        if !key.starts_with(b"/") {
            return refuse(format!("a key must begin with /: {}", key.escape_ascii()));
        }
    }
    check_distinct(&write.ops)
}

/// Refuses a range over keys that cannot exist.
pub(crate) fn check_prefix(prefix: &[u8]) -> Result<(), StoreError> {
    if prefix.is_empty() || prefix.starts_with(b"/") {
        return Ok(());
    }
    Err(StoreError::Refused(format!("a prefix must begin with /: {}", prefix.escape_ascii())))
}

fn check_distinct(ops: &[Op]) -> Result<(), StoreError> {
    let twice = |key: &[u8]| {
        StoreError::Refused(format!("the key {} twice in one write", key.escape_ascii()))
    };
    // Nearly every write has one or two operations: no set for those.
    if ops.len() <= 8 {
        for (index, op) in ops.iter().enumerate() {
            if ops[..index].iter().any(|earlier| earlier.key() == op.key()) {
                return Err(twice(op.key()));
            }
        }
        return Ok(());
    }
    let mut seen = HashSet::with_capacity(ops.len());
    match ops.iter().find(|op| !seen.insert(op.key())) {
        Some(op) => Err(twice(op.key())),
        None => Ok(()),
    }
}

/// The revision to read at, when `at` was asked for in a log that reaches from `oldest` to `newest`.
pub(crate) fn check_read(
    at: Option<Revision>,
    oldest: Revision,
    newest: Revision,
) -> Result<Revision, StoreError> {
    match at {
        None => Ok(newest),
        Some(asked) if asked < oldest => Err(StoreError::Compacted { asked, oldest }),
        Some(asked) if asked > newest => Err(not_yet(asked, newest)),
        Some(asked) => Ok(asked),
    }
}

/// Somebody asks for a revision that the log has not reached: a made-up number, or a store that was
/// restored from a backup. Waiting for it could take for ever.
pub(crate) fn not_yet(asked: Revision, newest: Revision) -> StoreError {
    StoreError::Unavailable(format!(
        "revision {} has not happened yet, the newest is {}",
        asked.0, newest.0
    ))
}

impl Op {
    pub(crate) fn key(&self) -> &bytes::Bytes {
        match self {
            Op::Put { key, .. } | Op::PutFor { key, .. } | Op::Delete { key } => key,
        }
    }
}

impl Compare {
    pub(crate) fn key(&self) -> &bytes::Bytes {
        match self {
            Compare::At { key, .. } | Compare::Absent { key } | Compare::Present { key } => key,
        }
    }

    /// Whether it holds for a key that is at `current`, or absent.
    pub(crate) fn holds(&self, current: Option<Revision>) -> bool {
        match self {
            Compare::At { version, .. } => current == Some(version.revision()),
            Compare::Absent { .. } => current.is_none(),
            Compare::Present { .. } => current.is_some(),
        }
    }
}
