//! etcd without room: what it refuses, and what it still does.

use commonage_store::etcd::{EtcdOptions, EtcdStore};
use commonage_store::{Op, Store, StoreError};
use futures::future::join_all;

use crate::etcd_process::EtcdProcess;
use crate::words::*;

#[tokio::test(flavor = "multi_thread")]
async fn in_a_full_etcd_deletes_work() {
    // Two megabytes are all that it may use.
    let process = EtcdProcess::start_with(&["--quota-backend-bytes", "2097152"]);
    let store = EtcdStore::connect(EtcdOptions::new([process.endpoint()])).await.unwrap();
    for number in 0..40 {
        must(&store, [put(format!("/small/{number}"), "")]).await;
    }
    let big = "x".repeat(256 * 1024);
    let refused = soon("a refusal", async {
        for number in 0.. {
            match store.commit(write([], [put(format!("/big/{number}"), &big)])).await {
                Ok(_) => {}
                refused => return refused,
            }
        }
        unreachable!("it has no room for ever");
    })
    .await;
    let Err(StoreError::Full(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("space exceeded"), "{why}");
    let expiring = Op::PutFor {
        key: bytes("/event"),
        value: bytes("v"),
        ttl: std::time::Duration::from_secs(3_600),
    };
    let refused = store.commit(write([], [expiring])).await;
    assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");

    // Side by side with writes that are refused.
    let writes: Vec<_> = (0..40)
        .flat_map(|number| {
            let key = format!("/small/{number}");
            [write([present(&key)], [delete(&key)]), write([], [put(format!("/new/{number}"), "")])]
        })
        .collect();
    let outcomes = join_all(writes.into_iter().map(|write| store.commit(write))).await;
    for pair in outcomes.chunks(2) {
        assert!(pair[0].is_ok(), "a delete: {:?}", pair[0]);
        assert!(matches!(pair[1], Err(StoreError::Full(_))), "a put: {:?}", pair[1]);
    }
    assert!(entries(&store, all("/small/")).await.is_empty());
}
