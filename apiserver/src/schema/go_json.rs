//! JSON read as Go's decoder reads it, and what it says about a text that it can't read.
//!
//! Only for texts that `serde_json` refused: Go takes some of them (halves of surrogate pairs, bytes
//! that are no UTF-8), and clients see its words about the others in answers with 400.

use serde_json::{Map, Value};

use super::decode::exact;
use super::path::Path;

/// Nesting that this server follows; Go goes on to 10 000.
const DEPTH_MAX: usize = 127;

/// Why a text cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is no JSON.
    Syntax(String),
    /// It is, and holds what no type of Go takes; with all of it.
    Value(String, Value),
}

impl Refused {
    pub(crate) fn into_message(self) -> String {
        let (Refused::Syntax(why) | Refused::Value(why, _)) = self;
        why
    }
}

/// A text that `serde_json` refused, and the paths of its duplicate fields.
///
/// # Errors
/// In Go's words.
pub(super) fn read(text: &[u8]) -> Result<(Value, Vec<String>), Refused> {
    let mut reader = Reader { text, at: 0, duplicates: Vec::new(), out_of_range: None };
    let value = reader.document().map_err(Refused::Syntax)?;
    match reader.out_of_range {
        None => Ok((value, reader.duplicates)),
        Some(number) => {
            let why =
                format!("json: cannot unmarshal number {number} into Go value of type float64");
            Err(Refused::Value(why, value))
        }
    }
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
    duplicates: Vec<String>,
    /// The first number that is too large; what is wrong with the syntax counts before it.
    out_of_range: Option<String>,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<Value, String> {
        let value = self.value(&Path::Root, 0)?;
        self.spaces();
        match self.text.get(self.at) {
            None => Ok(value),
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

    fn value(&mut self, path: &Path<'_>, depth: usize) -> Result<Value, String> {
        self.spaces();
        match self.peek() {
            Some(b'{' | b'[') if depth >= DEPTH_MAX => Err(self.unexpected("exceeded max depth")),
            Some(b'{') => self.object(path, depth),
            Some(b'[') => self.array(path, depth),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true").map(|()| true.into()),
            Some(b'f') => self.literal("false").map(|()| false.into()),
            Some(b'n') => self.literal("null").map(|()| Value::Null),
            _ => Err(self.unexpected("looking for beginning of value")),
        }
    }

    fn object(&mut self, path: &Path<'_>, depth: usize) -> Result<Value, String> {
        let mut map = Map::new();
        self.at += 1;
        self.spaces();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(map));
        }
        loop {
            self.spaces();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("looking for beginning of object key string"));
            }
            let name = self.string()?;
            self.spaces();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("after object key"));
            }
            self.at += 1;
            let at = Path::Member(path, &name);
            let value = self.value(&at, depth + 1)?;
            if map.contains_key(&name) {
                self.duplicates.push(at.to_string());
            }
            map.insert(name, value);
            self.spaces();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Value::Object(map));
                }
                _ => return Err(self.unexpected("after object key:value pair")),
            }
        }
    }

    fn array(&mut self, path: &Path<'_>, depth: usize) -> Result<Value, String> {
        let mut list = Vec::new();
        self.at += 1;
        self.spaces();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(list));
        }
        loop {
            let value = self.value(&Path::Item(path, list.len()), depth + 1)?;
            list.push(value);
            self.spaces();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::Array(list));
                }
                _ => return Err(self.unexpected("after array element")),
            }
        }
    }

    /// Bytes that are no UTF-8 become U+FFFD.
    fn string(&mut self) -> Result<String, String> {
        let mut out = Vec::new();
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(String::from_utf8_lossy(&out).into_owned());
                }
                Some(b'\\') => {
                    self.at += 1;
                    let c = self.escape()?;
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Some(0..0x20) | None => return Err(self.unexpected("in string literal")),
                Some(byte) => {
                    out.push(byte);
                    self.at += 1;
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let c = match self.peek() {
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(byte @ (b'\\' | b'/' | b'"')) => char::from(byte),
            Some(b'u') => {
                self.at += 1;
                return self.code_point();
            }
            _ => return Err(self.unexpected("in string escape code")),
        };
        self.at += 1;
        Ok(c)
    }

    /// Half a surrogate pair alone is U+FFFD.
    fn code_point(&mut self) -> Result<char, String> {
        let first = self.hexadecimal()?;
        if !(0xd800..0xdc00).contains(&first) || !self.text[self.at..].starts_with(b"\\u") {
            return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let after_first = self.at;
        self.at += 2;
        let second = self.hexadecimal()?;
        if (0xdc00..0xe000).contains(&second) {
            let point = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            return Ok(char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        self.at = after_first;
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hexadecimal(&mut self) -> Result<u32, String> {
        let mut number = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.unexpected("in \\u hexadecimal character escape"));
            };
            number = number * 16 + digit;
            self.at += 1;
        }
        Ok(number)
    }

    fn digits(&mut self, context: &str) -> Result<(), String> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.unexpected(context));
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Value, String> {
        let begin = self.at;
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
        let text = String::from_utf8_lossy(&self.text[begin..self.at]);
        if let Ok(integer) = text.parse::<i64>() {
            return Ok(integer.into());
        }
        let float: f64 = text.parse().unwrap_or(f64::INFINITY);
        if float.is_infinite() {
            self.out_of_range.get_or_insert_with(|| text.into_owned());
        }
        Ok(exact(float).map_or_else(|| float.into(), Value::from))
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
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
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        // Of the first 256 characters those that Go does not print.
        0x80..=0xa0 | 0xad => format!("'\\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

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
            assert_eq!(read(text.as_bytes()), Err(Refused::Syntax(wanted.to_owned())), "{text}");
        }
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let deep = Refused::Syntax("invalid character '[' exceeded max depth".to_owned());
        assert_eq!(read(nested(DEPTH_MAX + 1).as_bytes()), Err(deep));
        assert!(read(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert!(serde_json::from_str::<Value>(&nested(DEPTH_MAX)).is_ok(), "as serde_json");
    }

    #[test]
    fn what_go_takes_is_taken() {
        for (text, wanted) in [
            (&br#""a\ud800b""#[..], json!("a\u{fffd}b")),
            (br#""\udc00\ud83d\ude00\ud800\u0041""#, json!("\u{fffd}\u{1f600}\u{fffd}A")),
            (b"\"a\xff\"", json!("a\u{fffd}")),
            (br#"[1.0, 1e2, -0, 2.5, true, false, null, "\n\/\\"]"#, {
                json!([1, 100, 0, 2.5, true, false, null, "\n/\\"])
            }),
        ] {
            assert_eq!(read(text).unwrap(), (wanted, Vec::new()));
        }
        let twice = read(br#"{"a":[{"b":1,"b":2}],"a":{}}"#).unwrap();
        assert_eq!(twice, (json!({"a": {}}), vec!["a[0].b".to_owned(), "a".to_owned()]));
    }

    #[test]
    fn a_number_that_no_float_holds_is_no_syntax_error() {
        let why = "json: cannot unmarshal number 1e999 into Go value of type float64";
        let refused = read(br#"{"a":[1e999,-1e999]}"#).unwrap_err();
        assert_eq!(refused, Refused::Value(why.to_owned(), json!({"a": [null, null]})));
        assert!(matches!(read(b"[1e999"), Err(Refused::Syntax(_))));
    }
}
