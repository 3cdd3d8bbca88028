//! Limits on what a tree of files may take of its disk, where the file system keeps them: project quotas of ext4 and
//! xfs, mounted with `prjquota`. See quotactl(2) and FS_IOC_FSSETXATTR in ioctl_list(2).

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// `PRJQUOTA` of quotactl(2).
const PROJECT: i32 = 2;
/// `QIF_BLIMITS`: the limits on space are given.
const LIMITS_ON_SPACE: u32 = 1;
/// In which limits are counted.
const BLOCK_BYTES: u64 = 1024;
/// `FS_XFLAG_PROJINHERIT`: what is made in there belongs to the same project.
const INHERIT: u32 = 0x200;

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// `_IOR('X', 31, struct fsxattr)` and `_IOW('X', 32, struct fsxattr)`.
const GET_ATTRIBUTES: libc::c_ulong = 0x801c_581f;
const SET_ATTRIBUTES: libc::c_ulong = 0x401c_5820;

/// A file system that keeps project quotas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// The device that it lies on.
    device: PathBuf,
}

impl Quotas {
    /// Those of the file system in which a directory lies; `None`: it keeps none.
    ///
    /// # Errors
    /// The mounts cannot be read.
    pub fn of(directory: &Path) -> io::Result<Option<Quotas>> {
        let directory = directory.canonicalize()?;
        Ok(parse(&fs::read_to_string("/proc/self/mountinfo")?, &directory))
    }

    /// Makes these directories and all in them one project, which can have so many bytes at most. Links are not
    /// followed.
    ///
    /// # Errors
    /// The file system's.
    pub fn limit(&self, project: u32, directories: &[PathBuf], bytes: u64) -> io::Result<()> {
        // SAFETY: a structure of plain numbers, for which zeros are values.
        let mut limits: libc::dqblk = unsafe { std::mem::zeroed() };
        limits.dqb_bhardlimit = bytes.div_ceil(BLOCK_BYTES);
        limits.dqb_bsoftlimit = limits.dqb_bhardlimit;
        limits.dqb_valid = LIMITS_ON_SPACE;
        self.call(libc::Q_SETQUOTA, project, &mut limits)?;
        directories.iter().try_for_each(|directory| belong(directory, project))
    }

    /// How many bytes a project has.
    ///
    /// # Errors
    /// The file system's.
    pub fn used(&self, project: u32) -> io::Result<u64> {
        // SAFETY: as above.
        let mut found: libc::dqblk = unsafe { std::mem::zeroed() };
        self.call(libc::Q_GETQUOTA, project, &mut found)?;
        Ok(found.dqb_curspace)
    }

    /// Takes the limit of a project away. Its files are gone, or about to go.
    ///
    /// # Errors
    /// The file system's.
    pub fn forget(&self, project: u32) -> io::Result<()> {
        self.limit(project, &[], 0)
    }

    fn call(&self, command: i32, project: u32, data: &mut libc::dqblk) -> io::Result<()> {
        let device = CString::new(self.device.as_os_str().as_bytes())?;
        let command = libc::QCMD(command, PROJECT);
        let data: *mut libc::dqblk = data;
        // SAFETY: the name ends with a zero, and the structure is the one that these commands take.
        let result =
            unsafe { libc::quotactl(command, device.as_ptr(), project.cast_signed(), data.cast()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// The device of the file system that a directory lies in, if that keeps project quotas.
fn parse(mountinfo: &str, directory: &Path) -> Option<Quotas> {
    // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext4 /dev/sda1 rw,prjquota
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let place = unescaped(mount.split(' ').nth(4)?);
        directory.starts_with(&place).then_some((place, file_system))
    });
    // Of several at the same place the last one counts.
    let (_, file_system) = mounts.max_by_key(|(place, _)| place.components().count())?;
    let fields: Vec<&str> = file_system.split(' ').collect();
    let [kind, device, options] = fields[..] else { return None };
    let keeps = options.split(',').any(|option| matches!(option, "prjquota" | "pquota"));
    (matches!(kind, "ext4" | "xfs") && keeps).then(|| Quotas { device: unescaped(device) })
}

/// Blanks and the like are written as `\040`.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

fn belong(path: &Path, project: u32) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    // Of others (links, pipes) nothing counts but their name.
    if !kind.is_dir() && !kind.is_file() {
        return Ok(());
    }
    let file = File::open(path)?;
    let mut attributes = Attributes::default();
    // SAFETY: the file is open, and the structure is the one that these requests take.
    let got = unsafe { libc::ioctl(file.as_raw_fd(), GET_ATTRIBUTES, &raw mut attributes) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    attributes.project = project;
    if kind.is_dir() {
        attributes.flags |= INHERIT;
    }
    // SAFETY: as above.
    let set = unsafe { libc::ioctl(file.as_raw_fd(), SET_ATTRIBUTES, &raw const attributes) };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            belong(&entry?.path(), project)?;
        }
    }
    Ok(())
}

/// What of a task's directory counts as its disk: what it writes itself, and not its logs, which rotation bounds.
#[must_use]
pub fn counted(state: &crate::StateDir) -> Vec<PathBuf> {
    vec![state.path().join("sandbox"), state.tmp(), state.upper(), state.work()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_system_with_project_quotas_keeps_them() {
        let mounts = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 22 7:0 / /srv/with\\040blank rw,relatime shared:5 - ext4 /dev/loop0 rw,prjquota
31 22 7:1 / /srv/xfs rw - xfs /dev/loop1 rw,attr2,pquota
32 22 0:9 / /srv/tmp rw - tmpfs prjquota rw,prjquota
";
        let device = |path: &str| parse(mounts, Path::new(path)).map(|quotas| quotas.device);
        assert_eq!(device("/srv/with blank/a"), Some(PathBuf::from("/dev/loop0")));
        assert_eq!(device("/srv/xfs"), Some(PathBuf::from("/dev/loop1")));
        for none in ["/", "/srv", "/srv/xfsx", "/srv/tmp/x"] {
            assert_eq!(device(none), None, "{none}");
        }
    }
}
