//! Garbage collection: images that nobody runs go by disk pressure, the one used longest ago first, and by age.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{ITEM, Store, entries};
use crate::digest::Digest;
use crate::error::{Error, local};

/// When images go that nobody runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Watermarks {
    /// Above this share of the disk collection begins. Kubernetes' kubelet: 0.85.
    pub high: f64,
    /// It goes on until the disk is below this. Kubernetes' kubelet: 0.80.
    pub low: f64,
    /// What was used within this time stays even so.
    pub keep: Duration,
    /// What was not used for this long goes even with room to spare.
    pub max_age: Duration,
}

impl Default for Watermarks {
    fn default() -> Watermarks {
        Watermarks {
            high: 0.85,
            low: 0.80,
            keep: Duration::from_secs(120),
            max_age: Duration::from_secs(14 * 24 * 3600),
        }
    }
}

/// What a collection removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Images, by the digest of their manifest.
    pub images: Vec<Digest>,
    /// How many layers went with them.
    pub layers: usize,
    /// Bytes of those layers.
    pub bytes: u64,
}

impl Store {
    /// Removes what may go. `used` images and `busy` layers stay; `full` says how full the disk is, 0 to 1.
    pub(crate) fn collect(
        &self,
        used: &HashSet<Digest>,
        busy: &HashSet<Digest>,
        marks: &Watermarks,
        full: impl Fn() -> Result<f64, Error>,
    ) -> Result<Collected, Error> {
        let now = SystemTime::now();
        let mut idle = Vec::new();
        for image in self.images()? {
            let unused = self.unused_for(&self.image_path(&image.digest).join(ITEM), now);
            if !used.contains(&image.digest) && unused >= marks.keep {
                idle.push((unused, image.digest));
            }
        }
        // Those used longest ago first.
        idle.sort_by_key(|(unused, _)| std::cmp::Reverse(*unused));
        let pressed = full()? > marks.high;
        let mut done = Collected::default();
        for (unused, digest) in idle {
            let wanted = pressed && full()? > marks.low;
            if unused < marks.max_age && !wanted {
                continue;
            }
            let path = self.image_path(&digest);
            self.remove(&path).map_err(local(path.display()))?;
            done.images.push(digest);
            // After each image, so that no more go than must.
            self.collect_layers(busy, marks, now, &mut done)?;
        }
        if pressed {
            self.collect_layers(busy, marks, now, &mut done)?;
        }
        self.forget_names()?;
        Ok(done)
    }

    /// Layers that no image has.
    fn collect_layers(
        &self,
        busy: &HashSet<Digest>,
        marks: &Watermarks,
        now: SystemTime,
        done: &mut Collected,
    ) -> Result<(), Error> {
        let images = self.images()?;
        let wanted: HashSet<&Digest> = images.iter().flat_map(|image| &image.layers).collect();
        for path in entries(&self.root.join("layers"))? {
            let Ok(layer) = super::read_json::<super::LayerItem>(&path.join(ITEM)) else {
                continue;
            };
            // One that has just come may be of an image that is still being pulled.
            let young = self.unused_for(&path.join(ITEM), now) < marks.keep;
            if wanted.contains(&layer.diff_id) || busy.contains(&layer.diff_id) || young {
                continue;
            }
            self.remove(&path).map_err(local(path.display()))?;
            done.layers += 1;
            done.bytes += layer.bytes;
        }
        Ok(())
    }

    fn forget_names(&self) -> Result<(), Error> {
        for path in entries(&self.root.join("names"))? {
            let name: Option<super::NameItem> = super::read_json(&path).ok();
            if name.is_none_or(|name| self.image(&name.digest).is_none()) {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    fn unused_for(&self, item: &Path, now: SystemTime) -> Duration {
        let modified = fs::metadata(item).and_then(|meta| meta.modified());
        modified.ok().and_then(|time| now.duration_since(time).ok()).unwrap_or_default()
    }

    /// The share of the store's file system that is in use, as an ordinary user sees it.
    pub(crate) fn disk_used(&self) -> Result<f64, Error> {
        let stat = rustix::fs::statvfs(&self.root)
            .map_err(|errno| local(self.root.display())(errno.into()))?;
        if stat.f_blocks == 0 {
            return Ok(0.0);
        }
        let used = stat.f_blocks - stat.f_bfree;
        Ok(used as f64 / (used + stat.f_bavail).max(1) as f64)
    }

    /// Bytes that are free.
    pub(crate) fn disk_free(&self) -> Result<u64, Error> {
        let stat = rustix::fs::statvfs(&self.root)
            .map_err(|errno| local(self.root.display())(errno.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
