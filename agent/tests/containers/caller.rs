//! What the API server is to an agent: it calls the agent's endpoint with its own certificate.

use std::net::SocketAddr;
use std::sync::Arc;

use commonage_agent::Identity;
use commonage_agent::logs;
use commonage_agent::serve::Endpoint;
use commonage_agent::session::Sessions;
use futures::{SinkExt, StreamExt};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use crate::fixture::{Hands, PATIENCE};

const PROTOCOL: &str = "v5.channel.k8s.io";

/// An endpoint that serves the sessions of one task, and how to reach it.
pub struct Caller {
    pub runtime: Runtime,
    address: SocketAddr,
    tls: TlsConnector,
    task: String,
    stop: CancellationToken,
}

impl Caller {
    pub fn new(hands: &Hands) -> Caller {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (identity, tls) = identities();
        let stop = CancellationToken::new();
        let sessions = Sessions::new(hands.ledger.clone(), hands.shims.clone(), stop.clone());
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let endpoint = runtime.block_on(Endpoint::bind(listen, &identity)).unwrap();
        let address = endpoint.address;
        let router = logs::router(hands.ledger.clone()).merge(sessions.router());
        runtime.spawn(endpoint.serve(router, stop.clone()));
        let task = format!("test/t/{}", hands.uid());
        Caller { runtime, address, tls, task, stop }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("node-1").unwrap();
        self.tls.connect(name, stream).await.unwrap()
    }

    /// Opens a WebSocket; the refusal's code and text if there is none.
    pub async fn open(&self, verb: &str, query: &str) -> Result<Socket, (u16, Value)> {
        let uri = format!("wss://node-1/{verb}/{}?{query}", self.task);
        let mut request = uri.into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", PROTOCOL.parse().unwrap());
        let stream = self.connect().await;
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, answer)) => {
                assert_eq!(answer.headers()["sec-websocket-protocol"], PROTOCOL);
                Ok(Socket(socket))
            }
            Err(Error::Http(answer)) => {
                let body = answer.body().clone().unwrap_or_default();
                let status = serde_json::from_slice(&body).unwrap_or_default();
                Err((answer.status().as_u16(), status))
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// A session from its beginning to its end, with some input.
    pub fn run(&self, verb: &str, query: &str, input: &[u8]) -> Seen {
        self.runtime.block_on(async {
            let mut socket = self.open(verb, query).await.unwrap();
            if !input.is_empty() {
                socket.say(0, input).await;
                socket.say(255, &[0]).await;
            }
            socket.rest().await
        })
    }

    /// `exec` of a shell script.
    pub fn sh(&self, script: &str) -> Seen {
        self.run("exec", &sh(script), b"")
    }

    /// A connection to a port; the refusal's code and its message if there is none.
    pub async fn forward(&self, port: u16) -> Result<TlsStream<TcpStream>, (u16, String)> {
        let mut stream = self.connect().await;
        let request = format!(
            "GET /portforward/{}?port={port} HTTP/1.1\r\nhost: node-1\r\nconnection: Upgrade\r\n\
             upgrade: tcp\r\n\r\n",
            self.task
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let code: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        if code == 101 {
            return Ok(stream);
        }
        let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        let status: Value = serde_json::from_slice(&body).unwrap();
        Err((code, status["message"].as_str().unwrap().to_owned()))
    }

    /// The task's log, to its end.
    pub fn log(&self, query: &str) -> String {
        let request = format!(
            "GET /logs/{}?{query} HTTP/1.0\r\nhost: node-1\r\nconnection: close\r\n\r\n",
            self.task
        );
        let answer = self.runtime.block_on(async {
            let mut stream = self.connect().await;
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        });
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{head}");
        body.to_owned()
    }

    /// The agent stops.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

/// The query of `exec` for a shell script.
pub fn sh(script: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for word in ["sh", "-c", script] {
        query.append_pair("command", word);
    }
    query.append_pair("stdout", "true").append_pair("stderr", "true").finish()
}

/// The client's end of a session.
pub struct Socket(WebSocketStream<TlsStream<TcpStream>>);

/// All that a session sent.
#[derive(Debug, Default)]
pub struct Seen {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub status: Value,
}

impl Seen {
    pub fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    pub fn stderr(&self) -> &str {
        std::str::from_utf8(&self.stderr).unwrap()
    }

    /// The code of its Status; 0 is success.
    pub fn code(&self) -> i32 {
        if self.status["status"] == "Success" {
            return 0;
        }
        assert_eq!(self.status["reason"], "NonZeroExitCode", "{self:?}");
        assert_eq!(self.status["details"]["causes"][0]["reason"], "ExitCode");
        self.status["details"]["causes"][0]["message"].as_str().unwrap().parse().unwrap()
    }
}

impl Socket {
    pub async fn say(&mut self, channel: u8, data: &[u8]) {
        let message = [&[channel], data].concat();
        self.0.send(Message::binary(message)).await.unwrap();
    }

    pub async fn ping(&mut self) {
        self.0.send(Message::Ping("there?".into())).await.unwrap();
        while !matches!(self.next().await, Message::Pong(said) if said == "there?") {}
    }

    async fn next(&mut self) -> Message {
        let next = tokio::time::timeout(PATIENCE, self.0.next()).await;
        next.expect("a message").expect("an open connection").unwrap()
    }

    /// Reads until what was printed contains a text.
    pub async fn until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            if let Message::Binary(message) = self.next().await {
                assert!(message[0] < 3, "ended before {text:?}: {message:?}");
                seen.push_str(std::str::from_utf8(&message[1..]).unwrap());
            }
        }
        seen
    }

    /// Everything to the end, which must be an orderly one.
    pub async fn rest(mut self) -> Seen {
        let mut seen = Seen::default();
        loop {
            match self.next().await {
                Message::Binary(message) => match message[0] {
                    1 => seen.stdout.extend(&message[1..]),
                    2 => seen.stderr.extend(&message[1..]),
                    3 => seen.status = serde_json::from_slice(&message[1..]).unwrap(),
                    channel => panic!("channel {channel}"),
                },
                Message::Close(_) => return seen,
                _ => {}
            }
        }
    }
}

/// The agent's identity, and the API server's way of connecting to it.
fn identities() -> (Identity, TlsConnector) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["node-1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    let (certificate_pem, key_pem) = issue("system:agent:node-1");
    let identity = Identity { certificate_pem, key_pem, ca_pem: ca.pem() };
    let (certificate, key) = issue("system:apiserver");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    (identity, TlsConnector::from(Arc::new(config)))
}
