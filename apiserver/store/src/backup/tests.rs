//! Backups of stores in memory, whole and harmed; and stores that are taken back.
#![allow(clippy::unwrap_used)]

use futures::{StreamExt, TryStreamExt};

use super::*;
use crate::memory::MemoryStore;
use crate::{Compare, Version};

async fn open(inner: Arc<MemoryStore>) -> RenumberedStore {
    RenumberedStore::open(inner).await.unwrap()
}

fn put(key: &str, value: impl Into<Bytes>) -> Op {
    Op::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: value.into() }
}

async fn commit(store: &dyn Store, ops: impl IntoIterator<Item = Op>) -> Vec<Version> {
    let write = GuardedWrite { compares: vec![], ops: ops.into_iter().collect() };
    store.commit(write).await.unwrap().versions
}

async fn backup(store: Arc<dyn Store>) -> Vec<u8> {
    let parts: Vec<Bytes> = stream(store).try_collect().await.unwrap();
    parts.concat()
}

async fn filled() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    for number in 0..2_500 {
        commit(&*store, [put(&format!("/k/{number:05}"), format!("value {number}"))]).await;
    }
    commit(&*store, [put("/large", vec![7; 1 << 20]), put("/small", "")]).await;
    commit(&*store, [put("/also-large", vec![8; 1 << 20])]).await;
    store
}

async fn all(store: &dyn Store) -> Vec<(Bytes, Bytes)> {
    let query = RangeQuery { prefix: Bytes::new(), after: None, at: None, limit: 0 };
    let page = store.range(query).await.unwrap();
    page.entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
}

fn for_ever(_: &[u8]) -> Option<Duration> {
    None
}

#[tokio::test]
async fn what_was_to_expire_is_restored_for_some_time_only() {
    let old = Arc::new(MemoryStore::new());
    let key = Bytes::from_static(b"/lately/a");
    let lately = Op::PutFor { key, value: "x".into(), ttl: Duration::from_secs(3_600) };
    commit(&*old, [lately, put("/kept", "y")]).await;
    let file = backup(old).await;
    let new = open(Arc::new(MemoryStore::new())).await;
    let ttl_of = |key: &[u8]| key.starts_with(b"/lately/").then_some(Duration::from_millis(50));
    let newest = restore(&new, &mut Reader::new(&*file).unwrap(), ttl_of).await.unwrap();
    let mut tail = new.tail(newest);
    let batch = tail.next().await.unwrap().unwrap();
    let gone: Vec<&Bytes> = batch.changes.iter().map(|change| &change.key).collect();
    assert_eq!(gone, ["/lately/a"]);
    assert_eq!(all(&new).await.len(), 1);
}

#[tokio::test]
async fn what_is_restored_is_what_was_there_with_revisions_that_never_were() {
    let old = filled().await;
    let file = backup(old.clone()).await;
    let before = old.revision().await.unwrap();
    // What came after the backup is not in it.
    commit(&*old, [put("/later", "x")]).await;
    let about = verify(&*file).unwrap();
    assert_eq!((about.revision, about.keys), (before, 2_503));
    let inner = Arc::new(MemoryStore::new());
    let new = open(inner.clone()).await;
    let newest = restore(&new, &mut Reader::new(&*file).unwrap(), for_ever).await.unwrap();
    let expected: Vec<_> =
        all(&*old).await.into_iter().filter(|(key, _)| key != "/later").collect();
    assert_eq!(all(&new).await, expected);
    assert!(newest.0 > before.0 + CLOCK_MARGIN);
    // Whoever knows the old history is told that it is over.
    for known in [before, Revision(before.0 + 1), Revision(newest.0 - 1)] {
        let read = new.get(b"/k/00001", Some(known)).await;
        assert!(matches!(read, Err(StoreError::Compacted { .. })), "{known:?}: {read:?}");
        let tail = new.tail(known).next().await.unwrap();
        assert!(matches!(tail, Err(StoreError::Compacted { .. })), "{known:?}: {tail:?}");
    }
    // A guard of the old history holds no more, not even by chance.
    let key = Bytes::from_static(b"/k/00001");
    let compares = vec![Compare::At { key: key.clone(), version: Version::new(Revision(2), 0) }];
    let stale = new.commit(GuardedWrite { compares, ops: vec![put("/k/00001", "stale")] }).await;
    assert!(matches!(stale, Err(StoreError::Conflict { compare: 0 })), "{stale:?}");
    // The same after it is opened again, and from a second restore of the same backup.
    let again = open(inner).await;
    let version = commit(&again, [put("/next", "1")]).await[0];
    assert_eq!(version.revision(), Revision(newest.0 + 1));
    assert_eq!(again.get(b"/next", None).await.unwrap().unwrap().version, version);
    let mut tail = again.tail(newest);
    assert_eq!(tail.next().await.unwrap().unwrap().changes[0].version, version);
    let refused = restore(&again, &mut Reader::new(&*file).unwrap(), for_ever).await;
    assert!(matches!(refused, Err(BackupError::NotEmpty)), "{refused:?}");
}

