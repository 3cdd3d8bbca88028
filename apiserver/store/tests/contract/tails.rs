//! Tails: every change once, in order, from wherever one starts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use commonage_store::{NO_CHANGE_INDEX, Op, Revision, Store, StoreError, Version};
use futures::StreamExt;
use futures::future::join_all;

use crate::engine::for_every_engine;
use crate::words::*;

for_every_engine!(
    a_tail_shows_what_was_committed,
    nothing_is_missed_or_repeated_while_writers_run,
    a_tail_resumes_at_any_revision,
    a_large_write_is_one_batch,
    huge_changes_arrive,
    a_tail_from_the_future_is_refused,
    reads_and_tails_agree_on_versions,
);

async fn a_tail_shows_what_was_committed(store: Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    let mut tail = store.tail(start);
    let made = must(&*store, [put("/b", "1"), put("/a", "1")]).await;
    let batch = next(&mut tail).await;
    assert_eq!(batch.revision, made.revision);
    let seen: Vec<_> =
        batch.changes.iter().map(|c| (c.key.clone(), c.value.clone(), c.version)).collect();
    assert_eq!(
        seen,
        [
            (bytes("/b"), Some(bytes("1")), made.versions[0]),
            (bytes("/a"), Some(bytes("1")), made.versions[1]),
        ],
        "changes come in the order of the operations, not of the keys"
    );
    must(&*store, [delete("/never")]).await;
    let gone = must(&*store, [put("/c", ""), delete("/never"), delete("/a"), put("/d", "")]).await;
    let batch = next(&mut tail).await;
    let seen: Vec<_> = batch.changes.iter().map(|c| (c.version, c.value.is_some())).collect();
    let versions = &gone.versions;
    assert_eq!(seen, [(versions[0], true), (versions[2], false), (versions[3], true)]);
    // A tail that waits wakes up.
    let (batch, late) = futures::join!(next(&mut tail), must(&*store, [put("/e", "1")]));
    assert_eq!(batch.revision, late.revision);
}

/// What writers were told about the versions of their changes.
#[derive(Default)]
struct Told {
    puts: BTreeMap<Version, Bytes>,
    deletes: BTreeSet<(Version, Bytes)>,
}

/// Many writers at once, over few keys, with deletes and conflicts.
async fn commotion(store: &Arc<dyn Store>) -> Told {
    let writers = (0..10_u64).map(|writer| tokio::spawn(one_of_many(store.clone(), writer)));
    let mut told = Told::default();
    for writer in soon("all writers", join_all(writers)).await {
        for (op, version) in writer.unwrap() {
            match op {
                Op::Put { key, .. } | Op::PutFor { key, .. } => {
                    assert_eq!(told.puts.insert(version, key), None, "one version given twice");
                }
                Op::Delete { .. } if version.index() == NO_CHANGE_INDEX => {}
                Op::Delete { key } => {
                    told.deletes.insert((version, key));
                }
            }
        }
    }
    told
}

