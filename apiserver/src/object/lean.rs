//! Parts of a body that somebody asked for, cut out of its bytes: nothing is parsed into a tree.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
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
        let Some(member) = self.managed_fields() else { return (self.to_value(), None) };
        let member_text = &self.body[member.clone()];
        let value_at = member_text.iter().position(|byte| *byte == b':').map_or(0, |at| at + 1);
        let value = member_text[value_at..].strip_suffix(b",").unwrap_or(&member_text[value_at..]);
        let entries = std::str::from_utf8(value).expect("the body was parsed").to_owned();
        let mut rest = Vec::with_capacity(self.body.len() - member.len());
        rest.extend_from_slice(&self.body[..member.start]);
        rest.extend_from_slice(&self.body[member.end..]);
        let rest = serde_json::from_slice(&rest);
        (rest.expect("a body without one of its members parses too"), Some(entries))
    }

    /// The whole body, or the one without `metadata.managedFields`.
    pub(crate) fn body_of(&self, lean: bool) -> Bytes {
        match self.without_managed_fields() {
            (before, after) if lean && !after.is_empty() => {
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
