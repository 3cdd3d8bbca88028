//! Images on disk. Everything is put together below `tmp` and renamed into place whole.
//!
//! ```text
//! layers/<diff id>/t/           the content of one layer, as overlayfs stacks it; never changed again
//!                 /item.json    what it is
//!                 /durable      it has reached the disk
//! images/<manifest digest>/item.json   configuration, layers
//!                         /t/          corrections to directories that layers only imply
//! names/<digest of the name>    which image a name meant last, and who was shown it
//! tmp/                          emptied at start
//! ```
//!
//! A power cut may lose what had not reached the disk yet; flushing before the rename would make every pull wait
//! for the disk. So a directory counts if it is marked durable, or if the machine has not been started anew since
//! it was made; everything else is removed at start. Blocks: callers are on blocking threads.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::{Error, local};
use crate::reference::Reference;

mod collect;
mod fixup;

pub use collect::{Collected, Watermarks};

const TREE: &str = "t";
const ITEM: &str = "item.json";
const DURABLE: &str = "durable";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// One unpacked layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LayerItem {
    pub(crate) diff_id: Digest,
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    /// See [`crate::unpack::Unpacked::implied`].
    pub(crate) implied: Vec<String>,
    boot_id: String,
}

/// One image whose layers are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImageItem {
    pub(crate) digest: Digest,
    pub(crate) config: ImageConfig,
    /// Lowest first.
    pub(crate) layers: Vec<Digest>,
    pub(crate) bytes: u64,
    /// The image has a tree of its own, above its layers.
    pub(crate) fixed_up: bool,
    boot_id: String,
}

/// What a name meant when a registry was last asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NameItem {
    pub(crate) reference: String,
    pub(crate) digest: Digest,
    /// Fingerprints of the credentials with which the registry showed it.
    pub(crate) shown_to: HashSet<Digest>,
}

/// An image that is kept, for those who list them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Of its manifest.
    pub digest: Digest,
    /// The names under which it was pulled.
    pub names: Vec<String>,
    /// Unpacked; layers are shared between images.
    pub bytes: u64,
}

/// The directory of all that.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    boot_id: String,
    next_temporary: AtomicU64,
}

/// A directory below `tmp` that is removed unless it is put into place.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "left over until the next start");
        }
    }
}

impl Temporary {
    /// Where the content goes.
    pub(crate) fn tree(&self) -> PathBuf {
        self.path.join(TREE)
    }
}

impl Store {
    /// Opens the store, makes it when absent, and removes what an earlier process or a power cut left half done.
    pub(crate) fn open(root: &Path) -> Result<Store, Error> {
        let boot_id = fs::read_to_string(BOOT_ID).map_err(local(BOOT_ID))?;
        let store = Store {
            root: root.to_owned(),
            boot_id: boot_id.trim().to_owned(),
            next_temporary: AtomicU64::new(0),
        };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for part in ["layers", "images", "names", "tmp"] {
            let path = root.join(part);
            builder.create(&path).map_err(local(path.display()))?;
        }
        for left in entries(&root.join("tmp"))? {
            remove_tree(&left).map_err(local(left.display()))?;
        }
        for path in entries(&root.join("layers"))? {
            store.keep_or_remove(&path, |item: &LayerItem| {
                (item.diff_id.short(), item.boot_id.clone(), true)
            })?;
        }
        for path in entries(&root.join("images"))? {
            store.keep_or_remove(&path, |item: &ImageItem| {
                let whole = item.layers.iter().all(|layer| store.layer_path(layer).exists());
                (item.digest.short(), item.boot_id.clone(), whole)
            })?;
        }
        store.settle()?;
        Ok(store)
    }

    fn keep_or_remove<T: DeserializeOwned>(
        &self,
        path: &Path,
        read: impl Fn(&T) -> (String, String, bool),
    ) -> Result<(), Error> {
        let item: Option<T> = read_json(&path.join(ITEM)).ok();
        let good = item.is_some_and(|item| {
            let (name, boot_id, whole) = read(&item);
            let safe = path.join(DURABLE).exists() || boot_id == self.boot_id;
            whole && safe && path.file_name() == Some(OsStr::new(&name))
        });
        if good {
            return Ok(());
        }
        tracing::warn!(path = %path.display(), "not whole, removed");
        remove_tree(path).map_err(local(path.display()))
    }

