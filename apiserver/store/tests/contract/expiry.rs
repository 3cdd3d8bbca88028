//! Keys that go by themselves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use commonage_store::embedded::{EmbeddedOptions, EmbeddedStore};
use commonage_store::{CHANGES_PER_REVISION_MAX, Op, Store};

use crate::engine::for_every_engine;
use crate::words::*;

for_every_engine!(
    a_key_goes_when_its_time_is_over_and_not_before,
    writing_a_key_again_begins_anew,
    many_keys_go_in_order,
);

fn put_for(key: impl AsRef<str>, ttl: Duration) -> Op {
    Op::PutFor { key: bytes(key.as_ref()), value: bytes("v"), ttl }
}

async fn gone(store: &dyn Store, key: &str) {
    soon("the key to go", async {
        while value(store, key).await.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn a_key_goes_when_its_time_is_over_and_not_before(store: Arc<dyn Store>) {
    const TTL: Duration = Duration::from_secs(1);
    let start = store.revision().await.unwrap();
    let began = Instant::now();
    let written = must(&*store, [put_for("/e", TTL), put("/stays", "")]).await;
    assert_eq!(value(&*store, "/e").await, Some(bytes("v")));
    gone(&*store, "/e").await;
    assert!(began.elapsed() >= TTL, "it went after {:?}", began.elapsed());
    assert!(value(&*store, "/stays").await.is_some());
    let newest = store.revision().await.unwrap();
    let tailed = changes(&batches_to(&mut store.tail(start), newest).await);
    let about: Vec<_> = tailed.iter().filter(|change| change.key == bytes("/e")).collect();
    assert_eq!(about.len(), 2);
    assert_eq!((&about[0].value, about[0].version), (&Some(bytes("v")), written.versions[0]));
    assert_eq!(about[1].value, None);
    // The name is free again.
    store.commit(write([absent("/e")], [put("/e", "2")])).await.unwrap();
}

async fn writing_a_key_again_begins_anew(store: Arc<dyn Store>) {
    let short = Duration::from_millis(500);
    for key in ["/kept", "/longer", "/again", "/last"] {
        must(&*store, [put_for(key, short)]).await;
    }
    must(&*store, [put("/kept", "for ever")]).await;
    must(&*store, [put_for("/longer", Duration::from_secs(3_600))]).await;
    must(&*store, [delete("/again")]).await;
    must(&*store, [put("/again", "for ever")]).await;
    must(&*store, [put_for("/last", short * 3)]).await;
    gone(&*store, "/last").await;
    for key in ["/kept", "/longer", "/again"] {
        assert!(value(&*store, key).await.is_some(), "{key}");
    }
}

async fn many_keys_go_in_order(store: Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    let keys: Vec<String> = (0..600).map(|number| format!("/many/{number}")).collect();
    futures::future::join_all(keys.iter().map(|key| {
        let store = store.clone();
        async move { must(&*store, [put_for(key, Duration::from_secs(1))]).await }
    }))
    .await;
    soon("all to go", async {
        while !entries(&*store, all("/many/")).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let newest = store.revision().await.unwrap();
    let batches = batches_to(&mut store.tail(start), newest).await;
    assert!(batches.iter().all(|batch| (batch.changes.len() as u64) < CHANGES_PER_REVISION_MAX));
    let tailed = changes(&batches);
    assert!(tailed.is_sorted_by(|a, b| a.version < b.version));
    assert_eq!(tailed.iter().filter(|change| change.value.is_none()).count(), keys.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_though_the_store_was_closed_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let open = || EmbeddedStore::open(dir.path(), EmbeddedOptions::default()).unwrap();
    let store = open();
    must(
        &store,
        [put_for("/e", Duration::from_millis(50)), put_for("/late", Duration::from_secs(3_600))],
    )
    .await;
    drop(store);
    let store = open();
    gone(&store, "/e").await;
    assert!(value(&store, "/late").await.is_some());
}
