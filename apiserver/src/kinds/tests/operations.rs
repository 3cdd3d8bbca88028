//! What an acceptance can do beside launching: reservations and volumes; the same request twice.
#![allow(clippy::unwrap_used)]

use super::*;

fn accept(operations: Value) -> Value {
    json!({"kind": "OfferAcceptance", "operations": operations})
}

fn small(name: &str) -> Value {
    let mut task = new_task(name);
    task["spec"]["resources"] = json!({"cpu": "1", "memory": "64Mi"});
    task
}

fn mounting(name: &str, volume: &str) -> Value {
    let mut task = small(name);
    task["spec"]["container"]["mounts"] = json!([{"path": "/data", "volume": volume}]);
    task
}

async fn with_offer() -> World {
    let world = World::new().await;
    let all = json!({"cpu": "8", "memory": "8Gi", "disk": "100Gi", "ports": "31000-31009"});
    world.create(offer("o", all)).await.unwrap();
    world
}

/// The answer with its code.
async fn post(world: &World, name: &str, body: Value) -> Result<(u16, Value), ApiError> {
    let def = world.def("Offer");
    let (code, body) =
        world.engine.post_subresource(&def, "default", name, "accept", body, options()).await?;
    Ok((code, serde_json::from_slice(&body).unwrap()))
}

/// An offer of what the reservation `db` and its volume `vol` are.
async fn with_reservation() -> World {
    let world = with_offer().await;
    let body = accept(json!([
        {"reserve": {"name": "db", "resources": {"cpu": "2", "memory": "1Gi", "disk": "50Gi"}}},
        {"createVolume": {"name": "vol", "reservation": "db", "size": "10Gi"}},
    ]));
    assert_eq!(post(&world, "o", body).await.unwrap().0, 201);
    let mut next = offer("next", json!({"cpu": "3", "memory": "2Gi", "disk": "40Gi"}));
    next["spec"]["reserved"] = json!([
        {"reservation": "db", "resources": {"cpu": "2", "memory": "1Gi", "disk": "40Gi"}},
    ]);
    next["spec"]["volumes"] = json!([{"volume": "vol", "reservation": "db", "size": "10Gi"}]);
    world.create(next).await.unwrap();
    world
}

#[tokio::test]
async fn one_acceptance_reserves_makes_a_volume_and_launches_on_them() {
    let world = with_offer().await;
    let body = accept(json!([
        {"reserve": {"name": "db", "queue": "eng.batch.db",
                     "resources": {"cpu": "2", "memory": "1Gi", "disk": "50Gi"}}},
        {"createVolume": {"name": "vol", "reservation": "db", "size": "10Gi"}},
        {"launch": {"tasks": [mounting("t", "vol")]}},
    ]));
    let (code, answer) = post(&world, "o", body.clone()).await.unwrap();
    assert_eq!(code, 201);
    let did = json!({"tasks": ["t"], "reservations": ["db"], "volumes": ["vol"]});
    assert_eq!(answer["status"], did);
    let reservation = world.get("Reservation", "db").await.unwrap();
    assert_eq!(reservation["spec"]["agent"], "node-1");
    assert_eq!(reservation["spec"]["queue"], "eng.batch.db");
    assert_eq!(reservation["status"]["phase"], "Bound");
    assert_eq!(reservation["status"]["agents"], json!(["node-1"]));
    let volume = world.get("Volume", "vol").await.unwrap();
    assert_eq!(
        (&volume["status"]["phase"], &volume["status"]["size"]),
        (&json!("Bound"), &json!("10Gi"))
    );
    let task = world.get("Task", "t").await.unwrap();
    let drawn = json!([{"reservation": "db", "resources": {"cpu": "1", "memory": "64Mi"}}]);
    assert_eq!(task["spec"]["reserved"], drawn);
    let verdict = world.get("Offer", "o").await.unwrap()["status"]["answer"].clone();
    assert_eq!((&verdict["reservations"], &verdict["volumes"]), (&json!(["db"]), &json!(["vol"])));
    let revision = |object: &Value| crate::engine::tests::version_of(object) / 256;
    assert_eq!(revision(&reservation), revision(&task));
    // The same once more, because the answer was lost.
    let (code, again) = post(&world, "o", body.clone()).await.unwrap();
    assert_eq!((code, &again["status"]), (200, &did));
    assert_eq!(again["operations"][2]["launch"]["tasks"][0], task);
    // Another task of that name is not the same.
    let mut other = body;
    other["operations"][2]["launch"]["tasks"][0]["spec"]["resources"]["cpu"] = json!("2");
    let error = post(&world, "o", other).await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (409, "TaskIdReused"));
    assert!(error.message.contains("operations[2].launch.tasks[0]"), "{error}");
    let error = post(&world, "o", accept(json!([]))).await.unwrap_err();
    assert_eq!(&*error.reason, "OfferGone");
    let error = world.delete("Reservation", "db").await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (409, "InUse"));
}

