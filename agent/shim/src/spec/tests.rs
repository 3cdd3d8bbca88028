#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::*;

const HOST: Host = Host { limits_swap: true, max_open_files: 20_000 };

fn launch() -> Launch {
    Launch {
        command: vec!["sleep".to_owned()],
        args: vec!["1".to_owned()],
        env: [("A".to_owned(), "b".to_owned())].into(),
        hidden: vec![PathBuf::from("/data")],
        network: Network::None,
        ..Launch::new("t-1", "/commonage/node/t-1", PathBuf::from("/"))
    }
}

fn built(launch: &Launch) -> Value {
    let state = StateDir::new("/state");
    build(launch, &state, Path::new("/state/rootfs"), &Seen::plain(&state), HOST)
}

fn reason(launch: &Launch) -> Option<FailureReason> {
    check(launch).err().map(|error| error.reason)
}

#[test]
fn the_specification_is_one_to_libcontainer() {
    let spec: libcontainer::oci_spec::runtime::Spec =
        serde_json::from_value(built(&launch())).unwrap();
    assert_eq!(spec.process().as_ref().unwrap().no_new_privileges(), Some(true));
    assert_eq!(spec.process().as_ref().unwrap().args().as_ref().unwrap(), &["sleep", "1"]);
}

#[test]
fn devices_are_denied_before_some_are_allowed() {
    let spec = built(&launch());
    let devices = spec["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!(devices[0], json!({ "allow": false, "access": "rwm" }));
    assert!(devices[1..].iter().all(|d| d["type"] == "c" && d["major"].is_u64()));
}

#[test]
fn no_control_group_is_mounted() {
    let spec = built(&launch());
    let mounts = spec["mounts"].as_array().unwrap();
    assert!(mounts.iter().all(|m| !m["type"].as_str().unwrap().starts_with("cgroup")));
}

#[test]
fn namespaces_follow_the_network() {
    let kinds = |network| -> Vec<String> {
        let all = namespaces(&Launch { network, ..launch() }, &Seen::default());
        all.iter().map(|n| n["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(kinds(Network::Host), ["pid", "mount", "ipc", "uts", "cgroup"]);
    assert_eq!(kinds(Network::None).last().unwrap(), "network");
    let shared = Launch {
        network: Network::Shared(crate::launch::SharedNetwork {
            namespace: "/g/net".into(),
            addresses: Vec::new(),
        }),
        ipc: Some(crate::launch::SharedIpc { namespace: "/g/ipc".into(), memory: "/g/shm".into() }),
        ..launch()
    };
    let all = namespaces(&shared, &Seen::default());
    assert_eq!(all[2], json!({"type": "ipc", "path": "/g/ipc"}));
    assert_eq!(all[5], json!({"type": "network", "path": "/g/net"}));
    let mounts = built(&shared)["mounts"].clone();
    let shm = mounts.as_array().unwrap().iter().find(|m| m["destination"] == "/dev/shm").unwrap();
    assert_eq!((&shm["type"], &shm["source"]), (&json!("bind"), &json!("/g/shm")));
}

#[test]
fn the_data_directory_is_masked() {
    let spec = built(&launch());
    let masked = spec["linux"]["maskedPaths"].as_array().unwrap();
    for path in ["/data", "/state", "/etc/shadow", "/proc/kcore"] {
        assert!(masked.contains(&json!(path)), "{path}");
    }
}

#[test]
fn capabilities_are_few_for_root_and_none_for_others() {
    let mut launch = launch();
    let root = built(&launch)["process"]["capabilities"]["bounding"].clone();
    assert!(!root.as_array().unwrap().contains(&json!("CAP_NET_RAW")));
    assert!(!root.as_array().unwrap().contains(&json!("CAP_SYS_ADMIN")));
    launch.user.uid = 1000;
    assert_eq!(built(&launch)["process"]["capabilities"]["bounding"], json!([]));
}

#[test]
fn capabilities_are_added_and_dropped() {
    let mut launch = launch();
    launch.capabilities.add = vec!["CAP_NET_ADMIN".to_owned(), "CAP_CHOWN".to_owned()];
    launch.capabilities.drop = vec!["CAP_KILL".to_owned()];
    let capabilities = built(&launch)["process"]["capabilities"].clone();
    let bounding = capabilities["bounding"].as_array().unwrap();
    assert_eq!(bounding.len(), CAPABILITIES.len());
    assert!(bounding.contains(&json!("CAP_NET_ADMIN")) && !bounding.contains(&json!("CAP_KILL")));
    assert_eq!(capabilities["ambient"], json!([]));
    launch.user.uid = 1000;
    let capabilities = built(&launch)["process"]["capabilities"].clone();
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        assert_eq!(capabilities[set], json!(["CAP_CHOWN", "CAP_NET_ADMIN"]), "{set}");
    }
}

#[test]
fn devices_of_a_task_are_made_and_allowed() {
    let mut launch = launch();
    let path = PathBuf::from("/dev/nvidia3");
    launch.devices = vec![crate::launch::Device { path, major: 195, minor: 3 }];
    let linux = built(&launch)["linux"].clone();
    assert_eq!(linux["devices"][0]["path"], "/dev/nvidia3");
    let rules = linux["resources"]["devices"].as_array().unwrap();
    let own = json!({"allow": true, "type": "c", "major": 195, "minor": 3, "access": "rwm"});
    assert_eq!(rules.last().unwrap(), &own);
    let plain = built(&self::launch())["linux"]["resources"]["devices"].clone();
    assert!(plain.as_array().unwrap().iter().all(|rule| rule["major"] != 195));
}

#[test]
fn limits_become_what_the_kernel_counts_in() {
    let mut launch = launch();
    launch.limits = Limits {
        cpu_millis: Some(500),
        cpu_quota_millis: Some(200),
        memory_bytes: Some(64 << 20),
        pids: 32,
    };
    let resources = built(&launch)["linux"]["resources"].clone();
    // Whatever its share is to be, while it is made it has the greatest.
    assert_eq!(resources["cpu"], json!({ "shares": 262_144, "quota": 20_000, "period": 100_000 }));
    assert_eq!(cpu_shares(500), 512);
    assert_eq!(resources["memory"], json!({ "limit": 64 << 20, "swap": 64 << 20 }));
    assert_eq!(resources["pids"], json!({ "limit": 32 }));
    assert_eq!(cpu_quota(3), (3_000, 1_000_000));
    assert_eq!(cpu_shares(0), 2);
    assert_eq!(cpu_shares(u64::MAX), 262_144);
}

#[test]
fn open_files_stay_within_our_own_limit() {
    let limits = built(&launch())["process"]["rlimits"].clone();
    assert_eq!(limits[0], json!({ "type": "RLIMIT_NOFILE", "soft": 20_000, "hard": 20_000 }));
}

#[test]
fn the_environment_is_the_tasks_own_plus_four() {
    let environment = environment(&launch());
    assert!(environment.contains(&"A=b".to_owned()));
    assert!(environment.contains(&"COMMONAGE_SANDBOX=/sandbox".to_owned()));
    assert!(environment.contains(&format!("PATH={DEFAULT_PATH}")));
    assert_eq!(environment.len(), 5);
}

#[test]
fn what_cannot_run_is_refused_with_a_reason() {
    assert_eq!(reason(&launch()), None);
    let with = |change: fn(&mut Launch)| {
        let mut launch = launch();
        change(&mut launch);
        reason(&launch)
    };
    let invalid = Some(FailureReason::InvalidLaunch);
    assert_eq!(with(|l| l.command.clear()), invalid);
    assert_eq!(with(|l| l.id = "../x".to_owned()), invalid);
    assert_eq!(with(|l| l.cgroup = "/".to_owned()), invalid);
    assert_eq!(with(|l| l.cgroup = "/a/../b".to_owned()), invalid);
    assert_eq!(with(|l| l.args.push("a\0b".to_owned())), invalid);
    assert_eq!(with(|l| drop(l.env.insert("A=".to_owned(), String::new()))), invalid);
    assert_eq!(with(|l| l.working_dir = Some("x".into())), Some(FailureReason::InvalidWorkingDir));
    let small = Some(FailureReason::LimitsTooSmall);
    assert_eq!(with(|l| l.limits.memory_bytes = Some(1)), small);
    assert_eq!(with(|l| l.limits.pids = 1), small);
    assert_eq!(with(|l| l.limits.cpu_quota_millis = Some(0)), small);
}

/// What libcontainer writes where control groups are of version 2, which few machines that build this have.
#[test]
fn limits_are_those_of_version_2_as_well() {
    use libcgroups::common::{CgroupManager, ControllerOpt};

    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
    let written = |limits: Limits| {
        let launch = Launch { limits, ..launch() };
        let spec: libcontainer::oci_spec::runtime::Spec =
            serde_json::from_value(built(&launch)).unwrap();
        let linux = spec.linux().as_ref().unwrap();
        let path = linux.cgroups_path().clone().unwrap();
        assert_eq!(path, Path::new("/commonage/node/t-1"));
        let group = root.path().join("commonage/node/t-1");
        std::fs::create_dir_all(&group).unwrap();
        let files = ["cpu.max", "cpu.weight", "memory.max", "memory.swap.max", "pids.max"];
        // As the kernel has them at first; it writes them anew, where a file would keep the rest.
        for file in files {
            std::fs::write(group.join(file), "").unwrap();
        }
        let manager = libcgroups::v2::manager::Manager::new(root.path().to_owned(), path).unwrap();
        let options = ControllerOpt {
            resources: linux.resources().as_ref().unwrap(),
            disable_oom_killer: false,
            oom_score_adj: None,
            freezer_state: None,
        };
        manager.apply(&options).unwrap();
        files.map(|file| std::fs::read_to_string(group.join(file)).unwrap())
    };
    let all = written(Limits {
        cpu_millis: Some(500),
        cpu_quota_millis: Some(1500),
        memory_bytes: Some(64 << 20),
        pids: 100,
    });
    let [quota, weight, memory, swap, pids] = all.each_ref().map(String::as_str);
    assert_eq!((quota, memory, pids), ("150000 100000", "67108864", "100"));
    // Left alone, which is no limit: see `cgroup::Group::forbid_swap`.
    assert_eq!(swap, "");
    assert_eq!(weight, "10000", "while it is made");
    let least = written(Limits { cpu_quota_millis: Some(1), ..Limits::default() });
    assert_eq!(least[0], "1000 1000000");
}
