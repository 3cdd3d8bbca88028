//! What watchers receive: events framed once, in chunks shared by all who get the same ones.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use commonage_store::Version;
use parking_lot::Mutex;
use serde_json::json;

use crate::kinds::view::View;
use crate::object::Object;
use crate::resource::ResourceDef;
use crate::status::ApiError;

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

    /// Writes what comes before the object in a watch line.
    pub(crate) fn open(self, line: &mut BytesMut) {
        line.put_slice(b"{\"type\":\"");
        line.put_slice(self.as_str().as_bytes());
        line.put_slice(b"\",\"object\":");
    }

    /// Length of what [`EventKind::open`] writes.
    fn open_length(self) -> usize {
        "{\"type\":\"".len() + self.as_str().len() + "\",\"object\":".len()
    }
}

/// One event as one watcher sees it.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    pub kind: EventKind,
    pub version: Version,
    /// `None` for bookmarks and errors.
    pub object: Option<Arc<Object>>,
    /// `{"type":"…","object":{…}}` and a newline.
    pub bytes: Bytes,
}

impl WatchEvent {
    /// The JSON inside the frame: the object, the bookmark's object, or the error's Status.
    pub fn object_json(&self) -> Bytes {
        self.bytes.slice(self.kind.open_length()..self.bytes.len() - 2)
    }

    /// An object that exists already, for a watch that begins with the present state.
    pub(super) fn initial(object: Arc<Object>) -> WatchEvent {
        let bytes = object.line(EventKind::Added);
        WatchEvent { kind: EventKind::Added, version: object.version, object: Some(object), bytes }
    }

