//! Forgetting history: the store keeps every version until it is told otherwise.
//!
//! Of several servers over one store one does it, as with kube-apiserver: each of them tries once
//! per interval to write down the revision of that moment, on condition that nobody else has since
//! the last time. Whoever succeeds compacts up to what was written down an interval ago.

use std::sync::Arc;

use bytes::Bytes;
use commonage_store::{Compare, GuardedWrite, Op, Revision, StoreError, Version};

use super::Engine;

/// Where the revision is written down: of no kind.
const KEY: Bytes = Bytes::from_static(b"/compaction");

/// What was written down last, as far as this server knows.
#[derive(Default)]
pub(super) struct Noted {
    at: Option<Version>,
    revision: Revision,
}

impl Engine {
    /// Compacts the store once per interval, until the engine stops.
    pub(super) async fn compact(self: Arc<Self>) {
        let interval = self.settings.compaction_interval;
        if interval.is_zero() {
            return;
        }
        let mut noted = Noted::default();
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = self.shutdown.cancelled() => return,
            }
            match self.compact_once(&mut noted).await {
                Ok(()) | Err(StoreError::Compacted { .. }) => {}
                Err(error) => tracing::warn!(%error, "the store can't be compacted; later"),
            }
        }
    }

    pub(super) async fn compact_once(&self, noted: &mut Noted) -> Result<(), StoreError> {
        let revision = self.cache.revision();
        let compare = match noted.at {
            Some(version) => Compare::At { key: KEY, version },
            None => Compare::Absent { key: KEY },
        };
        let ops = vec![Op::Put { key: KEY, value: revision.0.to_string().into() }];
        match self.store.commit(GuardedWrite { compares: vec![compare], ops }).await {
            Ok(committed) => {
                let up_to = std::mem::replace(&mut noted.revision, revision);
                noted.at = committed.versions.first().copied();
                if up_to.0 > 0 {
                    self.store.compact(up_to).await?;
                }
                Ok(())
            }
            // Another server was faster, or this one has just started: next time.
            Err(StoreError::Conflict { .. } | StoreError::UnknownOutcome(_)) => {
                let entry = self.store.get(&KEY, None).await?;
                noted.at = entry.as_ref().map(|entry| entry.version);
                let text = entry.and_then(|entry| String::from_utf8(entry.value.to_vec()).ok());
                noted.revision = Revision(text.and_then(|text| text.parse().ok()).unwrap_or(0));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
