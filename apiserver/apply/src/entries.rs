//! The entries of `metadata.managedFields`: reading, identity, order, and their limit.

use serde_json::{Map, Value, json};

use crate::UPDATE_ENTRIES_MAX;
use crate::fields::{self, Node};
use crate::types::Type;
use crate::walk;

/// Who writes, and through what.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    pub manager: &'a str,
    /// That the object was sent in: `commonage.dev/v1`.
    pub api_version: &'a str,
    /// Empty for the main resource.
    pub subresource: &'a str,
    /// RFC 3339 in whole seconds, UTC.
    pub now: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// What joins the oldest update entries when there are too many.
const ANCIENT: &str = "ancient-changes";

/// One entry, in its JSON form: an unchanged one is never rebuilt.
#[derive(Clone, Debug)]
pub(crate) struct Entry(Map<String, Value>);

impl Entry {
    pub(crate) fn new(writer: &Writer<'_>, operation: Operation, fields: Node) -> Entry {
        let mut entry = Map::new();
        entry.insert("manager".into(), writer.manager.into());
        entry.insert("operation".into(), operation.name().into());
        entry.insert("apiVersion".into(), writer.api_version.into());
        entry.insert("fieldsType".into(), "FieldsV1".into());
        entry.insert("fieldsV1".into(), Value::Object(fields));
        if !writer.subresource.is_empty() {
            entry.insert("subresource".into(), writer.subresource.into());
        }
        Entry(entry)
    }

    fn text(&self, member: &str) -> &str {
        self.0.get(member).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn is_update(&self) -> bool {
        self.text("operation") == "Update"
    }

    /// The version does not count for appliers: each has one entry.
    pub(crate) fn is_of(&self, writer: &Writer<'_>, operation: Operation) -> bool {
        self.text("operation") == operation.name()
            && self.text("manager") == writer.manager
            && self.text("subresource") == writer.subresource
            && (operation == Operation::Apply || self.text("apiVersion") == writer.api_version)
    }

    pub(crate) fn fields(&self) -> &Node {
        static NONE: std::sync::LazyLock<Node> = std::sync::LazyLock::new(Node::new);
        self.0.get("fieldsV1").and_then(Value::as_object).unwrap_or(&NONE)
    }

    pub(crate) fn set_fields(&mut self, fields: Node) {
        self.0.insert("fieldsV1".into(), Value::Object(fields));
    }

    /// Takes `other` out of the entry.
    pub(crate) fn lose(&mut self, other: &Node) {
        if let Some(Value::Object(fields)) = self.0.get_mut("fieldsV1")
            && fields::touches(fields, other)
        {
            fields::subtract(fields, other);
        }
    }

    pub(crate) fn gain(&mut self, other: &Node) {
        if let Some(Value::Object(fields)) = self.0.get_mut("fieldsV1")
            && !fields::covers(fields, other)
        {
            fields::union(fields, other);
        }
    }

    pub(crate) fn set_time(&mut self, time: &str) {
        self.0.insert("time".into(), time.into());
    }

    /// Takes the time of another entry, or none.
    pub(crate) fn copy_time(&mut self, of: &Entry) {
        match of.0.get("time") {
            Some(time) => self.0.insert("time".into(), time.clone()),
            None => self.0.remove("time"),
        };
    }

    /// What orders conflicts and ancient updates alike: the identity as kube-apiserver spells it.
    pub(crate) fn identity(&self) -> String {
        let mut identity = format!("{} {}", self.text("manager"), self.text("operation"));
        if self.is_update() {
            identity += " ";
            identity += self.text("apiVersion");
        }
        identity + " " + self.text("subresource")
    }

    /// The manager as messages name it.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("{:?}", self.text("manager"));
        if !self.text("subresource").is_empty() {
            text += &format!(" with subresource {:?}", self.text("subresource"));
        }
        if self.is_update() {
            text += &format!(" using {}", self.text("apiVersion"));
        }
        text
    }

    fn order(&self) -> [&str; 5] {
        ["operation", "time", "manager", "apiVersion", "subresource"]
            .map(|member| self.text(member))
    }
}

/// Entries as stored.
pub(crate) fn stored(value: Option<Value>) -> Vec<Entry> {
    let Some(Value::Array(entries)) = value else { return Vec::new() };
    let entries = entries.into_iter().filter_map(|entry| match entry {
        Value::Object(entry) => Some(Entry(entry)),
        _ => None,
    });
    entries.collect()
}

