//! JSON with the duplicate fields noticed; serde_json alone keeps the last one silently.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Value};

use super::go_json::{self, Refused};
use super::path::Path;

/// Below this every whole float is an integer exactly.
const EXACT_MAX: f64 = (1_u64 << 53) as f64;

/// Parses JSON and returns the paths of duplicate fields (the last one wins, as in Go).
///
/// # Errors
/// Go cannot read it either.
pub(crate) fn decode_strict(bytes: &[u8]) -> Result<(Value, Vec<String>), Refused> {
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = Strict { path: Path::Root, duplicates: &mut duplicates }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match read {
        Ok(value) => Ok((value, duplicates)),
        Err(_) => go_json::read(bytes),
    }
}

/// A float that is an integer, as that.
pub(super) fn exact(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() < EXACT_MAX).then_some(value as i64)
}

/// As many as Go's strict decoder names, each once.
const DUPLICATES_MAX: usize = 100;

struct Strict<'p> {
    path: Path<'p>,
    duplicates: &'p mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    /// A whole number is an integer, however it is written: Go prints 1.0 as 1.
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(exact(value).map_or_else(|| value.into(), Value::from))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let Strict { path, duplicates } = self;
        let mut list = Vec::new();
        loop {
            let path = Path::Item(&path, list.len());
            match access.next_element_seed(Strict { path, duplicates })? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let Strict { path, duplicates } = self;
        let mut map = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let at = Path::Member(&path, &name);
            let value = access.next_value_seed(Strict { path: at, duplicates })?;
            match map.entry(name) {
                Entry::Vacant(place) => drop(place.insert(value)),
                Entry::Occupied(mut place) => {
                    let path = Path::Member(&path, place.key()).to_string();
                    if duplicates.len() < DUPLICATES_MAX && !duplicates.contains(&path) {
                        duplicates.push(path);
                    }
                    place.insert(value);
                }
            }
        }
        Ok(Value::Object(map))
    }
}
