//! The words in which the tests speak: short ways to say a write, a read, a deadline.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use commonage_store::{
    Batch, Change, Committed, Compare, Entry, GuardedWrite, Op, Page, RangeQuery, Revision, Store,
    StoreError, Version,
};
use futures::StreamExt;
use futures::stream::BoxStream;

pub(crate) type Tail = BoxStream<'static, Result<Batch, StoreError>>;

pub(crate) fn bytes(text: impl AsRef<str>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref().as_bytes())
}

pub(crate) fn put(key: impl AsRef<str>, value: impl AsRef<str>) -> Op {
    Op::Put { key: bytes(key), value: bytes(value) }
}

pub(crate) fn delete(key: impl AsRef<str>) -> Op {
    Op::Delete { key: bytes(key) }
}

pub(crate) fn absent(key: impl AsRef<str>) -> Compare {
    Compare::Absent { key: bytes(key) }
}

pub(crate) fn present(key: impl AsRef<str>) -> Compare {
    Compare::Present { key: bytes(key) }
}

pub(crate) fn at(key: impl AsRef<str>, version: Version) -> Compare {
    Compare::At { key: bytes(key), version }
}

pub(crate) fn write(compares: impl Into<Vec<Compare>>, ops: impl Into<Vec<Op>>) -> GuardedWrite {
    GuardedWrite { compares: compares.into(), ops: ops.into() }
}

/// Writes without a guard, which must succeed.
pub(crate) async fn must(store: &dyn Store, ops: impl Into<Vec<Op>>) -> Committed {
    store.commit(write([], ops)).await.unwrap()
}

pub(crate) async fn value(store: &dyn Store, key: &str) -> Option<Bytes> {
    store.get(key.as_bytes(), None).await.unwrap().map(|entry| entry.value)
}

pub(crate) fn all(prefix: &str) -> RangeQuery {
    RangeQuery { prefix: bytes(prefix), after: None, at: None, limit: 0 }
}

pub(crate) async fn entries(store: &dyn Store, query: RangeQuery) -> Vec<Entry> {
    store.range(query).await.unwrap().entries
}

/// Reads page by page at one revision; checks that no page is over its limit.
pub(crate) async fn in_pages(store: &dyn Store, prefix: &str, limit: usize) -> Vec<Page> {
    let mut query = RangeQuery { limit, ..all(prefix) };
    let mut pages = Vec::new();
    loop {
        let page = store.range(query.clone()).await.unwrap();
        assert!(page.entries.len() <= limit);
        query.at = Some(page.revision);
        query.after = page.entries.last().map(|entry| entry.key.clone());
        let more = page.more;
        pages.push(page);
        if !more {
            return pages;
        }
    }
}

/// The answer of something that must come about soon.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let deadline = Duration::from_secs(30);
    match tokio::time::timeout(deadline, future).await {
        Ok(answer) => answer,
        Err(_) => panic!("{what} did not come about within {deadline:?}"),
    }
}

/// The next batch with something in it.
pub(crate) async fn next(tail: &mut Tail) -> Batch {
    loop {
        let batch = soon("the next batch", tail.next()).await.unwrap().unwrap();
        if !batch.changes.is_empty() {
            return batch;
        }
    }
}

/// The batches up to and with the one of `last`.
pub(crate) async fn batches_to(tail: &mut Tail, last: Revision) -> Vec<Batch> {
    let mut batches = Vec::new();
    loop {
        let batch = next(tail).await;
        assert!(batch.revision <= last, "{:?} skipped {last:?}", batch.revision);
        let done = batch.revision == last;
        batches.push(batch);
        if done {
            return batches;
        }
    }
}

pub(crate) fn changes(batches: &[Batch]) -> Vec<Change> {
    batches.iter().flat_map(|batch| batch.changes.clone()).collect()
}
