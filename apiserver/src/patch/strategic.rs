//! Strategic merge patch for the built-in kinds served here, with its directives.
//!
//! Maps merge; the few lists that merge are named below; every other list is replaced whole. What is
//! merged, and in which order it comes out, follows apimachinery's `strategicpatch`. Sorting is in
//! [`order`].

mod order;

use serde_json::{Map, Value};

use crate::resource::ResourceDef;
use crate::status::ApiError;
pub(super) use order::printed;
use order::{Merged, by};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// How a list in a built-in kind merges.
#[derive(Clone, Copy)]
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
/// 400 for a malformed directive, 422 for one that the patch itself contradicts, 500 for what
/// kube-apiserver did not foresee either, such as a list element without its merge key.
pub fn strategic_merge_patch(
    def: &ResourceDef,
    document: &mut Value,
    patch: Value,
) -> Result<(), ApiError> {
    let Value::Object(patch) = patch else {
        return Err(ApiError::bad_request("a strategic merge patch must be an object"));
    };
    let old = match document.take() {
        Value::Object(old) => old,
        _ => Map::new(),
    };
    *document = Merge { kind: &def.kind }.maps(old, patch, "")?.into();
    Ok(())
}

struct Merge<'k> {
    kind: &'k str,
}

impl Merge<'_> {
    fn maps(
        &self,
        mut old: Map<String, Value>,
        mut patch: Map<String, Value>,
        path: &str,
    ) -> Result<Map<String, Value>, ApiError> {
        match patch.get(DIRECTIVE).map(|directive| directive.as_str()) {
            None => {}
            Some(Some("replace")) => {
                patch.remove(DIRECTIVE);
                return Ok(patch);
            }
            Some(Some("delete")) => return Ok(Map::new()),
            Some(_) => return Err(unknown_directive(&patch)),
        }
        retain_keys(&mut old, &mut patch)?;
        self.ordered_lists(&mut old, &mut patch, path)?;
        for (name, value) in patch {
            self.member(&mut old, name, value, path)?;
        }
        Ok(old)
    }

    /// Lists whose order the patch says, together with what it says about their elements.
    fn ordered_lists(
        &self,
        old: &mut Map<String, Value>,
        patch: &mut Map<String, Value>,
        path: &str,
    ) -> Result<(), ApiError> {
        let names: Vec<String> = patch
            .keys()
            .filter_map(|name| name.strip_prefix(SET_ORDER).map(str::to_owned))
            .collect();
        for name in names {
            let wanted = list(patch.remove(&format!("{SET_ORDER}{name}")).unwrap_or_default())?;
            let changes = patch.remove(&name).map(list).transpose()?;
            let before = old.remove(&name).map(list).transpose()?;
            let at = join(path, &name);
            let merge = list_merge(self.kind, &at);
            let key = match merge {
                ListMerge::Key(key) => Some(key),
                ListMerge::Set | ListMerge::Replace => None,
            };
            if let Some(changes) = &changes {
                order::check(changes, &wanted, key)?;
            }
            let merged = match (before.clone(), changes) {
                (None, None) => continue,
                (Some(list), None) | (None, Some(list)) => list,
                (Some(list), Some(changes)) => self.lists(list, changes, merge, &at)?,
            };
            let server = before.unwrap_or_default();
            let ordered =
                order::arrange(merged, &Merged { wanted: &wanted, server: &server, key })?;
            old.insert(name, ordered.into());
        }
        Ok(())
    }

    fn member(
        &self,
        old: &mut Map<String, Value>,
        name: String,
        value: Value,
        path: &str,
    ) -> Result<(), ApiError> {
        if let Some(name) = name.strip_prefix(DELETE_FROM_LIST) {
            let removed = list(value)?;
            if let Some(Value::Array(list)) = old.get_mut(name) {
                list.retain(|one| !removed.contains(one));
            }
            return Ok(());
        }
        if value.is_null() {
            old.remove(&name);
            return Ok(());
        }
        let at = join(path, &name);
        let new = match (old.remove(&name), value) {
            (Some(Value::Object(old)), Value::Object(patch)) => self.maps(old, patch, &at)?.into(),
            (Some(Value::Array(old)), Value::Array(patch)) => {
                self.lists(old, patch, list_merge(self.kind, &at), &at)?.into()
            }
            (Some(_), other) => other,
            (None, mut added) => {
                drop_directives(&mut added);
                added
            }
        };
        old.insert(name, new);
        Ok(())
    }

    fn lists(
        &self,
        old: Vec<Value>,
        patch: Vec<Value>,
        merge: ListMerge,
        path: &str,
    ) -> Result<Vec<Value>, ApiError> {
        let server = old.clone();
        match merge {
            ListMerge::Replace => Ok(patch),
            ListMerge::Set => {
                let mut merged: Vec<Value> = Vec::with_capacity(old.len() + patch.len());
                for value in old.into_iter().chain(patch.iter().cloned()) {
                    if !merged.contains(&value) {
                        merged.push(value);
                    }
                }
                order::arrange(merged, &Merged { wanted: &patch, server: &server, key: None })
            }
            ListMerge::Key(key) => self.keyed(old, patch, key, path),
        }
    }

    fn keyed(
        &self,
        mut old: Vec<Value>,
        patch: Vec<Value>,
        key: &'static str,
        path: &str,
    ) -> Result<Vec<Value>, ApiError> {
        let mut plain = Vec::with_capacity(patch.len());
        let mut replace = false;
        for one in patch {
            let Value::Object(element) = one else {
                return Err(ApiError::unforeseen("list element types are not identical"));
            };
            match element.get(DIRECTIVE).map(Value::as_str) {
                None => plain.push(element),
                Some(Some("delete")) => {
                    let id = by(&element, key)?.clone();
                    old.retain(|one| one.get(key) != Some(&id));
                }
                Some(Some("replace")) => replace = true,
                Some(Some("merge")) => {
                    let why = "merging lists cannot yet be specified in the patch";
                    return Err(ApiError::unforeseen(why));
                }
                Some(_) => return Err(unknown_directive(&element)),
            }
        }
        if replace {
            return Ok(plain.into_iter().map(Value::Object).collect());
        }
        let server = old.clone();
        let wanted: Vec<Value> = plain.iter().cloned().map(Value::Object).collect();
        for element in plain {
            let id = by(&element, key)?.clone();
            match old.iter_mut().find(|one| one.get(key) == Some(&id)) {
                Some(found) => {
                    let Value::Object(before) = found.take() else { continue };
                    *found = self.maps(before, element, path)?.into();
                }
                None => old.push(element.into()),
            }
        }
        order::arrange(old, &Merged { wanted: &wanted, server: &server, key: Some(key) })
    }
}

