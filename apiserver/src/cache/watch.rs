//! One running watch: what it has missed first, then what happens.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use commonage_store::{Revision, Version};
use futures::Stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::contents::Objects;
use super::event::{Chunk, WatchEvent};
use super::log::LogChunk;
use super::queue;
use super::resource::{end_of, range};
use super::selection::Selection;
use super::watchers::Registration;
use crate::object::Object;
use crate::resource::ResourceDef;
use crate::status::ApiError;

/// As often as kube-apiserver sends them.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// The last bookmark goes out so long before the deadline, so that it still arrives.
const BOOKMARK_BEFORE_DEADLINE: Duration = Duration::from_secs(2);
/// Objects of the initial state in one chunk: some hundred KiB.
const INITIAL_CHUNK: usize = 500;

/// What a watch begins with.
#[derive(Debug)]
pub(super) enum Backlog {
    State { objects: Objects, version: Version, after: Option<Arc<str>> },
    Log { chunks: VecDeque<Arc<LogChunk>>, after: Version },
    Done,
}

impl Backlog {
    pub(super) fn state(objects: Objects, version: Version) -> Backlog {
        Backlog::State { objects, version, after: None }
    }

    pub(super) fn log(chunks: VecDeque<Arc<LogChunk>>, after: Version) -> Backlog {
        Backlog::Log { chunks, after }
    }
}

/// A watcher that is registered.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) selection: Arc<Selection>,
    pub(super) backlog: Backlog,
    pub(super) queue: queue::Receiver,
    pub(super) registration: Registration,
}

/// What a watch sends beyond events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extras {
    pub(crate) bookmarks: bool,
    /// A bookmark says when the initial state is complete.
    pub(crate) initial_end: bool,
    pub(crate) timeout: Duration,
}

/// A running watch. Drop it to end it.
#[derive(Debug)]
pub struct Watch {
    def: Arc<ResourceDef>,
    source: Source,
    extras: Extras,
    deadline: Instant,
    next_bookmark: Instant,
    alarm: Pin<Box<Sleep>>,
    /// Everything up to here has been returned.
    version: Version,
    /// Everything up to this revision is in the watchers' queues.
    dispatched: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Source {
    Running(Box<Running>),
    /// One event, then the end.
    Error(WatchEvent),
    Ended,
}

#[derive(Debug)]
struct Running {
    selection: Arc<Selection>,
    backlog: Backlog,
    queue: queue::Receiver,
    _registration: Registration,
}

impl Watch {
    pub(super) fn running(
        def: Arc<ResourceDef>,
        subscription: Subscription,
        extras: Extras,
        dispatched: Arc<AtomicU64>,
    ) -> Watch {
        let Subscription { selection, backlog, queue, registration } = subscription;
        let running = Running { selection, backlog, queue, _registration: registration };
        Watch::new(def, Source::Running(Box::new(running)), extras, dispatched)
    }

    /// Whoever goes on from a version learns at once how far that is now, if it takes bookmarks: perhaps nothing came
    /// after it. Kubernetes does not do so, and clients may count on what comes first.
    pub fn tell_at_once(&mut self) {
        let now = end_of(Revision(self.dispatched.load(Ordering::Acquire)));
        if let Source::Running(running) = &self.source
            && matches!(running.backlog, Backlog::Log { after, .. } if after <= now)
            && self.extras.bookmarks
        {
            self.next_bookmark = Instant::now();
        }
    }

    /// A watch that says only why it can't be.
    pub(super) fn failed(def: Arc<ResourceDef>, error: &ApiError) -> Watch {
        let timeout = Duration::from_secs(1);
        let extras = Extras { bookmarks: false, initial_end: false, timeout };
        Watch::new(def, Source::Error(WatchEvent::error(error)), extras, Arc::default())
    }

    fn new(
        def: Arc<ResourceDef>,
        source: Source,
        extras: Extras,
        dispatched: Arc<AtomicU64>,
    ) -> Watch {
        let now = Instant::now();
        let deadline = now + extras.timeout;
        let mut watch = Watch {
            def,
            source,
            extras,
            deadline,
            next_bookmark: now,
            alarm: Box::pin(tokio::time::sleep_until(deadline)),
            version: Version(0),
            dispatched,
        };
        watch.plan_bookmark(now);
        watch
    }

    /// The kind that is watched.
    pub fn def(&self) -> &Arc<ResourceDef> {
        &self.def
    }

