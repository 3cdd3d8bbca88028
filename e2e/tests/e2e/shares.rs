//! Who gets what and who waits for what, as people see it: queues, whyPending, Events, describe,
//! metrics; what is lent; groups; agents that will be away. All with kubectl on a whole cluster.

use commonage_e2e::{Cluster, eventually};

fn wait_for(cluster: &Cluster, object: &str, path: &str, wanted: &str) {
    eventually(&format!("{object} {path} is {wanted}"), || match cluster.field(object, path) {
        found if found.contains(wanted) => Ok(()),
        other => Err(other),
    });
}

fn wait_for_event(cluster: &Cluster, object: &str, wanted: &[&str]) {
    let name = format!("involvedObject.name={object}");
    eventually(&format!("an event of {object} with {wanted:?}"), || {
        let events = cluster.kubectl(&["get", "events", "-A", "--field-selector", &name]).ok();
        wanted.iter().all(|word| events.contains(word)).then_some(()).ok_or(events)
    });
}

fn task(name: &str, spec: &str) -> String {
    let command = "container: {command: [sleep, \"300\"]}";
    let policy = "killPolicy: {gracePeriodSeconds: 1}";
    format!(
        "---\napiVersion: commonage.dev/v1\nkind: Task\nmetadata: {{name: {name}, labels: {{app: x}}}}\nspec: {{{spec}, {command}, {policy}}}\n"
    )
}

/// The value of a metric, with its labels as they stand on the page.
fn metric(cluster: &Cluster, name: &str) -> Option<f64> {
    let page = cluster.kubectl(&["get", "--raw", "/metrics"]).ok();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok())
}

fn the_agent(cluster: &Cluster) -> String {
    let agents = ["get", "agents", "-o", "jsonpath={.items[0].metadata.name}"];
    cluster.kubectl(&agents).ok().trim().to_owned()
}

