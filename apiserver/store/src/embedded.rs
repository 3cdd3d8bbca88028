//! The embedded engine: one directory on this machine, one process, no server.
//!
//! A log of changes in fjall (an LSM tree): version → key and value, and an index of it in memory.
//! Every value is written once, and since versions only grow, the tree never has to merge them.
//!
//! One thread, the committer, decides all writes in the order in which they came, puts what waits
//! into one batch, makes it durable with one fsync, and only then shows it to readers and tails.
//! Every guarded write has a revision of its own.
//!
//! A write that the disk has no room for would be the last, so some room is kept: what is not a delete is
//! refused before.

mod committer;
mod expiry;
mod index;
mod log;
mod record;
mod tail;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, oneshot};

use self::committer::{Command, Committer, GROUP_WRITES_MAX};
use self::expiry::Clock;
use self::log::Log;
use crate::check::{check_prefix, check_read, check_write};
use crate::{
    Batch, Committed, Entry, GuardedWrite, Page, RangeQuery, Revision, Store, StoreError, Version,
};

/// Keys looked at under one lock during a long read, so that the committer never waits for long.
const WALK_STEPS: usize = 4_096;

/// What can be chosen about the embedded engine.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Blocks of the log kept in memory, in bytes.
    pub cache_bytes: u64,
    /// The newest changes kept in memory for tails, in bytes. A tail further behind reads the log.
    pub recent_bytes: usize,
    /// Superseded versions kept for reads of the past, at most; each takes about 100 bytes of
    /// memory besides its record in the log. Somebody should compact long before; if nobody does,
    /// the store forgets the older half by itself.
    pub superseded_max: usize,
}

impl Default for EmbeddedOptions {
    fn default() -> EmbeddedOptions {
        EmbeddedOptions { cache_bytes: 64 << 20, recent_bytes: 32 << 20, superseded_max: 2_000_000 }
    }
}

/// A log in a directory.
///
/// Dropping it waits for the writes in hand. The directory can be opened again when its tails have
/// been dropped too.
#[derive(Debug)]
pub struct EmbeddedStore {
    log: Arc<Log>,
    /// `None` only while the store is being dropped.
    commands: Option<mpsc::Sender<Command>>,
    committer: Option<JoinHandle<()>>,
    clock: Option<Clock>,
}

impl EmbeddedStore {
    /// Opens the log in `dir`, or begins one there.
    ///
    /// # Errors
    ///
    /// `Unavailable`: another process has it open, it cannot be read, or it was written in a format
    /// that this version does not know.
    pub fn open(
        dir: impl AsRef<Path>,
        options: EmbeddedOptions,
    ) -> Result<EmbeddedStore, StoreError> {
        let (log, published, expiring) = Log::open(dir.as_ref(), &options)?;
        let log = Arc::new(log);
        let (commands, queue) = mpsc::channel(GROUP_WRITES_MAX);
        let committer =
            Committer::new(log.clone(), published, queue, expiring, options.superseded_max);
        let committer = std::thread::Builder::new()
            .name("store-committer".into())
            .spawn(move || committer.run())
            .map_err(no_thread)?;
        let clock = Clock::start(commands.downgrade()).map_err(no_thread)?;
        Ok(EmbeddedStore {
            log,
            commands: Some(commands),
            committer: Some(committer),
            clock: Some(clock),
        })
    }

    async fn send(&self, command: Command) -> Result<(), StoreError> {
        let commands = self.commands.as_ref().expect("taken only by drop");
        commands.send(command).await.map_err(|_| stopped())
    }
}

fn no_thread(error: std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("no thread to commit on: {error}"))
}

