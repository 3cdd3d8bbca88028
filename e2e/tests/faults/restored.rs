//! Stores that are taken back to an older state: F-23, and `cmn backup` with `cmn restore`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use commonage_e2e::etcd::Etcd;
use commonage_e2e::faults::members::{Members, Net};
use commonage_e2e::faults::servers::Servers;
use commonage_e2e::history::{Answer, From, Kind, Selector, Version, mark_of, version_of};
use commonage_e2e::recorder::{Load, Recorder, Server, Shape, Stream};
use commonage_e2e::{Cluster, cmn_path, run, soon};
use http::Method;
use serde_json::Value;

use crate::world::World;

/// Name and mark of everything there is, and the version of the list.
async fn shown(recorder: &Recorder, server: &Server) -> Result<(Vec<String>, Version), String> {
    let (status, list) = server.ask(Method::GET, &recorder.path(""), None).await?;
    if status != 200 {
        return Err(format!("{status} {list}"));
    }
    let text = |item: &Value| {
        format!("{}={}", item["metadata"]["name"].as_str().unwrap_or_default(), mark_of(item))
    };
    let items = list["items"].as_array().ok_or("no items")?;
    Ok((items.iter().map(text).collect(), version_of(&list)))
}

/// A watch from here must say 410, and nothing else.
async fn expects_to_begin_anew(recorder: &Recorder, server: &Server, from: Version) {
    let all = Selector::default();
    let mut watch = Stream::open(recorder, server, 1, From::Version(from), &all).await.unwrap();
    let ends = async { while watch.next(recorder).await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(30), ends).await.expect("the watch goes on");
    let kinds: Vec<Kind> = watch.watch.events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [Kind::Error], "from {from} at {}", server.name);
}

