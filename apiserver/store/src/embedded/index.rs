//! Which versions each key has, in memory; the values stay in the log.
//!
//! It is rebuilt from the log when the store is opened. It costs about 150 bytes for a key of 60,
//! and makes a compare a look-up in memory instead of a read of the disk.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::ops::Bound;

use bytes::Bytes;

use crate::{Change, Revision, Version};

/// A version, and whether it deleted the key; both in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp(u64);

impl Stamp {
    fn new(version: Version, deleted: bool) -> Stamp {
        Stamp(version.0 << 1 | u64::from(deleted))
    }
    fn version(self) -> Version {
        Version(self.0 >> 1)
    }
    fn alive(self) -> Option<Version> {
        (self.0 & 1 == 0).then(|| self.version())
    }
}

#[derive(Debug)]
struct History {
    newest: Stamp,
    /// Oldest first; empty for most keys, and then without memory of its own.
    older: VecDeque<Stamp>,
}

impl History {
    fn at(&self, at: Revision) -> Option<Version> {
        if self.newest.version().revision() <= at {
            return self.newest.alive();
        }
        let later = self.older.partition_point(|stamp| stamp.version().revision() <= at);
        self.older.get(later.checked_sub(1)?)?.alive()
    }
}

/// A version that nobody reading at revision `since` or later can see.
#[derive(Debug)]
struct Superseded {
    since: Revision,
    version: Version,
    key: Bytes,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    keys: BTreeMap<Bytes, History>,
    /// In the order of `since`, so that compaction never has to look at all keys.
    superseded: VecDeque<Superseded>,
}

/// Part of a walk over the keys.
pub(super) struct Walked {
    pub(super) versions: Vec<Version>,
    /// Where the next part begins: after this key. `None` when the walk is over.
    pub(super) rest_after: Option<Bytes>,
}

impl Index {
    /// Takes the changes of the log, in its order.
    pub(super) fn apply(&mut self, change: &Change) {
        let stamp = Stamp::new(change.version, change.value.is_none());
        let since = change.version.revision();
        let deleted = change.value.is_none();
        // A copy, so that the index does not keep a whole request or log block alive.
        match self.keys.entry(Bytes::copy_from_slice(&change.key)) {
            Entry::Occupied(mut entry) => {
                let previous = entry.get().newest;
                // A deletion has been put on the list when it happened.
                let superseded = previous.alive().into_iter();
                for version in superseded.chain(deleted.then_some(change.version)) {
                    // All that is kept of a key shares one copy of it; most have none but this.
                    let key = entry.key().clone();
                    self.superseded.push_back(Superseded { since, version, key });
                }
                let history = entry.get_mut();
                history.newest = stamp;
                history.older.push_back(previous);
            }
            Entry::Vacant(entry) => {
                if deleted {
                    let (version, key) = (change.version, entry.key().clone());
                    self.superseded.push_back(Superseded { since, version, key });
                }
                entry.insert(History { newest: stamp, older: VecDeque::new() });
            }
        }
    }

    /// The newest version, if the key exists.
    pub(super) fn newest(&self, key: &[u8]) -> Option<Version> {
        self.keys.get(key)?.newest.alive()
    }

    pub(super) fn at(&self, key: &[u8], at: Revision) -> Option<Version> {
        self.keys.get(key)?.at(at)
    }

    /// The versions of at most `limit` keys that exist at `at`, having looked at no more than
    /// `steps` keys: so that nobody holds the index for long.
    pub(super) fn walk(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        at: Revision,
        limit: usize,
        steps: usize,
    ) -> Walked {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut versions = Vec::new();
        let mut last = None;
        let keys = self.keys.range::<[u8], _>((start, Bound::Unbounded));
        for (step, (key, history)) in keys.enumerate() {
            if !key.starts_with(prefix) {
                return Walked { versions, rest_after: None };
            }
            if step == steps || versions.len() == limit {
                return Walked { versions, rest_after: last };
            }
            versions.extend(history.at(at));
            last = Some(key.clone());
        }
        Walked { versions, rest_after: None }
    }

    /// The revision to compact to, so that half of the superseded versions can be forgotten, if
    /// there are more than `max`.
    pub(super) fn overgrown(&self, max: usize) -> Option<Revision> {
        (self.superseded.len() > max).then(|| self.superseded[self.superseded.len() / 2].since)
    }

    /// Forgets at most `limit` versions that no read at `oldest` or later needs, and says which.
    pub(super) fn forget(&mut self, oldest: Revision, limit: usize) -> Vec<Version> {
        let mut forgotten = Vec::new();
        while forgotten.len() < limit
            && self.superseded.front().is_some_and(|next| next.since <= oldest)
        {
            let Some(next) = self.superseded.pop_front() else {
                break;
            };
            forgotten.push(next.version);
            let Entry::Occupied(mut entry) = self.keys.entry(next.key) else {
                continue;
            };
            let history = entry.get_mut();
            if history.newest.version() == next.version {
                entry.remove();
            } else if history.older.front().is_some_and(|s| s.version() == next.version) {
                history.older.pop_front();
            }
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn change(key: &str, revision: u64, alive: bool) -> Change {
        Change {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: alive.then(Bytes::new),
            version: Version::new(Revision(revision), 0),
        }
    }

    #[test]
    fn history_answers_for_every_revision() {
        let mut index = Index::default();
        index.apply(&change("a", 1, true));
        index.apply(&change("a", 3, false));
        index.apply(&change("a", 5, true));
        let seen: Vec<_> = (0..7).map(|at| index.at(b"a", Revision(at)).is_some()).collect();
        assert_eq!(seen, [false, true, true, false, false, true, true]);
        assert_eq!(index.newest(b"a").unwrap().revision(), Revision(5));
    }

    #[test]
    fn forgetting_keeps_what_the_oldest_readable_revision_sees() {
        let mut index = Index::default();
        index.apply(&change("a", 1, true));
        index.apply(&change("a", 2, true));
        index.apply(&change("b", 3, true));
        index.apply(&change("b", 4, false));
        index.apply(&change("a", 5, true));
        let forgotten: Vec<_> =
            index.forget(Revision(4), 10).iter().map(|v| v.revision().0).collect();
        assert_eq!(forgotten, [1, 3, 4]);
        assert_eq!(index.at(b"a", Revision(4)).unwrap().revision(), Revision(2));
        assert_eq!(index.at(b"b", Revision(9)), None);
        assert_eq!(index.keys.len(), 1);
        assert!(index.forget(Revision(4), 10).is_empty());
    }

    #[test]
    fn a_walk_goes_on_where_it_stopped() {
        let mut index = Index::default();
        for (revision, key) in ["a", "p/1", "p/2", "p/3", "q"].iter().enumerate() {
            index.apply(&change(key, revision as u64 + 1, true));
        }
        let first = index.walk(b"p/", None, Revision(9), usize::MAX, 2);
        assert_eq!(first.versions.len(), 2);
        let rest = index.walk(b"p/", first.rest_after.as_deref(), Revision(9), usize::MAX, 2);
        assert_eq!(rest.versions.len(), 1);
        assert_eq!(rest.rest_after, None);
        assert_eq!(index.walk(b"p/", None, Revision(2), 9, 9).versions.len(), 1);
    }
}
