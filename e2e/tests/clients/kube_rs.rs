//! kube-rs: what its runtime gives to the author of a controller.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use commonage_e2e::PATIENCE;
use futures::{Stream, StreamExt};
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{ConfigMap, Namespace},
        events::v1 as events,
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, CustomResource, Discovery, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{
        Controller, WatchStreamExt,
        controller::Action,
        events::{Event, EventType, Recorder},
        finalizer::{self, finalizer},
        reflector, watcher,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cluster_with_parts;

const NAMESPACE: &str = "kube-rs";

#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(group = "workshop.example", version = "v1", kind = "Part", plural = "parts")]
#[kube(namespaced, status = "PartStatus", schema = "disabled")]
struct PartSpec {
    color: String,
    replicas: Option<i64>,
    note: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct PartStatus {
    replicas: Option<i64>,
}

fn part(name: &str, color: &str) -> Part {
    Part::new(name, PartSpec { color: color.to_owned(), ..PartSpec::default() })
}

/// The first item of a stream that is as wanted.
async fn first<T>(what: &str, stream: impl Stream<Item = T>, wanted: impl Fn(&T) -> bool) -> T {
    let mut stream = pin!(stream);
    let found = async {
        loop {
            let item = stream.next().await.unwrap();
            if wanted(&item) {
                return item;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("waited for {what}"))
}

#[tokio::test]
async fn kube_rs_does_its_work() {
    let cluster = tokio::task::spawn_blocking(cluster_with_parts).await.unwrap();
    let client = cluster.client().await.unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let named = ObjectMeta { name: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata: named, ..Namespace::default() };
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();

    discovery(&client).await;
    applying(&client).await;
    reflecting(&client, watcher::Config::default(), "by-list").await;
    reflecting(&client, watcher::Config::default().streaming_lists(), "by-watch").await;
    recording(&client).await;
    leading(&client).await;
    controlling(&client).await;

    let parts: Api<Part> = Api::namespaced(client.clone(), NAMESPACE);
    parts.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    assert!(parts.list(&ListParams::default()).await.unwrap().items.is_empty());
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await.unwrap();
    tokio::task::spawn_blocking(move || drop(cluster)).await.unwrap();
}

/// Both ways of discovery find the same: of each kind the operations, and the subresources.
async fn discovery(client: &Client) {
    let seen = |found: Discovery| {
        let mut kinds = BTreeMap::new();
        for group in found.groups() {
            for (resource, capabilities) in group.recommended_resources() {
                let mut operations = capabilities.operations;
                operations.sort();
                let mut subresources: Vec<String> =
                    capabilities.subresources.into_iter().map(|(s, _)| s.plural).collect();
                subresources.sort();
                kinds.insert(format!("{resource:?}"), (operations, subresources));
            }
        }
        kinds
    };
    let one_by_one = seen(Discovery::new(client.clone()).run().await.unwrap());
    let at_once = seen(Discovery::new(client.clone()).run_aggregated().await.unwrap());
    assert!(one_by_one.keys().any(|kind| kind.contains("workshop.example")), "{one_by_one:?}");
    assert_eq!(one_by_one.keys().collect::<Vec<_>>(), at_once.keys().collect::<Vec<_>>());
    assert_eq!(
        one_by_one.values().map(|found| &found.0).collect::<Vec<_>>(),
        at_once.values().map(|found| &found.0).collect::<Vec<_>>()
    );
}

async fn applying(client: &Client) {
    let parts: Api<Part> = Api::namespaced(client.clone(), NAMESPACE);
    let wanted = |color| {
        json!({
            "apiVersion": "workshop.example/v1", "kind": "Part", "spec": {"color": color},
            "metadata": {"name": "applied"},
        })
    };
    let apply = async |manager, color, force| {
        let how = PatchParams { force, ..PatchParams::apply(manager) };
        parts.patch("applied", &how, &Patch::Apply(wanted(color))).await
    };
    let made = apply("one", "red", false).await.unwrap();
    assert_eq!(made.managed_fields()[0].manager.as_deref(), Some("one"));
    let same = apply("one", "red", false).await.unwrap();
    assert_eq!(same.resource_version(), made.resource_version(), "nothing changed");
    let kube::Error::Api(conflict) = apply("two", "blue", false).await.unwrap_err() else {
        panic!("not the server's refusal")
    };
    assert_eq!((conflict.code, &*conflict.reason), (409, "Conflict"));
    assert_eq!(
        conflict.message,
        r#"Apply failed with 1 conflict: conflict with "one": .spec.color"#
    );
    let taken = apply("two", "blue", true).await.unwrap();
    assert_eq!(taken.spec.color, "blue");

    let status = json!({
        "apiVersion": "workshop.example/v1", "kind": "Part", "status": {"replicas": 7},
    });
    let how = PatchParams::apply("three").force();
    let reported = parts.patch_status("applied", &how, &Patch::Apply(status)).await.unwrap();
    assert_eq!(reported.status.unwrap().replicas, Some(7));
    let scale = parts.get_scale("applied").await.unwrap();
    assert_eq!(scale.status.unwrap().replicas, 7);
}

/// A store that is kept up to date, filled by a list or by a watch that begins with what there is.
async fn reflecting(client: &Client, config: watcher::Config, name: &str) {
    let parts: Api<Part> = Api::namespaced(client.clone(), NAMESPACE);
    parts.create(&PostParams::default(), &part(name, "red")).await.unwrap();
    let (store, writer) = reflector::store::<Part>();
    let mut changes =
        pin!(watcher(parts.clone(), config).reflect(writer).map(Result::unwrap).boxed());
    let done = |event: &watcher::Event<Part>| matches!(event, watcher::Event::InitDone);
    first("the first list", &mut changes, done).await;
    let known = reflector::ObjectRef::new(name).within(NAMESPACE);
    assert_eq!(store.get(&known).unwrap().spec.replicas, Some(1));

    let change = json!({"spec": {"color": "green"}});
    parts.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    let applied = |event: &watcher::Event<Part>| matches!(event, watcher::Event::Apply(_));
    first("the change", &mut changes, applied).await;
    assert_eq!(store.get(&known).unwrap().spec.color, "green");

    parts.delete(name, &DeleteParams::default()).await.unwrap();
    let deleted = |event: &watcher::Event<Part>| matches!(event, watcher::Event::Delete(_));
    first("the deletion", &mut changes, deleted).await;
    assert!(store.get(&known).is_none());
}

/// The same event again is counted, not repeated.
async fn recording(client: &Client) {
    let parts: Api<Part> = Api::namespaced(client.clone(), NAMESPACE);
    let about = parts.get("applied").await.unwrap().object_ref(&());
    let recorder = Recorder::new(client.clone(), "workshop".into());
    let event = Event {
        type_: EventType::Normal,
        reason: "Painted".into(),
        note: Some("it is blue now".into()),
        action: "Paint".into(),
        secondary: None,
    };
    for _ in 0..3 {
        recorder.publish(&event, &about).await.unwrap();
    }
    let found: Api<events::Event> = Api::namespaced(client.clone(), NAMESPACE);
    let found = found.list(&ListParams::default()).await.unwrap().items;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].series.as_ref().map(|series| series.count), Some(3));
    // The same as core/v1 has it.
    let core: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(client.clone(), NAMESPACE);
    let about = ListParams::default().fields("involvedObject.name=applied,reason=Painted");
    assert_eq!(core.list(&about).await.unwrap().items.len(), 1);
}

/// Of two who want a lease one gets it, the other once it was given up.
async fn leading(client: &Client) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let lease = |holder: Option<&str>, version| Lease {
        metadata: ObjectMeta {
            name: Some("leader".to_owned()),
            resource_version: version,
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        }),
    };
    let post = PostParams::default();
    let (one, two) = (lease(Some("one"), None), lease(Some("two"), None));
    let answers = tokio::join!(leases.create(&post, &one), leases.create(&post, &two));
    let won = match answers {
        (Ok(won), Err(kube::Error::Api(lost))) | (Err(kube::Error::Api(lost)), Ok(won)) => {
            assert_eq!((lost.code, &*lost.reason), (409, "AlreadyExists"));
            won
        }
        other => panic!("not one leader: {other:?}"),
    };
    let version = won.resource_version();
    let renewed = lease(won.spec.unwrap().holder_identity.as_deref(), version.clone());
    let renewed = leases.replace("leader", &post, &renewed).await.unwrap();
    // Who looked before the renewal does not take it away.
    let stale = leases.replace("leader", &post, &lease(Some("three"), version)).await;
    assert!(matches!(stale, Err(kube::Error::Api(lost)) if lost.code == 409));
    let given_up = lease(None, renewed.resource_version());
    let given_up = leases.replace("leader", &post, &given_up).await.unwrap();
    let taken = lease(Some("three"), given_up.resource_version());
    let taken = leases.replace("leader", &post, &taken).await.unwrap();
    assert_eq!(taken.spec.unwrap().holder_identity.as_deref(), Some("three"));
}

