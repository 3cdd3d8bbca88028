//! The recent past of one kind: what a watch that resumes has missed.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use commonage_store::Version;

use super::event::{Chunk, EventKind, WatchEvent};
use super::selection::Selection;
use crate::object::Object;

/// Events kept per kind, at most: at 10,000 changes a second a client may stay away for ten
/// seconds; at the hundred of an ordinary day, for a quarter of an hour.
pub(crate) const EVENTS_MAX: usize = 100_000;
/// Bytes of watch lines kept per kind, at most: ten kinds stay well below one GiB.
const BYTES_MAX: usize = 64 << 20;

/// All changes of one kind that were applied together; whole revisions.
#[derive(Debug)]
pub(super) struct LogChunk {
    /// As a watcher without any selection sees it.
    pub(super) all: Arc<Chunk>,
    /// One per event of `all`.
    pub(super) pasts: Vec<Past>,
    bytes: usize,
}

/// What an event's object was before, and the event as those see it whose selection it crosses.
#[derive(Debug, Default)]
pub(super) struct Past {
    pub(super) previous: Option<Arc<Object>>,
    entered: OnceLock<WatchEvent>,
    left: OnceLock<WatchEvent>,
}

impl Past {
    pub(super) fn new(previous: Option<Arc<Object>>) -> Past {
        Past { previous, ..Past::default() }
    }
}

impl LogChunk {
    /// `events` and `pasts` are of one length; `None` when they are empty.
    pub(super) fn new(events: Vec<WatchEvent>, pasts: Vec<Past>) -> Option<Arc<LogChunk>> {
        assert_eq!(events.len(), pasts.len(), "each event has one past");
        let bytes = events.iter().map(|event| event.bytes.len()).sum();
        Some(Arc::new(LogChunk { all: Chunk::new(events)?, pasts, bytes }))
    }

    /// The same for the log: without what watchers made of it (lines joined, other selections, views),
    /// which is of no use once it has been sent.
    pub(super) fn bare(&self) -> Arc<LogChunk> {
        let pasts = self.pasts.iter().map(|past| Past::new(past.previous.clone())).collect();
        Arc::new(LogChunk { all: Arc::new(self.all.bare()), pasts, bytes: self.bytes })
    }

    /// Event number `at` as a watcher with this selection sees it, if at all. Leaving a selection
    /// is a deletion with the last content that was in it, entering it an addition.
    pub(super) fn seen(&self, at: usize, selection: &Selection) -> Option<WatchEvent> {
        let (event, past) = (&self.all.events()[at], &self.pasts[at]);
        let is_in = event.kind != EventKind::Deleted
            && event.object.as_ref().is_some_and(|o| selection.matches(o));
        let was_in = past.previous.as_ref().is_some_and(|o| selection.matches(o));
        match (was_in, is_in) {
            (false, false) => None,
            (true, true) => Some(event.clone()),
            (false, true) if event.kind == EventKind::Added => Some(event.clone()),
            (true, false) if event.kind == EventKind::Deleted => Some(event.clone()),
            (false, true) => Some(past.entered.get_or_init(|| entered(event)).clone()),
            (true, false) => Some(past.left.get_or_init(|| left(event, past)).clone()),
        }
    }
}

fn entered(event: &WatchEvent) -> WatchEvent {
    let object = event.object.clone().expect("logged events have objects");
    WatchEvent { version: event.version, ..WatchEvent::initial(object) }
}

fn left(event: &WatchEvent, past: &Past) -> WatchEvent {
    let previous = past.previous.as_ref().expect("only an object that was in can leave");
    let (object, bytes) = previous.at_version(event.version, EventKind::Deleted);
    WatchEvent {
        kind: EventKind::Deleted,
        version: event.version,
        object: Some(Arc::new(object)),
        bytes,
    }
}

/// Bounded in count and bytes; oldest first.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    chunks: VecDeque<Arc<LogChunk>>,
    events: usize,
    bytes: usize,
    /// Everything after this version is in the log.
    floor: Version,
}

impl EventLog {
    pub(super) fn starting_at(floor: Version) -> EventLog {
        EventLog { floor, ..EventLog::default() }
    }

    pub(super) fn push(&mut self, chunk: Arc<LogChunk>) {
        self.events += chunk.pasts.len();
        self.bytes += chunk.bytes;
        self.chunks.push_back(chunk);
        while self.events > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.chunks.pop_front() else { break };
            self.events -= oldest.pasts.len();
            self.bytes -= oldest.bytes;
            self.floor = oldest.all.version();
        }
    }

    /// The chunks with something after `version`, the first of which may begin before it.
    /// `Err` with the oldest version that can be resumed from when that is too late.
    pub(super) fn after(&self, version: Version) -> Result<VecDeque<Arc<LogChunk>>, Version> {
        if version < self.floor {
            return Err(self.floor);
        }
        let first = self.chunks.partition_point(|chunk| chunk.all.version() <= version);
        Ok(self.chunks.range(first..).cloned().collect())
    }
}
