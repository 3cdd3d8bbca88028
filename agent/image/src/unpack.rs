//! Puts the content of one layer into a directory, in the form that overlayfs stacks.
//!
//! Every path is resolved by the kernel with `RESOLVE_BENEATH` from the directory's own descriptor: no link and
//! no `..` of an archive leads out of it, whatever was unpacked before. Whiteouts become overlayfs's: a device
//! 0/0 for what is gone, an attribute for a directory that hides what is below it. Device nodes are refused,
//! set-user-id bits and extended attributes dropped.

use std::collections::HashSet;
use std::ffi::CString;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::Error;
use crate::tar::{Archive, Entry, Kind, lossy};

mod budget;
mod files;
mod trouble;

pub(crate) use budget::Budget;
use files::{is_whiteout, make_opaque, normal, own, owner, status, times, write_all};
use trouble::{Trouble, disk, refusal, refuse};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What other union file systems keep about themselves.
const INTERNAL: &[u8] = b".wh..wh.";
/// Read and written at once.
const CHUNK: usize = 256 << 10;
const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);
const OPEN_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What was unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    /// Directories that the archive puts something into and does not describe: they look as they do in the
    /// layers below. Sorted, without a leading slash.
    pub(crate) implied: Vec<String>,
}

/// Unpacks an archive into `directory`, which must be empty.
///
/// # Errors
/// [`Error::Invalid`] with the entry at fault; an error of the disk. What was unpacked so far stays.
pub(crate) fn unpack(
    reader: impl Read,
    directory: &Path,
    budget: &Budget,
) -> Result<Unpacked, Error> {
    let root = rustix::fs::openat(CWD, directory, OPEN_DIR, Mode::empty())
        .map_err(|errno| crate::error::local(directory.display())(errno.into()))?;
    let mut tree = Tree {
        root,
        parent: None,
        implied: HashSet::new(),
        directories: Vec::new(),
        buffer: vec![0; CHUNK],
        budget,
        done: Unpacked::default(),
    };
    let mut archive = Archive::new(reader);
    while let Some(entry) = archive.next().map_err(refusal)? {
        let named = lossy(&entry.path);
        tree.put(&entry, &mut archive).map_err(|trouble| trouble.explain(&named))?;
        commonage_failpoint::reach("image.layer_half_written");
    }
    tree.finish()
}

struct Tree<'a> {
    root: OwnedFd,
    /// The directory that the last entry went into: the next one most often goes there too.
    parent: Option<(Vec<u8>, OwnedFd)>,
    implied: HashSet<Vec<u8>>,
    /// Their times, which are set last: putting something into them changes them.
    directories: Vec<(Vec<u8>, i64)>,
    buffer: Vec<u8>,
    budget: &'a Budget,
    done: Unpacked,
}

