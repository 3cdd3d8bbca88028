//! Evaluating a parsed expression, within a budget.
//!
//! The `cel` crate parses, and `kube-cel` brings Kubernetes' functions; this evaluates the language
//! itself. The crate's own interpreter takes a selection from something that is no map for `false`,
//! panics on message literals, and cannot be stopped, so a rule of a user could stall the server.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::cel::common::ast::operators as op;
use kube_cel::cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, SelectExpr};
use kube_cel::cel::objects::{Key, Map, OptionalValue};
use kube_cel::cel::{IdedExpr, Value};

use super::functions;
use super::operand::{index, is_operator, key_of, of_literal, of_operator, optional, some, weight};
use super::typed_lists::TypedLists;

/// Why there is no value.
#[derive(Debug, PartialEq)]
pub(super) enum Stop {
    /// In cel-go's words.
    Failed(String),
    /// The budget is spent.
    Cancelled,
}

pub(super) type Answer = Result<Value, Stop>;

/// A variable, and those around it.
pub(super) struct Scope<'s> {
    pub(super) name: &'s str,
    pub(super) value: &'s Value,
    pub(super) outer: Option<&'s Scope<'s>>,
}

/// What is left to spend: one for every step, and more for those that read or make much.
pub(super) struct Meter<'l> {
    pub(super) left: u64,
    pub(super) lists: &'l TypedLists<'l>,
}

pub(super) fn failed<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Failed(why.into()))
}

pub(super) fn no_overload<T>() -> Result<T, Stop> {
    failed("no such overload")
}

