//! The index of a change within its revision.
//!
//! A put knows its index before it is sent: its place among all operations of the request, whether
//! those land or not. It travels as the last byte of the value. A delete leaves no value; its index
//! is one more than that of the change before it, which is never more than its own place. So the
//! committer, who sees which operations landed, and a tail, who sees the changes, count alike.

use bytes::Bytes;

use crate::{NO_CHANGE_INDEX, Revision, Version};

/// The value as it lies in etcd.
pub(super) fn join(value: &[u8], index: u8) -> Vec<u8> {
    let mut stored = Vec::with_capacity(value.len() + 1);
    stored.extend_from_slice(value);
    stored.push(index);
    stored
}

/// A value from etcd, and its index. Somebody else's empty value counts as index 0.
pub(super) fn separate(stored: Vec<u8>) -> (Bytes, u64) {
    let index = stored.last().copied().unwrap_or_default();
    let mut value = Bytes::from(stored);
    value.truncate(value.len().saturating_sub(1));
    (value, u64::from(index))
}

/// Counts the changes of one revision, in their order.
#[derive(Debug)]
pub(super) struct Numbering {
    revision: Revision,
    last: Option<u64>,
}

impl Numbering {
    pub(super) fn of(revision: Revision) -> Numbering {
        Numbering { revision, last: None }
    }

    pub(super) fn put(&mut self, index: u64) -> Version {
        self.last = Some(index);
        Version::new(self.revision, index)
    }

    pub(super) fn delete(&mut self) -> Version {
        self.put(self.last.map_or(0, |last| last + 1))
    }

    /// For a delete that found nothing.
    pub(super) fn nothing(&self) -> Version {
        Version::new(self.revision, NO_CHANGE_INDEX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_with_its_index() {
        assert_eq!(separate(join(b"{}", 200)), (Bytes::from_static(b"{}"), 200));
        assert_eq!(separate(join(b"", 0)), (Bytes::new(), 0));
        assert_eq!(separate(Vec::new()), (Bytes::new(), 0));
    }
}
