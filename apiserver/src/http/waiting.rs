//! A server whose store does not answer yet: probes say so, what needs no store is there, everything else is 503.
//!
//! It has no engine, no users and no kinds; [`super::chain`] takes over once there is a store.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::Listener;
use super::listener::{HANDSHAKE_TIME_MAX, HEAD_TIME_MAX, pause_if_exhausted};
use super::patience::{Patient, STALL_TIME_MAX};
use crate::status::ApiError;

const WHY: &str = "etcd does not answer yet; the API server waits for it";

/// Answers on the port until `until` is done, and returns what came of it.
pub(crate) async fn serve_until<T>(
    listener: &Listener,
    tls: &rustls::ServerConfig,
    until: impl Future<Output = T>,
) -> T {
    let mut tls = tls.clone();
    // One request per connection: whoever comes again comes to the server.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok(stream) => drop(tokio::spawn(one(acceptor.clone(), stream))),
                Err(error) => pause_if_exhausted(&error).await,
            }
        }
    };
    tokio::select! {
        done = until => done,
        () = accepting => unreachable!("accepting never ends"),
    }
}

async fn one(acceptor: TlsAcceptor, stream: TcpStream) {
    let accepted = acceptor.accept(Patient::new(stream, STALL_TIME_MAX));
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIME_MAX, accepted).await else { return };
    let service = service_fn(|request: Request<Incoming>| async move {
        Ok::<_, Infallible>(answer(request.uri().path()))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(target: "commonage::http", %error, "connection ended");
    }
}

fn answer(path: &str) -> Response<Body> {
    let probe = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    let (status, kind, body) = match probe {
        "livez" => (StatusCode::OK, "text/plain; charset=utf-8", "ok".to_owned()),
        // It needs no store, and clients begin with it.
        "version" => {
            let text = String::from_utf8_lossy(&crate::discovery::version()).into_owned();
            (StatusCode::OK, "application/json", text)
        }
        "readyz" | "healthz" => (
            StatusCode::SERVICE_UNAVAILABLE,
            "text/plain; charset=utf-8",
            format!("[+]ping ok\n[-]etcd failed: {WHY}\n{probe} check failed\n"),
        ),
        _ => {
            let error = ApiError::store_unavailable(WHY).to_json();
            let text = String::from_utf8_lossy(&error).into_owned();
            (StatusCode::SERVICE_UNAVAILABLE, "application/json", text)
        }
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    // As on every other answer: a client that kept this one would go on without us.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if status != StatusCode::OK {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_waits_lives_but_is_not_ready() {
        assert_eq!(answer("/livez").status(), 200);
        assert_eq!(answer("/readyz").status(), 503);
        assert_eq!(answer("/version").status(), 200);
        let refused = answer("/api/v1/namespaces");
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()[RETRY_AFTER]),
            (503, &HeaderValue::from_static("1"))
        );
        assert_eq!(refused.headers()[CACHE_CONTROL], "no-cache, private");
    }
}
