//! A server on a free port, and a small client that shows whole answers.
// Each test file uses its own part of this.
#![allow(dead_code)]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use commonage_apiserver::server::StoreKind;
use commonage_apiserver::{ApiServer, Config};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) const TOKENS: &str = "t-root,root,1,\"system:masters\"\nt-alice,alice,2,\"dev\"\n";

pub(crate) struct Server {
    pub(crate) api: ApiServer,
    _dir: TempDir,
}

/// One answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Server {
    pub(crate) async fn start() -> Server {
        Server::start_with(|_| {}).await
    }

    /// With another configuration than tests usually want.
    pub(crate) async fn start_with(configure: impl FnOnce(&mut Config)) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let tokens = dir.path().join("tokens.csv");
        std::fs::write(&tokens, TOKENS).unwrap();
        let mut config = Config::for_tests(dir.path()).with_tokens(Some(tokens));
        configure(&mut config);
        Server { api: ApiServer::start(config).await.unwrap(), _dir: dir }
    }

    /// Over files in `dir`, which outlive the server.
    pub(crate) async fn start_in(dir: &std::path::Path) -> Server {
        Server::start_over(dir, StoreKind::Embedded).await
    }

    /// Over any store; what else the server keeps is in `dir`.
    pub(crate) async fn start_over(dir: &std::path::Path, store: StoreKind) -> Server {
        Server::start_over_with(dir, store, |_| {}).await
    }

    pub(crate) async fn start_over_with(
        dir: &std::path::Path,
        store: StoreKind,
        configure: impl FnOnce(&mut Config),
    ) -> Server {
        let tokens = dir.join("tokens.csv");
        std::fs::write(&tokens, TOKENS).unwrap();
        let mut config = Config { store, ..Config::for_tests(dir) }.with_tokens(Some(tokens));
        configure(&mut config);
        Server { api: ApiServer::start(config).await.unwrap(), _dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) async fn tls(&self) -> TlsStream<TcpStream> {
        self.connect(self.tls_config()).await
    }

    fn tls_config(&self) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.api.ca_pem().as_bytes()).unwrap();
        roots.add(authority).unwrap();
        rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
    }

    /// A connection of HTTP/2 that takes no more of an answer than this before it is read.
    pub(crate) async fn http2(&self, window_bytes: u32) -> http2::SendRequest<Empty<Bytes>> {
        let mut config = self.tls_config();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TokioIo::new(self.connect(config).await);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window_bytes);
        let (sender, connection) = builder.handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    pub(crate) async fn tls_as_agent(&self, name: &str) -> TlsStream<TcpStream> {
        let identity = self.api.issue_agent_identity(name).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.api.ca_pem().as_bytes()).unwrap();
        roots.add(authority).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
        self.connect(config).await
    }

    async fn connect(&self, config: rustls::ClientConfig) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.api.listen_addr()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.unwrap()
    }

    /// As root.
    pub(crate) async fn call(&self, method: &str, uri: &str, body: Option<Value>) -> Answer {
        self.call_with(method, uri, body, &[]).await
    }

    /// As root, with more headers.
    pub(crate) async fn call_with(
        &self,
        method: &str,
        uri: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut all = vec![("authorization", "Bearer t-root")];
        all.extend_from_slice(headers);
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        send(self.tls().await, method, uri, body, &all).await
    }

    /// With these headers and no others.
    pub(crate) async fn raw(
        &self,
        method: &str,
        uri: &str,
        body: Bytes,
        headers: &[(&str, &str)],
    ) -> Answer {
        send(self.tls().await, method, uri, body, headers).await
    }

    pub(crate) async fn stop(self) {
        self.api.shutdown().await;
    }
}

pub(crate) async fn send(
    stream: TlsStream<TcpStream>,
    method: &str,
    uri: &str,
    body: Bytes,
    headers: &[(&str, &str)],
) -> Answer {
    let response = begin(stream, method, uri, body, headers).await;
    let (head, body) = response.into_parts();
    Answer {
        status: head.status,
        headers: head.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

/// The answer's head, and its body as it comes.
pub(crate) async fn begin(
    stream: TlsStream<TcpStream>,
    method: &str,
    uri: &str,
    body: Bytes,
    headers: &[(&str, &str)],
) -> http::Response<Incoming> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(uri).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body)).unwrap();
    sender.send_request(request).await.unwrap()
}
