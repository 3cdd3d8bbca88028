//! What a task has mounted: which of it this agent refuses, and what the shim is told.

use std::path::{Path, PathBuf};

use commonage_schemas::Task;
use commonage_schemas::quantity::{self, Unit};
use commonage_schemas::task::Mount as Wanted;
use commonage_shim::launch::{Mount, SANDBOX_MOUNT};

use super::{Refusal, unsupported};
use crate::prepare::Prepared;

/// Where Kubernetes' clients look for their token.
const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Where it lies in a task's memory.
pub const TOKEN_DIRECTORY: &str = "token";

/// Below these the container has its own, and whoever could mount something there could change what it is.
const TAKEN: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Refuses what cannot be mounted, whatever it is.
pub(super) fn check(task: &Task) -> Result<(), Refusal> {
    let container = &task.spec.container;
    for (place, mount) in container.mounts.iter().enumerate() {
        let field = format!("spec.container.mounts[{place}]");
        let path = Path::new(&mount.path);
        let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
        if !path.is_absolute() || climbs || path == Path::new("/") {
            return Err(unsupported(format!(
                "{field}.path: {:?} is no absolute path below the root, without \"..\"",
                mount.path
            )));
        }
        if let Some(taken) = TAKEN.iter().find(|taken| path.starts_with(taken)) {
            // Memory for programs that share much of it.
            if !(mount.tmpfs.is_some() && path == Path::new("/dev/shm")) {
                return Err(unsupported(format!(
                    "{field}.path: nothing can be mounted below {taken}"
                )));
            }
        }
        if container.image.is_none() && !has_room(path) {
            return Err(unsupported(format!(
                "{field}.path: {:?} would have to be made among the machine's own files, which a task \
                 without an image only sees; a path such as /mnt-data or {SANDBOX_MOUNT}/data can be",
                mount.path
            )));
        }
        if let Some(tmpfs) = &mount.tmpfs {
            size(&tmpfs.size).map_err(|what| unsupported(format!("{field}.tmpfs.size: {what}")))?;
        }
        let sources = [
            mount.volume.is_some(),
            mount.secret.is_some(),
            mount.config_map.is_some(),
            mount.host_path.is_some(),
            mount.tmpfs.is_some(),
        ];
        if sources.into_iter().filter(|set| *set).count() != 1 {
            return Err(unsupported(format!(
                "{field}: exactly one of volume, secret, configMap, hostPath and tmpfs must be set"
            )));
        }
    }
    Ok(())
}

/// Without an image: whether there is such a path, or a place where one can be made.
fn has_room(path: &Path) -> bool {
    let first = path.components().nth(1).map(|part| Path::new("/").join(part.as_os_str()));
    let open = ["/run", "/root", "/home", SANDBOX_MOUNT];
    open.iter().any(|open| path.starts_with(open) && path != Path::new(open))
        || first.is_some_and(|first| !first.exists())
        || path.exists()
}

/// The order for each mount. Content of Secrets and ConfigMaps lies in the task's own memory, whose place is
/// put in by [`settle`].
pub(super) fn of(task: &Task, prepared: &Prepared) -> Result<Vec<Mount>, Refusal> {
    let mounts = task.spec.container.mounts.iter().enumerate();
    let mut mounts = mounts
        .map(|(place, wanted)| one(place, wanted, prepared))
        .collect::<Result<Vec<_>, _>>()?;
    if prepared.token.is_some() {
        // Among the machine's own files that is a link to the place that can be made.
        let target = match task.spec.container.image {
            Some(_) => TOKEN_MOUNT,
            None => TOKEN_MOUNT.trim_start_matches("/var"),
        };
        let (source, target) = (PathBuf::from(TOKEN_DIRECTORY), PathBuf::from(target));
        mounts.push(Mount { source, target, read_only: true, foreign: true, ..Mount::default() });
    }
    Ok(mounts)
}

fn one(place: usize, wanted: &Wanted, prepared: &Prepared) -> Result<Mount, Refusal> {
    let target = PathBuf::from(&wanted.path);
    let bind = |source: PathBuf, read_only: bool| {
        Ok(Mount { source, target: target.clone(), read_only, ..Mount::default() })
    };
    if let Some(tmpfs) = &wanted.tmpfs {
        let bytes = size(&tmpfs.size).map_err(unsupported)?;
        let tmpfs_bytes = Some(bytes);
        return Ok(Mount { target, read_only: wanted.read_only, tmpfs_bytes, ..Mount::default() });
    }
    if let Some(host) = &wanted.host_path {
        let mount = bind(PathBuf::from(host), wanted.read_only)?;
        return Ok(Mount { foreign: true, ..mount });
    }
    if let Some(volume) = prepared.volumes.get(&place) {
        return bind(volume.clone(), wanted.read_only);
    }
    if prepared.files.contains_key(&place) {
        // It is written as whose it is to be.
        let mount = bind(files_at(place), true)?;
        return Ok(Mount { foreign: true, ..mount });
    }
    Err(unsupported(format!("spec.container.mounts[{place}]: was not got ready")))
}

/// Where the files of one mount lie in a task's memory.
pub fn files_at(place: usize) -> PathBuf {
    Path::new("files").join(place.to_string())
}

/// Makes paths in the task's memory whole, once that is known.
pub fn settle(mounts: &mut [Mount], memory: &Path) {
    for mount in mounts {
        if mount.tmpfs_bytes.is_none() && mount.source.is_relative() {
            mount.source = memory.join(&mount.source);
        }
    }
}

fn size(text: &str) -> Result<u64, String> {
    let bytes = quantity::parse(text, Unit::Bytes).map_err(|error| error.to_string())?;
    match u64::try_from(bytes) {
        Ok(bytes) if bytes >= 4096 => Ok(bytes),
        _ => Err(format!("{text:?} is not a size of at least 4Ki")),
    }
}
