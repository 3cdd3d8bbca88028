//! Pods on loan: what is shown of Tasks, and the streams into them, against an agent that answers
//! as agents do.

use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::support::{Answer, Server};

const PODS: &str = "/api/v1/namespaces/default/pods";
const TASKS: &str = "/apis/commonage.dev/v1/namespaces/default/tasks";
const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

/// An agent `n1` that runs the Task `t`: its commands say who they are, echo their input, and end
/// well; its ports echo; everything else is refused with 404.
async fn with_agent(server: &Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let made = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "commonage.dev/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let agents = "/apis/commonage.dev/v1/agents";
    let container = json!({"container": {"command": ["sleep", "9"]}, "resources": {"cpu": "1"}});
    for (uri, object) in
        [(agents, made("Agent", "n1", json!({}))), (TASKS, made("Task", "t", container))]
    {
        let answer = server.call("POST", uri, Some(object)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }
    let status = json!({"status": {"endpoint": endpoint}});
    let merge = [("content-type", "application/merge-patch+json")];
    let known =
        server.call_with("PATCH", &format!("{agents}/n1/status"), Some(status), &merge).await;
    assert_eq!(known.status, StatusCode::OK, "{known:?}");
    let binding = json!({"agent": "n1", "hostPorts": []});
    let bound = server.call("POST", &format!("{TASKS}/t/binding"), Some(binding)).await;
    assert!(bound.status.is_success(), "{bound:?}");
    let tls = agent_tls(server);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = tls.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let service = hyper::service::service_fn(agent_answers);
                let io = TokioIo::new(stream);
                let served =
                    hyper::server::conn::http1::Builder::new().serve_connection(io, service);
                let _ = served.with_upgrades().await;
            });
        }
    });
}

fn agent_tls(server: &Server) -> tokio_rustls::TlsAcceptor {
    let identity = server.api.issue_agent_identity("n1").unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.api.ca_pem().as_bytes()).unwrap()).unwrap();
    let clients =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap(),
        )
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

async fn agent_answers(
    mut request: Request<hyper::body::Incoming>,
) -> Result<http::Response<Full<Bytes>>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or("").to_owned();
    let answer = http::Response::builder();
    if path.starts_with("/logs/default/t/") {
        return Ok(answer.body(Full::from(query)).unwrap());
    }
    let upgrade = hyper::upgrade::on(&mut request);
    if path.starts_with("/portforward/default/t/") && query == "port=80" {
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let answer = answer.status(101).header("connection", "upgrade").header("upgrade", "tcp");
        return Ok(answer.body(Full::default()).unwrap());
    }
    if !path.starts_with("/exec/default/t/") {
        return Ok(answer.status(404).body(Full::from("nothing there")).unwrap());
    }
    let key = request.headers()["sec-websocket-key"].clone();
    assert_eq!(request.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    tokio::spawn(async move {
        let io = TokioIo::new(upgrade.await.unwrap());
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        let hello = [&[1][..], query.as_bytes()].concat();
        socket.send(Message::Binary(hello.into())).await.unwrap();
        while let Some(Ok(Message::Binary(message))) = socket.next().await {
            if message[0] == 255 {
                break;
            }
            let echo = [&[2], &message[1..]].concat();
            socket.send(Message::Binary(echo.into())).await.unwrap();
            if &message[1..] == b"end" {
                break;
            }
        }
        let status = [&[3], SUCCESS.as_bytes()].concat();
        socket.send(Message::Binary(status.into())).await.unwrap();
        let _ = socket.close(None).await;
    });
    let accept = derive_accept_key(key.as_bytes());
    let answer = answer.status(101).header("connection", "upgrade").header("upgrade", "websocket");
    let answer = answer.header("sec-websocket-accept", accept);
    Ok(answer.header("sec-websocket-protocol", "v5.channel.k8s.io").body(Full::default()).unwrap())
}

