//! The server over real sockets: what a client sees, byte for byte where bytes matter.

use crate::support::Server;
use bytes::Bytes;
use commonage_apiserver::auth::UserInfo;
use commonage_apiserver::{ApiServer, Config};
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

#[tokio::test]
async fn an_object_lives_and_dies() {
    let server = Server::start().await;
    let made = server.call("POST", MAPS, Some(map("a"))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    assert_eq!(made.header("content-type"), "application/json");
    assert_eq!(made.header("cache-control"), "no-cache, private");
    assert_eq!(made.header("audit-id").len(), 36);
    let again = server.call("POST", MAPS, Some(map("a"))).await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert_eq!(again.json()["message"], "configmaps \"a\" already exists");

    let one = format!("{MAPS}/a");
    let patch = [("content-type", "application/merge-patch+json")];
    let change = json!({"data": {"k": "w"}});
    let patched = server.call_with("PATCH", &one, Some(change), &patch).await;
    assert_eq!(patched.status, StatusCode::OK, "{patched:?}");
    let read = server.call("GET", &one, None).await;
    assert_eq!(read.json()["data"]["k"], "w");
    assert_eq!(read.body, patched.body);

    let gone = server.call("DELETE", &one, None).await;
    assert_eq!(gone.status, StatusCode::OK);
    assert_eq!(gone.json()["status"], "Success");
    let missing = server.call("GET", &one, None).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(missing.json()["message"], "configmaps \"a\" not found");
    server.stop().await;
}

/// A page of the past with a selector is no answer to another list of the same past.
#[tokio::test]
async fn lists_of_one_past_do_not_mix() {
    let server = Server::start().await;
    let mut version = String::new();
    for (name, color) in [("a", "red"), ("b", "blue"), ("c", "red"), ("d", "blue")] {
        let mut body = map(name);
        body["metadata"]["labels"] = json!({"color": color});
        let made = server.call("POST", MAPS, Some(body)).await;
        version = made.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    }
    assert_eq!(server.call("DELETE", &format!("{MAPS}/a"), None).await.status, StatusCode::OK);
    let at = format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact");
    let names = async |query: String| {
        let list = server.call("GET", &format!("{at}{query}"), None).await.json();
        let items = list["items"].as_array().unwrap_or_else(|| panic!("{list}")).clone();
        let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
        items.iter().map(name).filter(|name| name.len() == 1).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        assert_eq!(names("&labelSelector=color%3Dred&limit=1".into()).await, ["a"]);
        assert_eq!(names("&limit=1".into()).await, ["a"]);
        assert_eq!(names(String::new()).await, ["a", "b", "c", "d"]);
        assert_eq!(names("&labelSelector=color%3Dblue".into()).await, ["b", "d"]);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_list_is_a_list_in_every_form() {
    let server = Server::start().await;
    let empty = server.call("GET", MAPS, None).await.json();
    assert_eq!(empty["items"], json!([]));
    assert_eq!(empty["kind"], "ConfigMapList");
    for name in ["a", "b", "c"] {
        let made = server.call("POST", MAPS, Some(map(name))).await;
        assert_eq!(made.status, StatusCode::CREATED);
    }
    let whole = server.call("GET", MAPS, None).await;
    assert_eq!(whole.json()["items"].as_array().unwrap().len(), 3);
    assert_eq!(whole.header("content-length"), whole.body.len().to_string());
    let page = server.call("GET", &format!("{MAPS}?limit=2"), None).await.json();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    assert_eq!(page["metadata"]["remainingItemCount"], 1);
    let next = page["metadata"]["continue"].as_str().unwrap();
    let rest = server.call("GET", &format!("{MAPS}?limit=2&continue={next}"), None).await.json();
    assert_eq!(rest["items"][0]["metadata"]["name"], "c");
    assert_eq!(rest["metadata"].get("continue"), None);

    let table = server.call_with("GET", MAPS, None, &[("accept", TABLE)]).await.json();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"].as_array().unwrap().len(), 3);
    let metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let metadata = server.call_with("GET", MAPS, None, &[("accept", metadata)]).await.json();
    assert_eq!(metadata["kind"], "PartialObjectMetadataList");
    let yaml = server.call_with("GET", MAPS, None, &[("accept", "application/yaml")]).await;
    let yaml: Value = serde_saphyr::from_slice(&yaml.body).unwrap();
    assert_eq!(yaml, whole.json());
    let pretty = server.call("GET", &format!("{MAPS}?pretty=true"), None).await;
    assert!(pretty.body.starts_with(b"{\n"), "{pretty:?}");
    assert_eq!(pretty.json(), whole.json());
    let none = server.call_with("GET", MAPS, None, &[("accept", "text/html")]).await;
    assert_eq!(none.status, StatusCode::NOT_ACCEPTABLE);
    server.stop().await;
}

#[tokio::test]
async fn large_lists_are_compressed_for_whom_asks() {
    let server = Server::start().await;
    for number in 0..3 {
        let mut large = map(&format!("m{number}"));
        large["data"]["k"] = "x".repeat(100_000).into();
        assert_eq!(server.call("POST", MAPS, Some(large)).await.status, StatusCode::CREATED);
    }
    let plain = server.call("GET", MAPS, None).await;
    assert_eq!(plain.header("content-encoding"), "");
    let packed = server.call_with("GET", MAPS, None, &[("accept-encoding", "gzip")]).await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert!(packed.body.len() < 10_000);
    let mut unpacked = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(&packed.body[..]);
    std::io::Read::read_to_end(&mut decoder, &mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
    server.stop().await;
}

async fn next_event(body: &mut hyper::body::Incoming, buffer: &mut Vec<u8>) -> Option<Value> {
    loop {
        if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            return Some(serde_json::from_slice(&line).unwrap());
        }
        let frame = body.frame().await?.unwrap();
        buffer.extend_from_slice(frame.data_ref().unwrap());
    }
}

#[tokio::test]
async fn a_watch_tells_what_happens_and_ends_with_the_server() {
    let server = Server::start().await;
    let root = [("authorization", "Bearer t-root")];
    let tables = [("authorization", "Bearer t-root"), ("accept", TABLE)];
    let uri = format!("{MAPS}?watch=true");
    let watch = |headers| {
        let (server, uri) = (&server, &uri);
        async move { crate::support::begin(server.tls().await, "GET", uri, Bytes::new(), headers).await }
    };
    let (plain, table) = (watch(&root).await, watch(&tables).await);
    assert_eq!(plain.headers()["content-type"], "application/json");
    let (mut plain, mut table) = (plain.into_body(), table.into_body());
    server.call("POST", MAPS, Some(map("a"))).await;
    server.call("DELETE", &format!("{MAPS}/a"), None).await;
    let (mut plain_buffer, mut table_buffer) = (Vec::new(), Vec::new());
    for kind in ["ADDED", "DELETED"] {
        let event = next_event(&mut plain, &mut plain_buffer).await.unwrap();
        assert_eq!(event["type"], kind);
        assert_eq!(event["object"]["metadata"]["name"], "a");
        let event = next_event(&mut table, &mut table_buffer).await.unwrap();
        assert_eq!(event["type"], kind);
        assert_eq!(event["object"]["kind"], "Table");
        assert_eq!(event["object"]["columnDefinitions"].is_array(), kind == "ADDED");
        assert_eq!(event["object"]["rows"][0]["cells"][0], "a");
    }
    let stopping = tokio::spawn(server.stop());
    assert_eq!(next_event(&mut plain, &mut plain_buffer).await, None);
    assert_eq!(next_event(&mut table, &mut table_buffer).await, None);
    stopping.await.unwrap();
}

#[tokio::test]
async fn too_much_is_refused_before_it_is_kept() {
    let server = Server::start().await;
    for framing in ["content-length: 104857600", "transfer-encoding: chunked"] {
        let (mut read, mut write) = tokio::io::split(server.tls().await);
        let head = format!(
            "POST {MAPS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer t-root\r\n\
             content-type: application/json\r\n{framing}\r\n\r\n"
        );
        write.write_all(head.as_bytes()).await.unwrap();
        let sending = tokio::spawn(async move {
            let piece = vec![b'x'; 1024 * 1024];
            for _ in 0..100 {
                if framing.starts_with("transfer") {
                    write.write_all(b"100000\r\n").await?;
                }
                write.write_all(&piece).await?;
                if framing.starts_with("transfer") {
                    write.write_all(b"\r\n").await?;
                }
            }
            if framing.starts_with("transfer") {
                write.write_all(b"0\r\n\r\n").await?;
            }
            Ok::<_, std::io::Error>(write)
        });
        let mut answer = Vec::new();
        let _ = read.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{framing}: {answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        assert!(answer.contains("RequestEntityTooLarge"), "{answer}");
        sending.abort();
    }
    server.stop().await;
}

#[tokio::test]
async fn a_body_may_have_no_type_but_not_a_strange_one() {
    let server = Server::start().await;
    let root = ("authorization", "Bearer t-root");
    let body = || Bytes::from(map("a").to_string());
    let made = server.raw("POST", MAPS, body(), &[root]).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let strange = [root, ("content-type", "application/xml")];
    let refused = server.raw("POST", MAPS, body(), &strange).await;
    assert_eq!(refused.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: {k: v}\n";
    let typed = [root, ("content-type", "application/yaml")];
    let made = server.raw("POST", MAPS, yaml.into(), &typed).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let broken = server.raw("POST", MAPS, "{".into(), &[root]).await;
    assert_eq!(broken.status, StatusCode::BAD_REQUEST);
    server.stop().await;
}

#[tokio::test]
async fn who_may_what() {
    let server = Server::start().await;
    let get = |uri, token: &'static str| {
        let server = &server;
        async move {
            let headers = [("authorization", token)];
            let headers = if token.is_empty() { &[][..] } else { &headers };
            server.raw("GET", uri, Bytes::new(), headers).await
        }
    };
    for (uri, token, status) in [
        ("/livez", "", 200),
        ("/readyz", "", 200),
        ("/version", "", 200),
        ("/apis", "", 403),
        (MAPS, "", 403),
        ("/apis", "Bearer t-alice", 200),
        ("/metrics", "Bearer t-alice", 403),
        (MAPS, "Bearer t-alice", 403),
        (MAPS, "Bearer t-root", 200),
        ("/metrics", "Bearer t-root", 200),
        (MAPS, "Bearer wrong", 401),
        ("/api/v1/namespaces/default/nosuch", "Bearer t-alice", 403),
        ("/api/v1/namespaces/default/nosuch", "Bearer t-root", 404),
        ("/nosuch", "Bearer t-root", 404),
    ] {
        let answer = get(uri, token).await;
        assert_eq!(answer.status.as_u16(), status, "{uri} {token}: {answer:?}");
    }
    let refused = get(MAPS, "Bearer t-alice").await.json();
    assert_eq!(
        refused["message"],
        "configmaps is forbidden: User \"alice\" cannot list resource \"configmaps\" in API group \
         \"\" in the namespace \"default\""
    );
    server.stop().await;
}

#[tokio::test]
async fn an_agent_touches_only_its_own() {
    let server = Server::start().await;
    let agents = "/apis/commonage.dev/v1/agents";
    let agent = |name: &str| {
        json!({
            "apiVersion": "commonage.dev/v1",
            "kind": "Agent",
            "metadata": {"name": name},
            "spec": {},
        })
    };
    let call = |method: &'static str, uri: String, body: Value| {
        let server = &server;
        async move {
            let stream = server.tls_as_agent("n1").await;
            let patch = [("content-type", "application/merge-patch+json")];
            let headers = if method == "PATCH" { &patch[..] } else { &[] };
            crate::support::send(stream, method, &uri, body.to_string().into(), headers).await
        }
    };
    let foreign = call("POST", agents.to_owned(), agent("n2")).await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN, "{foreign:?}");
    let own = call("POST", agents.to_owned(), agent("n1")).await;
    assert_eq!(own.status, StatusCode::CREATED, "{own:?}");
    let status = json!({"status": {}});
    let foreign = call("PATCH", format!("{agents}/n2/status"), status.clone()).await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    let own = call("PATCH", format!("{agents}/n1/status"), status).await;
    assert_eq!(own.status, StatusCode::OK, "{own:?}");
    server.stop().await;
}

#[tokio::test]
async fn kube_works_without_a_socket() {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, ListParams, PostParams};
    let server = Server::start().await;
    let client = server.api.client_for(UserInfo::admin());
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let made: ConfigMap = serde_json::from_value(map("a")).unwrap();
    maps.create(&PostParams::default(), &made).await.unwrap();
    let all = maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(all.items.len(), 1);
    let nobody = server.api.client_for(UserInfo::authenticated("nobody", &[]));
    let refused = Api::<ConfigMap>::default_namespaced(nobody).get("a").await;
    match refused {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 403),
        other => panic!("{other:?}"),
    }
    server.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_explained() {
    let server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    let config = Config { listen: server.api.listen_addr(), ..Config::for_tests(dir.path()) };
    let error = ApiServer::start(config).await.err().unwrap().to_string();
    assert!(error.contains("another process has this port"), "{error}");
    assert!(error.contains("--listen"), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_identities_valid() {
    let dir = tempfile::tempdir().unwrap();
    let first = ApiServer::start(Config::for_tests(dir.path())).await.unwrap();
    let authority = first.ca_pem().to_owned();
    let agent = first.issue_agent_identity("n1").unwrap();
    first.shutdown().await;
    let second = ApiServer::start(Config::for_tests(dir.path())).await.unwrap();
    assert_eq!(second.ca_pem(), authority);
    let again = second.issue_agent_identity("n1").unwrap();
    assert_eq!(again.certificate_pem, agent.certificate_pem);
    second.shutdown().await;
}

#[tokio::test]
async fn documents_carry_their_etags() {
    let server = Server::start().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let accept = [("accept", aggregated)];
    let apis = server.call_with("GET", "/apis", None, &accept).await;
    assert_eq!(apis.header("content-type"), aggregated);
    assert_eq!(apis.json()["kind"], "APIGroupDiscoveryList");
    let etag = apis.header("etag").to_owned();
    let cached = [("accept", aggregated), ("if-none-match", etag.as_str())];
    let unchanged = server.call_with("GET", "/apis", None, &cached).await;
    assert_eq!(unchanged.status, StatusCode::NOT_MODIFIED);
    assert!(unchanged.body.is_empty());

    let index = server.call("GET", "/openapi/v3", None).await.json();
    let paths = index["paths"].as_object().unwrap();
    let url = paths["apis/commonage.dev/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = server.call("GET", url, None).await;
    assert_eq!(document.status, StatusCode::OK);
    assert_eq!(document.header("cache-control"), "public, immutable");
    let old = format!("{}?hash=OLD", url.split('?').next().unwrap());
    let moved = server.call("GET", &old, None).await;
    assert_eq!(moved.status, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(moved.header("location"), url);
    server.stop().await;
}

#[tokio::test]
async fn a_long_table_is_rendered_apart() {
    let server = Server::start().await;
    let client = server.api.client_for(UserInfo::admin());
    let maps: kube::Api<k8s_openapi::api::core::v1::ConfigMap> =
        kube::Api::default_namespaced(client);
    // One more than is rendered in place.
    let names = (0..1001).map(|number| format!("m{number}"));
    let created = futures::future::join_all(names.map(|name| {
        let maps = maps.clone();
        async move {
            let map = serde_json::from_value(map(&name)).unwrap();
            maps.create(&Default::default(), &map).await
        }
    }));
    assert!(created.await.iter().all(Result::is_ok));
    let table = server.call_with("GET", MAPS, None, &[("accept", TABLE)]).await.json();
    assert_eq!(table["rows"].as_array().unwrap().len(), 1001);
    let pretty = server.call("GET", &format!("{MAPS}?pretty=1"), None).await.json();
    assert_eq!(pretty["items"].as_array().unwrap().len(), 1001);
    server.stop().await;
}
