//! What waits for one watcher: bounded in chunks and in bytes, never waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};

use super::event::Chunk;

/// Chunks that may wait for one watcher. A chunk is shared by all watchers and at most a few
/// thousand come in a second, so this is a second or more of not reading at the highest load;
/// whoever falls further behind is closed and resumes from the log.
const CHUNKS_MAX: usize = 4096;

/// Bytes of events that may wait for one watcher: a quarter of what the log keeps, so that whoever
/// is closed can still resume from it, and little enough that some who never read hurt nobody.
const BYTES_MAX: usize = 16 << 20;

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    Taken,
    /// The watcher does not keep up.
    Full,
    /// It has gone.
    Closed,
}

#[derive(Debug)]
pub(super) struct Sender {
    chunks: mpsc::Sender<Arc<Chunk>>,
    waiting_bytes: Arc<AtomicUsize>,
}

#[derive(Debug)]
pub(super) struct Receiver {
    chunks: mpsc::Receiver<Arc<Chunk>>,
    waiting_bytes: Arc<AtomicUsize>,
}

pub(super) fn queue() -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let sender = Sender { chunks: sender, waiting_bytes: waiting_bytes.clone() };
    (sender, Receiver { chunks: receiver, waiting_bytes })
}

impl Sender {
    pub(super) fn offer(&self, chunk: Arc<Chunk>) -> Offered {
        let bytes = chunk.length();
        // One that is larger than all that may wait still has to get through.
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before > 0 && before + bytes > BYTES_MAX {
            return Offered::Full;
        }
        match self.chunks.try_send(chunk) {
            Ok(()) => Offered::Taken,
            Err(TrySendError::Full(_)) => Offered::Full,
            Err(TrySendError::Closed(_)) => Offered::Closed,
        }
    }
}

impl Receiver {
    /// `None` when the watcher was closed and everything was taken. Cancel safe.
    pub(super) async fn recv(&mut self) -> Option<Arc<Chunk>> {
        let chunk = self.chunks.recv().await?;
        self.waiting_bytes.fetch_sub(chunk.length(), Ordering::Relaxed);
        Some(chunk)
    }

    pub(super) fn try_recv(&mut self) -> Result<Arc<Chunk>, TryRecvError> {
        let chunk = self.chunks.try_recv()?;
        self.waiting_bytes.fetch_sub(chunk.length(), Ordering::Relaxed);
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use commonage_store::Version;

    use super::*;
    use crate::cache::event::{EventKind, WatchEvent};

    fn chunk(bytes: usize) -> Arc<Chunk> {
        let bytes = Bytes::from(vec![b' '; bytes]);
        let (kind, version) = (EventKind::Added, Version(1));
        Chunk::new(vec![WatchEvent { kind, version, object: None, bytes }]).unwrap()
    }

    #[test]
    fn a_queue_is_full_by_bytes_as_well() {
        let (sender, mut receiver) = queue();
        // Alone it may be as large as it likes.
        assert_eq!(sender.offer(chunk(BYTES_MAX + 1)), Offered::Taken);
        receiver.try_recv().unwrap();
        for _ in 0..4 {
            assert_eq!(sender.offer(chunk(BYTES_MAX / 4)), Offered::Taken);
        }
        assert_eq!(sender.offer(chunk(1)), Offered::Full);
        drop(receiver);
        let (sender, receiver) = queue();
        drop(receiver);
        assert_eq!(sender.offer(chunk(1)), Offered::Closed);
    }

    #[test]
    fn a_queue_is_full_by_chunks() {
        let (sender, _receiver) = queue();
        for _ in 0..CHUNKS_MAX {
            assert_eq!(sender.offer(chunk(1)), Offered::Taken);
        }
        assert_eq!(sender.offer(chunk(1)), Offered::Full);
    }
}
