//! What a machine may have or not have: a cluster runs either way, and this says what follows from it.

use std::{fs, path::Path};

use commonage_agent::config::{GpuChoice, Gpus, no_user_namespaces};
use commonage_shim::quota::Quotas;

use super::Check;

/// All of them, in the order of the list.
pub(super) fn all(data_dir: &Path) -> Vec<Check> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    vec![devices(&mounts), starts(&mounts), users(), quotas(data_dir), gpus()]
}

/// `v1`, `v2`, or `hybrid`: the controllers are v1's, with a tree of v2 beside them.
pub(super) fn mode(mounts: &str) -> &'static str {
    let has = |kind: &str| mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind));
    match (has("cgroup"), has("cgroup2")) {
        (true, true) => "hybrid",
        (false, true) => "v2",
        _ => "v1",
    }
}

/// Options of the control groups' mounts, all in one.
fn options(mounts: &str) -> Vec<&str> {
    let lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let groups = lines.filter(|fields| matches!(fields.get(2), Some(&"cgroup" | &"cgroup2")));
    groups.flat_map(|fields| fields.get(3).map_or(Vec::new(), |o| o.split(',').collect())).collect()
}

fn devices(mounts: &str) -> Check {
    const NAME: &str = "devices";
    match (mode(mounts), options(mounts).contains(&"devices")) {
        (_, true) => Check::good(NAME, "tasks may use those that they were given, by device rules"),
        ("v1", false) => Check::worse(
            NAME,
            "no devices controller: tasks see only nodes that they were given, and can make none",
            "mount -t cgroup -o devices devices /sys/fs/cgroup/devices",
        ),
        _ => Check::good(NAME, "tasks may use those that they were given, by a BPF program"),
    }
}

/// Linux since 6.0: without this, the first process of a group waits for all processors to come by.
fn starts(mounts: &str) -> Check {
    const NAME: &str = "starts";
    match options(mounts).contains(&"favordynmods") {
        true => Check::good(NAME, "containers start without waiting for the kernel (favordynmods)"),
        false => Check::good(NAME, "a container's start may wait 5 to 20 ms for the kernel").tip(
            match mode(mounts) {
                "v2" => "mount -o remount,favordynmods /sys/fs/cgroup",
                "hybrid" => "mount -o remount,favordynmods /sys/fs/cgroup/unified",
                _ => "mount -o remount,favordynmods /sys/fs/cgroup/pids",
            },
        ),
    }
}

fn users() -> Check {
    const NAME: &str = "users";
    match no_user_namespaces() {
        None => Check::good(NAME, "tasks can have users of their own (container.userNamespace)"),
        Some(why) => Check::worse(
            NAME,
            format!("tasks that ask for users of their own are refused: {why}"),
            "sysctl user.max_user_namespaces=15000, with a kernel that has them",
        ),
    }
}

fn quotas(data_dir: &Path) -> Check {
    const NAME: &str = "quotas";
    let existing = data_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match Quotas::of(existing) {
        Ok(Some(_)) => Check::good(NAME, "the disk itself keeps tasks to their limits of disk"),
        Ok(None) | Err(_) => Check::good(
            NAME,
            "limits of disk are kept by counting every 15 s: until then a task can be over its own",
        )
        .tip("a data directory on ext4 or xfs that is mounted with prjquota"),
    }
}

fn gpus() -> Check {
    const NAME: &str = "gpus";
    let gpus = match Gpus::detect(&GpuChoice::Auto) {
        Ok(Some(gpus)) => gpus,
        Ok(None) => return Check::good(NAME, "none (no NVIDIA driver)"),
        Err(error) => {
            return Check::worse(
                NAME,
                format!("there is a driver that does not work: {error}"),
                "nvidia-smi says more; --gpus none does without",
            );
        }
    };
    let told = gpus.told();
    let words = |gpu: &commonage_schemas::agent::AgentGpu| {
        let model = gpu.model.as_deref().unwrap_or("GPU");
        match &gpu.message {
            None => format!("{} {model}", gpu.index),
            Some(why) => format!("{} {model} ({why})", gpu.index),
        }
    };
    let all = told.iter().map(words).collect::<Vec<_>>().join(", ");
    match told.iter().all(|gpu| gpu.healthy) {
        true => Check::good(NAME, format!("{all}: given to tasks whole")),
        false => Check::worse(
            NAME,
            format!("{all}: those with a reason are given to nobody"),
            "nvidia-smi says more; after a reset start the agent again",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n";
    const V2: &str = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate,favordynmods 0 0\n";

    #[test]
    fn the_mode_of_control_groups_and_what_follows_from_it() {
        let hybrid = format!("{V1}cgroup /sys/fs/cgroup/devices cgroup rw,devices 0 0\n{V2}");
        assert_eq!([mode(V1), mode(V2), mode(&hybrid)], ["v1", "v2", "hybrid"]);
        assert!(devices(&hybrid).found.contains("by device rules"));
        assert!(devices(V2).fix.is_none() && devices(V2).found.contains("BPF"));
        assert!(devices(V1).fix.is_some());
        assert!(starts(V1).fix.is_some_and(|fix| fix.ends_with("/pids")));
        assert!(starts(V2).fix.is_none());
    }

    #[test]
    fn nothing_of_this_keeps_a_cluster_from_starting() {
        for check in all(Path::new("/nowhere/at/all")) {
            assert_ne!(check.verdict, super::super::Verdict::Missing, "{}", check.found);
        }
    }
}