async fn one_of_many(store: Arc<dyn Store>, writer: u64) -> Vec<(Op, Version)> {
    let mut landed = Vec::new();
    for round in 0..40_u64 {
        let shared = format!("/shared/{}", (writer + round) % 7);
        let own = format!("/own/{writer}/{}", round % 5);
        let second = if round % 3 == 2 { delete(&own) } else { put(&own, "x") };
        let first = if round % 11 == 5 { delete(&shared) } else { put(&shared, "y") };
        let compares = if round % 4 == 0 { vec![absent(&shared)] } else { vec![] };
        let ops = vec![first, second];
        match store.commit(write(compares, ops.clone())).await {
            Ok(committed) => landed.extend(ops.into_iter().zip(committed.versions)),
            Err(StoreError::Conflict { compare: 0 }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    landed
}

async fn nothing_is_missed_or_repeated_while_writers_run(store: Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    let mut early = store.tail(start);
    let told = commotion(&store).await;
    let newest = store.revision().await.unwrap();
    let early = changes(&batches_to(&mut early, newest).await);
    let late = changes(&batches_to(&mut store.tail(start), newest).await);
    assert_eq!(early, late, "what a tail shows does not depend on when it runs");
    assert!(early.is_sorted_by(|a, b| a.version < b.version));
    let puts = early.iter().filter(|change| change.value.is_some());
    let puts: BTreeMap<_, _> = puts.map(|change| (change.version, change.key.clone())).collect();
    assert_eq!(puts, told.puts, "the tail and the answers number changes alike");
    let deletes = early.iter().filter(|change| change.value.is_none());
    let deletes: BTreeSet<_> = deletes.map(|change| (change.version, change.key.clone())).collect();
    assert_eq!(deletes, told.deletes);
    let mut replayed = BTreeMap::new();
    for change in early {
        match change.value {
            Some(value) => replayed.insert(change.key, (value, change.version)),
            None => replayed.remove(&change.key),
        };
    }
    let now = entries(&*store, all("/")).await;
    let now: BTreeMap<_, _> = now.into_iter().map(|e| (e.key, (e.value, e.version))).collect();
    assert_eq!(replayed, now);
}

async fn a_tail_resumes_at_any_revision(store: Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    commotion(&store).await;
    let newest = store.revision().await.unwrap();
    let whole = batches_to(&mut store.tail(start), newest).await;
    assert!(whole.is_sorted_by(|a, b| a.revision < b.revision));
    let steps = whole.len().div_ceil(25).max(1);
    for split in (0..whole.len() - 1).step_by(steps) {
        let rest = batches_to(&mut store.tail(whole[split].revision), newest).await;
        assert_eq!(rest, whole[split + 1..], "resumed after {:?}", whole[split].revision);
    }
}

async fn a_large_write_is_one_batch(store: Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    let mut live = store.tail(start);
    let large = "v".repeat(10_000);
    for _ in 0..3 {
        let ops: Vec<_> = (0..128).map(|number| put(format!("/{number}"), &large)).collect();
        let made = must(&*store, ops).await;
        let batch = next(&mut live).await;
        assert_eq!((batch.revision, batch.changes.len()), (made.revision, 128));
        let again = next(&mut store.tail(Revision(made.revision.0 - 1))).await;
        assert_eq!(batch, again);
    }
}

async fn huge_changes_arrive(store: Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    let huge = "h".repeat(1_000_000);
    let mut newest = start;
    for number in 0..10 {
        newest = must(&*store, [put(format!("/{number}"), &huge)]).await.revision;
    }
    let batches = batches_to(&mut store.tail(start), newest).await;
    assert_eq!(batches.len(), 10);
    assert!(changes(&batches).iter().all(|c| c.value.as_ref().unwrap().len() == huge.len()));
}

async fn a_tail_from_the_future_is_refused(store: Arc<dyn Store>) {
    let newest = store.revision().await.unwrap();
    let mut tail = store.tail(Revision(newest.0 + 10));
    let first = soon("an answer", tail.next()).await.unwrap();
    assert!(matches!(first, Err(StoreError::Unavailable(_))), "{first:?}");
    assert!(soon("the end", tail.next()).await.is_none());
}

async fn reads_and_tails_agree_on_versions(store: Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    // Many single writes at once: in etcd they share revisions.
    let writes = (0..150).map(|n| store.commit(write([], [put(format!("/v/{n:03}"), "")])));
    let written: Vec<_> = join_all(writes).await.into_iter().map(|w| w.unwrap()).collect();
    let newest = store.revision().await.unwrap();
    let tailed = changes(&batches_to(&mut store.tail(start), newest).await);
    let tailed: BTreeMap<_, _> = tailed.into_iter().map(|c| (c.key, c.version)).collect();
    for (entry, committed) in entries(&*store, all("/v/")).await.iter().zip(&written) {
        assert_eq!(entry.version, committed.versions[0]);
        assert_eq!(entry.version, tailed[&entry.key]);
        let alone = store.get(&entry.key, None).await.unwrap().unwrap();
        assert_eq!(alone.version, entry.version);
    }
}
