//! Tasks whose state directory somebody has deleted while they ran.
//!
//! No ledger knows them any more, but their shims live on, and know it: the kernel calls the lock
//! file that a shim holds open deleted. Nothing else is taken for an orphan. Two clusters on one
//! machine may use the same parent group, and a group that merely looks forsaken may be
//! another's, in the making.

use std::fs;
use std::io;
use std::path::Path;

use crate::cgroup::Hierarchies;

/// Kills the orphans among the tasks whose control groups lie directly below `parent`
/// (`/commonage/<node>`), removes their groups, and returns their ids. The shims end by themselves.
///
/// # Errors
/// The control groups cannot be read, or processes survive for five seconds (stuck in the kernel).
pub fn end(parent: &str) -> io::Result<Vec<String>> {
    let hierarchies = Hierarchies::find()?;
    let mut ended = Vec::new();
    for id in hierarchies.children(parent) {
        let group = hierarchies.group(&format!("{parent}/{id}"))?;
        if group.processes()?.into_iter().any(|pid| is_child_of_orphaned_shim(pid, &id)) {
            group.kill()?;
            group.remove()?;
            ended.push(id);
        }
    }
    Ok(ended)
}

/// A container's first process is a child of its shim.
fn is_child_of_orphaned_shim(pid: i32, id: &str) -> bool {
    let Some(shim) = parent_of(pid).map(|parent| Path::new("/proc").join(parent)) else {
        return false;
    };
    let is_shim = fs::read_to_string(shim.join("comm")).is_ok_and(|name| name == "cmn-shim\n");
    let descriptors = fs::read_dir(shim.join("fd")).into_iter().flatten().flatten();
    let mut files = descriptors.filter_map(|fd| fs::read_link(fd.path()).ok());
    is_shim && files.any(|file| is_deleted_lock(&file, id))
}

fn is_deleted_lock(file: &Path, id: &str) -> bool {
    let in_state_dir = file.parent().and_then(Path::file_name).is_some_and(|name| name == id);
    in_state_dir && file.file_name().is_some_and(|name| name == "lock (deleted)")
}

fn parent_of(pid: i32) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Some(parent.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tasks_own_deleted_lock_counts() {
        let is = |path: &str| is_deleted_lock(Path::new(path), "u-1");
        assert!(is("/var/lib/x/agent/tasks/u-1/lock (deleted)"));
        assert!(!is("/var/lib/x/agent/tasks/u-1/lock"));
        assert!(!is("/var/lib/x/agent/tasks/u-2/lock (deleted)"));
        assert!(!is("/var/lib/x/agent/tasks/u-1/stdout.log (deleted)"));
    }
}
