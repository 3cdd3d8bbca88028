//! From a [`Launch`] to the OCI runtime specification, by pure functions.
//!
//! It is built as JSON because JSON is what it is: libcontainer reads it back from
//! `bundle/config.json`, and a person can.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::launch::{
    Device, ExitError, FailureReason, Launch, Limits, Network, Root, SANDBOX_MOUNT,
};
use crate::state_dir::StateDir;
use crate::{cgroup, devices, rootfs};

/// What a name without a slash is looked up in when the task does not say.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Below this a container's own start does not fit, and how it then fails is left to chance.
pub const MIN_MEMORY_BYTES: u64 = 4 * 1024 * 1024;

/// The container's init, the command, and what libcontainer needs in passing.
pub const MIN_PIDS: u64 = 4;

/// The kernel's default period. Below 10 thousandths of a cpu it is stretched, because a quota is
/// at least a millisecond.
const CPU_PERIOD_US: u64 = 100_000;
const MIN_CPU_QUOTA_US: u64 = 1_000;
const MAX_CPU_PERIOD_US: u64 = 1_000_000;

/// Docker's default set without `NET_RAW` (forged packets) and `MKNOD` (on version 2 control
/// groups nothing else stands between a task and the disk's device node).
pub const CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Files of `/proc` and `/sys` that are not namespaced and tell too much.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/driver/nvidia",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Files of `/proc` through which root could change the machine.
const READ_ONLY: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What the specification depends on besides the launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Swap is limited by the same group and must be named with the memory.
    pub(crate) limits_swap: bool,
    /// Our own hard limit on open files, which cannot be raised without a capability.
    pub(crate) max_open_files: u64,
}

/// Where what the container sees lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// A network that was made before.
    pub(crate) network: Option<PathBuf>,
    /// A user namespace that was made before.
    pub(crate) users: Option<PathBuf>,
    /// What it sees as `/sys`, if it may not mount one.
    pub(crate) sys: Option<PathBuf>,
    /// Its `/tmp`.
    pub(crate) tmp: PathBuf,
    /// Instead of the launch's own.
    pub(crate) sandbox: Option<PathBuf>,
    /// Instead of the sources of the launch's own, in their order.
    pub(crate) mounts: Option<Vec<PathBuf>>,
}

impl Seen {
    /// Everything is where it is.
    pub(crate) fn plain(state: &StateDir) -> Seen {
        Seen { tmp: state.tmp(), ..Seen::default() }
    }

    /// The launch with its sources where the container finds them.
    pub(crate) fn in_place(&self, launch: &Launch) -> Launch {
        let mut launch = launch.clone();
        if let Some(sandbox) = &self.sandbox {
            launch.sandbox.clone_from(sandbox);
        }
        for (mount, source) in launch.mounts.iter_mut().zip(self.mounts.iter().flatten()) {
            mount.source.clone_from(source);
        }
        launch
    }
}

/// Refuses what can never run, with words for its author.
///
/// # Errors
/// `InvalidLaunch` or `LimitsTooSmall`, naming the field.
pub fn check(launch: &Launch) -> Result<(), ExitError> {
    let invalid =
        |message: String| Err(ExitError { reason: FailureReason::InvalidLaunch, message });
    let id_ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if launch.id.is_empty() || !launch.id.chars().all(id_ok) || launch.id.starts_with('.') {
        return invalid(format!("id {:?}: only letters, digits, '-', '_' and '.'", launch.id));
    }
    if !cgroup::is_task_path(&launch.cgroup) {
        return invalid(format!("cgroup {:?}: must be like /commonage/<node>/<id>", launch.cgroup));
    }
    if launch.command.first().is_none_or(String::is_empty) {
        return invalid("command: must name a program".to_owned());
    }
    let strings = launch.command.iter().chain(&launch.args).chain(launch.env.values());
    if strings.chain(launch.env.keys()).any(|s| s.contains('\0')) {
        return invalid("command, args, env: must not contain a zero byte".to_owned());
    }
    if let Some(name) = launch.env.keys().find(|name| name.is_empty() || name.contains('=')) {
        return invalid(format!("env {name:?}: not a name of a variable"));
    }
    if launch.working_dir.as_deref().is_some_and(Path::is_relative) {
        return Err(ExitError {
            reason: FailureReason::InvalidWorkingDir,
            message: "workingDir: must be an absolute path".to_owned(),
        });
    }
    if !launch.sandbox.is_dir() {
        return invalid(format!("sandbox {}: not a directory", launch.sandbox.display()));
    }
    check_limits(&launch.limits)
}

