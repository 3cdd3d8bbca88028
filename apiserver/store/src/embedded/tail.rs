//! Following the log: from memory while it keeps up, from the disk while it does not.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;

use super::log::{Log, broken};
use crate::check::check_read;
use crate::{Batch, Revision, StoreError};

/// Batches taken at once: enough to make the lock or the read worth it.
const STEP_BATCHES: usize = 512;

struct Follower {
    log: Arc<Log>,
    published: watch::Receiver<Revision>,
    /// Everything up to here has been handed out or is in `ready`.
    position: Revision,
    ready: VecDeque<Batch>,
    begun: bool,
}

pub(super) fn tail(
    log: Arc<Log>,
    after: Revision,
) -> BoxStream<'static, Result<Batch, StoreError>> {
    let published = log.published();
    let follower =
        Follower { log, published, position: after, ready: VecDeque::new(), begun: false };
    stream::unfold(Some(follower), |follower| async {
        let mut follower = follower?;
        let next = follower.next().await;
        // An error ends the stream, and lets go of the log.
        let rest = next.is_ok().then_some(follower);
        Some((next, rest))
    })
    .boxed()
}

impl Follower {
    async fn next(&mut self) -> Result<Batch, StoreError> {
        if !self.begun {
            check_read(Some(self.position), self.log.compacted(), self.log.newest())?;
            self.begun = true;
        }
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(batch);
            }
            let newest = *self.published.borrow_and_update();
            if newest > self.position {
                self.ready = self.read().await?.into();
                let last = self.ready.back().map(|batch| batch.revision);
                self.position = last.ok_or_else(|| broken("the log is damaged", "it has a gap"))?;
            } else if self.published.changed().await.is_err() {
                return Err(StoreError::Unavailable("the store was closed".into()));
            }
        }
    }

    async fn read(&self) -> Result<Vec<Batch>, StoreError> {
        if let Some(batches) = self.log.recent_after(self.position, STEP_BATCHES) {
            return Ok(batches);
        }
        let (log, position) = (self.log.clone(), self.position);
        let read = tokio::task::spawn_blocking(move || log.read_after(position, STEP_BATCHES));
        let failed = |error| StoreError::Unavailable(format!("the read was cut short: {error}"));
        read.await.map_err(failed)?
    }
}
