//! A store whose revisions go on where an earlier history ended.
//!
//! A store that was restored from a backup would give the revisions after the backup a second time,
//! with another meaning, to clients who remember the first. So what is restored begins at a revision
//! that nobody can have seen: the engine beneath counts as it likes, and an offset, kept in the store
//! itself, is added to whatever it says. Everything before the offset is compacted to whoever asks.
//!
//! An engine that is taken back to an older state while servers run on it (an etcd whose operators
//! restored a snapshot) is noticed by its log, which is not the one that was followed before. Then a
//! new offset is agreed upon by all servers, and the tail ends with `Compacted`: whoever follows it
//! reads everything anew, and clients are told to do the same.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;

use crate::{
    Batch, CHANGES_PER_REVISION_MAX, Committed, Compare, Entry, GuardedWrite, Op, Page, RangeQuery,
    Revision, Store, StoreError, Version,
};

/// Where the offset is kept, in decimal. No object's key begins so.
pub const OFFSET_KEY: &[u8] = b"/!offset";

/// Added to what the new history needs at least: for servers that had seen more of the old one than
/// the one that noticed.
const MARGIN: u64 = 1_000_000;

/// How often what has been seen is written down: whatever was restored while nobody looked is
/// noticed if it is older than this.
const REMEMBER_EVERY: Duration = Duration::from_secs(5);

/// A store with an offset. Zero, as in every store that was never restored, costs nothing.
pub struct RenumberedStore {
    inner: Arc<dyn Store>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    offset: AtomicU64,
    /// The newest revision of the engine that a tail has seen.
    seen: AtomicU64,
    memory: Option<Memory>,
}

/// The newest revision ever seen, in a file, in decimal: for the time when nobody is running.
#[derive(Debug)]
struct Memory {
    path: PathBuf,
    written: Mutex<Option<Instant>>,
}

impl Memory {
    /// Nothing can be read: nothing is remembered.
    fn recall(&self) -> Revision {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        Revision(text.trim().parse().unwrap_or(0))
    }

    fn remember(&self, seen: Revision) {
        let mut written = self.written.lock();
        if written.is_some_and(|at| at.elapsed() < REMEMBER_EVERY) {
            return;
        }
        *written = Some(Instant::now());
        let unfinished = self.path.with_extension("unfinished");
        let done = std::fs::write(&unfinished, seen.0.to_string())
            .and_then(|()| std::fs::rename(&unfinished, &self.path));
        if let Err(error) = done {
            tracing::warn!(%error, path = %self.path.display(), "the newest revision cannot be noted");
        }
    }
}

impl Shared {
    fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }
}

impl RenumberedStore {
    /// Reads the offset.
    pub async fn open(inner: Arc<dyn Store>) -> Result<RenumberedStore, StoreError> {
        RenumberedStore::begin(inner, None).await
    }

    /// The same, with a file that says which revisions were seen when somebody looked last: an
    /// engine that has fewer was taken back meanwhile.
    pub async fn open_remembering(
        inner: Arc<dyn Store>,
        path: PathBuf,
    ) -> Result<RenumberedStore, StoreError> {
        let memory = Memory { path, written: Mutex::new(None) };
        let known = memory.recall();
        let store = RenumberedStore::begin(inner, Some(memory)).await?;
        if store.revision().await? < known {
            tracing::warn!(known = known.0, "the store was taken back to an older state");
            store.begin_after(Revision(known.0 + MARGIN)).await?;
        }
        Ok(store)
    }

    async fn begin(
        inner: Arc<dyn Store>,
        memory: Option<Memory>,
    ) -> Result<RenumberedStore, StoreError> {
        let offset = read_offset(&*inner).await?.map_or(0, |(offset, _)| offset);
        let shared = Shared { offset: AtomicU64::new(offset), seen: AtomicU64::new(0), memory };
        Ok(RenumberedStore { inner, shared: Arc::new(shared) })
    }

    /// What is written from now on has revisions greater than `revision`.
    pub async fn begin_after(&self, revision: Revision) -> Result<(), StoreError> {
        agree_on_offset(&*self.inner, &self.shared, revision).await
    }
}

async fn read_offset(inner: &dyn Store) -> Result<Option<(u64, Version)>, StoreError> {
    let Some(entry) = inner.get(OFFSET_KEY, None).await? else { return Ok(None) };
    Ok(Some((parse(&entry.value)?, entry.version)))
}

