//! A store without room: what can be spared goes first.
//!
//! Events say what happened lately, and nothing depends on them. Deletes work in a full store. The
//! room they leave is etcd's to use again only when somebody has defragmented it and cleared its
//! alarm: that is a decision of whoever runs it, and what the refusal of a write says.

use std::sync::Arc;
use std::time::Duration;

use commonage_store::{GuardedWrite, Op};

use super::Engine;

/// A refused write wakes us; there are many of them.
const AT_MOST_EVERY: Duration = Duration::from_secs(30);
/// Deletes in one guarded write.
const STEP: usize = 100;

impl Engine {
    /// The store has refused a write for want of room.
    pub(super) fn store_is_full(&self) {
        self.full.notify_one();
    }

    /// Waits for that, and removes all Events, until the engine stops.
    pub(super) async fn make_room(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.full.notified() => {}
                () = self.shutdown.cancelled() => return,
            }
            self.prune_events().await;
            tokio::select! {
                () = tokio::time::sleep(AT_MOST_EVERY) => {}
                () = self.shutdown.cancelled() => return,
            }
        }
    }

    async fn prune_events(&self) {
        let Some(def) = self.scheme().by_kind("", "Event").cloned() else { return };
        let Ok(resource) = self.resource(&def) else { return };
        let (events, _) = resource.snapshot();
        let keys: Vec<_> = events
            .values()
            .map(|event| Op::Delete { key: def.key(event.namespace(), event.name()).into() })
            .collect();
        tracing::error!(events = keys.len(), "the store is full: removing all events");
        for ops in keys.chunks(STEP) {
            let write = GuardedWrite { compares: Vec::new(), ops: ops.to_vec() };
            if let Err(error) = self.store.commit(write).await {
                tracing::warn!(%error, "events can't be removed");
                return;
            }
        }
        // What was deleted takes room until its history is forgotten.
        if let Ok(revision) = self.store.revision().await
            && let Err(error) = self.store.compact(revision).await
        {
            tracing::warn!(%error, "the store can't be compacted");
        }
    }
}
