//! The log on disk with its index: what the committer writes, and readers and tails read.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::EmbeddedOptions;
use super::expiry::Expiring;
use super::index::Index;
use super::record;
use crate::{Batch, Change, Entry, Revision, StoreError, Version};

/// Grows when the shape of the records does.
const FORMAT: &[u8] = b"1";

/// What is said about the log lies in it, behind all versions, whose first bit is 0. In a keyspace
/// of its own, hardly ever written and so hardly ever flushed, it would keep all old journals alive.
const ABOUT: [u8; 1] = [0xff];
const FORMAT_KEY: &[u8] = b"\xff format";
const COMPACTED_KEY: &[u8] = b"\xff compacted";

/// Versions are close together when no more revisions lie between them.
const CLOSE_REVISIONS: u64 = 8;
/// So many versions in a row that are close together are worth reading through.
const RUN_VERSIONS_MIN: usize = 16;

/// Room on the disk that is left alone: for the tables of what is only in the journal yet (64 MiB, and the next
/// while they are written), a group, and deletes. A table that can't be written is the end of the log.
const ROOM_BYTES: u64 = 256 << 20;
/// On a small disk, this part of it: one in so many. All that is on it may have to be written once more.
const ROOM_ONE_IN: u64 = 2;

pub(super) struct Log {
    dir: PathBuf,
    database: Database,
    changes: Keyspace,
    index: RwLock<Index>,
    recent: Mutex<Recent>,
    /// The oldest revision that can be read.
    compacted: AtomicU64,
    published: watch::Receiver<Revision>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("newest", &self.newest()).finish_non_exhaustive()
    }
}

/// The newest batches, for tails that keep up.
#[derive(Debug)]
struct Recent {
    batches: VecDeque<Batch>,
    bytes: usize,
    bytes_max: usize,
}

impl Recent {
    fn push(&mut self, batch: Batch) {
        self.bytes += batch_bytes(&batch);
        self.batches.push_back(batch);
        while self.bytes > self.bytes_max && self.batches.len() > 1 {
            let Some(oldest) = self.batches.pop_front() else {
                break;
            };
            self.bytes -= batch_bytes(&oldest);
        }
    }
}

fn batch_bytes(batch: &Batch) -> usize {
    /// The structures around a change, in bytes.
    const OVERHEAD_BYTES: usize = 128;
    let bytes = |change: &Change| {
        change.key.len() + change.value.as_ref().map_or(0, |value| value.len()) + OVERHEAD_BYTES
    };
    batch.changes.iter().map(bytes).sum()
}

pub(super) fn broken(what: &str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("{what}: {error}"))
}

impl Log {
    /// The sender publishes the newest revision; dropping it ends all tails.
    pub(super) fn open(
        dir: &Path,
        options: &EmbeddedOptions,
    ) -> Result<(Log, watch::Sender<Revision>, Expiring), StoreError> {
        let builder = Database::builder(dir).cache_size(options.cache_bytes);
        let database = builder.open().map_err(|error| match error {
            fjall::Error::Locked => StoreError::Unavailable(format!(
                "{} is open in another process; one directory can serve only one",
                dir.display()
            )),
            error => broken(&format!("cannot open {}", dir.display()), error),
        })?;
        let changes = database
            .keyspace("log", KeyspaceCreateOptions::default)
            .map_err(|error| broken("cannot open the log", error))?;
        let compacted = read_about(&database, &changes)?;
        let (index, newest, expiring) = read_index(&changes)?;
        let newest = newest.max(compacted);
        let published = watch::Sender::new(newest);
        let log = Log {
            dir: dir.to_owned(),
            database,
            changes,
            index: RwLock::new(index),
            recent: Mutex::new(Recent {
                batches: VecDeque::new(),
                bytes: 0,
                bytes_max: options.recent_bytes,
            }),
            compacted: AtomicU64::new(compacted.0),
            published: published.subscribe(),
        };
        Ok((log, published, expiring))
    }

    pub(super) fn newest(&self) -> Revision {
        *self.published.borrow()
    }

    pub(super) fn published(&self) -> watch::Receiver<Revision> {
        self.published.clone()
    }

