//! Backups: everything that a store has at one revision, as a file that any engine can be filled
//! from.
//!
//! `CMNBACKUP | format (2 bytes) | revision (8) | taken, in ms since 1970 (8)`, then for each key
//! `length of the key (4) | key | length of the value (4) | value`, then `0xffffffff | count (8) |
//! SHA-256 of everything before it (32)`. Numbers are big endian. Versions are not kept: what is
//! restored gets new ones.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use futures::stream;
use sha2::{Digest, Sha256};

use crate::renumbered::RenumberedStore;
use crate::{
    GuardedWrite, KEY_BYTES_MAX, Op, RangeQuery, Revision, Store, StoreError, WRITE_BYTES_MAX,
};

const MAGIC: &[u8] = b"CMNBACKUP";
const FORMAT: u16 = 1;
const HEAD_BYTES: usize = MAGIC.len() + 2 + 8 + 8;
const DIGEST_BYTES: usize = 32;
/// Where the length of a key would be.
const END: u32 = u32::MAX;

/// Keys read from the store at once.
const PAGE_KEYS: usize = 1_000;

/// More revisions than any store makes in a millisecond, for as long as it runs: what was written
/// between a backup and now has smaller ones than what is restored from it.
const REVISIONS_PER_MS_MAX: u64 = 50;
/// The same for clocks that differ, in revisions: a minute of them.
const CLOCK_MARGIN: u64 = 60_000 * REVISIONS_PER_MS_MAX;

/// What a backup is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    pub revision: Revision,
    pub taken_ms: u64,
    pub keys: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("it is not a backup")]
    NotABackup,
    #[error("it is in format {0}; this version reads format {FORMAT}")]
    Format(u16),
    #[error("it is truncated")]
    Truncated,
    #[error("it is damaged: its checksum does not fit")]
    Damaged,
    #[error("it cannot be read: {0}")]
    Unreadable(std::io::Error),
    #[error("the store is not empty")]
    NotEmpty,
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

enum Step {
    Head,
    Pages { after: Option<Bytes>, at: Revision },
    Done,
}

struct Writer {
    store: Arc<dyn Store>,
    step: Step,
    digest: Sha256,
    keys: u64,
}

/// The bytes of a backup, of the newest revision; the store goes on working meanwhile.
///
/// Fails with `Compacted` if that takes longer than the store remembers; a backup that failed is
/// not complete, and is known by that.
pub fn stream(store: Arc<dyn Store>) -> impl Stream<Item = Result<Bytes, StoreError>> + Send {
    let writer = Writer { store, step: Step::Head, digest: Sha256::new(), keys: 0 };
    stream::unfold(Some(writer), |writer| async {
        let mut writer = writer?;
        let next = writer.next().await.transpose()?;
        let rest = next.is_ok().then_some(writer);
        Some((next, rest))
    })
}

impl Writer {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let mut part = BytesMut::new();
        match &mut self.step {
            Step::Head => {
                let at = self.store.revision().await?;
                part.put_slice(MAGIC);
                part.put_u16(FORMAT);
                part.put_u64(at.0);
                part.put_u64(now_ms());
                self.step = Step::Pages { after: None, at };
            }
            Step::Pages { after, at } => {
                let query = RangeQuery {
                    prefix: Bytes::new(),
                    after: after.take(),
                    at: Some(*at),
                    limit: PAGE_KEYS,
                };
                let page = self.store.range(query).await?;
                for entry in &page.entries {
                    put_part(&mut part, &entry.key);
                    put_part(&mut part, &entry.value);
                    self.keys += 1;
                }
                *after = page.entries.last().map(|entry| entry.key.clone());
                if !page.more {
                    part.put_u32(END);
                    part.put_u64(self.keys);
                    self.digest.update(&part);
                    part.put_slice(&self.digest.clone().finalize());
                    self.step = Step::Done;
                    return Ok(Some(part.freeze()));
                }
            }
            Step::Done => return Ok(None),
        }
        self.digest.update(&part);
        Ok(Some(part.freeze()))
    }
}

fn put_part(to: &mut BytesMut, bytes: &[u8]) {
    to.put_u32(u32::try_from(bytes.len()).expect("keys and values are bounded far below"));
    to.put_slice(bytes);
}

/// Reads a backup, one key after the other; the end is checked when it is reached.
pub struct Reader<R> {
    from: R,
    digest: Sha256,
    about: About,
}

