//! Files of the machine, by every name that leads to some.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use libc::{
    EACCES, EEXIST, EINVAL, EIO, ELOOP, ENODATA, ENODEV, ENOENT, ENOTDIR, EPERM, EROFS, EXDEV,
};

use super::Attempt;

/// Not there, not ours, or not to be written.
const UNREACHABLE: &[i32] = &[ENOENT, ENOTDIR, EACCES, EPERM, EROFS, ELOOP, ENODEV];
/// As many steps up as no path has.
const UP: &str = "../../../../../../../../../../../../../../../..";

fn write(path: impl AsRef<Path>, content: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(content.as_bytes())
}

/// Some content that is not nothing: masked files are there, and empty.
fn read(path: impl AsRef<Path>) -> io::Result<()> {
    let mut byte = [0];
    match File::open(path)?.read(&mut byte)? {
        0 => Err(io::Error::from_raw_os_error(ENODATA)),
        _ => Ok(()),
    }
}

fn writing(path: &'static str, content: &'static str) -> Attempt {
    Attempt::new(format!("write{path}"), UNREACHABLE, move || write(path, content))
}

fn reading(path: &'static str) -> Attempt {
    let refusals = [UNREACHABLE, &[ENODATA, EIO, EINVAL]].concat();
    Attempt::new(format!("read{path}"), &refusals, move || read(path))
}

pub(super) fn attempts() -> Vec<Attempt> {
    let mut all = kernels();
    all.extend(inits());
    all.extend(secret());
    all.extend(groups());
    all
}

/// The kernel's own, where the machine's settings are.
fn kernels() -> Vec<Attempt> {
    vec![
        writing("/proc/sysrq-trigger", "h"),
        writing("/proc/sys/kernel/core_pattern", "core"),
        writing("/proc/sys/kernel/modprobe", "/bin/true"),
        writing("/proc/sys/kernel/panic", "0"),
        writing("/proc/sys/kernel/hostname", "other"),
        writing("/proc/sys/kernel/ns_last_pid", "1"),
        writing("/proc/sys/vm/drop_caches", "0"),
        writing("/proc/sys/vm/overcommit_memory", "0"),
        writing("/proc/sys/net/ipv4/ip_forward", "0"),
        writing("/proc/sys/fs/file-max", "1000000"),
        writing("/proc/sys/fs/binfmt_misc/register", ""),
        writing("/proc/sys/user/max_user_namespaces", "1000"),
        writing("/proc/irq/default_smp_affinity", "3"),
        writing("/proc/mtrr", ""),
        writing("/proc/asound/card0/oss_mixer", ""),
        writing("/sys/kernel/uevent_helper", "/bin/true"),
        writing("/sys/kernel/mm/ksm/run", "0"),
        writing("/sys/kernel/mm/transparent_hugepage/enabled", "madvise"),
        writing("/sys/power/state", ""),
        writing("/sys/module/printk/parameters/time", "1"),
        writing("/sys/block/vda/queue/read_ahead_kb", "128"),
        writing("/sys/class/net/lo/mtu", "65536"),
        writing("/sys/firmware/efi/vars/del_var", ""),
        reading("/proc/kcore"),
        reading("/proc/keys"),
        reading("/proc/timer_list"),
        reading("/proc/sched_debug"),
        reading("/proc/latency_stats"),
        reading("/proc/interrupts"),
        reading("/proc/kmsg"),
        reading("/proc/kpagecount"),
        reading("/proc/kpageflags"),
        reading("/proc/kpagecgroup"),
        reading("/sys/kernel/debug/sched/debug"),
        reading("/sys/kernel/tracing/trace"),
        reading("/sys/kernel/security/lsm"),
        reading("/sys/firmware/dmi/tables/DMI"),
        reading("/sys/devices/virtual/powercap/uevent"),
    ]
}

/// Of the container's first process, whose program is the machine's.
fn inits() -> Vec<Attempt> {
    vec![
        writing("/proc/1/exe", "x"),
        writing("/proc/1/mem", "x"),
        writing("/proc/1/uid_map", "0 0 1"),
        reading("/proc/1/environ"),
        reading("/proc/1/mem"),
        reading("/proc/1/maps"),
        reading("/proc/1/root/etc/passwd"),
        reading("/proc/1/cwd/etc/passwd"),
        reading("/proc/1/fd/0"),
        reading("/proc/1/fd/3"),
        reading("/proc/1/stack"),
        // Which numbers are open may be seen, what is behind them may not.
        Attempt::new("follow/proc/1/fd/3", UNREACHABLE, || fs::read_link("/proc/1/fd/3").map(drop)),
        Attempt::new("list/proc/1/map_files", UNREACHABLE, || {
            fs::read_dir("/proc/1/map_files")?
                .next()
                .unwrap_or_else(|| Err(io::Error::from_raw_os_error(ENOENT)))
                .map(drop)
        }),
    ]
}

