//! One stored object as the cache holds it: the bytes that clients get, and the few values that
//! selecting and dispatching need.
//!
//! An [`Object`] never changes; a new version is a new one. Nothing here parses `spec` or `status`
//! into a tree: the body is raw JSON with `metadata.resourceVersion` spliced in once.

mod decode;
mod lean;
#[cfg(test)]
mod tests;
mod versions;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use commonage_store::Version;
use serde_json::{Map, Value};

pub(crate) use decode::Fields;
pub(crate) use versions::{Normal, encode_as};

use crate::cache::EventKind;
use crate::encryption::{ENCRYPTED, UNDECIPHERABLE};

/// A version of an object. Shared behind an `Arc` by the cache, snapshots, the event log, watchers.
#[derive(Debug)]
pub struct Object {
    /// `namespace/name`; `/name` for cluster-scoped kinds. Orders like the store's keys do.
    path: Arc<str>,
    namespace_length: usize,
    pub uid: Box<str>,
    /// Zero for the answer of a dry run, which has no version.
    pub version: Version,
    /// The whole object as JSON, `metadata.resourceVersion` included.
    pub body: Bytes,
    /// Where `resourceVersion` is spliced into the body: just after `"metadata":{`.
    splice_at: usize,
    /// Sorted by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// Values of the definition's selectable fields, in its order; `None` where absent.
    pub fields: Box<[Option<Box<str>>]>,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
}

impl PartialEq for Object {
    fn eq(&self, other: &Object) -> bool {
        self.version == other.version && self.path == other.path && self.body == other.body
    }
}

/// A stored value that is not an object of ours.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("{0}")]
    Undecipherable(String),
    #[error("the value is not JSON; it can be deleted")]
    Json(#[from] serde_json::Error),
    #[error("the value has no metadata before its spec; it can be deleted")]
    NoMetadata,
}

/// A store that decrypts says why it could not, in the place of the value.
fn undecipherable(value: &[u8], error: serde_json::Error) -> DecodeError {
    match value.strip_prefix(UNDECIPHERABLE.as_bytes()) {
        Some(why) => DecodeError::Undecipherable(format!(
            "it can't be decrypted: {}",
            String::from_utf8_lossy(why)
        )),
        // It is what another configuration made of it, and good.
        None if value.starts_with(ENCRYPTED) => DecodeError::Undecipherable(
            "it is encrypted, and this server has no encryption configuration".to_owned(),
        ),
        None => error.into(),
    }
}

/// What every stored value has, in this order, before anything else: so the place to splice is
/// found without parsing.
const METADATA_OPEN: &[u8] = b"\"metadata\":{";
const VERSION_OPEN: &[u8] = b"\"resourceVersion\":\"";
const VERSION_CLOSE: &[u8] = b"\",";

impl Object {
    /// Empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        &self.path[..self.namespace_length]
    }

    pub fn name(&self) -> &str {
        &self.path[self.namespace_length + 1..]
    }

    /// `namespace/name`, the order of lists.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn shared_path(&self) -> Arc<str> {
        self.path.clone()
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.labels[at].1)
    }

    /// The body as a tree, for whoever changes or renders it.
    pub fn to_value(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the cache holds only bodies that parsed")
    }

    /// From a stored value; returns the watch line of `kind` too, whose bytes the body shares.
    pub(crate) fn decode(
        fields: &Fields,
        path: &str,
        value: &[u8],
        version: Version,
        kind: EventKind,
    ) -> Result<(Object, Bytes), DecodeError> {
        let light = fields.extract(value).map_err(|error| undecipherable(value, error))?;
        let splice_at = METADATA_OPEN.len()
            + value
                .windows(METADATA_OPEN.len())
                .position(|window| window == METADATA_OPEN)
                .ok_or(DecodeError::NoMetadata)?;
        let (line, body) = frame(kind, &value[..splice_at], version, &value[splice_at..]);
        let object = Object {
            path: Arc::from(path),
            namespace_length: path.find('/').unwrap_or(0),
            uid: light.uid,
            version,
            body,
            splice_at,
            labels: light.labels,
            fields: light.fields,
            deleting: light.deleting,
        };
        Ok((object, line))
    }

    /// This content under another version, and its watch line: what the last event of a deleted
    /// object says, and the first or last of one that enters or leaves a selection.
    pub(crate) fn at_version(&self, version: Version, kind: EventKind) -> (Object, Bytes) {
        let (before, after) = self.around_version();
        let (line, body) = frame(kind, before, version, after);
        let object = Object {
            path: self.path.clone(),
            namespace_length: self.namespace_length,
            uid: self.uid.clone(),
            version,
            body,
            splice_at: self.splice_at,
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            deleting: self.deleting,
        };
        (object, line)
    }

    /// Another content at this place and version: how a view shows the object.
    pub(crate) fn shown_as(&self, uid: &str, content: &Value, kind: EventKind) -> (Object, Bytes) {
        let stored = encode(content);
        let before_metadata = stored
            .windows(METADATA_OPEN.len())
            .position(|window| window == METADATA_OPEN)
            .expect("encode writes the metadata, and a view has a name in it");
        let splice_at = before_metadata + METADATA_OPEN.len();
        let (line, body) = frame(kind, &stored[..splice_at], self.version, &stored[splice_at..]);
        let object = Object {
            path: self.path.clone(),
            namespace_length: self.namespace_length,
            uid: uid.into(),
            version: self.version,
            body,
            splice_at,
            labels: self.labels.clone(),
            fields: Box::default(),
            deleting: self.deleting,
        };
        (object, line)
    }

    /// The watch line of `kind` for this very version.
    pub(crate) fn line(&self, kind: EventKind) -> Bytes {
        let (before, after) = self.around_version();
        frame(kind, before, self.version, after).0
    }

    /// The body before and after the spliced version.
    fn around_version(&self) -> (&[u8], &[u8]) {
        let spliced = match self.version {
            Version(0) => 0,
            Version(version) => VERSION_OPEN.len() + decimal_digits(version) + VERSION_CLOSE.len(),
        };
        (&self.body[..self.splice_at], &self.body[self.splice_at + spliced..])
    }
}

