//! Without any fault: what several API servers tell over one store is one story.

use commonage_e2e::etcd::Etcd;
use commonage_e2e::faults::load_time;
use commonage_e2e::faults::members::{Members, Net};

use crate::world::World;

async fn tells_one_story(what: &str, servers: usize, store: &str) {
    let world = World::start(servers, store).await;
    let load = world.load().await;
    tokio::time::sleep(load_time()).await;
    load.finish().await;
    world.recorder.verify(what);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_over_the_embedded_store() {
    tells_one_story("embedded", 1, "embedded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_over_one_etcd() {
    let etcd = Etcd::start().unwrap();
    tells_one_story("one-etcd", 2, &format!("etcd://{}", etcd.address())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_over_three_members() {
    let members = Members::start(3, Net::Loopback).unwrap();
    tells_one_story("three-members", 2, &members.store()).await;
}
