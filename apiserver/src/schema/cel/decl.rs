//! What a schema tells of the values that rules see: their types, and how large they may get.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;

use super::types::Type;
use super::value::escape;

/// Largest body of a request, in bytes: no value is larger. The sizes here are kube-apiserver's,
/// since they decide which rules are too expensive.
const REQUEST_BYTES_MAX: u64 = 3 << 20;
/// The largest forms of durations and time stamps, with quotes, in bytes.
const TIME_BYTES_MAX: u64 = 32;
const DATE_BYTES: u64 = 12;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decl {
    pub(super) shape: Shape,
    /// Characters, items or members at most; 0 for what has no length.
    pub(super) elements_max: u64,
    /// Bytes in JSON at least.
    bytes_min: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    Scalar(Type),
    List(Rc<Decl>),
    Map(Rc<Decl>),
    Object(BTreeMap<String, Rc<Decl>>),
}

impl Decl {
    /// `None`: rules do not see the value, for nothing is known of it. `is_resource`: it has a
    /// type and metadata, of which rules see the names.
    pub(super) fn of(schema: &Value, is_resource: bool) -> Option<Rc<Decl>> {
        if flag(schema, "x-kubernetes-int-or-string") {
            let elements_max = length(schema).unwrap_or(REQUEST_BYTES_MAX - 2);
            return Some(scalar(Type::Dyn, elements_max, 1));
        }
        let type_ = schema.get("type").and_then(Value::as_str).unwrap_or_default();
        Some(match type_ {
            "array" => {
                let items = schema.get("items").and_then(Decl::of_child)?;
                let elements_max = number(schema, "maxItems")
                    .unwrap_or((REQUEST_BYTES_MAX - 2) / (items.bytes_min + 1));
                Rc::new(Decl { shape: Shape::List(items), elements_max, bytes_min: 2 })
            }
            "object" => match schema.get("additionalProperties") {
                Some(values) if values.is_object() && !is_resource => {
                    let values = Decl::of_child(values)?;
                    let elements_max = number(schema, "maxProperties")
                        .unwrap_or((REQUEST_BYTES_MAX - 2) / (values.bytes_min + 6));
                    Rc::new(Decl { shape: Shape::Map(values), elements_max, bytes_min: 2 })
                }
                _ => object(schema, is_resource),
            },
            "string" => text(schema),
            "boolean" => scalar(Type::Bool, 0, 4),
            "number" => scalar(Type::Double, 0, 1),
            "integer" => scalar(Type::Int, 0, 1),
            _ => return None,
        })
    }

    /// The key of a map: its length is not limited by a schema.
    pub(super) fn key() -> Rc<Decl> {
        scalar(Type::String, 0, 2)
    }

    fn of_child(schema: &Value) -> Option<Rc<Decl>> {
        Decl::of(schema, flag(schema, "x-kubernetes-embedded-resource"))
    }

    pub(super) fn type_of(self: &Rc<Decl>) -> Type {
        match &self.shape {
            Shape::Scalar(type_) => type_.clone(),
            Shape::List(items) => Type::List(Rc::new(items.type_of())),
            Shape::Map(values) => Type::Map(Rc::new((Type::String, values.type_of()))),
            Shape::Object(_) => Type::Object(self.clone()),
        }
    }

    /// How many such values fit into an object.
    pub(super) fn instances_max(&self) -> u64 {
        // Each has a comma at least beside it.
        REQUEST_BYTES_MAX / (self.bytes_min + 1)
    }

    pub(super) fn field(&self, name: &str) -> Option<&Rc<Decl>> {
        match &self.shape {
            Shape::Object(fields) => fields.get(name),
            _ => None,
        }
    }
}

fn scalar(type_: Type, elements_max: u64, bytes_min: u64) -> Rc<Decl> {
    Rc::new(Decl { shape: Shape::Scalar(type_), elements_max, bytes_min })
}

fn text(schema: &Value) -> Rc<Decl> {
    match schema.get("format").and_then(Value::as_str).unwrap_or_default() {
        "byte" => {
            let most = number(schema, "maxLength").unwrap_or(REQUEST_BYTES_MAX - 2);
            scalar(Type::Bytes, most, 2)
        }
        "duration" => scalar(Type::Duration, TIME_BYTES_MAX, 3),
        "date" => scalar(Type::Timestamp, DATE_BYTES, DATE_BYTES),
        "date-time" => scalar(Type::Timestamp, TIME_BYTES_MAX, 21),
        _ => {
            let values = schema.get("enum").and_then(Value::as_array).filter(|of| !of.is_empty());
            let longest = |values: &Vec<Value>| {
                values.iter().filter_map(Value::as_str).map(|text| text.len() as u64).max()
            };
            let most = length(schema).or_else(|| values.map(|of| longest(of).unwrap_or(0)));
            scalar(Type::String, most.unwrap_or(REQUEST_BYTES_MAX - 2), 2)
        }
    }
}

fn object(schema: &Value, is_resource: bool) -> Rc<Decl> {
    let required = schema.get("required").and_then(Value::as_array);
    let is_required =
        |name: &str| required.is_some_and(|names| names.iter().any(|found| found == name));
    let (mut fields, mut bytes_min) = (BTreeMap::new(), 2);
    let properties = schema.get("properties").and_then(Value::as_object);
    let with_names = is_resource && !has_names(schema);
    for (name, property) in properties.into_iter().flatten() {
        if with_names && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let Some(decl) = Decl::of_child(property) else { continue };
        if is_required(name) && property.get("default").is_none_or(Value::is_null) {
            bytes_min += name.len() as u64 + decl.bytes_min + 4;
        }
        fields.insert(escape(name), decl);
    }
    if with_names {
        let text = || scalar(Type::String, REQUEST_BYTES_MAX - 2, 2);
        let names = ["name", "generateName"].map(|name| (name.to_owned(), text()));
        let shape = Shape::Object(names.into_iter().collect());
        let metadata = Rc::new(Decl { shape, elements_max: 0, bytes_min: 2 });
        fields.insert("apiVersion".into(), text());
        fields.insert("kind".into(), text());
        fields.insert("metadata".into(), metadata);
    }
    Rc::new(Decl { shape: Shape::Object(fields), elements_max: 0, bytes_min })
}

/// Whether the schema of a resource says itself what its type and names are.
fn has_names(schema: &Value) -> bool {
    let is_text = |pointer: &str| {
        let type_ = schema.pointer(pointer).and_then(|property| property.get("type"));
        type_.and_then(Value::as_str) == Some("string")
    };
    is_text("/properties/kind")
        && is_text("/properties/apiVersion")
        && is_text("/properties/metadata/properties/name")
        && is_text("/properties/metadata/properties/generateName")
}

/// Bytes of a text of which the schema limits the characters.
fn length(schema: &Value) -> Option<u64> {
    number(schema, "maxLength").map(|characters| characters.saturating_mul(4))
}

fn number(schema: &Value, name: &str) -> Option<u64> {
    let value = schema.get(name)?;
    value.as_u64().or_else(|| value.as_i64().map(|_| 0))
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}
