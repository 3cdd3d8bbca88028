//! Which kinds the cache holds now. A table never changes: a kind that comes or goes makes a new one.

use std::collections::HashMap;
use std::sync::Arc;

use super::resource::ResourceCache;

#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) resources: Vec<Arc<ResourceCache>>,
    /// `/group/resource/` of each resource to its number.
    prefixes: HashMap<Box<str>, usize>,
}

impl Table {
    pub(super) fn new(resources: Vec<Arc<ResourceCache>>) -> Table {
        let numbered = resources.iter().enumerate();
        let prefixes = numbered
            .map(|(number, resource)| (resource.def().key_prefix().into_boxed_str(), number))
            .collect();
        Table { resources, prefixes }
    }

    /// This table with `resource` in the place of the one with the same prefix, or beside them all.
    pub(super) fn with(&self, resource: Arc<ResourceCache>) -> Table {
        let prefix = resource.def().key_prefix();
        let others = self.resources.iter().filter(|other| other.def().key_prefix() != prefix);
        Table::new(others.cloned().chain([resource]).collect())
    }

    pub(super) fn without(&self, prefix: &str) -> Table {
        let others = self.resources.iter().filter(|other| other.def().key_prefix() != prefix);
        Table::new(others.cloned().collect())
    }

    pub(super) fn get(&self, prefix: &str) -> Option<&Arc<ResourceCache>> {
        self.prefixes.get(prefix).map(|number| &self.resources[*number])
    }

    /// The number of a key's resource, and the object's path.
    pub(super) fn locate<'k>(&self, key: &'k [u8]) -> Option<(usize, &'k str)> {
        let key = std::str::from_utf8(key).ok()?;
        let group_end = 1 + key.get(1..)?.find('/')?;
        let resource_end = group_end + 1 + key[group_end + 1..].find('/')?;
        let (prefix, path) = key.split_at(resource_end + 1);
        Some((*self.prefixes.get(prefix)?, path))
    }
}
