//! How long things are kept: events, and the past.
#![allow(clippy::unwrap_used)]

use commonage_store::{Revision, StoreError};

use super::*;
use crate::engine::Settings;
use crate::engine::compaction::Noted;

fn event(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name},
        "involvedObject": {"kind": "Task", "namespace": "default", "name": "t"}, "reason": "Tested"})
}

#[tokio::test]
async fn events_go_when_nobody_writes_about_them_any_more() {
    let shutdown = CancellationToken::new();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let settings = Settings { event_ttl: Duration::from_secs(1), ..Settings::default() };
    let scheme = Arc::new(crate::builtin::scheme().unwrap());
    let engine =
        Engine::start_with(store.clone(), scheme, settings, shutdown.clone()).await.unwrap();
    let world = World { engine, store, shutdown };
    world.create(config_map("stays", json!({}))).await.unwrap();
    world.create(event("once")).await.unwrap();
    let mut watch = world.watch("Event", watch_options()).await;
    assert_eq!(watch.short().await, "ADDED once");
    assert_eq!(watch.short().await, "DELETED once");
    assert_eq!(world.get("Event", "once").await.unwrap_err().code, 404);
    assert!(world.get("ConfigMap", "stays").await.is_ok());
}

#[tokio::test]
async fn of_several_servers_one_compacts_and_only_what_is_an_interval_old() {
    let store = Arc::new(MemoryStore::new());
    let (one, other) = (World::over(store.clone()).await, World::over(store.clone()).await);
    let (mut of_one, mut of_other) = (Noted::default(), Noted::default());
    one.create(config_map("a", json!({}))).await.unwrap();
    let first = store.revision().await.unwrap();
    one.engine.compact_once(&mut of_one).await.unwrap();
    other.engine.compact_once(&mut of_other).await.unwrap();
    let at = |revision: Revision| store.get(b"/x", Some(revision));
    assert!(at(Revision(first.0 - 1)).await.is_ok(), "nothing is old yet");
    one.create(config_map("b", json!({}))).await.unwrap();
    let second = store.revision().await.unwrap();
    // The one that is first in the next interval does it, the other one has nothing to do.
    other.engine.cache.reached(second).await;
    other.engine.compact_once(&mut of_other).await.unwrap();
    assert!(matches!(at(Revision(first.0 - 1)).await, Err(StoreError::Compacted { .. })));
    assert!(at(first).await.is_ok() && at(second).await.is_ok());
    one.engine.compact_once(&mut of_one).await.unwrap();
    assert!(at(first).await.is_ok(), "once in an interval");
}
