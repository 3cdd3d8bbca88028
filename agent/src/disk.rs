//! How much of the disk tasks may take. Where the file system keeps project quotas the kernel refuses what goes
//! beyond; anywhere else the files are counted from time to time, as Mesos does it, and a task can be over its limit
//! until the next count. In both cases a task that has reached its limit is ended.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use commonage_schemas::Task;
use commonage_schemas::resources::DISK;
use commonage_shim::StateDir;
use commonage_shim::quota::{Quotas, counted};
use serde::{Deserialize, Serialize};

/// Between two counts: Mesos' `container_disk_watch_interval`.
pub(crate) const COUNT_EVERY: Duration = Duration::from_secs(15);
/// Counting takes at most one part in so many of the time.
pub(crate) const COUNT_SHARE: u32 = 20;
/// Projects of ours have this bit, so that they are not taken for somebody's who counts from 1.
const OURS: u32 = 0x4000_0000;

/// What a task may take of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskLimit {
    pub bytes: u64,
    /// By which the file system counts for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<u32>,
}

impl DiskLimit {
    /// Where the kernel refuses what goes beyond, nobody gets nearer than this: the next piece would not fit.
    pub fn slack(&self) -> u64 {
        match self.project {
            Some(_) => (self.bytes / 16).min(64 << 10),
            None => 0,
        }
    }
}

/// Its `limits.disk`, else its `resources.disk`; a task that asks for none has no limit.
pub fn limit_of(task: &Task) -> Option<u64> {
    let limits = task.spec.limits.as_ref().filter(|limits| limits.get(DISK).is_some());
    let bytes = limits.unwrap_or(&task.spec.resources).scalar(DISK);
    u64::try_from(bytes).ok().filter(|bytes| *bytes > 0)
}

/// A number for a task that no other of this agent has, and hardly another's on the same disk.
pub fn project_of(uid: &str, taken: &HashSet<u32>) -> u32 {
    // FNV-1a, as good as any.
    let hash = uid
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let mut project = hash & (OURS - 1) | OURS;
    while taken.contains(&project) {
        project = (project + 1) & (OURS - 1) | OURS;
    }
    project
}

/// How many bytes a task takes now. Blocks, for as long as it takes to look at all its files.
///
/// # Errors
/// The file system's.
pub fn used(state: &StateDir, limit: &DiskLimit, quotas: Option<&Quotas>) -> std::io::Result<u64> {
    match (quotas, limit.project) {
        (Some(quotas), Some(project)) => quotas.used(project),
        _ => Ok(counted(state).iter().map(|directory| count(directory)).sum()),
    }
}

/// Bytes that the files of a tree have on the disk, each once. What can't be looked at is not counted: it goes away
/// while we look.
fn count(top: &Path) -> u64 {
    let Ok(device) = fs::symlink_metadata(top).map(|found| found.dev()) else { return 0 };
    let (mut bytes, mut linked) = (0_u64, HashSet::new());
    let mut todo: Vec<PathBuf> = vec![top.to_owned()];
    while let Some(directory) = todo.pop() {
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        for entry in entries {
            let Ok(found) = entry.metadata() else { continue };
            // What is mounted there lies elsewhere.
            if found.dev() != device
                || (found.nlink() > 1 && found.is_file() && !linked.insert(found.ino()))
            {
                continue;
            }
            bytes = bytes.saturating_add(found.blocks().saturating_mul(512));
            if found.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    bytes
}

/// In words, for a task that is ended.
pub fn exceeded(used: u64, limit: &DiskLimit) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!(
        "the task has written {:.1} MiB, and may have {:.1} MiB of disk",
        mib(used),
        mib(limit.bytes)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_are_counted_once_and_links_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let big = vec![1; 1 << 20];
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/a"), &big).unwrap();
        let alone = count(dir.path());
        assert!((1 << 20..(1 << 20) + 65_536).contains(&alone), "{alone}");
        fs::hard_link(dir.path().join("d/a"), dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("usr")).unwrap();
        let with_links = count(dir.path());
        assert!(with_links < alone + 65_536, "{with_links}");
        assert_eq!(count(Path::new("/nonexistent")), 0);
    }

    #[test]
    fn projects_differ() {
        let one = project_of("u-1", &HashSet::new());
        assert_ne!(one, project_of("u-2", &HashSet::new()));
        let next = project_of("u-1", &HashSet::from([one]));
        assert!(next != one && next & OURS != 0);
    }

    #[test]
    fn limits_go_before_requests() {
        let task = |spec: serde_json::Value| -> Task {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "commonage.dev/v1", "kind": "Task", "metadata": {"name": "t"}, "spec": spec,
            }))
            .unwrap()
        };
        let limit = |spec| limit_of(&task(spec));
        assert_eq!(limit(serde_json::json!({"resources": {"disk": "1Gi"}})), Some(1 << 30));
        let both = serde_json::json!({"resources": {"disk": "1Gi"}, "limits": {"disk": "2Gi"}});
        assert_eq!(limit(both), Some(2 << 30));
        let other = serde_json::json!({"resources": {"disk": "1Gi"}, "limits": {"cpu": "2"}});
        assert_eq!(limit(other), Some(1 << 30));
        assert_eq!(limit(serde_json::json!({})), None);
    }
}