#[tokio::test]
async fn a_plain_create_on_an_offer_can_be_repeated() {
    let world = with_offer().await;
    let mut task = small("t");
    task["spec"]["offer"] = json!("o");
    task["spec"]["container"]["ports"] = json!([{"name": "http"}]);
    let first = world.create(task.clone()).await.unwrap();
    let second = world.create(task.clone()).await.unwrap();
    assert!(first.created && !second.created);
    assert_eq!(first.object.uid, second.object.uid);
    task["spec"]["container"]["command"] = json!(["false"]);
    let error = world.create(task).await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (409, "TaskIdReused"));
}

#[tokio::test]
async fn every_refusal_names_the_operation_and_the_field() {
    let world = with_reservation().await;
    let reserve = |resources: Value| json!({"name": "r", "resources": resources});
    let cases = [
        (json!([{"reserve": {}}]), vec!["[0].reserve.name", "[0].reserve.resources"]),
        (json!([{"merge": {}}]), vec!["[0]"]),
        (json!([{"launch": {"tasks": []}, "reserve": {}}]), vec!["[0]"]),
        (
            json!([{"launch": {"tasks": []}}, {"reserve": {"name": "r", "resources": {"cpu": "-1"}}}]),
            vec!["[1].reserve.resources.cpu"],
        ),
        (
            json!([{"reserve": {"name": "r", "resources": {"cpu": "1"}, "colour": "red"}}]),
            vec!["[0].reserve.colour"],
        ),
        (json!([{"reserve": reserve(json!({"cpu": "1500m"}))}]), vec!["[0].reserve.resources.cpu"]),
        (
            json!([{"reserve": {"name": "r", "queue": "eng.other", "resources": {"cpu": "1"}}}]),
            vec!["[0].reserve.queue"],
        ),
        (
            json!([{"reserve": {"name": "r", "parent": "none", "resources": {"cpu": "1"}}}]),
            vec!["[0].reserve.parent"],
        ),
        (
            json!([{"reserve": {"name": "r", "parent": "db", "resources": {"cpu": "3"}}}]),
            vec!["[0].reserve.resources.cpu"],
        ),
        (
            json!([{"reserve": {"name": "Not A Name", "resources": {"cpu": "1"}}}]),
            vec!["[0].reserve.metadata.name"],
        ),
        (json!([{"unreserve": {"reservation": "none"}}]), vec!["[0].unreserve.reservation"]),
        (json!([{"unreserve": {"reservation": "db"}}]), vec!["[0].unreserve.reservation"]),
        (
            json!([{"unreserve": {"reservation": "db", "resources": {"cpu": "3"}}}]),
            vec!["[0].unreserve.resources.cpu"],
        ),
        (
            json!([{"createVolume": {"name": "v", "reservation": "none", "size": "1Gi"}}]),
            vec!["[0].createVolume.reservation"],
        ),
        (
            json!([{"createVolume": {"name": "v", "reservation": "db", "size": "41Gi"}}]),
            vec!["[0].createVolume.size"],
        ),
        (
            json!([{"createVolume": {"name": "v", "reservation": "db", "size": "0"}}]),
            vec!["[0].createVolume.size"],
        ),
        (json!([{"destroyVolume": {"volume": "none"}}]), vec!["[0].destroyVolume.volume"]),
        (json!([{"growVolume": {"volume": "vol", "size": "5Gi"}}]), vec!["[0].growVolume.size"]),
        (json!([{"growVolume": {"volume": "vol", "size": "60Gi"}}]), vec!["[0].growVolume.size"]),
        (
            json!([{"shrinkVolume": {"volume": "vol", "size": "20Gi"}}]),
            vec!["[0].shrinkVolume.size"],
        ),
        (
            json!([{"launch": {"tasks": [mounting("t", "none")]}}]),
            vec!["[0].launch.tasks[0].spec.container.mounts[0].volume"],
        ),
        (
            json!([{"launch": {"tasks": [mounting("t", "vol"), mounting("u", "vol")]}}]),
            vec!["[0].launch.tasks[1].spec.container.mounts[0].volume"],
        ),
        (
            json!([{"launch": {"tasks": [mounting("t", "vol")]}}, {"destroyVolume": {"volume": "vol"}}]),
            vec!["[1].destroyVolume.volume"],
        ),
    ];
    for (operations, expected) in cases {
        let error = post(&world, "next", accept(operations.clone())).await.unwrap_err();
        let expected: Vec<String> = expected.iter().map(|f| format!("operations{f}")).collect();
        assert_eq!(
            (error.code, fields(&error)),
            (422, expected.iter().map(String::as_str).collect()),
            "{operations} {error}"
        );
        let offer = world.get("Offer", "next").await.unwrap();
        assert!(offer["metadata"]["deletionTimestamp"].is_null(), "{operations}");
    }
    let taken = accept(json!([{"reserve": {"name": "db", "resources": {"cpu": "1"}}}]));
    let error = post(&world, "next", taken).await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (409, "AlreadyExists"));
    assert!(error.message.contains("operations[0].reserve"), "{error}");
}