fn check_limits(limits: &Limits) -> Result<(), ExitError> {
    let small = |message: String| Err(ExitError { reason: FailureReason::LimitsTooSmall, message });
    match limits {
        Limits { memory_bytes: Some(bytes), .. } if *bytes < MIN_MEMORY_BYTES => small(format!(
            "memory limit of {bytes} bytes: a container needs at least {MIN_MEMORY_BYTES} to start"
        )),
        Limits { pids, .. } if *pids < MIN_PIDS => {
            small(format!("pids limit of {pids}: a container needs at least {MIN_PIDS} to start"))
        }
        Limits { cpu_quota_millis: Some(0), .. } => {
            small("cpu limit of 0: at least one thousandth of a cpu".to_owned())
        }
        _ => Ok(()),
    }
}

/// The whole specification.
pub(crate) fn build(
    launch: &Launch,
    state: &StateDir,
    root: &Path,
    seen: &Seen,
    host: Host,
) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": root, "readonly": read_only(launch, seen) },
        "hostname": hostname(launch),
        "process": process(launch, host),
        "mounts": mounts(launch, seen),
        "linux": {
            "cgroupsPath": launch.cgroup,
            "namespaces": namespaces(launch, seen),
            "devices": nodes(&launch.devices),
            "resources": resources(&launch.limits, &launch.devices, host),
            // Nothing mounted on the host later may appear inside.
            "rootfsPropagation": "private",
            "maskedPaths": masked(launch, state),
            "readonlyPaths": READ_ONLY,
        },
    })
}

/// The machine's own root is sealed already when it is shown, and a container with users of its own cannot do it
/// once more: it would have to leave out what else that is.
fn read_only(launch: &Launch, seen: &Seen) -> bool {
    match launch.root {
        Root::HostReadOnly => seen.users.is_none(),
        Root::Image { read_only, .. } => read_only,
        Root::Bundle(_) => false,
    }
}

