//! The store in memory: the model. As plain as can be, since the other engines are measured by it.
//!
//! Nothing is durable, every commit holds one lock, and history is kept until it is compacted.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::check::{check_prefix, check_read, check_write, not_yet};
use crate::{
    Batch, Change, Committed, Entry, GuardedWrite, NO_CHANGE_INDEX, Op, Page, RangeQuery, Revision,
    Store, StoreError, Version,
};

/// A store that forgets everything when it is dropped.
#[derive(Debug)]
pub struct MemoryStore {
    model: Arc<Mutex<Model>>,
    published: watch::Sender<Revision>,
}

#[derive(Debug, Default)]
struct Model {
    revision: Revision,
    /// Reads before this revision are refused.
    compacted: Revision,
    /// Every version of every key, oldest first; `None` where the key was deleted.
    keys: BTreeMap<Bytes, Vec<(Version, Option<Bytes>)>>,
    log: BTreeMap<Revision, Batch>,
    /// When which version of which key is to go, if it is still the newest one then.
    expiring: BTreeMap<(Instant, Version), Bytes>,
}

impl MemoryStore {
    #[allow(clippy::new_without_default, reason = "an empty store is made on purpose")]
    pub fn new() -> MemoryStore {
        MemoryStore {
            model: Arc::new(Mutex::new(Model::default())),
            published: watch::Sender::new(Revision(0)),
        }
    }
}

impl Model {
    fn newest(&self, key: &[u8]) -> Option<&(Version, Option<Bytes>)> {
        self.keys.get(key)?.last().filter(|(_, value)| value.is_some())
    }

    fn at(&self, key: &Bytes, at: Revision) -> Option<Entry> {
        let history = self.keys.get(key)?;
        let (version, value) = history.iter().rev().find(|(v, _)| v.revision() <= at)?;
        let value = value.clone()?;
        Some(Entry { key: key.clone(), value, version: *version })
    }

    fn commit(&mut self, write: GuardedWrite) -> Result<Committed, StoreError> {
        for (index, compare) in write.compares.iter().enumerate() {
            let current = self.newest(compare.key()).map(|(version, _)| version.revision());
            if !compare.holds(current) {
                return Err(StoreError::Conflict { compare: index });
            }
        }
        let revision = Revision(self.revision.0 + 1);
        let mut changes: Vec<Change> = Vec::with_capacity(write.ops.len());
        let mut versions = Vec::with_capacity(write.ops.len());
        for op in write.ops {
            let version = Version::new(revision, changes.len() as u64);
            let (key, value) = match op {
                Op::Put { key, value } => (key, Some(value)),
                Op::PutFor { key, value, ttl } => {
                    self.expiring.insert((Instant::now() + ttl, version), key.clone());
                    (key, Some(value))
                }
                Op::Delete { key } if self.newest(&key).is_some() => (key, None),
                Op::Delete { .. } => {
                    versions.push(Version::new(revision, NO_CHANGE_INDEX));
                    continue;
                }
            };
            versions.push(version);
            changes.push(Change { key, value, version });
        }
        if changes.is_empty() {
            versions.fill(Version::new(self.revision, NO_CHANGE_INDEX));
            return Ok(Committed { revision: self.revision, versions });
        }
        self.revision = revision;
        for change in &changes {
            let history = self.keys.entry(change.key.clone()).or_default();
            history.push((change.version, change.value.clone()));
        }
        self.log.insert(revision, Batch { revision, changes });
        Ok(Committed { revision, versions })
    }

    /// Deletes what is due.
    fn expire(&mut self) {
        let now = Instant::now();
        while let Some(due) = self.expiring.first_entry().filter(|due| due.key().0 <= now) {
            let ((_, version), key) = due.remove_entry();
            if self.newest(&key).is_some_and(|(newest, _)| *newest == version) {
                let ops = vec![Op::Delete { key }];
                // Nothing is compared, so nothing can fail.
                let _ = self.commit(GuardedWrite { compares: Vec::new(), ops });
            }
        }
    }