impl Tree<'_> {
    fn put(&mut self, entry: &Entry, body: &mut impl Read) -> Result<(), Trouble> {
        let path = normal(&entry.path)?;
        if !self.budget.take_inode() {
            return refuse(format!("more than {} files", self.budget.limits().inodes));
        }
        if !self.budget.take_bytes(entry.size) {
            return refuse(format!(
                "with its {} bytes the image has more than {} bytes",
                entry.size,
                self.budget.limits().unpacked_bytes
            ));
        }
        self.done.inodes += 1;
        self.done.bytes += entry.size;
        let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], &path[..]),
        };
        if path.is_empty() {
            return self.root_entry(entry);
        }
        if name.starts_with(WHITEOUT) {
            return self.whiteout(parent, name);
        }
        self.implied.remove(&path);
        match entry.kind {
            Kind::Directory => self.directory(&path, parent, name, entry),
            Kind::File => self.file(parent, name, entry, body),
            Kind::Symlink => self.symlink(parent, name, entry),
            Kind::HardLink => self.hard_link(parent, name, entry),
            Kind::Fifo => self.fifo(parent, name, entry),
            Kind::Device => refuse("is a device node"),
        }
    }

    /// The top directory itself may be described, and be nothing but a directory.
    fn root_entry(&mut self, entry: &Entry) -> Result<(), Trouble> {
        if entry.kind != Kind::Directory {
            return refuse("would replace the top directory");
        }
        self.directories.push((Vec::new(), entry.mtime));
        let root = self.root.try_clone().map_err(Trouble::Read)?;
        own(&root, entry)
    }

    /// The descriptor of a directory of the tree, made on the way where it is not there.
    fn open_parent(&mut self, path: &[u8]) -> Result<OwnedFd, Trouble> {
        if let Some((known, fd)) = &self.parent
            && known == path
        {
            return fd.try_clone().map_err(Trouble::Read);
        }
        let fd = match self.open(path) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => self.make_parents(path)?,
            Err(errno) => return Err(Trouble::Disk("open its directory", errno)),
        };
        let copy = fd.try_clone().map_err(Trouble::Read)?;
        self.parent = Some((path.to_vec(), copy));
        Ok(fd)
    }

    fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        rustix::fs::openat2(&self.root, path, OPEN_DIR, Mode::empty(), RESOLVE)
    }

    fn make_parents(&mut self, path: &[u8]) -> Result<OwnedFd, Trouble> {
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i);
        let mut current = self.root.try_clone().map_err(Trouble::Read)?;
        let mut start = 0;
        for end in ends.chain([path.len()]) {
            let name = &path[start..end];
            start = end + 1;
            current = match self.open(&path[..end]) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => {
                    if !self.budget.take_inode() {
                        return refuse(format!("more than {} files", self.budget.limits().inodes));
                    }
                    let mode = Mode::from_raw_mode(0o755);
                    rustix::fs::mkdirat(&current, name, mode)
                        .map_err(disk("make its directory"))?;
                    self.done.inodes += 1;
                    self.implied.insert(path[..end].to_vec());
                    self.open(&path[..end]).map_err(disk("open its directory"))?
                }
                Err(errno) => return Err(Trouble::Disk("open its directory", errno)),
            };
        }
        Ok(current)
    }

    fn directory(
        &mut self,
        path: &[u8],
        parent: &[u8],
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), Trouble> {
        let at = self.open_parent(parent)?;
        let made = rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755));
        let hides = match made {
            Ok(()) => false,
            Err(Errno::EXIST) => {
                let there = status(&at, name)?;
                match FileType::from_raw_mode(there.st_mode) {
                    FileType::Directory => false,
                    _ => {
                        self.remove(&at, name)?;
                        let mode = Mode::from_raw_mode(0o755);
                        rustix::fs::mkdirat(&at, name, mode).map_err(disk("make it"))?;
                        // What the same layer deletes and makes anew shows nothing of below.
                        is_whiteout(&there)
                    }
                }
            }
            Err(errno) => return Err(Trouble::Disk("make it", errno)),
        };
        let flags = OPEN_DIR.union(OFlags::NOFOLLOW);
        let fd = rustix::fs::openat(&at, name, flags, Mode::empty()).map_err(disk("open it"))?;
        if hides {
            make_opaque(&fd)?;
        }
        own(&fd, entry)?;
        self.directories.push((path.to_vec(), entry.mtime));
        Ok(())
    }

    fn file(
        &mut self,
        parent: &[u8],
        name: &[u8],
        entry: &Entry,
        body: &mut impl Read,
    ) -> Result<(), Trouble> {
        let at = self.open_parent(parent)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&at, name, flags, Mode::from_raw_mode(0o600));
        let fd = match open() {
            Err(Errno::EXIST) => {
                self.remove(&at, name)?;
                open()
            }
            opened => opened,
        }
        .map_err(disk("make it"))?;
        let mut left = entry.size;
        while left > 0 {
            let length = body.read(&mut self.buffer).map_err(Trouble::Read)?;
            if length == 0 {
                return refuse("the archive ends within it");
            }
            write_all(&fd, &self.buffer[..length]).map_err(disk("write it"))?;
            left -= length as u64;
        }
        own(&fd, entry)?;
        rustix::fs::futimens(&fd, &times(entry.mtime)).map_err(disk("set its time"))
    }

    fn symlink(&mut self, parent: &[u8], name: &[u8], entry: &Entry) -> Result<(), Trouble> {
        let at = self.open_parent(parent)?;
        let target =
            CString::new(entry.link.clone()).map_err(|e| Trouble::Refused(e.to_string()))?;
        if entry.link.is_empty() {
            return refuse("is a link to nothing");
        }
        self.replacing(&at, name, |at| rustix::fs::symlinkat(&target, at, name))?;
        let (uid, gid) = owner(entry)?;
        rustix::fs::chownat(&at, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(disk("give it away"))?;
        rustix::fs::utimensat(&at, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(disk("set its time"))
    }

    fn hard_link(&mut self, parent: &[u8], name: &[u8], entry: &Entry) -> Result<(), Trouble> {
        let target = normal(&entry.link)
            .map_err(|_| Trouble::Refused(format!("is a hard link to {}", lossy(&entry.link))))?;
        let slash = target.iter().rposition(|b| *b == b'/');
        let (target_parent, target_name) = match slash {
            Some(slash) => (&target[..slash], &target[slash + 1..]),
            None => (&target[..0], &target[..]),
        };
        let missing = || {
            Trouble::Refused(format!("is a hard link to {}, which the layer lacks", lossy(&target)))
        };
        let from = self.open(target_parent).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => missing(),
            errno => Trouble::Disk("open what it links to", errno),
        })?;
        let there = status(&from, target_name).map_err(|_| missing())?;
        if FileType::from_raw_mode(there.st_mode) == FileType::Directory || is_whiteout(&there) {
            return refuse(format!("is a hard link to {}, which is no file", lossy(&target)));
        }
        let at = self.open_parent(parent)?;
        if status(&at, name).is_ok_and(|now| now.st_ino == there.st_ino) {
            return Ok(());
        }
        // Without AT_SYMLINK_FOLLOW: a link to a link is a second name of that link.
        self.replacing(&at, name, |at| {
            rustix::fs::linkat(&from, target_name, at, name, AtFlags::empty())
        })
    }

    fn fifo(&mut self, parent: &[u8], name: &[u8], entry: &Entry) -> Result<(), Trouble> {
        let at = self.open_parent(parent)?;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        self.replacing(&at, name, |at| rustix::fs::mknodat(at, name, FileType::Fifo, mode, 0))?;
        let (uid, gid) = owner(entry)?;
        rustix::fs::chownat(&at, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(disk("give it away"))
    }

    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<(), Trouble> {
        let hidden = &name[WHITEOUT.len()..];
        if name == OPAQUE {
            if parent.is_empty() {
                return refuse("would hide everything below this layer");
            }
            let at = self.open_parent(parent)?;
            return make_opaque(&at);
        }
        if name.starts_with(INTERNAL) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return refuse("would delete the directory that it is in");
        }
        let at = self.open_parent(parent)?;
        let none = Mode::empty();
        match rustix::fs::mknodat(&at, hidden, FileType::CharacterDevice, none, 0) {
            Ok(()) => Ok(()),
            // It hides what is below, not what the same layer brings.
            Err(Errno::EXIST) => {
                let there = status(&at, hidden)?;
                if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
                    return Ok(());
                }
                let flags = OPEN_DIR.union(OFlags::NOFOLLOW);
                let fd = rustix::fs::openat(&at, hidden, flags, none).map_err(disk("open it"))?;
                make_opaque(&fd)
            }
            Err(errno) => Err(Trouble::Disk("make it", errno)),
        }
    }

    /// Makes something where there may be something: of two entries of one name the later counts.
    fn replacing(
        &mut self,
        at: &OwnedFd,
        name: &[u8],
        make: impl Fn(&OwnedFd) -> Result<(), Errno>,
    ) -> Result<(), Trouble> {
        match make(at) {
            Err(Errno::EXIST) => {
                self.remove(at, name)?;
                make(at).map_err(disk("make it"))
            }
            made => made.map_err(disk("make it")),
        }
    }

    fn remove(&mut self, at: &OwnedFd, name: &[u8]) -> Result<(), Trouble> {
        self.parent = None;
        let there = status(at, name)?;
        if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
            return rustix::fs::unlinkat(at, name, AtFlags::empty()).map_err(disk("replace it"));
        }
        match rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY) => refuse("would replace a directory that is not empty"),
            removed => removed.map_err(disk("replace it")),
        }
    }

    fn finish(mut self) -> Result<Unpacked, Error> {
        for (path, mtime) in &self.directories {
            // One that was replaced later has no time to set.
            if let Ok(fd) = self.open(path) {
                let _ = rustix::fs::futimens(&fd, &times(*mtime));
            }
        }
        let implied = self.implied.iter();
        // Names that are no text are made anew as root's, 0755; nothing depends on their owner.
        self.done.implied =
            implied.filter_map(|path| String::from_utf8(path.clone()).ok()).collect();
        self.done.implied.sort();
        Ok(self.done)
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
