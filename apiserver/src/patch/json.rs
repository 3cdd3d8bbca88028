//! RFC 6902 as `evanphx/json-patch` v4 understands it, for that is what every client was tested with.

use serde_json::{Map, Value};

use super::JSON_PATCH_OPERATIONS_MAX;
use crate::engine::FieldValidation;
use crate::schema::{self, go};
use crate::status::ApiError;

/// What copies may add to a document: a patch of a few hundred bytes can otherwise double it
/// without end. The limit of a request's body.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Why an operation did not apply; the client is told only that one did not, as in Kubernetes.
#[derive(Debug)]
struct DoesNotApply;

type Applied<T> = Result<T, DoesNotApply>;

/// Applies an RFC 6902 patch; returns what a strict reader finds in its operations.
///
/// # Errors
/// 400 when the patch does not parse, 413 when it is too long, 422 when it does not apply.
pub fn json_patch(
    document: &mut Value,
    patch: &[u8],
    validation: FieldValidation,
) -> Result<Vec<String>, ApiError> {
    let (operations, findings) = operations(patch, validation)?;
    if operations.len() > JSON_PATCH_OPERATIONS_MAX {
        return Err(ApiError::new(
            413,
            "RequestEntityTooLarge",
            format!(
                "Request entity too large: The allowed maximum operations in a JSON patch is \
                 {JSON_PATCH_OPERATIONS_MAX}, got {}",
                operations.len()
            ),
        ));
    }
    let mut copied_bytes = 0;
    for mut operation in operations {
        apply(document, &mut operation, &mut copied_bytes)
            .map_err(|DoesNotApply| ApiError::unprocessable_patch())?;
    }
    Ok(findings)
}

type Operations = (Vec<Map<String, Value>>, Vec<String>);

/// Without field validation the patch is read by the library that applies it, whose errors are its
/// own; otherwise by a strict reader first.
fn operations(patch: &[u8], validation: FieldValidation) -> Result<Operations, ApiError> {
    let strict = validation != FieldValidation::Ignore;
    let refuse = |why: String| match strict {
        true => ApiError::bad_request(format!("error decoding patch: {why}")),
        false => ApiError::bad_request(why),
    };
    let (decoded, duplicates) =
        schema::decode_strict(patch).map_err(|refused| refuse(refused.into_message()))?;
    let cannot = |value: &Value, wanted: &str| {
        let what = go::json_type(value);
        refuse(format!("json: cannot unmarshal {what} into Go {wanted}"))
    };
    let list = match decoded {
        Value::Array(list) => list,
        Value::Null => Vec::new(),
        other if strict => return Err(cannot(&other, "value of type []handlers.jsonPatchOp")),
        other => return Err(cannot(&other, "value of type jsonpatch.Patch")),
    };
    let mut findings = Vec::new();
    let mut operations = Vec::with_capacity(list.len());
    for (place, operation) in list.into_iter().enumerate() {
        let Value::Object(operation) = operation else {
            let kind = if strict { "handlers.jsonPatchOp" } else { "jsonpatch.Operation" };
            return Err(cannot(&operation, &format!("value of type {kind}")));
        };
        for (name, value) in operation.iter().filter(|_| strict) {
            match name.as_str() {
                "op" | "path" | "from" if !value.is_string() && !value.is_null() => {
                    let wanted = format!("struct field jsonPatchOp.{name} of type string");
                    return Err(cannot(value, &wanted));
                }
                "op" | "path" | "from" | "value" => {}
                _ => findings.push(format!("json patch unknown field \"[{place}].{name}\"")),
            }
        }
        operations.push(operation);
    }
    if strict {
        findings
            .extend(duplicates.iter().map(|path| format!("json patch duplicate field {path:?}")));
    }
    Ok((operations, findings))
}