#[tokio::test]
async fn a_backup_of_what_was_restored_goes_on_from_there() {
    let first = backup(filled().await).await;
    let store = Arc::new(open(Arc::new(MemoryStore::new())).await);
    let newest = restore(&store, &mut Reader::new(&*first).unwrap(), for_ever).await.unwrap();
    let second = backup(store).await;
    let about = verify(&*second).unwrap();
    assert_eq!((about.revision, about.keys), (newest, 2_503));
}

#[tokio::test]
async fn what_is_no_whole_backup_is_refused() {
    let file = backup(filled().await).await;
    assert!(matches!(verify(&b""[..]), Err(BackupError::NotABackup)));
    assert!(matches!(verify(&b"{}"[..]), Err(BackupError::NotABackup)));
    assert!(matches!(verify(&[0; 100][..]), Err(BackupError::NotABackup)));
    for length in [5, HEAD_BYTES - 1, HEAD_BYTES, 1_000, file.len() / 2, file.len() - 1] {
        let error = verify(&file[..length]).unwrap_err();
        assert!(matches!(error, BackupError::Truncated), "{length}: {error}");
    }
    let mut newer = file.clone();
    newer[MAGIC.len() + 1] = 9;
    assert!(matches!(verify(&*newer), Err(BackupError::Format(9))));
    for at in [HEAD_BYTES - 1, HEAD_BYTES + 20, file.len() / 2, file.len() - 40, file.len() - 1] {
        let mut harmed = file.clone();
        harmed[at] ^= 1;
        let error = verify(&*harmed).unwrap_err();
        let told = matches!(error, BackupError::Damaged | BackupError::Truncated);
        assert!(told, "{at}: {error}");
    }
}

#[tokio::test]
async fn a_store_that_was_taken_back_while_nobody_looked_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    let open = async |inner: Arc<MemoryStore>| {
        RenumberedStore::open_remembering(inner, path.clone()).await.unwrap()
    };
    let first = open(filled().await).await;
    let newest = first.revision().await.unwrap();
    let mut tail = first.tail(Revision(newest.0 - 1));
    assert_eq!(tail.next().await.unwrap().unwrap().revision, newest);
    // The same again: nothing happened.
    let same = open(filled().await).await;
    assert_eq!(same.revision().await.unwrap(), newest);
    // One that has less.
    let older = Arc::new(MemoryStore::new());
    commit(&*older, [put("/k/00000", "value 0")]).await;
    let older = open(older).await;
    assert!(older.revision().await.unwrap().0 > newest.0 + MARGIN_AT_LEAST);
    assert_eq!(all(&older).await.len(), 1);
}

/// A server may have seen so much more than it has written down.
const MARGIN_AT_LEAST: u64 = 100_000;
