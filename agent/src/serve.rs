//! The agent's own HTTPS endpoint: what only the machine itself knows, for the API server alone.
//!
//! Every connection shows a client certificate of the cluster's CA whose common name is
//! `system:apiserver`; anybody else is refused before a request is read. It serves logs, a
//! health answer, and the sessions of [`crate::session`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use commonage_schemas::names::APISERVER_USER;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Identity;

/// One API server follows at most this many logs of one agent: each costs two open files and a
/// buffer, and the usual limit of open files is 1024.
const CONNECTIONS_MAX: usize = 400;
/// A handshake or a request head that takes longer than this comes from nobody we know.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The endpoint could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("listen on {listen}")]
    Listen { listen: SocketAddr, source: std::io::Error },
    #[error("read the agent's {what} (PEM)")]
    Pem { what: &'static str, source: rustls::pki_types::pem::Error },
    #[error("the agent's {what} is not in the PEM text given")]
    PemEmpty { what: &'static str },
    #[error("build the verifier of client certificates")]
    Verifier { source: rustls::server::VerifierBuilderError },
    #[error("use the agent's certificate or key for TLS")]
    Tls { source: rustls::Error },
}

/// A bound, not yet serving endpoint: its port is known before the agent registers itself.
pub struct Endpoint {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    /// Where it listens, with the real port.
    pub address: SocketAddr,
}

impl Endpoint {
    /// Binds `listen` (port 0: any free one) and prepares TLS with the agent's identity.
    pub async fn bind(listen: SocketAddr, identity: &Identity) -> Result<Endpoint, ServeError> {
        let tls = tls_config(identity)?;
        let failed = |source| ServeError::Listen { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Endpoint { listener, acceptor: TlsAcceptor::from(Arc::new(tls)), address })
    }

    /// Without delay: an answer's end would otherwise wait 40 ms for the client to confirm its
    /// beginning.
    async fn accept(&self) -> std::io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        keep_alive(&stream)?;
        Ok((stream, peer))
    }

    /// Serves `router` until `shutdown`; connections that still stream are dropped then, because a
    /// followed log would otherwise hold the agent for as long as its task lives.
    pub async fn serve(self, router: Router, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: the pause keeps the loop from spinning.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(slot) = slots.clone().try_acquire_owned() else {
                tracing::warn!(%peer, limit = CONNECTIONS_MAX, "connection refused: too many");
                continue;
            };
            let connection = serve_one(stream, peer, self.acceptor.clone(), router.clone());
            let stop = shutdown.clone();
            connections.spawn(async move {
                let _slot = slot;
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = connection => {}
                }
            });
        }
        connections.close();
        connections.wait().await;
    }
}

/// A peer that is gone without a word is noticed within two minutes, even by what only waits for
/// it: a session may rightly be silent for hours.
fn keep_alive(stream: &TcpStream) -> std::io::Result<()> {
    const IDLE: Duration = Duration::from_secs(60);
    const BETWEEN_PROBES: Duration = Duration::from_secs(15);
    const PROBES: u32 = 4;
    let often = TcpKeepalive::new().with_time(IDLE).with_interval(BETWEEN_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&often.with_retries(PROBES))
}

async fn serve_one(stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, router: Router) {
    let handshake = tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await;
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            return;
        }
        Err(_) => {
            tracing::debug!(%peer, "TLS handshake took too long");
            return;
        }
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let name = certificates.and_then(|chain| common_name(chain.first()?));
    if name.as_deref() != Some(APISERVER_USER) {
        tracing::warn!(%peer, client = name, "refused: only the API server may ask an agent");
        return;
    }
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Without a timer hyper ignores the time-out.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    let service = TowerToHyperService::new(router);
    let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

/// The common name in a certificate's subject.
fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

fn tls_config(identity: &Identity) -> Result<ServerConfig, ServeError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&identity.ca_pem, "CA certificate")? {
        roots.add(certificate).map_err(|source| ServeError::Tls { source })?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|source| ServeError::Verifier { source })?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| ServeError::Tls { source })?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            certificates(&identity.certificate_pem, "certificate")?,
            key(&identity.key_pem)?,
        )
        .map_err(|source| ServeError::Tls { source })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, ServeError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| ServeError::Pem { what, source })?;
    if found.is_empty() {
        return Err(ServeError::PemEmpty { what });
    }
    Ok(found)
}

fn key(pem: &str) -> Result<PrivateKeyDer<'static>, ServeError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|source| ServeError::Pem { what: "private key", source })
}

#[cfg(test)]
mod tests;
