//! etcd that loses members, its quorum, its past, or its speed: F-15 to F-18, F-25.

use std::time::Duration;

use commonage_e2e::etcd::Etcd;
use commonage_e2e::faults::members::{Members, Net, ask, number};
use commonage_e2e::faults::proxy::{Harm, Proxy};
use commonage_e2e::faults::servers::Servers;
use commonage_e2e::faults::{is_long, load_time};
use commonage_e2e::history::{From, Kind, Record, Selector};
use commonage_e2e::recorder::{Server, Stream};
use commonage_e2e::soon;
use http::Method;
use serde_json::json;

use crate::world::{World, works};

async fn three_members(net: Net) -> (Members, World) {
    let members = Members::start(3, net).unwrap();
    let world = World::start(2, &members.store()).await;
    (members, world)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_the_leader_is_killed() {
    let (mut members, world) = three_members(Net::Loopback).await;
    let load = world.load().await;
    tokio::time::sleep(load_time() / 2).await;
    let leader = members.leader().unwrap();
    members.kill(leader);
    world.works().await;
    members.up(leader).unwrap();
    tokio::time::sleep(load_time() / 2).await;
    load.finish().await;
    world.recorder.verify("f15-killed");
}

/// It believes that it leads when it wakes up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_the_leader_is_paused_and_comes_back() {
    let (members, world) = three_members(Net::Loopback).await;
    let load = world.load().await;
    tokio::time::sleep(load_time() / 2).await;
    let leader = members.leader().unwrap();
    members.pause(leader);
    world.works().await;
    members.resume(leader);
    tokio::time::sleep(load_time() / 2).await;
    load.finish().await;
    world.recorder.verify("f15-paused");
}

