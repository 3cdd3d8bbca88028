//! Watches: where they begin, what they select, how they end.
#![allow(clippy::unwrap_used)]

use super::*;

fn from(version: u64) -> WatchOptions {
    WatchOptions { resource_version: Some(version), ..watch_options() }
}

#[tokio::test]
async fn a_watch_begins_with_what_exists_and_goes_on() {
    let world = World::new().await;
    world.create(config_map("a", json!({}))).await.unwrap();
    world.create(config_map("b", json!({}))).await.unwrap();
    let mut watch = world.watch("ConfigMap", watch_options()).await;
    assert_eq!([watch.short().await, watch.short().await], ["ADDED a", "ADDED b"]);
    world.merge("ConfigMap", "a", None, json!({"data": {"a": "2"}})).await.unwrap();
    let (kind, object) = watch.next().await.unwrap();
    assert_eq!((kind, &object["data"]["a"]), (EventKind::Modified, &json!("2")));
    let before = object;
    world.delete("ConfigMap", "a").await.unwrap();
    let (kind, object) = watch.next().await.unwrap();
    assert_eq!((kind, &object["data"]["a"]), (EventKind::Deleted, &json!("2")));
    assert!(version_of(&object) > version_of(&before));
}

#[tokio::test]
async fn a_watch_resumes_anywhere_in_the_log() {
    let world = World::new().await;
    let mut watch = world.watch("ConfigMap", watch_options()).await;
    for name in ["a", "b", "c"] {
        world.create(config_map(name, json!({}))).await.unwrap();
    }
    world.delete("ConfigMap", "b").await.unwrap();
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(watch.next().await.unwrap());
    }
    for (seen, (_, object)) in all.iter().enumerate() {
        let mut resumed = world.watch("ConfigMap", from(version_of(object))).await;
        for missed in &all[seen + 1..] {
            assert_eq!(resumed.next().await.as_ref(), Some(missed));
        }
        let name = format!("new{seen}");
        world.create(config_map(&name, json!({}))).await.unwrap();
        let mut next = resumed.short().await;
        for earlier in 0..seen {
            assert_eq!(next, format!("ADDED new{earlier}"));
            next = resumed.short().await;
        }
        assert_eq!(next, format!("ADDED {name}"));
    }
}

#[tokio::test]
async fn nothing_is_missed_between_a_list_and_its_watch() {
    let world = Arc::new(World::new().await);
    let writer = world.clone();
    let writes = tokio::spawn(async move {
        for number in 0..200 {
            writer.create(config_map(&format!("m{number:03}"), json!({}))).await.unwrap();
        }
    });
    let list = world.list("ConfigMap", ListOptions::default()).await.unwrap();
    let mut watch = world.watch("ConfigMap", from(list.version.0)).await;
    let mut seen: Vec<String> = list.items.iter().map(|object| object.name().to_owned()).collect();
    while seen.len() < 200 {
        let (kind, object) = watch.next().await.unwrap();
        assert_eq!(kind, EventKind::Added);
        seen.push(object["metadata"]["name"].as_str().unwrap().to_owned());
    }
    writes.await.unwrap();
    let expected: Vec<String> = (0..200).map(|number| format!("m{number:03}")).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_version_from_before_the_log_is_too_old() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let first = World::over(store.clone()).await;
    first.create(config_map("a", json!({}))).await.unwrap();
    drop(first);
    store.compact(store.revision().await.unwrap()).await.unwrap();
    let world = World::over(store).await;
    let mut watch = world.watch("ConfigMap", from(1)).await;
    let (kind, status) = watch.next().await.unwrap();
    assert_eq!(
        (kind, &status["code"], &status["reason"]),
        (EventKind::Error, &json!(410), &json!("Expired"))
    );
    assert!(status["message"].as_str().unwrap().starts_with("too old resource version: 1 ("));
    assert!(watch.next().await.is_none());
    let list = world.list("ConfigMap", ListOptions::default()).await.unwrap();
    let mut watch = world.watch("ConfigMap", from(list.version.0)).await;
    world.delete("ConfigMap", "a").await.unwrap();
    assert_eq!(watch.short().await, "DELETED a");
}

