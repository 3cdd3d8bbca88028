//! A watch over a WebSocket: what a browser has to do with.

use futures::StreamExt;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::pods::upgraded;
use crate::support::{Server, begin};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_watch_over_a_websocket_sends_an_event_a_message() {
    let server = Server::start().await;
    let map = |name: &str| Some(json!({"metadata": {"name": name}}));
    assert_eq!(server.call("POST", MAPS, map("a")).await.status, 201);
    let headers = [
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let uri = format!("{MAPS}?watch=true&fieldSelector=metadata.name!=hidden");
    let (head, io) = upgraded(&server, "GET", &uri, &headers).await;
    assert_eq!(head.status, 101);
    let mut socket = WebSocketStream::from_raw_socket(io.unwrap(), Role::Client, None).await;
    for name in ["hidden", "b"] {
        assert_eq!(server.call("POST", MAPS, map(name)).await.status, 201);
    }
    for name in ["a", "b"] {
        let Message::Text(text) = socket.next().await.unwrap().unwrap() else {
            panic!("an event is text");
        };
        let event: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&event["type"], &event["object"]["metadata"]["name"]),
            (&json!("ADDED"), &json!(name))
        );
    }
    server.stop().await;
    // The server says goodbye, it does not just hang up.
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
}

#[tokio::test]
async fn a_browser_shows_its_token_as_a_protocol() {
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};

    let server = Server::start().await;
    let upgrade = async |protocols: &str| {
        let headers = [
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", protocols),
        ];
        let uri = format!("{MAPS}?watch=true&timeoutSeconds=1");
        begin(server.tls().await, "GET", &uri, bytes::Bytes::new(), &headers).await
    };
    let bearer = |token: &str| {
        let token = BASE64_URL_SAFE_NO_PAD.encode(token);
        format!("base64url.bearer.authorization.k8s.io.{token}, base64.binary.k8s.io")
    };
    let known = upgrade(&bearer("t-root")).await;
    assert_eq!(known.status(), 101);
    assert_eq!(known.headers()["sec-websocket-protocol"], "base64.binary.k8s.io");
    assert_eq!(upgrade(&bearer("unknown")).await.status(), 401);
    assert_eq!(upgrade("base64.binary.k8s.io").await.status(), 403);
    server.stop().await;
}
