//! Entries as they are stored: text, of which no more is read than a write needs.
//!
//! Most writes are of managers that have written the same fields before: of all that the entries say
//! only one time changes. The sets of fields of a kind are few, whatever the number of its objects:
//! each is read once and found again by its text.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::UPDATE_ENTRIES_MAX;
use crate::entries::Writer;
use crate::fields::{self, Node};
use crate::form;
use crate::types::{Type, Types};
use crate::walk::{self, Delta, compare_owned};

/// Sets of fields that are remembered, for each kind. Beyond that all are forgotten: a kind whose objects
/// have so many forms gains nothing by it.
const SETS_MAX: usize = 512;
/// Of longer texts the sets are not remembered: 512 of them are 8 MiB of text, and ten times that as trees.
const SET_BYTES_MAX: usize = 16 * 1024;

/// The entries are not as this server writes them, or too many: they have to be read as trees.
#[derive(Debug, PartialEq, Eq)]
pub struct Unusual;

/// As [`crate::record`], for a client that said nothing about the entries: `live` are those of the
/// object (`metadata.managedFields` as it stands in it), and what is returned is to take their place.
/// Neither `old` nor `new` has any.
///
/// # Errors
/// See [`Unusual`]; nothing was noted then.
pub fn record_text(
    types: &Types,
    ignored: &[&str],
    old: &Value,
    new: &Value,
    writer: &Writer<'_>,
    live: Option<&str>,
) -> Result<Option<String>, Unusual> {
    let Some(live) = live else { return Ok(None) };
    let stored: Vec<Stored<'_>> = serde_json::from_str(live).map_err(|_| Unusual)?;
    let mut entries = Vec::with_capacity(stored.len() + 1);
    for stored in stored {
        let text = stored.fields_v1.ok_or(Unusual)?.get();
        let set = types.sets.read(&types.root, text).ok_or(Unusual)?;
        entries.push(Entry { stored, set });
    }
    if entries.is_empty() {
        return Ok(None);
    }
    note(&mut entries, compare_owned(types, Some(old), new, ignored), writer, types);
    if entries.iter().filter(|entry| entry.text("operation") == "Update").count()
        > UPDATE_ENTRIES_MAX
    {
        return Err(Unusual);
    }
    entries.retain(|entry| !entry.set.node.is_empty());
    entries.sort_by(|a, b| a.order().cmp(&b.order()));
    Ok((!entries.is_empty()).then(|| print(&entries)))
}

/// As [`crate::record`], of a new object whose client said nothing about the entries: what is returned is to
/// be its `metadata.managedFields`. `None`: nothing of it is anybody's.
pub fn record_new_text(
    types: &Types,
    ignored: &[&str],
    new: &Value,
    writer: &Writer<'_>,
) -> Option<String> {
    let set = types.sets.of_new(types, ignored, new)?;
    let mut entry = Entry::new(writer, set);
    entry.stored.time = Some(writer.now.into());
    Some(print(&[entry]))
}

/// An entry in the form that this server gives it. One with other members is [`Unusual`].
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stored<'t> {
    #[serde(borrow)]
    api_version: Option<Cow<'t, str>>,
    #[serde(borrow)]
    fields_type: Option<Cow<'t, str>>,
    #[serde(borrow, rename = "fieldsV1")]
    fields_v1: Option<&'t RawValue>,
    #[serde(borrow)]
    manager: Option<Cow<'t, str>>,
    #[serde(borrow)]
    operation: Option<Cow<'t, str>>,
    #[serde(borrow)]
    subresource: Option<Cow<'t, str>>,
    #[serde(borrow)]
    time: Option<Cow<'t, str>>,
}

struct Entry<'t> {
    stored: Stored<'t>,
    set: Arc<Set>,
}

impl<'t> Entry<'t> {
    fn new(writer: &Writer<'t>, set: Arc<Set>) -> Entry<'t> {
        let subresource = Some(writer.subresource).filter(|name| !name.is_empty());
        let stored = Stored {
            api_version: Some(writer.api_version.into()),
            fields_type: Some("FieldsV1".into()),
            manager: Some(writer.manager.into()),
            operation: Some("Update".into()),
            subresource: subresource.map(Cow::from),
            ..Stored::default()
        };
        Entry { stored, set }
    }

    fn text(&self, member: &str) -> &str {
        let Stored { api_version, manager, operation, subresource, time, .. } = &self.stored;
        let found = match member {
            "apiVersion" => api_version,
            "manager" => manager,
            "operation" => operation,
            "subresource" => subresource,
            _ => time,
        };
        found.as_deref().unwrap_or_default()
    }

    fn order(&self) -> [&str; 5] {
        ["operation", "time", "manager", "apiVersion", "subresource"]
            .map(|member| self.text(member))
    }

    fn is_of(&self, writer: &Writer<'_>) -> bool {
        self.text("operation") == "Update"
            && self.text("manager") == writer.manager
            && self.text("subresource") == writer.subresource
            && self.text("apiVersion") == writer.api_version
    }

    fn lose(&mut self, other: &Node, types: &Types) {
        if fields::touches(&self.set.node, other) {
            let mut node = self.set.node.clone();
            fields::subtract(&mut node, other);
            self.set = types.sets.keep(node);
        }
    }

    fn gain(&mut self, other: &Node, types: &Types) {
        if !fields::covers(&self.set.node, other) {
            let mut node = self.set.node.clone();
            fields::union(&mut node, other);
            self.set = types.sets.keep(node);
        }
    }
}

/// As [`crate::record::note`].
fn note<'t>(entries: &mut Vec<Entry<'t>>, delta: Delta, writer: &Writer<'t>, types: &Types) {
    let mut mine = None;
    for (at, entry) in entries.iter_mut().enumerate() {
        if let Some(removed) = &delta.removed {
            entry.lose(removed, types);
        }
        if entry.is_of(writer) {
            mine = Some(at);
        } else if let Some(taken) = &delta.taken {
            entry.lose(taken, types);
        }
    }
    let Some(gained) = delta.taken else { return };
    let entry = match mine {
        Some(at) => {
            entries[at].gain(&gained, types);
            &mut entries[at]
        }
        None => {
            entries.push(Entry::new(writer, types.sets.keep(gained)));
            let last = entries.len() - 1;
            &mut entries[last]
        }
    };
    entry.stored.time = Some(writer.now.into());
}

