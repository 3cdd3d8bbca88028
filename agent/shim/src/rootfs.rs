//! The root file system of a task without an image: the host's own, read-only.
//!
//! A small tmpfs holds one directory per entry of `/`, each the host's mounted recursively; then
//! the whole tree is made read-only, without devices and set-user-id programs. What is the
//! machine's and not the distribution's is left out: `/dev`, `/proc`, `/sys`, `/run` (sockets of
//! other services), `/tmp`, and the homes. Of the rest a task may read what every user of the
//! machine may, even as root: see [`crate::idmap`]. Where the file system cannot do that (overlayfs,
//! for one), a task's root reads all that is shown, and only [`HIDDEN`], the agent's data directory
//! and those of the clusters that run on the machine are kept from it. All of it is mounted in the shim's own mount namespace
//! and so is gone with the shim, however that dies.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::idmap::Nobody;
use crate::launch::{Launch, Mount, Root, SANDBOX_MOUNT};
use crate::stage::Stage;
use crate::state_dir::StateDir;
use crate::sys;

/// Empty directories instead of the host's: something else is mounted there, or nobody's
/// business. Homes hold keys, and a task's root may read everything it sees.
const EMPTY: &[&str] = &["dev", "proc", "sys", "run", "tmp", "root", "home", "boot", "lost+found"];

/// Those of them in which something of the task's may be mounted.
const PLACES: &[&str] = &["run", "root", "home"];

/// Secrets inside what is shown. Those that do not exist are skipped.
pub(crate) const HIDDEN: &[&str] = &[
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/ssh",
    "/etc/ssl/private",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/kubernetes",
    "/var/lib/commonage",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/lib/etcd",
    "/var/spool/cron",
];

/// One file per running `cmn up` of the machine, whose content is the path of its data directory.
const CLUSTERS: &str = "/run/commonage/up";

/// Bytes of the tmpfs: directories and a `resolv.conf`.
const SKELETON: &str = "mode=755,size=1m";

/// Gives the process a mount namespace of its own. Unmounting on the host still reaches it, so
/// that a task does not keep a file system of the host busy; nothing goes the other way.
pub(crate) fn leave_host_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    change(Path::new("/"), MsFlags::MS_SLAVE | MsFlags::MS_REC).map_err(|error| {
        let why = "the root directory is not a mount of its own (a chroot?)";
        match error.raw_os_error() {
            Some(libc::EINVAL) => io::Error::new(error.kind(), why),
            _ => error,
        }
    })
}

/// The data directories of the clusters that say they run here; they hold private keys.
pub(crate) fn clusters() -> Vec<PathBuf> {
    clusters_in(Path::new(CLUSTERS))
}

fn clusters_in(signs: &Path) -> Vec<PathBuf> {
    let signs = fs::read_dir(signs).into_iter().flatten().flatten();
    let directories = signs.filter_map(|sign| fs::read_to_string(sign.path()).ok());
    let directories = directories.map(|text| PathBuf::from(text.trim_end()));
    // The root itself cannot be hidden.
    directories.filter(|path| path.is_absolute() && path.parent().is_some()).collect()
}

/// Puts the root together and returns where it is.
pub(crate) fn assemble(
    launch: &Launch,
    state: &StateDir,
    stage: Option<&mut Stage>,
) -> io::Result<PathBuf> {
    match &launch.root {
        Root::Bundle(path) => Ok(path.clone()),
        Root::Image { layers, .. } => crate::image::assemble(layers, state, stage).map_err(|e| {
            io::Error::new(e.kind(), format!("the layers of the image can't be stacked: {e}"))
        }),
        Root::HostReadOnly => {
            let root = stage.map_or_else(|| state.rootfs(), |_| Stage::root());
            assemble_host(&root, launch).map_err(|e| {
                io::Error::new(e.kind(), format!("read-only view of the host's root: {e}"))
            })?;
            Ok(root)
        }
    }
}

