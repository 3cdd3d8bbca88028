//! What the machine has: cores, memory, disk, kernel, control groups.
//!
//! Read once at start and again at every refresh of the Agent's status. It only reads; what cannot
//! be read is an error that names the file, never a guess.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

/// Ports that tasks get when the operator names none. Mesos' default: above the well-known
/// services, below Linux' range for outgoing connections (32768).
pub const DEFAULT_PORTS: &str = "31000-32000";

/// CPU kept for the system, in thousandths: of the first core. What GKE keeps on its nodes.
const RESERVE_FIRST_CORE_MILLIS: i64 = 60;
/// CPU kept for the system, in thousandths: of each further core. Also GKE's.
const RESERVE_FURTHER_CORE_MILLIS: i64 = 10;
/// Memory kept for the system. Mesos' rule: this much, or half when there is less than twice that.
const RESERVE_MEMORY_BYTES: i64 = 1 << 30;
/// Disk kept for the system. Mesos' rule: this much, or half when there is less than twice that.
const RESERVE_DISK_BYTES: i64 = 5 << 30;

/// Something about the machine could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    #[error("read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} has no line {key:?} with a number")]
    Missing { path: PathBuf, key: &'static str },
    #[error("ask for the size of the file system of {path}")]
    FileSystem { path: PathBuf, source: nix::Error },
}

/// An amount of each resource that every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amounts {
    pub cpu_millis: i64,
    pub memory_bytes: i64,
    pub disk_bytes: i64,
}

/// How the kernel's control groups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    V1,
    V2,
    /// v1 controllers, with a v2 tree beside them.
    Hybrid,
}

impl CgroupVersion {
    /// The word that goes into `status.system.cgroupVersion`.
    pub fn as_str(self) -> &'static str {
        match self {
            CgroupVersion::V1 => "v1",
            CgroupVersion::V2 => "v2",
            CgroupVersion::Hybrid => "hybrid",
        }
    }
}

/// One machine, as found.
#[derive(Clone, Debug)]
pub struct Machine {
    pub capacity: Amounts,
    pub hostname: String,
    /// Such as `6.18.44`.
    pub kernel: String,
    /// Pretty name of the distribution, when `/etc/os-release` has one.
    pub os: Option<String>,
    /// Such as `x86_64`.
    pub arch: String,
    /// Changes with every start of the machine.
    pub boot_id: String,
    pub cgroup: CgroupVersion,
    /// Controllers that limits can be put on, sorted.
    pub controllers: Vec<String>,
}

/// Looks at the machine; `data_dir` (which must exist) chooses the file system whose size counts.
pub fn detect(data_dir: &Path) -> Result<Machine, DetectError> {
    let (cgroup, controllers) = cgroups()?;
    Ok(Machine {
        capacity: Amounts {
            cpu_millis: cores() * 1000,
            memory_bytes: memory_bytes(Path::new("/proc/meminfo"))?,
            disk_bytes: disk_bytes(data_dir)?,
        },
        hostname: line(Path::new("/proc/sys/kernel/hostname"))?,
        kernel: line(Path::new("/proc/sys/kernel/osrelease"))?,
        os: os_name(),
        arch: std::env::consts::ARCH.to_owned(),
        boot_id: boot_id()?,
        cgroup,
        controllers,
    })
}

/// What tasks may have of `capacity`: all but a small reserve for the system itself.
pub fn allocatable(capacity: Amounts) -> Amounts {
    let cores = capacity.cpu_millis / 1000;
    let cpu_reserve = RESERVE_FIRST_CORE_MILLIS + RESERVE_FURTHER_CORE_MILLIS * (cores - 1).max(0);
    Amounts {
        cpu_millis: capacity.cpu_millis - cpu_reserve.min(capacity.cpu_millis / 2),
        memory_bytes: capacity.memory_bytes - RESERVE_MEMORY_BYTES.min(capacity.memory_bytes / 2),
        disk_bytes: capacity.disk_bytes - RESERVE_DISK_BYTES.min(capacity.disk_bytes / 2),
    }
}

