//! Forgetting history: the store keeps every version until it is told otherwise.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use commonage_store::{Revision, StoreError};

use super::Engine;

/// Pages of a list and resumed watches may reach back so far at least; kube-apiserver's
/// `--etcd-compaction-interval`.
const HISTORY: Duration = Duration::from_secs(300);
/// How often the past is let go of: in small steps, so that none of them is felt.
const STEP: Duration = Duration::from_secs(30);

impl Engine {
    /// Compacts the store up to what it was [`HISTORY`] ago, until the engine stops.
    pub(super) async fn compact(self: Arc<Self>) {
        let steps = (HISTORY.as_secs() / STEP.as_secs()) as usize;
        let mut past: VecDeque<Revision> = VecDeque::with_capacity(steps + 1);
        loop {
            tokio::select! {
                () = tokio::time::sleep(STEP) => {}
                () = self.shutdown.cancelled() => return,
            }
            past.push_back(self.cache.revision());
            if past.len() <= steps {
                continue;
            }
            let Some(revision) = past.pop_front().filter(|revision| revision.0 > 0) else {
                continue;
            };
            match self.store.compact(revision).await {
                // Another server was faster.
                Ok(()) | Err(StoreError::Compacted { .. }) => {}
                Err(error) => {
                    tracing::warn!(%error, revision = revision.0, "the store can't be compacted; later")
                }
            }
        }
    }
}
