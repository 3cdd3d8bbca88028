//! The compiled form of a schema.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;
use serde_json::{Number, Value};

use super::cel::Rule;
use super::format::Format;

/// One place of a schema.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// Empty: any type.
    pub(super) types: Vec<Type>,
    /// Of a number: it says how large one may be.
    pub(super) number_format: Option<String>,
    pub(super) nullable: bool,
    pub(super) preserve_unknown: bool,
    /// It holds a schema.
    pub(super) schema_props: bool,
    /// A whole object with apiVersion, kind and metadata of its own.
    pub(super) embedded: bool,
    pub(super) properties: BTreeMap<String, Node>,
    /// Of members that are not in `properties`; `additionalProperties: true` is an empty node.
    pub(super) additional: Option<Box<Node>>,
    pub(super) items: Option<Box<Node>>,
    pub(super) default: Option<Value>,
    pub(super) list: ListType,
    /// Members of the old and the new object can be told apart by name: not in an atomic map.
    pub(super) granular: bool,
    pub(super) required: Vec<String>,
    pub(super) one_of_values: Vec<Value>,
    /// `None` for most places.
    pub(super) checks: Option<Box<Checks>>,
    /// `None` for most places.
    pub(super) logic: Option<Box<Logic>>,
    /// What there is to check at this place or below it besides shape and values, so that whole
    /// branches are passed over.
    pub(super) rules: Arc<[Rule]>,
    pub(super) rules_below: bool,
    pub(super) lists_below: bool,
    pub(super) embedded_below: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

#[derive(Clone, Debug, Default)]
pub(super) enum ListType {
    #[default]
    Atomic,
    Set,
    /// By the values of these members.
    Map(Vec<String>),
}

/// A pattern as its author wrote it, which clients are shown, and what it matches.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub(super) text: String,
    pub(super) regex: Regex,
}

/// Limits of a scalar, a list or an object.
#[derive(Clone, Debug, Default)]
pub(super) struct Checks {
    pub(super) minimum: Option<f64>,
    pub(super) exclusive_minimum: bool,
    pub(super) maximum: Option<f64>,
    pub(super) exclusive_maximum: bool,
    pub(super) multiple_of: Option<f64>,
    pub(super) min_length: Option<usize>,
    pub(super) max_length: Option<usize>,
    pub(super) pattern: Option<Pattern>,
    pub(super) format: Option<Format>,
    pub(super) min_items: Option<usize>,
    pub(super) max_items: Option<usize>,
    pub(super) min_properties: Option<usize>,
    pub(super) max_properties: Option<usize>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Logic {
    pub(super) all_of: Vec<Node>,
    pub(super) any_of: Vec<Node>,
    pub(super) one_of: Vec<Node>,
    pub(super) not: Option<Node>,
}

/// Largest integer that a float holds exactly, with all below it.
const SAFE_MAX: f64 = ((1_u64 << 53) - 1) as f64;

impl Type {
    pub(super) fn parse(name: &str) -> Option<Type> {
        Some(match name {
            "object" => Type::Object,
            "array" => Type::Array,
            "string" => Type::String,
            "integer" => Type::Integer,
            "number" => Type::Number,
            "boolean" => Type::Boolean,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Type::Object => "object",
            Type::Array => "array",
            Type::String => "string",
            Type::Integer => "integer",
            Type::Number => "number",
            Type::Boolean => "boolean",
        }
    }

    pub(super) fn holds(self, value: &Value) -> bool {
        match self {
            Type::Object => value.is_object(),
            Type::Array => value.is_array(),
            Type::String => value.is_string(),
            Type::Boolean => value.is_boolean(),
            Type::Number => value.is_number(),
            // What int64 cannot hold is a float to Go, and an integer only where all of those are exact.
            Type::Integer => {
                value.is_i64()
                    || value.as_f64().is_some_and(|n| n.fract() == 0.0 && n.abs() <= SAFE_MAX)
            }
        }
    }

    /// Whether a number is one that the format can hold, as Go's validator sees it.
    pub(super) fn has_room(self, format: Option<&str>, number: &Number) -> bool {
        let float = number.as_f64().unwrap_or_default();
        match self {
            Type::Integer => {
                // (Beyond 64 bits all floats are whole, and a cast stops at the ends.)
                let whole = number.as_i64().map_or(float as i128, i128::from);
                let (least, most) = match format {
                    Some("int32") => (i32::MIN.into(), i32::MAX.into()),
                    Some("uint32") => (0, u32::MAX.into()),
                    Some("uint64") => (0, u64::MAX.into()),
                    _ => (i64::MIN.into(), i128::from(i64::MAX)),
                };
                float.fract() == 0.0 && (least..=most).contains(&whole)
            }
            Type::Number => {
                !matches!(format, Some("float" | "float32")) || (float as f32).is_finite()
            }
            _ => true,
        }
    }

    /// What Go's validator calls a value that has the wrong type.
    pub(super) fn name_of(value: &Value) -> &'static str {
        match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_i64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
    }
}

impl Node {
    /// Whether this null must be defaulted or dropped.
    pub(super) fn refuses(&self, value: &Value) -> bool {
        value.is_null() && !self.nullable
    }
}
