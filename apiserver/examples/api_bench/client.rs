//! An HTTP client that costs as little as possible, because it shares the machine with the server
//! that is measured: requests are bytes, answers are looked at no further than they must be.
//!
//! HTTP/1.1 only; the watches that need many streams in a connection are in `streams.rs`.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use base64::Engine as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// As much as is read at once: several TLS records.
const READ_BYTES: usize = 64 * 1024;

/// Where the server is and who we are there.
pub(crate) struct Server {
    /// `host:port`.
    pub(crate) authority: String,
    pub(crate) name: ServerName<'static>,
    pub(crate) tls: rustls::ClientConfig,
    /// A whole header line, or nothing.
    authorization: String,
}

impl Server {
    /// From the current context of a kubeconfig file.
    pub(crate) fn from_kubeconfig(path: &Path) -> anyhow::Result<Server> {
        let config: Value = serde_saphyr::from_str(&std::fs::read_to_string(path)?)?;
        let named = |list: &str, kind: &str, name: &str| -> anyhow::Result<Value> {
            let entries = config[list].as_array().cloned().unwrap_or_default();
            let found = entries.into_iter().find(|entry| entry["name"] == name);
            Ok(found.with_context(|| format!("no {kind} {name:?} in {}", path.display()))?[kind]
                .take())
        };
        let current = config["current-context"].as_str().unwrap_or_default();
        let context = named("contexts", "context", current)?;
        let cluster = named("clusters", "cluster", text(&context, "cluster")?)?;
        let user = named("users", "user", text(&context, "user")?)?;
        let url = text(&cluster, "server")?;
        let authority = url.strip_prefix("https://").context("the server is not https")?;
        let authority = authority.trim_end_matches('/').to_owned();
        let authority = match authority.rsplit_once(':') {
            Some(_) => authority,
            None => format!("{authority}:443"),
        };
        let (host, _) = authority.rsplit_once(':').context("no port")?;
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
        let authorization = match user["token"].as_str() {
            Some(token) => format!("authorization: Bearer {token}\r\n"),
            None => String::new(),
        };
        let tls = tls(path, &cluster, &user)?;
        Ok(Server { authority, name, tls, authorization })
    }

    pub(crate) async fn connect(self: &Arc<Self>) -> anyhow::Result<Connection> {
        let stream = self.stream(&[]).await?;
        let (buffer, request) = (Vec::new(), Vec::new());
        Ok(Connection { server: self.clone(), stream, buffer, request, unread: false })
    }

    pub(crate) async fn stream(&self, alpn: &[&[u8]]) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        let mut tls = self.tls.clone();
        tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(TlsConnector::from(Arc::new(tls)).connect(self.name.clone(), stream).await?)
    }

    /// One request on a connection of its own.
    pub(crate) async fn once(
        self: &Arc<Self>,
        request: &Request,
    ) -> anyhow::Result<(u16, Vec<u8>)> {
        let mut connection = self.connect().await?;
        let answer = connection.send(request).await?;
        Ok((answer.status, answer.body.to_vec()))
    }

    /// The bearer token, for clients that write their headers themselves.
    pub(crate) fn bearer(&self) -> Option<&str> {
        Some(self.authorization.strip_prefix("authorization: ")?.trim_end())
    }
}

fn text<'v>(value: &'v Value, field: &str) -> anyhow::Result<&'v str> {
    value[field].as_str().with_context(|| format!("no {field} in the kubeconfig"))
}

/// The bytes of `FIELD-data`, or of the file that `FIELD` names.
fn data(path: &Path, of: &Value, field: &str) -> anyhow::Result<Option<Vec<u8>>> {
    if let Some(encoded) = of[format!("{field}-data")].as_str() {
        return Ok(Some(base64::engine::general_purpose::STANDARD.decode(encoded)?));
    }
    let Some(file) = of[field].as_str() else { return Ok(None) };
    let file = path.parent().unwrap_or(Path::new(".")).join(file);
    Ok(Some(std::fs::read(&file).with_context(|| format!("read {}", file.display()))?))
}

fn tls(path: &Path, cluster: &Value, user: &Value) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let authority = data(path, cluster, "certificate-authority")?;
    let authority = authority.context("the kubeconfig names no certificate authority")?;
    for certificate in CertificateDer::pem_slice_iter(&authority) {
        roots.add(certificate?)?;
    }
    let mut provider = rustls::crypto::ring::default_provider();
    // As Go's clients ask for it; it costs both sides less than AES-256.
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(match data(path, user, "client-certificate")? {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let key = data(path, user, "client-key")?.context("a certificate without a key")?;
            let chain = CertificateDer::pem_slice_iter(&certificate);
            let chain = chain.collect::<Result<Vec<_>, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&key)?)?
        }
    })
}