fn parse(value: &[u8]) -> Result<u64, StoreError> {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    let damaged = || StoreError::Unavailable("the store's offset of revisions is damaged".into());
    number.ok_or_else(damaged)
}

/// Makes the newest revision greater than `after`, unless somebody else has done so already.
async fn agree_on_offset(
    inner: &dyn Store,
    shared: &Shared,
    after: Revision,
) -> Result<(), StoreError> {
    loop {
        let newest = inner.revision().await?;
        let kept = read_offset(inner).await?;
        let offset = kept.map_or(0, |(offset, _)| offset);
        if newest.0 + offset > after.0 {
            shared.offset.store(offset, Ordering::Release);
            shared.seen.store(0, Ordering::Release);
            return Ok(());
        }
        let key = Bytes::from_static(OFFSET_KEY);
        let compare = match kept {
            Some((_, version)) => Compare::At { key: key.clone(), version },
            None => Compare::Absent { key: key.clone() },
        };
        let value = Bytes::from((after.0 - newest.0).to_string());
        let write = GuardedWrite { compares: vec![compare], ops: vec![Op::Put { key, value }] };
        match inner.commit(write).await {
            // What is there now is looked at, whoever put it.
            Ok(_) | Err(StoreError::Conflict { .. } | StoreError::UnknownOutcome(_)) => {}
            Err(error) => return Err(error),
        }
    }
}

fn up(version: Version, offset: u64) -> Version {
    Version(version.0 + offset * CHANGES_PER_REVISION_MAX)
}

/// A version of an earlier history becomes one that nothing is ever at.
fn down(version: Version, offset: u64) -> Version {
    Version(version.0.saturating_sub(offset * CHANGES_PER_REVISION_MAX))
}

/// The engine's revision; an error if it is of an earlier history.
fn asked(at: Revision, offset: u64) -> Result<Revision, StoreError> {
    let oldest = Revision(offset + 1);
    match at.0.checked_sub(offset) {
        Some(0) if offset > 0 => Err(StoreError::Compacted { asked: at, oldest }),
        Some(revision) => Ok(Revision(revision)),
        None => Err(StoreError::Compacted { asked: at, oldest }),
    }
}

fn told(error: StoreError, offset: u64) -> StoreError {
    match error {
        StoreError::Compacted { asked, oldest } => StoreError::Compacted {
            asked: Revision(asked.0 + offset),
            oldest: Revision(oldest.0 + offset),
        },
        error => error,
    }
}

fn lift(mut entry: Entry, offset: u64) -> Entry {
    entry.version = up(entry.version, offset);
    entry
}

#[async_trait]
impl Store for RenumberedStore {
    async fn failed(&self) -> StoreError {
        self.inner.failed().await
    }

    async fn commit(&self, mut write: GuardedWrite) -> Result<Committed, StoreError> {
        let (offset, seen) = (self.shared.offset(), self.shared.seen.load(Ordering::Acquire));
        if offset > 0 {
            for compare in &mut write.compares {
                if let Compare::At { version, .. } = compare {
                    *version = down(*version, offset);
                }
            }
        }
        let committed = self.inner.commit(write).await?;
        if committed.revision.0 < seen {
            // It landed, in a history that our numbers do not fit.
            return Err(StoreError::UnknownOutcome(
                "the store was taken back to an older state".into(),
            ));
        }
        let versions = committed.versions.into_iter().map(|version| up(version, offset)).collect();
        Ok(Committed { revision: Revision(committed.revision.0 + offset), versions })
    }

    fn landed(&self) -> Revision {
        match self.inner.landed() {
            Revision(0) => Revision(0),
            Revision(landed) => Revision(landed + self.shared.offset()),
        }
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        let (offset, seen) = (self.shared.offset(), self.shared.seen.load(Ordering::Acquire));
        let revision = self.inner.revision().await?;
        if revision.0 < seen {
            return Err(StoreError::Unavailable(
                "the store was taken back to an older state".into(),
            ));
        }
        Ok(Revision(revision.0 + offset))
    }

    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<Entry>, StoreError> {
        let offset = self.shared.offset();
        let at = at.map(|at| asked(at, offset)).transpose()?;
        let found = self.inner.get(key, at).await.map_err(|error| told(error, offset))?;
        Ok(found.map(|entry| lift(entry, offset)))
    }