fn apply(
    document: &mut Value,
    operation: &mut Map<String, Value>,
    copied_bytes: &mut usize,
) -> Applied<()> {
    // Go reads a missing value as null: kopf and others leave it out.
    let value = operation.remove("value").unwrap_or(Value::Null);
    let path = text(operation, "path")?;
    match text(operation, "op")? {
        "add" => add(document, path, value),
        "remove" => remove(document, path).map(drop),
        "replace" => replace(document, path, value),
        "test" => test(document, path, &value),
        "move" => {
            let moved = remove(document, text(operation, "from")?)?;
            add(document, path, moved)
        }
        "copy" => {
            let copy = get(document, text(operation, "from")?)?.cloned().unwrap_or(Value::Null);
            *copied_bytes += copy.to_string().len();
            if *copied_bytes > COPIED_BYTES_MAX {
                return Err(DoesNotApply);
            }
            add(document, path, copy)
        }
        _ => Err(DoesNotApply),
    }
}

fn text<'o>(operation: &'o Map<String, Value>, name: &str) -> Applied<&'o str> {
    operation.get(name).and_then(Value::as_str).ok_or(DoesNotApply)
}

/// The value that holds the path's last token, and that token.
fn parent<'d>(document: &'d mut Value, path: &str) -> Applied<(&'d mut Value, String)> {
    let (parents, last) = path.rsplit_once('/').ok_or(DoesNotApply)?;
    let mut at = document;
    for token in parents.split('/').skip(1) {
        let token = unescape(token);
        at = match at {
            Value::Object(map) => map.get_mut(&token),
            Value::Array(list) => {
                let index = index_in(&token, list.len())?;
                list.get_mut(index)
            }
            _ => None,
        }
        .ok_or(DoesNotApply)?;
    }
    Ok((at, unescape(last)))
}

fn get<'d>(document: &'d mut Value, path: &str) -> Applied<Option<&'d Value>> {
    let (parent, last) = parent(document, path)?;
    match parent {
        Value::Object(map) => Ok(map.get(&last)),
        Value::Array(list) => Ok(Some(&list[index_in(&last, list.len())?])),
        _ => Err(DoesNotApply),
    }
}

fn add(document: &mut Value, path: &str, value: Value) -> Applied<()> {
    let (parent, last) = parent(document, path)?;
    match parent {
        Value::Object(map) => {
            map.insert(last, value);
        }
        Value::Array(list) if last == "-" => list.push(value),
        // One place more than there are elements: behind the last one.
        Value::Array(list) => {
            let index = index_in(&last, list.len() + 1)?;
            list.insert(index, value);
        }
        _ => return Err(DoesNotApply),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Applied<Value> {
    let (parent, last) = parent(document, path)?;
    match parent {
        Value::Object(map) => map.remove(&last).ok_or(DoesNotApply),
        Value::Array(list) => {
            let index = index_in(&last, list.len())?;
            Ok(list.remove(index))
        }
        _ => Err(DoesNotApply),
    }
}

/// Replacing a member that is not there adds it: so does the Go library Kubernetes uses.
fn replace(document: &mut Value, path: &str, value: Value) -> Applied<()> {
    let (parent, last) = parent(document, path)?;
    match parent {
        Value::Object(map) => {
            map.insert(last, value);
        }
        Value::Array(list) => {
            let index = index_in(&last, list.len())?;
            list[index] = value;
        }
        _ => return Err(DoesNotApply),
    }
    Ok(())
}

/// A missing member equals null.
fn test(document: &mut Value, path: &str, wanted: &Value) -> Applied<()> {
    let found = get(document, path)?.unwrap_or(&Value::Null);
    if found == wanted { Ok(()) } else { Err(DoesNotApply) }
}

/// An index into `length` elements; negative counts from the end.
fn index_in(token: &str, length: usize) -> Applied<usize> {
    let index: i64 = token.parse().map_err(|_| DoesNotApply)?;
    let index = if index < 0 { index + length as i64 } else { index };
    usize::try_from(index).ok().filter(|index| *index < length).ok_or(DoesNotApply)
}

fn unescape(token: &str) -> String {
    if token.contains('~') { token.replace("~1", "/").replace("~0", "~") } else { token.to_owned() }
}
