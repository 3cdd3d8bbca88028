//! A watch's answer: one JSON line per event, in pieces as large as what is due.
//!
//! Whole objects go out as the bytes that all watchers share. Tables and metadata are rendered
//! from them for each watcher: people watch so, and people are few.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::Stream;
use http::Response;
use http::header::CONTENT_TYPE;
use http_body::{Body as HttpBody, Frame};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, Sleep};

use super::body::PIECE_BYTES;
use super::chain::Call;
use super::metrics::WatchCounters;
use super::negotiate::{Format, Shape};
use super::resources::{Target, flagged};
use super::{list_options, respond};
use crate::auth::CONTROLLERS;
use crate::engine::{Chunk, EventKind, WatchEvent};
use crate::histogram::Histogram;
use crate::resource::ResourceDef;
use crate::status::ApiError;
use crate::streams;
use crate::table::{self, Headers, TableOptions, TableVersion};

/// After a piece the next one waits, so that what happens meanwhile goes out with it: a wake-up and
/// a write cost as much as sending a dozen events. The first event after a quiet time is never late.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// The more watches the same events go to the longer each of them waits, so that all together do not
/// wake up more often than thirty times a millisecond, which is a tenth of a processor core or two.
const PAUSE_PER_WATCH: Duration = Duration::from_micros(30);
/// No event is later than this for the sake of others: as long as that holds for 800 watches, and nothing
/// that a person would notice.
const PAUSE_MAX: Duration = Duration::from_millis(25);

/// How long a watch waits after a piece that so many watches were given.
fn pause(watches: u32) -> Duration {
    (PAUSE_PER_WATCH * watches.min(1_000)).clamp(PAUSE_MIN, PAUSE_MAX)
}

pub(super) async fn handle(call: &Call<'_>, target: &Target) -> Result<Response<Body>, ApiError> {
    let format = Format::negotiate_stream(call.headers, call.query)?;
    let options = list_options::watch(call.query, call.info.watched_name())?;
    let render = match format.shape {
        // No event's object is a list, and kube-apiserver then sends it as it is.
        Shape::Whole | Shape::MetadataList(_) => Render::Shared { lean: format.lean },
        Shape::Metadata(version) => Render::Metadata(version, format.lean),
        Shape::Table(version) => Render::Table {
            def: target.def.clone(),
            options: respond::table_options(version, call.query)?,
            headers: Headers::Shown,
        },
    };
    let engine = &call.app.engine;
    let version = options.resource_version;
    let mut watch = engine.watch(&target.def, target.namespaces(), options).await?;
    if call.user.is_in(CONTROLLERS) {
        // One that is elected waits for this before it decides.
        watch.tell_at_once();
    }
    let counters = call.app.metrics.watch_counters(&target.def);
    counters.open.fetch_add(1, Relaxed);
    let body = WatchBody {
        chunks: Box::pin(watch.into_stream()),
        render,
        counters,
        pause: Box::pin(tokio::time::sleep(Duration::ZERO)),
        pausing: false,
        due: Vec::new(),
        has_to_end: Box::pin(call.ends.clone().ended()),
        ended: false,
    };
    let body = Body::new(body);
    if streams::watch::is_asked_for(call.headers)
        && let Some(upgrade) = call.upgrade.lock().take()
    {
        return streams::watch::open(call.headers, upgrade, body);
    }
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, respond::JSON);
    Ok(flagged(call, version, response))
}

enum Render {
    Shared { lean: bool },
    Metadata(TableVersion, bool),
    Table { def: Arc<ResourceDef>, options: TableOptions, headers: Headers },
}

struct WatchBody {
    chunks: Pin<Box<dyn Stream<Item = Arc<Chunk>> + Send>>,
    render: Render,
    counters: Arc<WatchCounters>,
    pause: Pin<Box<Sleep>>,
    /// `pause` runs. The chunks are not looked at then: nothing wakes this watch but the timer.
    pausing: bool,
    /// Empty between two polls; kept for its memory.
    due: Vec<Arc<Chunk>>,
    has_to_end: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
}

