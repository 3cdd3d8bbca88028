//! The types that Go's decoder fills for Kubernetes' own kinds, and what it says of a value that is of
//! another type.

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine as _, alphabet};
use serde_json::Value;

use super::{go, go_time};

/// One structure a line: its name, then its fields with their types. `*` is before what is a pointer (its
/// zero is written), `!` before what is always written, as far as [`tidy`] has to know. A type with a name
/// of its own is followed by `=` and what it is; `time`, `micro`, `json`, `schemas` (one or a list), `schema-or-bool`
/// and `schema-or-texts` read themselves.
const TEXT: &str = include_str!("go_types.txt");

/// As Go decodes: bits beyond the last byte do not matter.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

type Fields = Vec<(&'static str, Named)>;

/// Kinds whose objects clients write in many ways, and rarely: theirs become what Go would write.
const TIDIED: [&str; 8] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "CustomResourceDefinition",
    "Role",
    "RoleBinding",
    "Secret",
    "ServiceAccount",
];

static STRUCTURES: LazyLock<HashMap<&'static str, Fields>> = LazyLock::new(|| {
    let structure = |line: &'static str| {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let fields = words.filter_map(|field| field.split_once(':'));
        (name, fields.map(|(field, type_)| (field, Named::parse(type_))).collect())
    };
    TEXT.lines().map(structure).collect()
});

/// A type, and how Go prints it.
struct Named {
    shown: String,
    type_: Type,
    written: Written,
}

/// When Go writes a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    /// Unless it is its type's zero.
    Filled,
    /// Whatever it points to.
    Pointer,
    Always,
}

