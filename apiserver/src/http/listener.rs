//! The accept loop: TLS, HTTP/1.1 or HTTP/2 by what the client negotiates, and the bounds that keep
//! one client from costing much.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::patience::Patient;
use super::stalled::{Streams, noted};
use super::stopping::{self, Stop};
use super::{App, Caller, serve};
use crate::auth::certificate;
use crate::pki::Identity;

/// One connection for each of 50,000 agents, and as many again for everybody else's short ones.
const CONNECTIONS_MAX: usize = 100_000;
/// Connections that the kernel holds ready for us: all agents of a large cluster come back within
/// seconds when the server restarts. Linux cuts this to net.core.somaxconn.
const BACKLOG: u32 = 4096;
/// Two round trips and an ECDSA signature, even over a bad line.
pub(super) const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// For a request's head, and how long a connection may lie idle between two.
pub(super) const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// The longest URI that the http crate holds (64 KiB), two bearer tokens of its size, and as much
/// again for everything else.
const HEAD_BYTES_MAX: usize = 256 * 1024;
/// Go's clients stop opening streams at this number, which Go's servers announce as well.
const STREAMS_MAX: u32 = 250;
/// A watch may be silent for a minute: a client whose machine is gone is noticed by this instead.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIME_MAX: Duration = Duration::from_secs(20);
/// For one upload to use a fast line: a hundred times this is still little memory.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// How long to leave the kernel alone when it has no descriptors left for us.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A port that is ours, with nobody served yet.
pub(crate) struct Listener {
    socket: TcpListener,
}

impl Listener {
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Listener> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restart must not wait for the last connections' TIME_WAIT.
        socket.set_reuseaddr(true)?;
        // Connections inherit it: a watcher that vanished without a word is found in the end.
        socket.set_keepalive(true)?;
        socket.bind(address)?;
        Ok(Listener { socket: socket.listen(BACKLOG)? })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(super) async fn accept(&self) -> io::Result<TcpStream> {
        self.socket.accept().await.map(|(stream, _)| stream)
    }

    /// Accepts until `stop` is cancelled; the connections then finish what they are answering.
    /// `connections` counts them.
    pub(crate) async fn run(
        self,
        app: Arc<App>,
        tls: Arc<rustls::ServerConfig>,
        stop: CancellationToken,
        connections: TaskTracker,
    ) {
        let acceptor = TlsAcceptor::from(tls);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (stopping, stopped) = stopping::stopping();
        while let Some(accepted) = stop.run_until_cancelled(self.socket.accept()).await {
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    pause_if_exhausted(&error).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                app.metrics.connections_refused.fetch_add(1, Relaxed);
                continue;
            };
            let connection = Connection { app: app.clone(), stop: stopped.clone(), _place: place };
            connections.spawn(connection.run(acceptor.clone(), stream));
        }
        stopping.stop();
    }
}

pub(super) async fn pause_if_exhausted(error: &io::Error) {
    // A connection that its client gave up before we accepted it is no reason to wait.
    let of_one_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    );
    if !of_one_client {
        tracing::warn!(%error, "cannot accept connections");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

struct Connection {
    app: Arc<App>,
    stop: Stop,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    async fn run(self, acceptor: TlsAcceptor, stream: TcpStream) {
        let connections = &self.app.metrics.connections;
        connections.fetch_add(1, Relaxed);
        if let Err(error) = self.serve(acceptor, stream).await {
            // Clients break connections all the time: nobody is to be woken for it.
            tracing::debug!(target: "commonage::http", error, "connection ended");
        }
        connections.fetch_sub(1, Relaxed);
    }

    async fn serve(
        &self,
        acceptor: TlsAcceptor,
        stream: TcpStream,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let from = stream.peer_addr()?.ip();
        // Answers are written whole: waiting for more to send only delays them.
        stream.set_nodelay(true)?;
        let accepted = acceptor.accept(Patient::new(stream, self.app.stall_time_max));
        let metrics = &self.app.metrics;
        let accepted = tokio::time::timeout(HANDSHAKE_TIME_MAX, accepted).await;
        if !matches!(accepted, Ok(Ok(_))) {
            metrics.handshakes_failed.fetch_add(1, Relaxed);
        }
        let stream = accepted??;
        let session = stream.get_ref().1;
        let shown = session.peer_certificates().and_then(|chain| chain.first());
        if let Some(remaining) = shown.and_then(certificate::remaining) {
            metrics.access.certificate(remaining);
        }
        let user = shown.and_then(certificate::user_of).map(Arc::new);
        let caller = Caller::Connection { user, from };
        let http2 = session.alpn_protocol() == Some(b"h2");
        let app = self.app.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (app, caller) = (app.clone(), caller.clone());
            // The connection moves it about, and lies idle most of its life.
            Box::pin(async move {
                Ok::<_, Infallible>(noted(serve(app, caller, request.map(Body::new)).await))
            })
        });
        match http2 {
            true => self.http2(stream, service).await?,
            false => self.http1(stream, service).await?,
        }
        Ok(())
    }

    async fn http1<S>(&self, stream: TlsStream<Patient<TcpStream>>, service: S) -> hyper::Result<()>
    where
        S: hyper::service::Service<
                Request<Incoming>,
                Response = http::Response<Body>,
                Error = Infallible,
            > + Send,
        S::Future: Send,
    {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(2 * HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        if let Some(ended) = self.stop.or(connection.as_mut()).await {
            return ended;
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }

    async fn http2<S>(&self, stream: TlsStream<Patient<TcpStream>>, service: S) -> hyper::Result<()>
    where
        S: hyper::service::Service<
                Request<Incoming>,
                Response = http::Response<Body>,
                Error = Infallible,
            > + Send,
        S::Future: Send + 'static,
    {
        let streams =
            Streams { stall_time_max: self.app.stall_time_max, metrics: self.app.metrics.clone() };
        let connection = http2::Builder::new(streams)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIME_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        if let Some(ended) = self.stop.or(connection.as_mut()).await {
            return ended;
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }
}

/// Client certificates are asked for and verified, but a client may come without: it then shows a
/// token, or is anonymous.
pub(crate) fn tls_config(
    provider: &Arc<CryptoProvider>,
    authority: &CertificateDer<'static>,
    serving: &Identity,
) -> anyhow::Result<rustls::ServerConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let (chain, key) =
        serving.der().ok_or_else(|| anyhow::anyhow!("the serving certificate is not PEM"))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
