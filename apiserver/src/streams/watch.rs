//! A watch over a WebSocket, for clients that read no chunked answers (browsers, Java): one text
//! message per event, the same JSON that a chunked watch has in one line. What the client sends is
//! read and ignored.

use axum::body::Body;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::{lists, switching_to_websocket, websocket, words};
use crate::http::credentials::BEARER_PROTOCOL;
use crate::status::ApiError;

/// Whether a request wants its watch so.
pub(crate) fn is_asked_for(headers: &HeaderMap) -> bool {
    lists(headers, CONNECTION, "upgrade") && lists(headers, UPGRADE, "websocket")
}

/// Answers 101; `lines` is what the watch would have answered otherwise.
pub(crate) fn open(
    headers: &HeaderMap,
    upgrade: OnUpgrade,
    lines: Body,
) -> Result<Response<Body>, ApiError> {
    let response = switching_to_websocket(headers, protocol(headers))?;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => run(websocket::of_client(TokioIo::new(upgraded)).await, lines).await,
            Err(error) => tracing::debug!(%error, "a watch was not used"),
        }
    });
    Ok(response)
}

/// A client that offers one protocol hears it again, whatever it is. (A token is none.)
fn protocol(headers: &HeaderMap) -> Option<&str> {
    let mut offered = words(headers, SEC_WEBSOCKET_PROTOCOL)
        .filter(|protocol| !protocol.starts_with(BEARER_PROTOCOL));
    let only = offered.next()?;
    offered.next().is_none().then_some(only)
}

/// Until the watch ends (it ends with the server) or the client goes.
async fn run(socket: websocket::Socket, lines: Body) {
    let (mut sink, mut source) = socket.split();
    let events = async {
        let mut pieces = lines.into_data_stream();
        while let Some(Ok(piece)) = pieces.next().await {
            for event in messages(&piece) {
                if sink.feed(event).await.is_err() {
                    return;
                }
            }
            if sink.flush().await.is_err() {
                return;
            }
        }
        // The client may be gone already.
        let _ = sink.close().await;
    };
    let gone = async { while websocket::next(&mut source).await.is_some() {} };
    tokio::select! {
        () = events => {}
        () = gone => {}
    }
}

/// The lines of a piece, which holds whole ones, each with its end, as kube-apiserver sends them.
fn messages(piece: &Bytes) -> impl Iterator<Item = Message> {
    let lines = piece.split_inclusive(|byte| *byte == b'\n').map(|line| piece.slice_ref(line));
    lines.filter_map(|line| Utf8Bytes::try_from(line).ok()).map(Message::Text)
}
