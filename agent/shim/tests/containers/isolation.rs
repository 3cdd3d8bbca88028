//! What a task must not see, write or do.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use commonage_shim::launch::{Capabilities, Device, Mount, Network, User};

use crate::Test;
use crate::fixture::Task;

pub const TESTS: &[Test] = &[
    ("the_hosts_root_is_read_only", the_hosts_root_is_read_only),
    ("sandbox_and_tmp_are_writable", sandbox_and_tmp_are_writable),
    ("secrets_and_other_tasks_are_hidden", secrets_and_other_tasks_are_hidden),
    ("what_only_its_owner_may_read_is_out_of_reach", what_only_its_owner_may_read_is_out_of_reach),
    ("privileges_are_dropped", privileges_are_dropped),
    ("capabilities_are_given_and_taken", capabilities_are_given_and_taken),
    ("a_given_device_is_there_and_no_other", a_given_device_is_there_and_no_other),
    ("the_whole_machine_is_out_of_reach", the_whole_machine_is_out_of_reach),
    ("calls_that_are_not_allowed_fail", calls_that_are_not_allowed_fail),
    ("processes_of_others_are_out_of_sight", processes_of_others_are_out_of_sight),
    ("init_gives_nothing_away", init_gives_nothing_away),
    ("init_reaps_orphans", init_reaps_orphans),
    ("no_network_is_no_network", no_network_is_no_network),
    ("mounts_are_as_ordered", mounts_are_as_ordered),
    ("the_signal_state_is_clean", the_signal_state_is_clean),
    ("no_descriptor_leaks_in", no_descriptor_leaks_in),
];

/// Runs a script that prints a line for every attempt that wrongly succeeded.
fn nothing_succeeds(attempts: &[&str]) {
    let script: String = attempts
        .iter()
        .map(|attempt| {
            format!(
                "( {attempt} ) >/dev/null 2>&1 && echo 'succeeded: {}'\n",
                attempt.replace('\'', "")
            )
        })
        .collect();
    let task = Task::sh(&format!("{script}echo end"));
    let exit = task.run();
    assert_eq!(task.stdout(), "end\n", "{exit:?} {}", task.stderr());
}

fn the_hosts_root_is_read_only() {
    nothing_succeeds(&[
        "touch /x",
        "touch /etc/x",
        "touch /usr/x",
        "touch /var/x",
        "touch /run/x",
        "touch /sys/x",
        "mkdir /proc/x",
        "rm /bin/sh",
        "echo 1 > /proc/sys/kernel/panic",
        "echo b > /proc/sysrq-trigger",
        "chmod 777 /etc",
    ]);
}

fn sandbox_and_tmp_are_writable() {
    let task = Task::sh(
        "echo a > /sandbox/f; echo b > /tmp/f; echo c > /dev/shm/f; cat /sandbox/f /tmp/f /dev/shm/f; ls -A /tmp",
    );
    assert!(task.run().success(), "{}", task.stderr());
    assert_eq!(task.stdout(), "a\nb\nc\nf\n");
    assert_eq!(std::fs::read_to_string(task.launch.sandbox.join("f")).unwrap(), "a\n");
}

fn secrets_and_other_tasks_are_hidden() {
    let task = Task::sh("true");
    let data = task.launch.hidden[0].display().to_string();
    let task = task.with(|launch| {
        launch.command[2] =
            format!("ls -A {data} /root /home /run | grep -v : ; cat /etc/shadow; ls -d {data}/t*");
    });
    task.run();
    let output = task.stdout();
    let visible = output
        .lines()
        .filter(|line| !line.is_empty() && *line != "systemd" && *line != "resolvconf");
    assert_eq!(visible.count(), 0, "{output}");
}

/// Another cluster's keys, say, in a directory that nobody has told us about.
fn what_only_its_owner_may_read_is_out_of_reach() {
    // Not in /tmp, which each task has of its own.
    let other = tempfile::tempdir_in("/var/tmp").unwrap();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(other.path(), 0o755);
    let owners = [("roots", 0), ("somebodys", 4711)];
    for (name, owner) in owners {
        let (key, closed) = (other.path().join(name), other.path().join(format!("{name}-closed")));
        std::fs::create_dir(&closed).unwrap();
        std::fs::write(&key, "secret").unwrap();
        std::fs::write(closed.join("f"), "secret").unwrap();
        mode(&key, 0o600);
        mode(&closed, 0o700);
        std::os::unix::fs::chown(&key, Some(owner), Some(owner)).unwrap();
        std::os::unix::fs::chown(&closed, Some(owner), Some(owner)).unwrap();
    }
    let public = other.path().join("public");
    std::fs::write(&public, "public\n").unwrap();
    mode(&public, 0o644);
    for uid in [0, 4711] {
        let script = format!("cd {}; cat *; ls *-closed; cat *-closed/f", other.path().display());
        let task = Task::sh(&script).with(|launch| launch.user = User { uid, ..User::default() });
        task.run();
        assert_eq!(task.stdout(), "public\n", "as {uid}: {}", task.stderr());
        assert_eq!(task.shim_log(), "");
    }
}

