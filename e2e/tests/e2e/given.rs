//! What a task is given: content of Secrets and ConfigMaps, Volumes, memory, directories of the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use commonage_e2e::{Cluster, eventually, run};

/// In no file but where it belongs.
const CANARY: &str = "canary-8d2f6c31";

/// The files below a directory that have the canary in them.
fn with_canary(directory: &Path) -> String {
    let found = run(Command::new("grep").args(["-rlsaF", CANARY]).arg(directory));
    found.stdout
}

fn memory_of(uid: &str) -> PathBuf {
    Path::new("/run/commonage/memory").join(uid)
}

fn prepare(cluster: &Cluster) {
    cluster
        .apply(&format!(
            "---\n\
             {{apiVersion: v1, kind: Secret, metadata: {{name: tls}}, stringData: {{key: {CANARY}, cert: public}}}}\n---\n\
             {{apiVersion: v1, kind: Secret, metadata: {{name: db}}, stringData: {{password: open sesame}}}}\n---\n\
             {{apiVersion: v1, kind: ConfigMap, metadata: {{name: app}}, data: {{level: debug}}}}\n---\n\
             {{apiVersion: commonage.dev/v1, kind: Reservation, metadata: {{name: disk}}, spec: {{queue: default, count: 1, \
             resources: {{cpu: 100m, memory: 64Mi, disk: 64Mi}}}}}}\n---\n\
             {{apiVersion: commonage.dev/v1, kind: Volume, metadata: {{name: data}}, spec: {{reservation: disk, size: 32Mi}}}}\n"
        ))
        .ok();
    eventually("the volume to be bound", || match cluster.field("volume/data", ".status.phase") {
        phase if phase == "Bound" => Ok(()),
        other => Err(other),
    });
}

fn task(name: &str, more: &str, script: &str) -> String {
    format!(
        "apiVersion: commonage.dev/v1\nkind: Task\nmetadata: {{name: {name}}}\nspec:\n  resources: {{cpu: 50m, memory: 32Mi}}\n  \
         container:\n    command: [sh, -c, {script:?}]\n    {more}\n    env:\n    - {{name: PASSWORD, valueFrom: \
         {{secretKeyRef: {{name: db, key: password}}}}}}\n    - {{name: LEVEL, valueFrom: {{configMapKeyRef: {{name: app, key: \
         level}}}}}}\n    mounts:\n    - {{path: /mnt-tls, secret: tls}}\n    - {{path: /mnt-app, configMap: app}}\n    - {{path: \
         /mnt-fast, tmpfs: {{size: 1Mi}}}}\n    - {{path: /mnt-db, volume: data}}\n"
    )
}

#[test]
fn secrets_maps_volumes_and_memory_are_where_they_were_asked_for_and_secrets_on_no_disk() {
    let cluster = Cluster::start();
    prepare(&cluster);
    let script =
        "ls /mnt-tls; md5sum < /mnt-tls/key; cat /mnt-app/level; echo; echo \"$PASSWORD, $LEVEL\"
        stat -f -c %T /mnt-tls /mnt-fast; stat -c %u /mnt-tls/key
        touch /mnt-tls/x 2>&1 | grep -o 'Read-only file system'
        head -c 2000000 /dev/zero 2>&1 > /mnt-fast/much || stat -c %s /mnt-fast/much
        cat /mnt-db/kept 2>/dev/null; echo kept > /mnt-db/kept
        echo done; until [ -e /sandbox/go ]; do sleep 0.1; done";
    let sum = run(Command::new("sh").args(["-c", &format!("printf %s {CANARY} | md5sum")])).ok();
    let mut wanted = vec![
        "cert",
        "key",
        sum.trim(),
        "debug",
        "open sesame, debug",
        "tmpfs",
        "tmpfs",
        "0",
        "Read-only file system",
        "1048576",
        "done",
    ];
    // With users of its own where the kernel has such: nothing is different for it.
    let most = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let users = most.trim() != "0" && !most.is_empty();
    for (name, more) in [("first", ""), ("second", "userNamespace: true")] {
        if !more.is_empty() && !users {
            continue;
        }
        cluster.apply(&task(name, more, script)).ok();
        let log = eventually("the task to have looked", || {
            let log = cluster.cmn(&["logs", name]).stdout;
            let state = cluster.field(&format!("task/{name}"), ".status");
            if log.ends_with("done\n") { Ok(log) } else { Err(log + &state) }
        });
        let said: Vec<&str> = log.lines().filter(|line| !line.contains("No space left")).collect();
        assert_eq!(said, wanted, "{name}");
        // What one leaves in a volume the next one finds.
        wanted.insert(10, "kept");
        let uid = cluster.field(&format!("task/{name}"), ".metadata.uid");
        assert!(memory_of(&uid).exists());
        assert_eq!(
            with_canary(&cluster.data_dir().join("agent")),
            "",
            "a mounted secret is on the disk"
        );
        // The task's end may overtake this command's.
        let _ = cluster.cmn(&["exec", name, "--", "touch", "/sandbox/go"]);
        cluster.wait_for_state(name, &["Finished"]);
        eventually("what it had to read to be gone", || match memory_of(&uid).exists() {
            false => Ok(()),
            true => Err("it is there".to_owned()),
        });
    }
}

