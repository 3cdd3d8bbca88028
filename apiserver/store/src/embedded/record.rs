//! How one change lies in the log: its version is the key, this record the value.
//!
//! `kind (1 byte) | length of the key (2 bytes, big endian) | key | value`, and behind the value of
//! a key that goes by itself when it does (8 bytes, big endian, milliseconds of the clock).

use bytes::{BufMut, Bytes};

use crate::{Change, Version};

const PUT: u8 = 1;
const DELETE: u8 = 2;
const PUT_UNTIL: u8 = 3;
/// When an expiring key goes.
const UNTIL_BYTES: usize = 8;
const HEAD_BYTES: usize = 3;

/// A record that cannot be read: the directory is damaged, or not ours.
#[derive(Debug, thiserror::Error)]
#[error("the log record of version {version} is damaged")]
pub(super) struct DamagedRecord {
    version: u64,
}

/// `until`: when the key goes, in milliseconds since 1970.
pub(super) fn encode(change: &Change, until: Option<u64>) -> Vec<u8> {
    let value = change.value.as_deref().unwrap_or_default();
    let mut record = Vec::with_capacity(HEAD_BYTES + change.key.len() + value.len() + UNTIL_BYTES);
    record.put_u8(match (&change.value, until) {
        (None, _) => DELETE,
        (Some(_), None) => PUT,
        (Some(_), Some(_)) => PUT_UNTIL,
    });
    let key_bytes = u16::try_from(change.key.len()).expect("check_write bounds the key's length");
    record.put_u16(key_bytes);
    record.put_slice(&change.key);
    record.put_slice(value);
    if let (Some(_), Some(until)) = (&change.value, until) {
        record.put_u64(until);
    }
    record
}

/// Key and value are slices of `record`, not copies.
pub(super) fn decode(version: Version, record: Bytes) -> Result<Change, DamagedRecord> {
    let damaged = || DamagedRecord { version: version.0 };
    let head = record.get(..HEAD_BYTES).ok_or_else(damaged)?;
    let key_end = HEAD_BYTES + usize::from(u16::from_be_bytes([head[1], head[2]]));
    if record.len() < key_end {
        return Err(damaged());
    }
    let value = match head[0] {
        PUT => Some(record.slice(key_end..)),
        PUT_UNTIL => {
            let end = record.len().checked_sub(UNTIL_BYTES).filter(|end| *end >= key_end);
            Some(record.slice(key_end..end.ok_or_else(damaged)?))
        }
        DELETE => None,
        _ => return Err(damaged()),
    };
    Ok(Change { key: record.slice(HEAD_BYTES..key_end), value, version })
}

/// When the key of this record goes; `None` for most.
pub(super) fn until(record: &[u8]) -> Option<u64> {
    let (head, last) = record.split_at_checked(record.len().checked_sub(UNTIL_BYTES)?)?;
    let until = u64::from_be_bytes(last.try_into().ok()?);
    (head.first() == Some(&PUT_UNTIL)).then_some(until)
}

/// The log's key for a version: big endian, so that the log is sorted by version.
pub(super) fn position(version: Version) -> [u8; 8] {
    version.0.to_be_bytes()
}

pub(super) fn version_at(position: &[u8]) -> Option<Version> {
    Some(Version(u64::from_be_bytes(position.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was() {
        for value in [None, Some(Bytes::new()), Some(Bytes::from_static(b"{}"))] {
            let change = Change { key: Bytes::from_static(b"/a/b"), value, version: Version(77) };
            assert_eq!(decode(Version(77), encode(&change, None).into()).unwrap(), change);
            let expiring = encode(&change, Some(5));
            assert_eq!(until(&expiring), change.value.is_some().then_some(5));
            assert_eq!(decode(Version(77), expiring.into()).unwrap(), change);
        }
    }

    #[test]
    fn a_damaged_record_is_an_error() {
        for record in
            [&b""[..], b"\x01", b"\x01\x00\x05abc", b"\x09\x00\x01a", b"\x03\x00\x01a1234567"]
        {
            assert!(decode(Version(1), Bytes::copy_from_slice(record)).is_err());
        }
    }
}
