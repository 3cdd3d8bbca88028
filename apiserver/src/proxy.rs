//! What only the agent of a Task has, asked of it over mutual TLS: its log, and streams into it.
//!
//! The API server proves itself with its own client identity and believes an agent only if its
//! certificate carries the agent's name. It keeps nothing of what flows through.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use commonage_schemas::stats::AgentStats;
use commonage_schemas::{GROUP, VERSION};
use futures::StreamExt;
use http::header::{
    ACCEPT, CONNECTION, CONTENT_TYPE, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use crate::http::{App, Ends, LogTarget};
use crate::pki::Identity;
use crate::status::ApiError;

/// A healthy agent answers within milliseconds; its machine may be gone.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Until the head of the answer: the agent opens a file.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// An agent's refusal is a line of text or a Status.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;
/// Some 400 bytes for each task, of which an agent has thousands at most.
const STATS_BYTES_MAX: usize = 16 << 20;
/// A listing of ten thousand files, with long names.
const DOCUMENT_BYTES_MAX: usize = 8 << 20;

/// Calls agents. Cheap to share.
pub struct AgentProxy {
    tls: TlsConnector,
}

impl AgentProxy {
    pub fn new(
        provider: &Arc<CryptoProvider>,
        authority: &CertificateDer<'static>,
        identity: &Identity,
    ) -> anyhow::Result<AgentProxy> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let (chain, key) =
            identity.der().ok_or_else(|| anyhow::anyhow!("the client identity is not PEM"))?;
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(AgentProxy { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// The log of a Task, as the agent streams it. `parameters` is the query.
    pub(crate) async fn log(
        &self,
        ends: Ends,
        place: &Place,
        parameters: &str,
    ) -> Result<Response<Body>, ApiError> {
        let path = place.path("logs", parameters);
        let request = Request::get(path).header(ACCEPT, "text/plain, */*");
        let answer = self.call(&place.at, request).await?;
        if !answer.status().is_success() {
            return Err(refusal(&place.at, answer).await);
        }
        let kind = answer.headers().get(CONTENT_TYPE).cloned();
        // A followed log ends with its task; it must not hold a server that goes down.
        let log = answer.into_body().into_data_stream();
        let mut response = Response::new(Body::from_stream(log.take_until(Box::pin(ends.ended()))));
        let kind = kind.unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8"));
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Ok(response)
    }

    /// A short JSON document about a Task, as its agent gives it.
    pub(crate) async fn document(
        &self,
        place: &Place,
        endpoint: &str,
        parameters: &str,
    ) -> Result<Response<Body>, ApiError> {
        let answer = self.call(&place.at, Request::get(place.path(endpoint, parameters))).await?;
        if !answer.status().is_success() {
            return Err(refusal(&place.at, answer).await);
        }
        let failed = |why: String| unreachable_agent(&place.at, &why);
        let body = Limited::new(answer.into_body(), DOCUMENT_BYTES_MAX).collect();
        let body = tokio::time::timeout(ANSWER_TIME_MAX, body)
            .await
            .map_err(|_| failed("no answer in time".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        let mut response = Response::new(Body::from(body.to_bytes()));
        let kind = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Ok(response)
    }

    /// A connection to the agent that has become what `to` says.
    pub(crate) async fn upgrade(
        &self,
        place: &Place,
        path: &str,
        to: AgentUpgrade,
    ) -> Result<TokioIo<Upgraded>, ApiError> {
        let request = Request::get(path).header(CONNECTION, "Upgrade");
        let request = match to {
            AgentUpgrade::Tcp => request.header(UPGRADE, "tcp"),
            AgentUpgrade::WebSocket => request
                .header(UPGRADE, "websocket")
                .header(SEC_WEBSOCKET_VERSION, "13")
                .header(SEC_WEBSOCKET_KEY, generate_key())
                .header(SEC_WEBSOCKET_PROTOCOL, "v5.channel.k8s.io"),
        };
        let answer = self.call(&place.at, request).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(&place.at, answer).await);
        }
        let upgraded = hyper::upgrade::on(answer).await;
        upgraded.map(TokioIo::new).map_err(|error| unreachable_agent(&place.at, &error.to_string()))
    }

    /// What an agent and its tasks use right now.
    pub(crate) async fn stats(&self, at: &At) -> Result<AgentStats, ApiError> {
        let answer = self.call(at, Request::get("/stats")).await?;
        if !answer.status().is_success() {
            return Err(refusal(at, answer).await);
        }
        let body = Limited::new(answer.into_body(), STATS_BYTES_MAX).collect();
        let failed = |why: String| unreachable_agent(at, &why);
        let body = tokio::time::timeout(ANSWER_TIME_MAX, body)
            .await
            .map_err(|_| failed("no answer in time".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| failed(error.to_string()))
    }

    async fn call(
        &self,
        at: &At,
        request: http::request::Builder,
    ) -> Result<Response<Incoming>, ApiError> {
        let failed = |why: String| unreachable_agent(at, &why);
        let name = ServerName::try_from(at.agent.clone())
            .map_err(|_| failed("its name is not a DNS name".to_owned()))?;
        let connect = async {
            let stream = TcpStream::connect(&at.endpoint).await?;
            stream.set_nodelay(true)?;
            self.tls.connect(name, stream).await
        };
        let stream = tokio::time::timeout(CONNECT_TIME_MAX, connect)
            .await
            .map_err(|_| failed(format!("no answer from {} in time", at.endpoint)))?
            .map_err(|error| failed(format!("cannot connect to {}: {error}", at.endpoint)))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Empty<bytes::Bytes>>(TokioIo::new(stream))
                .await
                .map_err(|error| failed(error.to_string()))?;
        // Ends by itself when the answer has been read or its reader is gone.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to an agent ended");
            }
        });
        let request = request
            .header(HOST, at.endpoint.as_str())
            .body(Empty::new())
            .map_err(|error| failed(error.to_string()))?;
        tokio::time::timeout(ANSWER_TIME_MAX, sender.send_request(request))
            .await
            .map_err(|_| failed("no answer in time".to_owned()))?
            .map_err(|error| failed(error.to_string()))
    }
}

/// The agent's no.
async fn refusal(at: &At, answer: Response<Incoming>) -> ApiError {
    let code = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX);
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body = String::from_utf8_lossy(&body);
    let said = serde_json::from_str::<Value>(&body).ok();
    let said = said.as_ref().and_then(|status| status["message"].as_str());
    let said = said.unwrap_or(body.trim());
    match code {
        404 => ApiError::new(404, "NotFound", said),
        429 => ApiError::too_many(said, 1),
        code @ 400..500 => ApiError::new(code, "BadRequest", said),
        500 => ApiError::internal(said),
        _ => unreachable_agent(at, said),
    }
}

