//! What watchers receive: events framed once, in chunks shared by all who get the same ones.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use commonage_store::Version;

use crate::object::Object;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

impl EventKind {
    /// As it stands in a watch line.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Added => "ADDED",
            EventKind::Modified => "MODIFIED",
            EventKind::Deleted => "DELETED",
            EventKind::Bookmark => "BOOKMARK",
            EventKind::Error => "ERROR",
        }
    }
}

/// One event as one watcher sees it.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    pub kind: EventKind,
    pub version: Version,
    /// `None` for bookmarks and errors.
    pub object: Option<Arc<Object>>,
    /// `{"type":"…","object":{…}}` and a newline. The object's JSON is `bytes[object_at()..len-2]`.
    pub bytes: Bytes,
}

impl WatchEvent {
    /// The JSON inside the frame: the object, the bookmark's object, or the error's Status.
    pub fn object_json(&self) -> Bytes {
        // `{"type":"` KIND `","object":` … `}\n`
        let start = 9 + self.kind.as_str().len() + 11;
        self.bytes.slice(start..self.bytes.len() - 2)
    }
}

/// Events that became due together. Never empty.
#[derive(Debug)]
pub struct Chunk {
    events: Vec<WatchEvent>,
    joined: OnceLock<Bytes>,
}

impl Chunk {
    pub fn events(&self) -> &[WatchEvent] {
        &self.events
    }

    /// All lines one after the other: joined once, whoever asks first.
    pub fn bytes(&self) -> Bytes {
        if let [only] = self.events.as_slice() {
            return only.bytes.clone();
        }
        self.joined
            .get_or_init(|| {
                let mut all =
                    BytesMut::with_capacity(self.events.iter().map(|e| e.bytes.len()).sum());
                self.events
                    .iter()
                    .for_each(|e| all.extend_from_slice(&e.bytes));
                all.freeze()
            })
            .clone()
    }
}

/// A running watch. Drop it to end it. Also a `Stream` of the same items.
pub struct Watch {}

impl Watch {
    /// The next events; `None` when the watch is over (deadline, error event sent, too slow,
    /// server going down). Cancel safe.
    pub async fn next(&mut self) -> Option<Arc<Chunk>> {
        todo!()
    }
}
