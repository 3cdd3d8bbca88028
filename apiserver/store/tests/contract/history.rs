//! Serializability: the log explains every answer that was given.
//!
//! Writers work at once on few keys with all kinds of guards. Then the log is replayed, and every
//! write that landed must have had its compares hold at its place in the log, and its changes lie
//! there side by side; what was answered before another write began must come before it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use commonage_store::{
    Committed, Compare, GuardedWrite, NO_CHANGE_INDEX, Op, Store, StoreError, Version,
};
use futures::future::join_all;

use crate::engine::for_every_engine;
use crate::words::*;

for_every_engine!(the_log_explains_every_answer);

struct Landed {
    write: GuardedWrite,
    committed: Committed,
    /// Ticks of one clock for all writers.
    began: u64,
    ended: u64,
}

async fn writer(store: Arc<dyn Store>, clock: Arc<AtomicU64>, seed: u64) -> Vec<Landed> {
    let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut roll = |sides: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice % sides
    };
    let mut known: HashMap<String, Version> = HashMap::new();
    let mut landed = Vec::new();
    for round in 0..60 {
        let mut compares = Vec::new();
        let mut ops: Vec<Op> = Vec::new();
        for key in (0..5).map(|key| format!("/k{key}")) {
            match (roll(8), known.get(&key)) {
                (0, Some(version)) => compares.push(at(&key, *version)),
                (1, _) => compares.push(present(&key)),
                (2, _) if roll(3) == 0 => compares.push(absent(&key)),
                _ => {}
            }
            match roll(6) {
                0 | 1 => ops.push(put(&key, format!("{seed}/{round}"))),
                2 => ops.push(delete(&key)),
                _ => {}
            }
        }
        let write = write(compares, ops);
        let began = clock.fetch_add(1, Ordering::SeqCst);
        let outcome = store.commit(write.clone()).await;
        let ended = clock.fetch_add(1, Ordering::SeqCst);
        match outcome {
            Ok(committed) => landed.push(Landed { write, committed, began, ended }),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        for key in (0..5).map(|key| format!("/k{key}")) {
            let entry = store.get(key.as_bytes(), None).await.unwrap();
            entry.map(|entry| known.insert(key, entry.version));
        }
    }
    landed
}

async fn the_log_explains_every_answer(store: Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    let clock = Arc::new(AtomicU64::new(0));
    let writers = (1..=12).map(|seed| tokio::spawn(writer(store.clone(), clock.clone(), seed)));
    let mut landed: Vec<Landed> = Vec::new();
    for writer in soon("all writers", join_all(writers)).await {
        landed.extend(writer.unwrap());
    }
    let newest = store.revision().await.unwrap();
    let log = changes(&batches_to(&mut store.tail(start), newest).await);
    assert!(landed.len() > 100, "too few writes landed to prove anything: {}", landed.len());

    let mut owners: HashMap<Version, usize> = HashMap::new();
    for (number, Landed { write, committed, .. }) in landed.iter().enumerate() {
        for (op, version) in write.ops.iter().zip(&committed.versions) {
            if matches!(op, Op::Put { .. }) {
                assert_eq!(owners.insert(*version, number), None, "one version for two writes");
            }
        }
    }
    // The keys as they are before each revision.
    let mut state: HashMap<Bytes, Version> = HashMap::new();
    let mut unseen = log.iter().peekable();
    landed.sort_by_key(place);
    for landed in &landed {
        let (first, _) = place(landed);
        let Landed { write, .. } = landed;
        while let Some(change) = unseen.next_if(|change| change.version < first) {
            take(&mut state, change);
        }
        for compare in &write.compares {
            let key = compare_key(compare);
            let current = state.get(key);
            let holds = match compare {
                Compare::At { version, .. } => {
                    current.is_some_and(|current| current.revision() == version.revision())
                }
                Compare::Absent { .. } => current.is_none(),
                Compare::Present { .. } => current.is_some(),
            };
            assert!(holds, "{compare:?} did not hold at {first:?}");
        }
    }
    for earlier in &landed {
        for later in landed.iter().filter(|later| later.began > earlier.ended) {
            assert!(later.committed.revision >= earlier.committed.revision, "time went backwards");
        }
    }
}

/// Where a write stands in the log: at the first of its changes, or behind its whole revision if it
/// changed nothing.
fn place(landed: &Landed) -> (Version, bool) {
    let committed = &landed.committed;
    let changes = committed.versions.iter().filter(|version| version.index() != NO_CHANGE_INDEX);
    let first = changes.min().copied();
    (first.unwrap_or(Version::new(committed.revision, NO_CHANGE_INDEX)), first.is_none())
}

fn take(state: &mut HashMap<Bytes, Version>, change: &commonage_store::Change) {
    match change.value {
        Some(_) => state.insert(change.key.clone(), change.version),
        None => state.remove(&change.key),
    };
}

fn compare_key(compare: &Compare) -> &Bytes {
    match compare {
        Compare::At { key, .. } | Compare::Absent { key } | Compare::Present { key } => key,
    }
}