/// Brings the sets in line with a schema that has changed since.
pub(crate) fn settle(entries: &mut [Entry], root: &Type) {
    for entry in entries {
        if let Some(settled) = walk::without_details_of_atoms(root, entry.fields()) {
            entry.set_fields(settled);
        }
    }
}

/// Entries as a client sent them, in canonical form; `None` when any is invalid.
pub(crate) fn sent(value: &Value) -> Option<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    for value in value.as_array()? {
        let Value::Object(sent) = value else { return None };
        let text = |member: &str| sent.get(member).and_then(Value::as_str).unwrap_or_default();
        let legal = matches!(text("operation"), "Apply" | "Update")
            && !text("apiVersion").is_empty()
            && text("fieldsType") == "FieldsV1";
        if !legal {
            return None;
        }
        let fields = match sent.get("fieldsV1") {
            None | Some(Value::Null) => Node::new(),
            Some(fields) => fields::decode(fields)?,
        };
        let mut entry = Map::new();
        for member in ["manager", "operation", "apiVersion", "time", "fieldsType", "subresource"] {
            if !text(member).is_empty() {
                entry.insert(member.into(), text(member).into());
            }
        }
        entry.insert("fieldsV1".into(), Value::Object(fields));
        let entry = Entry(entry);
        entries.retain(|other| other.identity() != entry.identity());
        entries.push(entry);
    }
    Some(entries)
}

/// `[]` and `[{}]`: the client wants them forgotten.
pub(crate) fn is_reset(value: &Value) -> bool {
    match value.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => *only == json!({}),
        _ => false,
    }
}

/// Puts the entries back into the object, sorted and without empty ones.
pub(crate) fn store(mut entries: Vec<Entry>, object: &mut Value) {
    entries.retain(|entry| !entry.fields().is_empty());
    entries.sort_by(|a, b| a.order().cmp(&b.order()));
    let Some(object) = object.as_object_mut() else { return };
    if entries.is_empty() {
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            metadata.remove("managedFields");
        }
        return;
    }
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if let Value::Object(metadata) = metadata {
        let entries = entries.into_iter().map(|entry| Value::Object(entry.0)).collect();
        metadata.insert("managedFields".into(), Value::Array(entries));
    }
}

/// Joins the oldest update entries of each version until no more than the limit are left.
pub(crate) fn cap(entries: &mut Vec<Entry>) {
    let mut left = entries.iter().filter(|entry| entry.is_update()).count();
    if left <= UPDATE_ENTRIES_MAX {
        return;
    }
    let (mut updates, mut others): (Vec<Entry>, Vec<Entry>) =
        std::mem::take(entries).into_iter().partition(Entry::is_update);
    updates.sort_by_key(|entry| (entry.text("time").to_owned(), entry.identity()));
    // The first of each version becomes the bucket for it once there is a second.
    let mut buckets: Vec<(Entry, bool)> = Vec::new();
    let mut updates = updates.into_iter();
    while left > UPDATE_ENTRIES_MAX {
        let Some(entry) = updates.next() else { break };
        let version = entry.text("apiVersion");
        match buckets.iter_mut().find(|(bucket, _)| bucket.text("apiVersion") == version) {
            None => buckets.push((entry, false)),
            Some((bucket, joined)) => {
                bucket.gain(entry.fields());
                bucket.copy_time(&entry);
                *joined = true;
                left -= 1;
            }
        }
    }
    for (mut bucket, joined) in buckets {
        if joined {
            bucket.0.insert("manager".into(), ANCIENT.into());
            bucket.0.remove("subresource");
        }
        others.push(bucket);
    }
    others.extend(updates);
    *entries = others;
}

/// Whether two `managedFields` are the same but for the times: a write that changes nothing else
/// is none.
pub fn differ_in_time_only(old: Option<&Value>, new: Option<&Value>) -> bool {
    let (Some(Value::Array(old)), Some(Value::Array(new))) = (old, new) else { return false };
    let same = |old: &Value, new: &Value| {
        let (Value::Object(old), Value::Object(new)) = (old, new) else { return false };
        let rest =
            |entry: &'_ Map<String, Value>| entry.len() - usize::from(entry.contains_key("time"));
        rest(old) == rest(new)
            && old.iter().all(|(member, value)| member == "time" || new.get(member) == Some(value))
    };
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same(old, new))
}
