//! Lists: versions, pages, selectors.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use commonage_store::{GuardedWrite, Op};

use super::*;

async fn with_maps(names: &[&str]) -> World {
    let world = World::new().await;
    for name in names {
        world.create(config_map(name, json!({"name": name}))).await.unwrap();
    }
    world
}

fn names(list: &List) -> Vec<&str> {
    list.items.iter().map(|object| object.name()).collect()
}

#[tokio::test]
async fn a_list_is_sorted_and_of_one_namespace() {
    let world = with_maps(&["b", "a", "c"]).await;
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default-2"}});
    world.create(namespace).await.unwrap();
    let mut other = config_map("aa", json!({}));
    other["metadata"]["namespace"] = json!("default-2");
    world.create(other).await.unwrap();
    assert_eq!(
        names(&world.list("ConfigMap", ListOptions::default()).await.unwrap()),
        ["a", "b", "c"]
    );
    let all =
        world.engine.list(&world.def("ConfigMap"), None, ListOptions::default()).await.unwrap();
    let paths: Vec<&str> = all.items.iter().map(|object| object.path()).collect();
    assert_eq!(paths, ["default-2/aa", "default/a", "default/b", "default/c"]);
}

#[tokio::test]
async fn pages_show_one_state_while_the_world_changes() {
    let world = with_maps(&["a", "b", "c", "d", "e"]).await;
    let page = |limit, continue_| ListOptions { limit, continue_, ..ListOptions::default() };
    let first = world.list("ConfigMap", page(2, None)).await.unwrap();
    assert_eq!((names(&first), first.remaining), (vec!["a", "b"], Some(3)));
    world.delete("ConfigMap", "c").await.unwrap();
    world.create(config_map("bb", json!({}))).await.unwrap();
    let second = world.list("ConfigMap", page(2, first.continue_.clone())).await.unwrap();
    assert_eq!(
        (names(&second), second.remaining, second.version),
        (vec!["c", "d"], Some(1), first.version)
    );
    let third = world.list("ConfigMap", page(2, second.continue_)).await.unwrap();
    assert_eq!((names(&third), &third.continue_, third.remaining), (vec!["e"], &None, None));
    let fresh = world.list("ConfigMap", ListOptions::default()).await.unwrap();
    assert_eq!(names(&fresh), ["a", "b", "bb", "d", "e"]);
    assert!(fresh.version > first.version);
}

#[tokio::test]
async fn a_page_that_the_cache_has_forgotten_comes_from_the_store() {
    let world = with_maps(&["a", "b", "c"]).await;
    let old = world.list("ConfigMap", ListOptions::default()).await.unwrap().version;
    world.delete("ConfigMap", "b").await.unwrap();
    world.create(config_map("d", json!({}))).await.unwrap();
    let exact = |limit, continue_: Option<String>| ListOptions {
        limit,
        resource_version: continue_.is_none().then_some(old.0),
        version_match: continue_.is_none().then_some(VersionMatch::Exact),
        continue_,
        ..ListOptions::default()
    };
    let all = world.list("ConfigMap", exact(0, None)).await.unwrap();
    assert_eq!((names(&all), all.version), (vec!["a", "b", "c"], old));
    let first = world.list("ConfigMap", exact(1, None)).await.unwrap();
    let second = world.list("ConfigMap", exact(1, first.continue_.clone())).await.unwrap();
    assert_eq!((names(&first), names(&second)), (vec!["a"], vec!["b"]));
    // Old clients say it without the match.
    let legacy = ListOptions { limit: 5, resource_version: Some(old.0), ..ListOptions::default() };
    assert_eq!(names(&world.list("ConfigMap", legacy).await.unwrap()), ["a", "b", "c"]);
}