#[test]
fn each_wait_is_explained_to_whoever_asks() {
    let cluster = Cluster::start();
    let agent = the_agent(&cluster);
    let small = "resources: {cpu: 10m, memory: 32Mi}";
    cluster
        .apply(
            "---\n{apiVersion: commonage.dev/v1, kind: Queue, metadata: {name: tight}, spec: {weight: 3, limit: {cpu: 5m}}}\n---\n\
             {apiVersion: commonage.dev/v1, kind: Framework, metadata: {name: tight}, spec: {queues: [tight], placement: Tasks}}\n---\n\
             {apiVersion: commonage.dev/v1, kind: Framework, metadata: {name: answers}, spec: {queues: [answers], demand: []}}\n",
        )
        .ok();
    cluster.apply(&task("runs", small)).ok();
    cluster.wait_for_state("runs", &["Running"]);
    let waits = [
        ("much", "resources: {cpu: \"4000\"}", "WaitingForResources", "without enough cpu"),
        ("memory", "resources: {memory: 4000Ti}", "WaitingForResources", "without enough memory"),
        ("gpus", "resources: {gpu: \"64\"}", "WaitingForResources", "without enough gpu"),
        (
            "nowhere",
            "constraints: {required: {matchLabels: {rack: nowhere}}}",
            "WaitingForResources",
            "excluded by constraints",
        ),
        (
            "averse",
            "constraints: {antiAffinity: {matchLabels: {app: x}}}",
            "WaitingForResources",
            "excluded by anti-affinity",
        ),
        ("half", "gang: {name: g, size: 2}", "WaitingForResources", "its gang is not complete"),
        ("strange", "framework: nobody", "FrameworkNotFound", "does not exist"),
        (
            "limited",
            "framework: tight, resources: {cpu: 10m}",
            "WaitingForResources",
            "queue's limit",
        ),
        ("unlaunched", "framework: answers", "WaitingForFramework", "answers offers itself"),
    ];
    for (name, spec, ..) in &waits {
        cluster.apply(&task(name, spec)).ok();
    }
    for (name, _, reason, words) in &waits {
        let object = format!("task/{name}");
        wait_for(&cluster, &object, ".status.message", words);
        assert_eq!(cluster.field(&object, ".status.reason"), *reason, "{name}");
        wait_for_event(&cluster, name, &[reason, words]);
        let described = cluster.kubectl(&["describe", &object]).ok();
        assert!(described.contains(words) && described.contains(reason), "{described}");
    }
    let by =
        |name: &str| cluster.field(&format!("task/{name}"), ".status.whyPending.excluded[0].by");
    assert_eq!(
        (by("much"), by("nowhere"), by("averse"), by("limited")),
        ("cpu".into(), "constraints".into(), "antiAffinity".into(), "queueLimit".into())
    );
    cluster
        .kubectl(&[
            "patch",
            "agent",
            &agent,
            "--type=merge",
            "-p",
            r#"{"spec":{"unschedulable":true}}"#,
        ])
        .ok();
    cluster.apply(&task("cordoned", small)).ok();
    wait_for(&cluster, "task/cordoned", ".status.message", "unschedulable");
    wait_for(&cluster, "queue/tight", ".status.pendingTasks", "1");
    let queues = cluster.kubectl(&["get", "queues"]).ok();
    let row = queues.lines().find(|line| line.starts_with("tight")).unwrap();
    assert!(row.contains('3') && row.contains("5m"), "{queues}");
    let pending = "commonage_queue_tasks_pending{queue=\"tight\"}";
    eventually("the metric of what waits", || match metric(&cluster, pending) {
        Some(1.0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(metric(&cluster, "commonage_allocator_tasks_waiting") >= Some(10.0));
}

#[test]
fn offers_are_counted_by_what_becomes_of_them() {
    let cluster = Cluster::start();
    cluster
        .apply("---\n{apiVersion: commonage.dev/v1, kind: Framework, metadata: {name: f}, spec: {queues: [q]}}\n")
        .ok();
    let offers = ["get", "offers", "-o", "jsonpath={.items[0].metadata.name}"];
    let name = eventually("an offer", || match cluster.kubectl(&offers).stdout.trim() {
        "" => Err("none".to_owned()),
        name => Ok(name.to_owned()),
    });
    wait_for(&cluster, "framework/f", ".status.offers", "1");
    let share = "commonage_queue_dominant_share{queue=\"q\"}";
    eventually("the share counts what is offered", || match metric(&cluster, share) {
        Some(share) if share > 0.9 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let body = cluster.file("decline.json", r#"{"refuseSeconds": 600}"#);
    let path = format!("/apis/commonage.dev/v1/namespaces/default/offers/{name}/decline");
    cluster.kubectl(&["create", "--raw", &path, "-f", body.to_str().unwrap()]).ok();
    let counts = [
        ("commonage_allocator_offers_total{outcome=\"made\"}", 1.0),
        ("commonage_allocator_offers_total{outcome=\"declined\"}", 1.0),
        ("commonage_allocator_offer_filters{queue=\"q\"}", 1.0),
    ];
    for (name, wanted) in counts {
        eventually(name, || match metric(&cluster, name) {
            Some(value) if value >= wanted => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    let runs = metric(&cluster, "commonage_allocator_runs_total");
    assert!(runs > Some(0.0), "{runs:?}");
    let timed = metric(&cluster, "commonage_allocator_run_duration_seconds_count");
    assert!(timed > Some(0.0), "{timed:?}");
    let again =
        cluster.kubectl(&["create", "--raw", &path, "-f", body.to_str().unwrap()]).refused();
    assert!(again.contains("OfferGone") || again.contains("gone"), "{again}");
}

#[test]
fn what_is_lent_is_used_and_called_in_and_frameworks_are_asked_to_leave() {
    let cluster = Cluster::start();
    let agent = the_agent(&cluster);
    let patch = |patch: &str| {
        cluster.kubectl(&["patch", "agent", &agent, "--type=merge", "-p", patch]).ok()
    };
    patch(r#"{"spec": {"overcommit": {"cpu": "64"}}}"#);
    let borrows = "revocable: true, resources: {cpu: \"60\", memory: 32Mi}";
    cluster.apply(&task("borrows", borrows)).ok();
    cluster.wait_for_state("borrows", &["Running"]);
    assert_eq!(cluster.field("task/borrows", ".spec.lent.cpu"), "60");
    let start = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let window = format!(
        r#"{{"spec": {{"maintenance": {{"start": "{start:.0}", "durationSeconds": 60}}}}}}"#
    );
    patch(&window);
    wait_for_event(&cluster, "default", &["InverseOffer", &agent]);
    patch(r#"{"spec": {"overcommit": null}}"#);
    cluster.wait_for_state("borrows", &["Killed"]);
    assert_eq!(cluster.field("task/borrows", ".status.reason"), "Preempted");
    wait_for_event(&cluster, "borrows", &["Preempted", "takes back what it had lent"]);
}

#[test]
fn a_group_ends_with_the_first_that_fails() {
    let cluster = Cluster::start();
    let member = "group: pod, resources: {cpu: 10m, memory: 32Mi}";
    let mut fails = task("fails", member);
    fails = fails.replace("[sleep, \"300\"]", "[sh, -c, \"sleep 1; exit 3\"]");
    cluster.apply(&(task("stays", member) + &fails + &task("alone", "resources: {cpu: 10m}"))).ok();
    cluster.wait_for_state("fails", &["Failed"]);
    cluster.wait_for_state("stays", &["Killed"]);
    assert_eq!(cluster.field("task/stays", ".status.reason"), "GroupEnded");
    cluster.wait_for_state("alone", &["Running"]);
}
