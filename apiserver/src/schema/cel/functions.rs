//! Calls of functions: those of the language here, Kubernetes' libraries through `kube-cel`.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use kube_cel::KubeCelExt;
use kube_cel::cel::common::ast::{CallExpr, Expr};
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::{Context, ExecutionError, IdedExpr, Value};
use regex::{Regex, RegexBuilder};

use super::eval::{Answer, Meter, Scope, Stop, failed, no_overload};
use super::image::{self, Image};
use super::macros::MAP_INSERT;
use super::operand::{key_of, optional, some, weight};

/// Compiled size of a pattern in a rule, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Patterns kept compiled; rules are few, and their patterns are nearly always literals.
const PATTERNS_MAX: usize = 256;

/// What qualifies the names of functions; a variable may not have these names.
const NAMESPACES: [&str; 5] = ["sets", "optional", "format", "ip", "strings"];

pub(super) fn is_namespace(expr: &IdedExpr) -> Option<&str> {
    match &expr.expr {
        Expr::Ident(name) if NAMESPACES.contains(&name.as_str()) => Some(name),
        _ => None,
    }
}

pub(super) fn call(meter: &mut Meter<'_>, call: &CallExpr, scope: &Scope<'_>) -> Answer {
    let mut name = call.func_name.clone();
    let mut values = Vec::with_capacity(call.args.len() + 1);
    if let Some(target) = call.target.as_deref() {
        match is_namespace(target) {
            Some(namespace) => name = format!("{namespace}.{name}"),
            None => values.push(meter.eval(target, scope)?),
        }
    }
    let is_method = !values.is_empty();
    for argument in &call.args {
        values.push(meter.eval(argument, scope)?);
    }
    if let Some(answer) = of_optional(&name, &values) {
        return answer;
    }
    meter.spend(cost(&name, &values))?;
    match (name.as_str(), values.as_slice()) {
        ("size", [value]) => size(value),
        ("contains", [Value::String(text), Value::String(part)]) => {
            Ok(Value::Bool(text.contains(part.as_str())))
        }
        ("startsWith", [Value::String(text), Value::String(part)]) => {
            Ok(Value::Bool(text.starts_with(part.as_str())))
        }
        ("endsWith", [Value::String(text), Value::String(part)]) => {
            Ok(Value::Bool(text.ends_with(part.as_str())))
        }
        ("matches", [Value::String(text), Value::String(pattern)]) => {
            matches(text, pattern).map(Value::Bool)
        }
        (MAP_INSERT, [Value::Map(map), Value::Map(more)]) => {
            let more = more.map.iter().map(|(key, value)| (key.clone(), value.clone()));
            insert(map, more.collect())
        }
        (MAP_INSERT, [Value::Map(map), key, value]) => {
            insert(map, vec![(key_of(key)?, value.clone())])
        }
        ("dyn", [value]) => Ok(value.clone()),
        ("isImage", [Value::String(text)]) => Ok(Value::Bool(Image::parse(text).is_some())),
        ("image", [Value::String(text)]) => match Image::parse(text) {
            Some(image) => Ok(image.into_value()),
            None => failed(format!("could not parse reference: {text}")),
        },
        ("registry" | "repository" | "identifier" | "tag" | "digest", [Value::Map(image)]) => {
            image::part(image, &name)
        }
        ("containsDigest", [Value::Map(image)]) => match image::part(image, "digest")? {
            Value::String(digest) => Ok(Value::Bool(!digest.is_empty())),
            _ => no_overload(),
        },
        ("bool", [Value::Bool(value)]) => Ok(Value::Bool(*value)),
        ("type", [value]) => Ok(Value::String(Arc::new(type_name(value).to_owned()))),
        _ => of_library(&name, is_method, values),
    }
}

fn insert(map: &Map, members: Vec<(Key, Value)>) -> Answer {
    let mut grown = (*map.map).clone();
    for (key, value) in members {
        if grown.contains_key(&key) {
            return failed(format!("insert failed: key {key} already exists"));
        }
        grown.insert(key, value);
    }
    Ok(Value::Map(Map { map: Arc::new(grown) }))
}

/// Whether a text is one of a duration, or of a time stamp.
pub(super) fn converts(function: &str, text: &str) -> bool {
    of_library(function, false, vec![Value::String(Arc::new(text.to_owned()))]).is_ok()
}

fn size(value: &Value) -> Answer {
    let size = match value {
        Value::String(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.map.len(),
        _ => return no_overload(),
    };
    Ok(Value::Int(size as i64))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::List(_) => "list",
        Value::Map(_) => "map",
        Value::Int(_) => "int",
        Value::UInt(_) => "uint",
        Value::Float(_) => "double",
        Value::String(_) => "string",
        Value::Bytes(_) => "bytes",
        Value::Bool(_) => "bool",
        Value::Duration(_) => "google.protobuf.Duration",
        Value::Timestamp(_) => "google.protobuf.Timestamp",
        Value::Null => "null_type",
        Value::Opaque(_) | Value::Function(..) => "dyn",
    }
}