enum Type {
    Json,
    Text,
    Bool,
    Int32,
    Int64,
    Float,
    Bytes,
    Time(&'static str),
    List(Box<Named>),
    Map(Box<Named>),
    Structure(&'static str),
    Schemas,
    SchemaOrBool,
    SchemaOrTexts,
}

impl Named {
    fn parse(text: &'static str) -> Named {
        if let Some(text) = text.strip_prefix('*') {
            return Named { written: Written::Pointer, ..Named::parse(text) };
        }
        if let Some(text) = text.strip_prefix('!') {
            return Named { written: Written::Always, ..Named::parse(text) };
        }
        let written = Written::Filled;
        if let Some(items) = text.strip_prefix("[]").filter(|items| *items != "uint8") {
            let items = Named::parse(items);
            let shown = format!("[]{}", items.shown);
            return Named { shown, type_: Type::List(items.into()), written };
        }
        if let Some(members) = text.strip_prefix("map[string]") {
            let members = Named::parse(members);
            let shown = format!("map[string]{}", members.shown);
            return Named { shown, type_: Type::Map(members.into()), written };
        }
        if let Some((name, of)) = text.split_once('=') {
            return Named { shown: name.to_owned(), ..Named::parse(of) };
        }
        let type_ = match text {
            "json" => Type::Json,
            "string" | "types.UID" => Type::Text,
            "bool" => Type::Bool,
            "int32" => Type::Int32,
            "int64" => Type::Int64,
            "float64" => Type::Float,
            "[]uint8" => Type::Bytes,
            "time" => Type::Time(go_time::SECONDS),
            "micro" => Type::Time(go_time::MICROSECONDS),
            "schemas" => Type::Schemas,
            "schema-or-bool" => Type::SchemaOrBool,
            "schema-or-texts" => Type::SchemaOrTexts,
            structure => Type::Structure(structure.strip_prefix("v1.").unwrap_or(structure)),
        };
        Named { shown: text.to_owned(), type_, written }
    }

    /// # Errors
    /// The first value that has another type, in the words of Go's decoder.
    fn read(&self, value: &Value, place: Option<&Place>) -> Result<(), String> {
        let must = |fits: bool| if fits { Ok(()) } else { Err(self.cannot(value, place)) };
        match (&self.type_, value) {
            (_, Value::Null) | (Type::Json, _) => Ok(()),
            (Type::Text, _) => must(value.is_string()),
            (Type::Bool, _) => must(value.is_boolean()),
            (Type::Int32, _) => must(value.as_i64().is_some_and(|n| i32::try_from(n).is_ok())),
            (Type::Int64, _) => must(value.is_i64()),
            (Type::Float, _) => must(value.is_number()),
            (Type::Bytes, Value::String(text)) => base64(text),
            (Type::Time(layout), Value::String(text)) => go_time::check(text, layout),
            (Type::Time(_), _) => Err(told(go::json_type(value), "string", place)),
            (Type::List(items), Value::Array(list)) => {
                list.iter().try_for_each(|item| items.read(item, place))
            }
            (Type::Map(members), Value::Object(map)) => {
                map.values().try_for_each(|member| members.read(member, place))
            }
            (Type::Structure(name), Value::Object(members)) => read_fields(name, members, place),
            (Type::Schemas | Type::SchemaOrBool | Type::SchemaOrTexts, _) => {
                self.read_schemas(value, place)
            }
            _ => Err(self.cannot(value, place)),
        }
    }

    /// These read themselves, with a decoder that knows nothing of where it is; whoever called it puts
    /// the place to what it says.
    fn read_schemas(&self, value: &Value, place: Option<&Place>) -> Result<(), String> {
        let read = |type_: &'static str| {
            Named::parse(type_).read(value, None).map_err(|why| {
                let found = why.strip_prefix("json: cannot unmarshal ");
                let found = found.and_then(|rest| rest.split_once(" into Go "));
                match (found, why.rsplit_once(" of type ")) {
                    (Some((found, _)), Some((_, wanted))) => told(found, wanted, place),
                    _ => why,
                }
            })
        };
        match (value, &self.type_) {
            (Value::Object(_), _) => read("v1.JSONSchemaProps"),
            (Value::Array(_), Type::Schemas) => read("[]v1.JSONSchemaProps"),
            (Value::Array(_), Type::SchemaOrTexts) => read("[]string"),
            (Value::Bool(_), _) | (_, Type::Schemas | Type::SchemaOrTexts) => Ok(()),
            _ => Err("boolean or JSON schema expected".to_owned()),
        }
    }

    /// What is left of a value that fits, as Go would write it.
    fn tidy(&self, value: &mut Value) {
        match (&self.type_, value) {
            (Type::List(items), Value::Array(list)) => {
                list.iter_mut().for_each(|item| items.tidy(item));
            }
            (Type::Map(members), Value::Object(map)) => {
                for member in map.values_mut() {
                    match (&members.type_, &member) {
                        (Type::Text | Type::Bytes, Value::Null) => *member = "".into(),
                        _ => members.tidy(member),
                    }
                }
            }
            (Type::Structure(name), Value::Object(members)) => tidy_fields(name, members),
            (
                Type::Schemas | Type::SchemaOrBool | Type::SchemaOrTexts,
                value @ Value::Object(_),
            ) => Named::parse("v1.JSONSchemaProps").tidy(value),
            (Type::Schemas, value @ Value::Array(_)) => {
                Named::parse("[]v1.JSONSchemaProps").tidy(value);
            }
            _ => {}
        }
    }

    /// Whether Go leaves this out of the structure that has it.
    fn is_left_out(&self, value: &Value) -> bool {
        match (self.written, value) {
            (Written::Always, _) => false,
            (_, Value::Null) => true,
            (Written::Pointer, _) => false,
            (_, Value::String(text)) => text.is_empty(),
            (_, Value::Bool(set)) => !set,
            (_, Value::Number(number)) => number.as_f64() == Some(0.0),
            (_, Value::Array(list)) => list.is_empty(),
            (_, Value::Object(map)) => map.is_empty() && matches!(self.type_, Type::Map(_)),
        }
    }

    fn cannot(&self, value: &Value, place: Option<&Place>) -> String {
        let found = match value {
            // Go tells which number it was when it wanted a whole one.
            Value::Number(number) if matches!(self.type_, Type::Int32 | Type::Int64) => {
                format!("number {number}")
            }
            other => go::json_type(other).to_owned(),
        };
        told(&found, &self.shown, place)
    }
}

fn read_fields(
    structure: &'static str,
    members: &serde_json::Map<String, Value>,
    outer: Option<&Place>,
) -> Result<(), String> {
    let Some(fields) = STRUCTURES.get(structure) else { return Ok(()) };
    for (name, value) in members {
        if let Some((field, type_)) = fields.iter().find(|(field, _)| field == name) {
            type_.read(value, Some(&Place { structure, field, outer }))?;
        }
    }
    Ok(())
}

fn tidy_fields(structure: &str, members: &mut serde_json::Map<String, Value>) {
    let Some(fields) = STRUCTURES.get(structure) else { return };
    for (field, type_) in fields {
        match (members.get_mut(*field), type_.written, &type_.type_) {
            // What is stored knows no empty list from none.
            (Some(Value::Array(list)), Written::Always, _) if list.is_empty() => {
                members.insert((*field).to_owned(), Value::Null);
            }
            (Some(value), ..) => {
                type_.tidy(value);
                if type_.is_left_out(value) {
                    members.remove(*field);
                }
            }
            (None, Written::Always, Type::Bool) => {
                members.insert((*field).to_owned(), false.into());
            }
            _ => {}
        }
    }
}

/// Leaves out of an object what Go leaves out when it writes one: what is empty, and is not always
/// written. It has to fit ([`mismatch`]); metadata is left as it is.
pub(crate) fn tidy(kind: &str, object: &mut Value) {
    let (true, Value::Object(members)) = (TIDIED.contains(&kind), object) else { return };
    let metadata = members.remove("metadata");
    tidy_fields(kind, members);
    members.extend(metadata.map(|metadata| ("metadata".to_owned(), metadata)));
}

/// A field on the way to where the decoder is, and the structure that has it.
struct Place<'a> {
    structure: &'static str,
    field: &'static str,
    outer: Option<&'a Place<'a>>,
}