fn privileges_are_dropped() {
    let task = Task::sh(
        "grep -E '^(Seccomp|NoNewPrivs|CapEff|CapBnd|CapAmb|CapInh):' /proc/self/status; ulimit -c",
    );
    task.run();
    // AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP
    // SETUID SYS_CHROOT
    let expected = "CapInh:\t0000000000000000\nCapEff:\t00000000a00405fb\nCapBnd:\t00000000a00405fb\n\
                    CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n0\n";
    assert_eq!(task.stdout(), expected);
}

fn capabilities_are_given_and_taken() {
    // By how much it can have its way is told, because this test may itself be run as a nice one.
    let script = "grep -E '^Cap(Eff|Amb):' /proc/self/status; \
                  echo $(($(nice -n -5 nice 2>/dev/null) - $(nice)))";
    let given = |uid: u32, add: &[&str], drop: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let task = Task::sh(script).with(|launch| {
            launch.user = User { uid, ..User::default() };
            launch.capabilities = Capabilities { add: owned(add), drop: owned(drop) };
        });
        let exit = task.run();
        assert!(exit.error.is_none(), "{exit:?}");
        task.stdout()
    };
    // SYS_NICE is bit 23, KILL bit 5.
    let root = given(0, &["CAP_SYS_NICE"], &["CAP_KILL"]);
    assert_eq!(root, "CapEff:\t00000000a08405db\nCapAmb:\t0000000000000000\n-5\n");
    let user = given(1000, &["CAP_SYS_NICE"], &[]);
    assert_eq!(user, "CapEff:\t0000000000800000\nCapAmb:\t0000000000800000\n-5\n");
    let none = given(1000, &[], &[]);
    assert_eq!(none, "CapEff:\t0000000000000000\nCapAmb:\t0000000000000000\n0\n");
}

/// A device that every kernel with fuse has stands for a GPU: opening it needs nothing but leave.
fn a_given_device_is_there_and_no_other() {
    const FUSE: (u64, u64) = (10, 229);
    let script = "ls /dev | tr '\\n' ' '; for d in nvidia0 fuse; do [ -c /dev/$d ] && ( exec 3<>/dev/$d ) 2>/dev/null && echo $d; done; true";
    let device = Device { path: "/dev/nvidia0".into(), major: FUSE.0, minor: FUSE.1 };
    let given = Task::sh(script).with(|launch| launch.devices = vec![device]);
    given.run();
    let without = Task::sh(script);
    without.run();
    assert!(!without.stdout().contains("nvidia"), "{}", without.stdout());
    assert!(given.stdout().contains(" nvidia0 "), "{}", given.stdout());
    if Path::new("/dev/fuse").exists() {
        assert!(given.stdout().ends_with("nvidia0\n"), "{}", given.stdout());
    }
}

fn the_whole_machine_is_out_of_reach() {
    nothing_succeeds(&[
        "mount -t tmpfs none /tmp",
        "mount -o remount,rw /",
        "umount /proc",
        "unshare -U true",
        "unshare -m true",
        "unshare -n true",
        "nsenter -t 1 -m true",
        "mknod /tmp/null c 1 3",
        "mknod /dev/disk b 8 0",
        "mknod /tmp/whole c 1 1",
        "hostname x",
        "date -s 2020-01-01",
        "dmesg",
        "chroot / mount -t proc none /tmp",
    ]);
}

