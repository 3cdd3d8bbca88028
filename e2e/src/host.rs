//! What the tests use of the machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// kubectl: `$KUBECTL`, the one that `make setup` put beside the repository, or the one on the path.
pub fn kubectl() -> PathBuf {
    if let Some(path) = std::env::var_os("KUBECTL") {
        return path.into();
    }
    let own = super::repository().join("target/tools/bin/kubectl");
    if own.exists() { own } else { "kubectl".into() }
}

/// Directories of Commonage in the machine's cgroup tree that mention `name`.
pub fn cgroups(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            if path.to_string_lossy().contains("commonage") && path.to_string_lossy().contains(name)
            {
                found.push(path.clone());
            }
            if path.components().count() < 8 {
                left.push(path);
            }
        }
    }
    found
}

/// Mounts of this machine that mention `text`.
pub fn mounts(text: &str) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

/// Processes whose command line mentions `text`, by pid, this one left out.
pub fn processes(text: &str) -> Vec<(i32, String)> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            (pid != own && line.contains(text)).then_some((pid, line))
        })
        .collect()
}

/// Processes that have something below a directory open, this one left out.
pub fn users_of(directory: &Path) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let uses = |pid: &i32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|at| at.starts_with(directory))
    };
    pids().into_iter().filter(|pid| *pid != own).filter(uses).collect()
}

/// Processes in control groups of Commonage that mention `name`.
pub fn contained(name: &str) -> Vec<i32> {
    let is_in = |pid: &i32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        groups.lines().any(|line| line.contains("commonage") && line.contains(name))
    };
    pids().into_iter().filter(is_in).collect()
}

/// The processes that a process has started and not outlived.
pub fn children(parent: i32) -> Vec<i32> {
    let line = format!("PPid:\t{parent}");
    let is_child = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|found| found == line)
    };
    pids().into_iter().filter(is_child).collect()
}

/// What a process calls itself.
pub fn name_of(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
