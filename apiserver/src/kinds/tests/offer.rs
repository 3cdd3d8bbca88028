//! Offers: accept, decline, and who is too late.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::engine::{DeleteOptions, Deleted, ListOptions};

fn launch(tasks: &[Value]) -> Value {
    json!({"kind": "OfferAcceptance", "operations": [{"launch": {"tasks": tasks}}]})
}

fn sized(name: &str, cpu: &str) -> Value {
    let mut task = new_task(name);
    task["spec"]["resources"] = json!({"cpu": cpu, "memory": "4Mi"});
    task
}

async fn with_offer(resources: Value) -> World {
    let world = World::new().await;
    world.create(offer("o", resources)).await.unwrap();
    world
}

/// Nothing was written: the offer is open, there is no task.
async fn untouched(world: &World) -> bool {
    let tasks = world.list("Task", ListOptions::default()).await.unwrap();
    let offer = world.get("Offer", "o").await.unwrap();
    tasks.items.is_empty()
        && offer["metadata"]["deletionTimestamp"].is_null()
        && offer["status"].is_null()
}

#[tokio::test]
async fn an_acceptance_makes_the_tasks_and_marks_the_offer_in_one_step() {
    let world = with_offer(json!({"cpu": "4", "memory": "1Gi", "ports": "31000-31003"})).await;
    let mut first = sized("a", "1");
    first["spec"]["container"]["ports"] = json!([{"hostPort": 0}, {"hostPort": 31000}]);
    let mut second = sized("b", "3");
    second["spec"]["container"]["ports"] = json!([{"name": "http"}]);
    second["spec"]["framework"] = json!("spark");
    let mut body = launch(&[first, second]);
    body["filter"] = json!({"refuseSeconds": 60});
    let answer = world.post("Offer", "o", "accept", body).await.unwrap();
    assert_eq!(
        (&answer["kind"], &answer["status"]["tasks"]),
        (&json!("OfferAcceptance"), &json!(["a", "b"]))
    );
    let task = world.get("Task", "a").await.unwrap();
    assert_eq!(answer["operations"][0]["launch"]["tasks"][0], task);
    let spec = &task["spec"];
    let expected =
        [("framework", "spark"), ("queue", "eng.batch"), ("agent", "node-1"), ("offer", "o")];
    assert!(expected.into_iter().all(|(field, value)| spec[field] == value), "{spec}");
    assert_eq!((&task["status"]["state"], states(&task)), (&json!("Staging"), vec!["Staging"]));
    assert_eq!(task["status"]["hostPorts"], json!([31001, 31000]));
    assert_eq!(task["metadata"]["finalizers"], json!(["commonage.dev/task"]));
    assert_eq!(
        world.get("Task", "b").await.unwrap()["spec"]["container"]["ports"][0]["hostPort"],
        31002
    );
    let offer = world.get("Offer", "o").await.unwrap();
    assert!(offer["metadata"]["deletionTimestamp"].is_string());
    let verdict = &offer["status"]["answer"];
    assert_eq!(
        (&verdict["verdict"], &verdict["refuseSeconds"]),
        (&json!("Accepted"), &json!(60.0))
    );
    assert_eq!(verdict["tasks"], json!(["a", "b"]));
    let revision = |object: &Value| crate::engine::tests::version_of(object) / 256;
    assert_eq!(revision(&offer), revision(&task));
    for subresource in ["accept", "decline"] {
        let error = world.post("Offer", "o", subresource, launch(&[sized("c", "1")])).await.err();
        let error = error.unwrap();
        assert_eq!((error.code, &*error.reason), (409, "OfferGone"), "{subresource}");
    }
    // The allocator has accounted for it.
    world.merge("Offer", "o", None, json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert_eq!(world.get("Offer", "o").await.unwrap_err().code, 404);
    let error = world.post("Offer", "o", "accept", launch(&[])).await.unwrap_err();
    assert_eq!(&*error.reason, "OfferGone");
}

#[tokio::test]
async fn what_does_not_fit_changes_nothing_and_names_operation_and_field() {
    let offered = json!({"cpu": "2", "ports": "31000-31001"});
    let mut other_queue = sized("t", "1");
    other_queue["spec"]["queue"] = json!("eng.other");
    let mut other_framework = sized("t", "1");
    other_framework["spec"]["framework"] = json!("flink");
    let mut other_agent = sized("t", "1");
    other_agent["spec"]["agent"] = json!("node-2");
    let mut outside = sized("t", "1");
    outside["spec"]["container"]["ports"] = json!([{"hostPort": 0}, {"hostPort": 8080}]);
    let mut too_many_ports = sized("t", "1");
    too_many_ports["spec"]["container"]["ports"] = json!([{}, {}, {}]);
    let mut wrong = sized("t", "1");
    wrong["spec"]["priority"] = json!("high");
    let mut no_command = sized("t", "1");
    no_command["spec"]["container"] = json!({});
    let mut twice = sized("t", "1");
    twice["spec"]["container"]["env"] =
        json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]);
    let mut tiny = sized("t", "1");
    tiny["spec"]["resources"]["memory"] = json!("0");
    let cases = [
        (vec![sized("a", "1"), sized("b", "1500m")], "[1].spec.resources.cpu"),
        (vec![new_task("t")], "[0].spec.resources.memory"),
        (vec![sized("a", "1"), other_queue], "[1].spec.queue"),
        (vec![other_framework], "[0].spec.framework"),
        (vec![other_agent], "[0].spec.agent"),
        (vec![outside], "[0].spec.container.ports[1].hostPort"),
        (vec![too_many_ports], "[0].spec.container.ports"),
        (vec![sized("a", "1"), sized("a", "1")], "[1].metadata.name"),
        (vec![sized("a", "1"), wrong], "[1].spec.priority"),
        (vec![twice], "[0].spec.container.env[1].name"),
        (vec![tiny], "[0].spec.resources.memory"),
        (vec![no_command], "[0].spec.container.command"),
    ];
    let world = with_offer(offered).await;
    for (tasks, field) in cases {
        let error = world.post("Offer", "o", "accept", launch(&tasks)).await.unwrap_err();
        assert_eq!(
            (error.code, fields(&error)),
            (422, vec![&*format!("operations[0].launch.tasks{field}")]),
            "{error}"
        );
        assert!(untouched(&world).await, "{field}");
    }
    let unknown = json!({"operations": [{"merge": {}}]});
    let error = world.post("Offer", "o", "accept", unknown).await.unwrap_err();
    assert_eq!((error.code, fields(&error)), (422, vec!["operations[0]"]));
    let many: Vec<Value> = (0..101).map(|number| sized(&format!("t{number}"), "1m")).collect();
    assert_eq!(world.post("Offer", "o", "accept", launch(&many)).await.unwrap_err().code, 422);
    world.create(sized("taken", "1")).await.unwrap();
    let error =
        world.post("Offer", "o", "accept", launch(&[sized("taken", "1")])).await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (409, "AlreadyExists"));
}

