//! What a create, an update or a patch changed, noted in the object's entries.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::entries::{self, Entry, Operation, Writer};
use crate::fields::{self, Node};
use crate::types::Types;
use crate::walk::{Delta, compare_objects};

/// What nobody owns: the object's identity, and what the server keeps.
static UNOWNED: LazyLock<Node> = LazyLock::new(|| {
    let set = json!({
        "f:apiVersion": {}, "f:kind": {},
        "f:metadata": {
            ".": {}, "f:name": {}, "f:namespace": {}, "f:creationTimestamp": {}, "f:selfLink": {},
            "f:uid": {}, "f:clusterName": {}, "f:generation": {}, "f:managedFields": {},
            "f:resourceVersion": {},
        },
    });
    set.as_object().cloned().unwrap_or_default()
});

/// Notes in `new.metadata.managedFields` what the writer changed since `old` (`None`: it creates
/// the object). What `new` brings as entries of its own counts where it is valid, as in
/// Kubernetes: clients may edit or reset them through the main resource. An object without
/// entries gets none by an update, only by its first apply.
///
/// `ignored` are the top-level members that this write cannot change: `status` for the main
/// resource of a kind with that subresource, `spec` and `metadata` for the subresource.
pub fn record(
    types: &Types,
    ignored: &[&str],
    old: Option<&Value>,
    new: &mut Value,
    writer: &Writer<'_>,
) {
    let delta = compare_objects(&types.root, old, new, ignored);
    let live = old.and_then(managed_fields);
    let sent = new
        .get_mut("metadata")
        .and_then(Value::as_object_mut)
        .and_then(|metadata| metadata.remove("managedFields"));
    let mut entries = choose(sent, live, writer.subresource.is_empty());
    if entries.is_empty() && old.is_some() {
        return;
    }
    note(&mut entries, &delta, writer);
    entries::cap(&mut entries);
    entries::store(entries, new);
}

pub(crate) fn managed_fields(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

/// The entries to go on from.
fn choose(sent: Option<Value>, live: Option<&Value>, main: bool) -> Vec<Entry> {
    match sent {
        Some(sent) if Some(&sent) == live => entries::stored(Some(sent)),
        Some(sent) if main && entries::is_reset(&sent) => Vec::new(),
        Some(sent) if main => match entries::sent(&sent) {
            Some(entries) if !entries.is_empty() => entries,
            _ => entries::stored(live.cloned()),
        },
        _ => entries::stored(live.cloned()),
    }
}

/// The writer owns what it set, and the others no longer do; nobody owns what is gone.
pub(crate) fn note(entries: &mut Vec<Entry>, delta: &Delta, writer: &Writer<'_>) {
    if delta.is_empty() {
        return;
    }
    let gained = delta.taken.as_ref().map(|taken| owned(taken.clone()));
    let gained = gained.filter(|gained| !gained.is_empty());
    let mut mine = None;
    for (at, entry) in entries.iter_mut().enumerate() {
        if let Some(removed) = &delta.removed {
            entry.lose(removed);
        }
        if entry.is_of(writer, Operation::Update) {
            mine = Some(at);
        } else if let Some(taken) = &delta.taken {
            entry.lose(taken);
        }
    }
    let Some(gained) = gained else { return };
    let entry = match mine {
        Some(at) => {
            entries[at].gain(&gained);
            &mut entries[at]
        }
        None => {
            entries.push(Entry::new(writer, Operation::Update, gained));
            let last = entries.len() - 1;
            &mut entries[last]
        }
    };
    entry.set_time(writer.now);
}

/// The set without what nobody owns.
pub(crate) fn owned(mut set: Node) -> Node {
    if fields::touches(&set, &UNOWNED) {
        fields::subtract(&mut set, &UNOWNED);
    }
    set
}