/// A controller: every Part gets a ConfigMap of its own, which goes before the Part does.
async fn controlling(client: &Client) {
    let parts: Api<Part> = Api::namespaced(client.clone(), NAMESPACE);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let controller = Controller::new(parts.clone(), watcher::Config::default().labels("by=hand"))
        .owns(maps.clone(), watcher::Config::default())
        .run(
            |part, client| async move { reconcile(part, &client).await },
            |_, _, _| Action::requeue(Duration::from_millis(100)),
            Arc::new(client.clone()),
        );
    let controller = tokio::spawn(controller.for_each(|_| async {}));

    let mut wanted = part("controlled", "red");
    wanted.labels_mut().insert("by".to_owned(), "hand".to_owned());
    parts.create(&PostParams::default(), &wanted).await.unwrap();
    let made = |map: &Option<ConfigMap>| map.is_some();
    let object =
        |name| kube::runtime::watcher::watch_object(maps.clone(), name).map(Result::unwrap);
    let map = first("the map", object("controlled"), made).await.unwrap();
    assert_eq!(map.owner_references()[0].name, "controlled");

    // What it owns is made again.
    let first_uid = map.uid();
    maps.delete("controlled", &DeleteParams::default()).await.unwrap();
    let again = |map: &Option<ConfigMap>| map.as_ref().is_some_and(|map| map.uid() != first_uid);
    first("the map again", object("controlled"), again).await;

    let held = parts.get("controlled").await.unwrap();
    assert_eq!(held.finalizers(), ["workshop.example/kube-rs"]);
    parts.delete("controlled", &DeleteParams::default()).await.unwrap();
    let gone = |part: &Option<Part>| part.is_none();
    let object = kube::runtime::watcher::watch_object(parts.clone(), "controlled");
    first("the end", object.map(Result::unwrap), gone).await;
    assert!(maps.get_opt("controlled").await.unwrap().is_none());
    controller.abort();
}

async fn reconcile(
    part: Arc<Part>,
    client: &Client,
) -> Result<Action, finalizer::Error<kube::Error>> {
    let parts: Api<Part> = Api::namespaced(client.clone(), NAMESPACE);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    finalizer(&parts, "workshop.example/kube-rs", part, |event| async {
        match event {
            finalizer::Event::Apply(part) => {
                let map = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(part.name_any()),
                        owner_references: Some(vec![part.controller_owner_ref(&()).unwrap()]),
                        ..ObjectMeta::default()
                    },
                    data: Some([("color".to_owned(), part.spec.color.clone())].into()),
                    ..ConfigMap::default()
                };
                let how = PatchParams::apply("kube-rs").force();
                maps.patch(&part.name_any(), &how, &Patch::Apply(map)).await?;
            }
            finalizer::Event::Cleanup(part) => {
                let answer = maps.delete(&part.name_any(), &DeleteParams::default()).await;
                if let Err(error) = answer
                    && !matches!(&error, kube::Error::Api(status) if status.code == 404)
                {
                    return Err(error);
                }
            }
        }
        Ok(Action::await_change())
    })
    .await
}
