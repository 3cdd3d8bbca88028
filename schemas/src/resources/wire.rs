//! Resources as JSON: a map of strings out, strings or numbers in, and the schema of that.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Amount, AmountError, Resources, amount};

impl Serialize for Resources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, amount) in self.iter() {
            map.serialize_entry(name, &amount.to_text(name))?;
        }
        map.end()
    }
}

impl<'de> serde::Deserialize<'de> for Resources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ResourcesVisitor)
    }
}

struct ResourcesVisitor;

impl<'de> Visitor<'de> for ResourcesVisitor {
    type Value = Resources;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from resource names to amounts, such as {\"cpu\": \"500m\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Resources, A::Error> {
        let mut resources = Resources::new();
        while let Some(name) = map.next_key::<String>()? {
            let amount = map.next_value_seed(AmountSeed(&name))?;
            resources.set(name, amount);
        }
        Ok(resources)
    }
}

/// Reads one amount, knowing the name it stands under.
struct AmountSeed<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for AmountSeed<'_> {
    type Value = Amount;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Amount, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for AmountSeed<'_> {
    type Value = Amount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an amount of {} as a string or a number", self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
        Amount::parse(self.0, text).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Amount, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Amount, E> {
        self.visit_str(&number.to_string())
    }

    /// The shortest decimal that means the same float, so `0.1` is what was written.
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Amount, E> {
        self.visit_str(&number.to_string())
    }
}

/// Everything that is wrong with resources in raw JSON, as (field, message): `field` is the path to
/// the resources (`spec.resources`), and each error's field is the path of its name. Empty when they
/// would be read without error and all names are known.
#[must_use]
pub fn parse_errors(field: &str, value: &serde_json::Value) -> Vec<(String, String)> {
    let serde_json::Value::Object(map) = value else {
        let message = "must be a map from resource names to amounts, such as {\"cpu\": \"500m\"}";
        return vec![(field.to_owned(), message.to_owned())];
    };
    let mut errors = Vec::new();
    for (name, value) in map {
        let path = format!("{field}.{name}");
        if let Some(message) = amount::name_error(name) {
            errors.push((path, message));
            continue;
        }
        let text = match value {
            serde_json::Value::String(text) => Cow::Borrowed(text.as_str()),
            serde_json::Value::Number(number) => Cow::Owned(number.to_string()),
            _ => {
                errors.push((path, "must be a string or a number".to_owned()));
                continue;
            }
        };
        if let Err(error) = Amount::parse(name, &text) {
            errors.push((path, without_name(&error)));
        }
    }
    errors
}

/// The message alone, for where the field already says the name.
fn without_name(error: &AmountError) -> String {
    let text = error.to_string();
    let prefix = format!("{}: ", error.name());
    text.strip_prefix(&prefix).unwrap_or(&text).to_owned()
}

impl JsonSchema for Resources {
    fn schema_name() -> Cow<'static, str> {
        "Resources".into()
    }

    fn schema_id() -> Cow<'static, str> {
        concat!(module_path!(), "::Resources").into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// `x-kubernetes-int-or-string` is the only way in which a structural schema may accept both
    /// strings and numbers; what the text must be is checked when it is read.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "Amounts by resource name: cpu in cores (500m is half a core), memory and \
                disk in bytes (4Gi), whole gpus, ports as ranges (31000-31005,31010); other names \
                carry a domain (example.com/fpga).",
            "additionalProperties": { "x-kubernetes-int-or-string": true },
        })
    }
}