    async fn range(&self, mut query: RangeQuery) -> Result<Page, StoreError> {
        let offset = self.shared.offset();
        query.at = query.at.map(|at| asked(at, offset)).transpose()?;
        // The offset itself is nobody's: one more is read in its place.
        let meets = OFFSET_KEY.starts_with(&query.prefix)
            && query.after.as_deref().is_none_or(|after| after < OFFSET_KEY);
        let limit = query.limit;
        if meets && limit != 0 {
            query.limit += 1;
        }
        let mut page = self.inner.range(query).await.map_err(|error| told(error, offset))?;
        if meets {
            page.entries.retain(|entry| entry.key != OFFSET_KEY);
            if limit != 0 && page.entries.len() > limit {
                page.entries.truncate(limit);
                page.more = true;
            }
        }
        if offset > 0 {
            page.entries.iter_mut().for_each(|entry| entry.version = up(entry.version, offset));
            page.revision = Revision(page.revision.0 + offset);
        }
        Ok(page)
    }

    fn tail(&self, after: Revision) -> BoxStream<'static, Result<Batch, StoreError>> {
        let offset = self.shared.offset();
        let inner = match asked(after, offset) {
            Ok(after) => self.inner.tail(after),
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let follower = Follower {
            store: self.inner.clone(),
            shared: self.shared.clone(),
            inner,
            offset,
            position: after,
        };
        stream::unfold(Some(follower), |follower| async {
            let mut follower = follower?;
            let next = follower.next().await?;
            let rest = next.is_ok().then_some(follower);
            Some((next, rest))
        })
        .boxed()
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let offset = self.shared.offset();
        match asked(revision, offset) {
            Ok(revision) => self.inner.compact(revision).await.map_err(|error| told(error, offset)),
            // It is forgotten.
            Err(_) => Ok(()),
        }
    }
}

struct Follower {
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    inner: BoxStream<'static, Result<Batch, StoreError>>,
    offset: u64,
    /// As clients count.
    position: Revision,
}

impl Follower {
    async fn next(&mut self) -> Option<Result<Batch, StoreError>> {
        let mut batch = match self.inner.next().await? {
            Ok(batch) => batch,
            Err(StoreError::Restored { .. }) => return Some(Err(self.begin_anew().await)),
            Err(error) if self.is_taken_back().await => {
                tracing::info!(%error, "the tail of the store ended");
                return Some(Err(self.begin_anew().await));
            }
            Err(error) => return Some(Err(told(error, self.offset))),
        };
        self.shared.seen.fetch_max(batch.revision.0, Ordering::AcqRel);
        if let Some(change) = batch.changes.iter().find(|change| change.key == OFFSET_KEY)
            && let Some(value) = &change.value
            && parse(value).is_ok_and(|offset| offset != self.offset)
        {
            // Another server noticed before us.
            return Some(Err(self.begin_anew().await));
        }
        batch.changes.retain(|change| change.key != OFFSET_KEY);
        if self.offset > 0 {
            batch.revision = Revision(batch.revision.0 + self.offset);
            for change in &mut batch.changes {
                change.version = up(change.version, self.offset);
            }
        }
        self.position = batch.revision;
        if let Some(memory) = &self.shared.memory {
            memory.remember(batch.revision);
        }
        Some(Ok(batch))
    }

    /// Whether the engine has less now than it has shown.
    async fn is_taken_back(&mut self) -> bool {
        let newest = self.store.revision().await;
        newest.is_ok_and(|newest| newest.0 < self.shared.seen.load(Ordering::Acquire))
    }

    /// Why the tail ends: what it has told is not of the history that the store has now.
    async fn begin_anew(&mut self) -> StoreError {
        tracing::warn!(
            seen = self.position.0,
            "the store was taken back to an older state; its revisions go on behind those known"
        );
        self.shared.seen.store(0, Ordering::Release);
        let after = Revision(self.position.0 + MARGIN);
        match agree_on_offset(&*self.store, &self.shared, after).await {
            Ok(()) => StoreError::Compacted {
                asked: self.position,
                oldest: Revision(self.shared.offset() + 1),
            },
            Err(error) => error,
        }
    }
}
