//! The objects of a kind, in order, and by the value of its trigger field.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use imbl::OrdMap;

use super::selection::Selection;
use crate::object::{Fields, Object};
use crate::resource::ResourceDef;

/// All objects of a kind in the order of their paths, at some version.
pub(crate) type Objects = OrdMap<Arc<str>, Arc<Object>>;

/// The selectable field that most watches of a kind name exactly.
#[derive(Clone, Debug)]
pub(super) struct Trigger {
    pub(super) field: String,
    position: usize,
}

impl Trigger {
    pub(super) fn of(def: &ResourceDef, fields: &Fields) -> Option<Trigger> {
        let field = def.trigger_field.clone()?;
        let position = fields.position(&field)?;
        Some(Trigger { field, position })
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
    trigger: Option<Trigger>,
    /// Only values that are not empty: those select few objects.
    by_trigger: HashMap<Box<str>, BTreeMap<Arc<str>, Arc<Object>>>,
}

impl Contents {
    pub(super) fn new(namespaced: bool, trigger: Option<Trigger>, objects: Objects) -> Contents {
        let mut contents = Contents { namespaced, trigger, ..Contents::default() };
        objects.values().for_each(|object| contents.index(object));
        contents.all = objects;
        contents
    }

    pub(super) fn all(&self) -> &Objects {
        &self.all
    }

    pub(super) fn insert(&mut self, path: Arc<str>, object: Arc<Object>) {
        self.index(&object);
        let Some(previous) = self.all.insert(path, object.clone()) else { return };
        let Some(trigger) = &self.trigger else { return };
        if trigger.value(&previous) != trigger.value(&object) {
            self.unindex(&previous);
        }
    }

    pub(super) fn remove(&mut self, path: &str) {
        if let Some(previous) = self.all.remove(path) {
            self.unindex(&previous);
        }
    }

    /// A superset of what is selected, as small as is cheap to make, in which paging and
    /// filtering work as in everything. Equal scopes (see [`Contents::scope`]) give equal sets.
    pub(super) fn select(&self, selection: &Selection) -> Objects {
        if let Some(path) = self.exact_path(selection) {
            let found = self.all.get_key_value(path.as_str());
            return found
                .map(|(path, object)| (path.clone(), object.clone()))
                .into_iter()
                .collect();
        }
        match self.trigger_value(selection) {
            Some(value) => self
                .by_trigger
                .get(value)
                .into_iter()
                .flatten()
                .map(|(path, object)| (path.clone(), object.clone()))
                .collect(),
            None => self.all.clone(),
        }
    }

    /// Names the set that [`Contents::select`] returns.
    pub(super) fn scope(&self, selection: &Selection) -> String {
        match (self.exact_path(selection), self.trigger_value(selection)) {
            (Some(path), _) => format!("path {path}"),
            (None, Some(value)) => format!("trigger {value}"),
            (None, None) => String::new(),
        }
    }

    fn trigger_value<'s>(&self, selection: &'s Selection) -> Option<&'s str> {
        selection.exact(&self.trigger.as_ref()?.field).filter(|value| !value.is_empty())
    }

    fn index(&mut self, object: &Arc<Object>) {
        let Some(trigger) = &self.trigger else { return };
        let value = trigger.value(object);
        if value.is_empty() {
            return;
        }
        if !self.by_trigger.contains_key(value) {
            self.by_trigger.insert(value.into(), BTreeMap::new());
        }
        if let Some(group) = self.by_trigger.get_mut(value) {
            group.insert(object.shared_path(), object.clone());
        }
    }

    fn unindex(&mut self, object: &Object) {
        let Some(trigger) = &self.trigger else { return };
        let value = trigger.value(object);
        let Some(group) = self.by_trigger.get_mut(value) else { return };
        group.remove(object.path());
        if group.is_empty() {
            self.by_trigger.remove(value);
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
