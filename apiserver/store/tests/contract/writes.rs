//! Guarded writes: what lands, what does not, and how it is told.

use std::sync::Arc;

use bytes::Bytes;
use commonage_store::{
    NO_CHANGE_INDEX, OPS_PER_WRITE_MAX, Op, Store, StoreError, Version, WRITE_BYTES_MAX,
};
use futures::future::join_all;

use crate::engine::for_every_engine;
use crate::words::*;

for_every_engine!(
    compares_decide,
    the_failed_compare_is_named,
    all_of_a_write_or_nothing,
    a_conflict_is_only_its_own,
    increments_are_not_lost,
    a_moved_fence_stops_everybody,
    deletes,
    a_write_without_effect_takes_no_revision,
    empty_and_huge_values,
    what_can_never_succeed_is_refused,
    as_many_operations_as_allowed,
);

fn conflict(outcome: Result<commonage_store::Committed, StoreError>) -> usize {
    match outcome {
        Err(StoreError::Conflict { compare }) => compare,
        other => panic!("expected a conflict, got {other:?}"),
    }
}

async fn compares_decide(store: Arc<dyn Store>) {
    let first = store.commit(write([absent("/a")], [put("/a", "1")])).await.unwrap();
    let version = first.versions[0];
    assert_eq!(version.revision(), first.revision);
    conflict(store.commit(write([absent("/a")], [put("/a", "2")])).await);
    conflict(store.commit(write([present("/b")], [put("/b", "1")])).await);
    conflict(store.commit(write([at("/b", version)], [put("/b", "1")])).await);
    store.commit(write([present("/a"), absent("/b")], [put("/c", "1")])).await.unwrap();
    let second = store.commit(write([at("/a", version)], [put("/a", "2")])).await.unwrap();
    assert!(second.versions[0] > version);
    conflict(store.commit(write([at("/a", version)], [delete("/a")])).await);
    // Only the revision of a version is compared, not its index.
    let other_index = Version::new(second.revision, 200);
    store.commit(write([at("/a", other_index)], [delete("/a")])).await.unwrap();
    store.commit(write([absent("/a")], [put("/a", "3")])).await.unwrap();
    assert_eq!(value(&*store, "/a").await, Some(bytes("3")));
    assert_eq!(value(&*store, "/b").await, None);
}

async fn the_failed_compare_is_named(store: Arc<dyn Store>) {
    let version = must(&*store, [put("/a", "1"), put("/b", "1")]).await.versions[1];
    must(&*store, [put("/b", "2")]).await;
    let compares = [present("/a"), absent("/c"), at("/b", version), absent("/a")];
    assert_eq!(conflict(store.commit(write(compares, [put("/c", "1")])).await), 2);
    assert_eq!(value(&*store, "/c").await, None);
}

async fn all_of_a_write_or_nothing(store: Arc<dyn Store>) {
    must(&*store, [put("/x", "old"), put("/y", "old")]).await;
    let ops = [put("/x", "new"), delete("/y"), put("/z", "new")];
    conflict(store.commit(write([absent("/x")], ops.clone())).await);
    let untouched: Vec<_> =
        entries(&*store, all("/")).await.into_iter().map(|e| (e.key, e.value)).collect();
    assert_eq!(untouched, [(bytes("/x"), bytes("old")), (bytes("/y"), bytes("old"))]);

    let landed = store.commit(write([present("/x")], ops)).await.unwrap();
    let expected: Vec<_> = (0..3).map(|index| Version::new(landed.revision, index)).collect();
    assert_eq!(landed.versions, expected);
    let now = entries(&*store, all("/")).await;
    assert_eq!(now.len(), 2);
    assert_eq!((&now[0].key, now[0].version), (&bytes("/x"), landed.versions[0]));
    assert_eq!((&now[1].key, now[1].version), (&bytes("/z"), landed.versions[2]));
}

async fn a_conflict_is_only_its_own(store: Arc<dyn Store>) {
    for round in 0..5 {
        must(&*store, [put("/taken", "")]).await;
        let outcomes = join_all((0..100).map(|writer| {
            let guard = if writer % 3 == 0 { absent("/taken") } else { present("/taken") };
            let key = format!("/own/{round}/{writer}");
            store.commit(write([guard, absent(&key)], [put(&key, "mine")]))
        }))
        .await;
        for (writer, outcome) in outcomes.into_iter().enumerate() {
            let key = format!("/own/{round}/{writer}");
            let entry = store.get(key.as_bytes(), None).await.unwrap();
            if writer % 3 == 0 {
                assert_eq!(conflict(outcome), 0);
                assert_eq!(entry, None);
            } else {
                assert_eq!(entry.unwrap().version, outcome.unwrap().versions[0]);
            }
        }
    }
}

