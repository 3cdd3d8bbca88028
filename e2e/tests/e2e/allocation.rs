//! Reservations, volumes, claims, preemption, drains and plans, with kubectl on a whole cluster.

use commonage_e2e::{Cluster, eventually};

fn wait_for(cluster: &Cluster, object: &str, path: &str, wanted: &str) {
    eventually(&format!("{object} {path} is {wanted}"), || match cluster.field(object, path) {
        found if found.contains(wanted) => Ok(()),
        other => Err(other),
    });
}

fn task(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: commonage.dev/v1\nkind: Task\nmetadata: {{name: {name}}}\nspec: {{{spec}, container: {{command: [sleep, \"300\"]}}, killPolicy: {{gracePeriodSeconds: 1}}}}\n"
    )
}

#[test]
fn what_is_reserved_is_used_and_explained() {
    let cluster = Cluster::start();
    cluster
        .apply(
            // Begun so, or kubectl takes what begins with a brace for JSON.
            "---\n\
             {apiVersion: commonage.dev/v1, kind: Reservation, metadata: {name: db}, spec: {queue: default, count: 1, resources: {cpu: 200m, memory: 128Mi, disk: 64Mi}}}\n---\n\
             {apiVersion: commonage.dev/v1, kind: Volume, metadata: {name: data}, spec: {reservation: db, size: 32Mi}}\n---\n\
             {apiVersion: commonage.dev/v1, kind: Reservation, metadata: {name: big}, spec: {queue: default, resources: {cpu: \"1000\"}}}\n---\n\
             {apiVersion: commonage.dev/v1, kind: Queue, metadata: {name: default}, spec: {weight: 2, guarantee: {cpu: 100m}, limit: {cpu: \"64\"}}}\n",
        )
        .ok();
    wait_for(&cluster, "reservation/db", ".status.phase", "Bound");
    wait_for(&cluster, "volume/data", ".status.phase", "Bound");
    wait_for(&cluster, "reservation/big", ".status.conditions[0].message", "without enough cpu");
    cluster.apply(&task("uses", "resources: {cpu: 100m, memory: 32Mi}")).ok();
    cluster.wait_for_state("uses", &["Running"]);
    assert_eq!(cluster.field("task/uses", ".spec.reserved[0].reservation"), "db");
    wait_for(&cluster, "reservation/db", ".status.used.cpu", "100m");
    let refused = cluster.kubectl(&["delete", "reservation", "db"]).refused();
    assert!(refused.contains("InUse"), "{refused}");
    let queues = cluster.kubectl(&["get", "queues"]).ok();
    for column in ["WEIGHT", "DOMINANT-SHARE", "ALLOCATED", "GUARANTEE", "LIMIT", "PENDING"] {
        assert!(queues.contains(column), "{queues}");
    }
    let metrics = cluster.kubectl(&["get", "--raw", "/metrics"]).ok();
    for name in
        ["commonage_allocator_runs_total", "commonage_queue_dominant_share{queue=\"default\"}"]
    {
        assert!(metrics.contains(name), "no {name}");
    }
}

#[test]
fn a_better_task_has_a_lesser_one_killed_and_a_plan_says_so_before() {
    let cluster = Cluster::start();
    let agent =
        cluster.kubectl(&["get", "agents", "-o", "jsonpath={.items[0].metadata.name}"]).ok();
    let agent = agent.trim();
    let all = cluster.field(&format!("agent/{agent}"), ".status.allocatable.memory");
    let claim = format!("agent: {agent}, resources: {{cpu: 100m, memory: {all}}}");
    cluster.apply(&task("whole", &claim)).ok();
    cluster.wait_for_state("whole", &["Running"]);
    wait_for(&cluster, &format!("agent/{agent}"), ".status.allocated.cpu", "100m");
    let refused = cluster.apply(&task("second", &claim)).refused();
    assert!(refused.contains("DoesNotFit") || refused.contains("memory left"), "{refused}");
    let better = task("better", "priority: 10, resources: {cpu: 100m, memory: 64Mi}");
    let file = cluster.file("better.yaml", &better);
    let plan = ["allocator", "plan", "-f", file.to_str().unwrap()];
    let planned = cluster.cmn(&plan);
    assert_eq!(planned.code, 1, "{planned:?}");
    assert!(planned.stdout.contains("would kill default/whole"), "{planned:?}");
    assert_eq!(cluster.kubectl(&["get", "task", "better", "--ignore-not-found"]).ok(), "");
    cluster.apply(&better).ok();
    cluster.wait_for_state("better", &["Running"]);
    assert_eq!(cluster.field("task/whole", ".status.reason"), "Preempted");
    assert_eq!(cluster.cmn(&plan).code, 0, "it is there now");
    eventually("events on both sides", || {
        let events = cluster.kubectl(&["get", "events"]).ok();
        let both = events.contains("Preempted") && events.contains("Preempting");
        both.then_some(()).ok_or(events)
    });
    let drain = r#"{"spec": {"drain": {"gracePeriodSeconds": 1, "reason": "new kernel"}}}"#;
    cluster.kubectl(&["patch", "agent", agent, "--type=merge", "-p", drain]).ok();
    cluster.wait_for_state("better", &["Killed"]);
    assert_eq!(cluster.field("task/better", ".status.reason"), "AgentDrained");
    let drained = r#".status.conditions[?(@.type=="Drained")].status"#;
    wait_for(&cluster, &format!("agent/{agent}"), drained, "True");
}

#[test]
fn simulated_agents_run_what_frameworks_launch() {
    let cluster = Cluster::start();
    let simulate = [
        "simulate",
        "--agents",
        "5",
        "--frameworks",
        "2",
        "--tasks",
        "20",
        "--probes",
        "2",
        "--task-seconds",
        "1",
        "--task-jitter-seconds",
        "0",
        "-o",
        "json",
    ];
    let figures = cluster.cmn(&simulate).ok();
    let figures: serde_json::Value = serde_json::from_str(&figures).unwrap();
    assert_eq!(
        (&figures["launched"], &figures["probeMilliseconds"]["count"]),
        (&20.into(), &2.into())
    );
    assert_eq!(cluster.kubectl(&["get", "agents", "-o", "name"]).ok().lines().count(), 1);
}
