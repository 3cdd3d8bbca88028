//! Watchers: each with a connection of its own, or many as streams of few HTTP/2 connections.
//!
//! All count lines. Some also read when an event was caused, which its object says, and note how
//! long it took to come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{Request, Server};

/// What a caused event's object has, followed by the time in nanoseconds.
const CAUSED_AT: &[u8] = b"\"at\":\"";
pub(crate) const CAUSED_AT_DIGITS: usize = 19;
/// Watches in one HTTP/2 connection; servers allow 250 streams.
const STREAMS: usize = 200;
/// Connections and watches that are opened at once.
const OPENING: usize = 16;

/// What all watchers have seen together.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) events: AtomicU64,
    pub(crate) bytes: AtomicU64,
    latencies_us: Mutex<Vec<u32>>,
}

impl Seen {
    /// Waits until so many events have come; false when they do not.
    pub(crate) async fn all(&self, events: u64, time_max: Duration) -> bool {
        let deadline = Instant::now() + time_max;
        while self.events.load(Relaxed) < events {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }

    /// Sorted; forgets them.
    pub(crate) fn latencies_us(&self) -> Vec<u32> {
        let mut latencies = std::mem::take(&mut *self.latencies_us.lock());
        latencies.sort_unstable();
        latencies
    }
}

/// Watchers that run until the value goes.
pub(crate) struct Watchers {
    pub(crate) seen: Arc<Seen>,
    _running: JoinSet<()>,
}

pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// `count` watchers of everything under `path`, each with its own connection; `timed` of them tell
/// how late events come.
pub(crate) async fn apart(
    server: &Arc<Server>,
    path: &str,
    count: usize,
    timed: usize,
) -> anyhow::Result<Watchers> {
    let seen = Arc::new(Seen::default());
    let mut running = JoinSet::new();
    for number in 0..count {
        let mut connection = server.connect().await?;
        connection.open(&Request::get(path)).await?;
        let mut lines = Lines::new(seen.clone(), number < timed);
        running.spawn(async move {
            loop {
                match connection.more().await {
                    Ok(bytes) => lines.take(bytes),
                    Err(error) => return eprintln!("a watch ended: {error:#}"),
                }
            }
        });
    }
    Ok(Watchers { seen, _running: running })
}

/// `count` watchers in few connections, each of what `path` makes of its number; all timed.
pub(crate) async fn together(
    server: &Arc<Server>,
    path: impl Fn(usize) -> String,
    count: usize,
) -> anyhow::Result<Watchers> {
    let seen = Arc::new(Seen::default());
    let (mut running, mut opening) = (JoinSet::new(), JoinSet::new());
    for first in (0..count).step_by(STREAMS) {
        let paths: Vec<String> = (first..count.min(first + STREAMS)).map(&path).collect();
        while opening.len() >= OPENING {
            collect(&mut running, opening.join_next().await)?;
        }
        opening.spawn(connection(server.clone(), paths, seen.clone()));
    }
    while let Some(opened) = opening.join_next().await {
        collect(&mut running, Some(opened))?;
    }
    Ok(Watchers { seen, _running: running })
}

type Opened = Vec<(hyper::body::Incoming, Lines)>;

fn collect(
    running: &mut JoinSet<()>,
    opened: Option<Result<anyhow::Result<Opened>, tokio::task::JoinError>>,
) -> anyhow::Result<()> {
    for (mut body, mut lines) in opened.context("nothing was being opened")??? {
        running.spawn(async move {
            while let Some(frame) = body.frame().await {
                match frame {
                    Ok(frame) => lines.take(frame.data_ref().map_or(&[], |data| data)),
                    Err(error) => return eprintln!("a watch ended: {error}"),
                }
            }
            eprintln!("a watch ended");
        });
    }
    Ok(())
}

async fn connection(
    server: Arc<Server>,
    paths: Vec<String>,
    seen: Arc<Seen>,
) -> anyhow::Result<Opened> {
    let stream = server.stream(&[b"h2"]).await?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await?;
    tokio::spawn(connection);
    let mut opened = Vec::with_capacity(paths.len());
    for path in paths {
        let mut request = http::Request::get(format!("https://{}{path}", server.authority));
        if let Some(bearer) = server.bearer() {
            request = request.header("authorization", bearer);
        }
        let mut sender = sender.clone();
        sender.ready().await?;
        let answer = sender.send_request(request.body(Empty::new())?).await?;
        if answer.status() != 200 {
            bail!("{path}: {}", answer.status());
        }
        opened.push((answer.into_body(), Lines::new(seen.clone(), true)));
    }
    Ok(opened)
}

/// Counts the lines of one watch.
struct Lines {
    seen: Arc<Seen>,
    timed: bool,
    last: u8,
    /// The line that has not ended yet, of a watch that is timed.
    line: Vec<u8>,
}

impl Lines {
    fn new(seen: Arc<Seen>, timed: bool) -> Lines {
        Lines { seen, timed, last: 0, line: Vec::new() }
    }

    /// Between the lines there may be the frames of HTTP/1.1, whose lines end with another byte.
    fn take(&mut self, bytes: &[u8]) {
        let mut events = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let before = if end == 0 { self.last } else { bytes[end - 1] };
            events += u64::from(before == b'}');
        }
        self.last = bytes.last().copied().unwrap_or(self.last);
        if self.timed {
            self.time(bytes);
        }
        self.seen.bytes.fetch_add(bytes.len() as u64, Relaxed);
        self.seen.events.fetch_add(events, Relaxed);
    }

    fn time(&mut self, bytes: &[u8]) {
        let now = now_ns();
        self.line.extend_from_slice(bytes);
        let end = memchr::memrchr(b'\n', &self.line).map_or(0, |end| end + 1);
        let mut latencies = Vec::new();
        for at in memchr::memmem::find_iter(&self.line[..end], CAUSED_AT) {
            let begin = at + CAUSED_AT.len();
            let digits = self.line.get(begin..begin + CAUSED_AT_DIGITS).unwrap_or_default();
            let caused = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
            let Some(caused): Option<u64> = caused else { continue };
            latencies.push(u32::try_from(now.saturating_sub(caused) / 1000).unwrap_or(u32::MAX));
        }
        self.line.drain(..end);
        if !latencies.is_empty() {
            self.seen.latencies_us.lock().extend(latencies);
        }
    }
}