#[tokio::test]
async fn what_was_compacted_is_gone() {
    let world = with_maps(&["a", "b", "c"]).await;
    let old = world.list("ConfigMap", ListOptions::default()).await.unwrap().version;
    world.delete("ConfigMap", "b").await.unwrap();
    world.store.compact(world.store.revision().await.unwrap()).await.unwrap();
    let exact = ListOptions {
        resource_version: Some(old.0),
        version_match: Some(VersionMatch::Exact),
        ..ListOptions::default()
    };
    let error = world.list("ConfigMap", exact).await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (410, "Expired"));
    let token = super::super::page::PageToken::new(old, "default/a", None).encode();
    let next = |token| ListOptions { continue_: Some(token), limit: 1, ..ListOptions::default() };
    let error = world.list("ConfigMap", next(token)).await.unwrap_err();
    assert_eq!(error.code, 410);
    let fresh = world.list("ConfigMap", next(error.continue_.unwrap())).await.unwrap();
    assert_eq!(names(&fresh), ["c"]);
}

#[tokio::test]
async fn selectors_select() {
    let world = with_maps(&["a", "b", "c"]).await;
    let cases = [
        (labelled("name=a"), None, vec!["a"]),
        (labelled("name in (a,c)"), None, vec!["a", "c"]),
        (None, fielded("metadata.name=b"), vec!["b"]),
        (None, fielded("metadata.name!=b"), vec!["a", "c"]),
        (labelled("name=a"), fielded("metadata.name=b"), vec![]),
        (None, fielded("metadata.namespace=default"), vec!["a", "b", "c"]),
        (None, fielded("metadata.namespace=other"), vec![]),
    ];
    for (label_selector, field_selector, expected) in cases {
        let options = ListOptions { label_selector, field_selector, ..ListOptions::default() };
        assert_eq!(
            names(&world.list("ConfigMap", options.clone()).await.unwrap()),
            expected,
            "{options:?}"
        );
    }
    let unknown = ListOptions { field_selector: fielded("spec.x=1"), ..ListOptions::default() };
    let error = world.list("ConfigMap", unknown).await.unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (
            400,
            "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        )
    );
    let page =
        ListOptions { limit: 1, label_selector: labelled("name!=b"), ..ListOptions::default() };
    let first = world.list("ConfigMap", page).await.unwrap();
    assert_eq!(
        (names(&first), first.remaining, first.continue_.is_some()),
        (vec!["a"], None, true)
    );
}