    fn range(&self, query: &RangeQuery) -> Result<Page, StoreError> {
        let at = check_read(query.at, self.compacted, self.revision)?;
        let start = match &query.after {
            Some(after) if *after >= query.prefix => Bound::Excluded(after),
            _ => Bound::Included(&query.prefix),
        };
        let mut page = Page { entries: Vec::new(), revision: at, more: false };
        for (key, _) in self.keys.range::<Bytes, _>((start, Bound::Unbounded)) {
            if !key.starts_with(&query.prefix) {
                break;
            }
            let Some(entry) = self.at(key, at) else {
                continue;
            };
            if query.limit != 0 && page.entries.len() == query.limit {
                page.more = true;
                break;
            }
            page.entries.push(entry);
        }
        Ok(page)
    }

    fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        if revision > self.revision {
            return Err(not_yet(revision, self.revision));
        }
        if revision <= self.compacted {
            return Ok(());
        }
        self.compacted = revision;
        self.log.retain(|kept, _| *kept > revision);
        self.keys.retain(|_, history| {
            let visible = history.iter().rposition(|(v, _)| v.revision() <= revision);
            if let Some(visible) = visible {
                let deleted = history[visible].1.is_none();
                history.drain(..visible + usize::from(deleted));
            }
            !history.is_empty()
        });
        Ok(())
    }
}

/// Looks for what is due as long as there is something that will be, on a thread of its own: a store
/// has no other.
fn expire_in_time(model: Weak<Mutex<Model>>, published: watch::Sender<Revision>) {
    const LOOK_EVERY: Duration = Duration::from_millis(100);
    std::thread::spawn(move || {
        loop {
            // A clock: there is nothing to wait for but the time.
            #[allow(clippy::disallowed_methods)]
            std::thread::sleep(LOOK_EVERY);
            let Some(model) = model.upgrade() else { return };
            let mut model = model.lock();
            model.expire();
            published.send_replace(model.revision);
            if model.expiring.is_empty() {
                return;
            }
        }
    });
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(&self, write: GuardedWrite) -> Result<Committed, StoreError> {
        check_write(&write)?;
        let mut model = self.model.lock();
        let waits = !model.expiring.is_empty();
        let committed = model.commit(write)?;
        self.published.send_replace(model.revision);
        if !waits && !model.expiring.is_empty() {
            expire_in_time(Arc::downgrade(&self.model), self.published.clone());
        }
        Ok(committed)
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.model.lock().revision)
    }

    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<Entry>, StoreError> {
        let model = self.model.lock();
        let at = check_read(at, model.compacted, model.revision)?;
        Ok(model.at(&Bytes::copy_from_slice(key), at))
    }

    async fn range(&self, query: RangeQuery) -> Result<Page, StoreError> {
        check_prefix(&query.prefix)?;
        self.model.lock().range(&query)
    }

    fn tail(&self, after: Revision) -> BoxStream<'static, Result<Batch, StoreError>> {
        let follower = Follower {
            model: self.model.clone(),
            published: self.published.subscribe(),
            position: after,
        };
        stream::unfold(Some(follower), |follower| async {
            let mut follower = follower?;
            let next = follower.next().await;
            let rest = next.is_ok().then_some(follower);
            Some((next, rest))
        })
        .boxed()
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.model.lock().compact(revision)
    }
}

struct Follower {
    model: Arc<Mutex<Model>>,
    published: watch::Receiver<Revision>,
    position: Revision,
}

impl Follower {
    async fn next(&mut self) -> Result<Batch, StoreError> {
        loop {
            self.published.borrow_and_update();
            {
                let model = self.model.lock();
                check_read(Some(self.position), model.compacted, model.revision)?;
                let next = (Bound::Excluded(self.position), Bound::Unbounded);
                if let Some((_, batch)) = model.log.range(next).next() {
                    self.position = batch.revision;
                    return Ok(batch.clone());
                }
            }
            if self.published.changed().await.is_err() {
                return Err(StoreError::Unavailable("the store was closed".into()));
            }
        }
    }
}
