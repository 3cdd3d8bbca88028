//! Edits of one object take turns.
//!
//! Each edit reads the object, changes it and writes it back if nobody else has meanwhile. When
//! many do that to one object at once, all but one lose each round; in turns, nobody in this
//! process loses. (Others, such as a second API server, are met by trying again.)

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Mutex as TurnLock, OwnedMutexGuard};

/// A lock per key that somebody holds or waits for: no more of them than there are edits under way.
#[derive(Default)]
pub(super) struct Turns {
    locks: Mutex<HashMap<Bytes, Arc<TurnLock<()>>>>,
}

/// Holds the key until it is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    key: Bytes,
    lock: Option<Arc<TurnLock<()>>>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Returns when everybody who came before is done, in the order of coming.
    pub(super) async fn take(&self, key: Bytes) -> Turn<'_> {
        let lock = self.locks.lock().entry(key.clone()).or_default().clone();
        // Made before the wait, so that whoever gives up waiting leaves nothing behind.
        let mut turn = Turn { turns: self, key, lock: Some(lock.clone()), guard: None };
        turn.guard = Some(lock.lock_owned().await);
        turn
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.guard = None;
        // All counting happens under the map's lock: the last one sees that it is the last.
        let mut locks = self.turns.locks.lock();
        self.lock = None;
        if locks.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn turns_are_per_key_and_leave_nothing_behind() {
        let turns = Turns::default();
        let first = turns.take(Bytes::from_static(b"a")).await;
        let other = turns.take(Bytes::from_static(b"b")).now_or_never();
        assert!(other.is_some(), "another key has its own turns");
        assert!(turns.take(Bytes::from_static(b"a")).now_or_never().is_none(), "a is taken");
        drop(first);
        drop(other);
        assert!(turns.take(Bytes::from_static(b"a")).now_or_never().is_some());
        assert!(turns.locks.lock().is_empty());
    }
}
