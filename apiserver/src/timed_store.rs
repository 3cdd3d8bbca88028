//! A store that notes how long its answers take, by operation and kind of object, and whether the last
//! one came at all.
//!
//! It changes nothing of what it passes on. Following the log and compaction are not timed: the one
//! never ends, and nobody waits for the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
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

/// By operation.
type Kind = [Answers; Operation::NAMES.len()];

struct Answers {
    times: Histogram,
    failed: AtomicU64,
}

/// What was asked of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) operation: &'static str,
    /// As in `tasks.commonage.dev`.
    pub(crate) resource: String,
    /// In microseconds.
    pub(crate) times: Counted,
    /// Answers that were failures of the store; that a write came too late is none.
    pub(crate) failed: u64,
}

pub(crate) struct TimedStore {
    inner: Arc<dyn Store>,
    /// By what a key begins with: `/commonage.dev/tasks`. As many as there are kinds.
    kinds: RwLock<HashMap<Box<str>, Arc<Kind>>>,
    /// It did not answer when it was last asked.
    away: AtomicBool,
}

impl TimedStore {
    pub(crate) fn new(inner: Arc<dyn Store>) -> TimedStore {
        TimedStore { inner, kinds: RwLock::default(), away: AtomicBool::new(false) }
    }

    /// Whether the store did not answer when it was last asked, which is often: leaders and agents
    /// renew their Leases every few seconds.
    pub(crate) fn is_away(&self) -> bool {
        self.away.load(Relaxed)
    }

    fn kind(&self, key: &[u8]) -> Arc<Kind> {
        let start = kind_of(key);
        if let Some(found) = self.kinds.read().get(start) {
            return found.clone();
        }
        let mut kinds = self.kinds.write();
        let none = || Answers { times: Histogram::new(&DURATIONS), failed: AtomicU64::new(0) };
        let made = || Arc::new(std::array::from_fn(|_| none()));
        kinds.entry(start.into()).or_insert_with(made).clone()
    }

    async fn timed<T>(
        &self,
        operation: Operation,
        key: &[u8],
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let answer = answer.await;
        let away =
            matches!(answer, Err(StoreError::Unavailable(_) | StoreError::UnknownOutcome(_)));
        if away != self.is_away() {
            self.away.store(away, Relaxed);
        }
        let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let kind = self.kind(key);
        let answers = &kind[operation as usize];
        answers.times.observe(took_us);
        let failed = |error: &StoreError| {
            !matches!(error, StoreError::Conflict { .. } | StoreError::Compacted { .. })
        };
        if answer.as_ref().is_err_and(failed) {
            answers.failed.fetch_add(1, Relaxed);
        }
        answer
    }

    /// Everything that was asked for.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let kinds: Vec<(String, Arc<Kind>)> = {
            let kinds = self.kinds.read();
            kinds.iter().map(|(start, kind)| (resource(start), kind.clone())).collect()
        };
        let mut asked = Vec::new();
        for (resource, kind) in kinds {
            for (operation, answers) in Operation::NAMES.iter().zip(kind.iter()) {
                let (times, failed) = (answers.times.counted(), answers.failed.load(Relaxed));
                if times.total() > 0 {
                    asked.push(Asked { operation, resource: resource.clone(), times, failed });
                }
            }
        }
        asked
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

    fn landed(&self) -> Revision {
        self.inner.landed()
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
        let late = vec![Compare::Present { key: key.clone() }];
        let delete = Op::Delete { key: key.clone() };
        store.commit(GuardedWrite { compares: late, ops: vec![delete] }).await.unwrap_err();
        let asked = store.asked();
        assert!(asked.iter().all(|asked| asked.failed == 0), "{asked:?}");
        let mut times: Vec<(&str, String, u64)> = asked
            .into_iter()
            .map(|asked| (asked.operation, asked.resource, asked.times.total()))
            .collect();
        times.sort();
        let tasks = || "tasks.commonage.dev".to_owned();
        assert!(!store.is_away());
        assert_eq!(
            times,
            [
                ("create", tasks(), 1),
                ("delete", tasks(), 2),
                ("get", "secrets".to_owned(), 1),
                ("list", "secrets".to_owned(), 1),
                ("revision", String::new(), 1),
                ("update", tasks(), 1),
            ]
        );
    }

    #[tokio::test]
    async fn a_store_is_away_until_it_answers_again() {
        let store = TimedStore::new(Arc::new(MemoryStore::new()));
        let ask = async |answer| {
            let _ = store.timed(Operation::Revision, b"", std::future::ready(answer)).await;
            store.is_away()
        };
        assert!(!ask(Ok(())).await);
        assert!(ask(Err(StoreError::Unavailable("on purpose".into()))).await);
        assert!(!ask(Err(StoreError::Conflict { compare: 0 })).await, "it says no, but it says it");
        assert!(ask(Err(StoreError::UnknownOutcome("on purpose".into()))).await);
        assert!(!ask(Ok(())).await);
    }
}
