//! Parts of a body that somebody asked for, cut out of its bytes: nothing is parsed into a tree.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::Object;

const MANAGED_FIELDS: &str = "managedFields";
/// The member's name as it is printed, and the colon.
const MEMBER_OPEN: &[u8] = b"\"managedFields\":";

impl Object {
    /// The body before and after `metadata.managedFields`: together the object without them.
    pub(crate) fn without_managed_fields(&self) -> (&[u8], &[u8]) {
        match self.managed_fields() {
            Some(member) => (&self.body[..member.start], &self.body[member.end..]),
            None => (&self.body, &[]),
        }
    }

    /// The body as a tree without `metadata.managedFields`, and those as they stand in it.
    pub(crate) fn to_value_and_entries(&self) -> (Value, Option<String>) {
        let mut entries = None;
        let whole = Without { inside: false, entries: &mut entries };
        let value = whole.deserialize(&mut serde_json::Deserializer::from_slice(&self.body));
        (value.expect("the cache holds only bodies that parsed"), entries)
    }

    /// The whole body, or the one without `metadata.managedFields`.
    pub(crate) fn body_of(&self, lean: bool) -> Bytes {
        if !lean {
            return self.body.clone();
        }
        match self.without_managed_fields() {
            (before, after) if !after.is_empty() => {
                let mut body = BytesMut::with_capacity(before.len() + after.len());
                body.put_slice(before);
                body.put_slice(after);
                body.freeze()
            }
            _ => self.body.clone(),
        }
    }

    /// Writes `metadata` as it stands in the body.
    pub(crate) fn put_metadata(&self, out: &mut Vec<u8>, lean: bool) {
        let start = self.splice_at - 1;
        let mut values = serde_json::Deserializer::from_slice(&self.body[start..]).into_iter();
        let _: Option<Result<IgnoredAny, _>> = values.next();
        let end = start + values.byte_offset();
        match self.managed_fields().filter(|_| lean) {
            Some(member) => {
                out.extend_from_slice(&self.body[start..member.start]);
                out.extend_from_slice(&self.body[member.end..end]);
            }
            None => out.extend_from_slice(&self.body[start..end]),
        }
    }

    /// Where `metadata.managedFields` is, with its name and one comma beside it.
    fn managed_fields(&self) -> Option<Range<usize>> {
        let start = self.splice_at - 1;
        let mut found = None;
        let mut json = serde_json::Deserializer::from_slice(&self.body[start..]);
        // It stops at what it looks for, which the parser takes for an error.
        let _ = json.deserialize_map(Find(&mut found));
        let value: &str = found?;
        let end = value.as_ptr() as usize - self.body.as_ptr() as usize + value.len();
        let start = end - value.len() - MEMBER_OPEN.len();
        debug_assert_eq!(&self.body[start..][..MEMBER_OPEN.len()], MEMBER_OPEN);
        Some(match (self.body[start - 1], self.body[end]) {
            (b',', _) => start - 1..end,
            (_, b',') => start..end + 1,
            _ => start..end,
        })
    }
}

/// Looks for the value of the one member.
struct Find<'f, 'de>(&'f mut Option<&'de str>);

impl<'de> Visitor<'de> for Find<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name == MANAGED_FIELDS {
                *self.0 = Some(map.next_value::<&'de RawValue>()?.get());
                return Ok(());
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// Builds the tree of an object, or of the metadata inside one, and leaves the one member of the metadata
/// text.
struct Without<'e> {
    inside: bool,
    entries: &'e mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Without<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Without<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let Without { inside, entries } = self;
        let mut members = serde_json::Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = match (inside, name.as_str()) {
                (false, "metadata") => {
                    map.next_value_seed(Without { inside: true, entries: &mut *entries })?
                }
                (true, MANAGED_FIELDS) => {
                    *entries = Some(map.next_value::<&'de RawValue>()?.get().to_owned());
                    continue;
                }
                _ => map.next_value()?,
            };
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}
