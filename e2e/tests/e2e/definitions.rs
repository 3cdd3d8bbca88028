//! Kinds that are defined at one API server, served by another one over the same etcd.

use std::path::Path;
use std::time::Duration;

use commonage_apiserver::auth::UserInfo;
use commonage_apiserver::server::StoreKind;
use commonage_apiserver::{ApiServer, Config};
use commonage_e2e::etcd::Etcd;
use futures::StreamExt;
use http::Request;
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THINGS: &str = "/apis/two.example.com/v1/namespaces/default/things";
/// Everything that is waited for comes about within this, or the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    api: ApiServer,
    client: Client,
}

impl Server {
    async fn start(dir: &Path, etcd: &Etcd) -> Server {
        let store = StoreKind::Etcd(vec![format!("http://{}", etcd.address())]);
        let config = Config { store, ..Config::for_tests(dir) };
        let api = ApiServer::start(config).await.unwrap();
        let client = api.client_for(UserInfo::admin());
        Server { api, client }
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string().into_bytes()));
        let answer = self.client.send(request.body(body).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect_bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Asks again until the answer is as wanted.
    async fn until(&self, path: &str, wanted: impl Fn(u16, &Value) -> bool) -> Value {
        let mut last = (0, Value::Null);
        let asking = async {
            loop {
                last = self.call("GET", path, None).await;
                if wanted(last.0, &last.1) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let done = tokio::time::timeout(PATIENCE, asking).await;
        assert!(done.is_ok(), "{path} stayed {last:?}");
        last.1
    }
}

fn definition(plural: &str, kind: &str, fields: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.two.example.com")},
        "spec": {
            "group": "two.example.com", "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": fields}},
            }}}],
        },
    })
}

fn thing(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "two.example.com/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec})
}

fn condition<'v>(definition: &'v Value, name: &str) -> &'v str {
    let conditions = definition["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|one| one["type"] == name);
    found.and_then(|one| one["status"].as_str()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_serve_the_same_kinds() {
    let etcd = Etcd::start().unwrap();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let a = Server::start(dirs[0].path(), &etcd).await;
    let b = Server::start(dirs[1].path(), &etcd).await;

    let number = json!({"size": {"type": "integer", "default": 1}});
    let made = a.call("POST", DEFINITIONS, Some(definition("things", "Thing", number))).await;
    assert_eq!(made.0, 201, "{}", made.1);
    b.until(THINGS, |status, _| status == 200).await;
    let created = b.call("POST", THINGS, Some(thing("one", json!({})))).await;
    assert_eq!((created.0, &created.1["spec"]["size"]), (201, &json!(1)), "{}", created.1);
    let seen = a.until(&format!("{THINGS}/one"), |status, _| status == 200).await;
    assert_eq!(seen, created.1);

    // What is written at one is watched at the other.
    let watch = Request::get(format!("{THINGS}?watch=true")).body(Body::empty()).unwrap();
    let mut events = b.client.send(watch).await.unwrap().into_body().into_data_stream();
    a.call("POST", THINGS, Some(thing("two", json!({"size": 2})))).await;
    let mut text = String::new();
    let reading = async {
        while !text.contains("\"two\"") {
            text += std::str::from_utf8(&events.next().await.unwrap().unwrap()).unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap();
    drop(events);

    // A schema that changes at one changes at the other.
    let fields = json!({"size": {"type": "integer", "default": 7}, "colour": {"type": "string"}});
    let versions = definition("things", "Thing", fields)["spec"]["versions"].clone();
    let path = format!("{DEFINITIONS}/things.two.example.com");
    let change = json!({"spec": {"versions": versions}});
    assert_eq!(b.call("PATCH", &path, Some(change)).await.0, 200);
    let mut number = 0;
    let changed = async {
        loop {
            number += 1;
            let body = thing(&format!("new-{number}"), json!({"colour": "red"}));
            let made = a.call("POST", THINGS, Some(body)).await.1;
            if made["spec"] == json!({"colour": "red", "size": 7}) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, changed).await.unwrap();
    // Both describe the kinds in the same words.
    let group = "/apis/two.example.com/v1";
    let described = a.call("GET", group, None).await.1;
    b.until(group, |_, found| *found == described).await;

    assert_eq!(a.call("DELETE", &path, None).await.0, 200);
    for server in [&a, &b] {
        server.until(&path, |status, _| status == 404).await;
        server.until(THINGS, |status, _| status == 404).await;
    }
    stop(a, b).await;
}

/// Two definitions that want the same kind, written at the same time at two servers: one gets it,
/// and both servers agree which.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_given_once() {
    let etcd = Etcd::start().unwrap();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let a = Server::start(dirs[0].path(), &etcd).await;
    let b = Server::start(dirs[1].path(), &etcd).await;
    let of = |plural: &str| definition(plural, "Thing", json!({}));
    // One after the other: definitions that two servers take at the same instant may both be
    // accepted, as with kube-apiservers (docs/architecture.md).
    let (status, first) = a.call("POST", DEFINITIONS, Some(of("things"))).await;
    assert_eq!(status, 201, "{first}");
    let path = format!("{DEFINITIONS}/things.two.example.com");
    b.until(&path, |_, found| condition(found, "NamesAccepted") == "True").await;
    let (status, second) = b.call("POST", DEFINITIONS, Some(of("stuffs"))).await;
    assert_eq!(status, 201, "{second}");
    let mut accepted = Vec::new();
    for plural in ["things", "stuffs"] {
        let path = format!("{DEFINITIONS}/{plural}.two.example.com");
        let decided = |_, found: &Value| !condition(found, "NamesAccepted").is_empty();
        let found = a.until(&path, decided).await;
        let answer = condition(&found, "NamesAccepted").to_owned();
        b.until(&path, |_, found| condition(found, "NamesAccepted") == answer).await;
        if answer == "True" {
            accepted.push(plural);
        }
    }
    assert_eq!(accepted, ["things"]);
    for server in [&a, &b] {
        for plural in ["things", "stuffs"] {
            let path = format!("/apis/two.example.com/v1/namespaces/default/{plural}");
            let served = if accepted.contains(&plural) { 200 } else { 404 };
            server.until(&path, |status, _| status == served).await;
        }
    }
    stop(a, b).await;
}

async fn stop(a: Server, b: Server) {
    for server in [a, b] {
        drop(server.client);
        server.api.shutdown().await;
    }
}
