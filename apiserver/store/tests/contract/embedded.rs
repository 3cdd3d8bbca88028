//! What only the embedded engine can do wrong: its directory, its memory, its end.

use commonage_store::embedded::{EmbeddedOptions, EmbeddedStore};
use commonage_store::{Revision, Store, StoreError};
use futures::StreamExt;

use crate::words::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let open = || EmbeddedStore::open(dir.path(), EmbeddedOptions::default()).unwrap();
    let store = open();
    let first = must(&store, [put("/a", "1"), put("/b", "1")]).await;
    must(&store, [put("/a", "2")]).await;
    let last = must(&store, [delete("/b")]).await.revision;
    drop(store);

    let store = open();
    assert_eq!(store.revision().await.unwrap(), last);
    let then = store.get(b"/b", Some(first.revision)).await.unwrap().unwrap();
    assert_eq!((then.value, then.version), (bytes("1"), first.versions[1]));
    assert_eq!(value(&store, "/b").await, None);
    let tailed = batches_to(&mut store.tail(Revision(0)), last).await;
    assert_eq!(tailed.len(), 3);
    // Everything is compacted away, even the last record: the revision must not go back.
    store.compact(last).await.unwrap();
    drop(store);

    let store = open();
    assert_eq!(store.revision().await.unwrap(), last);
    let old = store.get(b"/a", Some(first.revision)).await;
    assert!(matches!(old, Err(StoreError::Compacted { .. })), "{old:?}");
    assert_eq!(value(&store, "/a").await, Some(bytes("2")));
    assert_eq!(must(&store, [put("/c", "")]).await.revision, Revision(last.0 + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_nobody_compacts_stays_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { superseded_max: 100, ..EmbeddedOptions::default() };
    let store = EmbeddedStore::open(dir.path(), options).unwrap();
    let first = must(&store, [put("/hot", "")]).await.revision;
    for round in 0..300 {
        must(&store, [put("/hot", round.to_string())]).await;
    }
    let then = store.get(b"/hot", Some(first)).await;
    assert!(matches!(then, Err(StoreError::Compacted { .. })), "{then:?}");
    assert_eq!(value(&store, "/hot").await, Some(bytes("299")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_ends_when_its_store_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), EmbeddedOptions::default()).unwrap();
    let mut tail = store.tail(Revision(0));
    must(&store, [put("/a", "")]).await;
    drop(store);
    assert_eq!(next(&mut tail).await.changes.len(), 1);
    let end = soon("the end", tail.next()).await.unwrap();
    assert!(matches!(end, Err(StoreError::Unavailable(_))), "{end:?}");
    assert!(tail.next().await.is_none());
    drop(tail);
    EmbeddedStore::open(dir.path(), EmbeddedOptions::default()).unwrap();
}

#[tokio::test]
async fn a_directory_that_is_not_ours_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let outcome = EmbeddedStore::open(&file, EmbeddedOptions::default());
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
}