#[tokio::test]
async fn contradictory_options_are_refused() {
    let world = with_maps(&["a"]).await;
    let token = || {
        Some(
            super::super::page::PageToken::new(commonage_store::Version(9), "default/a", None)
                .encode(),
        )
    };
    let cases = [
        (
            ListOptions { resource_version: Some(1), continue_: token(), ..ListOptions::default() },
            400,
        ),
        (ListOptions { continue_: Some("nonsense!".to_owned()), ..ListOptions::default() }, 400),
        (ListOptions { continue_: Some("e30".to_owned()), ..ListOptions::default() }, 400),
    ];
    for (options, code) in cases {
        let error = world.list("ConfigMap", options.clone()).await.unwrap_err();
        assert_eq!(error.code, code, "{options:?}: {error}");
    }
    let any = ListOptions { limit: 1, resource_version: Some(0), ..ListOptions::default() };
    assert_eq!(world.list("ConfigMap", any).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn the_trigger_field_has_an_index_that_pages_too() {
    let world = World::new().await;
    for number in 0..6 {
        let name = format!("t{number}");
        world.create(task(&name)).await.unwrap();
        let agent = if number % 2 == 0 { "even" } else { "odd" };
        world.post("Task", &name, "binding", json!({"agent": agent})).await.unwrap();
    }
    world.create(task("free")).await.unwrap();
    let by = |agent: &str, limit, continue_| ListOptions {
        field_selector: fielded(&format!("spec.agent={agent}")),
        limit,
        continue_,
        ..ListOptions::default()
    };
    let first = world.list("Task", by("even", 2, None)).await.unwrap();
    assert_eq!(names(&first), ["t0", "t2"]);
    let all = world.list("Task", ListOptions { limit: 4, ..ListOptions::default() }).await.unwrap();
    world.create(task("later")).await.unwrap();
    let second = world.list("Task", by("even", 2, first.continue_)).await.unwrap();
    assert_eq!((names(&second), &second.continue_), (vec!["t4"], &None));
    let rest = ListOptions { limit: 4, continue_: all.continue_, ..ListOptions::default() };
    assert_eq!(names(&world.list("Task", rest).await.unwrap()), ["t3", "t4", "t5"]);
    assert_eq!(names(&world.list("Task", by("", 0, None)).await.unwrap()), ["free", "later"]);
    for name in ["t1", "t3"] {
        world.delete("Task", name).await.unwrap();
        world.merge("Task", name, None, json!({"metadata": {"finalizers": null}})).await.unwrap();
    }
    assert_eq!(names(&world.list("Task", by("odd", 0, None)).await.unwrap()), ["t5"]);
    assert!(names(&world.list("Task", by("nobody", 0, None)).await.unwrap()).is_empty());
}

#[tokio::test]
async fn each_trigger_field_has_an_index() {
    let world = World::new().await;
    for number in 0..20 {
        let mut made = task(&format!("t{number:02}"));
        // One has nearly all, two have few.
        let framework = ["spark", "flink"].get(number).unwrap_or(&"most");
        made["spec"]["framework"] = json!(framework);
        world.create(made).await.unwrap();
    }
    let of = async |selector: &str| {
        let field_selector = fielded(selector);
        let options = ListOptions { field_selector, ..ListOptions::default() };
        let list = world.list("Task", options).await.unwrap();
        (list.items.len(), names(&list).first().map(|name| (*name).to_owned()))
    };
    assert_eq!(of("spec.framework=spark").await, (1, Some("t00".to_owned())));
    assert_eq!(of("spec.framework=flink").await, (1, Some("t01".to_owned())));
    assert_eq!(of("spec.framework=most").await, (18, Some("t02".to_owned())));
    assert_eq!(of("spec.framework=none").await, (0, None));
    world.post("Task", "t01", "binding", json!({"agent": "node-1"})).await.unwrap();
    assert_eq!(of("spec.framework=flink,spec.agent=node-1").await.0, 1);
    assert_eq!(of("spec.framework=spark,spec.agent=node-1").await.0, 0);
    assert_eq!(of("spec.framework=flink").await.0, 1, "it is still its framework's");
    world.delete("Task", "t00").await.unwrap();
    world.merge("Task", "t00", None, json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert_eq!(of("spec.framework=spark").await, (0, None));
}

/// What others wrote in the same revision, but behind it, is not there yet.
#[tokio::test]
async fn a_list_at_a_version_within_a_revision_shows_no_more_than_that() {
    let world = with_maps(&["a", "b", "c"]).await;
    let def = world.def("ConfigMap");
    let key = |name: &str| Bytes::from(def.key("default", name));
    let stored = world.store.get(&key("a"), None).await.unwrap().unwrap().value;
    let text = String::from_utf8(stored.to_vec()).unwrap();
    let put = |name: &str| {
        let value = text.replace("\"name\":\"a\"", &format!("\"name\":\"{name}\""));
        Op::Put { key: key(name), value: value.into() }
    };
    let delete = Op::Delete { key: key("b") };
    let ops = vec![put("x"), put("c"), delete, put("y")];
    let committed = world.store.commit(GuardedWrite { compares: vec![], ops }).await.unwrap();
    let shown = async |place: usize| {
        let options = ListOptions {
            resource_version: Some(committed.versions[place].0),
            version_match: Some(VersionMatch::Exact),
            ..ListOptions::default()
        };
        let list = world.list("ConfigMap", options).await.unwrap();
        assert_eq!(list.version, committed.versions[place]);
        let c = list.items.iter().find(|object| object.name() == "c").unwrap();
        (names(&list).join(" "), c.version == committed.versions[1])
    };
    for later in [false, true] {
        if later {
            world.create(config_map("z", json!({}))).await.unwrap();
        }
        assert_eq!(shown(0).await, ("a b c x".to_owned(), false));
        assert_eq!(shown(1).await, ("a b c x".to_owned(), true));
        assert_eq!(shown(2).await, ("a c x".to_owned(), true));
        assert_eq!(shown(3).await, ("a c x y".to_owned(), true));
    }
}
