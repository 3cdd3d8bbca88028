//! Reads: at a revision, in pages, and what compaction takes away.

use std::sync::Arc;

use commonage_store::{RangeQuery, Revision, Store, StoreError};

use crate::engine::for_every_engine;
use crate::words::*;

for_every_engine!(
    the_past_stays_as_it_was,
    pages_show_one_revision,
    a_page_says_exactly_whether_there_is_more,
    prefixes_and_starting_points,
    a_long_range,
    revisions_that_have_not_happened,
    compaction_takes_the_past_away,
    reads_while_compacting,
);

async fn the_past_stays_as_it_was(store: Arc<dyn Store>) {
    let start = store.revision().await.unwrap();
    let one = must(&*store, [put("/a", "1")]).await.revision;
    let two = must(&*store, [put("/a", "2"), put("/b", "2")]).await.revision;
    let three = must(&*store, [delete("/a")]).await.revision;
    let four = must(&*store, [put("/a", "4")]).await.revision;
    assert_eq!(store.revision().await.unwrap(), four);
    for (at, a, b) in [
        (start, None, None),
        (one, Some("1"), None),
        (two, Some("2"), Some("2")),
        (three, None, Some("2")),
        (four, Some("4"), Some("2")),
    ] {
        let read = |key: &'static str| store.get(key.as_bytes(), Some(at));
        assert_eq!(read("/a").await.unwrap().map(|e| e.value), a.map(bytes), "{at:?}");
        assert_eq!(read("/b").await.unwrap().map(|e| e.value), b.map(bytes), "{at:?}");
        let page = store.range(RangeQuery { at: Some(at), ..all("/") }).await.unwrap();
        assert_eq!(page.revision, at);
        assert_eq!(page.entries.len(), a.iter().chain(b.iter()).count(), "{at:?}");
    }
    // The empty store, or (of one that was restored) a time that it does not know.
    let first = store.get(b"/a", Some(Revision(0))).await;
    assert!(matches!(first, Ok(None) | Err(StoreError::Compacted { .. })), "{first:?}");
}

async fn pages_show_one_revision(store: Arc<dyn Store>) {
    for number in 0..10 {
        must(&*store, [put(format!("/p/{number}"), "old")]).await;
    }
    let first = store.range(RangeQuery { limit: 4, ..all("/p/") }).await.unwrap();
    assert!(first.more);
    // Between two pages everything behind the first one changes.
    must(&*store, [delete("/p/5"), put("/p/6", "new"), put("/p/55", "new")]).await;
    let rest = RangeQuery {
        at: Some(first.revision),
        after: Some(first.entries[3].key.clone()),
        ..all("/p/")
    };
    let rest = store.range(rest).await.unwrap();
    assert_eq!((rest.revision, rest.more), (first.revision, false));
    assert_eq!(first.entries.len() + rest.entries.len(), 10);
    assert!(first.entries.iter().chain(&rest.entries).all(|entry| entry.value == "old"));
}

async fn a_page_says_exactly_whether_there_is_more(store: Arc<dyn Store>) {
    let ops: Vec<_> = (0..6).map(|number| put(format!("/m/{number}"), "")).collect();
    must(&*store, ops).await;
    must(&*store, [put("/n", ""), put("/m/9", "")]).await;
    must(&*store, [delete("/m/9")]).await;
    for (limit, pages) in [(1, 6), (2, 3), (3, 2), (4, 2), (5, 2), (6, 1), (7, 1)] {
        let read = in_pages(&*store, "/m/", limit).await;
        assert_eq!(read.len(), pages, "limit {limit}");
        assert_eq!(read.iter().map(|page| page.entries.len()).sum::<usize>(), 6);
    }
    let nothing = store.range(RangeQuery { limit: 3, ..all("/none/") }).await.unwrap();
    assert_eq!((nothing.entries.len(), nothing.more), (0, false));
}

async fn prefixes_and_starting_points(store: Arc<dyn Store>) {
    let keys = ["/a", "/a/", "/a/1", "/a/2", "/a0", "/b", "/\u{7f}"];
    must(&*store, keys.map(|key| put(key, ""))).await;
    let read = |prefix: &str, after: Option<&str>| {
        let query = RangeQuery { after: after.map(bytes), ..all(prefix) };
        let store = store.clone();
        async move {
            let read = entries(&*store, query).await;
            read.iter().map(|e| String::from_utf8(e.key.to_vec()).unwrap()).collect::<Vec<_>>()
        }
    };
    assert_eq!(read("/a/", None).await, ["/a/", "/a/1", "/a/2"]);
    assert_eq!(read("/a/", Some("/a/1")).await, ["/a/2"]);
    assert_eq!(read("/a/", Some("/a/15")).await, ["/a/2"]);
    assert_eq!(read("/a/", Some("/")).await, ["/a/", "/a/1", "/a/2"]);
    assert_eq!(read("/a/", Some("/b")).await, [""; 0]);
    assert_eq!(read("/a", None).await, ["/a", "/a/", "/a/1", "/a/2", "/a0"]);
    assert_eq!(read("", None).await, keys);
    assert_eq!(read("", Some("/a0")).await, ["/b", "/\u{7f}"]);
    assert_eq!(read("/", None).await, keys);
    let outside = store.range(all("a")).await;
    assert!(matches!(outside, Err(StoreError::Refused(_))), "{outside:?}");
    assert_eq!(store.get(b"a", None).await.unwrap(), None);
}