/// Each operation with all that it needs, and for each of its fields something that it can't be.
#[tokio::test]
async fn every_field_of_every_operation_is_checked_and_named() {
    let world = with_reservation().await;
    let whole = [
        ("launch", json!({"tasks": [small("t")]}), vec![("tasks", json!(1))]),
        (
            "launchGroup",
            json!({"group": "g", "tasks": [small("t")]}),
            vec![("group", json!(1)), ("tasks", json!({})), ("tasks", json!([]))],
        ),
        (
            "reserve",
            json!({"name": "r", "resources": {"cpu": "1"}}),
            vec![
                ("name", json!(1)),
                ("resources", json!("much")),
                ("resources", json!({})),
                ("queue", json!(["q"])),
                ("parent", json!("none")),
            ],
        ),
        (
            "unreserve",
            json!({"reservation": "db", "resources": {"cpu": "1"}}),
            vec![
                ("reservation", json!({})),
                ("reservation", json!("none")),
                ("resources", json!(1)),
            ],
        ),
        (
            "createVolume",
            json!({"name": "v", "reservation": "db", "size": "1Gi"}),
            vec![
                ("name", json!(1)),
                ("reservation", json!("none")),
                ("size", json!("big")),
                ("size", json!("-1Gi")),
                ("size", json!(5)),
                ("shared", json!("yes")),
            ],
        ),
        ("destroyVolume", json!({"volume": "vol"}), vec![("volume", json!("none"))]),
        (
            "growVolume",
            json!({"volume": "vol", "size": "11Gi"}),
            vec![("volume", json!("none")), ("size", json!("0")), ("size", json!("9Gi"))],
        ),
        (
            "shrinkVolume",
            json!({"volume": "vol", "size": "9Gi"}),
            vec![("volume", json!("none")), ("size", json!("none")), ("size", json!("11Gi"))],
        ),
    ];
    for (member, good, faults) in whole {
        // A launch of nothing is allowed, and so is an unreserve of everything.
        let needed = |field: &str| match field {
            "resources" => member == "reserve",
            "tasks" => member == "launchGroup",
            _ => true,
        };
        let gone = good.as_object().unwrap().keys().filter(|field| needed(field));
        let mut cases: Vec<(String, Value)> = gone.map(|f| (f.clone(), Value::Null)).collect();
        cases.extend(faults.into_iter().map(|(field, value)| (field.to_owned(), value)));
        cases.push(("colour".to_owned(), json!("red")));
        for (field, value) in cases {
            let mut body = good.clone();
            body[&field] = value.clone();
            // Behind one that would do, so that the number counts.
            let operations = json!([{"unreserve": {"reservation": "db", "resources": {"cpu": "1m"}}}, {member: body}]);
            let error = post(&world, "next", accept(operations)).await.unwrap_err();
            let place = format!("operations[1].{member}.{field}");
            let named = fields(&error);
            assert!(error.code == 422, "{place}: {value}: {error}");
            assert!(named.iter().any(|one| one.starts_with(&place)), "{place}: {value}: {named:?}");
            assert!(error.message.contains(&place), "{place}: {error}");
        }
        // Nothing has happened so far, and as it is it would do.
        let def = world.def("Offer");
        let dry = WriteOptions { dry_run: true, ..options() };
        let body = accept(json!([{member: good}]));
        let done =
            world.engine.post_subresource(&def, "default", "next", "accept", body, dry).await;
        assert_eq!(done.unwrap().0, 201, "{member}");
    }
}

