//! `exec` and `attach` over a WebSocket: v5 byte for byte, older forms message by message.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::Response;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use hyper::upgrade::OnUpgrade;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use super::{Raw, Request, negotiated, run, switching_to_websocket, websocket};
use crate::http::Query;
use crate::proxy::AgentUpgrade;
use crate::status::ApiError;

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const STATUS: u8 = 3;
pub(super) const RESIZE: u8 = 4;
/// Of v5 alone: the named channel is at its end.
pub(super) const CLOSE: u8 = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// What agents speak.
    V5,
    Older {
        base64: bool,
        /// The last channel carries a Status; before v4, only the text of a failure.
        status: bool,
    },
}

const FORMS: [(&str, Form); 5] = [
    ("v5.channel.k8s.io", Form::V5),
    ("v4.channel.k8s.io", Form::Older { base64: false, status: true }),
    ("v4.base64.channel.k8s.io", Form::Older { base64: true, status: true }),
    ("channel.k8s.io", Form::Older { base64: false, status: false }),
    ("base64.channel.k8s.io", Form::Older { base64: true, status: false }),
];
const UNNAMED: Form = Form::Older { base64: false, status: false };

pub(super) async fn open(
    request: &Request<'_>,
    upgrade: OnUpgrade,
) -> Result<Response<Body>, ApiError> {
    let (protocol, form) =
        negotiated(request.headers, SEC_WEBSOCKET_PROTOCOL, &FORMS, Some(UNNAMED))?;
    let answer = switching_to_websocket(request.headers, protocol)?;
    let agent = to_agent(request).await?;
    let has_output = request.query.flag("stdout") == Some(true);
    run(request, upgrade, async move |client| match form {
        Form::V5 => relay(client, agent).await,
        Form::Older { base64, status } => {
            let first = if has_output { STDOUT } else { STATUS };
            translate(client, agent, base64, status, first).await;
        }
    });
    Ok(answer)
}

/// The agent's side of the session: its connection, upgraded.
pub(super) async fn to_agent(request: &Request<'_>) -> Result<Raw, ApiError> {
    let parameters = parameters(request.query);
    let path = request.place.path(request.kind.path(), &parameters);
    request.app.agents.upgrade(&request.place, &path, AgentUpgrade::WebSocket).await
}

/// Of a command, for an agent.
fn parameters(query: &Query) -> String {
    let mut parameters = form_urlencoded::Serializer::new(String::new());
    for command in query.all("command") {
        parameters.append_pair("command", command);
    }
    // The last is ours and Docker's: what an attached task printed before, too.
    for flag in ["stdin", "stdout", "stderr", "tty", "logs"] {
        if query.flag(flag) == Some(true) {
            parameters.append_pair(flag, "true");
        }
    }
    parameters.finish()
}

/// Both sides speak the same: what the frames say is theirs to know.
async fn relay(mut client: Raw, mut agent: Raw) {
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut agent).await {
        tracing::debug!(%error, "a session broke");
    }
}

async fn translate(client: Raw, agent: Raw, base64: bool, status: bool, first: u8) {
    let (mut to_client, mut from_client) = websocket::of_client(client).await.split();
    let (mut to_agent, mut from_agent) = websocket::to_agent(agent).await.split();
    let inwards = async {
        while let Some(message) = websocket::next(&mut from_client).await {
            let Some((channel, data)) = unpacked(&message, base64) else { break };
            let known = matches!(channel, STDIN | RESIZE);
            if known && !websocket::send(&mut to_agent, channel, &data).await {
                break;
            }
        }
        // Older clients cannot say that their input is at its end, only that they are gone.
        websocket::finish(&mut to_agent).await;
    };
    let outwards = async {
        // Tells the client that the session has begun.
        if to_client.send(packed(first, &[], base64)).await.is_err() {
            return;
        }
        while let Some(message) = websocket::next(&mut from_agent).await {
            let Some((channel, data)) = message.split_first() else { continue };
            let data = match (*channel, status) {
                (STATUS, false) => Bytes::from(failure(data)),
                (CLOSE, _) => continue,
                _ => message.slice_ref(data),
            };
            if to_client.send(packed(*channel, &data, base64)).await.is_err() {
                return;
            }
        }
        websocket::finish(&mut to_client).await;
    };
    tokio::select! {
        () = inwards => {}
        () = outwards => {}
    }
}

/// Channel and data; `None` for what no client sends.
fn unpacked(message: &Bytes, base64: bool) -> Option<(u8, Bytes)> {
    let (channel, data) = message.split_first()?;
    if base64 {
        let channel = channel.checked_sub(b'0')?;
        return Some((channel, STANDARD.decode(data).ok()?.into()));
    }
    Some((*channel, message.slice(1..)))
}

fn packed(channel: u8, data: &[u8], base64: bool) -> Message {
    if base64 {
        let text = format!("{}{}", char::from(b'0' + channel), STANDARD.encode(data));
        return Message::Text(text.into());
    }
    let mut message = Vec::with_capacity(1 + data.len());
    message.push(channel);
    message.extend_from_slice(data);
    Message::Binary(message.into())
}

/// What a Status says to clients that know no Status: nothing when all is well.
pub(super) fn failure(status: &[u8]) -> String {
    let status: Value = serde_json::from_slice(status).unwrap_or_default();
    if status["status"] == "Success" {
        return String::new();
    }
    status["message"].as_str().unwrap_or("the session failed").to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn base64_is_a_digit_and_text() {
        assert_eq!(packed(1, b"hi", true), Message::Text("1aGk=".into()));
        assert_eq!(packed(1, b"hi", false), Message::Binary(Bytes::from_static(b"\x01hi")));
        assert_eq!(unpacked(&Bytes::from_static(b"0aGk="), true), Some((0, "hi".into())));
        assert_eq!(unpacked(&Bytes::from_static(b"\0hi"), false), Some((0, "hi".into())));
        assert_eq!(unpacked(&Bytes::new(), false), None);
        assert_eq!(unpacked(&Bytes::from_static(b"0?"), true), None);
    }

    #[test]
    fn old_clients_hear_of_failures_only() {
        assert_eq!(failure(br#"{"status":"Success"}"#), "");
        assert_eq!(failure(br#"{"status":"Failure","message":"no"}"#), "no");
    }
}