impl Drop for WatchBody {
    fn drop(&mut self) {
        self.counters.open.fetch_sub(1, Relaxed);
    }
}

impl WatchBody {
    /// The lines of these chunks as they are sent.
    fn bytes_of(&mut self, chunks: &[Arc<Chunk>]) -> Bytes {
        let sizes = &self.counters.sizes;
        match &mut self.render {
            Render::Shared { lean } => {
                let events = chunks.iter().flat_map(|chunk| chunk.events());
                sizes.observe_all(events.map(|event| event.bytes.len() as u64));
                Chunk::bytes_of_all(chunks, *lean)
            }
            Render::Metadata(version, lean) => {
                rendered(chunks, sizes, |event| match &event.object {
                    Some(object) => Some(table::render_partial(object, *version, *lean)),
                    None => Some(table::render_partial_of(&parsed(event)?, *version)),
                })
            }
            Render::Table { def, options, headers } => {
                // Ages are as of the event, not of the watch's begin.
                options.now = Timestamp::now();
                rendered(chunks, sizes, |event| {
                    let object = parsed(event)?;
                    let shown = std::mem::replace(headers, Headers::Omitted);
                    Some(table::render_one(def, &object, shown, *options))
                })
            }
        }
    }

    /// Everything due now, up to a piece's size or little more.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.pausing && !self.ended {
            std::task::ready!(self.pause.as_mut().poll(cx));
            self.pausing = false;
        }
        let mut due = std::mem::take(&mut self.due);
        let (mut bytes, mut watches) = (0, 0);
        while !self.ended && bytes < PIECE_BYTES {
            // What follows the first is taken if it is there. What is not comes after the pause: it
            // must not wake this watch before.
            let mut nobody = Context::from_waker(Waker::noop());
            let cx = if bytes == 0 { &mut *cx } else { &mut nobody };
            match self.chunks.as_mut().poll_next(cx) {
                Poll::Ready(Some(chunk)) => {
                    watches = watches.max(chunk.watches());
                    bytes += chunk.length();
                    due.push(chunk);
                }
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
        }
        if !due.is_empty() {
            let piece = self.bytes_of(&due);
            due.clear();
            self.due = due;
            // A full piece means that more waits: no reason to pause.
            if bytes < PIECE_BYTES {
                self.pause.as_mut().reset(Instant::now() + pause(watches));
                self.pausing = true;
            }
            return Poll::Ready(Some(piece));
        }
        self.due = due;
        if self.ended || self.has_to_end.as_mut().poll(cx).is_ready() {
            self.ended = true;
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

impl HttpBody for WatchBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = std::task::ready!(self.poll_piece(cx));
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// The chunks' lines with each object replaced by what `render` makes of its event, if anything.
fn rendered(
    chunks: &[Arc<Chunk>],
    sizes: &Histogram,
    mut render: impl FnMut(&WatchEvent) -> Option<Vec<u8>>,
) -> Bytes {
    let mut lines = Vec::new();
    for event in chunks.iter().flat_map(|chunk| chunk.events()) {
        let before = lines.len();
        match render(event) {
            Some(object) => {
                lines.extend_from_slice(b"{\"type\":\"");
                lines.extend_from_slice(event.kind.as_str().as_bytes());
                lines.extend_from_slice(b"\",\"object\":");
                lines.extend_from_slice(&object);
                lines.extend_from_slice(b"}\n");
            }
            None => lines.extend_from_slice(&event.bytes),
        }
        sizes.observe((lines.len() - before) as u64);
    }
    lines.into()
}

/// What an event is about, as a tree. Errors stay what they are: a Status.
fn parsed(event: &WatchEvent) -> Option<Value> {
    match event.kind {
        EventKind::Error => None,
        _ => serde_json::from_slice(&event.object_json()).ok(),
    }
}