/// With so much left no disk is full, however small a part of it that is.
const ROOM_BYTES: u64 = 10 << 30;
/// What such a disk counts as, at most.
const USED_WITH_ROOM: f64 = 0.8;

/// How full the file system of `path` is, 0 to 1, as `df` has it: what only root may use belongs to nobody. A disk
/// with 10 GiB left counts as four fifths full at most.
pub fn disk_used(path: &Path) -> Result<f64, DetectError> {
    let stat = statvfs(path)
        .map_err(|source| DetectError::FileSystem { path: path.to_owned(), source })?;
    let used = stat.blocks().saturating_sub(stat.blocks_free());
    Ok(share_used(used, stat.blocks_available(), stat.fragment_size()))
}

fn share_used(used_blocks: u64, free_blocks: u64, block_bytes: u64) -> f64 {
    let (used, free) = (used_blocks as f64, free_blocks as f64);
    let share = if used + free > 0.0 { used / (used + free) } else { 0.0 };
    match free_blocks.saturating_mul(block_bytes) {
        ROOM_BYTES.. => share.min(USED_WITH_ROOM),
        _ => share,
    }
}

/// Removes a control group from every hierarchy in which nothing is left inside it, then the one
/// above it in the same way. `group` is a path such as `/commonage/node-1`.
///
/// Best effort: the kernel refuses to remove a group that is in use, and that is wanted.
pub fn remove_empty_group(group: &str) {
    let Ok(mounts) = fs::read_to_string("/proc/self/mounts") else {
        return;
    };
    for root in cgroup_mounts(&mounts).roots {
        let path = root.join(group.trim_start_matches('/'));
        for path in path.ancestors().take_while(|path| *path != root) {
            if fs::remove_dir(path).is_err() {
                break;
            }
        }
    }
}

/// The kernel's random name for this start of the machine.
pub fn boot_id() -> Result<String, DetectError> {
    line(Path::new("/proc/sys/kernel/random/boot_id"))
}

/// Cores that this process may run on: an agent pinned to some cores offers no others.
fn cores() -> i64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as i64)
}

fn memory_bytes(path: &Path) -> Result<i64, DetectError> {
    const KEY: &str = "MemTotal:";
    read(path)?
        .lines()
        .find_map(|line| {
            let kib = line.strip_prefix(KEY)?.trim().strip_suffix(" kB")?;
            kib.trim().parse::<i64>().ok()?.checked_mul(1024)
        })
        .ok_or(DetectError::Missing { path: path.to_owned(), key: KEY })
}

fn disk_bytes(path: &Path) -> Result<i64, DetectError> {
    let stat = statvfs(path)
        .map_err(|source| DetectError::FileSystem { path: path.to_owned(), source })?;
    let bytes = stat.blocks().saturating_mul(stat.fragment_size());
    Ok(i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn os_name() -> Option<String> {
    let release = fs::read_to_string("/etc/os-release").ok()?;
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned())
}

/// Version and controllers, from the mounts that this process sees: the same ones the shims use.
fn cgroups() -> Result<(CgroupVersion, Vec<String>), DetectError> {
    let mounts = cgroup_mounts(&read(Path::new("/proc/self/mounts"))?);
    let v2_controllers: Vec<String> = match &mounts.v2 {
        Some(root) => fs::read_to_string(root.join("cgroup.controllers"))
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        None => Vec::new(),
    };
    let version = match (&mounts.v2, mounts.v1.is_empty()) {
        (Some(_), true) => CgroupVersion::V2,
        (Some(_), false) => CgroupVersion::Hybrid,
        (None, _) => CgroupVersion::V1,
    };
    let mut controllers = mounts.v1;
    controllers.extend(v2_controllers);
    controllers.sort();
    controllers.dedup();
    Ok((version, controllers))
}

#[derive(Debug, Default, PartialEq)]
struct CgroupMounts {
    /// Controllers of version 1.
    v1: Vec<String>,
    /// Where version 2 is mounted.
    v2: Option<PathBuf>,
    /// Where any hierarchy is mounted.
    roots: Vec<PathBuf>,
}

fn cgroup_mounts(mounts: &str) -> CgroupMounts {
    /// Controllers by the mount options that name them; the other options are flags.
    const CONTROLLERS: [&str; 12] = [
        "blkio",
        "cpu",
        "cpuacct",
        "cpuset",
        "devices",
        "freezer",
        "hugetlb",
        "memory",
        "net_cls",
        "net_prio",
        "perf_event",
        "pids",
    ];
    let mut found = CgroupMounts::default();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, target, kind, options, ..] = fields[..] else {
            continue;
        };
        if kind == "cgroup" || kind == "cgroup2" {
            found.roots.push(PathBuf::from(target));
        }
        match kind {
            "cgroup2" => found.v2 = Some(PathBuf::from(target)),
            "cgroup" => found.v1.extend(
                options.split(',').filter(|option| CONTROLLERS.contains(option)).map(str::to_owned),
            ),
            _ => {}
        }
    }
    found
}

