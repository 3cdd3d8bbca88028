//! What Go's JSON decoder says about a text that is no JSON: clients see it in answers with 400.
//!
//! Only for texts that were found wrong already; nothing here is on the way of a good request.

use serde_json::Value;

use crate::status::Cause;

/// Nesting that the decoder of this server follows.
const DEPTH_MAX: usize = 127;

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
        ("object", _) => "struct",
        ("array", _) => "[]string",
        (other, _) => other,
    };
    Some(format!(
        "json: cannot unmarshal {found} into Go struct field {structure}.{field} of type {wanted}"
    ))
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

/// What Go says about a text that serde_json refused with `error`, which is repeated where Go would
/// have found nothing wrong.
pub(crate) fn syntax_error(text: &[u8], error: &serde_json::Error) -> String {
    let mut scanner = Scanner { text, at: 0 };
    match scanner.document() {
        Err(why) => why,
        Ok(()) => error.to_string(),
    }
}

type Scanned = Result<(), String>;

struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
}

impl Scanner<'_> {
    fn document(&mut self) -> Scanned {
        self.value(0)?;
        self.spaces();
        match self.text.get(self.at) {
            None => Ok(()),
            Some(_) => Err(self.unexpected("after top-level value")),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn spaces(&mut self) {
        while self.peek().is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn unexpected(&self, context: &str) -> String {
        match self.peek() {
            None => "unexpected end of JSON input".to_owned(),
            Some(byte) => format!("invalid character {} {context}", quoted(byte)),
        }
    }

    fn value(&mut self, depth: usize) -> Scanned {
        if depth > DEPTH_MAX {
            return Err("exceeded max depth".to_owned());
        }
        self.spaces();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.unexpected("looking for beginning of value")),
        }
    }

    fn object(&mut self, depth: usize) -> Scanned {
        self.at += 1;
        self.spaces();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.spaces();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("looking for beginning of object key string"));
            }
            self.string()?;
            self.spaces();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("after object key"));
            }
            self.at += 1;
            self.value(depth + 1)?;
            self.spaces();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.unexpected("after object key:value pair")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Scanned {
        self.at += 1;
        self.spaces();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            self.spaces();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.unexpected("after array element")),
            }
        }
    }

    fn string(&mut self) -> Scanned {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                }
                Some(0..0x20) | None => return Err(self.unexpected("in string literal")),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Scanned {
        match self.peek() {
            Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.unexpected("in \\u hexadecimal character escape"));
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.unexpected("in string escape code")),
        }
        Ok(())
    }

    fn digits(&mut self, context: &str) -> Scanned {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.unexpected(context));
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Scanned {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits("in numeric literal")?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Scanned {
        for wanted in word.bytes() {
            if self.peek() != Some(wanted) {
                let context = format!("in literal {word} (expecting '{}')", char::from(wanted));
                return Err(self.unexpected(&context));
            }
            self.at += 1;
        }
        Ok(())
    }
}

/// A byte as Go's decoder quotes it.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
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

    #[test]
    fn errors_are_those_of_go() {
        for (text, wanted) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("{\"a\"", "unexpected end of JSON input"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("{a", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{\"a\":}", "invalid character '}' looking for beginning of value"),
            ("tru3", "invalid character '3' in literal true (expecting 'e')"),
            ("\"a\nb\"", r"invalid character '\n' in string literal"),
            (r#""\q""#, "invalid character 'q' in string escape code"),
            (r#""\u12x4""#, r"invalid character 'x' in \u hexadecimal character escape"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1ex", "invalid character 'x' in exponent of numeric literal"),
            ("01", "invalid character '1' after top-level value"),
        ] {
            let error = serde_json::from_str::<Value>(text).unwrap_err();
            assert_eq!(syntax_error(text.as_bytes(), &error), wanted, "{text}");
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        let error = serde_json::from_str::<Value>(&deep).unwrap_err();
        assert_eq!(syntax_error(deep.as_bytes(), &error), "exceeded max depth");
    }
}
