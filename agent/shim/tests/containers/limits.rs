//! Limits are what the kernel enforces, so it is the kernel that is asked.

use std::time::{Duration, Instant};

use commonage_shim::client;
use commonage_shim::exec::Order;
use commonage_shim::launch::{LogLimits, Stream};
use commonage_shim::quota::Quotas;

use crate::Test;
use crate::fixture::{Task, eventually};

pub const TESTS: &[Test] = &[
    (
        "the_disk_itself_keeps_a_project_within_its_limit",
        the_disk_itself_keeps_a_project_within_its_limit,
    ),
    ("a_cpu_quota_is_enforced", a_cpu_quota_is_enforced),
    (
        "who_starts_a_task_is_in_haste_and_the_task_is_not",
        who_starts_a_task_is_in_haste_and_the_task_is_not,
    ),
    ("running_out_of_memory_is_told_apart", running_out_of_memory_is_told_apart),
    ("a_child_running_out_of_memory_is_told", a_child_running_out_of_memory_is_told),
    ("a_fork_bomb_ends_at_the_limit", a_fork_bomb_ends_at_the_limit),
    ("limits_and_devices_are_the_kernels", limits_and_devices_are_the_kernels),
    ("a_task_cannot_reach_its_own_limits", a_task_cannot_reach_its_own_limits),
    (
        "a_flood_of_output_is_slowed_down_and_kept_small",
        a_flood_of_output_is_slowed_down_and_kept_small,
    ),
];

/// The niceness of a process: field 19 of proc(5).
fn niceness(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse().unwrap()
}

fn who_starts_a_task_is_in_haste_and_the_task_is_not() {
    let task = Task::sh("cut -d' ' -f19 /proc/self/stat; until [ -e go ]; do sleep 0.01; done");
    let shim = task.start();
    let init = eventually("it runs", || task.connect().status().ok()?.pid);
    let usual = niceness(std::process::id().cast_signed());
    task.until_output(&format!("{usual}\n"));
    assert_eq!((niceness(shim), niceness(init)), (-10, -10));
    let order = Order {
        command: ["sh", "-c", "cut -d' ' -f19 /proc/self/stat > further"]
            .map(str::to_owned)
            .to_vec(),
        ..Order::default()
    };
    let _further = task.connect().exec(&order).unwrap();
    eventually("a further command's", || {
        let said = std::fs::read_to_string(task.launch.sandbox.join("further")).ok()?;
        (said == format!("{usual}\n")).then_some(())
    });
    std::fs::write(task.launch.sandbox.join("go"), "").unwrap();
    assert!(task.end().success());
}

fn a_cpu_quota_is_enforced() {
    let task = Task::sh("echo ready; while :; do :; done")
        .with(|launch| launch.limits.cpu_quota_millis = Some(200));
    task.start();
    task.until_output("ready");
    let (start, before) = (Instant::now(), client::usage(&task.launch).unwrap());
    // By the clock, but not a sleep: until the kernel has throttled it for a second.
    let after = eventually("it was throttled for a second", || {
        let usage = client::usage(&task.launch).unwrap();
        (usage.throttled_ns - before.throttled_ns > 1_000_000_000).then_some(usage)
    });
    let used = Duration::from_nanos(after.cpu_ns - before.cpu_ns).as_secs_f64();
    let share = used / start.elapsed().as_secs_f64();
    // A quota is per 100 ms, so at most one of them too many at either end.
    assert!(share < 0.25, "used {share:.3} of a cpu, 0.2 allowed");
}

fn running_out_of_memory_is_told_apart() {
    let task =
        Task::command(&["tail", "/dev/zero"]).with(|l| l.limits.memory_bytes = Some(32 << 20));
    let exit = task.run();
    assert_eq!((exit.signal, exit.oom_killed), (Some(9), true), "{exit:?}");
    assert!(exit.oom_kills >= 1 && exit.error.is_none());
}

