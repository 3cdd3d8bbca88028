//! What a create, an update or a patch changed, noted in the object's entries.

use std::sync::LazyLock;

use serde_json::Value;

use crate::entries::{self, Entry, Operation, Writer};
use crate::fields::{self, Node};
use crate::path;
use crate::types::Types;
use crate::walk::{Delta, UNOWNED_METADATA, compare_owned};

/// What nobody owns: the object's identity, and what the server keeps.
static UNOWNED: LazyLock<Node> = LazyLock::new(|| {
    let leaf = || Value::Object(Node::new());
    let metadata = UNOWNED_METADATA.iter().map(|name| (path::field(name), leaf()));
    let metadata: Node = metadata.chain([(fields::SELF.to_owned(), leaf())]).collect();
    let rest = ["apiVersion", "kind"].iter().map(|name| (path::field(name), leaf()));
    rest.chain([(path::field("metadata"), Value::Object(metadata))]).collect()
});

/// Notes in `new.metadata.managedFields` what the writer changed since `old` (`None`: it creates
/// the object). What `new` brings as entries of its own counts where it is valid, as in
/// Kubernetes: clients may edit or reset them through the main resource. An object without
/// entries gets none by an update, only by its first apply.
///
/// `ignored` are the top-level members that this write cannot change: `status` for the main
/// resource of a kind with that subresource, `spec` and `metadata` for the subresource. Returns
/// whether the client edited the entries.
pub fn record(
    types: &Types,
    ignored: &[&str],
    old: Option<&Value>,
    new: &mut Value,
    writer: &Writer<'_>,
) -> bool {
    let delta = compare_owned(types, old, new, ignored);
    let live = old.and_then(managed_fields);
    let sent = new
        .get_mut("metadata")
        .and_then(Value::as_object_mut)
        .and_then(|metadata| metadata.remove("managedFields"));
    let (mut entries, edited) = choose(sent, live, writer.subresource.is_empty());
    if entries.is_empty() && old.is_some() {
        return edited;
    }
    entries::settle(&mut entries, &types.root);
    note(&mut entries, delta, writer);
    entries::cap(&mut entries);
    entries::store(entries, new);
    edited
}

pub(crate) fn managed_fields(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

/// The entries to go on from, and whether the client made them.
fn choose(sent: Option<Value>, live: Option<&Value>, main: bool) -> (Vec<Entry>, bool) {
    match sent {
        Some(sent) if Some(&sent) == live => return (entries::stored(Some(sent)), false),
        Some(sent) if main && entries::is_reset(&sent) => return (Vec::new(), true),
        Some(sent) if main => {
            if let Some(entries) = entries::sent(&sent).filter(|entries| !entries.is_empty()) {
                return (entries, true);
            }
        }
        _ => {}
    }
    (entries::stored(live.cloned()), false)
}

/// The writer owns what it set, and the others no longer do; nobody owns what is gone. `delta` is
/// without what nobody owns.
pub(crate) fn note(entries: &mut Vec<Entry>, delta: Delta, writer: &Writer<'_>) {
    if delta.is_empty() {
        return;
    }
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
    let Some(gained) = delta.taken else { return };
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
