//! Server-side apply: merge, prune what the applier no longer wants, settle who owns what.

use serde_json::{Map, Value, json};

use crate::entries::{self, Entry, Operation, Writer};
use crate::error::{ApplyError, Conflict};
use crate::fields::{self, Node};
use crate::last_applied;
use crate::path;
use crate::record::{managed_fields, note, owned};
use crate::types::{Type, Types};
use crate::walk;

/// What an apply makes of the object, `managedFields` included.
#[derive(Clone, Debug)]
pub struct Applied {
    pub object: Value,
}

/// Who owns the fields of an object that was written before anybody tracked them.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Merges `config` into `live` (`None`: it creates the object) for the applier `writer`. What it
/// applied before, does not apply now and nobody else owns is removed. With `force` it takes
/// fields from others; without, changing theirs is a conflict. `ignored` as for
/// [`record`](crate::record()). The caller checks apiVersion and kind of `config`.
///
/// # Errors
/// See [`ApplyError`].
pub fn apply(
    types: &Types,
    ignored: &[&str],
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Applied, ApplyError> {
    let managed = config.get("metadata").and_then(|metadata| metadata.get("managedFields"));
    if managed.is_some_and(|managed| !managed.is_null()) {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".into()));
    }
    let skeleton;
    let live = match live {
        Some(live) => live,
        None => {
            skeleton = json!({"apiVersion": config["apiVersion"], "kind": config["kind"]});
            &skeleton
        }
    };
    typed(&types.root, config, false, "patch")?;
    typed(&types.root, live, true, "live")?;
    let run = Run { types, root: &types.root, ignored, live, config, writer };
    let entries = run.live_entries();
    let result = match run.attempt(entries.clone(), force) {
        Err(conflicts) if writer.manager == last_applied::MANAGER => {
            let left = last_applied::without_allowed(&types.root, live, writer, conflicts);
            if left.is_empty() { run.attempt(entries, true) } else { Err(left) }
        }
        result => result,
    };
    let mut object = result.map_err(|refused| ApplyError::Conflicts(named(refused)))?;
    if writer.manager == last_applied::MANAGER {
        last_applied::refresh(&mut object, config);
    }
    Ok(Applied { object })
}

fn typed(root: &Type, object: &Value, duplicates: bool, what: &str) -> Result<(), ApplyError> {
    walk::validate(root, object, duplicates).map_err(|error| {
        ApplyError::Untyped(format!(
            "failed to create typed {what} object ({}): {error}",
            described(object)
        ))
    })
}

/// `namespace/name; group/version, Kind=Kind`.
fn described(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let version = text(&object["apiVersion"]);
    // The core group shows as an empty one.
    let slash = if version.contains('/') { "" } else { "/" };
    format!(
        "{}/{}; {slash}{version}, Kind={}",
        text(&metadata["namespace"]),
        text(&metadata["name"]),
        text(&object["kind"]),
    )
}

/// Fields of another manager that the apply would change.
pub(crate) struct Refused {
    pub(crate) order: String,
    pub(crate) manager: String,
    pub(crate) fields: Node,
}

fn named(mut refused: Vec<Refused>) -> Vec<Conflict> {
    refused.sort_by(|a, b| a.order.cmp(&b.order));
    let mut conflicts = Vec::new();
    for one in &refused {
        for elements in fields::paths(&one.fields) {
            let path = path::join(&elements);
            conflicts.push(Conflict { manager: one.manager.clone(), path });
        }
    }
    conflicts
}

struct Run<'a> {
    types: &'a Types,
    root: &'a Type,
    ignored: &'a [&'a str],
    live: &'a Value,
    config: &'a Value,
    writer: &'a Writer<'a>,
}

impl Run<'_> {
    /// The entries of the live object; of one without any, what it holds belongs to the past.
    fn live_entries(&self) -> Vec<Entry> {
        let mut entries = entries::stored(managed_fields(self.live).cloned());
        entries::settle(&mut entries, self.root);
        if entries.is_empty() {
            let past = Writer { manager: BEFORE_FIRST_APPLY, ..*self.writer };
            let delta = walk::compare_owned(self.types, None, self.live, self.ignored);
            note(&mut entries, delta, &past);
        }
        entries
    }

    fn attempt(&self, mut entries: Vec<Entry>, force: bool) -> Result<Value, Vec<Refused>> {
        let mine = entries.iter().position(|entry| entry.is_of(self.writer, Operation::Apply));
        let before = mine.map(|at| entries.swap_remove(at));
        let wanted = self.without_ignored(walk::to_set(self.root, self.config));
        let merged = walk::merge(self.root, Some(self.live), Some(self.config));
        let mut object = merged.unwrap_or_else(|| Value::Object(Map::new()));
        if let Some(before) = &before
            && !before.fields().is_empty()
        {
            let mut managed = wanted.clone();
            for entry in &entries {
                fields::union(&mut managed, entry.fields());
            }
            object = prune(self.root, &object, &managed, before.fields());
        }
        let delta = walk::compare_objects(self.root, Some(self.live), &object, self.ignored);
        if let Some(taken) = &delta.taken {
            let refused = conflicts(&entries, taken);
            if !force && !refused.is_empty() {
                return Err(refused);
            }
        }
        for entry in &mut entries {
            delta.taken.iter().chain(&delta.removed).for_each(|fields| entry.lose(fields));
        }
        let mut entry = Entry::new(self.writer, Operation::Apply, owned(wanted));
        // A list in another order is a change, though nobody's fields change.
        if object == *self.live {
            // No time for a change of owners alone.
            if let Some(before) = &before {
                entry.copy_time(before);
            }
        } else {
            entry.set_time(self.writer.now);
        }
        entries.push(entry);
        entries::store(entries, &mut object);
        Ok(object)
    }

    fn without_ignored(&self, mut set: Node) -> Node {
        for member in self.ignored {
            set.remove(&path::field(member));
        }
        set
    }
}

fn conflicts(entries: &[Entry], taken: &Node) -> Vec<Refused> {
    let refused = entries.iter().filter_map(|entry| {
        let fields = fields::intersection(entry.fields(), taken);
        (!fields.is_empty()).then(|| Refused {
            order: entry.identity(),
            manager: entry.describe(),
            fields,
        })
    });
    refused.collect()
}

/// Removes what is in `last` unless somebody in `managed` owns it or something below it.
fn prune(root: &Type, merged: &Value, managed: &Node, last: &Node) -> Value {
    let set_of = |value: &Value| walk::with_named_fields(root, &walk::to_set(root, value));
    let last = walk::with_named_fields(root, last);
    let everything = set_of(merged);
    // Taking out a struct takes what others own inside it: that is put back.
    let mut kept = set_of(&walk::remove(root, merged, &last));
    fields::union(&mut kept, &walk::with_named_fields(root, managed));
    let mut gone = everything.clone();
    fields::subtract(&mut gone, &kept);
    let pruned = walk::remove(root, merged, &gone);
    // And so is what nobody owns, but which the applier never applied either.
    let mut gone = everything;
    fields::subtract(&mut gone, &set_of(&pruned));
    match walk::remove(root, merged, &fields::intersection(&gone, &last)) {
        Value::Null => Value::Object(Map::new()),
        value => value,
    }
}