fn assemble_host(root: &Path, launch: &Launch) -> io::Result<()> {
    fs::create_dir_all(root)?;
    mount(
        Some("commonage"),
        root,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(SKELETON),
    )?;
    // Unbindable: the state directory lies in one of the directories bound below, and would
    // otherwise bring what is assembled so far into itself.
    change(root, MsFlags::MS_UNBINDABLE)?;
    let nobody = Nobody::new()
        .inspect_err(|error| eprintln!("files of the host keep their owners: {error}"))
        .ok();
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        let name = entry.file_name();
        let (host, target) = (entry.path(), root.join(&name));
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            symlink(fs::read_link(&host)?, &target)?;
        } else if kind.is_dir() {
            fs::create_dir(&target)?;
            let shown =
                !EMPTY.iter().any(|empty| name == *empty) && host != Path::new(SANDBOX_MOUNT);
            if shown {
                show(&host, &target, nobody.as_ref())?;
            }
        }
    }
    let sandbox = SANDBOX_MOUNT.trim_start_matches('/');
    for name in EMPTY.iter().copied().chain([sandbox]) {
        fs::create_dir_all(root.join(name))?;
    }
    for mount in launch.mounts.iter() {
        make_mount_point(root, mount)?;
    }
    copy_resolver(root)?;
    sys::seal_mounts(root)?;
    change(root, MsFlags::MS_PRIVATE)
}

fn show(host: &Path, target: &Path, nobody: Option<&Nobody>) -> io::Result<()> {
    if let Some(nobody) = nobody {
        match nobody.show(host, target) {
            Ok(()) => return Ok(()),
            Err(error) => eprintln!("files of {} keep their owners: {error}", host.display()),
        }
    }
    let none: Option<&str> = None;
    mount(Some(host), target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
    Ok(())
}

/// Only below the tmpfs: nothing is ever created on the host's own file systems, where this fails
/// unless the mount point exists.
fn make_mount_point(root: &Path, mount: &Mount) -> io::Result<()> {
    let target = &mount.target;
    let inside = root.join(target.strip_prefix("/").unwrap_or(target));
    let exists = inside.symlink_metadata().is_ok();
    let mut components = target.components().skip(1);
    let first = components.next().map(|c| root.join(c.as_os_str()));
    let ours = first.is_some_and(|f| {
        let name = f.file_name().unwrap_or_default();
        PLACES.iter().any(|place| name == *place) || !Path::new("/").join(name).exists()
    });
    if exists || !ours {
        return Ok(());
    }
    if mount.tmpfs_bytes.is_some() || mount.source.is_dir() {
        fs::create_dir_all(inside)
    } else {
        fs::create_dir_all(inside.parent().unwrap_or(root))?;
        fs::write(inside, "")
    }
}

/// `/etc/resolv.conf` often points into `/run`, which is not shown: a copy of it is.
fn copy_resolver(root: &Path) -> io::Result<()> {
    let Ok(real) = fs::canonicalize("/etc/resolv.conf") else {
        return Ok(());
    };
    let (Ok(inside), Ok(content)) = (real.strip_prefix("/run"), fs::read(&real)) else {
        return Ok(());
    };
    let copy = root.join("run").join(inside);
    fs::create_dir_all(copy.parent().unwrap_or(root))?;
    fs::write(copy, content)
}

/// Takes the root apart again; with the namespace it would go anyway.
pub(crate) fn dismantle(state: &StateDir) {
    let root = state.rootfs();
    let _ = umount2(&root, MntFlags::MNT_DETACH);
    // Not recursive: if it is still mounted, this must not reach into the host's directories.
    let _ = fs::remove_dir(&root);
}

fn change(path: &Path, flags: MsFlags) -> io::Result<()> {
    let none: Option<&str> = None;
    mount(none, path, none, flags, none)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn clusters_are_found_by_their_signs() {
        let signs = tempfile::tempdir().unwrap();
        for (name, content) in
            [("1", "/srv/a"), ("2", "/srv/b\n"), ("3", "/"), ("4", "x"), ("5", "")]
        {
            fs::write(signs.path().join(name), content).unwrap();
        }
        let mut found = clusters_in(signs.path());
        found.sort();
        assert_eq!(found, [Path::new("/srv/a"), Path::new("/srv/b")]);
        assert!(clusters_in(Path::new("/nowhere")).is_empty());
    }
}
