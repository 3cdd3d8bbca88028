//! Request bodies in Kubernetes' protobuf form, which Go clients send for built-in kinds unasked.
//!
//! Turned into the JSON that the same object has, by tables of field numbers. Only requests: every
//! client takes JSON for an answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

mod messages;

/// `runtime.Unknown` follows.
const MAGIC: &[u8] = b"k8s\0";
/// Messages nest four deep in the kinds below; ten leaves room without risking the stack.
const DEPTH_MAX: usize = 10;

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
    One(&'static Message),
    Many(&'static Message),
}

struct Field {
    number: u64,
    name: &'static str,
    holds: Holds,
}

struct Message {
    fields: &'static [Field],
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
    let mut object = message(messages::of_kind(&kind)?, raw, DEPTH_MAX)?;
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
        (Holds::Fields, Wire::Bytes(bytes)) => {
            let raw = Reader(bytes).find_map(|field| match field? {
                (1, Wire::Bytes(raw)) => Some(raw),
                _ => None,
            });
            serde_json::from_slice(raw?).ok()?
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

fn entry(holds: Holds, bytes: &[u8]) -> Option<(String, Value)> {
    let (mut key, mut value) = (String::new(), &[][..]);
    for field in Reader(bytes) {
        match field? {
            (1, Wire::Bytes(text)) => key = text_of(text)?,
            (2, Wire::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
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
    /// 32 and 64 bit: none of our kinds has one.
    Fixed,
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
            1 => self.take(8).map(|_| Wire::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed)?,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2, content.len() as u8];
        bytes.extend_from_slice(content);
        bytes
    }

    fn envelope(kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw), field(3, b""), field(4, b"")].concat()
    }

    #[test]
    fn a_config_map_becomes_its_json() {
        let label = [field(1, b"app"), field(2, b"a")].concat();
        // An empty namespace and a zero creationTimestamp, as Go always sends them.
        let meta = [field(1, b"c"), field(3, b""), field(8, b""), field(11, &label)].concat();
        let data = [field(1, b"k"), field(2, b"v")].concat();
        let raw = [field(1, &meta), field(2, &data), field(3, &data), vec![4 << 3, 1]].concat();
        assert_eq!(
            decode(&envelope("ConfigMap", &raw)).unwrap(),
            json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "c", "labels": {"app": "a"}},
                "data": {"k": "v"},
                "binaryData": {"k": "dg=="},
                "immutable": true,
            })
        );
    }

    #[test]
    fn a_lease_keeps_its_microseconds_and_its_empty_holder() {
        // 2026-01-02T03:04:05.000006Z
        let time = [vec![8], varint(1_767_323_045), vec![16], varint(6000)].concat();
        let spec = [field(1, b""), vec![2 << 3, 15], field(4, &time)].concat();
        let lease = decode(&envelope("Lease", &field(2, &spec))).unwrap();
        assert_eq!(
            lease["spec"],
            json!({
                "holderIdentity": "",
                "leaseDurationSeconds": 15,
                "renewTime": "2026-01-02T03:04:05.000006Z",
            })
        );
    }

    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value > 0x7f {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    #[test]
    fn nonsense_is_refused() {
        let whole = envelope("ConfigMap", &field(1, &field(1, b"c")));
        assert!(decode(&whole).is_some());
        for cut in 5..whole.len() - 4 {
            let _ = decode(&whole[..cut]);
        }
        assert!(decode(b"{}").is_none());
        assert!(decode(&envelope("Pod", b"")).is_none());
        assert!(decode(&envelope("ConfigMap", &[0x0a, 0xff])).is_none());
    }
}
