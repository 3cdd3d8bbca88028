//! What the kernel says of this process, under the names that every Prometheus client uses.

use std::fs;

use super::{family, line};

/// Linux reports in pages and ticks; both have been these on every platform we build for.
const PAGE_BYTES: u64 = 4096;
const TICKS_PER_SECOND: f64 = 100.0;

/// What cannot be read is left out.
pub(super) fn render(text: &mut String) {
    let mut gauge = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            family(text, name, kind, help);
            line(text, name, &[], value);
        }
    };
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = |at: usize| -> Option<f64> {
        let pages: u64 = statm.split(' ').nth(at)?.trim().parse().ok()?;
        Some((pages * PAGE_BYTES) as f64)
    };
    gauge("process_virtual_memory_bytes", "gauge", "Virtual memory.", pages(0));
    gauge("process_resident_memory_bytes", "gauge", "Resident memory.", pages(1));
    gauge("process_cpu_seconds_total", "counter", "User and system time.", cpu_seconds());
    let files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
    gauge("process_open_fds", "gauge", "Open file descriptors.", files);
    gauge("process_max_fds", "gauge", "File descriptors that may be open.", files_max());
    let help = "Start of the process, in seconds since 1970.";
    gauge("process_start_time_seconds", "gauge", help, start_seconds());
}

/// A time of `/proc/self/stat`, where the process's state is number 0.
fn stat_seconds(number: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name may hold spaces and brackets: what follows its last bracket is numbers.
    let (_, numbers) = stat.rsplit_once(") ")?;
    let ticks: f64 = numbers.split(' ').nth(number)?.parse().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

fn cpu_seconds() -> Option<f64> {
    Some(stat_seconds(11)? + stat_seconds(12)?)
}

fn start_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let booted = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(booted.trim().parse::<f64>().ok()? + stat_seconds(19)?)
}

fn files_max() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match files.split_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        number => number.parse().ok(),
    }
}
