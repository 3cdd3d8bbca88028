//! `v5.channel.k8s.io`: several streams in one WebSocket. Every message is binary; its first byte
//! names the channel, the rest is data. Knows nothing of what the data is for.
//!
//! 0 input, 1 output, 2 errors, 3 the Status that ends it all, 4 the size of the terminal as JSON,
//! 255 the client's "this channel is at its end" with the channel's number.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::refusal::Refusal;

const PROTOCOL: &str = "v5.channel.k8s.io";
/// What clients may send at once; the limit of the Kubernetes API server's WebSockets.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Buffer of a connection in each direction.
const BUFFER_BYTES: usize = 16 * 1024;
/// How long a client gets to confirm the end, so that it reads all that came before.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Agrees to a request for a WebSocket: what is to come of its connection, and the answer.
pub(super) fn accept(request: &mut Request) -> Result<(OnUpgrade, Response), Refusal> {
    let headers = request.headers();
    let lists = |name, wanted: &str| {
        let all = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        all.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    if !lists(header::CONNECTION, "upgrade") || !lists(header::UPGRADE, "websocket") {
        return Err(Refusal::bad_request("Upgrade request required"));
    }
    if !lists(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL) {
        return Err(Refusal::bad_request(format!("this agent speaks {PROTOCOL} only")));
    }
    let answer = switching(headers)?;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    Ok((upgrade.ok_or_else(|| Refusal::bad_request("Upgrade request required"))?, answer))
}

fn switching(headers: &HeaderMap) -> Result<Response, Refusal> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let key = key.ok_or_else(|| Refusal::bad_request("Sec-WebSocket-Key: must be there"))?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| Refusal::internal("the WebSocket's key"))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    answer.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Stdin(Bytes),
    StdinClosed,
    Resize { columns: u16, rows: u16 },
}

/// In the letters of Go's clients, or of client-node: Go's decoder takes either.
#[derive(Deserialize)]
struct Size {
    #[serde(alias = "Width")]
    width: u16,
    #[serde(alias = "Height")]
    height: u16,
}

/// From the client.
pub(super) struct Incoming(SplitStream<Socket>);

/// To the client.
pub(super) struct Outgoing(SplitSink<Socket, Message>);

/// Waits for the connection that was agreed upon; `None` if the client is gone already.
pub(super) async fn open(upgrade: OnUpgrade) -> Option<(Incoming, Outgoing)> {
    let io = match upgrade.await {
        Ok(upgraded) => TokioIo::new(upgraded),
        Err(error) => {
            tracing::debug!(%error, "a session was not begun");
            return None;
        }
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let (outgoing, incoming) = socket.split();
    Some((Incoming(incoming), Outgoing(outgoing)))
}

impl Incoming {
    /// The next thing said that means something; `None`: the client is gone. Pings are answered
    /// on the way.
    pub(super) async fn next(&mut self) -> Option<Said> {
        loop {
            match self.0.next().await? {
                Ok(Message::Binary(message)) => {
                    if let Some(said) = parse(message) {
                        return Some(said);
                    }
                }
                Ok(Message::Close(_)) => return None,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "a session broke");
                    return None;
                }
            }
        }
    }

    /// Reads to the end of the connection, which has been closed from our side.
    pub(super) async fn finish(mut self) {
        let rest = async { while let Some(Ok(_)) = self.0.next().await {} };
        let _ = tokio::time::timeout(CLOSE_TIME_MAX, rest).await;
    }
}

fn parse(mut message: Bytes) -> Option<Said> {
    if message.is_empty() {
        return None;
    }
    match message.split_to(1)[0] {
        // Some clients open each channel with an empty message.
        STDIN if message.is_empty() => None,
        STDIN => Some(Said::Stdin(message)),
        CLOSE if message.as_ref() == [STDIN] => Some(Said::StdinClosed),
        RESIZE => {
            let size: Size = serde_json::from_slice(&message).ok()?;
            Some(Said::Resize { columns: size.width, rows: size.height })
        }
        _ => None,
    }
}

impl Outgoing {
    /// Sends a message whose first byte is its channel, and waits until the connection has it.
    pub(super) async fn send(&mut self, message: Vec<u8>) -> Result<(), Error> {
        self.0.send(Message::Binary(message.into())).await
    }

    /// Sends the Status that ends the session, and closes it.
    pub(super) async fn end(mut self, status: &Value) {
        let mut message = vec![STATUS];
        message.extend(status.to_string().into_bytes());
        let told = async {
            self.send(message).await?;
            // Without this code clients take the end for a breakdown.
            let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            self.0.send(Message::Close(Some(close))).await
        };
        if let Err(error) = told.await {
            tracing::debug!(%error, "nobody heard the end of a session");
        }
    }

    /// Asks whether the client is still there. One that is not is noticed, sooner or later.
    pub(super) async fn ping(&mut self) -> Result<(), Error> {
        self.0.send(Message::Ping(Bytes::new())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_apart() {
        let said = |bytes: &'static [u8]| parse(Bytes::from_static(bytes));
        assert_eq!(said(b"\0ls\n"), Some(Said::Stdin(Bytes::from_static(b"ls\n"))));
        assert_eq!(said(b"\xff\0"), Some(Said::StdinClosed));
        let size = Said::Resize { columns: 80, rows: 24 };
        assert_eq!(said(b"\x04{\"Width\":80,\"Height\":24}"), Some(size.clone()));
        assert_eq!(said(b"\x04{\"height\":24,\"width\":80}"), Some(size));
        for nothing in [&b""[..], b"\0", b"\xff\x01", b"\x04{", b"\x01x", b"\x07"] {
            assert_eq!(said(nothing), None, "{nothing:?}");
        }
    }
}
