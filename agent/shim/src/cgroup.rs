//! Control groups, read and emptied by hand.
//!
//! libcontainer creates a task's group and sets its limits; everything afterwards is done here,
//! because its own reader mixes units, its removal is not recursive, and a lost shim's group must
//! be dealt with by somebody who has no container at hand. All versions: v2, v1, hybrid.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::devices::{self, Rule};
use crate::sys;

/// Processes still there after this long are stuck in the kernel.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks at a group that is being emptied.
const KILL_POLL: Duration = Duration::from_millis(2);

/// Allowed by libcontainer 0.7.0 to every container, whatever its specification says.
const ADDED_DEVICES: &[&str] = &["c *:* m", "b *:* m", "c 5:1 rwm", "c 10:200 rwm"];

/// What a task has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Cpu time in nanoseconds, of all processes there ever were.
    pub cpu_ns: u64,
    /// Time spent throttled by the quota, in nanoseconds.
    pub throttled_ns: u64,
    /// Memory in bytes, page cache included.
    pub memory_bytes: u64,
    /// The same without the part of the page cache that has not been used lately, which the kernel takes back
    /// before it kills anybody: what Kubernetes calls the working set.
    pub working_set_bytes: u64,
    /// Bytes that came from block devices.
    pub io_read_bytes: u64,
    /// Bytes that went to block devices; what still lies in the page cache is not counted.
    pub io_written_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount_point: PathBuf,
    /// `None`: version 2, which has them all.
    controllers: Option<Vec<String>>,
}

/// Where this machine's hierarchies are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchies(Vec<Hierarchy>);

impl Hierarchies {
    /// Reads `/proc/self/mountinfo`.
    pub(crate) fn find() -> io::Result<Self> {
        let found = Self::parse(&std::fs::read_to_string("/proc/self/mountinfo")?);
        if found.0.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no control groups are mounted"));
        }
        Ok(found)
    }

    fn parse(mountinfo: &str) -> Self {
        Self(mountinfo.lines().filter_map(parse_line).collect())
    }

    /// Whether version 1 governs swap, so that a memory limit must name it.
    pub(crate) fn limits_swap(&self) -> bool {
        match self.with("memory") {
            Some(Hierarchy { mount_point, controllers: Some(_) }) => {
                mount_point.join("memory.memsw.limit_in_bytes").exists()
            }
            Some(_) => true,
            None => false,
        }
    }

    /// The hierarchy that has this controller. Version 1 first: on a hybrid machine that is where
    /// the controllers are.
    fn with(&self, controller: &str) -> Option<&Hierarchy> {
        let has = |h: &&Hierarchy| {
            h.controllers.as_ref().is_some_and(|c| c.iter().any(|name| name == controller))
        };
        self.0.iter().find(has).or_else(|| self.0.iter().find(|h| h.controllers.is_none()))
    }

    /// The names of the groups directly below one, in any hierarchy.
    pub(crate) fn children(&self, parent: &str) -> BTreeSet<String> {
        let parent = parent.trim_start_matches('/');
        let listings =
            self.0.iter().filter_map(|h| std::fs::read_dir(h.mount_point.join(parent)).ok());
        let groups = listings.flatten().flatten().filter(|entry| entry.path().is_dir());
        groups.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// The group of one task.
    ///
    /// # Errors
    /// Not a path of a task's group. All processes of a group get killed sooner or later, so this
    /// is asked before anything else: `/` would be the whole machine.
    pub(crate) fn group(&self, path: &str) -> io::Result<Group<'_>> {
        if !is_task_path(path) {
            let message = format!("control group {path:?}: not a task's");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Group { hierarchies: self, path: path.trim_start_matches('/').to_owned() })
    }
}

/// What version 2 has instead of shares, as runtimes translate them: 1 to 10000 for 2 to 262144.
fn cpu_weight(shares: u64) -> u64 {
    1 + shares.saturating_sub(2).saturating_mul(9_999) / 262_142
}

/// `/a/b` or deeper, without anything that could lead elsewhere.
pub(crate) fn is_task_path(path: &str) -> bool {
    let Some(inside) = path.strip_prefix('/') else {
        return false;
    };
    inside.contains('/') && inside.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// `36 35 98:0 /mnt1 /mnt/parent rw,noatime shared:1 - fstype source options`, see proc(5).
fn parse_line(line: &str) -> Option<Hierarchy> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mount_point = PathBuf::from(mount.split(' ').nth(4)?);
    let mut fields = file_system.split(' ');
    match fields.next()? {
        "cgroup2" => Some(Hierarchy { mount_point, controllers: None }),
        "cgroup" => {
            let options = fields.nth(1)?.split(',').map(str::to_owned).collect();
            Some(Hierarchy { mount_point, controllers: Some(options) })
        }
        _ => None,
    }
}

