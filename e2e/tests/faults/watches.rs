//! Watches that break in the middle, that nobody reads, and very many at once: F-32, F-39, F-40.

use std::time::{Duration, Instant};

use commonage_e2e::etcd::Etcd;
use commonage_e2e::faults::load_time;
use commonage_e2e::faults::members::{ask, number};
use commonage_e2e::faults::proxy::{Harm, Proxy};
use commonage_e2e::faults::servers::Servers;
use commonage_e2e::history::{Answer, From, Kind, Record, Selector, version_of};
use commonage_e2e::recorder::{Load, Recorder, Server, Shape, Stream};
use futures::future::join_all;
use http::Method;
use serde_json::json;

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f32_watches_are_reset_in_the_middle_of_frames() {
    let servers = Servers::start(1, &["--store", "embedded"]).await.unwrap();
    let proxy = Proxy::start(servers.address(0)).await.unwrap();
    let straight = servers.all().await.unwrap();
    let recorder = Recorder::prepare(&straight, "faults").await.unwrap();
    let harmed = [servers.server_by(0, proxy.address()).await.unwrap()];
    let writers = Shape { watchers: 0, ..Shape::default() };
    let readers = Shape { writers: 0, watchers: 12, witnessed: false, ..writers };
    let load = Load::start(&recorder, &straight, writers).await;
    let watches = Load::start(&recorder, &harmed, readers).await;
    let started = Instant::now();
    let mut after = 0;
    while started.elapsed() < load_time() {
        tokio::time::sleep(Duration::from_millis(60)).await;
        after = (after + 311) % 4_000;
        proxy.set(Harm::CutAnswers { after });
        tokio::time::sleep(Duration::from_millis(40)).await;
        proxy.set(Harm::None);
    }
    watches.finish().await;
    load.finish().await;
    assert!(proxy.cuts() > 20, "only {} connections were cut", proxy.cuts());
    recorder.verify("f32");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f39_a_watch_that_nobody_reads_is_closed_and_hurts_nobody() {
    const CLOSED: &str = "apiserver_terminated_watchers_total";
    let world = World::start(1, "embedded").await;
    let server = &world.clients[0];
    let load = world.load().await;
    // In a namespace of its own, so that the others' history is only the others'.
    let noise = Recorder::prepare(&world.clients, "noise").await.unwrap();
    let Answer::Object(first) = noise.create(1, server, "loud-0", ("red", "a")).await else {
        panic!("not created")
    };
    for name in 1..32 {
        noise.create(1, server, &format!("loud-{name}"), ("red", "a")).await;
    }
    let all = Selector::default();
    let from = From::Version(version_of(&first));
    let mut deaf = Stream::open(&noise, server, 7, from, &all).await.unwrap();
    let before = memory_kib(world.servers.pid(0));
    // Larger than what the kernel keeps for a connection, soon.
    let note = "x".repeat(6 << 10);
    let started = Instant::now();
    while metric(server, CLOSED).await == 0.0 {
        assert!(started.elapsed() < commonage_e2e::PATIENCE, "nobody closed the watch");
        let calls = (0..32).map(|name| {
            let path = noise.path(&format!("/loud-{name}"));
            let (noise, note) = (&noise, &note);
            async move {
                for _ in 0..16 {
                    let at = noise.now_us().to_string();
                    let body = json!({"metadata": {"annotations": {"note": note, "at": at}}});
                    let body = Some(("application/merge-patch+json", &body));
                    server.ask(Method::PATCH, &path, body).await.unwrap();
                }
            }
        });
        join_all(calls).await;
    }
    let after = memory_kib(world.servers.pid(0));
    eprintln!("closed after {:?}, {before} KiB became {after} KiB", started.elapsed());
    assert!(after < before + (400 << 10), "{before} KiB became {after} KiB");
    // Whoever begins to read gets what was on its way, then the end, and can go on from there.
    while deaf.next(&noise).await.is_some() {}
    let from = From::Version(deaf.position().unwrap());
    let mut again = Stream::open(&noise, server, 7, from, &all).await.unwrap();
    assert!(again.next(&noise).await.is_some());
    let (last, next) = (deaf.watch.events.last().unwrap(), &again.watch.events[0]);
    assert!(next.kind == Kind::Modified && next.version > last.version, "{next:?}");
    assert!(deaf.watch.events.is_sorted_by(|a, b| a.version < b.version));
    load.finish().await;
    world.recorder.verify("f39");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f40_very_many_watches_come_back_at_once() {
    let count: usize =
        std::env::var("CMN_FAULT_WATCHES").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let etcd = Etcd::start().unwrap();
    let mut world = World::start(1, &format!("etcd://{}", etcd.address())).await;
    let recorder = world.recorder.clone();
    let Answer::Object(made) = recorder.create(1, &world.clients[0], "a", ("red", "a")).await
    else {
        panic!("not created")
    };
    let mut position = version_of(&made);
    for restarted in [false, true] {
        if restarted {
            world.servers.kill(0);
            world.servers.up(0).unwrap();
            world.servers.ready(0).await.unwrap();
        }
        let server = world.clients[0].clone();
        let from = From::Version(position);
        let started = Instant::now();
        let watches = join_all((0..count).map(|client| watching(&recorder, &server, client, from)));
        let mut watches = watches.await;
        eprintln!("{count} watches after {:?}", started.elapsed());
        let Answer::Object(changed) = recorder.patch(1, &server, "a", None).await else {
            panic!("not changed")
        };
        position = version_of(&changed);
        let all = watches.iter_mut().map(|watch| async {
            while watch.position() != Some(position) {
                watch.next(&recorder).await.expect("the watch ended");
            }
        });
        tokio::time::timeout(commonage_e2e::PATIENCE, join_all(all)).await.expect("not all saw it");
        // All of them are one to etcd.
        let metrics = etcd_watchers(etcd.address());
        assert!(metrics <= 2.0, "{metrics} watches in etcd");
        watches.into_iter().for_each(|watch| recorder.add(Record::Watch(watch.watch)));
    }
    let status = ask(etcd.address(), "/v3/maintenance/status", &json!({})).unwrap();
    assert!(number(&status["header"]["revision"]) > 0);
}

/// A watch, whatever it takes: whoever is told to come again later does.
async fn watching(recorder: &Recorder, server: &Server, client: usize, from: From) -> Stream {
    let all = Selector::default();
    let client = u32::try_from(client).unwrap() + 1_000;
    commonage_e2e::soon("a watch", async || {
        Stream::open(recorder, server, client, from, &all).await
    })
    .await
}

async fn metric(server: &Server, name: &str) -> f64 {
    let (_, text) = server.ask(Method::GET, "/metrics", None).await.unwrap();
    value_of(text.as_str().unwrap_or_default(), name)
}

fn value_of(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn etcd_watchers(endpoint: &str) -> f64 {
    let text = commonage_e2e::faults::members::metrics(endpoint).unwrap();
    value_of(&text, "etcd_debugging_mvcc_watcher_total")
}

fn memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
