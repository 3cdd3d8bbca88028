//! A store that breaks off, forgets and does not know: over the real one.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use commonage_store::{
    Batch, Committed, Entry, GuardedWrite, Page, RangeQuery, Revision, StoreError,
};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::*;

/// Every tail breaks off after a few revisions; a commit may land without anybody knowing.
struct Shaky {
    store: MemoryStore,
    /// Revisions that a tail delivers before it breaks off.
    tail_length: usize,
    /// The next commit answers that its outcome is unknown: after it has landed, or instead.
    landed_unknown: AtomicBool,
    lost_unknown: AtomicBool,
    /// The next commit lands after its writer has looked for it and not found it.
    late_unknown: AtomicBool,
    late: Mutex<Option<GuardedWrite>>,
}

impl Shaky {
    fn new(tail_length: usize) -> Arc<Shaky> {
        Arc::new(Shaky {
            store: MemoryStore::new(),
            tail_length,
            landed_unknown: AtomicBool::new(false),
            lost_unknown: AtomicBool::new(false),
            late_unknown: AtomicBool::new(false),
            late: Mutex::default(),
        })
    }
}

#[async_trait]
impl Store for Shaky {
    async fn commit(&self, write: GuardedWrite) -> Result<Committed, StoreError> {
        let unknown = || StoreError::UnknownOutcome("the connection broke".to_owned());
        if self.lost_unknown.swap(false, Ordering::SeqCst) {
            return Err(unknown());
        }
        if self.late_unknown.swap(false, Ordering::SeqCst) {
            *self.late.lock().unwrap() = Some(write);
            return Err(unknown());
        }
        let committed = self.store.commit(write).await?;
        if self.landed_unknown.swap(false, Ordering::SeqCst) {
            return Err(unknown());
        }
        Ok(committed)
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        let late = self.late.lock().unwrap().take();
        if let Some(late) = late {
            self.store.commit(late).await?;
        }
        self.store.revision().await
    }

    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<Entry>, StoreError> {
        self.store.get(key, at).await
    }

    async fn range(&self, query: RangeQuery) -> Result<Page, StoreError> {
        self.store.range(query).await
    }

    fn tail(&self, after: Revision) -> BoxStream<'static, Result<Batch, StoreError>> {
        let broken = StoreError::Unavailable("the connection broke".to_owned());
        let end = futures::stream::once(async { Err(broken) });
        self.store.tail(after).take(self.tail_length).chain(end).boxed()
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.store.compact(revision).await
    }
}

#[tokio::test]
async fn a_tail_that_breaks_off_is_taken_up_where_it_was() {
    let world = World::over(Shaky::new(3)).await;
    let mut watch = world.watch("ConfigMap", watch_options()).await;
    for number in 0..10 {
        world.create(config_map(&format!("m{number}"), json!({}))).await.unwrap();
    }
    for number in 0..10 {
        assert_eq!(watch.short().await, format!("ADDED m{number}"));
    }
}

#[tokio::test]
async fn a_write_of_unknown_outcome_is_looked_up() {
    let store = Shaky::new(usize::MAX);
    let world = World::over(store.clone()).await;
    store.landed_unknown.store(true, Ordering::SeqCst);
    let created = world.create(config_map("a", json!({}))).await.unwrap().object.to_value();
    assert_eq!(world.get("ConfigMap", "a").await.unwrap(), created);
    store.landed_unknown.store(true, Ordering::SeqCst);
    let patched = world.merge("ConfigMap", "a", None, json!({"data": {"a": "2"}})).await.unwrap();
    assert_eq!(world.get("ConfigMap", "a").await.unwrap(), patched);
    store.lost_unknown.store(true, Ordering::SeqCst);
    let error = world.create(config_map("b", json!({}))).await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (504, "Timeout"));
    assert_eq!(world.get("ConfigMap", "b").await.unwrap_err().code, 404);
}

/// Whoever tried again would patch what his own patch had changed.
#[tokio::test]
async fn a_write_of_unknown_outcome_is_not_tried_again() {
    let store = Shaky::new(usize::MAX);
    let world = World::over(store.clone()).await;
    world.create(config_map("a", json!({}))).await.unwrap();
    let mut watch = world.watch("ConfigMap", watch_options()).await;
    assert_eq!(watch.short().await, "ADDED a");
    store.late_unknown.store(true, Ordering::SeqCst);
    let patch = json!({"metadata": {"labels": {"try": "1"}}});
    let error = world.merge("ConfigMap", "a", None, patch).await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (504, "Timeout"));
    // It lands now, once.
    assert_eq!(world.get("ConfigMap", "a").await.unwrap()["metadata"]["labels"]["try"], "1");
    world.create(config_map("b", json!({}))).await.unwrap();
    assert_eq!(watch.short().await, "MODIFIED a");
    assert_eq!(watch.short().await, "ADDED b");
}

#[tokio::test]
async fn every_watcher_sees_everything_in_one_order() {
    const WRITERS: usize = 8;
    const WRITES: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), EmbeddedOptions::default()).unwrap();
    let world = Arc::new(World::over(Arc::new(store)).await);
    let mut writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let world = world.clone();
            tokio::spawn(async move {
                let name = format!("w{writer}");
                world.create(config_map(&name, json!({}))).await.unwrap();
                for write in 0..WRITES - 1 {
                    let data = json!({"data": {"write": write.to_string()}});
                    world.merge("ConfigMap", &name, None, data).await.unwrap();
                }
            })
        })
        .collect();
    let mut orders = Vec::new();
    for number in 0..5 {
        if number == 2 {
            futures::future::join_all(writers.drain(..)).await.into_iter().for_each(Result::unwrap);
        }
        let options = WatchOptions { resource_version: Some(1 << 8), ..watch_options() };
        let mut watch = world.watch("ConfigMap", options).await;
        let mut order = Vec::new();
        while order.len() < WRITERS * WRITES {
            let (_, object) = watch.next().await.unwrap();
            order.push(version_of(&object));
        }
        assert!(order.is_sorted_by(|before, after| before < after));
        orders.push(order);
    }
    assert!(orders.iter().all(|order| *order == orders[0]));
}