/// `$retainKeys` names all members that stay; the patch may set no others.
fn retain_keys(
    old: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let malformed = || ApiError::bad_request("invalid patch format of retainKeys");
    let names: Vec<&str> = retained
        .as_array()
        .and_then(|list| list.iter().map(Value::as_str).collect())
        .ok_or_else(malformed)?;
    let fits = |name: &String| {
        let name = name.strip_prefix(SET_ORDER).unwrap_or(name);
        name.starts_with(DELETE_FROM_LIST) || names.contains(&name)
    };
    if !patch.iter().all(|(name, value)| value.is_null() || fits(name)) {
        return Err(ApiError::unprocessable_patch());
    }
    old.retain(|name, _| names.contains(&name.as_str()));
    Ok(())
}

/// What is new has nothing that the directives in it could speak of.
fn drop_directives(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, value| {
                let directive = name == DIRECTIVE
                    || name == RETAIN_KEYS
                    || name.starts_with(SET_ORDER)
                    || name.starts_with(DELETE_FROM_LIST);
                !directive && !value.is_null()
            });
            map.values_mut().for_each(drop_directives);
        }
        Value::Array(list) => {
            list.retain(|one| one.get(DIRECTIVE).is_none());
            list.iter_mut().for_each(drop_directives);
        }
        _ => {}
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn list(value: Value) -> Result<Vec<Value>, ApiError> {
    let found = match value {
        Value::Array(list) => return Ok(list),
        Value::Null => return Ok(Vec::new()),
        Value::Object(_) => "map[string]interface {}",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
    };
    let why = format!("expected a []interface {{}}, but received a {found}");
    Err(ApiError::unforeseen(why))
}

fn unknown_directive(element: &Map<String, Value>) -> ApiError {
    let directive = order::printed(&element[DIRECTIVE]);
    let shown = order::printed_map(element);
    ApiError::unforeseen(format!("unknown patch type: {directive} in map: {shown}"))
}
