//! Where control groups of either version are found, and what they are told and read.

#![allow(clippy::unwrap_used)]
use super::*;

const HYBRID: &str = "\
27 1 254:0 / / rw - ext4 /dev/vda rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

#[test]
fn hybrid_hierarchies_prefer_version_1() {
    let found = Hierarchies::parse(HYBRID);
    assert_eq!(found.0.len(), 3);
    let memory = found.with("memory").unwrap();
    assert_eq!(memory.mount_point, Path::new("/sys/fs/cgroup/memory"));
    let cpu = found.with("cpuacct").unwrap();
    assert_eq!(cpu.mount_point, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
    assert!(found.with("pids").unwrap().controllers.is_none());
}

#[test]
fn nothing_but_a_tasks_group_is_accepted() {
    assert!(is_task_path("/commonage/node/t-1"));
    for path in ["", "/", "/a", "a/b", "/a/..", "/a/../b", "/a//b", "/a/b/", "/./a"] {
        assert!(!is_task_path(path), "{path}");
    }
}

#[test]
fn io_of_all_devices_is_added_up() {
    let v1 = "8:0 Read 512\n8:0 Write 1024\n8:0 Sync 9\n8:16 Read 1\nTotal 1537\n";
    assert_eq!(io_bytes(v1), (513, 1024));
    let v2 = "8:0 rbytes=512 wbytes=1024 rios=1 wios=2 dbytes=0 dios=0\n254:0 rbytes=8 wbytes=0\n";
    assert_eq!(io_bytes(v2), (520, 1024));
    assert_eq!(io_bytes(""), (0, 0));
}

/// As the kernel shows a group of version 2, which few machines that build this have.
#[test]
fn a_group_of_version_2_is_read_as_one() {
    let root = tempfile::tempdir().unwrap();
    let hierarchies =
        Hierarchies(vec![Hierarchy { mount_point: root.path().to_owned(), controllers: None }]);
    let group = hierarchies.group("/commonage/node/t-1").unwrap();
    let at = root.path().join("commonage/node/t-1");
    std::fs::create_dir_all(&at).unwrap();
    for (file, content) in [
        ("cpu.stat", "usage_usec 1500\nuser_usec 1000\nnr_throttled 2\nthrottled_usec 70\n"),
        ("memory.current", "4096000\n"),
        ("memory.stat", "anon 1\ninactive_file 96000\nactive_file 5\n"),
        ("memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 2\noom_group_kill 0\n"),
        ("memory.swap.max", "max\n"),
        ("pids.current", "7\n"),
        ("io.stat", "254:0 rbytes=512 wbytes=1024 rios=1 wios=2 dbytes=0 dios=0\n"),
        ("cgroup.procs", ""),
    ] {
        std::fs::write(at.join(file), content).unwrap();
    }
    let expected = Usage {
        cpu_ns: 1_500_000,
        throttled_ns: 70_000,
        memory_bytes: 4_096_000,
        working_set_bytes: 4_000_000,
        io_read_bytes: 512,
        io_written_bytes: 1024,
        pids: 7,
        oom_kills: 2,
    };
    assert_eq!(group.usage(), expected);
    assert!(hierarchies.limits_swap());
    group.forbid_swap().unwrap();
    assert_eq!(std::fs::read_to_string(at.join("memory.swap.max")).unwrap(), "0");
    std::fs::remove_file(at.join("memory.swap.max")).unwrap();
    group.forbid_swap().unwrap();
    assert!(!at.join("memory.swap.max").exists(), "a kernel without swap");
    assert_eq!(group.processes().unwrap(), BTreeSet::new());
}

#[test]
fn what_is_killed_has_no_quota_any_more() {
    let root = tempfile::tempdir().unwrap();
    for (controllers, file, limited, unlimited) in [
        (None, "cpu.max", "20000 100000", "max"),
        (Some(vec!["cpu".to_owned()]), "cpu.cfs_quota_us", "20000", "-1"),
    ] {
        let mount_point = root.path().join(file);
        let at = mount_point.join("commonage/node/t-1");
        std::fs::create_dir_all(&at).unwrap();
        std::fs::write(at.join(file), limited).unwrap();
        std::fs::write(at.join("cgroup.procs"), "").unwrap();
        let hierarchies = Hierarchies(vec![Hierarchy { mount_point, controllers }]);
        hierarchies.group("/commonage/node/t-1").unwrap().kill().unwrap();
        assert_eq!(std::fs::read_to_string(at.join(file)).unwrap(), unlimited);
        // One without a group is no error.
        hierarchies.group("/commonage/node/t-2").unwrap().kill().unwrap();
    }
}

#[test]
fn counters_are_found_by_whole_words() {
    let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
    assert_eq!(keyed(text, "oom_kill"), Some(3));
    assert_eq!(keyed(text, "oom"), None);
}
