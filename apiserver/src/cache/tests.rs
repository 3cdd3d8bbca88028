//! The event log's bounds, and who waits for a revision.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use commonage_store::{Revision, Version};
use serde_json::json;

use super::event::{Chunk, EventKind, WatchEvent};
use super::log::{EventLog, LogChunk, Past};
use super::published::Published;
use crate::object::{Fields, Object, encode};

fn chunk(version: u64) -> Arc<LogChunk> {
    let value =
        encode(&json!({"kind": "X", "metadata": {"name": "x", "pad": "p".repeat(1 << 20)}}));
    let fields = Fields::default();
    let (object, bytes) =
        Object::decode(&fields, "/x", &value, Version(version), EventKind::Added).unwrap();
    let event = WatchEvent {
        kind: EventKind::Added,
        version: Version(version),
        object: Some(Arc::new(object)),
        bytes,
    };
    LogChunk::new(vec![event], vec![Past::new(None)]).unwrap()
}

#[test]
fn the_log_forgets_the_oldest_and_knows_it() {
    let mut log = EventLog::starting_at(Version(10));
    assert_eq!(log.after(Version(9)).unwrap_err(), Version(10));
    assert!(log.after(Version(10)).unwrap().is_empty());
    for version in 11..=100 {
        log.push(chunk(version));
    }
    // 64 MiB hold at most 63 events of a little more than one.
    let oldest = log.after(Version(10)).unwrap_err();
    assert_eq!(oldest, Version(100 - 63));
    let kept = log.after(oldest).unwrap();
    let versions: Vec<u64> = kept.iter().map(|chunk| chunk.all.version().0).collect();
    assert_eq!(versions, (38..=100).collect::<Vec<u64>>());
    assert_eq!(log.after(Version(99)).unwrap().len(), 1);
    assert!(log.after(Version(1000)).unwrap().is_empty());
}

#[tokio::test]
async fn waiting_ends_when_the_revision_is_published() {
    let published = Arc::new(Published::default());
    published.reached(Revision(0)).await;
    let waiting: Vec<_> = [3, 5, 4]
        .into_iter()
        .map(|revision| {
            let published = published.clone();
            tokio::spawn(async move { published.reached(Revision(revision)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    published.advance(Revision(4));
    let mut waiting = waiting.into_iter();
    waiting.next().unwrap().await.unwrap();
    let later = waiting.next().unwrap();
    waiting.next().unwrap().await.unwrap();
    assert!(!later.is_finished());
    published.advance(Revision(6));
    later.await.unwrap();
    published.advance(Revision(2));
    assert_eq!(published.revision(), Revision(6));
}

#[test]
fn only_who_gets_the_same_chunks_shares_their_bytes() {
    let chunk = |text: &str| {
        let (kind, version) = (EventKind::Added, Version(1));
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        Chunk::new(vec![WatchEvent { kind, version, object: None, bytes }]).unwrap()
    };
    let [first, other, middle, last] = ["a", "b", "c", "d"].map(chunk);
    let all = [first, middle.clone(), last.clone()];
    let joined = Chunk::bytes_of_all(&all, false);
    assert_eq!(joined, "acd");
    assert_eq!(Chunk::bytes_of_all(&all, false).as_ptr(), joined.as_ptr(), "it is made once");
    assert_eq!(Chunk::bytes_of_all(&[other, middle, last.clone()], false), "bcd");
    assert_eq!(Chunk::bytes_of_all(&all[1..], false), "cd");
    assert_eq!(Chunk::bytes_of_all(&all, true), "acd");
    assert_eq!(Chunk::bytes_of_all(&[last], false), "d");
    assert!(Chunk::bytes_of_all(&[], false).is_empty());
}