fn a_child_running_out_of_memory_is_told() {
    let task = Task::sh("tail /dev/zero; echo child: $?; exit 4")
        .with(|launch| launch.limits.memory_bytes = Some(32 << 20));
    let exit = task.run();
    assert_eq!((exit.exit_code, exit.oom_killed), (Some(4), true), "{exit:?}");
    assert_eq!(task.stdout(), "child: 137\n");
}

fn a_fork_bomb_ends_at_the_limit() {
    let task = Task::sh("i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done; echo all")
        .with(|launch| launch.limits.pids = 16);
    let exit = task.run();
    assert_ne!(exit.exit_code, Some(0), "{}", task.stdout());
    assert!(task.stderr().to_lowercase().contains("fork"), "{}", task.stderr());
    assert_eq!(task.processes(), Vec::<i32>::new());
}

/// What the kernel was told, read back. Version 1 only, where each is one file.
fn limits_and_devices_are_the_kernels() {
    let task = Task::sh("echo ready; sleep 1000").with(|launch| {
        launch.limits.cpu_millis = Some(500);
        launch.limits.cpu_quota_millis = Some(1500);
        launch.limits.memory_bytes = Some(64 << 20);
    });
    task.start();
    task.until_output("ready");
    let read = |name: &str| {
        let files = task.groups().into_iter().map(|group| group.join(name));
        files.filter_map(|file| std::fs::read_to_string(file).ok()).next().unwrap_or_default()
    };
    if read("devices.list").is_empty() {
        eprintln!("!!! no version 1 control groups: nothing was read back !!!");
        return;
    }
    assert_eq!(
        read("devices.list"),
        "c 1:3 rwm\nc 1:5 rwm\nc 1:7 rwm\nc 1:8 rwm\nc 1:9 rwm\nc 5:0 rwm\nc 5:2 rwm\nc 136:* rwm\n"
    );
    assert_eq!(read("cpu.shares"), "512\n");
    assert_eq!(read("cpu.cfs_quota_us"), "150000\n");
    assert_eq!(read("memory.limit_in_bytes"), "67108864\n");
    assert_eq!(read("pids.max"), "4096\n");
    let swap = read("memory.memsw.limit_in_bytes");
    assert!(swap.is_empty() || swap == "67108864\n", "{swap}");
}

fn a_task_cannot_reach_its_own_limits() {
    let task = Task::sh(
        "grep -c cgroup /proc/self/mounts; ls /sys/fs/cgroup | wc -l; cut -d: -f3 /proc/self/cgroup | sort -u",
    );
    task.run();
    assert_eq!(task.stdout(), "0\n0\n/\n", "{}", task.stderr());
}

/// Row F-66: whoever prints without end fills no disk, keeps no processor busy, and can be ended.
fn a_flood_of_output_is_slowed_down_and_kept_small() {
    const BURST_BYTES: u64 = 64 << 20;
    const BYTES_PER_SECOND: u64 = 16 << 20;
    const FILE_BYTES: u64 = 4 << 20;
    let task = Task::sh("cat /dev/zero & tr '\\0' 'x' < /dev/zero >&2").with(|launch| {
        launch.log = LogLimits { max_file_bytes: FILE_BYTES, max_files: 2 };
    });
    let began = Instant::now();
    task.start();
    let both = [Stream::Stdout, Stream::Stderr];
    let kept = |stream: Stream| -> u64 {
        let file = task.state.log(stream);
        let older = file.with_extension("log.1");
        [file, older].iter().filter_map(|file| Some(std::fs::metadata(file).ok()?.len())).sum()
    };
    let taken = || -> u64 {
        both.map(|stream| task.state.log_bytes_gone(stream) + kept(stream)).iter().sum()
    };
    // Past what is free, and at both streams.
    eventually("more came than is free", || {
        let each = both.map(|stream| task.state.log_bytes_gone(stream) > 0);
        (taken() > BURST_BYTES + BYTES_PER_SECOND && each == [true, true]).then_some(())
    });
    let (so_far, took) = (taken(), began.elapsed());
    // What was counted may have been counted twice, while a file moved.
    let most = BURST_BYTES + (BYTES_PER_SECOND as f64 * took.as_secs_f64()) as u64 + 2 * FILE_BYTES;
    assert!(so_far < most, "{so_far} bytes in {took:?}");
    for stream in both {
        assert!(kept(stream) <= 2 * FILE_BYTES + (FILE_BYTES / 4), "{}", kept(stream));
    }
    // It answers, and passes on what it is told.
    let mut shim = task.connect();
    shim.status().unwrap();
    shim.kill(9).unwrap();
    let exit = task.end();
    assert_eq!((exit.signal, exit.log_bytes_dropped), (Some(9), 0), "{exit:?}");
}

