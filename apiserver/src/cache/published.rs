//! How far the cache is, and who waits until it is further.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use commonage_store::Revision;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The revision up to which everything can be read from the cache.
#[derive(Debug, Default)]
pub(super) struct Published {
    revision: AtomicU64,
    waiting: Mutex<BTreeMap<u64, Vec<oneshot::Sender<()>>>>,
}

impl Published {
    pub(super) fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    pub(super) fn advance(&self, to: Revision) {
        self.revision.fetch_max(to.0, Ordering::AcqRel);
        let due = {
            let mut waiting = self.waiting.lock();
            let later = waiting.split_off(&(to.0 + 1));
            std::mem::replace(&mut *waiting, later)
        };
        for waiter in due.into_values().flatten() {
            // It may have given up.
            let _ = waiter.send(());
        }
    }

    /// Returns once `revision` is published.
    pub(super) async fn reached(&self, revision: Revision) {
        if self.revision() >= revision {
            return;
        }
        let told = {
            let mut waiting = self.waiting.lock();
            // `advance` raises the revision before it takes the lock: either it is seen here, or
            // the waiter is seen there.
            if self.revision() >= revision {
                return;
            }
            let (tell, told) = oneshot::channel();
            waiting.entry(revision.0).or_default().push(tell);
            told
        };
        // The sender is never dropped unsent while the cache lives.
        let _ = told.await;
    }
}