/// At most 64 bytes by the kernel's rule; the id when nothing is asked for.
fn hostname(launch: &Launch) -> &str {
    let name = launch.hostname.as_deref().unwrap_or(&launch.id);
    let end = (0..=name.len().min(64)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    &name[..end]
}

/// The environment the command gets, `NAME=value`.
pub(crate) fn environment(launch: &Launch) -> Vec<String> {
    let mut env = launch.env.clone();
    let mut default = |name: &str, value: &str| {
        env.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    };
    default("PATH", DEFAULT_PATH);
    default("HOME", SANDBOX_MOUNT);
    default("HOSTNAME", hostname(launch));
    default("COMMONAGE_SANDBOX", SANDBOX_MOUNT);
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn process(launch: &Launch, host: Host) -> Value {
    let capabilities = capabilities(launch);
    // Only these survive that another user than root executes the command.
    let kept: &[&str] = if launch.user.uid == 0 { &[] } else { &capabilities };
    let args: Vec<&String> = launch.command.iter().chain(&launch.args).collect();
    json!({
        "terminal": false,
        "user": {
            "uid": launch.user.uid,
            "gid": launch.user.gid,
            "additionalGids": launch.user.additional_gids,
            "umask": 0o022,
        },
        "args": args,
        "env": environment(launch),
        // The real one is entered by our init, which can say what is wrong with it.
        "cwd": "/",
        "noNewPrivileges": true,
        "capabilities": {
            "bounding": capabilities,
            "effective": capabilities,
            "permitted": capabilities,
            "inheritable": kept,
            "ambient": kept,
        },
        "rlimits": [
            { "type": "RLIMIT_NOFILE", "soft": host.max_open_files.min(65_536), "hard": host.max_open_files.min(1 << 20) },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
        ],
    })
}

/// With no_new_privs another user than root can never gain any, so it has what was added and needs no others.
fn capabilities(launch: &Launch) -> Vec<&str> {
    let wanted = &launch.capabilities;
    let default = if launch.user.uid == 0 { CAPABILITIES } else { &[] };
    let mut all: Vec<&str> = default
        .iter()
        .copied()
        .filter(|name| wanted.drop.iter().all(|dropped| dropped != name))
        .chain(wanted.add.iter().map(String::as_str))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn nodes(devices: &[Device]) -> Vec<Value> {
    let node = |device: &Device| {
        json!({
            "path": device.path,
            "type": "c",
            "major": device.major,
            "minor": device.minor,
            "fileMode": 0o666,
            "uid": 0,
            "gid": 0,
        })
    };
    devices.iter().map(node).collect()
}

fn mounts(launch: &Launch, seen: &Seen) -> Vec<Value> {
    let mount = |target: &str, kind: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
    let bind = |source: &Path, target: &Path, options: &[&str]| json!({ "destination": target, "type": "bind", "source": source, "options": options });
    // No control group file system: version 1 ignores `ro` on it, and a task could then raise
    // its own limits.
    let mut all = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        match &seen.sys {
            None => mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            Some(shown) => {
                bind(shown, Path::new("/sys"), &["bind", "nosuid", "noexec", "nodev", "ro"])
            }
        },
        mount("/dev", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", "size=64k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        ),
        match &launch.ipc {
            None => {
                mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=64m"])
            }
            Some(shared) => bind(
                &shared.memory,
                Path::new("/dev/shm"),
                &["bind", "rw", "nosuid", "noexec", "nodev", "private"],
            ),
        },
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        bind(
            &launch.sandbox,
            Path::new(SANDBOX_MOUNT),
            &["bind", "rw", "nosuid", "nodev", "private"],
        ),
    ];
    // An image that can be written to has its own.
    if !matches!(launch.root, Root::Image { read_only: false, .. }) {
        let options = ["bind", "rw", "nosuid", "nodev", "private"];
        all.push(bind(&seen.tmp, Path::new("/tmp"), &options));
    }
    for m in &launch.mounts {
        let access = if m.read_only { "ro" } else { "rw" };
        if let Some(bytes) = m.tmpfs_bytes {
            let size = format!("size={bytes}");
            let target = m.target.to_string_lossy();
            all.push(mount(&target, "tmpfs", &[access, "nosuid", "nodev", "mode=1777", &size]));
            continue;
        }
        all.push(bind(&m.source, &m.target, &["rbind", access, "nosuid", "nodev", "rprivate"]));
    }
    all
}

fn namespaces(launch: &Launch, seen: &Seen) -> Vec<Value> {
    let users = seen.users.as_ref().map(|path| ("user", Some(path.as_path())));
    let shared = launch.ipc.as_ref().map(|ipc| ipc.namespace.as_path());
    let kinds = [("pid", None), ("mount", None), ("ipc", shared), ("uts", None), ("cgroup", None)];
    let network = match &launch.network {
        Network::Host => None,
        Network::Shared(shared) => Some(("network", Some(shared.namespace.as_path()))),
        Network::None | Network::Cni(_) => Some(("network", seen.network.as_deref())),
    };
    kinds
        .into_iter()
        .chain(network)
        .chain(users)
        .map(|(kind, path)| match path {
            Some(path) => json!({ "type": kind, "path": path }),
            None => json!({ "type": kind }),
        })
        .collect()
}

fn masked(launch: &Launch, state: &StateDir) -> Vec<String> {
    let mut paths: Vec<String> = MASKED.iter().map(|p| (*p).to_owned()).collect();
    if launch.root == Root::HostReadOnly {
        paths.extend(rootfs::HIDDEN.iter().map(|p| (*p).to_owned()));
        let ours = launch.hidden.iter().map(PathBuf::as_path).chain([state.path()]);
        paths.extend(ours.map(|p| p.display().to_string()));
    }
    paths
}

fn resources(limits: &Limits, given: &[Device], host: Host) -> Value {
    let device = |major: u64, minor: Option<u64>| {
        let mut rule = json!({ "allow": true, "type": "c", "major": major, "access": "rwm" });
        if let Some(minor) = minor {
            rule["minor"] = minor.into();
        }
        rule
    };
    // First nothing, because libcontainer by itself forbids nothing.
    let nothing = json!({ "allow": false, "access": "rwm" });
    let allowed = devices::rules(given).into_iter().map(|rule| device(rule.major, rule.minor));
    let rules: Vec<Value> = std::iter::once(nothing).chain(allowed).collect();
    let mut resources = json!({ "devices": rules, "pids": { "limit": limits.pids } });
    let mut cpu = serde_json::Map::new();
    if limits.cpu_millis.is_some() {
        // A start goes before the work of others, which is long; the task's own share is set when its command may run.
        cpu.insert("shares".to_owned(), CPU_SHARES_MAX.into());
    }
    if let Some(millis) = limits.cpu_quota_millis {
        let (quota, period) = cpu_quota(millis);
        cpu.insert("quota".to_owned(), quota.into());
        cpu.insert("period".to_owned(), period.into());
    }
    if !cpu.is_empty() {
        resources["cpu"] = cpu.into();
    }
    if let Some(bytes) = limits.memory_bytes {
        resources["memory"] = json!({ "limit": bytes });
        if host.limits_swap {
            // Memory and swap together: no swap.
            resources["memory"]["swap"] = bytes.into();
        }
    }
    resources
}

/// What the kernel takes at most.
const CPU_SHARES_MAX: u64 = 262_144;

/// One cpu is 1024 shares; the kernel takes 2 to 262144.
pub(crate) fn cpu_shares(millis: u64) -> u64 {
    (millis.saturating_mul(1024) / 1000).clamp(2, CPU_SHARES_MAX)
}

/// Quota and period in microseconds.
fn cpu_quota(millis: u64) -> (u64, u64) {
    let quota = millis.saturating_mul(CPU_PERIOD_US) / 1000;
    if quota >= MIN_CPU_QUOTA_US {
        (quota, CPU_PERIOD_US)
    } else {
        (millis.saturating_mul(MAX_CPU_PERIOD_US) / 1000, MAX_CPU_PERIOD_US)
    }
}

#[cfg(test)]
mod tests;
