//! A framework that answers offers itself, by plain HTTP through the real client library.

use std::time::Duration;

use commonage_e2e::{Cluster, PATIENCE};
use commonage_schemas::{
    Framework, FrameworkSpec, Offer, OfferAcceptance, OfferDecline, Resources, Task, TaskSpec,
    framework::OfferPolicy,
    offer::OfferVerdict,
    task::{Container, ContainerPort},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, PostParams},
};
use serde::Serialize;

const NAMESPACE: &str = "default";

async fn framework(client: &Client, name: &str) -> Framework {
    let spec = FrameworkSpec { queues: vec!["batch".to_owned()], ..FrameworkSpec::default() };
    let api = Api::<Framework>::namespaced(client.clone(), NAMESPACE);
    api.create(&PostParams::default(), &Framework::new(name, spec)).await.unwrap()
}

/// Waits for an offer to `framework` that nobody has answered.
async fn offer(client: &Client, framework: &str) -> Offer {
    let api = Api::<Offer>::namespaced(client.clone(), NAMESPACE);
    let mine = ListParams::default().fields(&format!("spec.framework={framework}"));
    let found = async {
        let mut glance = tokio::time::interval(Duration::from_millis(20));
        loop {
            glance.tick().await;
            let offers = api.list(&mine).await.unwrap();
            if let Some(open) = offers.into_iter().find(|o| o.metadata.deletion_timestamp.is_none())
            {
                return open;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("an offer")
}

fn task(name: &str, cpu: &str, ports: &[i32]) -> Task {
    let container = Container {
        command: vec!["true".to_owned()],
        ports: ports
            .iter()
            .map(|p| ContainerPort { host_port: *p, ..ContainerPort::default() })
            .collect(),
        ..Container::default()
    };
    let resources = Resources::from_pairs([("cpu", cpu), ("memory", "32Mi")]).unwrap();
    Task::new(name, TaskSpec { resources, container, ..TaskSpec::default() })
}

async fn post<B: Serialize>(
    client: &Client,
    offer: &Offer,
    verb: &str,
    body: &B,
) -> Result<serde_json::Value, kube::core::Status> {
    let path = format!("{}/{}/{verb}", Offer::url_path(&(), Some(NAMESPACE)), offer.name_any());
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(serde_json::to_vec(body).unwrap())
        .unwrap();
    match client.request(request).await {
        Ok(answer) => Ok(answer),
        Err(kube::Error::Api(status)) => Err(*status),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_accepted_offer_becomes_tasks_and_is_gone() {
    let cluster = Cluster::start();
    let client = cluster.client().await.unwrap();
    framework(&client, "answers").await;
    let first = offer(&client, "answers").await;

    let tasks = vec![task("one", "0.1", &[]), task("two", "0.1", &[0])];
    let answer = post(&client, &first, "accept", &OfferAcceptance::launch(tasks)).await.unwrap();
    assert_eq!(answer["status"]["tasks"], serde_json::json!(["one", "two"]));

    cluster.wait_for_state("one", &["Finished"]);
    cluster.wait_for_state("two", &["Finished"]);
    assert_eq!(cluster.field("task/one", ".spec.agent"), first.spec.agent);
    assert_eq!(cluster.field("task/one", ".spec.offer"), first.name_any());
    let port: u16 = cluster.field("task/two", ".spec.container.ports[0].hostPort").parse().unwrap();
    assert!(first.spec.resources.ports().unwrap().has(port), "port {port} is not of the offer");

    // What was used up can't be used again.
    let again =
        post(&client, &first, "accept", &OfferAcceptance::launch(vec![task("three", "0.1", &[])]))
            .await;
    let refused = again.unwrap_err();
    assert!(matches!(refused.code, 404 | 409), "{refused:?}");
    assert_eq!(cluster.kubectl(&["get", "task", "three", "--ignore-not-found"]).ok(), "");
}

#[tokio::test]
async fn an_acceptance_that_asks_for_too_much_changes_nothing() {
    let cluster = Cluster::start();
    let client = cluster.client().await.unwrap();
    framework(&client, "greedy").await;
    framework(&client, "other").await;
    let theirs = offer(&client, "greedy").await;

    let mut foreign = task("foreign", "0.1", &[]);
    foreign.spec.framework = Some("other".to_owned());
    let cases = [
        (vec![task("fits", "0.1", &[]), task("big", "1000", &[])], "operations[0].launch.tasks[1]"),
        (vec![task("outside", "0.1", &[80])], "hostPort"),
        (vec![foreign], "spec.framework"),
        (
            vec![
                task("negative", "0.1", &[]),
                Task {
                    spec: TaskSpec { resources: Resources::new(), ..TaskSpec::default() },
                    ..task("wordless", "0.1", &[])
                },
            ],
            "operations[0].launch.tasks[1].spec.container.command",
        ),
    ];
    for (tasks, field) in cases {
        let refused =
            post(&client, &theirs, "accept", &OfferAcceptance::launch(tasks)).await.unwrap_err();
        assert!(refused.message.contains(field), "no {field:?} in {refused:?}");
        assert_eq!(cluster.kubectl(&["get", "tasks", "-o", "name"]).ok(), "");
    }
    // The offer still stands.
    let answer =
        post(&client, &theirs, "accept", &OfferAcceptance::launch(vec![task("right", "0.1", &[])]))
            .await;
    assert!(answer.is_ok(), "{answer:?}");
    cluster.wait_for_state("right", &["Finished"]);
}

#[tokio::test]
async fn a_task_that_names_an_offer_uses_it_up() {
    let cluster = Cluster::start();
    let client = cluster.client().await.unwrap();
    framework(&client, "plain").await;
    let offer = offer(&client, "plain").await;
    let tasks = Api::<Task>::namespaced(client.clone(), NAMESPACE);
    let mut by_offer = task("by-offer", "0.1", &[]);
    by_offer.spec.offer = Some(offer.name_any());
    by_offer.spec.framework = Some("plain".to_owned());
    tasks.create(&PostParams::default(), &by_offer).await.unwrap();
    cluster.wait_for_state("by-offer", &["Finished"]);

    by_offer.metadata.name = Some("again".to_owned());
    let refused = tasks.create(&PostParams::default(), &by_offer).await.unwrap_err();
    assert!(refused.to_string().contains(&offer.name_any()), "{refused}");
}

#[tokio::test]
async fn a_declined_offer_stays_away_for_a_while() {
    let cluster = Cluster::start();
    let client = cluster.client().await.unwrap();
    framework(&client, "picky").await;
    let first = offer(&client, "picky").await;
    post(&client, &first, "decline", &OfferDecline::new(Some(600.0))).await.unwrap();
    // Somebody else gets what was declined.
    framework(&client, "hungry").await;
    let second = offer(&client, "hungry").await;
    assert_eq!(second.spec.agent, first.spec.agent);
    let refused = post(&client, &first, "decline", &OfferDecline::new(None)).await.unwrap_err();
    assert!(matches!(refused.code, 404 | 409), "{refused:?}");
    assert_ne!(
        second.status.and_then(|s| s.answer).map(|a| a.verdict),
        Some(OfferVerdict::Accepted)
    );
}

/// Frameworks that nobody serves have the smallest share of all and are offered whatever is free:
/// tasks that the control plane places must run all the same.
#[tokio::test]
async fn silent_frameworks_do_not_starve_placed_tasks() {
    let cluster = Cluster::start();
    let client = cluster.client().await.unwrap();
    let tasks = Api::<Task>::namespaced(client.clone(), NAMESPACE);
    let sleeper = |name: &str| {
        let mut task = task(name, "0.1", &[]);
        task.spec.container.command = vec!["sleep".to_owned(), "600".to_owned()];
        task
    };
    tasks.create(&PostParams::default(), &sleeper("first")).await.unwrap();
    cluster.wait_for_state("first", &["Running"]);
    let frameworks = Api::<Framework>::namespaced(client.clone(), NAMESPACE);
    for name in ["fa", "fb"] {
        let offers = OfferPolicy { timeout_seconds: 600, ..OfferPolicy::default() };
        let spec = FrameworkSpec {
            queues: vec![name.to_owned()],
            offers: Some(offers),
            ..FrameworkSpec::default()
        };
        frameworks.create(&PostParams::default(), &Framework::new(name, spec)).await.unwrap();
    }
    // One of them holds all that is free, and would for ten minutes.
    tokio::select! {
        _ = offer(&client, "fa") => {}
        _ = offer(&client, "fb") => {}
    }
    for name in ["second", "third"] {
        tasks.create(&PostParams::default(), &sleeper(name)).await.unwrap();
        cluster.wait_for_state(name, &["Running"]);
    }
}