/// A request that asks for another protocol; the answer's head, and the connection if it agrees.
pub(crate) async fn upgraded(
    server: &Server,
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
) -> (http::response::Parts, Result<TokioIo<hyper::upgrade::Upgraded>, Value>) {
    let io = TokioIo::new(server.tls().await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::builder().method(method).uri(uri).header("host", "localhost");
    request = request.header("connection", "Upgrade");
    if !headers.iter().any(|(name, _)| *name == "authorization") {
        request = request.header("authorization", "Bearer t-root");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        return (head, Err(serde_json::from_slice(&body).unwrap()));
    }
    let head = http::Response::builder().status(answer.status()).body(()).unwrap();
    let (mut head, ()) = head.into_parts();
    head.headers = answer.headers().clone();
    (head, Ok(TokioIo::new(hyper::upgrade::on(answer).await.unwrap())))
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

async fn websocket(server: &Server, uri: &str, protocol: &str) -> Socket {
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let headers = [
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", key),
        ("sec-websocket-protocol", protocol),
    ];
    let (head, io) = upgraded(server, "GET", uri, &headers).await;
    assert_eq!(head.headers["sec-websocket-accept"], derive_accept_key(key.as_bytes()));
    assert_eq!(head.headers["sec-websocket-protocol"], protocol);
    WebSocketStream::from_raw_socket(io.unwrap(), Role::Client, None).await
}

async fn heard(socket: &mut Socket) -> (u8, String) {
    match socket.next().await.unwrap().unwrap() {
        Message::Binary(bytes) => (bytes[0], String::from_utf8(bytes[1..].to_vec()).unwrap()),
        Message::Text(text) => (b't', text.to_string()),
        other => (b'?', format!("{other:?}")),
    }
}

async fn say(socket: &mut Socket, channel: u8, text: &[u8]) {
    let message = [&[channel], text].concat();
    socket.send(Message::Binary(message.into())).await.unwrap();
}

#[tokio::test]
async fn a_command_runs_over_websockets_of_every_age() {
    let server = Server::start().await;
    with_agent(&server).await;
    let uri = format!(
        "{PODS}/t/exec?command=sh&command=-c&command=a%26b&stdin=true&stdout=1&stderr=true&container=main&x=y"
    );
    let sent = "command=sh&command=-c&command=a%26b&stdin=true&stdout=true&stderr=true".to_owned();

    let mut v5 = websocket(&server, &uri, "v5.channel.k8s.io").await;
    assert_eq!(heard(&mut v5).await, (1, sent.clone()));
    say(&mut v5, 0, b"hi").await;
    assert_eq!(heard(&mut v5).await, (2, "hi".to_owned()));
    say(&mut v5, 255, &[0]).await;
    assert_eq!(heard(&mut v5).await, (3, SUCCESS.to_owned()));

    let mut v4 = websocket(&server, &uri, "v4.channel.k8s.io").await;
    assert_eq!(heard(&mut v4).await, (1, String::new()));
    assert_eq!(heard(&mut v4).await, (1, sent));
    say(&mut v4, 0, b"end").await;
    assert_eq!(heard(&mut v4).await, (2, "end".to_owned()));
    assert_eq!(heard(&mut v4).await, (3, SUCCESS.to_owned()));
    // Go's clients take any other end for a breakdown.
    let Message::Close(Some(end)) = v4.next().await.unwrap().unwrap() else { panic!() };
    assert_eq!(u16::from(end.code), 1000);

    let uri = uri.replace(PODS, TASKS);
    let mut text = websocket(&server, &uri, "base64.channel.k8s.io").await;
    heard(&mut text).await;
    heard(&mut text).await;
    text.send(Message::Text("0ZW5k".into())).await.unwrap();
    assert_eq!(heard(&mut text).await, (b't', "2ZW5k".to_owned()));
    assert_eq!(heard(&mut text).await, (b't', "3".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn ports_are_forwarded_over_channels() {
    let server = Server::start().await;
    with_agent(&server).await;
    let mut socket =
        websocket(&server, &format!("{PODS}/t/portforward?ports=80,81"), "v4.channel.k8s.io").await;
    let mut heads = Vec::new();
    let mut refused = Vec::new();
    while heads.len() < 4 || refused.is_empty() {
        match heard(&mut socket).await {
            (3, why) if why.contains("error forwarding port 81 to pod t") => refused.push(why),
            head => heads.push(head.0),
        }
    }
    heads.sort_unstable();
    assert_eq!(heads, [0, 1, 2, 3]);
    say(&mut socket, 0, b"ping").await;
    assert_eq!(heard(&mut socket).await, (0, "ping".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn streams_are_refused_as_kubernetes_does() {
    let server = Server::start().await;
    with_agent(&server).await;
    let spdy = [("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v4.channel.k8s.io")];
    let exec = format!("{PODS}/t/exec?command=x&stdout=true");
    let (head, io) = upgraded(&server, "POST", &exec, &spdy).await;
    assert_eq!(head.headers["x-stream-protocol-version"], "v4.channel.k8s.io");
    assert_eq!(head.headers["upgrade"], "SPDY/3.1");
    drop(io);
    for (uri, headers, code, message) in [
        (exec.clone(), vec![], 400, "Upgrade request required"),
        (format!("{PODS}/u/exec?command=x"), spdy.to_vec(), 404, "pods \"u\" not found"),
        (format!("{exec}&container=c"), spdy.to_vec(), 400, "container c is not valid for pod t"),
        (format!("{PODS}/t/attach?stdout=1"), spdy.to_vec(), 404, "nothing there"),
        (
            format!("{PODS}/t/portforward"),
            vec![("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "nonsense")],
            403,
            "unable to negotiate a protocol: the server supports portforward.k8s.io",
        ),
        (
            exec.clone(),
            [&spdy[..], &[("authorization", "Bearer t-alice")]].concat(),
            403,
            "pods \"t\" is forbidden: User \"alice\" cannot create resource \"pods/exec\" in API group \"\" in the \
             namespace \"default\"",
        ),
    ] {
        let (head, refused) = upgraded(&server, "POST", &uri, &headers).await;
        let refused = refused.err().unwrap();
        assert_eq!((head.status.as_u16(), &refused["message"]), (code, &json!(message)), "{uri}");
        assert_eq!(refused["kind"], "Status");
    }
    server.stop().await;
}

/// Who may only look gets in by no handshake, though that is a GET.
#[tokio::test]
async fn to_look_is_not_to_run() {
    let server = Server::start().await;
    with_agent(&server).await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let rule = json!({"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"]});
    let role = json!({"metadata": {"name": "r"}, "rules": [rule]});
    let binding = json!({
        "metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}],
    });
    for (kind, object) in [("roles", role), ("rolebindings", binding)] {
        let made = server.call("POST", &format!("{rbac}/{kind}"), Some(object)).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    }
    let headers = [
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "v5.channel.k8s.io"),
        ("authorization", "Bearer t-alice"),
    ];
    let uri = format!("{PODS}/t/exec?command=x&stdout=true");
    let (head, refused) = upgraded(&server, "GET", &uri, &headers).await;
    assert_eq!(head.status, StatusCode::FORBIDDEN);
    let message = refused.err().unwrap()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("cannot create resource \"pods/exec\""), "{message}");
    server.stop().await;
}

async fn get(server: &Server, uri: &str) -> Answer {
    server.call("GET", uri, None).await
}

#[tokio::test]
async fn a_log_is_asked_for_as_of_a_pod() {
    let server = Server::start().await;
    with_agent(&server).await;
    let log = format!("{PODS}/t/log");
    let asked =
        get(&server, &format!("{log}?follow=true&tailLines=5&timestamps=true&sinceSeconds=9&x=y"))
            .await;
    assert_eq!(&asked.body[..], b"follow=true&tailLines=5&sinceSeconds=9&timestamps=true");
    for (query, code, message) in [
        ("container=c", 400, "container c is not valid for pod t"),
        ("previous=true", 400, "previous terminated container \"main\" in pod \"t\" not found"),
        (
            "tailLines=-1",
            422,
            "PodLogOptions \"t\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "limitBytes=0",
            422,
            "PodLogOptions \"t\" is invalid: limitBytes: Invalid value: 0: must be greater than 0",
        ),
    ] {
        let refused = get(&server, &format!("{log}?{query}")).await;
        assert_eq!(refused.json()["message"], message);
        assert_eq!(refused.status.as_u16(), code);
    }
    server.stop().await;
}

#[tokio::test]
async fn pods_are_read_and_watched_like_any_kind() {
    let server = Server::start().await;
    with_agent(&server).await;
    let list = get(&server, PODS).await.json();
    // As in Kubernetes, an item of a built-in kind does not repeat what it is.
    assert_eq!((&list["kind"], &list["items"][0]["kind"]), (&json!("PodList"), &Value::Null));
    assert!(list["items"][0]["metadata"].is_object());
    let task = get(&server, &format!("{TASKS}/t")).await.json();
    let pod = get(&server, &format!("{PODS}/t")).await.json();
    assert_eq!(pod["metadata"]["resourceVersion"], task["metadata"]["resourceVersion"]);
    for (selector, found) in [
        ("status.phase=Pending", 1),
        ("status.phase=Running", 0),
        ("spec.nodeName=n1", 1),
        ("spec.nodeName=n1,status.phase!=Failed,metadata.name=t", 1),
        ("spec.nodeName=", 0),
    ] {
        let list =
            get(&server, &format!("{PODS}?fieldSelector={}", selector.replace('=', "%3D"))).await;
        assert_eq!(list.json()["items"].as_array().unwrap().len(), found, "{selector}");
    }
    let unknown = get(&server, &format!("{PODS}?fieldSelector=spec.agent%3Dn1")).await;
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST);

    let selector = "fieldSelector=status.phase%3DRunning";
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let watch = format!("{PODS}?watch=true&timeoutSeconds=1&{selector}&resourceVersion={version}");
    let merge = [("content-type", "application/merge-patch+json")];
    for state in ["Starting", "Running"] {
        let status = json!({"status": {"state": state}});
        let moved =
            server.call_with("PATCH", &format!("{TASKS}/t/status"), Some(status), &merge).await;
        assert_eq!(moved.status, StatusCode::OK, "{moved:?}");
    }
    let seen = get(&server, &watch).await;
    let line: Value =
        serde_json::from_slice(seen.body.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!((&line["type"], &line["object"]["kind"]), (&json!("ADDED"), &json!("Pod")));
    assert_eq!(line["object"]["status"]["phase"], "Running");

    let made = server.call("POST", PODS, Some(json!({"metadata": {"name": "x"}}))).await;
    assert_eq!(made.status, StatusCode::METHOD_NOT_ALLOWED);
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let wrong = json!({"preconditions": {"uid": task["metadata"]["uid"]}});
    let right = json!({"preconditions": {"uid": uid}});
    let at = format!("{PODS}/t");
    // A Task's uid names no pod, but is the same Task's after the way back.
    assert_eq!(server.call("DELETE", &at, Some(wrong)).await.status, StatusCode::OK);
    let deleted = server.call("DELETE", &at, Some(right)).await.json();
    assert_eq!(deleted["kind"], "Pod");
    assert!(deleted["metadata"]["deletionTimestamp"].is_string(), "{deleted}");
    assert_eq!(
        get(&server, &format!("{TASKS}/t")).await.json()["metadata"]["deletionTimestamp"],
        deleted["metadata"]["deletionTimestamp"]
    );
    server.stop().await;
}

#[tokio::test]
async fn who_wants_no_pods_gets_none() {
    let server = Server::start_with(|config| config.serve_pods = false).await;
    assert_eq!(get(&server, PODS).await.status, StatusCode::NOT_FOUND);
    assert_eq!(get(&server, "/api/v1/nodes").await.status, StatusCode::NOT_FOUND);
    server.stop().await;
}

#[tokio::test]
async fn a_forwarded_port_is_a_pair_of_spdy_streams() {
    let server = Server::start().await;
    with_agent(&server).await;
    let headers = [("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "portforward.k8s.io")];
    let (_, io) = upgraded(&server, "POST", &format!("{PODS}/t/portforward"), &headers).await;
    let mut io = io.unwrap();
    // A ping, as the simplest sign of life: streams are tested where the codec is.
    io.write_all(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]).await.unwrap();
    let mut pong = [0; 12];
    io.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong, [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]);
    server.stop().await;
}
