//! Request bodies in Kubernetes' protobuf form, which Go clients send for built-in kinds unasked.
//!
//! Turned into the JSON that the same object has, by tables of field numbers. Only requests: every
//! client takes JSON for an answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

mod definition;
mod messages;
#[cfg(test)]
mod tests;

/// `runtime.Unknown` follows.
const MAGIC: &[u8] = b"k8s\0";
/// Schemas in a CustomResourceDefinition nest as deep as objects do; this leaves room without
/// risking the stack.
const DEPTH_MAX: usize = 64;

/// What a field holds.
#[derive(Clone, Copy)]
enum Holds {
    /// Empty means absent, as in Go's `omitempty`.
    Text,
    /// A pointer in Go: empty text and zero are values.
    MaybeText,
    Texts,
    Bool,
    Int,
    MaybeInt,
    /// Seconds precision; the zero time is absent.
    Time,
    MicroTime,
    /// Base64 in JSON.
    TextMap,
    BytesMap,
    /// Lists of text, each in a message of its own (`ExtraValue`).
    TextsMap,
    /// JSON inside bytes inside a message.
    Fields,
    /// As `Fields`, and many of them.
    Json,
    Jsons,
    /// False means absent.
    Flag,
    Double,
    /// A map from names to messages.
    ManyByName(&'static Message),
    /// A message, or something else in its place.
    OneOr(&'static Message, Or),
    One(&'static Message),
    Many(&'static Message),
}

/// What may stand in the place of a schema.
#[derive(Clone, Copy)]
enum Or {
    /// The schema is field 2, what stands in its place field 1.
    Bool,
    /// The schema is field 1, schemas in its place are field 2.
    Many,
}

struct Field {
    number: u64,
    name: &'static str,
    holds: Holds,
}

struct Message {
    fields: &'static [Field],
}

/// # Errors
/// Why this is no object in protobuf at all, as kube-apiserver says it.
pub(super) fn check_envelope(bytes: &[u8]) -> Result<(), String> {
    match bytes {
        [] => Err("empty data".to_owned()),
        bytes if bytes.starts_with(MAGIC) => Ok(()),
        _ => Err("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
            .to_owned()),
    }
}

/// The object in a protobuf body; `None` when it is malformed or of a kind without a table.
pub(super) fn decode(bytes: &[u8]) -> Option<Value> {
    let body = bytes.strip_prefix(MAGIC)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Reader(body) {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in Reader(meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => api_version = text_of(text)?,
                        (2, Wire::Bytes(text)) => kind = text_of(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(inner)) => raw = inner,
            // Compressed, or not protobuf: nobody sends that.
            (3 | 4, Wire::Bytes(other))
                if !other.is_empty() && other != b"application/vnd.kubernetes.protobuf" =>
            {
                return None;
            }
            _ => {}
        }
    }
    let mut object = message(messages::of_kind(&api_version, &kind)?, raw, DEPTH_MAX)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Some(Value::Object(object))
}

fn message(message: &Message, bytes: &[u8], depth: usize) -> Option<Map<String, Value>> {
    let depth = depth.checked_sub(1)?;
    let mut object = Map::new();
    for field in Reader(bytes) {
        let (number, wire) = field?;
        if let Some(field) = message.fields.iter().find(|field| field.number == number) {
            set(&mut object, field, wire, depth)?;
        }
    }
    Some(object)
}

fn set(object: &mut Map<String, Value>, field: &Field, wire: Wire<'_>, depth: usize) -> Option<()> {
    let name = field.name;
    let value = match (field.holds, wire) {
        (Holds::Text, Wire::Bytes([])) => return Some(()),
        (Holds::Text | Holds::MaybeText, Wire::Bytes(text)) => text_of(text)?.into(),
        (Holds::Bool, Wire::Number(value)) => (value != 0).into(),
        (Holds::Int, Wire::Number(0)) => return Some(()),
        // Negative numbers are sent as their two's complement.
        (Holds::Int | Holds::MaybeInt, Wire::Number(value)) => value.cast_signed().into(),
        (Holds::Time, Wire::Bytes(time)) => match instant(time)? {
            Some(at) => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
            None => return Some(()),
        },
        (Holds::MicroTime, Wire::Bytes(time)) => match instant(time)? {
            Some(at) => at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into(),
            None => return Some(()),
        },
        (Holds::Flag, Wire::Number(0)) => return Some(()),
        (Holds::Flag, Wire::Number(_)) => true.into(),
        (Holds::Double, Wire::Fixed64(bits)) => number(f64::from_bits(bits)),
        (Holds::Fields | Holds::Json, Wire::Bytes(bytes)) => json_in(bytes)?,
        (Holds::Jsons, Wire::Bytes(bytes)) => return push(object, name, json_in(bytes)?),
        (Holds::OneOr(inner, or), Wire::Bytes(bytes)) => one_or(inner, or, bytes, depth)?,
        (Holds::ManyByName(inner), Wire::Bytes(bytes)) => {
            let (key, value) = named(bytes)?;
            let value = message(inner, value, depth)?.into();
            let map = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
            map.as_object_mut()?.insert(key, value);
            return Some(());
        }
        (Holds::One(inner), Wire::Bytes(bytes)) => message(inner, bytes, depth)?.into(),
        (Holds::Texts, Wire::Bytes(text)) => return push(object, name, text_of(text)?.into()),
        (Holds::Many(inner), Wire::Bytes(bytes)) => {
            let value = message(inner, bytes, depth)?.into();
            return push(object, name, value);
        }
        (Holds::TextMap | Holds::BytesMap | Holds::TextsMap, Wire::Bytes(bytes)) => {
            let (key, value) = entry(field.holds, bytes)?;
            let map = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
            map.as_object_mut()?.insert(key, value);
            return Some(());
        }
        _ => return None,
    };
    object.insert(name.into(), value);
    Some(())
}

fn push(object: &mut Map<String, Value>, name: &str, value: Value) -> Option<()> {
    let list = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
    list.as_array_mut()?.push(value);
    Some(())
}

fn json_in(bytes: &[u8]) -> Option<Value> {
    let raw = Reader(bytes).find_map(|field| match field? {
        (1, Wire::Bytes(raw)) => Some(raw),
        _ => None,
    });
    serde_json::from_slice(raw?).ok()
}

/// Whole numbers as Go's JSON has them: without a point.
fn number(value: f64) -> Value {
    match value.fract() == 0.0 && value.abs() < 9e15 {
        true => (value as i64).into(),
        false => value.into(),
    }
}

fn one_or(inner: &Message, or: Or, bytes: &[u8], depth: usize) -> Option<Value> {
    let (mut schema, mut other) = (None, Value::Null);
    for field in Reader(bytes) {
        match (or, field?) {
            (Or::Bool, (1, Wire::Number(allows))) => other = (allows != 0).into(),
            (Or::Bool, (2, Wire::Bytes(bytes))) | (Or::Many, (1, Wire::Bytes(bytes))) => {
                schema = Some(message(inner, bytes, depth)?.into());
            }
            (Or::Many, (2, Wire::Bytes(bytes))) => {
                if other.is_null() {
                    other = Value::Array(Vec::new());
                }
                other.as_array_mut()?.push(message(inner, bytes, depth)?.into());
            }
            _ => {}
        }
    }
    Some(schema.unwrap_or(other))
}

/// Key and value of an entry of a map.
fn named(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (mut key, mut value) = (String::new(), &[][..]);
    for field in Reader(bytes) {
        match field? {
            (1, Wire::Bytes(text)) => key = text_of(text)?,
            (2, Wire::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Some((key, value))
}

fn entry(holds: Holds, bytes: &[u8]) -> Option<(String, Value)> {
    let (key, value) = named(bytes)?;
    let value = match holds {
        Holds::BytesMap => STANDARD.encode(value).into(),
        Holds::TextsMap => texts(value)?,
        _ => text_of(value)?.into(),
    };
    Some((key, value))
}

fn texts(bytes: &[u8]) -> Option<Value> {
    let mut all = Vec::new();
    for field in Reader(bytes) {
        if let (1, Wire::Bytes(text)) = field? {
            all.push(Value::from(text_of(text)?));
        }
    }
    Some(all.into())
}

/// `Some(None)` is the zero time.
fn instant(bytes: &[u8]) -> Option<Option<Timestamp>> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    for field in Reader(bytes) {
        match field? {
            (1, Wire::Number(value)) => seconds = value.cast_signed(),
            (2, Wire::Number(value)) => nanos = value.cast_signed(),
            _ => {}
        }
    }
    // Go's zero time lies in the year 1; an absent one is an empty message.
    if bytes.is_empty() || seconds == -62_135_596_800 {
        return Some(None);
    }
    Timestamp::new(seconds, i32::try_from(nanos).ok()?).ok().map(Some)
}

fn text_of(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// A field's value as it is on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed64(u64),
    /// None of our kinds has one.
    Fixed32,
}

/// The fields of a message, in order; an inner `None` for what is malformed, and then the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed32)?,
            _ => return None,
        };
        Some((tag >> 3, wire))
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Option<(u64, Wire<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}
