//! A store that notes how long its answers take, by operation and kind of object.
//!
//! It changes nothing of what it passes on. Following the log and compaction are not timed: the one
//! never ends, and nobody waits for the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use commonage_store::{
    Batch, Committed, Compare, Entry, GuardedWrite, Op, Page, RangeQuery, Revision, Store,
    StoreError,
};
use futures::stream::BoxStream;
use parking_lot::RwLock;

use crate::histogram::{Counted, DURATIONS, Histogram};

#[derive(Clone, Copy)]
enum Operation {
    Get,
    List,
    Create,
    Update,
    Delete,
    Revision,
}

impl Operation {
    /// By their numbers; kube-apiserver's names, as far as it has them.
    const NAMES: [&'static str; 6] = ["get", "list", "create", "update", "delete", "revision"];
}

type Kind = [Histogram; Operation::NAMES.len()];

pub(crate) struct TimedStore {
    inner: Arc<dyn Store>,
    /// By what a key begins with: `/commonage.dev/tasks`. As many as there are kinds.
    kinds: RwLock<HashMap<Box<str>, Arc<Kind>>>,
}

impl TimedStore {
    pub(crate) fn new(inner: Arc<dyn Store>) -> TimedStore {
        TimedStore { inner, kinds: RwLock::default() }
    }

    fn kind(&self, key: &[u8]) -> Arc<Kind> {
        let start = kind_of(key);
        if let Some(found) = self.kinds.read().get(start) {
            return found.clone();
        }
        let mut kinds = self.kinds.write();
        let made = || Arc::new(std::array::from_fn(|_| Histogram::new(&DURATIONS)));
        kinds.entry(start.into()).or_insert_with(made).clone()
    }

    async fn timed<T>(
        &self,
        operation: Operation,
        key: &[u8],
        answer: impl Future<Output = T>,
    ) -> T {
        let started = Instant::now();
        let answer = answer.await;
        let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.kind(key)[operation as usize].observe(took_us);
        answer
    }

    /// Operation, resource as in `tasks.commonage.dev`, and times in microseconds, of all that
    /// were asked for.
    pub(crate) fn times(&self) -> Vec<(&'static str, String, Counted)> {
        let kinds: Vec<(String, Arc<Kind>)> = {
            let kinds = self.kinds.read();
            kinds.iter().map(|(start, kind)| (resource(start), kind.clone())).collect()
        };
        let mut times = Vec::new();
        for (resource, kind) in kinds {
            for (name, histogram) in Operation::NAMES.iter().zip(kind.iter()) {
                let counted = histogram.counted();
                if counted.total() > 0 {
                    times.push((*name, resource.clone(), counted));
                }
            }
        }
        times
    }
}

/// `/commonage.dev/tasks` of `/commonage.dev/tasks/default/web`; empty if the key is of no kind.
pub(crate) fn kind_of(key: &[u8]) -> &str {
    let mut slashes = key.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let end = slashes.nth(2).map_or(0, |(at, _)| at);
    std::str::from_utf8(&key[..end]).unwrap_or_default()
}

pub(crate) fn resource(start: &str) -> String {
    match start.trim_start_matches('/').split_once('/') {
        None => String::new(),
        Some(("core", plural)) => plural.to_owned(),
        Some((group, plural)) => format!("{plural}.{group}"),
    }
}

/// What a write is, told by what comes first in it.
fn operation(write: &GuardedWrite) -> (Operation, bytes::Bytes) {
    match write.ops.first() {
        None => (Operation::Get, bytes::Bytes::new()),
        Some(Op::Delete { key }) => (Operation::Delete, key.clone()),
        Some(Op::Put { key, .. } | Op::PutFor { key, .. }) => {
            let absent =
                |compare: &Compare| matches!(compare, Compare::Absent { key: of } if of == key);
            let creates = write.compares.iter().any(absent);
            (if creates { Operation::Create } else { Operation::Update }, key.clone())
        }
    }
}

#[async_trait]
impl Store for TimedStore {
    async fn commit(&self, write: GuardedWrite) -> Result<Committed, StoreError> {
        let (operation, key) = operation(&write);
        self.timed(operation, &key, self.inner.commit(write)).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.timed(Operation::Revision, b"", self.inner.revision()).await
    }

    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<Entry>, StoreError> {
        self.timed(Operation::Get, key, self.inner.get(key, at)).await
    }

    async fn range(&self, query: RangeQuery) -> Result<Page, StoreError> {
        let prefix = query.prefix.clone();
        self.timed(Operation::List, &prefix, self.inner.range(query)).await
    }

    fn tail(&self, after: Revision) -> BoxStream<'static, Result<Batch, StoreError>> {
        self.inner.tail(after)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use commonage_store::memory::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn answers_are_timed_by_operation_and_resource() {
        let store = TimedStore::new(Arc::new(MemoryStore::new()));
        let key = Bytes::from_static(b"/commonage.dev/tasks/default/web");
        let put = Op::Put { key: key.clone(), value: Bytes::from_static(b"{}") };
        let absent = vec![Compare::Absent { key: key.clone() }];
        store.commit(GuardedWrite { compares: absent, ops: vec![put.clone()] }).await.unwrap();
        store.commit(GuardedWrite { compares: vec![], ops: vec![put] }).await.unwrap();
        let delete = Op::Delete { key: key.clone() };
        store.commit(GuardedWrite { compares: vec![], ops: vec![delete] }).await.unwrap();
        store.get(b"/core/secrets/default/s", None).await.unwrap();
        let prefix = Bytes::from_static(b"/core/secrets/");
        let query = RangeQuery { prefix, after: None, at: None, limit: 0 };
        store.range(query).await.unwrap();
        store.revision().await.unwrap();
        let mut times: Vec<(&str, String, u64)> = store
            .times()
            .into_iter()
            .map(|(operation, resource, counted)| (operation, resource, counted.total()))
            .collect();
        times.sort();
        let tasks = || "tasks.commonage.dev".to_owned();
        assert_eq!(
            times,
            [
                ("create", tasks(), 1),
                ("delete", tasks(), 1),
                ("get", "secrets".to_owned(), 1),
                ("list", "secrets".to_owned(), 1),
                ("revision", String::new(), 1),
                ("update", tasks(), 1),
            ]
        );
    }
}
