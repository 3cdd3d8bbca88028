//! What the store has under the keys of a kind and nobody can read: damaged, encrypted with a key
//! that is not at hand, or written by somebody else.
//!
//! It is left out of lists and watches, which go on without it. Whoever asks for it by name is told
//! why it can't be had, and may delete it.

use std::collections::BTreeMap;

use commonage_store::Version;
use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(super) struct Unreadable {
    by_path: Mutex<BTreeMap<Box<str>, (Version, String)>>,
}

impl Unreadable {
    pub(super) fn add(&self, path: &str, version: Version, why: String) {
        tracing::error!(
            path,
            version = version.0,
            why,
            "an object of the store can't be read; left out"
        );
        self.by_path.lock().insert(path.into(), (version, why));
    }

    /// It was written anew, or deleted.
    pub(super) fn remove(&self, path: &str) {
        let mut by_path = self.by_path.lock();
        if !by_path.is_empty() {
            by_path.remove(path);
        }
    }

    pub(super) fn clear(&self) {
        self.by_path.lock().clear();
    }

    pub(super) fn get(&self, path: &str) -> Option<(Version, String)> {
        self.by_path.lock().get(path).cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.by_path.lock().len()
    }
}