#[tokio::test]
async fn a_group_is_launched_as_one() {
    let world = with_offer().await;
    let body =
        accept(json!([{"launchGroup": {"group": "pod", "tasks": [small("a"), small("b")]}}]));
    let (code, answer) = post(&world, "o", body.clone()).await.unwrap();
    assert_eq!((code, &answer["status"]["tasks"]), (201, &json!(["a", "b"])));
    for (number, name) in ["a", "b"].into_iter().enumerate() {
        let task = world.get("Task", name).await.unwrap();
        assert_eq!(task["spec"]["group"], "pod");
        assert_eq!(answer["operations"][0]["launchGroup"]["tasks"][number], task);
    }
    assert_eq!(post(&world, "o", body).await.unwrap().0, 200, "the same again");
    world.create(offer("p", json!({"cpu": "8", "memory": "8Gi"}))).await.unwrap();
    let mut strange = small("c");
    strange["spec"]["group"] = json!("other");
    let body = accept(json!([{"launchGroup": {"group": "pod", "tasks": [strange]}}]));
    let error = post(&world, "p", body).await.unwrap_err();
    assert_eq!(fields(&error), ["operations[0].launchGroup.tasks[0].spec.group"]);
    // Too much for all of them is too much for any.
    let mut large = small("large");
    large["spec"]["resources"]["cpu"] = json!("8");
    let body = accept(json!([{"launchGroup": {"group": "pod", "tasks": [small("c"), large]}}]));
    let error = post(&world, "p", body).await.unwrap_err();
    assert_eq!(fields(&error), ["operations[0].launchGroup.tasks[1].spec.resources.cpu"]);
    assert_eq!(world.get("Task", "c").await.unwrap_err().code, 404);
}

#[tokio::test]
async fn what_is_lent_goes_to_tasks_that_may_be_killed() {
    let world = World::new().await;
    let mut lending = offer("o", json!({"cpu": "3", "memory": "1Gi"}));
    lending["spec"]["revocable"] = json!({"cpu": "2"});
    world.create(lending).await.unwrap();
    let mut firm = small("firm");
    firm["spec"]["resources"]["cpu"] = json!("2");
    let error =
        post(&world, "o", accept(json!([{"launch": {"tasks": [firm]}}]))).await.unwrap_err();
    assert_eq!(fields(&error), ["operations[0].launch.tasks[0].spec.resources.cpu"]);
    assert!(error.message.contains("the offer has 1 of it left"), "{error}");
    let mut revocable = small("revocable");
    revocable["spec"]["resources"]["cpu"] = json!("2500m");
    revocable["spec"]["revocable"] = json!(true);
    revocable["spec"]["lent"] = json!({"memory": "1Gi"});
    let body = accept(json!([{"launch": {"tasks": [revocable]}}]));
    post(&world, "o", body.clone()).await.unwrap();
    let task = world.get("Task", "revocable").await.unwrap();
    assert_eq!(task["spec"]["lent"], json!({"cpu": "2"}), "whatever it said itself");
    assert_eq!(post(&world, "o", body).await.unwrap().0, 200, "the same again");
}

