//! Counters of the whole machine, from `/proc`.

use std::fs;
use std::io;

/// Since the start of the machine; memory is what it is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub cpu_ns: u64,
    pub memory_bytes: u64,
    pub io_read_bytes: u64,
    pub io_written_bytes: u64,
}

impl Counters {
    pub(super) fn read() -> io::Result<Counters> {
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
        let memory = fs::read_to_string("/proc/meminfo")?;
        // Absent where there are no block devices.
        let disks = fs::read_to_string("/proc/diskstats").unwrap_or_default();
        let whole = |name: &str| fs::exists(format!("/sys/block/{name}")).unwrap_or(false);
        let (io_read_bytes, io_written_bytes) = io_bytes(&disks, whole);
        Ok(Counters {
            cpu_ns: cpu_ns(&fs::read_to_string("/proc/stat")?, ticks.unsigned_abs())?,
            memory_bytes: memory_bytes(&memory)?,
            io_read_bytes,
            io_written_bytes,
        })
    }
}

/// What was not idle nor waited for a disk, of all cores. Fields as in proc(5): user nice system idle iowait irq
/// softirq; what follows was stolen from us, or is part of the first two.
fn cpu_ns(stat: &str, ticks_per_second: u64) -> io::Result<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
        return Err(unreadable("/proc/stat", "its first line"));
    };
    let busy = user + nice + system + irq + softirq;
    Ok(busy * (1_000_000_000 / ticks_per_second.max(1)))
}

fn memory_bytes(meminfo: &str) -> io::Result<u64> {
    let kib = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok())
            .ok_or_else(|| unreadable("/proc/meminfo", key))
    };
    Ok(kib("MemTotal:")?.saturating_sub(kib("MemAvailable:")?) * 1024)
}

/// Of whole disks: what a partition does its disk does too.
fn io_bytes(diskstats: &str, whole: impl Fn(&str) -> bool) -> (u64, u64) {
    /// The kernel's own, whatever the disk has.
    const SECTOR_BYTES: u64 = 512;
    let (mut read, mut written) = (0, 0);
    for line in diskstats.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // A file or memory as a disk: what it does, another disk does too, or none.
        let virtual_disk = |name: &str| {
            ["loop", "ram", "dm-", "md", "zram"].iter().any(|prefix| name.starts_with(prefix))
        };
        if let [_, _, name, _, _, sectors_read, _, _, _, sectors_written, ..] = fields[..]
            && !virtual_disk(name)
            && whole(name)
        {
            read += sectors_read.parse::<u64>().unwrap_or(0) * SECTOR_BYTES;
            written += sectors_written.parse::<u64>().unwrap_or(0) * SECTOR_BYTES;
        }
    }
    (read, written)
}

fn unreadable(file: &str, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{file} lacks {what}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn counters_are_read_as_the_kernel_means_them() {
        let stat = "cpu  100 1 50 9000 700 2 3 4 60 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(cpu_ns(stat, 100).unwrap(), 156 * 10_000_000);
        assert!(cpu_ns("cpu0 1 2\n", 100).is_err());
        let memory = "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    400 kB\n";
        assert_eq!(memory_bytes(memory).unwrap(), 600 * 1024);
        let disks = "   8       0 sda 10 0 100 5 20 0 200 9 0 1 2\n   8       1 sda1 1 0 90 5 2 0 90 9 0 1 2\n\
                     254       0 dm-0 1 0 100 5 2 0 200 9 0 1 2\n";
        assert_eq!(io_bytes(disks, |name| name == "sda" || name == "dm-0"), (51_200, 102_400));
    }

    #[test]
    fn this_machine_can_be_read() {
        let now = Counters::read().unwrap();
        assert!(now.cpu_ns > 0 && now.memory_bytes > 0, "{now:?}");
    }
}
