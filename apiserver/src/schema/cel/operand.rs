//! Values of expressions, and the operators on them that evaluate nothing.

use std::sync::Arc;

use kube_cel::cel::common::ast::LiteralValue;
use kube_cel::cel::common::ast::operators as op;
use kube_cel::cel::objects::{Key, OptionalValue};
use kube_cel::cel::{ExecutionError, Value};

use super::eval::{Answer, Stop, failed, no_overload};

pub(super) fn of_literal(literal: &LiteralValue) -> Value {
    match literal {
        LiteralValue::Boolean(value) => Value::Bool(*value.inner()),
        LiteralValue::Bytes(value) => Value::Bytes(Arc::new(value.inner().to_vec())),
        LiteralValue::Double(value) => Value::Float(*value.inner()),
        LiteralValue::Int(value) => Value::Int(*value.inner()),
        LiteralValue::Null => Value::Null,
        LiteralValue::String(value) => Value::String(Arc::new(value.inner().to_owned())),
        LiteralValue::UInt(value) => Value::UInt(*value.inner()),
    }
}

pub(super) fn optional(value: &Value) -> Option<&OptionalValue> {
    let Value::Opaque(opaque) = value else { return None };
    let any: &dyn std::any::Any = &**opaque;
    any.downcast_ref()
}

pub(super) fn some(value: Option<Value>) -> Value {
    Value::Opaque(Arc::new(value.map_or_else(OptionalValue::none, OptionalValue::of)))
}

pub(super) fn key_of(value: &Value) -> Result<Key, Stop> {
    Ok(match value {
        Value::Int(key) => Key::Int(*key),
        Value::UInt(key) => Key::Uint(*key),
        Value::Bool(key) => Key::Bool(*key),
        Value::String(key) => Key::String(key.clone()),
        _ => return failed("unsupported key type"),
    })
}

pub(super) fn index(operand: &Value, key: &Value) -> Answer {
    match operand {
        Value::List(items) => {
            let at = match key {
                Value::Int(at) => *at,
                Value::UInt(at) => i64::try_from(*at).unwrap_or(i64::MAX),
                Value::Float(at) if at.fract() == 0.0 => *at as i64,
                _ => return no_overload(),
            };
            let found = usize::try_from(at).ok().and_then(|at| items.get(at));
            found.cloned().ok_or_else(|| Stop::Failed(format!("index out of bounds: {at}")))
        }
        Value::Map(map) => {
            let key = key_of(key)?;
            let found = map.map.get(&key).cloned();
            found.ok_or_else(|| Stop::Failed(format!("no such key: {key}")))
        }
        _ => match optional(operand) {
            Some(inner) => Ok(some(inner.value().and_then(|inner| index(inner, key).ok()))),
            None => no_overload(),
        },
    }
}

/// What a value costs to read.
pub(super) fn weight(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Bytes(bytes) => bytes.len() as u64,
        Value::List(items) => items.iter().map(|item| 10 + weight(item)).sum(),
        Value::Map(map) => map.map.values().map(|value| 20 + weight(value)).sum(),
        _ => 1,
    }
}

pub(super) fn is_operator(name: &str) -> bool {
    matches!(
        name,
        op::EQUALS
            | op::NOT_EQUALS
            | op::LESS
            | op::LESS_EQUALS
            | op::GREATER
            | op::GREATER_EQUALS
            | op::INDEX
            | op::IN
            | op::ADD
            | op::SUBSTRACT
            | op::MULTIPLY
            | op::DIVIDE
            | op::MODULO
    )
}

pub(super) fn of_operator(error: ExecutionError) -> Stop {
    Stop::Failed(match error {
        ExecutionError::DivisionByZero(_) => "division by zero".into(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".into(),
        ExecutionError::Overflow(..) => "integer overflow".into(),
        _ => "no such overload".into(),
    })
}
