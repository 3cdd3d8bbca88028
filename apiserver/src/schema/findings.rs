//! What a strict reader finds, in the order in which Go's decoder comes upon it in the text.

use std::collections::{HashMap, HashSet};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::path::Path;

/// Sorts findings (`unknown field "a"`, `duplicate field "b"`) by where `text` has them. What is
/// twice within an `unknown` field is none: the decoder passes over such a field.
pub(crate) fn in_order_of_text(
    text: &[u8],
    unknown: &[String],
    mut findings: Vec<String>,
) -> Vec<String> {
    let unknown: HashSet<&str> = unknown.iter().map(String::as_str).collect();
    let mut met = Met { unknown: &unknown, places: HashMap::new() };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let whole = Walk { path: Path::Root, met: &mut met }.deserialize(&mut deserializer);
    // A text that only Go reads has them in the order in which they were found.
    if whole.is_ok() {
        let places = met.places;
        findings.retain(|finding| places.contains_key(finding));
        findings.sort_by_key(|finding| places[finding]);
    }
    findings
}

struct Met<'u> {
    unknown: &'u HashSet<&'u str>,
    /// Finding to its place among all.
    places: HashMap<String, usize>,
}

impl Met<'_> {
    fn add(&mut self, finding: String) {
        let place = self.places.len();
        self.places.entry(finding).or_insert(place);
    }
}

struct Walk<'p, 'u> {
    path: Path<'p>,
    met: &'p mut Met<'u>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Walk { path, met } = self;
        let mut index = 0;
        while access.next_element_seed(Walk { path: Path::Item(&path, index), met })?.is_some() {
            index += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let Walk { path, met } = self;
        let mut seen = HashSet::new();
        while let Some(name) = access.next_key::<String>()? {
            let at = Path::Member(&path, &name);
            let text = at.to_string();
            if met.unknown.contains(text.as_str()) {
                met.add(format!("unknown field {text:?}"));
                access.next_value::<IgnoredAny>()?;
                continue;
            }
            if seen.contains(&name) {
                met.add(format!("duplicate field {text:?}"));
            }
            access.next_value_seed(Walk { path: at, met })?;
            seen.insert(name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::in_order_of_text;

    #[test]
    fn findings_come_as_the_text_has_them() {
        let text = br#"{"z": {"q": 1, "q": 2}, "m": {"n": 1, "x": [{}], "n": 2}, "z": 1, "a": [{"b": 1}]}"#;
        let unknown = ["a[0].b".to_owned(), "m.x".to_owned(), "z".to_owned()];
        let found = ["z.q", "m.n", "z"].map(|path| format!("duplicate field {path:?}"));
        let told = unknown.clone().map(|path| format!("unknown field {path:?}"));
        let findings = found.into_iter().chain(told).collect();
        assert_eq!(
            in_order_of_text(text, &unknown, findings),
            [
                "unknown field \"z\"",
                "unknown field \"m.x\"",
                "duplicate field \"m.n\"",
                "unknown field \"a[0].b\"",
            ]
        );
    }
}
