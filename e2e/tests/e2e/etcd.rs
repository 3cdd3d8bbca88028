//! The same cluster over etcd.

use commonage_e2e::{
    Cluster,
    etcd::{Etcd, free_address},
    eventually,
    process::Role,
    run,
};

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

#[test]
fn an_api_server_waits_for_its_etcd() {
    let directory = tempfile::Builder::new().prefix("cmn-waits-").tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let (address, port) = (free_address().unwrap(), free_address().unwrap());
    let data = path("data");
    let store = format!("etcd://{address}");
    let arguments = ["apiserver", "--listen", &port, "--data-dir", &data, "--store", &store];
    let mut server = Role::start(std::path::Path::new(&path("log")), &arguments).unwrap();
    let probe = |path: &str| {
        let url = format!("https://{port}{path}");
        let arguments = ["-sk", "--max-time", "10", "-w", "\n%{http_code}", &url];
        run(std::process::Command::new("curl").args(arguments)).stdout
    };
    eventually("a server that waits", || {
        let said = probe("/readyz");
        if said.contains("etcd") && said.ends_with("503") { Ok(()) } else { Err(said) }
    });
    assert!(probe("/livez").ends_with("200"));
    assert!(probe("/api/v1/namespaces").ends_with("503"));
    assert_eq!(server.ended(), None);
    let _etcd = Etcd::start_at(address).unwrap();
    eventually("a server that serves", || {
        let said = probe("/readyz");
        if said.ends_with("200") { Ok(()) } else { Err(said) }
    });
    // It serves a moment before it has said so, and can be asked to stop then.
    eventually("a server that has started", || {
        let printed = server.printed();
        if printed.contains("API server at") { Ok(()) } else { Err(printed) }
    });
}
