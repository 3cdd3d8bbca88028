//! Keys that go by themselves: when, and who looks.
//!
//! The times are those of the wall clock, because they outlive the process. A clock that is set
//! back makes keys live longer, one that is set ahead shorter; nothing else depends on it.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::mpsc::{WeakSender, error::TrySendError};

use super::committer::Command;
use crate::Version;

/// How late a key may go.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Which keys go when. A key that was written since stays in it, and is passed over.
#[derive(Debug, Default)]
pub(super) struct Expiring(BTreeMap<(u64, Version), Bytes>);

impl Expiring {
    pub(super) fn add(&mut self, until: u64, version: Version, key: Bytes) {
        self.0.insert((until, version), key);
    }

    /// Takes out one that is due.
    pub(super) fn pop_due(&mut self, now: u64) -> Option<(Version, Bytes)> {
        let due = self.0.first_entry().filter(|due| due.key().0 <= now)?;
        let ((_, version), key) = due.remove_entry();
        Some((version, key))
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn until(ttl: Duration) -> u64 {
    now_ms().saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
}

/// Wakes the committer from time to time; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Clock {
    stop: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    pub(super) fn start(committer: WeakSender<Command>) -> std::io::Result<Clock> {
        let (stop, stopped) = mpsc::sync_channel::<()>(0);
        let tick = move || {
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                let Some(committer) = committer.upgrade() else { return };
                // A queue that is full is worked off soon enough; the next tick comes.
                if let Err(TrySendError::Closed(_)) = committer.try_send(Command::Expire) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("store-clock".into()).spawn(tick)?;
        Ok(Clock { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's clock panicked");
        }
    }
}