fn calls_that_are_not_allowed_fail() {
    if !std::path::Path::new("/usr/bin/python3").exists() {
        eprintln!("!!! no python3: system calls were not tried !!!");
        return;
    }
    // Numbers of x86-64; elsewhere other calls are tried, which must fail as well.
    let script = "\
import ctypes, errno, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *args):
    r = libc.syscall(number, *args)
    print(name, errno.errorcode[ctypes.get_errno()] if r < 0 else r)
call('clone3', 435, 0, 0)
call('unknown', 999, 0)
call('keyctl', 250, 0, 0)
call('bpf', 321, 0, 0, 0)
call('io_uring_setup', 425, 1, 0)
call('userfaultfd', 323, 0)
call('clone NEWUSER', 56, 0x10000011, 0, 0, 0, 0)
call('personality', 135, 0x40000)
for family in (17, 38, 40):
    try: socket.socket(family, socket.SOCK_RAW if family == 17 else socket.SOCK_STREAM); print(family, 'open')
    except OSError as e: print(family, errno.errorcode[e.errno])
for family in (1, 2, 10):
    try: socket.socket(family).close(); print(family, 'open')
    except OSError as e: print(family, errno.errorcode[e.errno])
";
    let task = Task::command(&["/usr/bin/python3", "-c", script]);
    let exit = task.run();
    assert!(exit.success(), "{exit:?} {}", task.stderr());
    let output = task.stdout();
    let lines: Vec<&str> = output.lines().filter(|line| !line.starts_with("10 ")).collect();
    let expected = [
        "clone3 ENOSYS",
        "unknown ENOSYS",
        "keyctl EPERM",
        "bpf EPERM",
        "io_uring_setup EPERM",
        "userfaultfd EPERM",
        "clone NEWUSER EPERM",
        "personality EPERM",
        "17 EPERM",
        "38 EPERM",
        "40 EPERM",
        "1 open",
        "2 open",
    ];
    assert_eq!(lines, expected);
}

fn processes_of_others_are_out_of_sight() {
    let task = Task::sh("ls -d /proc/[0-9]* | wc -l; kill -0 100000 2>/dev/null && echo reached");
    task.run();
    let count: u32 = task.stdout().lines().next().unwrap().trim().parse().unwrap();
    assert!(count <= 5, "{}", task.stdout());
}

fn init_gives_nothing_away() {
    nothing_succeeds(&[
        "readlink /proc/1/exe",
        "head -c 1 /proc/1/exe",
        "echo > /proc/1/exe",
        "head -c 1 /proc/1/environ",
        "for f in /proc/1/fd/*; do readlink $f; done | grep .",
        "for f in /proc/1/fd/*; do echo > $f && exit 0; done; exit 1",
        "ls /proc/1/root/",
        "head -c 1 /proc/1/mem",
        "cat /proc/1/maps | grep .",
    ]);
}

fn init_reaps_orphans() {
    let task = Task::sh(
        "for i in 1 2 3 4 5; do (sleep 0.01 &) ; done; while grep -q '(sleep)' /proc/[0-9]*/stat 2>/dev/null; do :; done; echo clean",
    );
    assert!(task.run().success(), "{}", task.stderr());
    assert_eq!(task.stdout(), "clean\n");
}

fn no_network_is_no_network() {
    let task = Task::sh(
        "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; cat /proc/net/unix | tail -n +2",
    )
    .with(|launch| launch.network = Network::None);
    task.run();
    assert_eq!(task.stdout(), "lo\n");
}

fn mounts_are_as_ordered() {
    let outside = tempfile::tempdir().unwrap();
    let (one, two) = (outside.path().join("one"), outside.path().join("two"));
    for directory in [&one, &two] {
        std::fs::create_dir(directory).unwrap();
        std::fs::write(directory.join("here"), "x").unwrap();
    }
    let task = Task::sh("cat /data/one/here /data/two/here; touch /data/one/new && echo one; touch /data/two/new 2>/dev/null && echo two; true")
        .with(|launch| {
            launch.mounts = vec![
                Mount { source: one.clone(), target: "/data/one".into(), read_only: false, ..Mount::default() },
                Mount { source: two.clone(), target: "/data/two".into(), read_only: true, ..Mount::default() },
            ];
        });
    let exit = task.run();
    assert_eq!(task.stdout(), "xxone\n", "{exit:?} {}", task.stderr());
    assert!(one.join("new").exists());
}

fn the_signal_state_is_clean() {
    let task = Task::command(&["cat", "/proc/self/status"]);
    task.run();
    for field in ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"] {
        assert!(task.stdout().contains(&format!("{field}:\t0000000000000000\n")), "{field}");
    }
}

fn no_descriptor_leaks_in() {
    let task = Task::command(&["ls", "/proc/self/fd"]);
    task.run();
    // The fourth is the listing's own.
    assert_eq!(task.stdout(), "0\n1\n2\n3\n");
}
