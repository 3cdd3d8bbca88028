//! Writes of a term of office, and what becomes of them when it has ended.
#![allow(clippy::unwrap_used)]

use async_trait::async_trait;
use bytes::Bytes;
use commonage_store::{
    Batch, Committed, Compare, Entry, GuardedWrite, Op, Page, RangeQuery, Revision, StoreError,
};
use futures::stream::BoxStream;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;

use super::*;
use crate::engine::fence::{Fence, behind};

fn lease(holder: &str, transitions: i64) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "leader"},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": transitions}})
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

fn fence_of(lease: &Value, transitions: i64) -> Option<Arc<Fence>> {
    let uid = lease["metadata"]["uid"].as_str().unwrap();
    let text = format!("default/leader/{uid}/{transitions}");
    let headers = HeaderMap::from_iter([(
        http::HeaderName::from_static("commonage-fence"),
        HeaderValue::from_str(&text).unwrap(),
    )]);
    Fence::of(&headers).unwrap()
}

#[tokio::test]
async fn a_write_lands_in_its_term_and_not_after() {
    let world = World::new().await;
    let made = world.create(lease("a", 3)).await.unwrap().object.to_value();
    let ours = fence_of(&made, 3);
    behind(ours.clone(), world.create(map("first"))).await.unwrap();
    world
        .merge("Lease", "leader", None, json!({"spec": {"leaseDurationSeconds": 16}}))
        .await
        .unwrap();
    behind(ours.clone(), world.create(map("renewed"))).await.unwrap();

    let next = json!({"spec": {"holderIdentity": "b", "leaseTransitions": 4}});
    world.merge("Lease", "leader", None, next).await.unwrap();
    let patch = json!({"data": {"a": "2"}});
    let (create, merge, delete) = (
        behind(ours.clone(), world.create(map("late"))).await.err(),
        behind(ours.clone(), world.merge("ConfigMap", "first", None, patch)).await.err(),
        behind(ours.clone(), world.delete("ConfigMap", "first")).await.err(),
    );
    for refused in [create, merge, delete] {
        let refused = refused.unwrap();
        assert_eq!((refused.code, &*refused.reason), (409, "Fenced"), "{refused}");
        assert!(refused.message.contains("\"b\" leads now, in term 4"), "{refused}");
    }
    assert_eq!(world.get("ConfigMap", "late").await.unwrap_err().code, 404);
    assert_eq!(world.get("ConfigMap", "first").await.unwrap()["data"]["a"], "1");
    behind(fence_of(&made, 4), world.create(map("late"))).await.unwrap();

    // Another Lease of the same name is not the one that was held.
    world.delete("Lease", "leader").await.unwrap();
    let gone = behind(ours.clone(), world.create(map("later"))).await.unwrap_err();
    assert_eq!(gone.reason, "Fenced");
    world.create(lease("b", 3)).await.unwrap();
    let other = behind(ours, world.create(map("later"))).await.unwrap_err();
    assert_eq!(other.reason, "Fenced");
}

/// Another one takes over when a fenced write is already on its way to the log.
struct Coup {
    store: MemoryStore,
    /// The Lease's key, and what it becomes.
    next: Mutex<Option<(Bytes, Bytes)>>,
}

#[async_trait]
impl Store for Coup {
    async fn commit(&self, write: GuardedWrite) -> Result<Committed, StoreError> {
        let fenced = |key: &Bytes| {
            write.compares.iter().any(|c| matches!(c, Compare::At { key: k, .. } if k == key))
        };
        let next = self.next.lock().take_if(|(key, _)| fenced(key));
        if let Some((key, value)) = next {
            let ops = vec![Op::Put { key, value }];
            self.store.commit(GuardedWrite { compares: vec![], ops }).await?;
        }
        self.store.commit(write).await
    }
    async fn revision(&self) -> Result<Revision, StoreError> {
        self.store.revision().await
    }
    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<Entry>, StoreError> {
        self.store.get(key, at).await
    }
    async fn range(&self, query: RangeQuery) -> Result<Page, StoreError> {
        self.store.range(query).await
    }
    fn tail(&self, after: Revision) -> BoxStream<'static, Result<Batch, StoreError>> {
        self.store.tail(after)
    }
    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.store.compact(revision).await
    }
}

#[tokio::test]
async fn a_write_on_its_way_when_the_term_ends_does_not_land() {
    let store = Arc::new(Coup { store: MemoryStore::new(), next: Mutex::new(None) });
    let world = World::over(store.clone()).await;
    let made = world.create(lease("a", 0)).await.unwrap().object.to_value();
    let key: Bytes = world.def("Lease").key("default", "leader").into();
    let stored = store.get(&key, None).await.unwrap().unwrap().value;
    let stored = String::from_utf8(stored.to_vec()).unwrap();

    let renewed = stored.replace("\"leaseDurationSeconds\":15", "\"leaseDurationSeconds\":16");
    assert_ne!(renewed, stored);
    *store.next.lock() = Some((key.clone(), renewed.into()));
    behind(fence_of(&made, 0), world.create(map("renewed-meanwhile"))).await.unwrap();
    assert!(store.next.lock().is_none());

    let taken = stored.replace("\"leaseTransitions\":0", "\"leaseTransitions\":1");
    assert_ne!(taken, stored);
    *store.next.lock() = Some((key, taken.into()));
    let late = behind(fence_of(&made, 0), world.create(map("late"))).await.unwrap_err();
    assert_eq!((late.code, &*late.reason), (409, "Fenced"));
    assert_eq!(world.get("ConfigMap", "late").await.unwrap_err().code, 404);
}
