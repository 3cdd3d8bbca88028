//! The objects of a kind, in order, and by the values of its trigger fields.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use imbl::OrdMap;

use super::selection::Selection;
use crate::object::{Fields, Object};
use crate::resource::ResourceDef;

/// All objects of a kind in the order of their paths, at some version.
pub(crate) type Objects = OrdMap<Arc<str>, Arc<Object>>;

/// Of a group that is more than so much of everything no set is made: to look through everything costs
/// less. One in so many.
const LARGE_GROUP_ONE_IN: usize = 4;

/// A selectable field that many watches and lists of a kind name exactly.
#[derive(Clone, Debug)]
pub(super) struct Trigger {
    pub(super) field: String,
    position: usize,
}

impl Trigger {
    pub(super) fn all_of(def: &ResourceDef, fields: &Fields) -> Arc<[Trigger]> {
        let trigger = |field: &String| {
            Some(Trigger { field: field.clone(), position: fields.position(field)? })
        };
        def.trigger_fields.iter().filter_map(trigger).collect()
    }

    /// The first trigger that a selection names, its number and the value that it wants.
    pub(super) fn named_by<'s>(
        triggers: &[Trigger],
        selection: &'s Selection,
    ) -> Option<(usize, &'s str)> {
        let mut values = triggers.iter().map(|trigger| selection.exact(&trigger.field)).enumerate();
        values.find_map(|(number, value)| Some((number, value?)))
    }

    /// Absent is empty, as selectors have it.
    pub(super) fn value<'o>(&self, object: &'o Object) -> &'o str {
        object.fields[self.position].as_deref().unwrap_or("")
    }
}

#[derive(Debug, Default)]
pub(super) struct Contents {
    all: Objects,
    namespaced: bool,
    triggers: Arc<[Trigger]>,
    /// For each trigger. Only values that are not empty: those select few objects.
    by_trigger: Vec<HashMap<Box<str>, Group>>,
}

type Group = BTreeMap<Arc<str>, Arc<Object>>;

impl Contents {
    pub(super) fn new(namespaced: bool, triggers: Arc<[Trigger]>, objects: Objects) -> Contents {
        let by_trigger = triggers.iter().map(|_| HashMap::new()).collect();
        let mut contents = Contents { namespaced, triggers, by_trigger, ..Contents::default() };
        objects.values().for_each(|object| contents.index(object, None));
        contents.all = objects;
        contents
    }

    pub(super) fn all(&self) -> &Objects {
        &self.all
    }

    pub(super) fn insert(&mut self, path: Arc<str>, object: Arc<Object>) {
        let previous = self.all.insert(path, object.clone());
        self.index(&object, previous.as_deref());
    }

    pub(super) fn remove(&mut self, path: &str) {
        if let Some(previous) = self.all.remove(path) {
            self.unindex(&previous, None);
        }
    }

    /// A superset of what is selected, as small as is cheap to make, in which paging and
    /// filtering work as in everything. Equal scopes (see [`Contents::scope`]) give sets that select
    /// the same.
    pub(super) fn select(&self, selection: &Selection) -> Objects {
        if let Some(path) = self.exact_path(selection) {
            let found = self.all.get_key_value(path.as_str());
            return found
                .map(|(path, object)| (path.clone(), object.clone()))
                .into_iter()
                .collect();
        }
        let Some((number, value)) = self.named(selection) else { return self.all.clone() };
        match self.by_trigger[number].get(value) {
            None => Objects::new(),
            Some(group) if group.len() > self.all.len() / LARGE_GROUP_ONE_IN => self.all.clone(),
            Some(group) => {
                group.iter().map(|(path, object)| (path.clone(), object.clone())).collect()
            }
        }
    }

    /// Names the group that [`Contents::select`] returns at least.
    pub(super) fn scope(&self, selection: &Selection) -> String {
        match (self.exact_path(selection), self.named(selection)) {
            (Some(path), _) => format!("path {path}"),
            (None, Some((number, value))) => format!("trigger {number} {value}"),
            (None, None) => String::new(),
        }
    }

    /// The group that a selection names.
    fn named<'s>(&self, selection: &'s Selection) -> Option<(usize, &'s str)> {
        Trigger::named_by(&self.triggers, selection).filter(|(_, value)| !value.is_empty())
    }

    /// Puts an object in the place of `previous`, its version before.
    fn index(&mut self, object: &Arc<Object>, previous: Option<&Object>) {
        for (trigger, groups) in self.triggers.iter().zip(&mut self.by_trigger) {
            let value = trigger.value(object);
            if value.is_empty() {
                continue;
            }
            match groups.get_mut(value) {
                Some(group) => drop(group.insert(object.shared_path(), object.clone())),
                None => {
                    let only = BTreeMap::from([(object.shared_path(), object.clone())]);
                    groups.insert(value.into(), only);
                }
            }
        }
        if let Some(previous) = previous {
            self.unindex(previous, Some(object));
        }
    }

    /// Takes an object out of the groups in which `now`, its next version, is not.
    fn unindex(&mut self, object: &Object, now: Option<&Object>) {
        for (trigger, groups) in self.triggers.iter().zip(&mut self.by_trigger) {
            let value = trigger.value(object);
            if now.is_some_and(|now| trigger.value(now) == value) {
                continue;
            }
            let Some(group) = groups.get_mut(value) else { continue };
            group.remove(object.path());
            if group.is_empty() {
                groups.remove(value);
            }
        }
    }

    /// The one object that a selection of a name can have. (One over all namespaces has to look at
    /// all names.)
    fn exact_path(&self, selection: &Selection) -> Option<String> {
        let name = selection.exact("metadata.name")?;
        let namespace = if self.namespaced { selection.namespace()? } else { "" };
        Some(format!("{namespace}/{name}"))
    }
}
