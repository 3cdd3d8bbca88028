//! `tasks/NAME/log`, over real sockets on both sides of the API server.

use crate::support::Server;
use http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Answers one connection as an agent would: over mutual TLS, to the API server alone.
async fn agent_answering(server: &Server, listener: tokio::net::TcpListener) -> (String, String) {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let identity = server.api.issue_agent_identity("n1").unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
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
    let (stream, _) = listener.accept().await.unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let mut stream = acceptor.accept(stream).await.unwrap();
    let caller = {
        let chain = stream.get_ref().1.peer_certificates().unwrap();
        commonage_apiserver::auth::certificate::user_of(&chain[0]).unwrap().name
    };
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\nhello\n";
    stream.write_all(answer).await.unwrap();
    stream.shutdown().await.unwrap();
    let head = String::from_utf8(head).unwrap();
    (caller, head.lines().next().unwrap().to_owned())
}

#[tokio::test]
async fn a_log_comes_from_the_agent_that_runs_the_task() {
    let server = Server::start().await;
    let tasks = "/apis/commonage.dev/v1/namespaces/default/tasks";
    let task = json!({
        "apiVersion": "commonage.dev/v1",
        "kind": "Task",
        "metadata": {"name": "t"},
        "spec": {"container": {"command": ["true"]}, "resources": {"cpu": "1"}},
    });
    let made = server.call("POST", tasks, Some(task)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let uid = made.json()["metadata"]["uid"].as_str().unwrap().to_owned();
    let log = format!("{tasks}/t/log?tailLines=5&follow=true&secret=x");
    let early = server.call("GET", &log, None).await;
    assert_eq!(early.status, StatusCode::BAD_REQUEST);
    assert!(early.json()["message"].as_str().unwrap().contains("no log yet"));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let agents = "/apis/commonage.dev/v1/agents";
    let agent = json!({
        "apiVersion": "commonage.dev/v1",
        "kind": "Agent",
        "metadata": {"name": "n1"},
        "spec": {},
    });
    let made = server.call("POST", agents, Some(agent)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let patch = [("content-type", "application/merge-patch+json")];
    let status = json!({"status": {"endpoint": endpoint}});
    let uri = format!("{agents}/n1/status");
    let known = server.call_with("PATCH", &uri, Some(status), &patch).await;
    assert_eq!(known.status, StatusCode::OK, "{known:?}");
    let binding = json!({"agent": "n1", "hostPorts": []});
    let bound = server.call("POST", &format!("{tasks}/t/binding"), Some(binding)).await;
    assert!(bound.status.is_success(), "{bound:?}");

    let answering = agent_answering(&server, listener);
    let asking = server.call("GET", &log, None);
    let ((caller, request), answer) = tokio::join!(answering, asking);
    assert_eq!(caller, "system:apiserver");
    assert_eq!(request, format!("GET /logs/default/t/{uid}?follow=true&tailLines=5 HTTP/1.1"));
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(&answer.body[..], b"hello\n");

    // Nobody listens there any more.
    let gone = server.call("GET", &log, None).await;
    assert_eq!(gone.status, StatusCode::SERVICE_UNAVAILABLE, "{gone:?}");
    server.stop().await;
}
