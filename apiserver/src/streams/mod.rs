//! Streams both ways between a client and a running task: `exec`, `attach`, `portforward`.
//!
//! The agent speaks one form only: a WebSocket of `v5.channel.k8s.io` for commands, a bare upgraded
//! connection for ports. The doors here take every form that Kubernetes' clients come in, and lead
//! to it. A request is refused before its connection is upgraded, as an ordinary Status; after that
//! the agent has the word. Nothing here outlives the server or the client's authority.

mod command;
mod forward;
mod spdy_command;
#[cfg(test)]
mod tests;
pub(crate) mod watch;
mod websocket;

use std::sync::Arc;

use axum::body::Body;
use http::header::{CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use crate::http::{App, Ends, Query};
use crate::proxy::Place;
use crate::status::ApiError;

/// A connection that has left HTTP behind.
pub(crate) type Raw = TokioIo<Upgraded>;

/// SPDY's way to offer what a WebSocket calls subprotocols.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const SPDY: &str = "SPDY/3.1";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Exec,
    Attach,
    PortForward,
}

impl Kind {
    /// Of a subresource's name.
    pub(crate) fn of(subresource: &str) -> Option<Kind> {
        match subresource {
            "exec" => Some(Kind::Exec),
            "attach" => Some(Kind::Attach),
            "portforward" => Some(Kind::PortForward),
            _ => None,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Kind::Exec => "exec",
            Kind::Attach => "attach",
            Kind::PortForward => "portforward",
        }
    }
}

/// A request as it comes out of the filters.
pub(crate) struct Request<'r> {
    pub(crate) app: &'r Arc<App>,
    pub(crate) ends: &'r Ends,
    pub(crate) kind: Kind,
    pub(crate) place: Place,
    pub(crate) query: &'r Query,
    pub(crate) headers: &'r HeaderMap,
    /// `None` on HTTP/2 and in process, where nothing can be upgraded.
    pub(crate) upgrade: Option<OnUpgrade>,
}

impl Request<'_> {
    fn stop(&self) -> CancellationToken {
        self.ends.token()
    }
}

/// Opens the stream, and answers 101; it then runs by itself.
pub(crate) async fn open(mut request: Request<'_>) -> Result<Response<Body>, ApiError> {
    let required = || ApiError::bad_request("Upgrade request required");
    if !lists(request.headers, CONNECTION, "upgrade") {
        return Err(required());
    }
    let upgrade = request.upgrade.take().ok_or_else(required)?;
    let websocket = lists(request.headers, UPGRADE, "websocket");
    let spdy = lists(request.headers, UPGRADE, SPDY);
    match (request.kind, websocket, spdy) {
        (Kind::PortForward, true, _) => forward::over_websocket(&request, upgrade).await,
        (Kind::PortForward, false, true) => forward::over_spdy(&request, upgrade).await,
        (_, true, _) => command::open(&request, upgrade).await,
        (_, false, true) => spdy_command::open(&request, upgrade).await,
        (_, false, false) => Err(required()),
    }
}

/// Whether a header's list has this word.
fn lists(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    words(headers, name).any(|word| word.eq_ignore_ascii_case(wanted))
}

pub(crate) fn words(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// The client's first protocol that we speak; `unnamed` when it offers none.
fn negotiated<P: Copy>(
    headers: &HeaderMap,
    name: HeaderName,
    ours: &[(&'static str, P)],
    unnamed: Option<P>,
) -> Result<(Option<&'static str>, P), ApiError> {
    let mut offered = words(headers, name).peekable();
    if let (None, Some(unnamed)) = (offered.peek(), unnamed) {
        return Ok((None, unnamed));
    }
    let found = offered.find_map(|word| ours.iter().find(|(protocol, _)| *protocol == word));
    found.map(|(protocol, form)| (Some(*protocol), *form)).ok_or_else(|| {
        let ours: Vec<&str> = ours.iter().map(|(protocol, _)| *protocol).collect();
        ApiError::new(
            403,
            "Forbidden",
            format!("unable to negotiate a protocol: the server supports {}", ours.join(", ")),
        )
    })
}

fn switching(to: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(to));
    response
}

fn switching_to_spdy(protocol: Option<&'static str>) -> Response<Body> {
    let mut response = switching(SPDY);
    if let Some(protocol) = protocol {
        response.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    }
    response
}

fn switching_to_websocket(
    headers: &HeaderMap,
    protocol: Option<&str>,
) -> Result<Response<Body>, ApiError> {
    let mut response = switching("websocket");
    websocket::accept(headers, response.headers_mut())?;
    if let Some(protocol) = protocol.and_then(|text| HeaderValue::from_str(text).ok()) {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(response)
}

/// Runs what comes after the answer, until it or the server ends.
fn run<Session>(
    request: &Request<'_>,
    upgrade: OnUpgrade,
    session: impl FnOnce(Raw) -> Session + Send + 'static,
) where
    Session: Future<Output = ()> + Send + 'static,
{
    let (stop, ends) = (request.stop(), request.ends.clone());
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        // It is open until here is nothing more to do.
        let _ends = ends;
        match upgrade.await {
            Ok(upgraded) => session(TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!(%error, "a stream was not used"),
        }
    }));
}
