//! `tasks/NAME/log`: passed on to the agent that runs the Task, over mutual TLS.
//!
//! The API server proves itself with its own client identity and believes an agent only if its
//! certificate carries the agent's name. It keeps nothing of what flows through.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::StreamExt;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::http::{App, LogTarget, Query};
use crate::pki::Identity;
use crate::status::ApiError;

/// A healthy agent answers within milliseconds; its machine may be gone.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Until the head of the answer: the agent opens a file.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// An agent's refusal is a line of text or a Status.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;
/// Passed on; everything else is dropped.
const PARAMETERS: [&str; 6] =
    ["follow", "tailLines", "stream", "sinceSeconds", "timestamps", "limitBytes"];

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

    /// The log of a Task, as the agent streams it.
    pub(crate) async fn log(
        &self,
        app: &App,
        target: &LogTarget,
        query: &Query,
    ) -> Result<Response<Body>, ApiError> {
        let place = find(app, target).await?;
        let path = log_path(target, &place, query);
        let answer = self.call(&place, &path).await?;
        let status = answer.status();
        if status.is_success() {
            let kind = answer.headers().get(CONTENT_TYPE).cloned();
            // A followed log ends with its task; it must not hold a server that goes down.
            let server_ends = app.end_watches.clone().cancelled_owned();
            let log = answer.into_body().into_data_stream();
            let mut response = Response::new(Body::from_stream(log.take_until(server_ends)));
            let kind = kind.unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8"));
            response.headers_mut().insert(CONTENT_TYPE, kind);
            return Ok(response);
        }
        let refusal = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX);
        let refusal = refusal.collect().await.map(|body| body.to_bytes());
        let refusal = String::from_utf8_lossy(&refusal.unwrap_or_default()).into_owned();
        let said = serde_json::from_str::<Value>(&refusal).ok();
        let said = said
            .as_ref()
            .and_then(|status| status.get("message"))
            .and_then(Value::as_str)
            .unwrap_or(refusal.trim());
        Err(match status.as_u16() {
            404 => ApiError::new(404, "NotFound", said),
            code @ 400..500 => ApiError::new(code, "BadRequest", said),
            _ => unreachable_agent(&place.agent, said),
        })
    }

    async fn call(
        &self,
        place: &Place,
        path: &str,
    ) -> Result<Response<hyper::body::Incoming>, ApiError> {
        let failed = |why: String| unreachable_agent(&place.agent, &why);
        let name = ServerName::try_from(place.agent.clone())
            .map_err(|_| failed("its name is not a DNS name".to_owned()))?;
        let connect = async {
            let stream = TcpStream::connect(&place.endpoint).await?;
            stream.set_nodelay(true)?;
            self.tls.connect(name, stream).await
        };
        let stream = tokio::time::timeout(CONNECT_TIME_MAX, connect)
            .await
            .map_err(|_| failed(format!("no answer from {} in time", place.endpoint)))?
            .map_err(|error| failed(format!("cannot connect to {}: {error}", place.endpoint)))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Empty<bytes::Bytes>>(TokioIo::new(stream))
                .await
                .map_err(|error| failed(error.to_string()))?;
        // Ends by itself when the answer has been read or its reader is gone.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to an agent ended");
            }
        });
        let request = Request::get(path)
            .header(HOST, place.endpoint.as_str())
            .header(ACCEPT, "text/plain, */*")
            .body(Empty::new())
            .map_err(|error| failed(error.to_string()))?;
        tokio::time::timeout(ANSWER_TIME_MAX, sender.send_request(request))
            .await
            .map_err(|_| failed("no answer in time".to_owned()))?
            .map_err(|error| failed(error.to_string()))
    }
}

fn log_path(target: &LogTarget, place: &Place, query: &Query) -> String {
    let mut parameters = form_urlencoded::Serializer::new(String::new());
    for parameter in PARAMETERS {
        if let Some(value) = query.get(parameter) {
            parameters.append_pair(parameter, value);
        }
    }
    let parameters = parameters.finish();
    // The Task exists, so that its names are DNS names: nothing in them needs escaping.
    format!("/logs/{}/{}/{}?{parameters}", target.namespace, target.name, place.task_uid)
}

fn unreachable_agent(agent: &str, why: &str) -> ApiError {
    ApiError::unavailable(format!("the agent {agent:?} cannot be asked for the log: {why}"))
}

/// Where a Task's log is.
struct Place {
    task_uid: String,
    agent: String,
    endpoint: String,
}

async fn find(app: &App, target: &LogTarget) -> Result<Place, ApiError> {
    let engine = &app.engine;
    let task = engine.get(&target.def, &target.namespace, &target.name, None).await?;
    let text = |object: &bytes::Bytes, pointer: &str| -> Option<String> {
        let value: Value = serde_json::from_slice(object).ok()?;
        let text = value.pointer(pointer)?.as_str()?;
        (!text.is_empty()).then(|| text.to_owned())
    };
    let Some(agent) = text(&task.body, "/spec/agent") else {
        return Err(ApiError::bad_request(format!(
            "task {:?} has no log yet: it has not been placed on an agent",
            target.name
        )));
    };
    let scheme = engine.scheme();
    let agents = scheme
        .get(&target.def.group, &target.def.version, "agents")
        .ok_or_else(|| ApiError::internal("agents are not served"))?;
    let found = engine.get(agents, "", &agent, None).await?;
    let endpoint = text(&found.body, "/status/endpoint")
        .ok_or_else(|| unreachable_agent(&agent, "it has not said where it can be reached"))?;
    Ok(Place { task_uid: task.uid.to_string(), agent, endpoint })
}
