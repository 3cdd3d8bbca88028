//! The output of tasks, served to the API server: `GET /logs/{namespace}/{name}/{uid}`.
//!
//! Query: `follow`, `tailLines`, `stream` (`stdout`, `stderr`, or both when absent). The answer is
//! the raw bytes that the task wrote, however long or binary its lines are. The streams carry no
//! time stamps yet, so with both of them the pieces come as they are found, stdout first, and
//! `tailLines` counts for each stream by itself. A followed log ends when the task has ended and
//! everything has been sent.
//!
//! Rotation keeps the newest output only. Who asks for all of it is told on the first lines how much
//! of each stream is gone.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use commonage_shim::StateDir;
use commonage_shim::launch::{LogLimits, Stream as Output};
use futures::Stream;
use serde::Deserialize;

use crate::ledger::{Ledger, is_uid};

mod reader;

pub(crate) use reader::Reader;

/// Pause between two looks at a log that has nothing new, at first. Short, because a person waits.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// The longest such pause.
const PAUSE_LONGEST: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LogQuery {
    follow: Option<String>,
    tail_lines: Option<u64>,
    stream: Option<String>,
}

/// What the endpoint serves: logs, and a health answer.
pub(crate) fn router(ledger: Ledger) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/logs/{namespace}/{name}/{uid}", get(logs))
        .with_state(ledger)
}

async fn logs(
    State(ledger): State<Ledger>,
    Path((namespace, name, uid)): Path<(String, String, String)>,
    Query(query): Query<LogQuery>,
) -> Response {
    let outputs = match query.stream.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "all") => vec![Output::Stdout, Output::Stderr],
        Some("stdout") => vec![Output::Stdout],
        Some("stderr") => vec![Output::Stderr],
        Some(_) => {
            return refuse(StatusCode::BAD_REQUEST, "stream is stdout, stderr or absent");
        }
    };
    if !is_uid(&uid) {
        return refuse(StatusCode::BAD_REQUEST, "the uid is not one");
    }
    let of = (ledger.clone(), uid.clone());
    let entry = tokio::task::spawn_blocking(move || of.0.entry(&of.1)).await;
    match entry {
        Ok(Some(entry)) if entry.namespace == namespace && entry.name == name => {}
        _ => {
            return refuse(
                StatusCode::NOT_FOUND,
                "this agent has no output of that task: it has not started, or was removed",
            );
        }
    }
    // `?follow` alone means yes.
    let follow = !matches!(query.follow.as_deref(), None | Some("false" | "0"));
    let dir = ledger.state_dir(&uid);
    let opened = tokio::task::spawn_blocking(move || open(&dir, &outputs, query.tail_lines)).await;
    let Ok(Ok((readers, notice))) = opened else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "the log can't be opened");
    };
    let stream = output_of(Following {
        ledger,
        uid,
        notice,
        readers,
        follow,
        next: 0,
        pause: PAUSE_FIRST,
        complete: false,
    });
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (headers, Body::from_stream(stream)).into_response()
}

fn refuse(status: StatusCode, message: &'static str) -> Response {
    (status, message).into_response()
}

/// Readers of the outputs, and what is to be said about beginnings that are gone: first of all
/// and for all outputs together, so that it never comes in the middle of a line. Blocks.
fn open(
    dir: &StateDir,
    outputs: &[Output],
    tail_lines: Option<u64>,
) -> std::io::Result<(Vec<Reader>, Option<Bytes>)> {
    let mut notice = String::new();
    let mut readers = Vec::new();
    for output in outputs {
        let mut reader = Reader::new(dir.log(*output), tail_lines);
        if tail_lines.is_none() {
            let gone = open_oldest(dir, *output, &mut reader)?;
            if gone > 0 {
                let limits = dir.launch().map(|launch| launch.log).unwrap_or_default();
                notice.push_str(&gone_notice(*output, gone, &limits));
            }
        }
        readers.push(reader);
    }
    Ok((readers, (!notice.is_empty()).then(|| notice.into())))
}

/// Opens the oldest file that is kept, and returns how many bytes came before it.
fn open_oldest(dir: &StateDir, output: Output, reader: &mut Reader) -> std::io::Result<u64> {
    /// A rotation takes 10 MiB of output; several during these looks would be a marvel.
    const LOOKS_MAX: usize = 8;
    let mut gone = dir.log_bytes_gone(output);
    for _ in 0..LOOKS_MAX {
        reader.begin()?;
        let now = dir.log_bytes_gone(output);
        if std::mem::replace(&mut gone, now) == now {
            break;
        }
    }
    Ok(gone)
}

fn gone_notice(output: Output, bytes: u64, limits: &LogLimits) -> String {
    const MIB: u64 = 1024 * 1024;
    let name = match output {
        Output::Stdout => "stdout",
        Output::Stderr => "stderr",
    };
    let size = match limits.max_file_bytes {
        bytes if bytes % MIB == 0 => format!("{} MiB", bytes / MIB),
        bytes => format!("{bytes} bytes"),
    };
    let files = limits.max_files;
    format!(
        "[commonage: the first {bytes} bytes of {name} are gone (kept: {files} files of {size})]\n"
    )
}

struct Following {
    ledger: Ledger,
    uid: String,
    /// To be said first.
    notice: Option<Bytes>,
    readers: Vec<Reader>,
    follow: bool,
    /// The reader to ask next.
    next: usize,
    pause: Duration,
    /// Nothing will be written any more: what is there now is all.
    complete: bool,
}

fn output_of(following: Following) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    futures::stream::try_unfold(following, |mut following| async move {
        let piece = following.piece().await?;
        Ok(piece.map(|piece| (piece, following)))
    })
}

impl Following {
    /// The next piece of output, or `None` at the end of all of it.
    async fn piece(&mut self) -> std::io::Result<Option<Bytes>> {
        if let Some(notice) = self.notice.take() {
            return Ok(Some(notice));
        }
        loop {
            if self.next == 0 {
                // Asked before the round of reads: an end seen now means that they see everything.
                self.complete = !self.follow || self.has_ended().await;
            }
            while let Some(reader) = self.readers.get_mut(self.next) {
                let (again, piece) = read(std::mem::take(reader)).await?;
                *reader = again;
                match piece {
                    Some(piece) => {
                        self.pause = PAUSE_FIRST;
                        return Ok(Some(piece));
                    }
                    None => self.next += 1,
                }
            }
            self.next = 0;
            if self.complete {
                return Ok(None);
            }
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(PAUSE_LONGEST);
        }
    }

    async fn has_ended(&self) -> bool {
        let of = (self.ledger.clone(), self.uid.clone());
        tokio::task::spawn_blocking(move || of.0.has_ended(&of.1)).await.unwrap_or(true)
    }
}

async fn read(mut reader: Reader) -> std::io::Result<(Reader, Option<Bytes>)> {
    tokio::task::spawn_blocking(move || {
        let piece = reader.read()?;
        Ok((reader, piece))
    })
    .await
    .map_err(std::io::Error::other)?
}

#[cfg(test)]
mod tests;