async fn increments_are_not_lost(store: Arc<dyn Store>) {
    const WRITERS: usize = 12;
    const ROUNDS: usize = 15;
    must(&*store, [put("/counter", "0")]).await;
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut done = 0;
            while done < ROUNDS {
                let entry = store.get(b"/counter", None).await.unwrap().unwrap();
                let count: usize = str::from_utf8(&entry.value).unwrap().parse().unwrap();
                let ops = [
                    put("/counter", (count + 1).to_string()),
                    put(format!("/by/{writer}/{done}"), ""),
                ];
                match store.commit(write([at("/counter", entry.version)], ops)).await {
                    Ok(_) => done += 1,
                    Err(StoreError::Conflict { compare: 0 }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    for writer in soon("all increments", join_all(writers)).await {
        writer.unwrap();
    }
    let total = WRITERS * ROUNDS;
    assert_eq!(value(&*store, "/counter").await, Some(bytes(total.to_string())));
    assert_eq!(entries(&*store, all("/by/")).await.len(), total);
}

async fn a_moved_fence_stops_everybody(store: Arc<dyn Store>) {
    let fence = must(&*store, [put("/fence", "1")]).await.versions[0];
    let writers = (0..60).map(|writer| {
        let guard = [at("/fence", fence), absent(format!("/f/{writer}"))];
        store.commit(write(guard, [put(format!("/f/{writer}"), "")]))
    });
    let moved = store.commit(write([at("/fence", fence)], [put("/fence", "2")]));
    let (outcomes, moved) = futures::join!(join_all(writers), moved);
    let moved = moved.unwrap().revision;
    for outcome in outcomes {
        match outcome {
            Ok(landed) => assert!(landed.revision < moved, "a write landed behind the fence"),
            outcome => assert_eq!(conflict(outcome), 0),
        }
    }
    let late = store.commit(write([at("/fence", fence)], [put("/f/late", "")])).await;
    assert_eq!(conflict(late), 0);
}

async fn deletes(store: Arc<dyn Store>) {
    let made = must(&*store, [put("/a", "1"), put("/b", "1")]).await;
    let gone = must(&*store, [delete("/a"), delete("/never"), delete("/b")]).await;
    assert!(gone.revision > made.revision);
    assert!(gone.versions[0] < gone.versions[2]);
    assert_eq!(gone.versions[1].index(), NO_CHANGE_INDEX);
    assert_eq!(value(&*store, "/a").await, None);
    assert_eq!(entries(&*store, all("/")).await, []);
    let again = must(&*store, [put("/a", "2")]).await;
    let entry = store.get(b"/a", None).await.unwrap().unwrap();
    assert_eq!(entry.version, again.versions[0]);
}

async fn a_write_without_effect_takes_no_revision(store: Arc<dyn Store>) {
    let made = must(&*store, [put("/a", "1")]).await;
    let nothing = must(&*store, [delete("/never")]).await;
    assert_eq!(nothing.revision, made.revision);
    assert_eq!(nothing.versions, [Version::new(made.revision, NO_CHANGE_INDEX)]);
    let checked = store.commit(write([at("/a", made.versions[0])], [])).await.unwrap();
    assert_eq!((checked.revision, checked.versions.len()), (made.revision, 0));
    conflict(store.commit(write([absent("/a")], [])).await);
    assert_eq!(store.revision().await.unwrap(), made.revision);
}

async fn empty_and_huge_values(store: Arc<dyn Store>) {
    let huge = Bytes::from(vec![b'x'; 1_000_000]);
    must(&*store, [put("/empty", "")]).await;
    must(&*store, [Op::Put { key: bytes("/huge"), value: huge.clone() }]).await;
    assert_eq!(value(&*store, "/empty").await, Some(Bytes::new()));
    assert_eq!(value(&*store, "/huge").await, Some(huge.clone()));
    // Several at once do not fit one request to etcd; together they exceed one answer of 4 MB.
    let keys: Vec<_> = (0..8).map(|number| bytes(format!("/many/{number}"))).collect();
    let writes = keys
        .iter()
        .map(|key| store.commit(write([], [Op::Put { key: key.clone(), value: huge.clone() }])));
    for outcome in join_all(writes).await {
        outcome.unwrap();
    }
    let read = entries(&*store, all("/many/")).await;
    assert!(read.iter().map(|entry| &entry.key).eq(&keys));
    assert!(read.iter().all(|entry| entry.value == huge));
}

async fn what_can_never_succeed_is_refused(store: Arc<dyn Store>) {
    let before = must(&*store, [put("/a", "1")]).await.revision;
    let too_big = Bytes::from(vec![b'x'; WRITE_BYTES_MAX]);
    let too_many: Vec<_> =
        (0..=OPS_PER_WRITE_MAX).map(|number| put(format!("/{number}"), "")).collect();
    let many_with_one_twice: Vec<_> = (0..20).map(|n| put(format!("/{}", n % 19), "")).collect();
    let long_key = "k".repeat(100_000);
    let hopeless = [
        vec![Op::Put { key: bytes("/big"), value: too_big }],
        too_many,
        vec![put("/b", "1"), put("/b", "2")],
        vec![put("/b", "1"), delete("/b")],
        many_with_one_twice,
        vec![put("", "1")],
        vec![put("no/slash", "1")],
        vec![put(long_key, "1")],
    ];
    for ops in hopeless {
        let outcome = store.commit(write([], ops)).await;
        let Err(StoreError::Refused(why)) = outcome else { panic!("not refused: {outcome:?}") };
        assert!(why.contains("allowed") || why.contains("key"), "{why}");
    }
    assert_eq!(store.revision().await.unwrap(), before);
}

async fn as_many_operations_as_allowed(store: Arc<dyn Store>) {
    let keys: Vec<_> = (0..OPS_PER_WRITE_MAX).map(|number| format!("/k/{number:03}")).collect();
    let ops: Vec<_> = keys.iter().map(|key| put(key, "1")).collect();
    let compares: Vec<_> = keys.iter().map(absent).collect();
    let big = store.commit(write(compares.clone(), ops.clone()));
    // Others around it, so that it is packed with them if anything ever is.
    let others = join_all((0..200).map(|n| store.commit(write([], [put(format!("/o/{n}"), "")]))));
    let (big, others) = futures::join!(big, others);
    let big = big.unwrap();
    assert!(others.into_iter().all(|outcome| outcome.is_ok()));
    assert!(big.versions.is_sorted());
    let read: Vec<_> = entries(&*store, all("/k/")).await.iter().map(|e| e.version).collect();
    assert_eq!(read, big.versions);
    assert_eq!(conflict(store.commit(write(compares, ops)).await), 0);
}