fn unreachable_agent(at: &At, why: &str) -> ApiError {
    ApiError::unavailable(format!("the agent {:?} cannot be asked: {why}", at.agent))
}

/// What a connection to an agent is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AgentUpgrade {
    WebSocket,
    Tcp,
}

/// Where a Task is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) task_uid: String,
    at: At,
}

/// An agent, and where it listens.
#[derive(Clone, Debug)]
pub(crate) struct At {
    pub(crate) agent: String,
    endpoint: String,
}

impl Place {
    /// Of the agent's endpoint for this Task. The Task exists, so that its names are DNS names:
    /// nothing in them needs escaping.
    pub(crate) fn path(&self, endpoint: &str, parameters: &str) -> String {
        let Place { namespace, name, task_uid, .. } = self;
        format!("/{endpoint}/{namespace}/{name}/{task_uid}?{parameters}")
    }
}

/// A Task, and where it is if it has been given an agent.
pub(crate) struct Located {
    /// Empty before anybody said anything.
    pub(crate) state: String,
    /// Why it is in this state.
    pub(crate) reason: String,
    pub(crate) place: Option<Place>,
}

/// Looks for a Task, or for that which a pod shows.
pub(crate) async fn locate(app: &App, target: &LogTarget) -> Result<Located, ApiError> {
    let engine = &app.engine;
    let shown = engine.source(&target.def);
    let def = shown.as_ref().unwrap_or(&target.def);
    let task = engine.get(def, &target.namespace, &target.name, None).await;
    let task = task.map_err(|error| match error.code {
        404 => ApiError::not_found(&target.def, &target.name),
        _ => error,
    })?;
    let text = |object: &Value, pointer: &str| -> String {
        object.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned()
    };
    let value = task.to_value();
    let (state, reason) = (text(&value, "/status/state"), text(&value, "/status/reason"));
    let agent = text(&value, "/spec/agent");
    if agent.is_empty() {
        return Ok(Located { state, reason, place: None });
    }
    let place = Place {
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        task_uid: task.uid.to_string(),
        at: find(app, agent).await?,
    };
    Ok(Located { state, reason, place: Some(place) })
}

/// Where an agent listens.
pub(crate) async fn find(app: &App, agent: String) -> Result<At, ApiError> {
    let scheme = app.engine.scheme();
    let agents = scheme
        .get(GROUP, VERSION, "agents")
        .ok_or_else(|| ApiError::internal("agents are not served"))?;
    let found = app.engine.get(agents, "", &agent, None).await?.to_value();
    let endpoint = found.pointer("/status/endpoint").and_then(Value::as_str).unwrap_or_default();
    let at = At { agent, endpoint: endpoint.to_owned() };
    match at.endpoint.is_empty() {
        true => Err(unreachable_agent(&at, "it has not said where it can be reached")),
        false => Ok(at),
    }
}