    pub(super) fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Ordering::Acquire))
    }

    pub(super) fn index(&self) -> &RwLock<Index> {
        &self.index
    }

    /// The key and value of a version; `None` if it has been compacted away.
    pub(super) fn entry(&self, version: Version) -> Result<Option<Entry>, StoreError> {
        let read = self.changes.get(record::position(version));
        let Some(bytes) = read.map_err(|error| broken("cannot read the log", error))? else {
            return Ok(None);
        };
        let change = record::decode(version, bytes.into())
            .map_err(|error| broken("cannot read the log", error))?;
        Ok(change.value.map(|value| Entry { key: change.key, value, version }))
    }

    /// As [`Log::entry`], of many versions in order. Where they lie close together the log is read
    /// through, which costs a tenth of looking for each of them.
    pub(super) fn entries(&self, versions: &[Version]) -> Result<Vec<Option<Entry>>, StoreError> {
        let close = |a: &Version, b: &Version| b.revision().0 - a.revision().0 <= CLOSE_REVISIONS;
        let mut entries = Vec::with_capacity(versions.len());
        for run in versions.chunk_by(close) {
            if run.len() < RUN_VERSIONS_MIN {
                for &version in run {
                    entries.push(self.entry(version)?);
                }
                continue;
            }
            let positions = record::position(run[0])..=record::position(run[run.len() - 1]);
            let mut wanted = run.iter().peekable();
            for change in self.changes.range(positions) {
                let (position, record) = read_record(change)?;
                let version = record::version_at(&position);
                // Those that are gone from the log.
                while wanted.next_if(|next| version.is_some_and(|at| at > **next)).is_some() {
                    entries.push(None);
                }
                if wanted.next_if(|next| version == Some(**next)).is_some() {
                    let Change { key, value, version } = change_of(&position, record)?;
                    entries.push(value.map(|value| Entry { key, value, version }));
                }
            }
            entries.extend(wanted.map(|_| None));
        }
        Ok(entries)
    }

    /// A version that the index knows is not in the log. That is so only while it is being
    /// compacted away, so that by now more is compacted than `before`.
    pub(super) fn check_still_readable(
        &self,
        before: Revision,
        missing: Version,
    ) -> Result<(), StoreError> {
        if self.compacted() > before {
            return Ok(());
        }
        Err(broken("the log is damaged", format!("version {} is missing", missing.0)))
    }

    /// Whether there is no room but what is left alone. A disk that can't be asked has room.
    pub(super) fn is_full(&self) -> bool {
        rustix::fs::statvfs(&self.dir).is_ok_and(|disk| {
            let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
            bytes(disk.f_bavail) < ROOM_BYTES.min(bytes(disk.f_blocks) / ROOM_ONE_IN)
        })
    }

    pub(super) fn is_full_because(&self) -> String {
        format!("the disk of {} has no room left", self.dir.display())
    }

    /// Makes `batches` durable, all or nothing; with when which of them go.
    pub(super) fn write(
        &self,
        batches: &[Batch],
        untils: &HashMap<Version, u64>,
    ) -> Result<(), fjall::Error> {
        let mut durable = self.database.batch().durability(Some(PersistMode::SyncData));
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            let until = untils.get(&change.version).copied();
            let record = record::encode(change, until);
            durable.insert(&self.changes, record::position(change.version), record);
        }
        durable.commit()
    }

    /// Lets readers and tails see what has been written.
    pub(super) fn show(&self, batches: Vec<Batch>) {
        {
            let mut index = self.index.write();
            batches.iter().flat_map(|batch| &batch.changes).for_each(|change| index.apply(change));
        }
        let mut recent = self.recent.lock();
        batches.into_iter().for_each(|batch| recent.push(batch));
    }

    /// From here on no revision before `oldest` can be read, even after a restart.
    pub(super) fn set_compacted(&self, oldest: Revision) -> Result<(), fjall::Error> {
        let mut durable = self.database.batch().durability(Some(PersistMode::SyncData));
        durable.insert(&self.changes, COMPACTED_KEY, oldest.0.to_be_bytes());
        durable.commit()?;
        self.compacted.store(oldest.0, Ordering::Release);
        Ok(())
    }

    /// Removes up to `limit` changes that nobody can read any more, and says how many. They come
    /// back to the list when the process dies before this is durable.
    pub(super) fn forget(&self, limit: usize) -> Result<usize, fjall::Error> {
        let forgotten = self.index.write().forget(self.compacted(), limit);
        let mut removal = self.database.batch();
        for version in &forgotten {
            removal.remove(&self.changes, record::position(*version));
        }
        removal.commit()?;
        Ok(forgotten.len())
    }

    /// Up to `limit` batches that follow `position`, if they are all still in memory.
    pub(super) fn recent_after(&self, position: Revision, limit: usize) -> Option<Vec<Batch>> {
        let recent = self.recent.lock();
        let first = recent.batches.front()?.revision.0;
        // Every revision has exactly one batch, so the place of a batch can be counted.
        let skip = usize::try_from((position.0 + 1).checked_sub(first)?).ok()?;
        Some(recent.batches.iter().skip(skip).take(limit).cloned().collect())
    }

    /// Up to `limit` batches that follow `position`, from the disk.
    pub(super) fn read_after(
        &self,
        position: Revision,
        limit: usize,
    ) -> Result<Vec<Batch>, StoreError> {
        let from = record::position(Version::new(Revision(position.0 + 1), 0));
        let to = record::position(Version::new(Revision(self.newest().0 + 1), 0));
        let mut batches: Vec<Batch> = Vec::new();
        for change in self.changes.range(from..to) {
            let change = read_change(change)?;
            let revision = change.version.revision();
            if batches.last().is_none_or(|batch| batch.revision != revision) {
                if batches.len() == limit {
                    break;
                }
                batches.push(Batch { revision, changes: Vec::new() });
            }
            let batch = batches.last_mut().expect("one was pushed if there was none");
            batch.changes.push(change);
        }
        // Checked last: what was removed while we read was not readable any more by then.
        let oldest = self.compacted();
        if position < oldest {
            return Err(StoreError::Compacted { asked: position, oldest });
        }
        Ok(batches)
    }
}

