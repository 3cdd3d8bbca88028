//! CustomResourceDefinitions with more than one server over one store.
#![allow(clippy::unwrap_used)]

use commonage_store::memory::MemoryStore;
use serde_json::json;

use super::*;

fn widgets() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"size": {"type": "integer"}}},
                }}},
            }],
        },
    })
}

/// The definition of widgets once the server serves them; `None` once it does not.
async fn until_served(world: &World, served: bool) -> Option<Arc<ResourceDef>> {
    let mut changes = world.engine.scheme_changes();
    let waiting = async {
        loop {
            let found = world.engine.scheme().get("example.com", "v1", "widgets").cloned();
            if found.is_some() == served {
                return found;
            }
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the scheme follows")
}

#[tokio::test]
async fn every_server_follows_the_definitions() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (one, other) = (World::over(store.clone()).await, World::over(store).await);
    one.create(widgets()).await.unwrap();
    let body = json!({
        "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": {"size": 3},
    });
    let def = until_served(&other, true).await.unwrap();
    other.engine.create(&def, "default", body, options()).await.unwrap();
    let def = until_served(&one, true).await.unwrap();
    let seen = one.engine.get(&def, "default", "a", None).await.unwrap();
    assert_eq!(seen.to_value()["spec"]["size"], 3);
    let definition = one.get("CustomResourceDefinition", "widgets.example.com").await.unwrap();
    assert_eq!(definition["status"]["conditions"].as_array().unwrap().len(), 2);

    other.delete("CustomResourceDefinition", "widgets.example.com").await.unwrap();
    until_served(&one, false).await;
    until_served(&other, false).await;
    let gone = one.get("CustomResourceDefinition", "widgets.example.com").await.unwrap_err();
    assert_eq!(gone.code, 404);
    for world in [&one, &other] {
        assert!(world.engine.resource(&def).is_err(), "nothing is cached of a kind that is gone");
    }
}
