//! Directories that a layer puts something into without describing them look, in the image, as the layers below
//! describe them. In overlayfs the uppermost layer's would count; so an image with such directories gets a tree
//! of nothing but corrected directories, above its layers.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};

use super::LayerItem;
use crate::error::{Error, local};
use crate::layer::make_tree;

/// Mode and owner of a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Looks {
    mode: u32,
    uid: u32,
    gid: u32,
}

/// How a directory looks that no layer describes.
const PLAIN: Looks = Looks { mode: 0o755, uid: 0, gid: 0 };

/// Builds the tree at `target`, if one is needed. `trees` are those of `layers`, both lowest first.
pub(super) fn build(target: &Path, layers: &[LayerItem], trees: &[PathBuf]) -> Result<bool, Error> {
    let mut wrong: BTreeSet<&str> = BTreeSet::new();
    let implied: BTreeSet<&str> =
        layers.iter().flat_map(|layer| &layer.implied).map(String::as_str).collect();
    if implied.is_empty() {
        return Ok(false);
    }
    let roots: Vec<OwnedFd> = trees.iter().map(|tree| open_root(tree)).collect::<Result<_, _>>()?;
    for path in implied {
        // Only where the uppermost layer that has it does not describe it.
        let there = |(layer, root): (&LayerItem, &OwnedFd)| {
            looks_in(root, path).map(|_| layer.implied.iter().any(|implied| implied == path))
        };
        let uppermost = layers.iter().zip(&roots).rev().find_map(there);
        if uppermost == Some(true) && looks(path, layers, &roots) != PLAIN {
            wrong.insert(path);
        }
    }
    if wrong.is_empty() {
        return Ok(false);
    }
    make_tree(target)?;
    let root = open_root(target)?;
    if let Some(top) = trees.last().and_then(|tree| open_root(tree).ok()) {
        let _ = looks_in(&top, ".").map(|looks| set(&root, looks));
    }
    let mut all: BTreeSet<&str> = wrong.clone();
    for path in &wrong {
        all.extend(path.match_indices('/').map(|(slash, _)| &path[..slash]));
    }
    // Sorted, so that a directory comes before what is in it.
    for path in all {
        let failed = |errno: rustix::io::Errno| local(path)(errno.into());
        rustix::fs::mkdirat(&root, path, Mode::from_raw_mode(0o755)).map_err(failed)?;
        let made = open(&root, path).map_err(failed)?;
        set(&made, looks(path, layers, &roots)).map_err(failed)?;
    }
    Ok(true)
}

/// How a directory looks in the whole image.
fn looks(path: &str, layers: &[LayerItem], roots: &[OwnedFd]) -> Looks {
    for (layer, root) in layers.iter().zip(roots).rev() {
        match open(root, path) {
            Err(rustix::io::Errno::NOENT) => {}
            // Deleted, or something else, in between: what lies below is another directory.
            Err(_) => break,
            Ok(_) if layer.implied.iter().any(|implied| implied == path) => {}
            Ok(_) => return looks_in(root, path).unwrap_or(PLAIN),
        }
    }
    PLAIN
}

fn looks_in(root: &OwnedFd, path: &str) -> Option<Looks> {
    let status = rustix::fs::fstat(open(root, path).ok()?).ok()?;
    let is_dir = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
    is_dir.then_some(Looks {
        mode: status.st_mode & 0o7777,
        uid: status.st_uid,
        gid: status.st_gid,
    })
}

fn set(directory: &OwnedFd, looks: Looks) -> Result<(), rustix::io::Errno> {
    let (uid, gid) = (Uid::from_raw(looks.uid), Gid::from_raw(looks.gid));
    rustix::fs::fchown(directory, Some(uid), Some(gid))?;
    rustix::fs::fchmod(directory, Mode::from_raw_mode(looks.mode))
}

fn open_root(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|errno| local(path.display())(errno.into()))
}

fn open(root: &OwnedFd, path: &str) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), within)
}
