//! A view of the host's files in which nobody owns them.
//!
//! A task runs with the host's own user numbers, and as root unless it says otherwise. So that its
//! root may read no more than any user of the machine may, it sees the host through mounts on which
//! no user and no group of the disk has a number: then neither ownership nor `CAP_DAC_OVERRIDE`
//! applies (the kernel honours it only for files whose owner it can name), and the permissions
//! for others are what counts. A private key of mode 0600 is out of reach wherever it lies.
//!
//! See mount_setattr(2), "ID-mapped mounts".

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{pipe2, read, write};

use crate::sys;

/// The kernel takes no empty map, so one number has an owner: the last, which is nobody's.
const MAP: &str = "4294967294 4294967294 1";

/// A user namespace, and a network namespace that belongs to it if it was made with one.
pub(crate) struct Made {
    pub(crate) users: File,
    pub(crate) network: File,
}

/// Makes namespaces: users with a map, as in user_namespaces(7), and what else is wanted. They live as long as they
/// are held.
///
/// # Errors
/// A kernel without user namespaces, or one that does not let us make any.
pub(crate) fn make(map: &str, more: CloneFlags) -> io::Result<Made> {
    use std::os::fd::AsRawFd;
    let (ready, say_ready) = pipe2(OFlag::O_CLOEXEC)?;
    let (done, say_done) = pipe2(OFlag::O_CLOEXEC)?;
    let Some(child) = sys::fork()? else {
        drop((ready, say_done));
        if unshare(CloneFlags::CLONE_NEWUSER | more).is_ok() {
            let _ = write(&say_ready, &[1]);
            // Holds the namespaces until they are held by descriptors; the end of the pipe says so.
            let _ = read(done.as_raw_fd(), &mut [0]);
        }
        sys::exit(0)
    };
    drop((say_ready, done));
    let made = match read(ready.as_raw_fd(), &mut [0]) {
        Ok(1) => take_from(child, map),
        _ => Err(io::Error::other("no user namespace could be made")),
    };
    drop(say_done);
    sys::wait_raw(child, 0)?;
    made
}

fn take_from(child: i32, map: &str) -> io::Result<Made> {
    let process = Path::new("/proc").join(child.to_string());
    fs::write(process.join("uid_map"), map)?;
    fs::write(process.join("gid_map"), map)?;
    let open = |name: &str| File::open(process.join("ns").join(name));
    Ok(Made { users: open("user")?, network: open("net")? })
}

/// The user namespace whose map the mounts get.
pub(crate) struct Nobody(OwnedFd);

impl Nobody {
    /// Makes the namespace. It lives as long as the value, and then as long as mounts use it.
    ///
    /// # Errors
    /// A kernel without user namespaces, or one that does not let us make any.
    pub(crate) fn new() -> io::Result<Self> {
        make(MAP, CloneFlags::empty()).map(|made| Self(made.users.into()))
    }

    /// Shows `host` at `target`, with what is mounted below it. Where something of that cannot be
    /// shown so (its file system does not have such mounts), without anything mounted below.
    ///
    /// # Errors
    /// The file system of `host` itself does not have such mounts.
    pub(crate) fn show(&self, host: &Path, target: &Path) -> io::Result<()> {
        let show = |recursive| sys::mount_mapped(host, target, &self.0, recursive);
        show(true).or_else(|_| show(false))
    }
}