impl Meter<'_> {
    pub(super) fn spend(&mut self, cost: u64) -> Result<(), Stop> {
        match self.left.checked_sub(cost) {
            Some(left) => self.left = left,
            None => {
                self.left = 0;
                return Err(Stop::Cancelled);
            }
        }
        Ok(())
    }

    pub(super) fn eval(&mut self, expr: &IdedExpr, scope: &Scope<'_>) -> Answer {
        self.spend(1)?;
        match &expr.expr {
            Expr::Literal(literal) => Ok(of_literal(literal)),
            Expr::Ident(name) => variable(name, scope),
            Expr::Select(select) => self.select(select, scope),
            Expr::Call(call) => self.call(call, scope),
            Expr::List(list) => {
                let mut items = Vec::with_capacity(list.elements.len());
                for (index, element) in list.elements.iter().enumerate() {
                    let value = self.eval(element, scope)?;
                    match list.optional_indices.contains(&index) {
                        true => {
                            items.extend(optional(&value).and_then(OptionalValue::value).cloned())
                        }
                        false => items.push(value),
                    }
                }
                Ok(Value::List(Arc::new(items)))
            }
            Expr::Map(map) => {
                let mut members = HashMap::with_capacity(map.entries.len());
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { return no_overload() };
                    let key = key_of(&self.eval(&entry.key, scope)?)?;
                    let value = self.eval(&entry.value, scope)?;
                    if !entry.optional {
                        members.insert(key, value);
                    } else if let Some(value) = optional(&value).and_then(OptionalValue::value) {
                        members.insert(key, value.clone());
                    }
                }
                Ok(Value::Map(Map { map: Arc::new(members) }))
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, scope),
            Expr::Struct(_) | Expr::Unspecified => no_overload(),
        }
    }

    fn select(&mut self, select: &SelectExpr, scope: &Scope<'_>) -> Answer {
        let operand = self.eval(&select.operand, scope)?;
        let name = Key::String(Arc::new(select.field.clone()));
        if let Some(inner) = optional(&operand) {
            let member = match inner.value() {
                Some(Value::Map(map)) => map.map.get(&name).cloned(),
                _ => None,
            };
            return Ok(match select.test {
                true => Value::Bool(member.is_some()),
                false => some(member),
            });
        }
        let Value::Map(map) = &operand else { return no_overload() };
        match (map.map.get(&name), select.test) {
            (member, true) => Ok(Value::Bool(member.is_some())),
            (Some(member), false) => Ok(member.clone()),
            (None, false) => failed(format!("no such key: {}", select.field)),
        }
    }

    fn call(&mut self, call: &CallExpr, scope: &Scope<'_>) -> Answer {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (op::CONDITIONAL, [condition, yes, no]) => match self.eval(condition, scope)? {
                Value::Bool(true) => self.eval(yes, scope),
                Value::Bool(false) => self.eval(no, scope),
                _ => no_overload(),
            },
            (op::LOGICAL_OR, [left, right]) => self.junction(left, right, true, scope),
            (op::LOGICAL_AND, [left, right]) => self.junction(left, right, false, scope),
            (op::NOT_STRICTLY_FALSE, [inner]) => match self.eval(inner, scope) {
                Err(Stop::Cancelled) => Err(Stop::Cancelled),
                answer => Ok(Value::Bool(answer != Ok(Value::Bool(false)))),
            },
            (op::LOGICAL_NOT, [inner]) => match self.eval(inner, scope)? {
                Value::Bool(value) => Ok(Value::Bool(!value)),
                _ => no_overload(),
            },
            (op::NEGATE, [inner]) => match self.eval(inner, scope)? {
                Value::Int(value) => value
                    .checked_neg()
                    .map(Value::Int)
                    .ok_or_else(|| Stop::Failed("integer overflow".into())),
                Value::Float(value) => Ok(Value::Float(-value)),
                _ => no_overload(),
            },
            (op::OPT_SELECT | op::OPT_INDEX, [operand, key]) => {
                let operand = self.eval(operand, scope)?;
                let key = self.eval(key, scope)?;
                let operand = match optional(&operand) {
                    Some(inner) => inner.value().cloned(),
                    None => Some(operand),
                };
                Ok(some(operand.and_then(|operand| index(&operand, &key).ok())))
            }
            (name, [left, right]) if call.target.is_none() && is_operator(name) => {
                let left = self.eval(left, scope)?;
                let right = self.eval(right, scope)?;
                self.binary(name, left, right)
            }
            _ => functions::call(self, call, scope),
        }
    }

    /// `||` and `&&`: the operand that decides does so, even if the other one fails.
    fn junction(
        &mut self,
        left: &IdedExpr,
        right: &IdedExpr,
        decides: bool,
        scope: &Scope<'_>,
    ) -> Answer {
        let left = match self.eval(left, scope) {
            Ok(Value::Bool(left)) if left == decides => return Ok(Value::Bool(decides)),
            Err(Stop::Cancelled) => return Err(Stop::Cancelled),
            left => left,
        };
        match (left, self.eval(right, scope)?) {
            (_, Value::Bool(right)) if right == decides => Ok(Value::Bool(decides)),
            (Err(stop), _) => Err(stop),
            (Ok(Value::Bool(_)), Value::Bool(_)) => Ok(Value::Bool(!decides)),
            _ => no_overload(),
        }
    }

    fn binary(&mut self, name: &str, left: Value, right: Value) -> Answer {
        use std::cmp::Ordering;
        self.spend(weight(&left).min(weight(&right)) / 10)?;
        let ordered = |left: &Value, right: &Value, holds: fn(Ordering) -> bool| match left
            .partial_cmp(right)
        {
            Some(ordering) => Ok(Value::Bool(holds(ordering))),
            None => no_overload(),
        };
        match name {
            op::EQUALS | op::NOT_EQUALS => {
                self.spend(self.lists.effort(&left, &right) / 10)?;
                Ok(Value::Bool(self.lists.equal(&left, &right) == (name == op::EQUALS)))
            }
            op::LESS => ordered(&left, &right, Ordering::is_lt),
            op::LESS_EQUALS => ordered(&left, &right, Ordering::is_le),
            op::GREATER => ordered(&left, &right, Ordering::is_gt),
            op::GREATER_EQUALS => ordered(&left, &right, Ordering::is_ge),
            op::INDEX => index(&left, &right),
            op::IN => match &right {
                Value::List(items) => {
                    self.spend(items.len() as u64)?;
                    Ok(Value::Bool(items.contains(&left)))
                }
                Value::Map(map) => {
                    Ok(Value::Bool(key_of(&left).is_ok_and(|key| map.map.contains_key(&key))))
                }
                _ => no_overload(),
            },
            op::ADD => {
                self.spend((weight(&left) + weight(&right)) / 10)?;
                self.spend(self.lists.effort(&left, &right) / 10)?;
                if let Some(sum) = self.lists.sum(&left, &right) {
                    return Ok(sum);
                }
                (left + right).map_err(of_operator)
            }
            op::SUBSTRACT => (left - right).map_err(of_operator),
            op::MULTIPLY => (left * right).map_err(of_operator),
            op::DIVIDE => (left / right).map_err(of_operator),
            _ => (left % right).map_err(of_operator),
        }
    }

    fn comprehension(&mut self, of: &ComprehensionExpr, scope: &Scope<'_>) -> Answer {
        let range = self.eval(&of.iter_range, scope)?;
        let mut accu = self.eval(&of.accu_init, scope)?;
        let items = turns(&range, of.iter_var2.is_some())?;
        self.spend(items.len() as u64)?;
        let init = accu.clone();
        let mut error = None;
        for (first, second) in &items {
            let of_first = Scope { name: &of.iter_var, value: first, outer: Some(scope) };
            let name = of.iter_var2.as_deref().unwrap_or_default();
            let of_second = Scope { name, value: second, outer: Some(&of_first) };
            let of_item = if name.is_empty() { &of_first } else { &of_second };
            let held = accu.clone();
            let inner = Scope { name: &of.accu_var, value: &held, outer: Some(of_item) };
            if self.eval(&of.loop_cond, &inner)? != Value::Bool(true) {
                break;
            }
            match self.step(&of.loop_step, &of.accu_var, &mut accu, held, of_item) {
                // `all` and `exists` go on over an item that fails: a later one may decide.
                Err(Stop::Failed(why)) if matches!(accu, Value::Bool(_)) => error = Some(why),
                other => other?,
            }
        }
        if let Some(why) = error
            && accu == init
        {
            return failed(why);
        }
        let inner = Scope { name: &of.accu_var, value: &accu, outer: Some(scope) };
        self.eval(&of.result, &inner)
    }

    /// One turn of the loop. Lists grow in place: copying them at every turn would make the
    /// `map` and `filter` of a long list quadratic.
    fn step(
        &mut self,
        step: &IdedExpr,
        name: &str,
        accu: &mut Value,
        held: Value,
        scope: &Scope<'_>,
    ) -> Result<(), Stop> {
        let is_accu = |expr: &IdedExpr| matches!(&expr.expr, Expr::Ident(found) if found == name);
        if let Expr::Call(call) = &step.expr {
            match (call.func_name.as_str(), call.args.as_slice()) {
                (op::ADD, [left, right]) if is_accu(left) && matches!(accu, Value::List(_)) => {
                    let added = self.eval(right, scope)?;
                    drop(held);
                    if let (Value::List(list), Value::List(added)) = (accu, added) {
                        Arc::make_mut(list).extend(added.iter().cloned());
                    }
                    return Ok(());
                }
                (op::CONDITIONAL, [condition, yes, no]) if is_accu(no) => {
                    return match self.eval(condition, scope)? {
                        Value::Bool(true) => self.step(yes, name, accu, held, scope),
                        Value::Bool(false) => Ok(()),
                        _ => no_overload(),
                    };
                }
                _ => {}
            }
        }
        let inner = Scope { name, value: &held, outer: Some(scope) };
        *accu = self.eval(step, &inner)?;
        Ok(())
    }
}

