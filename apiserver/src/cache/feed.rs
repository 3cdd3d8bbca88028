//! The one reader of the store's tail: loads the cache, then applies every change in order.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use commonage_store::{Batch, Change, Entry, RangeQuery, Revision, Store, StoreError};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::contents::Objects;
use super::table::Table;
use super::{Arrival, Cache};

/// Keys in one page of the load: pages of 500 cost five times as much (measured with etcd).
const LOAD_PAGE_KEYS: usize = 10_000;
/// Batches applied and published together when they have piled up.
const BATCHES_AT_ONCE: usize = 64;
/// How far back the event log reaches after a start, in revisions: replaying so many takes some
/// ten milliseconds.
const HISTORY_REVISIONS: u64 = 10_000;
/// How long to wait before asking a store again that was not available: long enough not to hurt
/// it, short enough that nobody notices.
const RETRY_AFTER: Duration = Duration::from_millis(200);

impl Cache {
    /// Reads everything as it was some time ago, if the store still knows: what has happened since
    /// comes back on the tail and fills the event log, so that watches survive a restart.
    pub(super) async fn load_past(&self, store: &dyn Store) -> Result<Revision, StoreError> {
        let past = store.revision().await?.0.saturating_sub(HISTORY_REVISIONS);
        match self.load(store, Some(Revision(past.max(1)))).await {
            Err(StoreError::Compacted { oldest, .. }) => match self.load(store, Some(oldest)).await
            {
                Ok(revision) => Ok(revision),
                Err(_) => self.load(store, None).await,
            },
            Err(_) => self.load(store, None).await,
            Ok(revision) => Ok(revision),
        }
    }

    /// Reads everything at one revision; `None` is the newest.
    async fn load(&self, store: &dyn Store, at: Option<Revision>) -> Result<Revision, StoreError> {
        let table = self.table();
        table.resources.iter().for_each(|resource| resource.begin_load());
        let (objects, revision) = read(store, &table, Bytes::from_static(b"/"), at).await?;
        for (resource, objects) in table.resources.iter().zip(objects) {
            resource.reset(objects, revision);
        }
        self.dispatched.store(revision.0, Ordering::Release);
        self.published.advance(revision);
        Ok(revision)
    }

