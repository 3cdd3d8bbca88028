//! Nothing is left behind, and several clusters run side by side.

use commonage_e2e::{Cluster, eventually, host};

#[test]
fn ctrl_c_stops_everything() {
    let mut cluster = Cluster::start();
    let marker = format!("sleep 98{}", cluster.pid());
    cluster
        .cmn(&[
            "run", "--name", "sleeper", "--cpu", "0.1", "--memory", "32Mi", "--detach", "--", "sh",
            "-c", &marker,
        ])
        .ok();
    cluster.wait_for_state("sleeper", &["Running"]);
    let container = cluster.field("task/sleeper", ".status.containerId");
    assert!(!container.is_empty());
    assert!(!host::processes(&marker).is_empty());

    let data = cluster.data_dir().to_string_lossy().into_owned();
    assert_eq!(cluster.stop(), 0, "{}", cluster.log());
    assert_eq!(host::processes(&marker), []);
    assert_eq!(host::cgroups(&container), Vec::<std::path::PathBuf>::new());
    assert_eq!(host::mounts(&data), Vec::<String>::new());
    eventually("every process of the cluster to end", || {
        let left = host::processes(&data);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn two_clusters_run_side_by_side() {
    let one = Cluster::start();
    let two = Cluster::start();
    one.cmn(&["run", "--name", "mine", "--cpu", "0.1", "--memory", "32Mi", "--", "true"]).ok();
    assert_eq!(two.kubectl(&["get", "tasks", "-o", "name"]).ok(), "");
    two.cmn(&["run", "--name", "mine", "--cpu", "0.1", "--memory", "32Mi", "--", "true"]).ok();
}