fn line(path: &Path) -> Result<String, DetectError> {
    Ok(read(path)?.trim().to_owned())
}

fn read(path: &Path) -> Result<String, DetectError> {
    fs::read_to_string(path).map_err(|source| DetectError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GIB: i64 = 1 << 30;

    #[test]
    fn this_machine_has_something_to_offer() {
        let machine = detect(Path::new("/")).unwrap();
        let free = allocatable(machine.capacity);
        assert!(free.cpu_millis > 0 && free.cpu_millis < machine.capacity.cpu_millis);
        assert!(free.memory_bytes > 0 && free.memory_bytes < machine.capacity.memory_bytes);
        assert!(free.disk_bytes > 0 && free.disk_bytes < machine.capacity.disk_bytes);
        assert_eq!(machine.boot_id.len(), 36, "{}", machine.boot_id);
        assert!(!machine.kernel.is_empty() && !machine.arch.is_empty());
        assert!((share_used(70, 30, 4096) - 0.7).abs() < 1e-9);
        assert!((share_used(99, 1, 4096) - 0.99).abs() < 1e-9);
        // Twenty of a thousand GiB left are enough.
        assert!((share_used(980 << 18, 20 << 18, 4096) - 0.8).abs() < 1e-9);
        assert!((share_used(100 << 18, 900 << 18, 4096) - 0.1).abs() < 1e-9);
        assert_eq!(share_used(0, 0, 4096), 0.0);
        let used = disk_used(Path::new("/")).unwrap();
        assert!((0.0..=1.0).contains(&used), "{used}");
    }

    #[test]
    fn the_reserve_is_small_on_a_large_machine_and_half_of_a_tiny_one() {
        let large = allocatable(Amounts {
            cpu_millis: 64_000,
            memory_bytes: 256 * GIB,
            disk_bytes: 1000 * GIB,
        });
        assert_eq!(large.cpu_millis, 64_000 - 690);
        assert_eq!(large.memory_bytes, 255 * GIB);
        assert_eq!(large.disk_bytes, 995 * GIB);
        let tiny = allocatable(Amounts { cpu_millis: 100, memory_bytes: GIB, disk_bytes: 2 * GIB });
        assert_eq!((tiny.cpu_millis, tiny.memory_bytes, tiny.disk_bytes), (50, GIB / 2, GIB));
    }

    #[test]
    fn control_groups_are_told_by_their_mounts() {
        let hybrid = cgroup_mounts(
            "tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0\n\
             cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
             cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
             cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n",
        );
        assert_eq!(hybrid.v1, ["cpu", "cpuacct"]);
        assert_eq!(hybrid.v2, Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let unified = cgroup_mounts("cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n");
        assert!(unified.v1.is_empty() && unified.v2.is_some());
    }

    #[test]
    fn memory_of_an_unknown_format_is_an_error_that_names_the_file() {
        let dir = std::env::temp_dir().join(format!("commonage-detect-{}", std::process::id()));
        fs::write(&dir, "MemTotal: lots\n").unwrap();
        let error = memory_bytes(&dir).unwrap_err().to_string();
        fs::remove_file(&dir).unwrap();
        assert!(error.contains("MemTotal"), "{error}");
    }
}