    /// The next events; `None` when the watch is over (deadline, error event sent, too slow,
    /// server going down). Cancel safe.
    pub async fn next(&mut self) -> Option<Arc<Chunk>> {
        match &self.source {
            Source::Error(event) => {
                let chunk = Chunk::new(vec![event.clone()]);
                self.source = Source::Ended;
                return chunk;
            }
            Source::Ended => return None,
            Source::Running(_) => {}
        }
        let chunk = match self.backlog() {
            Some(chunk) => Some(chunk),
            None => self.live().await,
        };
        match &chunk {
            Some(chunk) => self.version = self.version.max(chunk.version()),
            None => self.source = Source::Ended,
        }
        chunk.map(|chunk| chunk.seen_as(&self.def))
    }

    /// As a stream of the same chunks.
    pub fn into_stream(self) -> impl Stream<Item = Arc<Chunk>> + Send {
        futures::stream::unfold(self, |mut watch| async move { Some((watch.next().await?, watch)) })
    }

    fn backlog(&mut self) -> Option<Arc<Chunk>> {
        let Source::Running(running) = &mut self.source else { return None };
        loop {
            match &mut running.backlog {
                Backlog::Done => return None,
                Backlog::Log { chunks, after } => {
                    let Some(chunk) = chunks.pop_front() else {
                        // It may be of the future: no bookmark names an older one than the client has.
                        self.version = self.version.max(*after);
                        running.backlog = Backlog::Done;
                        return None;
                    };
                    if let Some(due) = missed(&chunk, *after, &running.selection) {
                        return Some(due);
                    }
                }
                Backlog::State { objects, version, after } => {
                    let page = initial_page(objects, &running.selection, after);
                    if let Some(chunk) =
                        Chunk::new(page.into_iter().map(WatchEvent::initial).collect())
                    {
                        return Some(chunk);
                    }
                    let version = *version;
                    running.backlog = Backlog::Done;
                    self.version = self.version.max(version);
                    if self.extras.initial_end {
                        return Chunk::new(vec![WatchEvent::bookmark(&self.def, version, true)]);
                    }
                    return None;
                }
            }
        }
    }

    async fn live(&mut self) -> Option<Arc<Chunk>> {
        loop {
            let now = Instant::now();
            if now >= self.deadline {
                return None;
            }
            if now >= self.next_bookmark {
                self.plan_bookmark(now);
                return self.bookmark_or_events();
            }
            let Source::Running(running) = &mut self.source else { return None };
            tokio::select! {
                biased;
                chunk = running.queue.recv() => return chunk,
                () = self.alarm.as_mut() => {}
            }
        }
    }

    /// What has been dispatched is read before the queue: if that is empty then, everything up to
    /// there has been returned.
    fn bookmark_or_events(&mut self) -> Option<Arc<Chunk>> {
        let dispatched = Revision(self.dispatched.load(Ordering::Acquire));
        let Source::Running(running) = &mut self.source else { return None };
        match running.queue.try_recv() {
            Ok(chunk) => {
                // A busy watch knows where it is; the bookmark comes with the next quiet moment.
                self.next_bookmark = Instant::now() + Duration::from_secs(1);
                self.alarm.as_mut().reset(self.next_bookmark.min(self.deadline));
                Some(chunk)
            }
            Err(mpsc::error::TryRecvError::Disconnected) => None,
            Err(mpsc::error::TryRecvError::Empty) => {
                let version = self.version.max(end_of(dispatched));
                Chunk::new(vec![WatchEvent::bookmark(&self.def, version, false)])
            }
        }
    }

    fn plan_bookmark(&mut self, now: Instant) {
        let last = self.deadline - BOOKMARK_BEFORE_DEADLINE.min(self.extras.timeout);
        self.next_bookmark = match self.extras.bookmarks {
            true if now < last => (now + BOOKMARK_PERIOD).min(last),
            // Never again.
            _ => self.deadline,
        };
        self.alarm.as_mut().reset(self.next_bookmark.min(self.deadline));
    }
}

fn missed(chunk: &LogChunk, after: Version, selection: &Selection) -> Option<Arc<Chunk>> {
    let events = chunk.all.events();
    if selection.is_everything() && events[0].version > after {
        return Some(chunk.all.clone());
    }
    let due = (0..events.len()).filter(|at| events[*at].version > after);
    Chunk::new(due.filter_map(|at| chunk.seen(at, selection)).collect())
}

/// The next objects of the initial state; `after` moves on.
fn initial_page(
    objects: &Objects,
    selection: &Selection,
    after: &mut Option<Arc<str>>,
) -> Vec<Arc<Object>> {
    let page: Vec<Arc<Object>> = range(objects, selection.namespace(), after.as_deref())
        .filter(|object| selection.matches(object))
        .take(INITIAL_CHUNK)
        .cloned()
        .collect();
    if let Some(last) = page.last() {
        *after = Some(last.shared_path());
    }
    page
}
