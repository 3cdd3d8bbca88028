//! Strategic merge patch for the built-in kinds served here.
//!
//! Maps merge; the few lists that merge are named below; every other list is replaced whole.

use serde_json::{Map, Value};

use crate::resource::ResourceDef;
use crate::status::ApiError;

/// How a list in a built-in kind merges.
enum ListMerge {
    /// By the value of this member.
    Key(&'static str),
    /// As a set of scalars.
    Set,
    Replace,
}

/// From the `patchStrategy` and `patchMergeKey` tags of Kubernetes' types.
fn list_merge(kind: &str, path: &str) -> ListMerge {
    match (kind, path) {
        (_, "metadata.ownerReferences") => ListMerge::Key("uid"),
        (_, "metadata.finalizers") => ListMerge::Set,
        ("ServiceAccount", "secrets") => ListMerge::Key("name"),
        ("Namespace", "status.conditions") => ListMerge::Key("type"),
        _ => ListMerge::Replace,
    }
}

/// Applies a strategic merge patch: maps merge, lists merge by the kind's known keys, else replace.
///
/// # Errors
/// 400 for a malformed directive or a list element without its merge key.
pub fn strategic_merge_patch(
    def: &ResourceDef,
    document: &mut Value,
    patch: Value,
) -> Result<(), ApiError> {
    let Value::Object(patch) = patch else {
        return Err(ApiError::bad_request("a strategic merge patch must be an object"));
    };
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    let Value::Object(document) = document else { unreachable!("made an object above") };
    Merge { kind: &def.kind }.objects(document, patch, "")
}

struct Merge<'k> {
    kind: &'k str,
}

impl Merge<'_> {
    fn objects(
        &self,
        document: &mut Map<String, Value>,
        mut patch: Map<String, Value>,
        path: &str,
    ) -> Result<(), ApiError> {
        match patch.remove("$patch").as_ref().map(|directive| directive.as_str()) {
            None | Some(Some("merge")) => {}
            Some(Some("replace")) => {
                *document = patch;
                return Ok(());
            }
            Some(Some("delete")) => {
                document.clear();
                return Ok(());
            }
            Some(_) => return Err(ApiError::bad_request("unknown $patch directive")),
        }
        if let Some(retained) = patch.remove("$retainKeys") {
            let retained = strings(&retained)?;
            document.retain(|name, _| retained.contains(&name.as_str()));
        }
        for (name, value) in patch {
            self.member(document, name, value, path)?;
        }
        Ok(())
    }

    fn member(
        &self,
        document: &mut Map<String, Value>,
        name: String,
        value: Value,
        path: &str,
    ) -> Result<(), ApiError> {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let removed = value.as_array().cloned().unwrap_or_default();
            if let Some(Value::Array(list)) = document.get_mut(list) {
                list.retain(|one| !removed.contains(one));
            }
            return Ok(());
        }
        // The order of a merged list carries no meaning in any kind served here.
        if name.starts_with("$setElementOrder/") {
            return Ok(());
        }
        let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match value {
            Value::Null => {
                document.remove(&name);
                Ok(())
            }
            Value::Object(patch) => {
                let slot = document.entry(name).or_insert(Value::Null);
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                let Value::Object(slot) = slot else { unreachable!("made an object above") };
                self.objects(slot, patch, &at)
            }
            Value::Array(patch) => {
                let slot = document.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                self.lists(slot, patch, &at)
            }
            scalar => {
                document.insert(name, scalar);
                Ok(())
            }
        }
    }

    fn lists(&self, slot: &mut Value, patch: Vec<Value>, path: &str) -> Result<(), ApiError> {
        let merge = list_merge(self.kind, path);
        let Value::Array(list) = slot else {
            *slot = Value::Array(patch);
            return Ok(());
        };
        match merge {
            ListMerge::Replace => *list = patch,
            ListMerge::Set => {
                for value in patch {
                    if !list.contains(&value) {
                        list.push(value);
                    }
                }
            }
            ListMerge::Key(key) => self.keyed(list, patch, key, path)?,
        }
        Ok(())
    }

    fn keyed(
        &self,
        list: &mut Vec<Value>,
        patch: Vec<Value>,
        key: &str,
        path: &str,
    ) -> Result<(), ApiError> {
        let replace = patch.iter().any(|one| one.get("$patch").is_some_and(|d| d == "replace"));
        if replace {
            *list = patch.into_iter().filter(|one| one.get("$patch").is_none()).collect();
            return Ok(());
        }
        for one in patch {
            let Value::Object(element) = one else {
                return Err(ApiError::bad_request(format!("{path}: expected objects in the list")));
            };
            let Some(id) = element.get(key).cloned() else {
                let message = format!("map: {path} does not contain declared merge key: {key}");
                return Err(ApiError::bad_request(message));
            };
            let found = list.iter().position(|old| old.get(key) == Some(&id));
            let delete = element.get("$patch").is_some_and(|directive| directive == "delete");
            match found {
                Some(at) if delete => {
                    list.remove(at);
                }
                Some(at) => {
                    if let Value::Object(old) = &mut list[at] {
                        self.objects(old, element, path)?;
                    }
                }
                None if delete => {}
                None => list.push(Value::Object(element)),
            }
        }
        Ok(())
    }
}

fn strings(value: &Value) -> Result<Vec<&str>, ApiError> {
    value
        .as_array()
        .and_then(|list| list.iter().map(Value::as_str).collect())
        .ok_or_else(|| ApiError::bad_request("$retainKeys must be a list of strings"))
}