async fn a_long_range(store: Arc<dyn Store>) {
    const KEYS: usize = 12_000;
    let names: Vec<_> = (0..KEYS).map(|number| format!("/long/{number:05}")).collect();
    let mut newest = Revision(0);
    for names in names.chunks(100) {
        let ops: Vec<_> = names.iter().map(|name| put(name, name)).collect();
        newest = must(&*store, ops).await.revision;
    }
    let page = store.range(all("/long/")).await.unwrap();
    assert_eq!((page.revision, page.more, page.entries.len()), (newest, false, KEYS));
    assert!(page.entries.iter().zip(&names).all(|(e, name)| e.key == *name && e.value == *name));
    let pages = in_pages(&*store, "/long/", 5_000).await;
    assert_eq!(
        pages.iter().map(|page| page.entries.len()).collect::<Vec<_>>(),
        [5_000, 5_000, 2_000]
    );
    let limited = store.range(RangeQuery { limit: 11_000, ..all("/long/") }).await.unwrap();
    assert_eq!((limited.entries.len(), limited.more), (11_000, true));
}

async fn revisions_that_have_not_happened(store: Arc<dyn Store>) {
    let newest = must(&*store, [put("/a", "")]).await.revision;
    let future = Revision(newest.0 + 10);
    let refused = [
        store.get(b"/a", Some(future)).await.map(|_| ()),
        store.range(RangeQuery { at: Some(future), ..all("/") }).await.map(|_| ()),
        store.compact(future).await,
    ];
    for outcome in refused {
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    }
}

fn compacted<T: std::fmt::Debug>(outcome: Result<T, StoreError>, asked: Revision) -> Revision {
    match outcome {
        Err(StoreError::Compacted { asked: named, oldest }) => {
            assert_eq!(named, asked);
            assert!(oldest > asked);
            oldest
        }
        other => panic!("expected it to be compacted, got {other:?}"),
    }
}

async fn compaction_takes_the_past_away(store: Arc<dyn Store>) {
    let one = must(&*store, [put("/a", "1"), put("/stays", "1")]).await.revision;
    let two = must(&*store, [put("/a", "2"), put("/gone", "2")]).await.revision;
    let three = must(&*store, [delete("/gone")]).await.revision;
    let four = must(&*store, [put("/a", "4")]).await.revision;
    store.compact(three).await.unwrap();
    store.compact(three).await.unwrap();
    store.compact(one).await.unwrap();
    for old in [one, two] {
        let oldest = compacted(store.get(b"/a", Some(old)).await, old);
        assert!(oldest <= three);
        compacted(store.range(RangeQuery { at: Some(old), ..all("/") }).await, old);
        let mut tail = store.tail(old);
        let first = soon("the tail's end", futures::StreamExt::next(&mut tail)).await.unwrap();
        compacted(first, old);
        let end = soon("the tail's end", futures::StreamExt::next(&mut tail)).await;
        assert!(end.is_none(), "a tail goes on after an error");
    }
    let a = store.get(b"/a", Some(three)).await.unwrap().unwrap();
    assert_eq!((a.value, a.version.revision()), (bytes("2"), two));
    let stays = store.get(b"/stays", Some(three)).await.unwrap().unwrap();
    assert_eq!(stays.version.revision(), one);
    assert_eq!(store.get(b"/gone", Some(three)).await.unwrap(), None);
    assert_eq!(value(&*store, "/a").await, Some(bytes("4")));
    assert_eq!(next(&mut store.tail(three)).await.revision, four);
    store.compact(four).await.unwrap();
    let five = must(&*store, [put("/a", "5")]).await.revision;
    assert_eq!(next(&mut store.tail(four)).await.revision, five);
    assert_eq!(entries(&*store, all("/")).await.len(), 2);
}

async fn reads_while_compacting(store: Arc<dyn Store>) {
    must(&*store, [put("/hot", "0")]).await;
    let writing = async {
        for round in 0..200 {
            let revision = must(&*store, [put("/hot", round.to_string())]).await.revision;
            if round % 10 == 0 {
                store.compact(revision).await.unwrap();
            }
        }
    };
    let reading = async {
        for _ in 0..400 {
            assert!(value(&*store, "/hot").await.is_some());
            assert_eq!(entries(&*store, all("/hot")).await.len(), 1);
        }
    };
    futures::join!(writing, reading);
}
