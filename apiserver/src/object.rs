//! One stored object as the cache holds it: the bytes that clients get, and the few values that
//! selecting and dispatching need.
//!
//! An [`Object`] never changes; a new version is a new one. Nothing here parses `spec` or `status`
//! into a tree: the body is raw JSON with `metadata.resourceVersion` spliced in once.

use bytes::Bytes;
use commonage_store::Version;

/// A version of an object. Shared behind an `Arc` by the cache, snapshots, the event log, watchers.
#[derive(Debug)]
pub struct Object {
    /// `namespace/name`; `/name` for cluster-scoped kinds. Orders like the store's keys do.
    path: Box<str>,
    namespace_length: usize,
    pub uid: Box<str>,
    /// Zero for the answer of a dry run, which has no version.
    pub version: Version,
    /// The whole object as JSON, `metadata.resourceVersion` included.
    pub body: Bytes,
    /// Sorted by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// Values of the definition's selectable fields, in its order; `None` where absent.
    pub fields: Box<[Option<Box<str>>]>,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
}

impl Object {
    /// Empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        &self.path[..self.namespace_length]
    }

    pub fn name(&self) -> &str {
        &self.path[self.namespace_length + 1..]
    }

    /// `namespace/name`, the order of lists.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.labels[at].1)
    }
}
