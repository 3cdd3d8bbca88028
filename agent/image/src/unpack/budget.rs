//! How much an image may still unpack.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::Limits;

/// What all layers of one image together may still take.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: AtomicU64,
    inodes: AtomicU64,
    limits: Limits,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Budget {
        Budget {
            bytes: AtomicU64::new(limits.unpacked_bytes),
            inodes: AtomicU64::new(limits.inodes),
            limits: limits.clone(),
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn take_bytes(&self, bytes: u64) -> bool {
        take(&self.bytes, bytes)
    }

    pub(super) fn take_inode(&self) -> bool {
        take(&self.inodes, 1)
    }
}

fn take(left: &AtomicU64, amount: u64) -> bool {
    let less = |left: u64| left.checked_sub(amount);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
}
