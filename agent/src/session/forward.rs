//! `GET /portforward/{namespace}/{name}/{uid}?port=N`, upgraded to `tcp`: one connection to a port
//! of the task's own network, byte for byte. Either side may stop sending and go on reading.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::refusal::Refusal;
use super::{Answer, Sessions, TaskPath, query};

const PROTOCOL: &str = "tcp";

pub(super) async fn forward(
    State(sessions): State<Sessions>,
    Path(task): Path<TaskPath>,
    mut request: Request,
) -> Answer {
    let port = query::port(request.uri())?;
    let asked = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if !asked.is_some_and(|protocol| protocol.eq_ignore_ascii_case(PROTOCOL)) {
        return Err(Refusal::bad_request("Upgrade request required"));
    }
    sessions.find(&task).await?;
    let slot = sessions.slot()?;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| Refusal::bad_request("Upgrade request required"))?;
    let mut inside = connect(&sessions, task, port).await?;
    sessions.spawn(async move {
        let _slot = slot;
        let mut outside = match upgrade.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => {
                tracing::debug!(%error, "a forwarded port was not used");
                return;
            }
        };
        if let Err(error) = tokio::io::copy_bidirectional(&mut outside, &mut inside).await {
            tracing::debug!(port, %error, "a forwarded connection broke");
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}

async fn connect(sessions: &Sessions, task: TaskPath, port: u16) -> Result<TcpStream, Refusal> {
    let (shims, uid) = (sessions.shims.clone(), task.2);
    let connected = tokio::task::spawn_blocking(move || shims.connect(&uid, port)).await;
    let stream = connected
        .map_err(std::io::Error::other)
        .and_then(|stream| stream)
        .and_then(|stream| stream.set_nonblocking(true).map(|()| stream))
        .and_then(TcpStream::from_std)
        .map_err(|error| {
            Refusal::internal(format!("failed to connect to localhost:{port}: {error}"))
        })?;
    // Small messages both ways are the rule.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