#[tokio::test]
async fn volumes_and_reservations_change_their_size_and_go() {
    let world = with_reservation().await;
    let body = accept(json!([
        {"growVolume": {"volume": "vol", "size": "30Gi"}},
        {"shrinkVolume": {"volume": "vol", "size": "20Gi"}},
        {"unreserve": {"reservation": "db", "resources": {"cpu": "1", "disk": "30Gi"}}},
        {"reserve": {"name": "part", "parent": "db", "resources": {"cpu": "1"}}},
    ]));
    post(&world, "next", body).await.unwrap();
    let volume = world.get("Volume", "vol").await.unwrap();
    assert_eq!(
        (&volume["spec"]["size"], &volume["status"]["size"]),
        (&json!("20Gi"), &json!("20Gi"))
    );
    let left = world.get("Reservation", "db").await.unwrap()["spec"]["resources"].clone();
    assert_eq!(left, json!({"cpu": "1", "memory": "1Gi", "disk": "20Gi"}));
    assert_eq!(world.get("Reservation", "part").await.unwrap()["spec"]["parent"], "db");
    let mut last = offer("last", json!({"cpu": "1", "memory": "1Gi"}));
    last["spec"]["reserved"] = json!([
        {"reservation": "db", "resources": {"memory": "1Gi"}},
        {"reservation": "part", "resources": {"cpu": "1"}},
    ]);
    last["spec"]["volumes"] = json!([{"volume": "vol", "reservation": "db", "size": "20Gi"}]);
    world.create(last).await.unwrap();
    let body = accept(json!([
        {"destroyVolume": {"volume": "vol"}},
        {"unreserve": {"reservation": "part"}},
        {"unreserve": {"reservation": "db"}},
    ]));
    let (code, _) = post(&world, "last", body.clone()).await.unwrap();
    assert_eq!(code, 201);
    for (kind, name) in [("Volume", "vol"), ("Reservation", "part"), ("Reservation", "db")] {
        assert_eq!(world.get(kind, name).await.unwrap_err().code, 404, "{kind} {name}");
    }
    assert_eq!(post(&world, "last", body).await.unwrap().0, 200, "the same again");
}

#[tokio::test]
async fn a_task_may_claim_an_agent_that_has_room() {
    let world = World::new().await;
    let agent = json!({"apiVersion": "commonage.dev/v1", "kind": "Agent", "metadata": {"name": "n1"}, "spec": {}});
    world.create(agent).await.unwrap();
    let status = json!({"status": {
        "allocatable": {"cpu": "4", "memory": "1Gi"}, "allocated": {"cpu": "3", "memory": "0"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "x", "message": "",
                        "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }});
    world.merge("Agent", "n1", Some("status"), status).await.unwrap();
    let claim = |name: &str, agent: &str, cpu: &str| {
        let mut task = small(name);
        task["spec"]["agent"] = json!(agent);
        task["spec"]["resources"]["cpu"] = json!(cpu);
        world.create(task)
    };
    let error = claim("t", "none", "1").await.unwrap_err();
    assert_eq!((error.code, fields(&error)), (422, vec!["spec.agent"]));
    let error = claim("t", "n1", "2").await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (409, "DoesNotFit"), "{error}");
    assert!(error.message.contains("has 1 of cpu left"), "{error}");
    let task = claim("t", "n1", "1").await.unwrap().object.to_value();
    assert_eq!(
        (&task["status"]["state"], &task["spec"]["agent"]),
        (&json!("Pending"), &json!("n1"))
    );
    let elsewhere = world.post("Task", "t", "binding", json!({"agent": "n2"})).await.unwrap_err();
    assert_eq!(elsewhere.code, 409);
    let bound = world.post("Task", "t", "binding", json!({"agent": "n1"})).await.unwrap();
    assert_eq!(states(&bound), ["Pending", "Staging"]);
    world.merge("Agent", "n1", None, json!({"spec": {"unschedulable": true}})).await.unwrap();
    let error = claim("u", "n1", "1").await.unwrap_err();
    assert!(error.message.contains("unschedulable"), "{error}");
}

#[tokio::test]
async fn an_order_to_kill_is_kept_in_the_spec_and_a_waiting_task_is_over_at_once() {
    let world = World::new().await;
    world.create(small("waits")).await.unwrap();
    world.create(small("runs")).await.unwrap();
    world.post("Task", "runs", "binding", json!({"agent": "n1"})).await.unwrap();
    let order =
        json!({"reason": "Preempted", "message": "for a better one", "gracePeriodSeconds": 3});
    let killed = world.post("Task", "waits", "kill", order.clone()).await.unwrap();
    assert_eq!(
        (&killed["status"]["state"], &killed["status"]["reason"]),
        (&json!("Killed"), &json!("Preempted"))
    );
    let ordered = world.post("Task", "runs", "kill", order.clone()).await.unwrap();
    assert_eq!(
        (&ordered["spec"]["kill"], &ordered["status"]["state"]),
        (&order, &json!("Staging"))
    );
    let second = world.post("Task", "runs", "kill", json!({"reason": "Other"})).await.unwrap();
    assert_eq!(second["spec"]["kill"], order, "the first order stays");
}
