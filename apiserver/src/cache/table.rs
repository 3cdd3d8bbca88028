//! Which kinds the cache holds now. A table never changes: a kind that comes or goes makes a new one.

use std::collections::HashMap;
use std::sync::Arc;

use super::resource::ResourceCache;
use crate::resource::ResourceDef;

#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) resources: Vec<Arc<ResourceCache>>,
    /// Its number by the two parts of a resource's prefix, `/group/resource/`.
    numbers: HashMap<Box<str>, HashMap<Box<str>, usize>>,
}

impl Table {
    pub(super) fn new(resources: Vec<Arc<ResourceCache>>) -> Table {
        let mut numbers: HashMap<Box<str>, HashMap<Box<str>, usize>> = HashMap::new();
        for (number, resource) in resources.iter().enumerate() {
            let (group, plural) = resource.def().key_parts();
            numbers.entry(group.into()).or_default().insert(plural.into(), number);
        }
        Table { resources, numbers }
    }

    /// This table with `resource` in the place of the one with the same prefix, or beside them all.
    pub(super) fn with(&self, resource: Arc<ResourceCache>) -> Table {
        let mut all = self.without(resource.def()).resources;
        all.push(resource);
        Table::new(all)
    }

    pub(super) fn without(&self, def: &ResourceDef) -> Table {
        let others =
            self.resources.iter().filter(|other| other.def().key_parts() != def.key_parts());
        Table::new(others.cloned().collect())
    }

    pub(super) fn get(&self, def: &ResourceDef) -> Option<&Arc<ResourceCache>> {
        let (group, plural) = def.key_parts();
        self.numbers.get(group)?.get(plural).map(|number| &self.resources[*number])
    }

    /// The number of a key's resource, and the object's path.
    pub(super) fn locate<'k>(&self, key: &'k [u8]) -> Option<(usize, &'k str)> {
        let key = std::str::from_utf8(key).ok()?;
        let group_end = 1 + key.get(1..)?.find('/')?;
        let resource_end = group_end + 1 + key[group_end + 1..].find('/')?;
        let (group, resource) = (&key[1..group_end], &key[group_end + 1..resource_end]);
        Some((*self.numbers.get(group)?.get(resource)?, &key[resource_end + 1..]))
    }
}
