//! The output of tasks, served to the API server: `GET /logs/{namespace}/{name}/{uid}`.
//!
//! Query: as of a Pod's log in Kubernetes: `follow`, `tailLines`, `stream` (`Stdout`, `Stderr`, or
//! both when absent), `timestamps`, `sinceSeconds`, `sinceTime`, `limitBytes`. One stream by itself
//! comes as the raw bytes that the task wrote, however long or binary its lines are. Both come
//! line by line, in the order in which the lines came to be. A followed log ends when the task has
//! ended and everything has been sent.
//!
//! Rotation keeps the newest output only. Who asks for all of it is told on the first lines how much
//! of each stream is gone.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use commonage_shim::StateDir;
use commonage_shim::launch::{LogLimits, Stream as Output};
use futures::Stream;
use jiff::Timestamp;

use crate::ledger::{Ledger, is_uid};
use crate::session::Refusal;

mod merged;
mod reader;
mod wanted;

use merged::Merged;
pub(crate) use reader::Reader;
use wanted::Wanted;

/// Pause between two looks at a log that has nothing new, at first. Short, because a person waits.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// The longest such pause.
const PAUSE_LONGEST: Duration = Duration::from_millis(200);

/// What the endpoint serves: logs, and a health answer.
pub fn router(ledger: Ledger) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/logs/{namespace}/{name}/{uid}", get(logs))
        .with_state(ledger)
}

async fn logs(
    State(ledger): State<Ledger>,
    Path((namespace, name, uid)): Path<(String, String, String)>,
    uri: Uri,
) -> Response {
    let wanted = match Wanted::parse(uri.query().unwrap_or_default(), Timestamp::now()) {
        Ok(wanted) => wanted,
        Err(message) => return refuse(StatusCode::BAD_REQUEST, message),
    };
    if !is_uid(&uid) {
        return refuse(StatusCode::BAD_REQUEST, "the uid is not one");
    }
    let of = (ledger.clone(), uid.clone());
    let look = move || Some((of.0.entry(&of.1)?, of.0.collected(&of.1)));
    match tokio::task::spawn_blocking(look).await {
        Ok(Some((entry, collected))) if entry.namespace == namespace && entry.name == name => {
            if let Some(since) = collected {
                return Refusal::collected(&name, &since).into_response();
            }
        }
        _ => {
            return refuse(
                StatusCode::NOT_FOUND,
                "this agent has no output of that task: it has not started, or was removed",
            );
        }
    }
    let dir = ledger.state_dir(&uid);
    let follow = wanted.follow;
    let opened = tokio::task::spawn_blocking(move || open(&dir, &wanted)).await;
    let Ok(Ok(output)) = opened else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "the log can't be opened");
    };
    let stream =
        output_of(Following { ledger, uid, output, follow, pause: PAUSE_FIRST, complete: None });
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (headers, Body::from_stream(stream)).into_response()
}

fn refuse(status: StatusCode, message: &'static str) -> Response {
    (status, message).into_response()
}

/// The outputs, and what is to be said about beginnings that are gone: first of all and for all
/// outputs together, so that it never comes in the middle of a line. Blocks.
fn open(dir: &StateDir, wanted: &Wanted) -> std::io::Result<Merged> {
    let mut notice = String::new();
    let mut readers = Vec::new();
    for output in &wanted.outputs {
        let mut reader = Reader::new(dir.log(*output), wanted.tail_lines);
        if wanted.is_all() {
            let gone = open_oldest(dir, *output, &mut reader)?;
            if gone > 0 {
                let limits = dir.launch().map(|launch| launch.log).unwrap_or_default();
                notice.push_str(&gone_notice(*output, gone, &limits));
            }
        } else {
            reader.begin()?;
        }
        readers.push(reader);
    }
    Ok(Merged::new(readers, wanted, notice))
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
    output: Merged,
    follow: bool,
    pause: Duration,
    /// Whether nothing will be written any more: then what is there now is all.
    complete: Option<bool>,
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
        loop {
            // Asked before a round of reads: an end seen now means that they see everything.
            let complete = match self.complete {
                Some(complete) => complete,
                None => !self.follow || self.has_ended().await,
            };
            self.complete = Some(complete);
            let mut output = std::mem::take(&mut self.output);
            let read = move || output.next(complete).map(|piece| (output, piece));
            let read = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)?;
            let (output, piece) = read?;
            self.output = output;
            if piece.is_some() {
                self.pause = PAUSE_FIRST;
                return Ok(piece);
            }
            if complete || self.output.is_over() {
                return Ok(None);
            }
            self.complete = None;
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(PAUSE_LONGEST);
        }
    }

    async fn has_ended(&self) -> bool {
        let of = (self.ledger.clone(), self.uid.clone());
        tokio::task::spawn_blocking(move || of.0.has_ended(&of.1)).await.unwrap_or(true)
    }
}

#[cfg(test)]
mod tests;