/// The committer is gone: the disk failed, or it panicked. Nothing was queued.
fn stopped() -> StoreError {
    StoreError::Unavailable("the store stopped after a failed write; it must be reopened".into())
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        drop(self.clock.take());
        drop(self.commands.take());
        if let Some(committer) = self.committer.take()
            && committer.join().is_err()
        {
            tracing::error!("the store's committer panicked");
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn commit(&self, write: GuardedWrite) -> Result<Committed, StoreError> {
        check_write(&write)?;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Commit { write, reply }).await?;
        let unanswered = |_| StoreError::UnknownOutcome("the store stopped".into());
        answer.await.map_err(unanswered)?
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        match self.log.published().has_changed() {
            Ok(_) => Ok(self.log.newest()),
            Err(_) => Err(stopped()),
        }
    }

    fn landed(&self) -> Revision {
        self.log.newest()
    }

    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<Entry>, StoreError> {
        loop {
            let oldest = self.log.compacted();
            let read_at = check_read(at, oldest, self.log.newest())?;
            let Some(version) = self.log.index().read().at(key, read_at) else {
                return Ok(None);
            };
            if let Some(entry) = self.log.entry(version)? {
                return Ok(Some(entry));
            }
            // Compacted between the two steps: `check_read` says so, or now is a later now.
            self.log.check_still_readable(oldest, version)?;
        }
    }

    async fn range(&self, query: RangeQuery) -> Result<Page, StoreError> {
        check_prefix(&query.prefix)?;
        let log = self.log.clone();
        // A long range reads much of the disk: not on the threads that serve requests.
        let read = tokio::task::spawn_blocking(move || read_range(&log, &query));
        let failed = |error| StoreError::Unavailable(format!("the read was cut short: {error}"));
        read.await.map_err(failed)?
    }

    fn tail(&self, after: Revision) -> BoxStream<'static, Result<Batch, StoreError>> {
        tail::tail(self.log.clone(), after)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Compact { revision, reply }).await?;
        answer.await.map_err(|_| stopped())?
    }

    async fn failed(&self) -> StoreError {
        let mut published = self.log.published();
        while published.changed().await.is_ok() {}
        stopped()
    }
}

fn read_range(log: &Log, query: &RangeQuery) -> Result<Page, StoreError> {
    loop {
        let oldest = log.compacted();
        let at = check_read(query.at, oldest, log.newest())?;
        let (versions, more) = versions_in(log, query, at);
        match read_entries(log, &versions)? {
            Ok(entries) => {
                return Ok(Page { entries, revision: at, more });
            }
            Err(missing) => log.check_still_readable(oldest, missing)?,
        }
    }
}

/// The versions of one page, and whether there are more.
fn versions_in(log: &Log, query: &RangeQuery, at: Revision) -> (Vec<Version>, bool) {
    // One more than asked for, to know whether there is more.
    let wanted = if query.limit == 0 { usize::MAX } else { query.limit.saturating_add(1) };
    let mut versions = Vec::new();
    let mut after: Option<Bytes> = query.after.clone();
    loop {
        let left = wanted - versions.len();
        let walked = log.index().read().walk(&query.prefix, after.as_deref(), at, left, WALK_STEPS);
        versions.extend(walked.versions);
        after = walked.rest_after;
        if after.is_none() || versions.len() == wanted {
            break;
        }
    }
    let more = query.limit != 0 && versions.len() > query.limit;
    if more {
        versions.truncate(query.limit);
    }
    (versions, more)
}

/// The entries of these versions, or one that is not in the log any more. They are read in the order
/// in which they lie on the disk.
fn read_entries(
    log: &Log,
    versions: &[Version],
) -> Result<Result<Vec<Entry>, Version>, StoreError> {
    let mut places: Vec<usize> = (0..versions.len()).collect();
    places.sort_unstable_by_key(|&place| versions[place]);
    let sorted: Vec<Version> = places.iter().map(|&place| versions[place]).collect();
    let mut found: Vec<Option<Entry>> = vec![None; versions.len()];
    for (&place, entry) in places.iter().zip(log.entries(&sorted)?) {
        found[place] = entry;
    }
    let missing = found.iter().position(Option::is_none);
    Ok(match missing {
        Some(place) => Err(versions[place]),
        None => Ok(found.into_iter().flatten().collect()),
    })
}