fn read_change(guard: fjall::Guard) -> Result<Change, StoreError> {
    let (position, record) = read_record(guard)?;
    change_of(&position, record)
}

fn read_record(guard: fjall::Guard) -> Result<(Bytes, Bytes), StoreError> {
    let (position, record) =
        guard.into_inner().map_err(|error| broken("cannot read the log", error))?;
    Ok((position.into(), record.into()))
}

fn change_of(position: &[u8], record: Bytes) -> Result<Change, StoreError> {
    let version = record::version_at(position)
        .ok_or_else(|| broken("the log is damaged", "a position is not a version"))?;
    record::decode(version, record).map_err(|error| broken("cannot read the log", error))
}

/// Checks the format, or writes it down in a new log; returns the oldest readable revision.
fn read_about(database: &Database, changes: &Keyspace) -> Result<Revision, StoreError> {
    let get = |key| changes.get(key).map_err(|error| broken("cannot read about the log", error));
    match get(FORMAT_KEY)? {
        Some(format) if &*format == FORMAT => {}
        Some(format) => {
            let found = format.escape_ascii();
            return Err(broken("cannot read the log", format!("it is in format {found}, not 1")));
        }
        None => {
            let mut first = database.batch().durability(Some(PersistMode::SyncAll));
            first.insert(changes, FORMAT_KEY, FORMAT);
            first.commit().map_err(|error| broken("cannot begin a log", error))?;
        }
    }
    let Some(compacted) = get(COMPACTED_KEY)? else {
        return Ok(Revision(0));
    };
    let damaged = |_| broken("cannot read the log", "how far it is compacted is damaged");
    Ok(Revision(u64::from_be_bytes((&*compacted).try_into().map_err(damaged)?)))
}

/// Reads the whole log once.
fn read_index(changes: &Keyspace) -> Result<(Index, Revision, Expiring), StoreError> {
    let mut index = Index::default();
    let mut expiring = Expiring::default();
    let mut newest = Revision(0);
    for change in changes.range(..ABOUT) {
        let (position, bytes) = read_record(change)?;
        let until = record::until(&bytes);
        let change = change_of(&position, bytes)?;
        newest = change.version.revision();
        index.apply(&change);
        if let Some(until) = until {
            expiring.add(until, change.version, Bytes::copy_from_slice(&change.key));
        }
    }
    Ok((index, newest, expiring))
}
