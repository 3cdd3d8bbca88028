//! In which order the elements of a merged list come out: those of the patch as the patch has them,
//! the others where they were among each other.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use crate::status::ApiError;

/// What decides the order of a merged list.
pub(super) struct Merged<'l> {
    /// The elements in the patch's order; only their keys count.
    pub wanted: &'l [Value],
    /// The list as it was.
    pub server: &'l [Value],
    /// The member that identifies an element; `None` for scalars.
    pub key: Option<&'static str>,
}

impl Merged<'_> {
    fn place(&self, list: &[Value], element: &Value) -> Option<usize> {
        match self.key {
            Some(key) => list.iter().position(|one| one.get(key) == element.get(key)),
            None => list.iter().position(|one| one == element),
        }
    }
}

/// The value that identifies an element.
///
/// # Errors
/// The element has none.
pub(super) fn by<'e>(element: &'e Map<String, Value>, key: &str) -> Result<&'e Value, ApiError> {
    element.get(key).ok_or_else(|| {
        let shown = printed_map(element);
        let why = format!("map: {shown} does not contain declared merge key: {key}");
        ApiError::unforeseen(why)
    })
}

/// # Errors
/// An element without its key.
pub(super) fn arrange(list: Vec<Value>, merged: &Merged<'_>) -> Result<Vec<Value>, ApiError> {
    if let Some(key) = merged.key {
        list.iter().filter_map(Value::as_object).try_for_each(|one| by(one, key).map(|_| ()))?;
    }
    let (mut patched, mut others): (Vec<Value>, Vec<Value>) =
        list.into_iter().partition(|one| merged.place(merged.wanted, one).is_some());
    patched.sort_by_key(|one| merged.place(merged.wanted, one));
    others.sort_by_key(|one| merged.place(merged.server, one).unwrap_or(usize::MAX));
    let (mut patched, mut others) = (VecDeque::from(patched), VecDeque::from(others));
    let mut arranged = Vec::with_capacity(patched.len() + others.len());
    while let (Some(left), Some(right)) = (patched.front(), others.front()) {
        let first = match (merged.place(merged.server, left), merged.place(merged.server, right)) {
            (Some(left), Some(right)) if left < right => patched.pop_front(),
            _ => others.pop_front(),
        };
        arranged.extend(first);
    }
    arranged.extend(patched);
    arranged.extend(others);
    Ok(arranged)
}

/// The changes of a list must come in the order that the patch says for the list.
///
/// # Errors
/// They do not.
pub(super) fn check(
    changes: &[Value],
    wanted: &[Value],
    key: Option<&'static str>,
) -> Result<(), ApiError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let same = |one: &Value, other: &Value| match key {
        Some(key) => one.get(key) == other.get(key),
        None => one == other,
    };
    let mut order = wanted.iter();
    let mut real = changes.iter().filter(|one| one.get("$patch").is_none());
    if real.all(|change| order.any(|one| same(change, one))) {
        return Ok(());
    }
    let (changes, wanted) = (printed_list(changes), printed_list(wanted));
    Err(ApiError::unforeseen(format!(
        "The order in patch list:\n{changes}\n doesn't match $setElementOrder list:\n{wanted}\n"
    )))
}

/// As Go's `%v` prints it.
pub(in crate::patch) fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => printed_list(list),
        Value::Object(map) => printed_map(map),
        other => other.to_string(),
    }
}

pub(super) fn printed_map(map: &Map<String, Value>) -> String {
    let mut members: Vec<String> =
        map.iter().map(|(name, value)| format!("{name}:{}", printed(value))).collect();
    members.sort_unstable();
    format!("map[{}]", members.join(" "))
}

fn printed_list(list: &[Value]) -> String {
    format!("[{}]", list.iter().map(printed).collect::<Vec<_>>().join(" "))
}