async fn put(recorder: &Recorder, server: &Server, name: &str) -> Version {
    match recorder.create(1, server, name, ("red", "a")).await {
        Answer::Object(object) => version_of(&object),
        answer => panic!("{name}: {answer:?}"),
    }
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    run(Command::new("cp").arg("-a").args([from, to])).ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f23_etcd_is_restored_from_an_older_backup_while_servers_run() {
    let mut members = Members::start(3, Net::Loopback).unwrap();
    let mut world = World::start(2, &members.store()).await;
    let kept = tempfile::tempdir().unwrap();
    let (recorder, clients) = (world.recorder.clone(), world.clients.clone());
    put(&recorder, &clients[0], "a").await;
    put(&recorder, &clients[1], "b").await;
    let (before, _) = shown(&recorder, &clients[0]).await.unwrap();
    let backup = kept.path().join("backup");
    members.offline(|data| copy(data, &backup)).unwrap();
    world.works().await;
    put(&recorder, &clients[0], "later").await;
    assert!(matches!(recorder.patch(1, &clients[1], "a", None).await, Answer::Object(_)));
    let (_, late) = shown(&recorder, &clients[0]).await.unwrap();

    members
        .offline(|data| {
            for number in 0..3 {
                let name = format!("m{number}");
                copy(&backup.join(&name), &data.join(&name));
            }
        })
        .unwrap();
    let mut now = late;
    for server in &clients {
        now = soon("the older state, with new versions", async || {
            match shown(&recorder, server).await? {
                (shown, version) if shown == before && version > late => Ok(version),
                other => Err(format!("{other:?}, not {before:?} after {late}")),
            }
        })
        .await;
        expects_to_begin_anew(&recorder, server, late).await;
        expects_to_begin_anew(&recorder, server, late - 300).await;
    }
    assert!(put(&recorder, &clients[0], "next").await > now);
    // It is one history again, on all servers, the restarted one too.
    world.servers.kill(0);
    world.servers.up(0).unwrap();
    world.servers.ready(0).await.unwrap();
    let after = Recorder::prepare(&clients, "after").await.unwrap();
    let load = Load::start(&after, &clients, Shape::default()).await;
    tokio::time::sleep(commonage_e2e::faults::load_time() / 2).await;
    load.finish().await;
    after.verify("f23");
}

fn cmn(arguments: &[&str]) -> commonage_e2e::Output {
    run(Command::new(cmn_path()).args(arguments).env("NO_COLOR", "1").env_remove("KUBECONFIG"))
}

/// The cluster with everything but its agents' containers is gone, and comes back as it was before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_restored_to_an_older_state_and_its_tasks_go_on() {
    let mut cluster = Cluster::start();
    // Tasks see what every user may see.
    let gate = tempfile::tempdir_in("/var/tmp").unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(gate.path(), open).unwrap();
    let script =
        format!("until [ -e {}/open ]; do sleep 0.05; done; exit 5", gate.path().display());
    let task = ["run", "--name", "long", "--cpu", "0.1", "--memory", "32Mi", "--detach", "--"];
    cluster.cmn(&[&task[..], &["sh", "-c", &script]].concat()).ok();
    cluster.wait_for_state("long", &["Running"]);
    cluster.kubectl(&["create", "configmap", "early"]).ok();
    let container = cluster.field("task/long", ".status.containerId");
    let uid = cluster.field("task/long", ".metadata.uid");

    let data = cluster.data_dir().to_string_lossy().into_owned();
    let file = gate.path().join("a.backup").to_string_lossy().into_owned();
    // While the server runs.
    let told = cmn(&["backup", "--data-dir", &data, &file]).ok();
    assert!(told.contains("keys at revision"), "{told}");
    cluster.kubectl(&["create", "configmap", "later"]).ok();
    cluster.kubectl(&["delete", "configmap", "early"]).ok();
    let version = |cluster: &Cluster| -> u64 {
        let list = cluster.kubectl(&["get", "--raw", "/api/v1/namespaces/default/configmaps"]).ok();
        version_of(&serde_json::from_str(&list).unwrap())
    };
    let known = version(&cluster);
    let refused = cmn(&["restore", &file, "--data-dir", &data]).refused();
    assert!(refused.contains("a server runs on it"), "{refused}");

    cluster.kill();
    let refused = cmn(&["restore", &file, "--data-dir", &data]).refused();
    assert!(refused.contains("is not empty"), "{refused}");
    let store = cluster.data_dir().join("store");
    std::fs::rename(&store, gate.path().join("store.old")).unwrap();
    let told = cmn(&["restore", &file, "--data-dir", &data]).ok();
    assert!(told.contains("are restored"), "{told}");
    cluster.up().unwrap();

    let maps = cluster.kubectl(&["get", "configmaps", "-o", "name"]).ok();
    assert!(maps.contains("/early") && !maps.contains("/later"), "{maps}");
    assert!(version(&cluster) > known);
    let old = format!("/api/v1/namespaces/default/configmaps?watch=1&resourceVersion={known}");
    let watched = cluster.kubectl(&["get", "--raw", &old]).ok();
    assert!(watched.contains("\"ERROR\"") && watched.contains("410"), "{watched}");
    cluster.wait_for_state("long", &["Running"]);
    assert_eq!(cluster.field("task/long", ".status.containerId"), container);
    assert_eq!(cluster.field("task/long", ".metadata.uid"), uid);
    std::fs::write(gate.path().join("open"), "").unwrap();
    cluster.wait_for_state("long", &["Failed"]);
    assert_eq!(cluster.field("task/long", ".status.exitCode"), "5");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_goes_from_the_embedded_store_to_etcd_and_back() {
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name).to_string_lossy().into_owned();
    let mut servers = Servers::start(1, &["--store", "embedded"]).await.unwrap();
    let clients = servers.all().await.unwrap();
    let recorder = Recorder::prepare(&clients, "moved").await.unwrap();
    for name in ["a", "b", "c"] {
        put(&recorder, &clients[0], name).await;
    }
    let (expected, known) = shown(&recorder, &clients[0]).await.unwrap();
    let data = servers.data_dir(0).to_string_lossy().into_owned();
    // While nobody runs on it.
    assert_eq!(servers.stop(0), 0);
    cmn(&["backup", "--data-dir", &data, &path("embedded")]).ok();

    let etcd = Etcd::start().unwrap();
    let store = format!("etcd://{}", etcd.address());
    cmn(&["restore", &path("embedded"), "--store", &store]).ok();
    let refused = cmn(&["restore", &path("embedded"), "--store", &store]).refused();
    assert!(refused.contains("is not empty") && refused.contains("etcdctl del"), "{refused}");
    let over_etcd = Servers::start(2, &["--store", &store]).await.unwrap();
    let clients = over_etcd.all().await.unwrap();
    for server in &clients {
        let (there, version) = shown(&recorder, server).await.unwrap();
        assert_eq!(there, expected);
        assert!(version > known, "{version} after {known}");
        expects_to_begin_anew(&recorder, server, known).await;
    }
    let load = Load::start(&recorder, &clients, Shape::default()).await;
    // While servers run and are written to.
    cmn(&["backup", "--store", &store, &path("etcd")]).ok();
    load.finish().await;

    let other = tempfile::tempdir().unwrap();
    let data = other.path().join("data").to_string_lossy().into_owned();
    cmn(&["restore", &path("etcd"), "--data-dir", &data]).ok();
    let again = path("again");
    let told = cmn(&["backup", "--data-dir", &data, &again]).ok();
    let keys = |told: &str| told.split(": ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert!(keys(&told).parse::<u64>().unwrap() > 3, "{told}");
}

#[test]
fn what_cannot_be_restored_is_said_and_touches_nothing() {
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name).to_string_lossy().into_owned();
    let data = path("data");
    std::fs::write(path("text"), "no backup").unwrap();
    std::fs::write(path("newer"), b"CMNBACKUP\0\x09                ").unwrap();
    std::fs::write(path("short"), b"CMNBACKUP\0\x01        ").unwrap();
    for (file, why) in [
        ("text", "not a backup"),
        ("newer", "format 9"),
        ("short", "truncated"),
        ("nowhere", "No such file"),
    ] {
        let refused = cmn(&["restore", &path(file), "--data-dir", &data]).refused();
        assert!(refused.contains(why), "{file}: {refused}");
        assert!(!Path::new(&data).exists(), "{file} made a data directory");
    }
    let refused = cmn(&["backup", "--data-dir", &data, &path("out")]).refused();
    assert!(refused.contains("there is no store"), "{refused}");
    assert!(!files.path().join("out").exists());
}
