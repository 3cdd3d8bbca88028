//! A store in which something lies that is no object, or that cannot be decrypted; and one that has
//! no room.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use commonage_store::{Compare, GuardedWrite, Op};

use super::*;

async fn lay(world: &World, name: &str, value: &'static [u8]) {
    let key: Bytes = world.def("ConfigMap").key("default", name).into();
    let ops = vec![Op::Put { key, value: Bytes::from_static(value) }];
    let laid =
        world.store.commit(GuardedWrite { compares: Vec::<Compare>::new(), ops }).await.unwrap();
    world.engine.cache.reached(laid.revision).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_left_out_said_and_deleted() {
    let store = Arc::new(MemoryStore::new());
    let world = World::over(store.clone()).await;
    let mut watch = world.watch("ConfigMap", watch_options()).await;
    for name in ["a", "b", "c"] {
        world.create(config_map(name, json!({}))).await.unwrap();
        assert_eq!(watch.short().await, format!("ADDED {name}"));
    }
    lay(&world, "b", b"\x00\x01 no object").await;
    lay(&world, "new", b"{\"kind\":\"ConfigMap\"}").await;
    assert_eq!(watch.short().await, "DELETED b");
    world.merge("ConfigMap", "c", None, json!({"data": {"a": "2"}})).await.unwrap();
    assert_eq!(watch.short().await, "MODIFIED c");

    // A server that starts on it goes on as well.
    let again = World::over(store).await;
    for world in [&world, &again] {
        let list = world.list("ConfigMap", ListOptions::default()).await.unwrap();
        let names: Vec<&str> = list.items.iter().map(|object| object.name()).collect();
        assert_eq!(names, ["a", "c"]);
        for name in ["b", "new"] {
            let error = world.get("ConfigMap", name).await.unwrap_err();
            assert_eq!(error.code, 500);
            assert!(error.message.contains(&format!("configmaps \"{name}\"")), "{error}");
            let change = json!({"data": {"a": "2"}});
            let error = world.merge("ConfigMap", name, None, change).await.unwrap_err();
            assert_eq!(error.code, 500, "{error}");
        }
    }
    world.delete("ConfigMap", "b").await.unwrap();
    world.delete("ConfigMap", "new").await.unwrap();
    assert_eq!(again.get("ConfigMap", "b").await.unwrap_err().code, 404);
    again.create(config_map("b", json!({}))).await.unwrap();
    assert_eq!(world.get("ConfigMap", "b").await.unwrap()["data"]["a"], "1");
    assert_eq!(watch.short().await, "ADDED b");
}
