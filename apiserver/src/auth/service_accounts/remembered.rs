//! Tokens whose signatures were verified, by their digests.

use std::collections::HashMap;
use std::sync::Arc;

use super::Verified;

/// Tokens remembered, about 1 KiB each: twice this many at most.
const REMEMBERED_MAX: usize = 8192;

/// A memory that forgets what nobody asked for while it filled up twice.
#[derive(Default)]
pub(super) struct Generations {
    young: HashMap<[u8; 32], Arc<Verified>>,
    old: HashMap<[u8; 32], Arc<Verified>>,
}

impl Generations {
    pub(super) fn get(&mut self, digest: &[u8; 32]) -> Option<Arc<Verified>> {
        if let Some(found) = self.young.get(digest) {
            return Some(found.clone());
        }
        let found = self.old.remove(digest)?;
        self.insert(*digest, found.clone());
        Some(found)
    }

    pub(super) fn insert(&mut self, digest: [u8; 32], verified: Arc<Verified>) {
        if self.young.len() >= REMEMBERED_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, verified);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Holder;
    use super::*;

    #[test]
    fn memory_is_bounded_and_keeps_what_is_used() {
        let verified = Arc::new(Verified {
            user: Arc::default(),
            audiences: Vec::new(),
            namespace: String::new(),
            holder: Holder::Account,
            name: String::new(),
            not_before_s: 0,
            expires_s: 0,
            bound: None,
        });
        let mut memory = Generations::default();
        let digest = |number: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&number.to_le_bytes());
            digest
        };
        for number in 0..5 * REMEMBERED_MAX {
            memory.insert(digest(number), verified.clone());
            assert!(memory.get(&digest(0)).is_some());
        }
        assert!(memory.young.len() + memory.old.len() <= 2 * REMEMBERED_MAX + 1);
        assert!(memory.get(&digest(1)).is_none());
    }
}
