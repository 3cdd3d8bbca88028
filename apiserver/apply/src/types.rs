//! What apply must know of a kind's schema: which lists are sets or maps, what is atomic, which
//! fields there are. Compiled once per kind from its OpenAPI schema.

mod meta;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value};

use crate::text::Sets;

/// The compiled schema of a kind.
#[derive(Clone, Debug)]
pub struct Types {
    pub(crate) root: Type,
    /// What every object of the kind has, written down or not.
    pub(crate) zero: Option<Value>,
    /// Of the objects of this kind; shared by clones.
    pub(crate) sets: Arc<Sets>,
}

/// What a place may hold.
#[derive(Clone, Debug)]
pub(crate) enum Type {
    /// No schema: the value itself says what it is. Objects are granular, lists atomic.
    Deduced,
    /// No schema, and nothing below is owned separately.
    Opaque,
    Known(Box<Atom>),
}

/// The forms that a value may take.
#[derive(Clone, Debug, Default)]
pub(crate) struct Atom {
    pub(crate) scalar: Option<Scalar>,
    pub(crate) list: Option<List>,
    pub(crate) map: Option<Object>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    Number,
    String,
    Boolean,
    Any,
}

#[derive(Clone, Debug)]
pub(crate) struct List {
    pub(crate) relation: Relation,
    pub(crate) items: Type,
}

#[derive(Clone, Debug)]
pub(crate) enum Relation {
    Atomic,
    Set,
    /// The names of the keys, and what a missing one counts as.
    Keyed(Vec<(String, Option<Value>)>),
}

#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) atomic: bool,
    pub(crate) fields: BTreeMap<String, Type>,
    /// Of members that are not in `fields`; `None`: there may be none.
    pub(crate) others: Option<Type>,
}

/// One form of a place, chosen by the value found there.
#[derive(Clone, Copy)]
pub(crate) enum Shape<'t> {
    Map(&'t Object),
    List(&'t List),
    Scalar(Scalar),
}

static DEDUCED: LazyLock<Atom> = LazyLock::new(|| untyped(false, Type::Deduced));
static OPAQUE: LazyLock<Atom> = LazyLock::new(|| untyped(true, Type::Opaque));

fn untyped(atomic: bool, others: Type) -> Atom {
    Atom {
        scalar: Some(Scalar::Any),
        list: Some(List { relation: Relation::Atomic, items: Type::Opaque }),
        map: Some(Object { atomic, fields: BTreeMap::new(), others: Some(others) }),
    }
}

impl Types {
    /// Compiles the OpenAPI or structural schema of a whole object. apiVersion, kind and metadata
    /// get their types whatever it says about them. What the schema leaves open is deduced from
    /// the values; this never fails, since a schema that was accepted elsewhere must do here.
    pub fn compile(schema: &Value) -> Types {
        let mut atom = compile(schema, false, None);
        let map = atom.map.get_or_insert_with(free_form);
        if map.fields.is_empty() && map.others.is_none() {
            map.others = Some(Type::Deduced);
        }
        embed(map);
        // A kind is an object whatever else its schema allows.
        let root = Type::Known(Box::new(Atom { scalar: None, list: None, map: atom.map }));
        Types { root, zero: None, sets: Arc::default() }
    }

    /// For a kind that Go knows as a type: what an object of it has before anybody writes anything
    /// (`{"spec": {}}`). Nobody owns a part that is as it is there.
    pub fn with_zero(self, zero: Value) -> Types {
        Types { zero: Some(zero), ..self }
    }
}

impl Type {
    pub(crate) fn atom(&self) -> &Atom {
        match self {
            Type::Deduced => &DEDUCED,
            Type::Opaque => &OPAQUE,
            Type::Known(atom) => atom,
        }
    }

    /// How to treat the value, which may be of a wrong type.
    pub(crate) fn shape(&self, value: Option<&Value>) -> Shape<'_> {
        let atom = self.atom();
        match value {
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                if let Some(scalar) = atom.scalar {
                    return Shape::Scalar(scalar);
                }
            }
            Some(Value::Array(_)) => {
                if let Some(list) = &atom.list {
                    return Shape::List(list);
                }
            }
            Some(Value::Object(_)) => {
                if let Some(map) = &atom.map {
                    return Shape::Map(map);
                }
            }
            Some(Value::Null) | None => {}
        }
        match (&atom.map, atom.scalar, &atom.list) {
            (Some(map), _, _) => Shape::Map(map),
            (None, Some(scalar), _) => Shape::Scalar(scalar),
            (None, None, Some(list)) => Shape::List(list),
            (None, None, None) => Shape::Scalar(Scalar::Any),
        }
    }
}

impl Object {
    pub(crate) fn member(&self, name: &str) -> Option<&Type> {
        self.fields.get(name).or(self.others.as_ref())
    }
}