/// What the variables of a loop are in each of its turns. With one variable it is an item, or the
/// key of a map; with two they are index and item, or key and value.
fn turns(range: &Value, two: bool) -> Result<Vec<(Value, Value)>, Stop> {
    match range {
        Value::List(items) if two => {
            let numbered = items.iter().enumerate();
            Ok(numbered.map(|(at, item)| (Value::Int(at as i64), item.clone())).collect())
        }
        Value::List(items) => Ok(items.iter().map(|item| (item.clone(), Value::Null)).collect()),
        Value::Map(map) => {
            let mut members: Vec<(&Key, &Value)> = map.map.iter().collect();
            members.sort_by_key(|(key, _)| key.to_string());
            let members = members.into_iter();
            Ok(members.map(|(key, value)| (Value::from(key.clone()), value.clone())).collect())
        }
        _ => no_overload(),
    }
}

fn variable(name: &str, scope: &Scope<'_>) -> Answer {
    let mut at = Some(scope);
    while let Some(scope) = at {
        if scope.name == name {
            return Ok(scope.value.clone());
        }
        at = scope.outer;
    }
    match name {
        // Names of types are values, to be compared with `type(x)`.
        "bool" | "int" | "uint" | "double" | "string" | "bytes" | "list" | "map" | "null_type" => {
            Ok(Value::String(Arc::new(name.to_owned())))
        }
        _ => failed(format!("no such attribute(s): {name}")),
    }
}