#[tokio::test]
async fn several_offers_of_one_agent_add_up() {
    let world = with_offer(json!({"cpu": "1"})).await;
    world.create(offer("p", json!({"cpu": "2", "memory": "1Gi"}))).await.unwrap();
    let mut elsewhere = offer("q", json!({"cpu": "2"}));
    elsewhere["spec"]["agent"] = json!("node-2");
    world.create(elsewhere).await.unwrap();
    let with = |offers: Value| {
        let mut body = launch(&[sized("t", "3")]);
        body["offers"] = offers;
        world.post("Offer", "o", "accept", body)
    };
    let error = with(json!(["p", "q"])).await.unwrap_err();
    assert_eq!((error.code, fields(&error)), (422, vec!["offers[1]"]));
    assert_eq!(&*with(json!(["none"])).await.unwrap_err().reason, "OfferGone");
    assert!(untouched(&world).await);
    with(json!(["p", "o"])).await.unwrap();
    for name in ["o", "p"] {
        assert_eq!(
            world.get("Offer", name).await.unwrap()["status"]["answer"]["tasks"],
            json!(["t"]),
            "{name}"
        );
    }
}

#[tokio::test]
async fn of_many_who_accept_one_wins() {
    let world = with_offer(json!({"cpu": "1"})).await;
    let accepts = (0..8).map(|number| {
        world.post("Offer", "o", "accept", launch(&[sized(&format!("t{number}"), "1")]))
    });
    let results = futures::future::join_all(accepts).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(
        results
            .iter()
            .flat_map(|result| result.as_ref().err())
            .all(|error| error.reason == "OfferGone")
    );
    assert_eq!(world.list("Task", ListOptions::default()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_plain_create_may_use_up_an_offer() {
    let world = with_offer(json!({"cpu": "1"})).await;
    let mut task = sized("", "2");
    task["metadata"] = json!({"generateName": "t-"});
    task["spec"]["offer"] = json!("o");
    let error = world.create(task.clone()).await.unwrap_err();
    assert_eq!((error.code, fields(&error)), (422, vec!["spec.resources.cpu"]));
    task["spec"]["resources"]["cpu"] = json!("1");
    let created = world.create(task.clone()).await.unwrap();
    let object = created.object.to_value();
    assert_eq!(
        (&object["spec"]["agent"], &object["status"]["state"]),
        (&json!("node-1"), &json!("Staging"))
    );
    assert_eq!(&*world.create(task).await.unwrap_err().reason, "OfferGone");
}

#[tokio::test]
async fn declining_and_deleting_say_why() {
    let cases: [(&str, Value, f64); 3] = [
        ("o1", json!({}), 5.0),
        ("o2", json!({"refuseSeconds": 0}), 0.0),
        ("o3", json!({"refuseSeconds": 1e12}), 31_536_000.0),
    ];
    let world = World::new().await;
    for (name, body, seconds) in cases {
        world.create(offer(name, json!({"cpu": "1"}))).await.unwrap();
        let answer = world.post("Offer", name, "decline", body).await.unwrap();
        assert_eq!(
            (&answer["kind"], answer["refuseSeconds"].as_f64()),
            (&json!("OfferDecline"), Some(seconds))
        );
        let verdict = world.get("Offer", name).await.unwrap()["status"]["answer"].clone();
        assert_eq!(
            (&verdict["verdict"], verdict["refuseSeconds"].as_f64()),
            (&json!("Declined"), Some(seconds))
        );
    }
    let mut expired = offer("expired", json!({"cpu": "1"}));
    expired["spec"]["expiresAt"] = json!("2020-01-01T00:00:00Z");
    world.create(expired).await.unwrap();
    world.create(offer("user", json!({"cpu": "1"}))).await.unwrap();
    world.create(offer("rescinded", json!({"cpu": "1"}))).await.unwrap();
    let error = world.post("Offer", "expired", "accept", launch(&[])).await.unwrap_err();
    assert_eq!(&*error.reason, "OfferGone");
    let allocator = UserInfo::controllers;
    let cases = [
        ("user", UserInfo::admin(), "Declined"),
        ("expired", allocator(), "Expired"),
        ("rescinded", allocator(), "Rescinded"),
    ];
    for (name, user, verdict) in cases {
        let def = world.def("Offer");
        let deleted = world
            .engine
            .delete(&def, "default", name, DeleteOptions::default(), as_user(user))
            .await
            .unwrap();
        let Deleted::Marked(offer) = deleted else { panic!("the allocator's finalizer holds it") };
        assert_eq!(offer.to_value()["status"]["answer"]["verdict"], verdict);
    }
}

#[tokio::test]
async fn tasks_that_name_no_resources_take_the_default_out_of_the_offer() {
    let mut bare = new_task("t");
    bare["spec"]["resources"] = json!({});
    let world = with_offer(json!({"cpu": "1", "memory": "60Mi"})).await;
    let error = world.post("Offer", "o", "accept", launch(&[bare.clone()])).await.unwrap_err();
    assert_eq!(fields(&error), ["operations[0].launch.tasks[0].spec.resources.memory"]);
    world.create(offer("p", json!({"cpu": "1", "memory": "64Mi"}))).await.unwrap();
    world.post("Offer", "p", "accept", launch(&[bare])).await.unwrap();
    let task = world.get("Task", "t").await.unwrap();
    assert_eq!(task["spec"]["resources"], json!({"cpu": "100m", "memory": "64Mi"}));
}