/// A small ext4 of the test's own.
struct Disk {
    mount: tempfile::TempDir,
    _image: tempfile::NamedTempFile,
}

impl Disk {
    /// `None`: this machine can't make one, for the reason that is printed.
    fn new() -> Option<Disk> {
        let image = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        image.as_file().set_len(64 << 20).unwrap();
        let mount = tempfile::tempdir_in("/var/tmp").unwrap();
        let (file, place) =
            (image.path().display().to_string(), mount.path().display().to_string());
        let steps: [&[&str]; 2] = [
            &["mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota", &file],
            &["mount", "-o", "loop,prjquota", &file, &place],
        ];
        for step in steps {
            let done = std::process::Command::new(step[0]).args(&step[1..]).output();
            let done = done.map_or_else(
                |error| Err(error.to_string()),
                |output| match output.status.success() {
                    true => Ok(()),
                    false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
                },
            );
            if let Err(why) = done {
                eprintln!("!!! no disk with project quotas: {step:?}: {why} !!!");
                return None;
            }
        }
        Some(Disk { mount, _image: image })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.mount.path()).status();
    }
}

fn the_disk_itself_keeps_a_project_within_its_limit() {
    assert_eq!(Quotas::of(std::path::Path::new("/proc")).unwrap(), None);
    let Some(disk) = Disk::new() else { return };
    let quotas = Quotas::of(disk.mount.path()).unwrap().unwrap();
    let script = "head -c 1000000 /dev/zero > /sandbox/a && echo small; mkdir /sandbox/d; head -c 6000000 /dev/zero > \
                  /sandbox/d/b || echo refused; head -c 1000000 /dev/zero > /tmp/c || echo refused";
    let task = Task::command_in(disk.mount.path(), &["sh", "-c", script]);
    let directories = commonage_shim::quota::counted(&task.state);
    for directory in directories.iter().skip(1).chain([&task.launch.sandbox]) {
        std::fs::create_dir_all(directory).unwrap();
    }
    std::fs::write(task.launch.sandbox.join("fetched"), vec![1; 500_000]).unwrap();
    let all: Vec<_> =
        directories[1..].iter().cloned().chain([task.launch.sandbox.clone()]).collect();
    quotas.limit(0x4000_0001, &all, 4 << 20).unwrap();
    task.run();
    assert_eq!(task.stdout(), "small\nrefused\nrefused\n", "{}", task.stderr());
    assert!(task.stderr().contains("quota exceeded"), "{}", task.stderr());
    // What was in it before counts, and what nobody limits goes on.
    let used = quotas.used(0x4000_0001).unwrap();
    assert!(((4 << 20) - 65_536..=4 << 20).contains(&used), "{used}");
    std::fs::write(disk.mount.path().join("other"), vec![1; 8 << 20]).unwrap();
    quotas.forget(0x4000_0001).unwrap();
    std::fs::write(task.launch.sandbox.join("more"), vec![1; 1 << 20]).unwrap();
}