/// The watch line, and the object's JSON inside it as a slice of the same buffer.
fn frame(kind: EventKind, before: &[u8], version: Version, after: &[u8]) -> (Bytes, Bytes) {
    const OVERHEAD: usize = 24 + 8 + VERSION_OPEN.len() + 20 + VERSION_CLOSE.len();
    let mut line = BytesMut::with_capacity(before.len() + after.len() + OVERHEAD);
    kind.open(&mut line);
    let start = line.len();
    line.put_slice(before);
    if version.0 != 0 {
        line.put_slice(VERSION_OPEN);
        put_decimal(&mut line, version.0);
        line.put_slice(VERSION_CLOSE);
    }
    line.put_slice(after);
    let end = line.len();
    line.put_slice(b"}\n");
    let line = line.freeze();
    let body = line.slice(start..end);
    (line, body)
}

fn decimal_digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |digits| digits as usize + 1)
}

fn put_decimal(out: &mut BytesMut, number: u64) {
    let mut digits = [b'0'; 20];
    let (mut rest, mut at) = (number, digits.len());
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

/// The stored form of an object: apiVersion, kind and metadata first, then the rest in order.
/// `metadata.resourceVersion` must be gone by now: the store's version is the only truth.
pub(crate) fn encode(object: &Value) -> Bytes {
    encode_with(object, None)
}

/// As [`encode`], of an object without `metadata.managedFields` with these: the value as JSON.
pub(crate) fn encode_with(object: &Value, entries: Option<&str>) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    let empty = serde_json::Map::new();
    let members = object.as_object().unwrap_or(&empty);
    let first = ["apiVersion", "kind", "metadata"];
    let head = first.iter().filter_map(|key| members.get(*key).map(|value| (*key, value)));
    let rest = members
        .iter()
        .map(|(key, value)| (key.as_str(), value))
        .filter(|(key, _)| !first.contains(key));
    out.push(b'{');
    for (place, (key, value)) in head.chain(rest).enumerate() {
        if place > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut out, key).expect("a string serializes into memory");
        out.push(b':');
        match (entries, value) {
            (Some(entries), Value::Object(metadata)) if key == "metadata" => {
                put_metadata_with(&mut out, metadata, entries);
            }
            _ => {
                serde_json::to_writer(&mut out, value).expect("a JSON tree serializes into memory")
            }
        }
    }
    out.push(b'}');
    Bytes::from(out)
}

/// The members in their order, the entries in their place among them.
fn put_metadata_with(out: &mut Vec<u8>, metadata: &Map<String, Value>, entries: &str) {
    const MEMBER: &str = "managedFields";
    let mut separator = b'{';
    let mut put = |out: &mut Vec<u8>, name: &str| {
        out.push(std::mem::replace(&mut separator, b','));
        serde_json::to_writer(&mut *out, name).expect("a string serializes into memory");
        out.push(b':');
    };
    let mut left = Some(entries);
    for (name, value) in metadata {
        if let Some(entries) = left.take_if(|_| name.as_str() > MEMBER) {
            put(out, MEMBER);
            out.extend_from_slice(entries.as_bytes());
        }
        put(out, name);
        serde_json::to_writer(&mut *out, value).expect("a JSON tree serializes into memory");
    }
    if let Some(entries) = left {
        put(out, MEMBER);
        out.extend_from_slice(entries.as_bytes());
    }
    out.push(b'}');
}
