//! Values under small numbers: found by key once, by number ever after.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// A number that stands for a key as long as its value is in the table.
pub(crate) type Id = u32;

/// Keyed values in slots. Numbers of removed values are used again.
#[derive(Debug, Clone)]
pub(crate) struct Table<K, V> {
    ids: HashMap<K, Id>,
    slots: Vec<Option<V>>,
    free: Vec<Id>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { ids: HashMap::new(), slots: Vec::new(), free: Vec::new() }
    }
}

impl<K: Hash + Eq + Clone, V> Table<K, V> {
    pub(crate) fn id<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<Id>
    where
        K: Borrow<Q>,
    {
        self.ids.get(key).copied()
    }

    /// The number of `key`, whose value is made if it is not there.
    pub(crate) fn id_or_insert_with(&mut self, key: &K, make: impl FnOnce() -> V) -> Id {
        if let Some(id) = self.ids.get(key) {
            return *id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Id::try_from(self.slots.len() - 1).expect("fewer than 2^32 objects fit in memory")
        });
        self.slots[id as usize] = Some(make());
        self.ids.insert(key.clone(), id);
        id
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<(Id, V)> {
        let id = self.ids.remove(key)?;
        let value = self.slots[id as usize].take()?;
        self.free.push(id);
        Some((id, value))
    }

    pub(crate) fn get(&self, id: Id) -> Option<&V> {
        self.slots.get(id as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut V> {
        self.slots.get_mut(id as usize)?.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Id, &V)> {
        (0..).zip(&self.slots).filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Id, &mut V)> {
        (0..).zip(&mut self.slots).filter_map(|(id, slot)| Some((id, slot.as_mut()?)))
    }

    /// One more than the largest number in use.
    pub(crate) fn span(&self) -> usize {
        self.slots.len()
    }
}

impl<K, V> std::ops::Index<Id> for Table<K, V> {
    type Output = V;

    #[inline]
    fn index(&self, id: Id) -> &V {
        self.slots[id as usize].as_ref().expect("ids are dropped before their values are")
    }
}

impl<K, V> std::ops::IndexMut<Id> for Table<K, V> {
    #[inline]
    fn index_mut(&mut self, id: Id) -> &mut V {
        self.slots[id as usize].as_mut().expect("ids are dropped before their values are")
    }
}
