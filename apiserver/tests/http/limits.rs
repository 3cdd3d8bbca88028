//! What one client can take: bodies, heads, time. And how the server goes down.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{self, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let server = Server::start().await;
    let body = Bytes::from(vec![b' '; 3 * 1024 * 1024 + 1]);
    let root = [("authorization", "Bearer t-root")];
    let refused = server.raw("POST", MAPS, body, &root).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(refused.json()["reason"], "RequestEntityTooLarge");
    assert_eq!(refused.json()["message"], "Request entity too large: limit is 3145728");
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Server::start().await;
    let long = "x".repeat(300 * 1024);
    let refused = server.raw("GET", MAPS, Bytes::new(), &[("x-long", &long)]).await;
    assert_eq!(refused.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    server.stop().await;
}

/// Nobody waits for those that dawdle: not with their head, their body, nor reading their answer.
#[tokio::test]
async fn slow_clients_hold_nobody_up() {
    let server = Server::start().await;
    let data = json!({"k": "x".repeat(900 * 1024)});
    for name in ["a", "b", "c", "d"] {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
        assert_eq!(server.call("POST", MAPS, Some(map)).await.status, StatusCode::CREATED);
    }
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut head = server.tls().await;
        head.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        let mut body = server.tls().await;
        let start = format!(
            "POST {MAPS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t-root\r\nContent-Length: 100\r\n\r\n{{"
        );
        body.write_all(start.as_bytes()).await.unwrap();
        let mut reader = server.tls().await;
        let list =
            format!("GET {MAPS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t-root\r\n\r\n");
        reader.write_all(list.as_bytes()).await.unwrap();
        slow.extend([head, body, reader]);
    }
    let quick = async {
        for _ in 0..20 {
            let got = server.call("GET", "/api/v1/namespaces/default", None).await;
            assert_eq!(got.status, StatusCode::OK);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), quick).await.unwrap();
    drop(slow);
    server.stop().await;
}

/// The connection of a client that leaves answers unread goes on, so it is the streams that end.
#[tokio::test]
async fn a_stream_that_nobody_reads_is_reset_and_the_others_go_on() {
    let server = Server::start_with(|config| {
        config.stall_time_max = Duration::from_secs(2);
    })
    .await;
    let data = json!({"k": "x".repeat(900 * 1024)});
    for name in ["a", "b"] {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
        assert_eq!(server.call("POST", MAPS, Some(map)).await.status, StatusCode::CREATED);
    }
    let client = server.http2(16 * 1024).await;
    let get = |uri: &str| {
        let request = http::Request::get(format!("https://localhost{uri}"))
            .header("authorization", "Bearer t-root")
            .body(http_body_util::Empty::<Bytes>::new())
            .unwrap();
        let mut client = client.clone();
        async move { client.send_request(request).await.unwrap() }
    };
    let unread = get(MAPS).await;
    // The same connection answers others all the while.
    let given_up = async {
        // On a machine that is busy this too may look like not reading.
        let mut own = 0_u64;
        loop {
            let Ok(body) = get("/metrics").await.into_body().collect().await else {
                own += 1;
                continue;
            };
            let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
            let count =
                text.lines().find_map(|line| line.strip_prefix("apiserver_streams_reset_total "));
            if count.unwrap().parse::<u64>().unwrap() > own {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), given_up).await.unwrap();
    assert_eq!(unread.status(), StatusCode::OK);
    let error = unread.into_body().collect().await.unwrap_err();
    assert!(format!("{error:?}").contains("CANCEL"), "{error:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_with_the_request() {
    let server = Server::start().await;
    let mut slow = server.tls().await;
    let start = format!(
        "POST {MAPS}?timeout=1s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t-root\r\nContent-Length: 100\r\n\r\n{{"
    );
    slow.write_all(start.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1024];
    let read = tokio::time::timeout(Duration::from_secs(20), slow.read(&mut answer));
    let length = read.await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_goes_down_says_so_first() {
    let server = Server::start_with(|config| {
        config.shutdown_delay = Duration::from_secs(3600);
    })
    .await;
    let watched = support::begin(
        server.tls().await,
        "GET",
        &format!("{MAPS}?watch=1"),
        Bytes::new(),
        &[("authorization", "Bearer t-root")],
    )
    .await;
    let client = server.api.client_for(commonage_apiserver::auth::UserInfo::admin());
    let stream = server.tls().await;
    let going = tokio::spawn(server.stop());
    let ready = |client: kube::Client| async move {
        let request = http::Request::get("/readyz").body(kube::client::Body::empty()).unwrap();
        client.send(request).await.unwrap().status()
    };
    let failing = async {
        while ready(client.clone()).await != StatusCode::INTERNAL_SERVER_ERROR {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), failing).await.unwrap();
    // Everything else goes on as before.
    let root = [("authorization", "Bearer t-root")];
    let got = support::send(stream, "GET", MAPS, Bytes::new(), &root).await;
    assert_eq!(got.status, StatusCode::OK);
    assert_eq!(watched.status(), StatusCode::OK);
    going.abort();
}