/// One task's group in all hierarchies.
pub(crate) struct Group<'a> {
    hierarchies: &'a Hierarchies,
    path: String,
}

impl Group<'_> {
    /// Its directories that exist.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let paths = self.hierarchies.0.iter().map(|h| h.mount_point.join(&self.path));
        paths.filter(|path| path.is_dir()).collect()
    }

    fn file(&self, controller: &str, v1: &str, v2: &str) -> Option<String> {
        let hierarchy = self.hierarchies.with(controller)?;
        let name = if hierarchy.controllers.is_some() { v1 } else { v2 };
        std::fs::read_to_string(hierarchy.mount_point.join(&self.path).join(name)).ok()
    }

    /// How often the kernel killed in it for want of memory. To be read before it is removed.
    pub(crate) fn oom_kills(&self) -> u64 {
        let text = self.file("memory", "memory.oom_control", "memory.events");
        text.and_then(|text| keyed(&text, "oom_kill")).unwrap_or(0)
    }

    /// Leaves it only the devices that it may use. In version 1 that is to take back the rules that libcontainer adds to
    /// those of the specification (making any node, the console, and network tunnels), in version 2 all of it.
    ///
    /// # Errors
    /// The kernel's. Where it has no such rules in version 2, a task still has only the nodes that it was given, and can
    /// make none: that is no error.
    pub(crate) fn restrict_devices(&self, rules: &[Rule]) -> io::Result<()> {
        let Some(hierarchy) = self.hierarchies.with("devices") else { return Ok(()) };
        let directory = hierarchy.mount_point.join(&self.path);
        if hierarchy.controllers.is_some() {
            let list = directory.join("devices.deny");
            return ADDED_DEVICES.iter().try_for_each(|rule| std::fs::write(&list, rule));
        }
        match devices::allow_only(&directory, rules) {
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOSYS | libc::EPERM | libc::EINVAL)
                ) =>
            {
                eprintln!("no device rules: {error}");
                Ok(())
            }
            allowed => allowed,
        }
    }

    /// Version 2 limits swap by itself, and libcontainer 0.7.0 leaves it unlimited where it ought to write a zero: a
    /// task would then have all of the machine's swap beyond its memory. No error where the kernel has no swap.
    pub(crate) fn forbid_swap(&self) -> io::Result<()> {
        let Some(hierarchy) = self.hierarchies.with("memory") else { return Ok(()) };
        let limit = hierarchy.mount_point.join(&self.path).join("memory.swap.max");
        match hierarchy.controllers.is_none() && limit.exists() {
            true => std::fs::write(limit, "0"),
            false => Ok(()),
        }
    }

    /// Gives it its share of a processor that others want too. It was made with the greatest, see [`crate::spec`].
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn set_cpu_shares(&self, shares: u64) -> io::Result<()> {
        let Some(hierarchy) = self.hierarchies.with("cpu") else { return Ok(()) };
        let (file, value) = match &hierarchy.controllers {
            Some(_) => ("cpu.shares", shares),
            None => ("cpu.weight", cpu_weight(shares)),
        };
        let file = hierarchy.mount_point.join(&self.path).join(file);
        if file.exists() { std::fs::write(file, value.to_string()) } else { Ok(()) }
    }

    pub(crate) fn usage(&self) -> Usage {
        let number = |text: Option<String>| text.and_then(|t| t.trim().parse().ok()).unwrap_or(0);
        // Version 2 counts in microseconds and puts both into one file.
        let (cpu_ns, throttled_ns) = match self.file("cpuacct", "cpuacct.usage", "cpu.stat") {
            Some(text) if text.contains("usage_usec") => {
                let micros = |key| keyed(&text, key).unwrap_or(0).saturating_mul(1000);
                (micros("usage_usec"), micros("throttled_usec"))
            }
            text => {
                let stat = self.file("cpu", "cpu.stat", "cpu.stat").unwrap_or_default();
                (number(text), keyed(&stat, "throttled_time").unwrap_or(0))
            }
        };
        let memory_bytes = number(self.file("memory", "memory.usage_in_bytes", "memory.current"));
        let stat = self.file("memory", "memory.stat", "memory.stat").unwrap_or_default();
        let unused = keyed(&stat, "total_inactive_file").or_else(|| keyed(&stat, "inactive_file"));
        let (io_read_bytes, io_written_bytes) = self.io_bytes();
        Usage {
            cpu_ns,
            throttled_ns,
            memory_bytes,
            working_set_bytes: memory_bytes.saturating_sub(unused.unwrap_or(0)),
            io_read_bytes,
            io_written_bytes,
            pids: number(self.file("pids", "pids.current", "pids.current")),
            oom_kills: self.oom_kills(),
        }
    }

    /// Read from and written to all block devices.
    fn io_bytes(&self) -> (u64, u64) {
        let stat = self.file("blkio", "blkio.throttle.io_service_bytes_recursive", "io.stat");
        io_bytes(&stat.unwrap_or_default())
    }

    /// Every process in it, in any hierarchy and in groups below.
    pub(crate) fn processes(&self) -> io::Result<BTreeSet<i32>> {
        let mut pids = BTreeSet::new();
        for directory in self.directories() {
            for group in subtree(&directory)? {
                match std::fs::read_to_string(group.join("cgroup.procs")) {
                    Ok(text) => pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok())),
                    Err(error) if gone(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        pids.remove(&0);
        Ok(pids)
    }

    /// Takes its limit of processor time away, for the last thing that it does: a thousand processes that die within
    /// a fifth of a processor take minutes over it. Best effort: they die all the same.
    pub(crate) fn lift_quota(&self) {
        let Some(hierarchy) = self.hierarchies.with("cpu") else { return };
        let directory = hierarchy.mount_point.join(&self.path);
        let (file, unlimited) = match &hierarchy.controllers {
            Some(_) => ("cpu.cfs_quota_us", "-1"),
            None => ("cpu.max", "max"),
        };
        let _ = std::fs::write(directory.join(file), unlimited);
    }

    /// Kills everything in it and waits until nothing is left.
    pub(crate) fn kill(&self) -> io::Result<()> {
        let deadline = Instant::now() + KILL_TIMEOUT;
        self.lift_quota();
        loop {
            if self.processes()?.is_empty() {
                return Ok(());
            }
            // Frozen, nothing can fork away from the list between the reading and the killing.
            self.set_frozen(true);
            for pid in self.processes()? {
                // Already gone is what is wanted.
                let _ = sys::kill(pid, libc::SIGKILL);
            }
            self.set_frozen(false);
            if Instant::now() > deadline {
                let left = self.processes()?;
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("processes {left:?} survive SIGKILL"),
                ));
            }
            sys::pause(KILL_POLL);
        }
    }

    /// Best effort: a frozen process dies all the same once thawed.
    fn set_frozen(&self, frozen: bool) {
        let Some(hierarchy) = self.hierarchies.with("freezer") else {
            return;
        };
        let directory = hierarchy.mount_point.join(&self.path);
        let _ = match (&hierarchy.controllers, frozen) {
            (Some(_), true) => std::fs::write(directory.join("freezer.state"), "FROZEN"),
            (Some(_), false) => std::fs::write(directory.join("freezer.state"), "THAWED"),
            (None, true) => std::fs::write(directory.join("cgroup.kill"), "1"),
            (None, false) => Ok(()),
        };
    }

    /// Removes it in every hierarchy, with whatever is below. It must be empty of processes; the
    /// kernel may need a moment to notice that it is.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let deadline = Instant::now() + KILL_TIMEOUT;
        for directory in self.directories() {
            for group in subtree(&directory)?.iter().rev() {
                loop {
                    match std::fs::remove_dir(group) {
                        Ok(()) => break,
                        Err(error) if gone(&error) => break,
                        Err(error) if Instant::now() > deadline => return Err(error),
                        Err(_) => sys::pause(KILL_POLL),
                    }
                }
            }
        }
        Ok(())
    }
}

/// A directory and all below it, parents before children.
fn subtree(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = vec![directory.to_owned()];
    let mut next = 0;
    while next < all.len() {
        match std::fs::read_dir(&all[next]) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        all.push(entry.path());
                    }
                }
            }
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
        }
        next += 1;
    }
    Ok(all)
}

fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// The number after a word at the start of a line.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        if name == key { value.trim().parse().ok() } else { None }
    })
}

/// Bytes read and written, of all devices: `8:0 Read 512` a line in version 1, `8:0 rbytes=512 wbytes=0 …` in 2.
fn io_bytes(stat: &str) -> (u64, u64) {
    let (mut read, mut written) = (0_u64, 0_u64);
    for line in stat.lines() {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        if let [direction, bytes] = words[..]
            && let Ok(bytes) = bytes.parse::<u64>()
        {
            match direction {
                "Read" => read = read.saturating_add(bytes),
                "Write" => written = written.saturating_add(bytes),
                _ => {}
            }
        }
        let of = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)?.parse().ok());
        read = read.saturating_add(of("rbytes=").unwrap_or(0));
        written = written.saturating_add(of("wbytes=").unwrap_or(0));
    }
    (read, written)
}

#[cfg(test)]
mod tests;