#[tokio::test]
async fn a_watch_survives_a_restart_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Arc::new(EmbeddedStore::open(dir.path(), EmbeddedOptions::default()).unwrap());
    let world = World::over(open()).await;
    let seen = world.create(config_map("a", json!({}))).await.unwrap().object.version.0;
    world.create(config_map("b", json!({}))).await.unwrap();
    world.delete("ConfigMap", "a").await.unwrap();
    let all = world.list("ConfigMap", ListOptions::default()).await.unwrap();
    world.shutdown.cancel();
    world.engine.stopped().await;
    drop(world);

    let world = World::over(open()).await;
    let again = world.list("ConfigMap", ListOptions::default()).await.unwrap();
    assert_eq!(again.items[0].body, all.items[0].body);
    assert!(again.version >= all.version);
    let mut watch = world.watch("ConfigMap", from(seen)).await;
    assert_eq!([watch.short().await, watch.short().await], ["ADDED b", "DELETED a"]);
    world.create(config_map("c", json!({}))).await.unwrap();
    assert_eq!(watch.short().await, "ADDED c");
}

#[tokio::test]
async fn crossing_a_selector_is_an_addition_or_a_deletion() {
    let world = World::new().await;
    world.create(config_map("a", json!({"l": "in"}))).await.unwrap();
    world.create(config_map("b", json!({"l": "out"}))).await.unwrap();
    let start = world.list("ConfigMap", ListOptions::default()).await.unwrap().version.0;
    let selected = |version| WatchOptions { label_selector: labelled("l=in"), ..version };
    let mut live = world.watch("ConfigMap", selected(watch_options())).await;
    assert_eq!(live.short().await, "ADDED a");
    let label = |value: &str| json!({"metadata": {"labels": {"l": value}}});
    world.merge("ConfigMap", "b", None, label("in")).await.unwrap();
    world.merge("ConfigMap", "a", None, json!({"data": {"a": "2"}})).await.unwrap();
    let left = world.merge("ConfigMap", "a", None, label("out")).await.unwrap();
    world.delete("ConfigMap", "a").await.unwrap();
    world.delete("ConfigMap", "b").await.unwrap();
    let mut resumed = world.watch("ConfigMap", selected(from(start))).await;
    for watch in [&mut live, &mut resumed] {
        assert_eq!([watch.short().await, watch.short().await], ["ADDED b", "MODIFIED a"]);
        let (kind, object) = watch.next().await.unwrap();
        assert_eq!((kind, &object["metadata"]["name"]), (EventKind::Deleted, &json!("a")));
        assert_eq!(object["metadata"]["labels"]["l"], "in");
        assert_eq!(version_of(&object), version_of(&left));
        assert_eq!(watch.short().await, "DELETED b");
    }
}

#[tokio::test]
async fn every_index_finds_its_watchers() {
    let world = World::new().await;
    let select = |text| WatchOptions { field_selector: fielded(text), ..watch_options() };
    let mut named = world.watch("Task", select("metadata.name=t2")).await;
    let mut unbound = world.watch("Task", select("spec.agent=")).await;
    let mut bound = world.watch("Task", select("spec.agent=node-1")).await;
    let mut framed = world.watch("Task", select("spec.framework=spark")).await;
    let mut both = world.watch("Task", select("spec.framework=spark,spec.agent=node-1")).await;
    let def = world.def("Task");
    let watch = world.engine.watch(&def, Some("default"), watch_options()).await.unwrap();
    let mut namespaced = Seen { watch, waiting: Default::default() };
    let elsewhere = world.engine.watch(&def, Some("kube-system"), watch_options()).await.unwrap();
    let mut elsewhere = Seen { watch: elsewhere, waiting: Default::default() };
    for name in ["t1", "t2"] {
        world.create(task(name)).await.unwrap();
    }
    world.post("Task", "t1", "binding", json!({"agent": "node-1"})).await.unwrap();
    let mut outside = task("t3");
    outside["metadata"]["namespace"] = json!("kube-system");
    world.create(outside).await.unwrap();
    assert_eq!(named.short().await, "ADDED t2");
    assert_eq!([unbound.short().await, unbound.short().await], ["ADDED t1", "ADDED t2"]);
    assert_eq!([unbound.short().await, unbound.short().await], ["DELETED t1", "ADDED t3"]);
    assert_eq!(bound.short().await, "ADDED t1");
    assert_eq!([namespaced.short().await, namespaced.short().await], ["ADDED t1", "ADDED t2"]);
    assert_eq!(namespaced.short().await, "MODIFIED t1");
    assert_eq!(elsewhere.short().await, "ADDED t3");
    let mut of_spark = task("t4");
    of_spark["spec"]["framework"] = json!("spark");
    world.create(of_spark).await.unwrap();
    assert_eq!(framed.short().await, "ADDED t4");
    world.post("Task", "t4", "binding", json!({"agent": "node-1"})).await.unwrap();
    assert_eq!(framed.short().await, "MODIFIED t4");
    assert_eq!([bound.short().await, both.short().await], ["ADDED t4", "ADDED t4"]);
    // Three of them are the engine's own: on cluster roles, and two on definitions.
    assert_eq!(world.engine.watch_counters().open.load(std::sync::atomic::Ordering::Relaxed), 10);
}