/// Neither its peers nor the API servers reach it, and nobody is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_the_leader_is_cut_off() {
    let (members, world) = three_members(Net::Namespaces).await;
    let load = world.load().await;
    tokio::time::sleep(load_time() / 2).await;
    let leader = members.leader().unwrap();
    members.cut(leader, true);
    world.works().await;
    members.cut(leader, false);
    tokio::time::sleep(load_time() / 2).await;
    load.finish().await;
    world.recorder.verify("f15-cut-off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f16_the_quorum_is_lost_and_comes_back() {
    let (mut members, world) = three_members(Net::Loopback).await;
    let load = world.load().await;
    tokio::time::sleep(load_time() / 2).await;
    let first = &world.clients[0];
    let begin = From::Version(version_now(first, &world).await);
    let all = Selector::default();
    let mut watch = Stream::open(&world.recorder, first, 0, begin, &all).await.unwrap();
    members.kill(0);
    members.kill(1);
    let body = json!({"metadata": {"name": "nobody"}});
    soon("a refusal of writes", async || {
        let path = "/api/v1/namespaces/default/configmaps";
        let body = Some(("application/json", &body));
        let answer = first.answer(Method::POST, path, body).await?;
        let told = answer.body()["reason"] == "StoreUnavailable"
            && answer.headers().contains_key("retry-after");
        if answer.status() == 503 && told { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    // What is here can be read by those to whom any state will do, and is said to be old.
    let warned = async |query: &str| {
        let path = world.recorder.path(query);
        let answer = first.answer(Method::GET, &path, None).await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        let warning = answer.headers().get("warning").map(|text| text.to_str().unwrap().to_owned());
        (answer.into_body(), warning.unwrap_or_default())
    };
    let any = async || {
        let (list, warning) = warned("?resourceVersion=0").await;
        assert!(list["items"].is_array());
        warning
    };
    let (_, of_watch) = warned("?watch=true&resourceVersion=0&timeoutSeconds=1").await;
    for warning in [any().await, of_watch] {
        assert!(warning.contains("the store does not answer"), "{warning:?}");
    }
    members.up(0).unwrap();
    members.up(1).unwrap();
    world.works().await;
    soon("an end of the warnings", async || {
        let warning = any().await;
        if warning.is_empty() { Ok(()) } else { Err(warning) }
    })
    .await;
    // The watch that was open is open.
    let seen = async {
        while watch.next(&world.recorder).await.is_some() {
            let after = |event: &commonage_e2e::history::Event| {
                event.object["metadata"]["name"].as_str().is_some_and(|n| n.starts_with("works-"))
            };
            if watch.watch.events.iter().any(after) {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(commonage_e2e::PATIENCE, seen).await.unwrap(), "the watch ended");
    world.recorder.add(Record::Watch(watch.watch));
    load.finish().await;
    world.recorder.verify("f16");
}

async fn version_now(server: &Server, world: &World) -> u64 {
    let (_, list) = server.ask(Method::GET, &world.recorder.path("?limit=1"), None).await.unwrap();
    list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f17_a_server_waits_for_an_etcd_that_is_not_there_yet() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::start(nobody).await.unwrap();
    let mut servers =
        Servers::prepare(1, &["--store", &format!("etcd://{}", proxy.address())]).unwrap();
    servers.up(0).unwrap();
    let pid = servers.pid(0);
    let anybody = Server::anonymous(&format!("https://{}", servers.address(0))).unwrap();
    soon("a server that is not ready", async || {
        let answer = anybody.answer(Method::GET, "/readyz", None).await?;
        let text = answer.body().to_string();
        let told = answer.status() == 503 && text.contains("etcd");
        if told { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    let (status, _) = anybody.ask(Method::GET, "/livez", None).await.unwrap();
    assert_eq!(status, 200, "{}", servers.printed(0));
    // Etcd comes, where it was to be.
    let etcd = Etcd::start().unwrap();
    proxy.redirect(etcd.address().parse().unwrap());
    servers.ready(0).await.unwrap();
    assert_eq!(servers.pid(0), pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f18_history_is_compacted_past_what_watchers_know() {
    let etcd = Etcd::start().unwrap();
    let mut world = World::start(2, &format!("etcd://{}", etcd.address())).await;
    let load = world.load().await;
    let old = version_now(&world.clients[0], &world).await;
    let path = world.recorder.path("?limit=1");
    world.works().await;
    world.works().await;
    let (_, page) = world.clients[0].ask(Method::GET, &path, None).await.unwrap();
    let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
    tokio::time::sleep(load_time() / 2).await;
    // A server that is away meanwhile, and one that stays.
    world.servers.kill(0);
    compact(etcd.address());
    works(&world.recorder, &world.clients[1]).await;
    world.servers.up(0).unwrap();
    world.servers.ready(0).await.unwrap();
    let server = &world.clients[0];
    let all = Selector::default();
    let recorder = &world.recorder;
    let mut expired = Stream::open(recorder, server, 0, From::Version(old), &all).await.unwrap();
    while expired.next(recorder).await.is_some() {}
    let kinds: Vec<Kind> = expired.watch.events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [Kind::Error], "not 410 alone");
    for query in [
        format!("?limit=1&continue={token}"),
        format!("?resourceVersion={old}&resourceVersionMatch=Exact"),
    ] {
        let (status, body) = server.ask(Method::GET, &recorder.path(&query), None).await.unwrap();
        assert_eq!((status.as_u16(), &body["reason"]), (410, &json!("Expired")), "{query}");
    }
    load.finish().await;
    world.recorder.verify("f18");
}

/// The tail of a server that was asleep is compacted away while others write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f18_a_server_sleeps_through_a_compaction() {
    let etcd = Etcd::start().unwrap();
    let proxy = Proxy::start(etcd.address().parse().unwrap()).await.unwrap();
    let slow =
        Servers::start(1, &["--store", &format!("etcd://{}", proxy.address())]).await.unwrap();
    let world = World::start(1, &format!("etcd://{}", etcd.address())).await;
    let load = world.load().await;
    proxy.set(Harm::Refuse);
    tokio::time::sleep(load_time() / 2).await;
    compact(etcd.address());
    tokio::time::sleep(load_time() / 4).await;
    proxy.set(Harm::None);
    load.finish().await;
    // It shows what there is: every list of it is compared with the log of the other.
    let late = slow.server(0).await.unwrap();
    let client = world.recorder.client();
    soon("a list of the server that slept", async || {
        let all = Selector::default();
        match world.recorder.list(client, &late, &all, None, (false, 0)).await {
            commonage_e2e::history::Answer::List { .. } => Ok(()),
            answer => Err(format!("{answer:?}")),
        }
    })
    .await;
    world.recorder.verify("f18-asleep");
}

fn compact(endpoint: &str) {
    let status = ask(endpoint, "/v3/maintenance/status", &json!({})).unwrap();
    let revision = number(&status["header"]["revision"]);
    let body = json!({"revision": revision.to_string(), "physical": true});
    ask(endpoint, "/v3/kv/compaction", &body).unwrap();
}

/// As with a disk that takes its time: everything waits, nothing breaks, nothing piles up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f25_etcd_is_slow() {
    let etcd = Etcd::start().unwrap();
    let proxy = Proxy::start(etcd.address().parse().unwrap()).await.unwrap();
    let world = World::start(2, &format!("etcd://{}", proxy.address())).await;
    let load = world.load().await;
    let pause = Duration::from_millis(if is_long() { 2_000 } else { 300 });
    proxy.set(Harm::Delay(pause));
    tokio::time::sleep(load_time()).await;
    proxy.set(Harm::None);
    world.works().await;
    load.finish().await;
    world.recorder.verify("f25");
}
