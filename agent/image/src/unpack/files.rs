//! Small things done to files and paths.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::trouble::{Trouble, disk, refuse};
use crate::tar::{Entry, Kind};

/// How overlayfs marks a directory that hides those below it.
const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";
const PATH_MAX: usize = 4096;

/// A path from the top, without `.` and double slashes; empty for the top itself.
pub(super) fn normal(path: &[u8]) -> Result<Vec<u8>, Trouble> {
    if path.len() > PATH_MAX {
        return refuse("its name is too long");
    }
    let mut normal = Vec::with_capacity(path.len());
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return refuse("leads out of the image with \"..\""),
            part => {
                if !normal.is_empty() {
                    normal.push(b'/');
                }
                normal.extend_from_slice(part);
            }
        }
    }
    if path.starts_with(b"/") && !normal.is_empty() {
        return refuse("has an absolute path");
    }
    Ok(normal)
}

pub(super) fn owner(entry: &Entry) -> Result<(Uid, Gid), Trouble> {
    // The last number means "leave as it is" to the kernel.
    let number = |id: u64, what: &str| match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => refuse(format!("belongs to {what} {id}, which is no number of one")),
    };
    Ok((Uid::from_raw(number(entry.uid, "user")?), Gid::from_raw(number(entry.gid, "group")?)))
}

/// Owner, then mode: a change of owner may take bits away.
pub(super) fn own(fd: &OwnedFd, entry: &Entry) -> Result<(), Trouble> {
    let (uid, gid) = owner(entry)?;
    rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(disk("give it away"))?;
    // A directory's set-group-id bit only says whose its new files are.
    let kept = if entry.kind == Kind::Directory { 0o3777 } else { 0o777 };
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode & kept)).map_err(disk("set its mode"))
}

pub(super) fn times(mtime: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime, tv_nsec: 0 },
    }
}

pub(super) fn status(at: &OwnedFd, name: &[u8]) -> Result<rustix::fs::Stat, Trouble> {
    rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW).map_err(disk("look at it"))
}

pub(super) fn is_whiteout(status: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice && status.st_rdev == 0
}

pub(super) fn make_opaque(fd: &OwnedFd) -> Result<(), Trouble> {
    rustix::fs::fsetxattr(fd, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty())
        .map_err(disk("mark it as hiding what is below"))
}

pub(super) fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(&fd, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