    /// `initial_end`: everything that existed has been sent (KEP-3157's annotation).
    pub(super) fn bookmark(def: &ResourceDef, version: Version, initial_end: bool) -> WatchEvent {
        let mut metadata =
            json!({"creationTimestamp": null, "resourceVersion": version.0.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object =
            json!({"kind": def.kind, "apiVersion": def.api_version(), "metadata": metadata});
        Self::without_object(EventKind::Bookmark, version, object.to_string().as_bytes())
    }

    pub(super) fn error(error: &ApiError) -> WatchEvent {
        Self::without_object(EventKind::Error, Version(0), &error.to_json())
    }

    fn without_object(kind: EventKind, version: Version, json: &[u8]) -> WatchEvent {
        let mut line = BytesMut::with_capacity(kind.open_length() + json.len() + 2);
        kind.open(&mut line);
        line.put_slice(json);
        line.put_slice(b"}\n");
        WatchEvent { kind, version, object: None, bytes: line.freeze() }
    }
}

/// Events that became due together. Never empty.
#[derive(Debug)]
pub struct Chunk {
    /// No two have the same.
    number: u64,
    events: Vec<WatchEvent>,
    /// Of all lines, in bytes.
    length: usize,
    joined: OnceLock<Bytes>,
    /// Without `managedFields`, if anybody ever asked.
    lean: OnceLock<Bytes>,
    /// As the view of this kind shows it, if anybody ever asked. A kind has one view at most.
    shown: OnceLock<Arc<Chunk>>,
    /// With others before it, as they were last asked for together.
    run: Mutex<Option<Run>>,
    /// That were given it.
    watches: AtomicU32,
}

/// The lines of several chunks.
#[derive(Debug)]
struct Run {
    /// Their numbers. (Who held the chunks themselves here would hold all before them too.)
    chunks: Box<[u64]>,
    lean: bool,
    bytes: Bytes,
}

impl Chunk {
    /// `None` when there is nothing in it.
    pub(super) fn new(events: Vec<WatchEvent>) -> Option<Arc<Chunk>> {
        if events.is_empty() {
            return None;
        }
        Some(Arc::new(Chunk::of(events)))
    }

    fn of(events: Vec<WatchEvent>) -> Chunk {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let length = events.iter().map(|event| event.bytes.len()).sum();
        Chunk {
            number: MADE.fetch_add(1, Relaxed),
            events,
            length,
            joined: OnceLock::new(),
            lean: OnceLock::new(),
            shown: OnceLock::new(),
            run: Mutex::new(None),
            watches: AtomicU32::new(0),
        }
    }

    /// The same events, and nothing that was made of them.
    pub(super) fn bare(&self) -> Chunk {
        Chunk::of(self.events.clone())
    }

    /// Of all lines, in bytes.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// One more watch is given it.
    pub(super) fn shared(&self) {
        self.watches.fetch_add(1, Relaxed);
    }

    /// How many watches were given it as it happened; 0 of what somebody has missed.
    pub fn watches(&self) -> u32 {
        self.watches.load(Relaxed)
    }

    /// Given to as many as `other`.
    fn shared_as(self, other: &Chunk) -> Chunk {
        self.watches.store(other.watches(), Relaxed);
        self
    }

    /// The same events of the kind that `view` makes of this one: made once, whoever asks first.
    fn shown_by(&self, view: View) -> Arc<Chunk> {
        let show = |event: &WatchEvent| match &event.object {
            None => event.clone(),
            Some(source) => {
                let (object, bytes) = view.object(source, event.kind);
                WatchEvent { object: Some(Arc::new(object)), bytes, ..event.clone() }
            }
        };
        let shown = self.shown.get_or_init(|| {
            let events = self.events.iter().map(show).collect();
            Arc::new(Chunk::of(events).shared_as(self))
        });
        shown.clone()
    }

    /// The same events as another version of the kind has them.
    pub(super) fn seen_as(self: Arc<Chunk>, def: &ResourceDef) -> Arc<Chunk> {
        if let Some(view) = def.view() {
            return self.shown_by(view);
        }
        if def.stored_as.is_none() {
            return self;
        }
        let events = self.events.iter().map(|event| match &event.object {
            Some(object) => {
                let object = object.seen_as(def);
                let bytes = object.line(event.kind);
                WatchEvent { bytes, object: Some(object), ..event.clone() }
            }
            None => event.clone(),
        });
        Arc::new(Chunk::of(events.collect()).shared_as(&self))
    }

    pub fn events(&self) -> &[WatchEvent] {
        &self.events
    }

    /// The version of the last event.
    pub fn version(&self) -> Version {
        self.events.last().map_or(Version(0), |event| event.version)
    }

    /// The lines of all chunks, one after the other. Those who are given the same ones at about the same
    /// time share them.
    pub fn bytes_of_all(chunks: &[Arc<Chunk>], lean: bool) -> Bytes {
        let of_one = |chunk: &Arc<Chunk>| if lean { chunk.lean_bytes() } else { chunk.bytes() };
        let last = match chunks {
            [] => return Bytes::new(),
            [only] => return of_one(only),
            [.., last] => last,
        };
        let mut run = last.run.lock();
        let numbers = || chunks.iter().map(|chunk| chunk.number);
        if let Some(known) = &*run
            && known.lean == lean
            && known.chunks.iter().copied().eq(numbers())
        {
            return known.bytes.clone();
        }
        let mut all = BytesMut::with_capacity(chunks.iter().map(|chunk| chunk.length).sum());
        for chunk in chunks {
            match lean {
                true => all.extend_from_slice(&chunk.lean_bytes()),
                false => chunk.events.iter().for_each(|event| all.extend_from_slice(&event.bytes)),
            }
        }
        let bytes = all.freeze();
        *run = Some(Run { chunks: numbers().collect(), lean, bytes: bytes.clone() });
        bytes
    }

    /// All lines one after the other: joined once, whoever asks first.
    pub fn bytes(&self) -> Bytes {
        if let [only] = self.events.as_slice() {
            return only.bytes.clone();
        }
        self.joined
            .get_or_init(|| {
                let mut all = BytesMut::with_capacity(self.length);
                self.events.iter().for_each(|event| all.extend_from_slice(&event.bytes));
                all.freeze()
            })
            .clone()
    }

    /// As [`Chunk::bytes`], the objects without `metadata.managedFields`.
    pub fn lean_bytes(&self) -> Bytes {
        let joined = || {
            let mut all = BytesMut::with_capacity(self.length);
            for event in &self.events {
                let Some(object) = &event.object else {
                    all.extend_from_slice(&event.bytes);
                    continue;
                };
                let (before, after) = object.without_managed_fields();
                event.kind.open(&mut all);
                all.extend_from_slice(before);
                all.extend_from_slice(after);
                all.extend_from_slice(b"}\n");
            }
            all.freeze()
        };
        self.lean.get_or_init(joined).clone()
    }
}