    /// Follows the store from `last` until `shutdown`, whatever happens to the store meanwhile.
    pub(super) async fn follow(
        &self,
        store: Arc<dyn Store>,
        mut last: Revision,
        mut arriving: mpsc::Receiver<Arrival>,
        shutdown: CancellationToken,
    ) {
        loop {
            let ended = tokio::select! {
                ended = self.tail(&*store, &mut last, &mut arriving) => ended,
                () = shutdown.cancelled() => break,
            };
            match ended {
                Some(StoreError::Compacted { asked, oldest }) => {
                    tracing::warn!(
                        asked = asked.0,
                        oldest = oldest.0,
                        "the tail was compacted away; loading anew"
                    );
                    self.ready.store(false, Ordering::Release);
                    tokio::select! {
                        revision = self.reload(&*store) => last = revision,
                        () = shutdown.cancelled() => break,
                    }
                    self.ready.store(true, Ordering::Release);
                }
                Some(error) => {
                    tracing::warn!(%error, after = last.0, "the tail of the store broke off; asking again");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                None => tokio::time::sleep(RETRY_AFTER).await,
            }
        }
        self.table().resources.iter().for_each(|resource| resource.close());
    }

    /// Loads a kind that is new here. Nothing is applied meanwhile, so that it misses nothing: what
    /// was loaded beyond the last change applied comes again, and is known by its version then.
    async fn welcome(&self, store: &dyn Store, arrival: Arrival) {
        let Arrival { resource, done } = arrival;
        let prefix = Bytes::from(resource.def().key_prefix());
        let alone = Table::new(vec![resource.clone()]);
        loop {
            resource.begin_load();
            match read(store, &alone, prefix.clone(), None).await {
                Ok((objects, revision)) => {
                    resource.reset(objects.into_iter().next().unwrap_or_default(), revision);
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "a new kind can't be read from the store; trying again");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
        let replaced = {
            let mut table = self.table.write();
            let replaced = table.get(resource.def()).cloned();
            *table = Arc::new(table.with(resource));
            replaced
        };
        if let Some(replaced) = replaced {
            replaced.close();
        }
        // Whoever asked may be gone.
        let _ = done.send(());
    }

    async fn reload(&self, store: &dyn Store) -> Revision {
        loop {
            match self.load(store, None).await {
                Ok(revision) => return revision,
                Err(error) => {
                    tracing::warn!(%error, "the store can't be read; asking again");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    /// Applies changes until the stream ends; returns why it did.
    async fn tail(
        &self,
        store: &dyn Store,
        last: &mut Revision,
        arriving: &mut mpsc::Receiver<Arrival>,
    ) -> Option<StoreError> {
        let mut tail = store.tail(*last).ready_chunks(BATCHES_AT_ONCE);
        loop {
            let results = tokio::select! {
                results = tail.next() => results?,
                // The cache itself holds the other end.
                Some(arrival) = arriving.recv() => {
                    self.welcome(store, arrival).await;
                    continue;
                }
            };
            let mut batches = Vec::with_capacity(results.len());
            let mut failed = None;
            for result in results {
                match result {
                    Ok(batch) => batches.push(batch),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            if let Some(newest) = batches.last().map(|batch| batch.revision) {
                self.apply(batches);
                *last = newest;
            }
            if failed.is_some() {
                return failed;
            }
        }
    }

    /// Whole revisions, oldest first. Publishes before it dispatches: whoever waits for a write to
    /// be readable does not wait for the watchers.
    pub(super) fn apply(&self, batches: Vec<Batch>) {
        let Some(revision) = batches.last().map(|batch| batch.revision) else { return };
        let table = self.table();
        let mut by_resource: HashMap<usize, Vec<Change>> = HashMap::new();
        for change in batches.into_iter().flat_map(|batch| batch.changes) {
            if let Some((number, _)) = table.locate(&change.key) {
                by_resource.entry(number).or_default().push(change);
            }
        }
        let mut chunks = Vec::with_capacity(by_resource.len());
        for (number, changes) in by_resource {
            if let Some(chunk) = table.resources[number].apply(changes) {
                chunks.push((number, chunk));
            }
        }
        self.published.advance(revision);
        for (number, chunk) in chunks {
            table.resources[number].dispatch(&chunk);
        }
        self.dispatched.store(revision.0, Ordering::Release);
    }
}

/// Everything under a prefix that belongs to a kind of the table, at one revision (`None` is the
/// newest).
async fn read(
    store: &dyn Store,
    table: &Table,
    prefix: Bytes,
    at: Option<Revision>,
) -> Result<(Vec<Objects>, Revision), StoreError> {
    let mut objects: Vec<Objects> = vec![Objects::new(); table.resources.len()];
    let ask = |after, at| {
        store.range(RangeQuery { prefix: prefix.clone(), after, at, limit: LOAD_PAGE_KEYS })
    };
    let mut page = ask(None, at).await?;
    loop {
        let revision = page.revision;
        if !page.more {
            take_in(table, &page.entries, &mut objects);
            return Ok((objects, revision));
        }
        let after = page.entries.last().map(|entry| entry.key.clone());
        // The store reads the next page while this one is taken in.
        let take = async { take_in(table, &page.entries, &mut objects) };
        let (next, ()) = tokio::join!(biased; ask(after, Some(revision)), take);
        page = next?;
    }
}

fn take_in(table: &Table, entries: &[Entry], objects: &mut [Objects]) {
    for entry in entries {
        let Some((number, path)) = table.locate(&entry.key) else { continue };
        match table.resources[number].read(path, &entry.value, entry.version) {
            Ok(object) => drop(objects[number].insert(object.shared_path(), Arc::new(object))),
            Err(error) => {
                let resource = &table.resources[number];
                resource.note_unreadable(path, entry.version, error.to_string());
            }
        }
    }
}
