//! Load on a running server, over real connections: `load KUBECONFIG creates [SECONDS] [CLIENTS]`
//! counts creates a second; `load KUBECONFIG watch [SECONDS] [CLIENTS] [WATCHERS]` does so while
//! watchers count the events they receive. With `task` as the last argument tasks of 1 KB are
//! created, else custom resources of 256 bytes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine as _;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// As the server: what is measured is the server, not its client's memory allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is created: a custom resource of 256 bytes, the size that Kubernetes' own figures are stated
/// for, or a task of 1 KB.
#[derive(Clone, Copy)]
enum Kind {
    Volume,
    Task,
}

const SMALL_BYTES: usize = 256;
const TASK_ENV_BYTES: usize = 500;

impl Kind {
    fn collection(self) -> &'static str {
        match self {
            Kind::Volume => "/apis/commonage.dev/v1/namespaces/default/volumes",
            Kind::Task => "/apis/commonage.dev/v1/namespaces/default/tasks",
        }
    }

    /// The body of a create, as bytes.
    fn body(self, name: &str) -> anyhow::Result<Vec<u8>> {
        let object = match self {
            Kind::Volume => json!({
                "apiVersion": "commonage.dev/v1",
                "kind": "Volume",
                "metadata": {"name": name, "annotations": {"filler": ""}},
                "spec": {"reservation": "load", "size": "1Gi"},
            }),
            Kind::Task => json!({
                "apiVersion": "commonage.dev/v1",
                "kind": "Task",
                "metadata": {"name": name, "labels": {"app": "load"}},
                "spec": {
                    "container": {
                        "command": ["sleep", "3600"],
                        "env": [{"name": "FILLER", "value": "x".repeat(TASK_ENV_BYTES)}],
                    },
                    "resources": {"cpu": "100m", "memory": "64Mi"},
                },
            }),
        };
        let body = serde_json::to_string(&object)?;
        let missing = SMALL_BYTES.saturating_sub(body.len());
        let filled = format!("\"filler\":\"{}\"", "x".repeat(missing));
        Ok(body.replace("\"filler\":\"\"", &filled).into_bytes())
    }
}

#[derive(Clone)]
struct Server {
    address: String,
    tls: TlsConnector,
}

impl Server {
    fn from_kubeconfig(path: &Path) -> anyhow::Result<Server> {
        let config: Value = serde_saphyr::from_str(&std::fs::read_to_string(path)?)?;
        let text = |pointer: &str| -> anyhow::Result<&str> {
            let found = config.pointer(pointer).and_then(Value::as_str);
            found.with_context(|| format!("no {pointer} in {}", path.display()))
        };
        let decode = |pointer: &str| -> anyhow::Result<Vec<u8>> {
            Ok(base64::engine::general_purpose::STANDARD.decode(text(pointer)?)?)
        };
        let authority = decode("/clusters/0/cluster/certificate-authority-data")?;
        let certificate = decode("/users/0/user/client-certificate-data")?;
        let key = decode("/users/0/user/client-key-data")?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&authority)?)?;
        let chain = vec![CertificateDer::from_pem_slice(&certificate)?];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&key)?)?;
        let url = text("/clusters/0/cluster/server")?;
        Ok(Server {
            address: url.trim_start_matches("https://").to_owned(),
            tls: TlsConnector::from(Arc::new(tls)),
        })
    }

    async fn connect(&self) -> anyhow::Result<http1::SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = self.tls.connect(name, stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(
        &self,
        method: &str,
        uri: &str,
        body: Bytes,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        Ok(Request::builder()
            .method(method)
            .uri(uri)
            .header("host", &self.address)
            .header("content-type", "application/json")
            .body(Full::new(body))?)
    }
}

#[derive(Default)]
struct Counts {
    /// Watches that the server has answered.
    open: AtomicU64,
    stop: AtomicBool,
    creates: AtomicU64,
    events: AtomicU64,
    bytes: AtomicU64,
}

async fn create(
    server: Server,
    kind: Kind,
    client: u64,
    counts: Arc<Counts>,
) -> anyhow::Result<()> {
    let mut sender = server.connect().await?;
    let run = std::process::id();
    for number in 0u64.. {
        if counts.stop.load(Relaxed) {
            break;
        }
        let body = kind.body(&format!("load-{run}-{client}-{number}"))?;
        let request = server.request("POST", kind.collection(), body.into())?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::ensure!(status == 201, "{status}: {}", String::from_utf8_lossy(&body));
        counts.creates.fetch_add(1, Relaxed);
    }
    Ok(())
}

async fn watch(server: Server, kind: Kind, counts: Arc<Counts>) -> anyhow::Result<()> {
    let mut sender = server.connect().await?;
    let collection = kind.collection();
    let list = server.request("GET", &format!("{collection}?limit=1"), Bytes::new())?;
    let list = sender.send_request(list).await?.into_body().collect().await?;
    let list: Value = serde_json::from_slice(&list.to_bytes())?;
    let version = list["metadata"]["resourceVersion"].as_str().context("no version")?;
    let uri = format!("{collection}?watch=true&resourceVersion={version}");
    sender.ready().await?;
    let response = sender.send_request(server.request("GET", &uri, Bytes::new())?).await?;
    counts.open.fetch_add(1, Relaxed);
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let data = frame.data_ref().context("trailers")?;
        let lines = memchr::memchr_iter(b'\n', data).count();
        counts.events.fetch_add(lines as u64, Relaxed);
        counts.bytes.fetch_add(data.len() as u64, Relaxed);
    }
    anyhow::ensure!(counts.stop.load(Relaxed), "the watch ended");
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, otherwise: u64| -> u64 {
        arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let server = Server::from_kubeconfig(Path::new(&arguments[0]))?;
    let watching = arguments.get(1).is_some_and(|what| what == "watch");
    let seconds = number(2, 5);
    let clients = number(3, 32);
    let watchers = if watching { number(4, 100) } else { 0 };
    let kind =
        if arguments.last().is_some_and(|last| last == "task") { Kind::Task } else { Kind::Volume };
    let counts = Arc::new(Counts::default());
    let report = |what: &str, result: anyhow::Result<()>| {
        if let Err(error) = result {
            eprintln!("{what}: {error:#}");
        }
    };
    for _ in 0..watchers {
        let running = watch(server.clone(), kind, counts.clone());
        tokio::spawn(async move { report("watch", running.await) });
    }
    // Watches that start after the first creates would count fewer events than there were.
    while counts.open.load(Relaxed) < watchers {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let started = Instant::now();
    let mut creating = tokio::task::JoinSet::new();
    for client in 0..clients {
        let running = create(server.clone(), kind, client, counts.clone());
        creating.spawn(async move { report("create", running.await) });
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    counts.stop.store(true, Relaxed);
    while creating.join_next().await.is_some() {}
    let took = started.elapsed().as_secs_f64();
    let creates = counts.creates.load(Relaxed);
    println!("{creates} creates, {:.0}/s", creates as f64 / took);
    if watching {
        let expected = creates * watchers;
        let deadline = Instant::now() + Duration::from_secs(10);
        while counts.events.load(Relaxed) < expected && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let events = counts.events.load(Relaxed);
        let took = started.elapsed().as_secs_f64();
        println!(
            "{events} of {expected} events, {:.0}/s, {:.0} MB/s",
            events as f64 / took,
            counts.bytes.load(Relaxed) as f64 / took / 1e6
        );
    }
    Ok(())
}