/// A file of the machine that is nobody's but root's.
fn secret() -> Vec<Attempt> {
    let path = PathBuf::from(std::env::var("INTRUDER_HOST_SECRET").unwrap_or_default());
    let inside = path.strip_prefix("/").unwrap_or(&path).to_owned();
    let refusals = [UNREACHABLE, &[ENODATA]].concat();
    let at = |name: &str, path: PathBuf| {
        Attempt::new(format!("secret-{name}"), &refusals, move || read(&path))
    };
    let linked = path.clone();
    let escaped = inside.clone();
    let hard = path.clone();
    vec![
        at("by-name", path.clone()),
        at("by-steps-up", Path::new("/sandbox").join(UP).join(&inside)),
        at("by-root-of-init", Path::new("/proc/1/root").join(&inside)),
        at("by-own-root", Path::new("/proc/self/root").join(UP).join(&inside)),
        at("by-root-of-thread", Path::new("/proc/thread-self/root").join(UP).join(&inside)),
        at("by-cwd-of-init", Path::new("/proc/1/cwd").join(UP).join(&inside)),
        at("by-descriptor", Path::new("/proc/self/fd/0").join(UP).join(&inside)),
        Attempt::new("secret-by-link-in-sandbox", &refusals, move || {
            let link = "/sandbox/link";
            let _ = fs::remove_file(link);
            std::os::unix::fs::symlink(&linked, link)?;
            read(link)
        }),
        Attempt::new("secret-by-hard-link", &[UNREACHABLE, &[EXDEV, EEXIST]].concat(), move || {
            fs::hard_link(&hard, "/sandbox/hard")
        }),
        // Out of a root that was made below the working directory, the classic way out of a mere chroot.
        Attempt::new("secret-by-chroot", &refusals, move || {
            let _ = fs::create_dir("/sandbox/jail");
            std::os::unix::fs::chroot("/sandbox/jail")?;
            std::env::set_current_dir(UP)?;
            std::os::unix::fs::chroot(".")?;
            read(Path::new("/").join(&escaped))
        }),
    ]
}

/// Its own limits, and the program that version 1 starts outside when a group is empty.
fn groups() -> Vec<Attempt> {
    let mut all = Vec::new();
    for name in ["memory", "cpu", "cpu,cpuacct", "pids", "devices", "rdma", "unified", "systemd"] {
        let directory = format!("/sys/fs/cgroup/{name}");
        all.push(Attempt::new(format!("cgroup-{name}-release-agent"), UNREACHABLE, move || {
            write(format!("{directory}/release_agent"), "/bin/true")
        }));
    }
    for file in [
        "memory/memory.limit_in_bytes",
        "cpu/cpu.cfs_quota_us",
        "pids/pids.max",
        "devices/devices.allow",
        "memory.max",
        "cgroup.procs",
    ] {
        let path = format!("/sys/fs/cgroup/{file}");
        all.push(Attempt::new(format!("cgroup-{file}"), UNREACHABLE, move || write(&path, "max")));
    }
    all.push(Attempt::new("cgroup-make-group", UNREACHABLE, || {
        fs::create_dir("/sys/fs/cgroup/mine")
    }));
    all
}

/// Where there is no image, the machine's own files are in sight.
pub(super) fn attempts_at_the_hosts_root() -> Vec<Attempt> {
    let make = |path: &'static str| {
        Attempt::new(format!("make{path}"), UNREACHABLE, move || File::create(path).map(drop))
    };
    vec![
        make("/file-of-intruder"),
        make("/etc/intruder"),
        make("/usr/bin/intruder"),
        make("/var/lib/intruder"),
        make("/opt/intruder"),
        make("/root/intruder"),
        make("/run/intruder"),
        make("/etc/cron.d/intruder"),
        writing("/etc/passwd", ""),
        writing("/etc/hostname", ""),
        reading("/etc/shadow"),
        reading("/etc/gshadow"),
        reading("/etc/ssl/private/ssl-cert-snakeoil.key"),
        reading("/etc/ssh/ssh_host_ed25519_key"),
        reading("/root/.bashrc"),
        reading("/run/utmp"),
        reading("/var/log/btmp"),
        Attempt::new("remove/bin/true", UNREACHABLE, || fs::remove_file("/usr/bin/true")),
        Attempt::new("chmod/etc", UNREACHABLE, || {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions("/etc", fs::Permissions::from_mode(0o755))
        }),
    ]
}
