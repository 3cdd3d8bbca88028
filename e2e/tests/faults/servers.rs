//! API servers that die, lose their answers, or are replaced: F-01, F-02, F-13.

use std::time::{Duration, Instant};

use commonage_e2e::etcd::Etcd;
use commonage_e2e::faults::load_time;
use commonage_e2e::faults::proxy::{Harm, Proxy};
use commonage_e2e::faults::servers::Servers;
use commonage_e2e::history::{Answer, Ask, Call, Record};
use commonage_e2e::recorder::{Load, Recorder, Shape};

use crate::world::{World, works};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f01_one_of_two_servers_is_killed_under_writes_and_watches() {
    let etcd = Etcd::start().unwrap();
    let mut world = World::start(2, &format!("etcd://{}", etcd.address())).await;
    let load = world.load().await;
    for round in 0..2 {
        tokio::time::sleep(load_time() / 2).await;
        world.servers.kill(round);
        works(&world.recorder, &world.clients[1 - round]).await;
        world.servers.up(round).unwrap();
        world.servers.ready(round).await.unwrap();
    }
    tokio::time::sleep(load_time() / 2).await;
    load.finish().await;
    world.recorder.verify("f01-two-servers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f01_the_only_server_with_its_embedded_store_is_killed() {
    let mut world = World::start(1, "embedded").await;
    let load = world.load().await;
    for _ in 0..2 {
        tokio::time::sleep(load_time() / 2).await;
        world.servers.kill(0);
        world.servers.up(0).unwrap();
        world.works().await;
    }
    load.finish().await;
    world.recorder.verify("f01-embedded");
}

/// The commit lands, the client hears nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f02_answers_are_cut_off_on_their_way_to_the_client() {
    let servers = Servers::start(1, &["--store", "embedded"]).await.unwrap();
    let proxy = Proxy::start(servers.address(0)).await.unwrap();
    let straight = servers.all().await.unwrap();
    let recorder = Recorder::prepare(&straight, "faults").await.unwrap();
    let harmed = [servers.server_by(0, proxy.address()).await.unwrap()];
    let load = Load::start(&recorder, &harmed, Shape::default()).await;
    let started = Instant::now();
    let mut after = 0;
    while started.elapsed() < load_time() {
        tokio::time::sleep(Duration::from_millis(40)).await;
        // In the middle of a head, of a body, of a frame of an event.
        after = (after + 137) % 1_500;
        proxy.set(Harm::CutAnswers { after });
        tokio::time::sleep(Duration::from_millis(20)).await;
        proxy.set(Harm::None);
    }
    load.finish().await;
    assert!(proxy.cuts() > 10, "only {} connections were cut", proxy.cuts());
    assert!(unknown_writes(&recorder) > 0, "every write was answered");
    recorder.verify("f02-client");
}

/// The commit lands, the API server hears nothing: it must look, and never do it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f02_answers_are_cut_off_on_their_way_to_the_api_server() {
    let etcd = Etcd::start().unwrap();
    let proxy = Proxy::start(etcd.address().parse().unwrap()).await.unwrap();
    let world = World::start(2, &format!("etcd://{}", proxy.address())).await;
    let load = world.load().await;
    let started = Instant::now();
    let mut after = 0;
    while started.elapsed() < load_time() {
        tokio::time::sleep(Duration::from_millis(150)).await;
        after = (after + 61) % 700;
        proxy.set(Harm::CutAnswers { after });
        tokio::time::sleep(Duration::from_millis(30)).await;
        proxy.set(Harm::None);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.works().await;
    load.finish().await;
    assert!(proxy.cuts() > 3, "only {} connections were cut", proxy.cuts());
    world.recorder.verify("f02-etcd");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_servers_are_restarted_one_after_the_other_under_load() {
    let etcd = Etcd::start().unwrap();
    let mut world = World::start(2, &format!("etcd://{}", etcd.address())).await;
    let load = world.load().await;
    for number in 0..2 {
        tokio::time::sleep(load_time() / 2).await;
        assert_eq!(world.servers.stop(number), 0);
        works(&world.recorder, &world.clients[1 - number]).await;
        world.servers.up(number).unwrap();
        world.servers.ready(number).await.unwrap();
    }
    load.finish().await;
    let codes = refusals(&world.recorder);
    let unasked: Vec<_> =
        // 429: a server that goes down sends away who comes late, as a kube-apiserver does.
        codes.iter().filter(|code| ![404, 409, 410, 429, 503].contains(*code)).collect();
    assert!(unasked.is_empty(), "a restart shows as {unasked:?}");
    world.recorder.verify("f13");
}

fn calls(recorder: &Recorder) -> Vec<Call> {
    let records = recorder.records().into_iter();
    records
        .filter_map(|record| match record {
            Record::Call(call) => Some(call),
            Record::Watch(_) => None,
        })
        .collect()
}

fn unknown_writes(recorder: &Recorder) -> usize {
    let is_read = |call: &Call| matches!(call.ask, Ask::Get { .. } | Ask::List { .. });
    let calls = calls(recorder);
    let unknown = |call: &&Call| matches!(call.answer, Answer::Unknown { .. }) && !is_read(call);
    calls.iter().filter(unknown).count()
}

fn refusals(recorder: &Recorder) -> std::collections::BTreeSet<u16> {
    let calls = calls(recorder).into_iter();
    calls
        .filter_map(|call| match call.answer {
            Answer::Refused { code, .. } => Some(code),
            _ => None,
        })
        .collect()
}