fn of_optional(name: &str, values: &[Value]) -> Option<Answer> {
    let of = |value: &Value| optional(value).map(|inner| inner.value().cloned());
    Some(match (name, values) {
        ("optional.none", []) => Ok(some(None)),
        ("optional.of", [value]) => Ok(some(Some(value.clone()))),
        ("optional.ofNonZeroValue", [value]) => {
            Ok(some(Some(value.clone()).filter(|value| !value.is_zero())))
        }
        ("first", [Value::List(items)]) => Ok(some(items.first().cloned())),
        ("last", [Value::List(items)]) => Ok(some(items.last().cloned())),
        ("optional.unwrap" | "unwrapOpt", [Value::List(items)]) => {
            let inner = items.iter().filter_map(|item| optional(item)?.value().cloned());
            Ok(Value::List(Arc::new(inner.collect())))
        }
        ("hasValue", [value]) => Ok(Value::Bool(of(value)?.is_some())),
        ("value", [value]) => match of(value)? {
            Some(value) => Ok(value),
            None => failed("optional.none() dereference"),
        },
        ("orValue", [value, other]) => Ok(of(value)?.unwrap_or_else(|| other.clone())),
        ("or", [value, other]) => {
            Ok(if of(value)?.is_some() { value.clone() } else { other.clone() })
        }
        _ => return None,
    })
}

/// An upper bound of what a call reads and makes, in steps.
fn cost(name: &str, values: &[Value]) -> u64 {
    let sizes: Vec<u64> = values.iter().map(weight).collect();
    let sum: u64 = sizes.iter().sum();
    let product = |a: usize, b: usize| {
        let of = |index: usize| sizes.get(index).copied().unwrap_or(1).max(1);
        of(a).saturating_mul(of(b))
    };
    match name {
        "replace" => (sum + product(0, 2)) / 10 + 1,
        "join" => (sum + product(0, 1)) / 10 + 1,
        "indexOf" | "lastIndexOf" => {
            (sum + product(0, if values.len() > 1 { 1 } else { 0 })) / 10 + 1
        }
        "sets.contains" | "sets.equivalent" | "sets.intersects" => product(0, 1) / 10 + 1,
        // The map is copied.
        MAP_INSERT => sum,
        // The width of a number is that of its precision, which the text may name.
        "format" => match values.first() {
            Some(Value::String(text)) if has_wide_precision(text) => u64::MAX,
            _ => sum + product(0, 1) / 100,
        },
        "matches" | "find" | "findAll" => sum + 100,
        _ => sum / 10 + 1,
    }
}

fn has_wide_precision(text: &str) -> bool {
    text.split('.').skip(1).any(|rest| rest.bytes().take_while(u8::is_ascii_digit).count() > 3)
}

fn matches(text: &str, pattern: &str) -> Result<bool, Stop> {
    static COMPILED: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(found) = compiled.get(pattern) {
        let found = found.clone();
        drop(compiled);
        return Ok(found.is_match(text));
    }
    let translated = super::super::go_regexp::translate(pattern).map_err(Stop::Failed)?;
    let regex = RegexBuilder::new(&translated)
        .size_limit(PATTERN_BYTES_MAX)
        .build()
        .map_err(|error| Stop::Failed(format!("error parsing regexp: {error}")))?;
    if compiled.len() >= PATTERNS_MAX {
        compiled.clear();
    }
    compiled.insert(pattern.to_owned(), regex.clone());
    drop(compiled);
    Ok(regex.is_match(text))
}

const ARGUMENTS: [&str; 6] = ["a0", "a1", "a2", "a3", "a4", "a5"];

/// The functions that `kube-cel` and `cel` register, called with the values as variables.
pub(super) fn of_library(name: &str, is_method: bool, values: Vec<Value>) -> Answer {
    static LIBRARY: LazyLock<Context<'static>> = LazyLock::new(|| Context::default().with_all());
    let count = values.len();
    if count > ARGUMENTS.len() {
        return no_overload();
    }
    let mut context = LIBRARY.new_inner_scope();
    for (argument, value) in ARGUMENTS.iter().zip(values) {
        context.add_variable_from_value(*argument, value);
    }
    let ident = |name: &str| IdedExpr { id: 0, expr: Expr::Ident(name.to_owned()) };
    let (namespace, short) = match name.rsplit_once('.') {
        Some((namespace, short)) => (Some(namespace), short),
        None => (None, name),
    };
    let mut arguments = ARGUMENTS[..count].iter().map(|name| ident(name));
    let target = match namespace {
        Some(namespace) => Some(ident(namespace)),
        None => arguments.by_ref().take(usize::from(is_method)).next(),
    };
    let call = CallExpr {
        func_name: short.to_owned(),
        target: target.map(Box::new),
        args: arguments.collect(),
    };
    Value::resolve(&IdedExpr { id: 0, expr: Expr::Call(call) }, &context).map_err(|error| {
        Stop::Failed(match error {
            ExecutionError::FunctionError { message, .. } => message,
            ExecutionError::UndeclaredReference(_)
            | ExecutionError::NoSuchOverload
            | ExecutionError::UnexpectedType { .. }
            | ExecutionError::InvalidArgumentCount { .. } => "no such overload".into(),
            other => other.to_string(),
        })
    })
}