impl<R: Read> Reader<R> {
    /// # Errors
    ///
    /// `NotABackup`, `Format`, `Truncated`.
    pub fn new(mut from: R) -> Result<Reader<R>, BackupError> {
        let mut head = [0; HEAD_BYTES];
        let mut read = 0;
        while read < HEAD_BYTES {
            match from.read(&mut head[read..]).map_err(BackupError::Unreadable)? {
                0 => break,
                count => read += count,
            }
        }
        let magic = &head[..read.min(MAGIC.len())];
        if magic.is_empty() || !MAGIC.starts_with(magic) {
            return Err(BackupError::NotABackup);
        }
        if read < HEAD_BYTES {
            return Err(BackupError::Truncated);
        }
        let rest = &head[MAGIC.len()..];
        let format = u16::from_be_bytes([rest[0], rest[1]]);
        if format != FORMAT {
            return Err(BackupError::Format(format));
        }
        let number = |at: usize| {
            u64::from_be_bytes(rest[at..at + 8].try_into().expect("the head is this long"))
        };
        let about = About { revision: Revision(number(2)), taken_ms: number(10), keys: 0 };
        Ok(Reader { from, digest: Sha256::new_with_prefix(head), about })
    }

    /// The next key and its value; `None` at an end that is as it should be.
    pub fn next_pair(&mut self) -> Result<Option<(Bytes, Bytes)>, BackupError> {
        let length = self.number()?;
        if length == END {
            let count = self.take(8)?;
            let count = u64::from_be_bytes((&*count).try_into().expect("eight were taken"));
            let expected = self.digest.clone().finalize();
            let found = self.take(DIGEST_BYTES)?;
            return match found == expected[..] && count == self.about.keys {
                true => Ok(None),
                false => Err(BackupError::Damaged),
            };
        }
        let key = self.bounded(length, KEY_BYTES_MAX)?;
        let length = self.number()?;
        let value = self.bounded(length, WRITE_BYTES_MAX)?;
        self.about.keys += 1;
        Ok(Some((key, value)))
    }

    /// What is known so far; after the end, all of it.
    pub fn about(&self) -> About {
        self.about
    }

    fn number(&mut self) -> Result<u32, BackupError> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes((&*bytes).try_into().expect("four were taken")))
    }

    fn bounded(&mut self, length: u32, max: usize) -> Result<Bytes, BackupError> {
        match usize::try_from(length) {
            Ok(length) if length <= max => self.take(length),
            _ => Err(BackupError::Damaged),
        }
    }

    fn take(&mut self, count: usize) -> Result<Bytes, BackupError> {
        let mut bytes = vec![0; count];
        self.from.read_exact(&mut bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => BackupError::Truncated,
            _ => BackupError::Unreadable(error),
        })?;
        self.digest.update(&bytes);
        Ok(bytes.into())
    }
}

/// Reads a backup to its end, to see that it is whole.
pub fn verify(from: impl Read) -> Result<About, BackupError> {
    let mut reader = Reader::new(from)?;
    while reader.next_pair()?.is_some() {}
    Ok(reader.about())
}

/// Fills an empty store. Its revisions begin behind all that can have been made since the backup
/// was taken, so that none comes a second time with another meaning; returns the newest one.
///
/// A backup does not know what was to expire when: `ttl_of` tells of each key how long it is to stay,
/// `None` for ever.
///
/// Verify the backup first: what fails in the middle leaves a part behind.
pub async fn restore(
    store: &RenumberedStore,
    backup: &mut Reader<impl Read>,
    ttl_of: impl Fn(&[u8]) -> Option<Duration>,
) -> Result<Revision, BackupError> {
    let query = RangeQuery { prefix: Bytes::new(), after: None, at: None, limit: 1 };
    if !store.range(query).await?.entries.is_empty() {
        return Err(BackupError::NotEmpty);
    }
    let About { revision, taken_ms, .. } = backup.about();
    let since = now_ms().saturating_sub(taken_ms).saturating_mul(REVISIONS_PER_MS_MAX);
    let begin = revision.0.saturating_add(since).saturating_add(CLOCK_MARGIN);
    store.begin_after(Revision(begin)).await?;
    let mut write = GuardedWrite::default();
    loop {
        let next = backup.next_pair()?;
        let is_end = next.is_none();
        if let Some((key, value)) = next {
            write.ops.push(match ttl_of(&key) {
                Some(ttl) => Op::PutFor { key, value, ttl },
                None => Op::Put { key, value },
            });
            let fits = crate::write_bytes(&write) <= WRITE_BYTES_MAX;
            if fits && write.ops.len() < crate::OPS_PER_WRITE_MAX {
                continue;
            }
            if !fits && write.ops.len() > 1 {
                let last = write.ops.pop();
                store.commit(std::mem::take(&mut write)).await?;
                write.ops.extend(last);
                continue;
            }
        }
        if !write.ops.is_empty() {
            store.commit(std::mem::take(&mut write)).await?;
        }
        if is_end {
            break;
        }
    }
    let newest = store.revision().await?;
    store.compact(newest).await?;
    Ok(newest)
}

#[cfg(test)]
mod tests;