#[tokio::test]
async fn a_watch_list_says_when_it_is_complete() {
    let world = World::new().await;
    world.create(config_map("a", json!({}))).await.unwrap();
    let initial = || WatchOptions {
        send_initial_events: Some(true),
        version_match: Some(VersionMatch::NotOlderThan),
        bookmarks: true,
        ..watch_options()
    };
    let mut watch = world.watch("ConfigMap", initial()).await;
    assert_eq!(watch.short().await, "ADDED a");
    let (kind, bookmark) = watch.next().await.unwrap();
    assert_eq!(kind, EventKind::Bookmark);
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!((&bookmark["kind"], &bookmark["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    world.create(config_map("b", json!({}))).await.unwrap();
    let (_, b) = watch.next().await.unwrap();
    assert!(version_of(&b) > version_of(&bookmark));
}

#[tokio::test]
async fn a_bookmark_comes_before_the_end() {
    let world = World::new().await;
    world.create(config_map("a", json!({}))).await.unwrap();
    let options =
        WatchOptions { bookmarks: true, timeout: Duration::from_millis(2300), ..watch_options() };
    let mut watch = world.engine.watch(&world.def("ConfigMap"), None, options).await.unwrap();
    assert_eq!(watch.next().await.unwrap().events()[0].kind, EventKind::Added);
    world.create(queue("elsewhere")).await.unwrap();
    let revision = world.store.revision().await.unwrap();
    let chunk = watch.next().await.unwrap();
    assert_eq!(chunk.events()[0].kind, EventKind::Bookmark);
    assert_eq!(chunk.version().revision(), revision);
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_watch_that_goes_on_says_at_once_how_far_it_is_when_it_is_asked_to() {
    let world = World::new().await;
    world.create(config_map("a", json!({}))).await.unwrap();
    let mut first = world.watch("ConfigMap", watch_options()).await;
    let (_, a) = first.next().await.unwrap();
    world.create(config_map("b", json!({}))).await.unwrap();
    assert_eq!(first.short().await, "ADDED b");
    let options = WatchOptions { bookmarks: true, ..from(version_of(&a)) };
    let mut watch = world.watch("ConfigMap", options).await;
    watch.watch.tell_at_once();
    let (_, b) = watch.next().await.unwrap();
    assert_eq!(b["metadata"]["name"], "b");
    let (kind, bookmark) = watch.next().await.unwrap();
    assert_eq!(kind, EventKind::Bookmark);
    assert!(version_of(&bookmark) >= version_of(&b));
}

#[tokio::test]
async fn a_watch_of_the_future_names_no_version_before_it() {
    let world = World::new().await;
    world.create(config_map("a", json!({}))).await.unwrap();
    let asked = commonage_store::Version(1 << 40);
    let options =
        WatchOptions { bookmarks: true, timeout: Duration::from_millis(2300), ..from(asked.0) };
    let mut watch = world.engine.watch(&world.def("ConfigMap"), None, options).await.unwrap();
    // Before the version that was asked for: not shown.
    world.create(config_map("b", json!({}))).await.unwrap();
    let chunk = watch.next().await.unwrap();
    assert_eq!(chunk.events()[0].kind, EventKind::Bookmark);
    assert_eq!(chunk.version(), asked);
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn shutting_down_ends_every_watch() {
    let world = World::new().await;
    let mut watch = world.watch("ConfigMap", watch_options()).await;
    world.shutdown.cancel();
    assert!(watch.next().await.is_none());
    tokio::time::timeout(PATIENCE, world.engine.stopped()).await.unwrap();
    assert!(!world.engine.ready());
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_closed() {
    let world = World::new().await;
    world.create(config_map("a", json!({}))).await.unwrap();
    let mut lazy = world.watch("ConfigMap", watch_options()).await;
    let counters = world.engine.watch_counters();
    let mut number = 0;
    while counters.closed_slow.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        number += 1;
        assert!(number < 10_000, "nobody was closed");
        world
            .merge("ConfigMap", "a", None, json!({"data": {"a": number.to_string()}}))
            .await
            .unwrap();
    }
    let mut last = String::new();
    while let Some((_, object)) = lazy.next().await {
        last = object["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    }
    // It resumes where it was cut off.
    let mut resumed = world.watch("ConfigMap", from(last.parse().unwrap())).await;
    assert_eq!(resumed.short().await, "MODIFIED a");
}
