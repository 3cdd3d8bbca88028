//! The one reader of the store's tail: loads the cache, then applies every change in order.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use commonage_store::{Batch, Change, RangeQuery, Revision, Store, StoreError};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::Cache;
use super::contents::Objects;
use super::event::EventKind;
use crate::object::Object;

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
    async fn load(
        &self,
        store: &dyn Store,
        mut at: Option<Revision>,
    ) -> Result<Revision, StoreError> {
        let mut objects: Vec<Objects> = vec![Objects::new(); self.resources.len()];
        let mut after = None;
        let revision = loop {
            let query =
                RangeQuery { prefix: Bytes::from_static(b"/"), after, at, limit: LOAD_PAGE_KEYS };
            let page = store.range(query).await?;
            for entry in &page.entries {
                let Some((number, path)) = self.locate(&entry.key) else { continue };
                let fields = self.resources[number].fields();
                match Object::decode(fields, path, &entry.value, entry.version, EventKind::Added) {
                    Ok((object, _)) => {
                        drop(objects[number].insert(object.shared_path(), Arc::new(object)))
                    }
                    Err(error) => {
                        tracing::error!(path, %error, "an object of the store can't be read; left out")
                    }
                }
            }
            after = page.entries.last().map(|entry| entry.key.clone());
            at = Some(page.revision);
            if !page.more {
                break page.revision;
            }
        };
        for (resource, objects) in self.resources.iter().zip(objects) {
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
        shutdown: CancellationToken,
    ) {
        loop {
            let ended = tokio::select! {
                ended = self.tail(&*store, &mut last) => ended,
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
        self.resources.iter().for_each(|resource| resource.close());
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
    async fn tail(&self, store: &dyn Store, last: &mut Revision) -> Option<StoreError> {
        let mut tail = store.tail(*last).ready_chunks(BATCHES_AT_ONCE);
        while let Some(results) = tail.next().await {
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
        None
    }

    /// Whole revisions, oldest first. Publishes before it dispatches: whoever waits for a write to
    /// be readable does not wait for the watchers.
    pub(super) fn apply(&self, batches: Vec<Batch>) {
        let Some(revision) = batches.last().map(|batch| batch.revision) else { return };
        let mut by_resource: HashMap<usize, Vec<Change>> = HashMap::new();
        for change in batches.into_iter().flat_map(|batch| batch.changes) {
            if let Some((number, _)) = self.locate(&change.key) {
                by_resource.entry(number).or_default().push(change);
            }
        }
        let mut chunks = Vec::with_capacity(by_resource.len());
        for (number, changes) in by_resource {
            let prefix_length = self.prefix_lengths[number];
            if let Some(chunk) = self.resources[number].apply(changes, prefix_length) {
                chunks.push((number, chunk));
            }
        }
        self.published.advance(revision);
        for (number, chunk) in chunks {
            self.resources[number].dispatch(&chunk);
        }
        self.dispatched.store(revision.0, Ordering::Release);
    }
}
