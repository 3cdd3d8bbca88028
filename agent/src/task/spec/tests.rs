#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::json;

fn site() -> Site {
    Site {
        agent: "node-1".to_owned(),
        host: "10.0.0.7".to_owned(),
        data_dir: PathBuf::from("/var/lib/commonage"),
        group: "/commonage/node-1".to_owned(),
        server: "https://127.0.0.1:6443".to_owned(),
        leave: Default::default(),
    }
}

fn task(spec: serde_json::Value) -> Task {
    serde_json::from_value(json!({
        "apiVersion": "commonage.dev/v1",
        "kind": "Task",
        "metadata": {"name": "web-0.a", "namespace": "shop", "uid": "u-1"},
        "spec": spec,
    }))
    .unwrap()
}

fn order(spec: serde_json::Value) -> Result<Launch, Refusal> {
    launch(&task(spec), &site(), PathBuf::from("/sandboxes/u-1"), &Prepared::default())
}

#[test]
fn a_task_becomes_an_order() {
    let launch = order(json!({
        "resources": {"cpu": "500m", "memory": "64Mi"},
        "limits": {"cpu": "2"},
        "container": {
            "command": ["redis-server"],
            "args": ["--port", "31007"],
            "env": [{"name": "A", "value": "b"}, {"name": "HOST", "value": "mine"}],
            "ports": [{"name": "redis-main", "hostPort": 31007}, {"hostPort": 31008}],
            "user": "1000",
            "network": "Host",
        },
    }))
    .unwrap();
    assert_eq!(launch.id, "u-1");
    assert_eq!(launch.cgroup, "/commonage/node-1/u-1");
    assert_eq!(launch.command, ["redis-server"]);
    assert_eq!(launch.args, ["--port", "31007"]);
    assert_eq!((launch.user.uid, launch.user.gid), (1000, 1000));
    assert_eq!(launch.hostname.as_deref(), Some("web-0"));
    assert_eq!(launch.limits.cpu_millis, Some(500));
    assert_eq!(launch.limits.cpu_quota_millis, Some(2000));
    assert_eq!(launch.limits.memory_bytes, Some(64 << 20));
    assert_eq!(launch.hidden, [PathBuf::from("/var/lib/commonage")]);
    let env: Vec<(&str, &str)> = launch.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        env,
        [
            ("A", "b"),
            ("COMMONAGE_AGENT", "node-1"),
            ("COMMONAGE_NAMESPACE", "shop"),
            ("COMMONAGE_TASK", "web-0.a"),
            ("HOST", "mine"),
            ("PORT0", "31007"),
            ("PORT1", "31008"),
            ("PORT_REDIS_MAIN", "31007"),
        ]
    );
}

#[test]
fn nothing_asked_for_is_left_out_silently() {
    let refused = [
        (json!({"container": {"image": "Not:An:Image", "command": ["x"]}}), "image"),
        (json!({"container": {}}), "command"),
        (json!({"container": {"args": ["x"]}}), "args"),
        (json!({"container": {"command": ["x"], "capabilities": ["SYS_MODULE"]}}), "capabilities"),
        (json!({"container": {"command": ["x"], "network": "calico"}}), "network"),
        (json!({"container": {"command": ["x"], "user": "www-data"}}), "user"),
        (json!({"container": {"command": ["x"], "mounts": [{"path": "/mnt-x"}]}}), "mounts[0]"),
        (
            json!({"container": {"command": ["x"], "mounts": [{"path": "/proc/x", "tmpfs": {"size": "1Mi"}}]}}),
            "mounts[0].path",
        ),
        (
            json!({"container": {"command": ["x"], "mounts": [{"path": "/etc/new-x", "tmpfs": {"size": "1Mi"}}]}}),
            "mounts[0].path",
        ),
        (
            json!({"container": {"command": ["x"], "mounts": [{"path": "/mnt-x", "tmpfs": {"size": "1"}}]}}),
            "tmpfs.size",
        ),
        (json!({"container": {"command": ["x"], "ports": [{"hostPort": 0}]}}), "ports"),
        (json!({"container": {"command": ["x"]}, "killPolicy": {"signal": "NOPE"}}), "killPolicy"),
        (json!({"container": {"command": ["x"]}, "healthCheck": {"tcp": {}}}), "healthCheck"),
        (
            json!({"container": {"command": ["x"]}, "healthCheck": {"exec": {"command": []}}}),
            "healthCheck.exec.command",
        ),
        (
            json!({
                "container": {"command": ["x"], "network": "None", "ports": [{"hostPort": 31000}]},
                "readinessCheck": {"tcp": {}},
            }),
            "readinessCheck",
        ),
    ];
    for (spec, word) in refused {
        let refusal = order(spec.clone()).unwrap_err();
        assert!(refusal.message.contains(word), "{spec}: {refusal:?}");
    }
    assert_eq!(order(json!({"container": {}})).unwrap_err().reason, "Unsupported");
}

#[test]
fn signals_are_read_with_and_without_their_prefix() {
    for (name, number) in [("TERM", 15), ("SIGINT", 2), ("kill", 9), ("usr1", 10)] {
        let task = task(json!({"killPolicy": {"signal": name}}));
        assert_eq!(kill_signal(&task), Ok(number), "{name}");
    }
}
