//! JSON over HTTPS from an issuer: one GET, bounded in time and size, no redirects.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const TIME_MAX: Duration = Duration::from_secs(10);
/// Key sets of large issuers are a few dozen KiB.
const BYTES_MAX: usize = 1024 * 1024;
/// Where distributions keep the authorities that the system trusts.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

pub(super) struct Client {
    tls: TlsConnector,
}

impl Client {
    /// `ca_file` `None`: the system's authorities.
    pub(super) fn new(ca_file: Option<&Path>) -> anyhow::Result<Client> {
        let mut roots = RootCertStore::empty();
        let bundle = match ca_file {
            Some(file) => Some(file),
            None => SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists()),
        };
        if let Some(bundle) = bundle {
            let pem = std::fs::read(bundle)
                .with_context(|| format!("cannot read the authorities in {}", bundle.display()))?;
            let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
            roots.add_parsable_certificates(certificates);
        }
        anyhow::ensure!(
            !roots.is_empty(),
            "there is no authority to check the OIDC issuer's certificate against: name a file \
             with --oidc-ca-file"
        );
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Client { tls: TlsConnector::from(Arc::new(config)) })
    }

    pub(super) async fn get(&self, url: &str) -> anyhow::Result<Value> {
        tokio::time::timeout(TIME_MAX, self.fetch(url))
            .await
            .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {TIME_MAX:?}")))
            .with_context(|| format!("GET {url}"))
    }

    async fn fetch(&self, url: &str) -> anyhow::Result<Value> {
        let uri: Uri = url.parse()?;
        anyhow::ensure!(uri.scheme_str() == Some("https"), "the URL is not https");
        let host = uri.host().context("the URL has no host")?;
        // An IPv6 address stands in brackets there.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
        let name = ServerName::try_from(host.to_owned())?;
        let stream = self.tls.connect(name, stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let authority = uri.authority().context("the URL has no host")?.as_str();
        let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
            .header(HOST, authority)
            .header(ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        anyhow::ensure!(status.is_success(), "it answers {status}");
        let body = Limited::new(response.into_body(), BYTES_MAX).collect().await;
        connection.abort();
        let body = body.map_err(|error| anyhow::anyhow!("its answer can't be read: {error}"))?;
        Ok(serde_json::from_slice(&body.to_bytes())?)
    }
}