/// `open`: a place above preserves unknown fields, and so everything below it does.
fn compile(schema: &Value, open: bool, format: Option<&str>) -> Atom {
    let open = open || flag(schema, "x-kubernetes-preserve-unknown-fields");
    let format = format.or_else(|| schema.get("format").and_then(Value::as_str));
    let mut atom = Atom::default();
    match type_name(schema) {
        Some("object") => atom.map = Some(object(schema, open)),
        Some("array") => atom.list = Some(list(schema, open)),
        Some("integer" | "number") => atom.scalar = Some(Scalar::Number),
        Some("boolean") => atom.scalar = Some(Scalar::Boolean),
        Some("string") => {
            let plain = matches!(format, None | Some("" | "byte"));
            atom.scalar = Some(if plain { Scalar::String } else { Scalar::Any });
        }
        // No type: any.
        _ => {
            if let Some(schema) = only_one(schema) {
                return compile(schema, open, format);
            }
            atom.scalar = Some(Scalar::Any);
            atom.list = Some(list(schema, open));
            atom.map = Some(object(schema, open));
        }
    }
    atom
}

/// Generators wrap a reference in `allOf` to put a description beside it.
fn only_one(schema: &Value) -> Option<&Value> {
    if schema.get("properties").is_some() || schema.get("items").is_some() {
        return None;
    }
    match schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([only]) if type_name(only).is_some() => Some(only),
        _ => None,
    }
}

fn type_name(schema: &Value) -> Option<&str> {
    if flag(schema, "x-kubernetes-int-or-string") {
        return None;
    }
    match schema.get("type") {
        Some(Value::String(name)) => Some(name),
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).find(|name| *name != "null")
        }
        _ => None,
    }
}

fn object(schema: &Value, open: bool) -> Object {
    let mut fields = BTreeMap::new();
    for (name, member) in schema.get("properties").and_then(Value::as_object).into_iter().flatten()
    {
        fields.insert(name.clone(), typed(member, open));
    }
    let others = match schema.get("additionalProperties") {
        Some(Value::Bool(true)) => Some(Type::Deduced),
        Some(Value::Bool(false)) => None,
        Some(schema @ Value::Object(_)) => Some(typed(schema, open)),
        // An object of which nothing is said is free.
        _ => (open || fields.is_empty()).then_some(Type::Deduced),
    };
    let atomic = schema.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic");
    let mut object = Object { atomic, fields, others };
    if flag(schema, "x-kubernetes-embedded-resource") {
        embed(&mut object);
    }
    object
}

fn list(schema: &Value, open: bool) -> List {
    let items = schema.get("items").filter(|items| items.is_object());
    let relation = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => Relation::Set,
        Some("map") => Relation::Keyed(keys(schema, items)),
        _ => Relation::Atomic,
    };
    List { relation, items: items.map_or(Type::Opaque, |items| typed(items, open)) }
}

fn keys(schema: &Value, items: Option<&Value>) -> Vec<(String, Option<Value>)> {
    let default = |name: &str| items?.get("properties")?.get(name)?.get("default").cloned();
    let names = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
    let names = names.into_iter().flatten().filter_map(Value::as_str);
    names.map(|name| (name.to_owned(), default(name))).collect()
}

fn typed(schema: &Value, open: bool) -> Type {
    Type::Known(Box::new(compile(schema, open, None)))
}

fn free_form() -> Object {
    Object { atomic: false, fields: BTreeMap::new(), others: Some(Type::Deduced) }
}

/// What every object with a type of its own has.
fn embed(object: &mut Object) {
    let text = || Type::Known(Box::new(Atom { scalar: Some(Scalar::String), ..Atom::default() }));
    object.fields.insert("apiVersion".into(), text());
    object.fields.insert("kind".into(), text());
    object.fields.insert("metadata".into(), meta::object_meta());
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

/// The path element of a list's item.
///
/// # Errors
/// The item has no identity: a missing key, or an item that a set or a map cannot hold.
pub(crate) fn element_of(relation: &Relation, item: &Value) -> Result<String, String> {
    match relation {
        Relation::Atomic => Err("an atomic list has no separate items".into()),
        Relation::Set => match item {
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".into())
            }
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => {
                Err("associative list without keys has an element that's an explicit null".into())
            }
            scalar => Ok(crate::path::value(scalar)),
        },
        Relation::Keyed(keys) => key_of(keys, item),
    }
}

fn key_of(keys: &[(String, Option<Value>)], item: &Value) -> Result<String, String> {
    let Value::Object(item) = item else {
        let what = if item.is_null() { "a null element" } else { "non-map elements" };
        return Err(format!("associative list with keys may not have {what}"));
    };
    let mut key = Map::new();
    for (name, default) in keys {
        let Some(value) = item.get(name).or(default.as_ref()) else {
            return Err(format!(
                "associative list with keys has an element that omits key field {name:?} (and doesn't have default value)"
            ));
        };
        key.insert(name.clone(), value.clone());
    }
    Ok(crate::path::key(key))
}