/// One request, as far as requests differ.
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn get(path: impl Into<String>) -> Request {
        Request::new("GET", path, "")
    }

    pub(crate) fn new(method: &'static str, path: impl Into<String>, body: &str) -> Request {
        let content_type = "application/json";
        Request { method, path: path.into(), content_type, body: body.as_bytes().to_vec() }
    }
}

pub(crate) struct Answer<'c> {
    pub(crate) status: u16,
    pub(crate) body: &'c [u8],
}

pub(crate) struct Connection {
    server: Arc<Server>,
    stream: TlsStream<TcpStream>,
    /// The answer in hand; never more, since nothing is asked before it has come.
    buffer: Vec<u8>,
    request: Vec<u8>,
    /// The buffer has bytes of an open answer that nobody has seen.
    unread: bool,
}

struct Head {
    status: u16,
    /// Where the body begins.
    bytes: usize,
    /// `None`: chunked.
    length: Option<usize>,
}

impl Connection {
    pub(crate) async fn send(&mut self, request: &Request) -> anyhow::Result<Answer<'_>> {
        self.write(request).await?;
        let head = self.head().await?;
        let body = match head.length {
            Some(length) => {
                while self.buffer.len() < head.bytes + length {
                    self.fill().await?;
                }
                head.bytes..head.bytes + length
            }
            None => self.unchunk(head.bytes).await?,
        };
        Ok(Answer { status: head.status, body: &self.buffer[body] })
    }

    /// Sends a request whose answer does not end, and reads its head. What follows comes by
    /// [`Connection::more`], in the frames of HTTP.
    pub(crate) async fn open(&mut self, request: &Request) -> anyhow::Result<()> {
        self.write(request).await?;
        let head = self.head().await?;
        if head.status != 200 {
            bail!("{} {}: {}", request.method, request.path, head.status);
        }
        self.buffer.drain(..head.bytes);
        self.unread = !self.buffer.is_empty();
        Ok(())
    }

    /// The next bytes of an answer that was opened.
    pub(crate) async fn more(&mut self) -> anyhow::Result<&[u8]> {
        if !std::mem::take(&mut self.unread) {
            self.buffer.clear();
            self.fill().await?;
        }
        Ok(&self.buffer)
    }

    async fn write(&mut self, request: &Request) -> anyhow::Result<()> {
        use std::io::Write;
        let Server { authority, authorization, .. } = &*self.server;
        self.request.clear();
        write!(
            self.request,
            "{} {} HTTP/1.1\r\nhost: {authority}\r\n{authorization}content-type: {}\r\n\
             content-length: {}\r\n\r\n",
            request.method,
            request.path,
            request.content_type,
            request.body.len()
        )?;
        self.request.extend_from_slice(&request.body);
        self.stream.write_all(&self.request).await?;
        self.stream.flush().await?;
        self.buffer.clear();
        Ok(())
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        self.buffer.reserve(READ_BYTES);
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }

    async fn head(&mut self) -> anyhow::Result<Head> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.buffer[..end])?;
                let status = head.get(9..12).context("no status")?.parse()?;
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    let is_length = name.eq_ignore_ascii_case("content-length");
                    is_length.then(|| value.trim().parse().ok())?
                });
                return Ok(Head { status, bytes: end + 4, length });
            }
            self.fill().await?;
        }
    }

    /// Puts the chunks together where they lie; where the body is then.
    async fn unchunk(&mut self, start: usize) -> anyhow::Result<std::ops::Range<usize>> {
        let (mut from, mut to) = (start, start);
        loop {
            let line = loop {
                match memchr::memmem::find(&self.buffer[from..], b"\r\n") {
                    Some(end) => break from..from + end,
                    None => self.fill().await?,
                }
            };
            let size = usize::from_str_radix(std::str::from_utf8(&self.buffer[line.clone()])?, 16)?;
            let begin = line.end + 2;
            while self.buffer.len() < begin + size + 2 {
                self.fill().await?;
            }
            if size == 0 {
                return Ok(start..to);
            }
            self.buffer.copy_within(begin..begin + size, to);
            to += size;
            from = begin + size + 2;
        }
    }
}
