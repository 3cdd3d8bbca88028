//! What only etcd can do wrong: sharing revisions, sharing it with others, and its outages.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use commonage_store::etcd::{EtcdOptions, EtcdStore};
use commonage_store::{Store, StoreError};
use futures::StreamExt;
use futures::future::join_all;

use crate::etcd_process::EtcdProcess;
use crate::words::*;

async fn store_at(process: &EtcdProcess, prefix: &str) -> EtcdStore {
    let options = EtcdOptions { prefix: prefix.into(), ..EtcdOptions::new([process.endpoint()]) };
    EtcdStore::connect(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_share_revisions_and_the_tail_counts_them_alike() {
    let process = EtcdProcess::start();
    // Without conflicts all writes of a transaction are one list of operations, with some they are not.
    counts_alike(&store_at(&process, "/peace").await, false).await;
    counts_alike(&store_at(&process, "/commonage").await, true).await;
}

async fn counts_alike(store: &EtcdStore, conflicts: bool) {
    let start = store.revision().await.unwrap();
    for number in 0..20 {
        must(store, [put(format!("/old/{number}"), "")]).await;
    }
    must(store, [put("/taken", "")]).await;
    // Puts, deletes that find something, deletes that do not, and perhaps conflicts, side by side.
    let outcomes = join_all((0..200).map(|n| {
        let ops = match n % 4 {
            0 => vec![put(format!("/s/{n}"), "a"), put(format!("/t/{n}"), "b")],
            1 => vec![delete(format!("/never/{n}")), put(format!("/s/{n}"), "a")],
            2 => vec![delete(format!("/old/{}", n / 4)), put(format!("/s/{n}"), "a")],
            _ => vec![put(format!("/lost/{n}"), "a")],
        };
        let compares = match (n % 4, conflicts) {
            (3, true) => vec![absent("/taken")],
            (3, false) => vec![present("/taken"), absent(format!("/lost/{n}"))],
            _ => vec![],
        };
        store.commit(write(compares, ops))
    }))
    .await;
    let mut revisions = BTreeSet::new();
    let mut told = BTreeMap::new();
    let mut landed = 0;
    for (n, outcome) in outcomes.into_iter().enumerate() {
        if n % 4 == 3 && conflicts {
            assert!(matches!(outcome, Err(StoreError::Conflict { compare: 0 })), "{outcome:?}");
            continue;
        }
        let committed = outcome.unwrap();
        landed += 1;
        revisions.insert(committed.revision);
        let key = |kind: &str| bytes(format!("/{kind}/{n}"));
        match n % 4 {
            0 => {
                told.insert(committed.versions[0], key("s"));
                told.insert(committed.versions[1], key("t"));
            }
            1 => {
                told.insert(committed.versions[1], key("s"));
            }
            3 => {
                told.insert(committed.versions[0], key("lost"));
            }
            _ => {
                told.insert(committed.versions[1], key("s"));
                if n / 4 < 20 {
                    told.insert(committed.versions[0], bytes(format!("/old/{}", n / 4)));
                }
            }
        }
    }
    assert!(revisions.len() < landed / 2, "{landed} writes took {} revisions", revisions.len());
    let first = *revisions.first().unwrap();
    let newest = store.revision().await.unwrap();
    let tailed = changes(&batches_to(&mut store.tail(start), newest).await);
    assert!(tailed.is_sorted_by(|a, b| a.version < b.version));
    let tailed: BTreeMap<_, _> = tailed
        .into_iter()
        .filter(|change| change.version.revision() >= first)
        .map(|change| (change.version, change.key))
        .collect();
    assert_eq!(tailed, told);
}

/// What many writes demand alike is compared once for all; what does not hold is still told to whom it
/// concerns, and to nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_demand_in_common_fails_only_who_has_it() {
    let process = EtcdProcess::start();
    let store = store_at(&process, "/commonage").await;
    must(&store, [put("/there", "")]).await;
    for number in 0..20 {
        must(&store, [put(format!("/taken/{}", number * 5), "")]).await;
    }
    for some_are_gone in [false, true] {
        let round = usize::from(some_are_gone);
        let mut revisions = BTreeSet::new();
        let outcomes = join_all((0..100).map(|n| {
            let own = match n % 5 {
                0 => absent(format!("/taken/{n}")),
                _ => absent(format!("/new/{round}/{n}")),
            };
            let shared = match some_are_gone && n % 2 == 0 {
                true => present("/gone"),
                false => present("/there"),
            };
            store.commit(write([own, shared], [put(format!("/new/{round}/{n}"), "")]))
        }))
        .await;
        for (n, outcome) in outcomes.into_iter().enumerate() {
            match (n % 5 == 0, some_are_gone && n % 2 == 0) {
                (true, _) => {
                    assert!(matches!(outcome, Err(StoreError::Conflict { compare: 0 })), "{n}");
                }
                (false, true) => {
                    assert!(matches!(outcome, Err(StoreError::Conflict { compare: 1 })), "{n}");
                }
                (false, false) => {
                    revisions.insert(outcome.unwrap().revision);
                }
            }
        }
        assert!(revisions.len() < 20, "{} revisions", revisions.len());
        let landed = entries(&store, all(&format!("/new/{round}/"))).await.len();
        assert_eq!(landed, if some_are_gone { 40 } else { 80 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_in_one_etcd_see_only_their_own() {
    let process = EtcdProcess::start();
    let one = store_at(&process, "/one").await;
    let other = store_at(&process, "/one2").await;
    let start = one.revision().await.unwrap();
    let mut tail = one.tail(start);
    must(&one, [put("/a", "mine")]).await;
    must(&other, [put("/a", "theirs"), put("/b", "theirs")]).await;
    assert_eq!(value(&one, "/a").await, Some(bytes("mine")));
    assert_eq!(entries(&one, all("")).await.len(), 1);
    assert_eq!(entries(&other, all("")).await.len(), 2);
    assert_eq!(next(&mut tail).await.changes.len(), 1);
    // Somebody who waits until the tail has reached the newest revision does not wait for ever.
    let newest = one.revision().await.unwrap();
    loop {
        let batch = soon("the newest revision", tail.next()).await.unwrap().unwrap();
        assert!(batch.changes.is_empty());
        if batch.revision >= newest {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_and_its_writers_live_through_a_crash_of_etcd() {
    let mut process = EtcdProcess::start();
    let store = store_at(&process, "/commonage").await;
    let start = store.revision().await.unwrap();
    let mut tail = store.tail(start);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let writes = (0..50).map(|n| store.commit(write([], [put(format!("/{round}/{n}"), "")])));
        let before = join_all(writes).await;
        acknowledged.extend(before.into_iter().map(|outcome| outcome.unwrap().versions[0]));
        // Killed in the middle of writing.
        let during = (0..50).map(|n| store.commit(write([], [put(format!("/x/{round}/{n}"), "")])));
        let kill = async { process.kill() };
        let (during, ()) = futures::join!(join_all(during), kill);
        for outcome in during {
            match outcome {
                Ok(committed) => acknowledged.push(committed.versions[0]),
                Err(StoreError::UnknownOutcome(_) | StoreError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        soon("a clear refusal", async {
            while !matches!(
                store.commit(write([], [put("/down", "")])).await,
                Err(StoreError::Unavailable(_))
            ) {}
        })
        .await;
        process.start_again();
        soon("etcd back", async { while store.revision().await.is_err() {} }).await;
        assert!(store.commit(write([], [put("/up", "")])).await.is_ok());
    }
    let newest = store.revision().await.unwrap();
    let tailed = changes(&batches_to(&mut tail, newest).await);
    assert!(tailed.is_sorted_by(|a, b| a.version < b.version));
    let tailed: BTreeSet<_> = tailed.into_iter().map(|change| change.version).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|version| !tailed.contains(version)).collect();
    assert!(lost.is_empty(), "acknowledged, but not in the log: {lost:?}");
}

#[tokio::test]
async fn an_etcd_that_is_not_there_is_said_so() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let options = EtcdOptions {
        request_timeout: Duration::from_secs(5),
        ..EtcdOptions::new([address.to_string()])
    };
    let outcome = EtcdStore::connect(options).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    for prefix in ["commonage", "/commonage/", "", "/a-prefix-longer-than-thirty-two-bytes"] {
        let options = EtcdOptions { prefix: prefix.into(), ..EtcdOptions::new(["127.0.0.1:1"]) };
        let outcome = EtcdStore::connect(options).await;
        assert!(matches!(outcome, Err(StoreError::Refused(_))), "{outcome:?}");
    }
}
