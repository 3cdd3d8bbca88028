//! Objects that are too large, stale, damaged, or wanted by two: F-20 to F-22, F-24, F-26.

use commonage_e2e::etcd::Etcd;
use commonage_e2e::faults::members::{ask, encoded};
use commonage_e2e::history::Answer;
use futures::future::join;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::World;

const JSON: &str = "application/json";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f20_what_etcd_would_refuse_is_refused_before() {
    let etcd = Etcd::start().unwrap();
    for store in ["embedded".to_owned(), format!("etcd://{}", etcd.address())] {
        let world = World::start(1, &store).await;
        let server = &world.clients[0];
        for (kib, codes) in [(1_000, [201, 201]), (1_600, [413, 422]), (4_000, [413, 422])] {
            let data = "x".repeat(kib << 10);
            let body = json!({"metadata": {"name": format!("big-{kib}")}, "data": {"a": data}});
            let path = "/api/v1/namespaces/faults/configmaps";
            let (status, told) = server.ask(Method::POST, path, Some((JSON, &body))).await.unwrap();
            let message = told["message"].as_str().unwrap_or_default();
            assert!(codes.contains(&status.as_u16()), "{store}, {kib} KiB: {status} {message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f21_a_stale_update_is_a_conflict_on_every_server() {
    let etcd = Etcd::start().unwrap();
    let world = World::start(2, &format!("etcd://{}", etcd.address())).await;
    let (recorder, clients) = (&world.recorder, &world.clients);
    let Answer::Object(made) = recorder.create(1, &clients[0], "a", ("red", "a")).await else {
        panic!("not created")
    };
    let version = commonage_e2e::history::version_of(&made);
    // At once, on the server that may not have heard of it.
    let first = recorder.update(1, &clients[1], "a", version, ("blue", "a")).await;
    assert!(matches!(first, Answer::Object(_)), "{first:?}");
    for server in clients {
        let stale = recorder.update(1, server, "a", version, ("green", "a")).await;
        let Answer::Refused { code: 409, reason } = stale else { panic!("{stale:?}") };
        assert!(reason.contains("the object has been modified"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f22_versions_that_cannot_be_are_refused_and_no_watch_outlives_its_time() {
    let world = World::start(1, "embedded").await;
    let (recorder, server) = (&world.recorder, &world.clients[0]);
    let future = ["99999999999", "9223372036854775807", "18446744073709551615"];
    let broken = ["abc", "-1", "1.5", "18446744073709551616"];
    for version in broken {
        for query in
            [format!("?resourceVersion={version}"), format!("?watch=1&resourceVersion={version}")]
        {
            let (status, body) =
                server.ask(Method::GET, &recorder.path(&query), None).await.unwrap();
            let message = body["message"].as_str().unwrap_or_default();
            // What kube-apiserver answers is 500, and the conformance suite holds us to it.
            assert!([400, 500].contains(&status.as_u16()), "{query}: {body}");
            assert!(message.contains("resourceVersion"), "{query}: {message}");
        }
    }
    for version in future {
        let list = recorder.path(&format!("?resourceVersion={version}"));
        let (status, body) = server.ask(Method::GET, &list, None).await.unwrap();
        assert_eq!(status, StatusCode::GATEWAY_TIMEOUT, "{version}: {body}");
        assert_eq!(body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
        // As kube-apiserver: it might come.
        let watch = recorder.path(&format!("?watch=1&timeoutSeconds=1&resourceVersion={version}"));
        let (status, body) = server.ask(Method::GET, &watch, None).await.unwrap();
        assert_eq!((status, body), (StatusCode::OK, "".into()), "{version}");
    }
    // In what is written.
    let Answer::Object(made) = recorder.create(1, server, "a", ("red", "a")).await else {
        panic!("not created")
    };
    for version in future.iter().chain(&broken) {
        let mut body: Value = made.clone();
        body["metadata"]["resourceVersion"] = (*version).into();
        let path = recorder.path("/a");
        let (status, told) = server.ask(Method::PUT, &path, Some((JSON, &body))).await.unwrap();
        assert!(status.is_client_error() || status == 500, "{version}: {status} {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f24_what_cannot_be_read_is_left_out_and_can_be_deleted() {
    let etcd = Etcd::start().unwrap();
    let mut world = World::start(1, &format!("etcd://{}", etcd.address())).await;
    for name in ["a", "z"] {
        world.recorder.create(1, &world.clients[0], name, ("red", "a")).await;
    }
    // What somebody else wrote into etcd: no JSON, JSON of another shape, not even an object.
    let broken: [&[u8]; 3] = [b"{\"metadata\":{\0", b"{\"metadata\":[]}\0", b"7\0"];
    for (number, value) in broken.iter().enumerate() {
        let key = format!("/commonage/e2e.commonage.dev/marks/faults/broken-{number}");
        let body = json!({"key": encoded(key.as_bytes()), "value": encoded(value)});
        ask(etcd.address(), "/v3/kv/put", &body).unwrap();
    }
    for restarted in [false, true] {
        if restarted {
            world.servers.kill(0);
            world.servers.up(0).unwrap();
            world.servers.ready(0).await.unwrap();
        }
        let server = &world.clients[0];
        let (_, list) = server.ask(Method::GET, &world.recorder.path(""), None).await.unwrap();
        let names: Vec<&str> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|o| o["metadata"]["name"].as_str())
            .collect();
        assert_eq!(names, ["a", "z"]);
        for name in ["b", "y"] {
            world.recorder.create(1, server, name, ("red", "a")).await;
            world.recorder.delete(1, server, name, None).await;
        }
    }
    let printed = world.servers.printed(0);
    assert!(printed.contains("broken-0") && printed.contains("can't be read"), "{printed}");
    let server = &world.clients[0];
    for number in 0..broken.len() {
        let path = world.recorder.path(&format!("/broken-{number}"));
        for expected in [200, 404] {
            let (status, body) = server.ask(Method::DELETE, &path, None).await.unwrap();
            assert_eq!(status.as_u16(), expected, "{path}: {body}");
        }
        let name = format!("broken-{number}");
        let made = world.recorder.create(1, server, &name, ("red", "a")).await;
        assert!(matches!(made, Answer::Object(_)), "{made:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f26_of_two_who_create_the_same_name_one_does() {
    let etcd = Etcd::start().unwrap();
    let world = World::start(2, &format!("etcd://{}", etcd.address())).await;
    let (recorder, clients) = (&world.recorder, &world.clients);
    for number in 0..50 {
        let name = format!("same-{number}");
        let (one, other) = join(
            recorder.create(1, &clients[0], &name, ("red", "a")),
            recorder.create(2, &clients[1], &name, ("blue", "b")),
        )
        .await;
        let winners = [&one, &other].iter().filter(|a| matches!(a, Answer::Object(_))).count();
        let refused = |answer: &Answer| matches!(answer, Answer::Refused { code: 409, .. });
        assert!(winners == 1 && (refused(&one) || refused(&other)), "{one:?} and {other:?}");
    }
}
