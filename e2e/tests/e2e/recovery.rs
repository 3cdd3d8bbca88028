//! What was running goes on running, and what was promised is kept, when everything else is killed.

use commonage_e2e::{Cluster, eventually};

#[test]
fn tasks_survive_the_death_of_everything_else() {
    let mut cluster = Cluster::start();
    let start = |cluster: &Cluster, name: &str, script: &str| {
        cluster
            .cmn(&[
                "run", "--name", name, "--cpu", "0.1", "--memory", "32Mi", "--detach", "--", "sh",
                "-c", script,
            ])
            .ok();
        cluster.wait_for_state(name, &["Running"]);
    };
    // Not in /tmp, which each task has of its own.
    let gate = tempfile::tempdir_in("/var/tmp").unwrap();
    // Tasks see what every user may see.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(gate.path(), open).unwrap();
    let path = gate.path().to_string_lossy().into_owned();
    let until = |name: &str| {
        format!("until [ -e {path}/{name} ]; do sleep 0.05; done; echo released; exit 4")
    };
    start(&cluster, "early", &until("early"));
    start(&cluster, "late", &until("late"));
    let containers = (
        cluster.field("task/early", ".status.containerId"),
        cluster.field("task/late", ".status.containerId"),
    );

    cluster.kill();
    // One ends while nobody looks, one goes on.
    std::fs::write(format!("{path}/early"), "").unwrap();
    cluster.up().unwrap();

    cluster.wait_for_state("early", &["Failed"]);
    assert_eq!(cluster.field("task/early", ".status.exitCode"), "4");
    assert_eq!(cluster.field("task/late", ".status.state"), "Running");
    assert_eq!(cluster.field("task/early", ".status.containerId"), containers.0);
    assert_eq!(cluster.field("task/late", ".status.containerId"), containers.1);
    assert!(cluster.cmn(&["logs", "early"]).ok().contains("released"));

    std::fs::write(format!("{path}/late"), "").unwrap();
    cluster.wait_for_state("late", &["Failed"]);
    assert_eq!(cluster.field("task/late", ".status.exitCode"), "4");
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let mut cluster = Cluster::start();
    let names: Vec<String> = (0..20).map(|i| format!("kept-{i}")).collect();
    for name in &names {
        let made = cluster
            .kubectl(&[
                "create",
                "configmap",
                name,
                "--from-literal=a=b",
                "--dry-run=client",
                "-o",
                "yaml",
            ])
            .ok();
        cluster.apply(&made).ok();
    }
    cluster.kill();
    cluster.up().unwrap();
    let found = cluster.kubectl(&["get", "configmaps", "-o", "name"]).ok();
    for name in &names {
        assert!(found.contains(&format!("configmap/{name}")), "{name} is lost");
    }
}

#[test]
fn a_task_that_ignores_term_is_killed_after_its_grace() {
    let cluster = Cluster::start();
    let manifest = "apiVersion: commonage.dev/v1\nkind: Task\nmetadata: {name: stubborn}\nspec:\n  resources: {cpu: '0.1', memory: 32Mi}\n  killPolicy: {gracePeriodSeconds: 1}\n  container: {command: [sh, -c, 'trap \"\" TERM; echo deaf; while :; do sleep 0.1; done']}\n";
    cluster.apply(manifest).ok();
    cluster.wait_for_state("stubborn", &["Running"]);
    eventually("the trap to be set", || {
        let log = cluster.cmn(&["logs", "stubborn"]);
        if log.stdout.contains("deaf") { Ok(()) } else { Err(format!("{log:?}")) }
    });
    cluster.kubectl(&["delete", "task", "stubborn", "--timeout=30s"]).ok();
}

#[test]
fn whoever_deletes_may_say_how_long_to_wait_and_later_say_less() {
    let cluster = Cluster::start();
    let manifest = "apiVersion: commonage.dev/v1\nkind: Task\nmetadata: {name: deaf}\nspec:\n  killPolicy: {gracePeriodSeconds: 600}\n  container: {command: [sh, -c, 'trap \"\" TERM; echo deaf; while :; do sleep 0.1; done']}\n";
    cluster.apply(manifest).ok();
    cluster.wait_for_state("deaf", &["Running"]);
    eventually("the trap to be set", || {
        let log = cluster.cmn(&["logs", "deaf"]);
        if log.stdout.contains("deaf") { Ok(()) } else { Err(format!("{log:?}")) }
    });
    cluster.kubectl(&["delete", "task", "deaf", "--wait=false"]).ok();
    cluster.wait_for_state("deaf", &["Killing"]);
    cluster.kubectl(&["delete", "task", "deaf", "--grace-period=1", "--timeout=30s"]).ok();
}

#[test]
fn a_killed_cluster_starts_again_at_once_whoever_has_not_noticed_its_death() {
    let mut cluster = Cluster::start();
    for _ in 0..3 {
        let dead = cluster.kill_and_leave();
        // Right away: while it dies, and then while its parent does not care.
        cluster.up().unwrap();
        dead.unwrap().wait().unwrap();
    }
    let config = cluster.kubectl(&["get", "agents", "-o", "name"]).ok();
    assert_eq!(config.lines().count(), 1, "{config}");
}
