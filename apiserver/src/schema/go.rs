//! What Go's JSON decoder says about a text that is no JSON: clients see it in answers with 400.
//!
//! Only for texts that were found wrong already; nothing here is on the way of a good request.

use serde_json::Value;

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