/// Members in the order of their names, as trees are printed.
fn print(entries: &[Entry<'_>]) -> String {
    let length: usize = entries.iter().map(|entry| entry.set.text.len() + 192).sum();
    let mut out = Vec::with_capacity(length);
    for (place, entry) in entries.iter().enumerate() {
        out.push(if place == 0 { b'[' } else { b',' });
        let Stored { api_version, fields_type, manager, operation, subresource, time, .. } =
            &entry.stored;
        let mut opening = b'{';
        put(&mut out, &mut opening, "apiVersion", api_version);
        put(&mut out, &mut opening, "fieldsType", fields_type);
        open(&mut out, &mut opening, "fieldsV1");
        out.extend_from_slice(entry.set.text.as_bytes());
        put(&mut out, &mut opening, "manager", manager);
        put(&mut out, &mut opening, "operation", operation);
        put(&mut out, &mut opening, "subresource", subresource);
        put(&mut out, &mut opening, "time", time);
        out.push(b'}');
    }
    out.push(b']');
    String::from_utf8(out).expect("JSON is UTF-8")
}

fn put(out: &mut Vec<u8>, opening: &mut u8, name: &str, text: &Option<Cow<'_, str>>) {
    let Some(text) = text else { return };
    open(out, opening, name);
    serde_json::to_writer(out, text).expect("a string serializes into memory");
}

fn open(out: &mut Vec<u8>, opening: &mut u8, name: &str) {
    out.push(std::mem::replace(opening, b','));
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// A set of fields and how it is printed.
#[derive(Debug)]
struct Set {
    node: Node,
    text: Box<str>,
}

/// The sets of a kind's objects, in line with its schema.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    /// By the texts that they were read from.
    by_text: Known<str>,
    /// What creates own, by the forms of the objects.
    by_form: Known<[u8]>,
}

/// At most [`SETS_MAX`].
#[derive(Debug)]
struct Known<K: ?Sized>(Mutex<HashMap<Box<K>, Arc<Set>>>);

impl<K: ?Sized> Default for Known<K> {
    fn default() -> Known<K> {
        Known(Mutex::default())
    }
}

impl<K: ?Sized + Eq + Hash> Known<K> {
    fn get(&self, key: &K) -> Option<Arc<Set>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn remember(&self, key: Box<K>, set: &Arc<Set>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= SETS_MAX {
            known.clear();
        }
        known.insert(key, set.clone());
    }
}

impl Sets {
    /// What the creator of an object owns; `None`: nothing.
    fn of_new(&self, types: &Types, ignored: &[&str], new: &Value) -> Option<Arc<Set>> {
        let form = form::of_new(types, ignored, new).filter(|form| form.len() <= SET_BYTES_MAX);
        if let Some(known) = form.as_deref().and_then(|form| self.by_form.get(form)) {
            return Some(known);
        }
        let node = compare_owned(types, None, new, ignored).taken?;
        if node.is_empty() {
            return None;
        }
        let set = Arc::new(Set { text: printed(&node), node });
        if let Some(form) = form {
            self.by_form.remember(form.into(), &set);
        }
        // Who changes the object next reads it.
        self.remember(&set.text, &set);
        Some(set)
    }

    /// `None`: it is no set.
    fn read(&self, root: &Type, text: &str) -> Option<Arc<Set>> {
        if let Some(known) = self.by_text.get(text) {
            return Some(known);
        }
        let node: Node = serde_json::from_str(text).ok()?;
        let node = walk::without_details_of_atoms(root, &node).unwrap_or(node);
        let set = Arc::new(Set { text: printed(&node), node });
        self.remember(text, &set);
        Some(set)
    }

    fn keep(&self, node: Node) -> Arc<Set> {
        let set = Arc::new(Set { text: printed(&node), node });
        self.remember(&set.text, &set);
        set
    }

    fn remember(&self, text: &str, set: &Arc<Set>) {
        if text.len() > SET_BYTES_MAX {
            return;
        }
        self.by_text.remember(text.into(), set);
    }
}

fn printed(node: &Node) -> Box<str> {
    serde_json::to_string(node).expect("a JSON tree serializes into memory").into()
}