    /// Waits until all that is there has reached the disk, and says so beside it.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        let mut pending = Vec::new();
        for part in ["layers", "images"] {
            let all = entries(&self.root.join(part))?;
            pending.extend(all.into_iter().filter(|path| !path.join(DURABLE).exists()));
        }
        if pending.is_empty() {
            return Ok(());
        }
        let root = File::open(&self.root).map_err(local(self.root.display()))?;
        rustix::fs::syncfs(&root).map_err(|e| local("flush the images")(e.into()))?;
        for path in pending {
            // Collected in the meantime.
            let _ = File::create(path.join(DURABLE));
        }
        Ok(())
    }

    fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.short())
    }

    fn image_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("images").join(digest.short())
    }

    fn name_path(&self, reference: &Reference) -> PathBuf {
        self.root.join("names").join(Digest::of(reference.to_string().as_bytes()).hex())
    }

    /// A layer that is there.
    pub(crate) fn layer(&self, diff_id: &Digest) -> Option<LayerItem> {
        let item: LayerItem = read_json(&self.layer_path(diff_id).join(ITEM)).ok()?;
        (item.diff_id == *diff_id).then_some(item)
    }

    /// An image that is there.
    pub(crate) fn image(&self, digest: &Digest) -> Option<ImageItem> {
        let item: ImageItem = read_json(&self.image_path(digest).join(ITEM)).ok()?;
        (item.digest == *digest).then_some(item)
    }

    pub(crate) fn images(&self) -> Result<Vec<ImageItem>, Error> {
        let all = entries(&self.root.join("images"))?;
        Ok(all.iter().filter_map(|path| read_json(&path.join(ITEM)).ok()).collect())
    }

    pub(crate) fn names(&self) -> Result<Vec<NameItem>, Error> {
        let all = entries(&self.root.join("names"))?;
        Ok(all.iter().filter_map(|path| read_json(path).ok()).collect())
    }

    /// What overlayfs stacks for an image, uppermost first.
    pub(crate) fn trees(&self, image: &ImageItem) -> Vec<PathBuf> {
        let fixed = image.fixed_up.then(|| self.image_path(&image.digest).join(TREE));
        let layers = image.layers.iter().rev().map(|layer| self.layer_path(layer).join(TREE));
        // Overlayfs takes a directory once; what lies below its own copy shows nothing that the copy does not.
        let mut seen = HashSet::new();
        fixed.into_iter().chain(layers).filter(|tree| seen.insert(tree.clone())).collect()
    }

    pub(crate) fn temporary(&self) -> Result<Temporary, Error> {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("tmp").join(number.to_string());
        fs::DirBuilder::new().mode(0o755).create(&path).map_err(local(path.display()))?;
        Ok(Temporary { path })
    }

    /// Puts an unpacked layer into place. Somebody else may have been faster; then theirs stays.
    pub(crate) fn commit_layer(
        &self,
        temporary: Temporary,
        diff_id: Digest,
        unpacked: crate::unpack::Unpacked,
    ) -> Result<LayerItem, Error> {
        let item = LayerItem {
            diff_id,
            bytes: unpacked.bytes,
            inodes: unpacked.inodes,
            implied: unpacked.implied,
            boot_id: self.boot_id.clone(),
        };
        self.commit(&temporary, &item, &self.layer_path(&diff_id))?;
        Ok(item)
    }

    /// Notes that all layers of an image are there, with the corrections that they need.
    pub(crate) fn commit_image(
        &self,
        digest: Digest,
        config: ImageConfig,
        layers: &[LayerItem],
    ) -> Result<ImageItem, Error> {
        let temporary = self.temporary()?;
        let trees: Vec<PathBuf> =
            layers.iter().map(|layer| self.layer_path(&layer.diff_id).join(TREE)).collect();
        let item = ImageItem {
            digest,
            config,
            layers: layers.iter().map(|layer| layer.diff_id).collect(),
            bytes: layers.iter().map(|layer| layer.bytes).sum(),
            fixed_up: fixup::build(&temporary.tree(), layers, &trees)?,
            boot_id: self.boot_id.clone(),
        };
        self.commit(&temporary, &item, &self.image_path(&digest))?;
        Ok(item)
    }

    fn commit(&self, new: &Temporary, item: &impl Serialize, place: &Path) -> Result<(), Error> {
        write_json(&new.path.join(ITEM), item)?;
        match fs::rename(&new.path, place) {
            Err(error) if is_there(&error) => Ok(()),
            renamed => renamed.map_err(local(place.display())),
        }
    }

    /// Notes what a name means now, and that whoever has these credentials was shown it.
    pub(crate) fn note_name(
        &self,
        reference: &Reference,
        digest: Digest,
        fingerprint: Digest,
    ) -> Result<(), Error> {
        let known = self.name(reference).filter(|item| item.digest == digest);
        let mut item = known.clone().unwrap_or_else(|| NameItem {
            reference: reference.to_string(),
            digest,
            shown_to: HashSet::new(),
        });
        if !item.shown_to.insert(fingerprint) && known.is_some() {
            return Ok(());
        }
        let path = self.name_path(reference);
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = self.root.join("tmp").join(format!("name-{number}"));
        write_json(&temporary, &item)?;
        fs::rename(&temporary, &path).map_err(local(path.display()))
    }

    pub(crate) fn name(&self, reference: &Reference) -> Option<NameItem> {
        read_json(&self.name_path(reference)).ok()
    }

    /// Notes that an image is used now: the time of its record.
    pub(crate) fn touch(&self, digest: &Digest) {
        let now = std::time::SystemTime::now();
        let file = File::options().append(true).open(self.image_path(digest).join(ITEM));
        if let Err(error) = file.and_then(|file| file.set_modified(now)) {
            tracing::debug!(%digest, %error, "the time of an image's use can't be noted");
        }
    }

    /// Takes something out of its place at once, and then removes it.
    fn remove(&self, path: &Path) -> io::Result<()> {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let away = self.root.join("tmp").join(number.to_string());
        fs::rename(path, &away)?;
        remove_tree(&away)
    }
}

fn is_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let listing = fs::read_dir(directory).map_err(local(directory.display()))?;
    listing.map(|entry| Ok(entry.map_err(local(directory.display()))?.path())).collect()
}

fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn write_json(path: &Path, item: &impl Serialize) -> Result<(), Error> {
    let json = serde_json::to_vec(item).map_err(|error| Error::Local(error.to_string()))?;
    fs::write(path, json).map_err(local(path.display()))
}

#[cfg(test)]
mod tests;