/// The first value in `value` that a structure of this name has no place for, in the words of Go's
/// decoder; `None` when there is none, or the structure is not known.
pub(crate) fn mismatch(structure: &str, value: &Value) -> Option<String> {
    let (name, _) = STRUCTURES.get_key_value(structure)?;
    match value {
        Value::Object(members) => read_fields(name, members, None).err(),
        Value::Null => None,
        other => Some(told(go::json_type(other), &format!("v1.{name}"), None)),
    }
}

/// How many bytes the text stands for.
///
/// # Errors
/// Where it stops being base64.
pub(crate) fn decoded_length(text: &str) -> Result<usize, usize> {
    // Go skips line breaks.
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match BASE64.decode(&text) {
        Ok(bytes) => Ok(bytes.len()),
        Err(DecodeError::InvalidByte(at, _)) => Err(at),
        Err(_) => Err(text.len() / 4 * 4),
    }
}

fn base64(text: &str) -> Result<(), String> {
    match decoded_length(text) {
        Ok(_) => Ok(()),
        Err(at) => Err(format!("illegal base64 data at input byte {at}")),
    }
}

/// The innermost structure is told, and the whole way.
fn told(found: &str, wanted: &str, place: Option<&Place>) -> String {
    let Some(place) = place else {
        return format!("json: cannot unmarshal {found} into Go value of type {wanted}");
    };
    let steps = std::iter::successors(Some(place), |place| place.outer);
    let mut fields: Vec<&str> = steps.map(|place| place.field).collect();
    fields.reverse();
    let (structure, fields) = (place.structure, fields.join("."));
    format!(
        "json: cannot unmarshal {found} into Go struct field {structure}.{fields} of type {wanted}"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn every_structure_that_is_named_is_there() {
        fn check(named: &Named) {
            match &named.type_ {
                Type::Structure(name) => assert!(STRUCTURES.contains_key(name), "{name}"),
                Type::List(of) | Type::Map(of) => check(of),
                _ => {}
            }
        }
        STRUCTURES.values().flatten().for_each(|(_, type_)| check(type_));
    }

    #[test]
    fn the_innermost_structure_and_the_whole_way_are_told() {
        let part = |what: &str| format!("json: cannot unmarshal {what}");
        let field = |what: &str, of: &str| part(&format!("{what} into Go struct field {of}"));
        let rows = [
            (
                "ConfigMap",
                json!({"metadata": {"labels": {"a": 1}}}),
                field("number", "ObjectMeta.metadata.labels of type string"),
            ),
            (
                "ConfigMap",
                json!({"metadata": "x"}),
                field("string", "ConfigMap.metadata of type v1.ObjectMeta"),
            ),
            (
                "ConfigMap",
                json!({"data": []}),
                field("array", "ConfigMap.data of type map[string]string"),
            ),
            (
                "ObjectMeta",
                json!({"ownerReferences": [{"uid": true}]}),
                field("bool", "OwnerReference.ownerReferences.uid of type types.UID"),
            ),
            (
                "ObjectMeta",
                json!({"creationTimestamp": 1}),
                field("number", "ObjectMeta.creationTimestamp of type string"),
            ),
            ("ObjectMeta", json!([]), part("array into Go value of type v1.ObjectMeta")),
            (
                "ObjectMeta",
                json!({"generation": 1.5}),
                field("number 1.5", "ObjectMeta.generation of type int64"),
            ),
            (
                "Namespace",
                json!({"spec": {"finalizers": "a"}}),
                field("string", "NamespaceSpec.spec.finalizers of type []v1.FinalizerName"),
            ),
            (
                "Namespace",
                json!({"spec": {"finalizers": [1]}}),
                field("number", "NamespaceSpec.spec.finalizers of type v1.FinalizerName"),
            ),
            ("Secret", json!({"data": {"a": "!"}}), "illegal base64 data at input byte 0".into()),
            ("Role", json!({"rules": {}}), field("object", "Role.rules of type []v1.PolicyRule")),
        ];
        for (structure, value, wanted) in rows {
            assert_eq!(mismatch(structure, &value).unwrap(), wanted);
        }
        assert_eq!(mismatch("Lease", &json!({"spec": {"leaseTransitions": 3, "x": []}})), None);
        assert_eq!(mismatch("Unknown", &json!({"spec": []})), None);
    }

    #[test]
    fn what_is_left_is_what_go_writes() {
        let tidied = |kind: &str, mut object: Value| {
            tidy(kind, &mut object);
            object
        };
        assert_eq!(
            tidied("ConfigMap", json!({"data": {"a": null}, "binaryData": {}, "immutable": false})),
            json!({"data": {"a": ""}, "immutable": false})
        );
        assert_eq!(
            tidied(
                "Role",
                json!({"rules": [{"verbs": [], "resourceNames": [], "resources": ["x"]}]})
            ),
            json!({"rules": [{"verbs": null, "resources": ["x"]}]})
        );
        assert_eq!(tidied("Role", json!({"rules": []})), json!({"rules": null}));
        let schema = json!({
            "description": "", "nullable": false, "required": [], "default": null, "minLength": 0, "not": {},
            "externalDocs": {"url": ""}, "additionalProperties": {"pattern": ""}, "enum": [""],
            "properties": {"a": {"default": "", "uniqueItems": false, "items": {"format": ""}}},
        });
        let version =
            json!({"schema": {"openAPIV3Schema": schema}, "deprecated": false, "subresources": {}});
        let spec = json!({"spec": {"versions": [version], "preserveUnknownFields": false}});
        let schema = json!({
            "minLength": 0, "not": {}, "externalDocs": {}, "additionalProperties": {}, "enum": [""],
            "properties": {"a": {"default": "", "items": {}}},
        });
        let version = json!({
            "schema": {"openAPIV3Schema": schema}, "served": false, "storage": false, "subresources": {},
        });
        assert_eq!(
            tidied("CustomResourceDefinition", spec),
            json!({"spec": {"versions": [version]}})
        );
        let event = json!({"count": 0});
        assert_eq!(tidied("Event", event.clone()), event);
    }

    #[test]
    fn schemas_in_definitions_are_read_too() {
        let told = |schema: Value| {
            let version = json!({"schema": {"openAPIV3Schema": schema}});
            mismatch("CustomResourceDefinition", &json!({"spec": {"versions": [version]}}))
        };
        let at = |found: &str, rest: &str| {
            let place = "JSONSchemaProps.spec.versions.schema.openAPIV3Schema";
            format!("json: cannot unmarshal {found} into Go struct field {place}{rest}")
        };
        for (schema, wanted) in [
            (json!({"type": 5}), at("number", ".type of type string")),
            (
                json!({"properties": ["a"]}),
                at("array", ".properties of type map[string]v1.JSONSchemaProps"),
            ),
            (
                json!({"properties": {"a": {"minimum": "5"}}}),
                at("string", ".properties.minimum of type float64"),
            ),
            (json!({"items": {"minimum": "5"}}), at("string", ".items of type float64")),
            (json!({"additionalProperties": 1}), "boolean or JSON schema expected".to_owned()),
        ] {
            assert_eq!(told(schema).unwrap(), wanted);
        }
        assert_eq!(told(json!({"additionalProperties": {"type": "string"}, "default": 1})), None);
    }
}