#[test]
fn what_a_secret_lacks_is_waited_for_and_told() {
    let cluster = Cluster::start();
    let spec = "spec: {resources: {cpu: 50m, memory: 32Mi}, container: {command: [cat, /mnt-late/word], mounts: [{path: \
                /mnt-late, secret: late}]}}";
    cluster
        .apply(&format!(
            "apiVersion: commonage.dev/v1\nkind: Task\nmetadata: {{name: waits}}\n{spec}\n"
        ))
        .ok();
    eventually("the reason", || match cluster.field("task/waits", ".status") {
        status if status.contains("MountFailed") && status.contains("mounts[0].secret") => Ok(()),
        other => Err(other),
    });
    cluster.kubectl(&["create", "secret", "generic", "late", "--from-literal=word=here"]).ok();
    cluster.wait_for_state("waits", &["Finished"]);
    assert_eq!(cluster.cmn(&["logs", "waits"]).ok(), "here");
}

#[test]
fn a_directory_of_the_machine_needs_the_queues_leave() {
    let cluster = Cluster::start();
    let task = |name: &str, path: &str, more: &str| {
        format!(
            "apiVersion: commonage.dev/v1\nkind: Task\nmetadata: {{name: {name}}}\nspec: {{resources: {{cpu: 50m, memory: 32Mi}}, \
             container: {{command: [sh, -c, 'ls /mnt-host; touch /mnt-host/x-of-a-task'], mounts: [{{path: /mnt-host, hostPath: \
             {path}{more}}}]}}}}\n"
        )
    };
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::create_dir_all(dir.path().join("given/here")).unwrap();
    let given = dir.path().join("given").display().to_string();
    let refused = cluster.apply(&task("before", &given, "")).refused();
    assert!(refused.contains("spec.container.mounts[0].hostPath"), "{refused}");
    cluster
        .apply(&format!(
            "---\n{{apiVersion: commonage.dev/v1, kind: Queue, metadata: {{name: default}}, spec: {{sandbox: {{hostPaths: \
             ['{given}']}}}}}}\n"
        ))
        .ok();
    let outside = dir.path().display().to_string();
    for path in [outside.as_str(), "/etc", &format!("{given}/../..")] {
        let refused = cluster.apply(&task("other", path, "")).refused();
        assert!(refused.contains("hostPath"), "{path}: {refused}");
    }
    cluster.apply(&task("reads", &given, ", readOnly: true")).ok();
    cluster.wait_for_state("reads", &["Failed"]);
    let log = cluster.cmn(&["logs", "reads"]).ok();
    assert!(log.starts_with("here\n") && log.contains("Read-only file system"), "{log}");
    cluster.apply(&task("writes", &given, "")).ok();
    cluster.wait_for_state("writes", &["Finished"]);
    assert!(dir.path().join("given/x-of-a-task").exists());
}
