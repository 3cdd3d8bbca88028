//! What Go's JSON decoder says about a text that is no JSON: clients see it in answers with 400.
//!
//! Only for texts that were found wrong already; nothing here is on the way of a good request.

use serde_json::Value;

use super::go_time;
use crate::status::Cause;

/// As Go's `%q` shows a text.
pub(crate) fn quoted(text: &str) -> String {
    let mut shown = String::with_capacity(text.len() + 2);
    shown.push('"');
    for c in text.chars() {
        let escape = match c {
            '"' | '\\' => c,
            '\x07' => 'a',
            '\x08' => 'b',
            '\x0b' => 'v',
            '\x0c' => 'f',
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            c if c.is_ascii_control() => {
                shown.push_str(&format!("\\x{:02x}", u32::from(c)));
                continue;
            }
            // What takes no ink, as far as the standard library knows it.
            c if !c.is_ascii() && (c.is_control() || c.is_whitespace()) => {
                shown.push_str(&format!("\\u{:04x}", u32::from(c)));
                continue;
            }
            c => {
                shown.push(c);
                continue;
            }
        };
        shown.push('\\');
        shown.push(escape);
    }
    shown.push('"');
    shown
}

/// As Go's decoder names what it found.
pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What Go's decoder says of a value of another type in an object of a built-in kind, whose fields it
/// knows; `None` when that is not what is wrong.
pub(crate) fn type_error(kind: &str, cause: &Cause) -> Option<String> {
    if cause.reason != "FieldValueTypeInvalid" {
        return None;
    }
    let found = match cause.message.strip_prefix("Invalid value: \"")?.split('"').next()? {
        "integer" | "number" => "number",
        "boolean" => "bool",
        other => other,
    };
    let wanted = cause.message.split("must be of type ").nth(1)?.split(':').next()?;
    if wanted == "date-time" {
        let micros = ["renewTime", "acquireTime", "eventTime", "lastObservedTime"];
        let of_micros = micros.iter().any(|field| cause.field.ends_with(field));
        let layout = if of_micros { go_time::MICROSECONDS } else { go_time::SECONDS };
        return go_time::check(found, layout).err();
    }
    let path: Vec<&str> = cause.field.split('.').collect();
    let (structure, field) = match path.as_slice() {
        [map @ ("data" | "binaryData" | "stringData"), ..] => (kind.to_owned(), (*map).to_owned()),
        ["spec", _, ..] => (format!("{kind}Spec"), cause.field.clone()),
        ["status", _, ..] => (format!("{kind}Status"), cause.field.clone()),
        ["involvedObject" | "regarding" | "related", _, ..] => {
            ("ObjectReference".to_owned(), cause.field.clone())
        }
        ["series", _, ..] => ("EventSeries".to_owned(), cause.field.clone()),
        _ => (kind.to_owned(), cause.field.clone()),
    };
    let wanted = match (wanted, field.as_str()) {
        ("integer", _) => "int32",
        ("boolean", _) => "bool",
        ("object", "binaryData") => "map[string][]uint8",
        ("object", "data") if kind == "Secret" => "map[string][]uint8",
        ("object", "data" | "stringData") => "map[string]string",
        ("object", "spec") => return Some(part_error(kind, found, "spec", "Spec")),
        ("object", "status") => return Some(part_error(kind, found, "status", "Status")),
        ("object", _) => "struct",
        ("array", _) => "[]string",
        (other, _) => other,
    };
    Some(format!(
        "json: cannot unmarshal {found} into Go struct field {structure}.{field} of type {wanted}"
    ))
}

/// A part of the object that is none.
fn part_error(kind: &str, found: &str, field: &str, part: &str) -> String {
    format!(
        "json: cannot unmarshal {found} into Go struct field {kind}.{field} of type v1.{kind}{part}"
    )
}

/// What apimachinery's converter, which reads what a strategic merge patch made, says where Go's
/// decoder says `why`.
pub(crate) fn conversion_error(why: &str) -> Option<String> {
    let (found, rest) = why.strip_prefix("json: cannot unmarshal ")?.split_once(" into Go ")?;
    let (_, wanted) = rest.rsplit_once(" of type ")?;
    let found = match found {
        "number" => "int64",
        "array" => "slice",
        "object" => "map",
        other => other,
    };
    Some(match wanted {
        // As Go, which would make a character of a number.
        "string" if found == "int64" => "cannot convert int64 to string".to_owned(),
        map if map.starts_with("map[") => format!("cannot restore map from {found}"),
        list if list.starts_with("[]") => format!("cannot restore slice from {found}"),
        "string" | "bool" | "int32" | "int64" => format!("unrecognized type: {wanted}"),
        _ => format!("cannot restore struct from: {found}"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn types_are_those_of_go() {
        let told = |kind, field: &str, found: &str, wanted: &str| {
            let why = format!("{field} in body must be of type {wanted}: \"{found}\"");
            type_error(kind, &Cause::type_invalid(field, &found.into(), &why)).unwrap()
        };
        let prefix = "json: cannot unmarshal number into Go struct field ";
        assert_eq!(
            told("ConfigMap", "data.k", "integer", "string"),
            format!("{prefix}ConfigMap.data of type string")
        );
        assert_eq!(
            told("Lease", "spec.holderIdentity", "integer", "string"),
            format!("{prefix}LeaseSpec.spec.holderIdentity of type string")
        );
        assert_eq!(type_error("Lease", &Cause::required("spec", "")), None);
    }

    #[test]
    fn conversions_fail_as_in_go() {
        for (found, wanted, told) in [
            ("number", "string", "cannot convert int64 to string"),
            ("bool", "string", "unrecognized type: string"),
            ("string", "map[string]string", "cannot restore map from string"),
            ("string", "struct", "cannot restore struct from: string"),
            ("object", "[]string", "cannot restore slice from map"),
            ("string", "int32", "unrecognized type: int32"),
        ] {
            let why =
                format!("json: cannot unmarshal {found} into Go struct field K.f of type {wanted}");
            assert_eq!(conversion_error(&why).unwrap(), told);
        }
    }
}
