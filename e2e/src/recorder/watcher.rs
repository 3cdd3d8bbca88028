//! Clients that watch: some come and go, some follow everything to the end.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::load::Dice;
use super::{Recorder, Server, plain, selector_query};
use crate::history::{Answer, Event, From, Kind, Record, Selector, Version, Watch, version_of};

/// An open stream, and what has come on it.
pub struct Stream {
    body: Body,
    /// Of a line that is not complete yet. If the stream breaks, it never was an event.
    rest: Vec<u8>,
    pub watch: Watch,
}

impl Stream {
    pub async fn open(
        recorder: &Recorder,
        server: &Server,
        client: u32,
        from: From,
        selector: &Selector,
    ) -> Result<Stream, String> {
        let mut query = format!("?watch=1&allowWatchBookmarks=true{}", selector_query(selector));
        query += &match from {
            From::Initial => "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan".to_owned(),
            From::Version(version) => format!("&resourceVersion={version}"),
        };
        let began_us = recorder.now_us();
        let path = recorder.path(&query);
        let open = server.open(Method::GET, &path, None);
        let late = |_| "no head of an answer".to_owned();
        let response =
            tokio::time::timeout(super::REQUEST_TIME_MAX, open).await.map_err(late)??;
        if response.status() != StatusCode::OK {
            return Err(format!("{}", response.status()));
        }
        let (server, selector) = (server.name.clone(), selector.clone());
        let events = Vec::new();
        let watch = Watch { client, server, began_us, from, selector, events, witness: false };
        Ok(Stream { body: response.into_body(), rest: Vec::new(), watch })
    }

    /// The number of events that came; `None` when the stream has ended. Cancel safe.
    pub async fn next(&mut self, recorder: &Recorder) -> Option<usize> {
        let frame = self.body.frame().await?.ok()?;
        let Ok(data) = frame.into_data() else { return Some(0) };
        let at_us = recorder.now_us();
        self.rest.extend_from_slice(&data);
        let before = self.watch.events.len();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.watch.events.push(event(at_us, &line));
        }
        Some(self.watch.events.len() - before)
    }

    /// From where it can be resumed; `None` if it has expired, or its initial state is not complete.
    pub fn position(&self) -> Option<Version> {
        let events = &self.watch.events;
        if events.iter().any(|event| event.kind == Kind::Error) {
            return None;
        }
        match self.watch.from {
            From::Initial if !events.iter().any(|event| event.kind == Kind::Initial) => None,
            From::Initial => events.last().map(|event| event.version),
            From::Version(version) => Some(events.last().map_or(version, |event| event.version)),
        }
    }
}

fn event(at_us: u64, line: &[u8]) -> Event {
    let mut value: Value = serde_json::from_slice(line).expect("a whole line is a whole event");
    let object = value["object"].take();
    let version = version_of(&object);
    let initial = &object["metadata"]["annotations"]["k8s.io/initial-events-end"];
    let kind = match value["type"].as_str() {
        Some("ADDED") => Kind::Added,
        Some("MODIFIED") => Kind::Modified,
        Some("DELETED") => Kind::Deleted,
        Some("BOOKMARK") if initial == "true" => Kind::Initial,
        Some("BOOKMARK") => Kind::Bookmark,
        _ => {
            assert_eq!(object["code"], 410, "a watch ended with {object}");
            Kind::Error
        }
    };
    let object = match kind {
        Kind::Added | Kind::Modified | Kind::Deleted => plain(object),
        _ => Value::Null,
    };
    Event { at_us, kind, version, object }
}

/// Watches for a while, goes away, comes back: to any server, from where it was or anew.
pub(super) async fn wander(
    recorder: Arc<Recorder>,
    servers: Vec<Server>,
    selector: Selector,
    mut dice: Dice,
    stop: CancellationToken,
) {
    let client = recorder.client();
    let mut position: Option<Version> = None;
    while !stop.is_cancelled() {
        let server = &servers[dice.roll(servers.len() as u64) as usize];
        let from = match (position, dice.roll(10)) {
            (Some(version), 0..7) => From::Version(version),
            (_, 7 | 8) => From::Initial,
            _ => match recorder.list(client, server, &selector, None, (false, 0)).await {
                Answer::List { version, .. } => From::Version(version),
                _ => {
                    rest(&stop).await;
                    continue;
                }
            },
        };
        let Ok(mut stream) = Stream::open(&recorder, server, client, from, &selector).await else {
            rest(&stop).await;
            continue;
        };
        let time = Duration::from_millis(50 + dice.roll(1_200));
        let watched = async { while stream.next(&recorder).await.is_some() {} };
        tokio::select! {
            () = watched => {}
            () = tokio::time::sleep(time) => {}
            () = stop.cancelled() => {}
        }
        position = stream.position();
        recorder.add(Record::Watch(stream.watch));
    }
}

/// Before trying again.
async fn rest(stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(50)) => {}
        () = stop.cancelled() => {}
    }
}

/// Somebody who follows everything, from server to server, until it has seen the last write.
pub(super) struct Follow {
    pub(super) recorder: Arc<Recorder>,
    pub(super) servers: Vec<Server>,
    pub(super) end: tokio::sync::watch::Receiver<Option<Version>>,
}

impl Follow {
    /// Where the history begins.
    pub(super) async fn start(recorder: &Recorder, servers: &[Server]) -> Version {
        let client = recorder.client();
        crate::soon("a first list", async || {
            let all = Selector::default();
            match recorder.list(client, &servers[0], &all, None, (false, 0)).await {
                Answer::List { version, .. } => Ok(version),
                answer => Err(format!("{answer:?}")),
            }
        })
        .await
    }

    pub(super) async fn run(mut self, start: Version) {
        let client = self.recorder.client();
        let all = Selector::default();
        let mut position = start;
        let mut turn = 0;
        let mut patience = None;
        let mut expired = 0;
        loop {
            let server = &self.servers[turn % self.servers.len()];
            turn += 1;
            let from = From::Version(position);
            let opened = Stream::open(&self.recorder, server, client, from, &all).await;
            let Ok(mut stream) = opened else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let done = loop {
                let end = *self.end.borrow_and_update();
                if end.is_some_and(|end| stream.position().is_some_and(|at| at >= end)) {
                    break true;
                }
                if end.is_some() && patience.is_none() {
                    patience = Some(tokio::time::Instant::now() + crate::PATIENCE);
                }
                let deadline = async {
                    match patience {
                        Some(deadline) => tokio::time::sleep_until(deadline).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    came = stream.next(&self.recorder) => if came.is_none() { break false },
                    _ = self.end.changed() => {}
                    // It will never come: the checker says what is missing.
                    () = deadline => break true,
                }
            };
            stream.watch.witness = done;
            // A server may have forgotten what another still knows.
            expired = match stream.position() {
                Some(version) => {
                    position = version;
                    0
                }
                None => expired + 1,
            };
            assert!(expired <= self.servers.len(), "a witness lost its place at {position}");
            self.recorder.add(Record::Watch(stream.watch));
            if done {
                return;
            }
        }
    }
}
