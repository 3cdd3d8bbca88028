//! The same cluster over etcd.

use commonage_e2e::{Cluster, etcd::Etcd};

#[test]
fn a_cluster_runs_on_etcd_and_comes_back_to_it() {
    let etcd = Etcd::start().unwrap();
    let mut cluster = Cluster::start_with(&["--store", &format!("etcd://{}", etcd.address())]);
    let hello = cluster.cmn(&[
        "run",
        "--name",
        "hello",
        "--cpu",
        "0.1",
        "--memory",
        "32Mi",
        "--",
        "echo",
        "over etcd",
    ]);
    assert!(hello.ok().contains("over etcd"));
    assert_eq!(cluster.stop(), 0);
    cluster.up().unwrap();
    assert_eq!(cluster.field("task/hello", ".status.state"), "Finished");
    cluster.cmn(&["run", "--name", "again", "--cpu", "0.1", "--memory", "32Mi", "--", "true"]).ok();
    // It goes before the store that it stands on.
    assert_eq!(cluster.stop(), 0);
}
