//! WebSockets on connections that HTTP has handed over.

use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION};
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Raw;
use crate::status::ApiError;

/// A message at most: kube-apiserver's own bound.
const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// Read from and kept for a connection.
const BUFFER_BYTES: usize = 16 * 1024;

pub(super) type Socket = WebSocketStream<Raw>;

/// Answers the client's challenge.
pub(super) fn accept(asked: &HeaderMap, answer: &mut HeaderMap) -> Result<(), ApiError> {
    let version = asked.get(SEC_WEBSOCKET_VERSION).and_then(|version| version.to_str().ok());
    let key = asked.get(SEC_WEBSOCKET_KEY).filter(|_| version == Some("13"));
    let key =
        key.ok_or_else(|| ApiError::bad_request("missing or bad WebSocket version or key"))?;
    let accepted = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .expect("base64 is text for a header");
    answer.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    Ok(())
}

async fn socket(raw: Raw, role: Role) -> Socket {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(0);
    WebSocketStream::from_raw_socket(raw, role, Some(config)).await
}

/// Ours with a client.
pub(super) async fn of_client(raw: Raw) -> Socket {
    socket(raw, Role::Server).await
}

/// Ours with an agent.
pub(super) async fn to_agent(raw: Raw) -> Socket {
    socket(raw, Role::Client).await
}

/// The next message's bytes, of text too; `None` at the end, however it came.
pub(super) async fn next<S>(socket: &mut S) -> Option<Bytes>
where
    S: Stream<Item = Result<Message, Error>> + Unpin,
{
    loop {
        match socket.next().await?.ok()? {
            Message::Binary(bytes) => return Some(bytes),
            Message::Text(text) => return Some(text.into()),
            Message::Close(_) => return None,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

/// One binary message of a channel. False: the other side is gone.
pub(super) async fn send<S>(socket: &mut S, channel: u8, data: &[u8]) -> bool
where
    S: Sink<Message, Error = Error> + Unpin,
{
    let mut message = Vec::with_capacity(1 + data.len());
    message.push(channel);
    message.extend_from_slice(data);
    socket.send(Message::Binary(message.into())).await.is_ok()
}

/// Says that all is said: clients take a close without this code for a breakdown.
pub(super) async fn finish<S>(socket: &mut S)
where
    S: Sink<Message, Error = Error> + Unpin,
{
    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    // Who is gone needs no goodbye.
    let _ = socket.send(Message::Close(Some(close))).await;
}

/// A stream of bytes that travels in binary messages, cut anywhere: what comes and goes on the
/// returned pipe. Ends when either side does.
pub(super) async fn as_bytes(socket: Socket, pipe: DuplexStream) {
    let (mut sink, mut source) = socket.split();
    let (mut read, mut write) = tokio::io::split(pipe);
    let inwards = async {
        while let Some(piece) = next(&mut source).await {
            if write.write_all(&piece).await.is_err() {
                break;
            }
        }
    };
    let outwards = async {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            let piece = Bytes::copy_from_slice(&buffer[..length]);
            if sink.send(Message::Binary(piece)).await.is_err() {
                return;
            }
        }
        finish(&mut sink).await;
    };
    tokio::select! {
        () = inwards => {}
        () = outwards => {}
    }
}
