//! Running the rules of a schema over an object.

use kube_cel::cel::Value as CelValue;
use serde_json::Value;

use super::super::node::Node;
use super::super::path::Path;
use super::super::ratchet::Items;
use super::eval::{Meter, Scope, Stop};
use super::operand::some;
use super::rule::Rule;
use super::typed_lists::TypedLists;
use super::value::of_json;
use crate::status::Cause;

/// Steps for one evaluation and for all those of a request; kube-apiserver's numbers, and its
/// steps are about as large as ours: a tenth of a second and a second.
const CALL_STEPS_MAX: u64 = 1_000_000;
const REQUEST_STEPS_MAX: u64 = 10_000_000;

/// Length of an evaluated message, in bytes; kube-apiserver's.
const MESSAGE_BYTES_MAX: usize = 5 << 10;

/// Adds what the rules have against an object. `old`: what an update replaces.
pub(in crate::schema) fn check(
    root: &Node,
    object: &Value,
    old: Option<&Value>,
    causes: &mut Vec<Cause>,
) {
    let mut walk = Walk { left: REQUEST_STEPS_MAX, causes };
    // Running out of steps ends the walk; it has been told.
    let _ = walk.node(root, object, old, old.map(|old| (object, old)), &Path::Root, true);
}

struct Walk<'c> {
    left: u64,
    causes: &'c mut Vec<Cause>,
}

/// The nearest part of the new object around a place whose old value is known, and that.
type Anchor<'v> = Option<(&'v Value, &'v Value)>;

/// No further rule is run.
struct Ended;

impl Walk<'_> {
    fn node(
        &mut self,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        anchor: Anchor<'_>,
        path: &Path<'_>,
        is_resource: bool,
    ) -> Result<(), Ended> {
        if !node.rules_below || value.is_null() {
            return Ok(());
        }
        if !node.rules.is_empty() {
            let old = old.filter(|old| !old.is_null());
            self.rules(node, value, old, anchor, path, is_resource)?;
        }
        let inner = |value, old: Option<_>| old.map(|old| (value, old)).or(anchor);
        match value {
            Value::Object(map) => {
                let old = old.filter(|_| node.granular);
                for (name, value) in map {
                    let old = old.and_then(|old| old.get(name));
                    if let Some(child) = node.properties.get(name) {
                        let path = Path::Member(path, name);
                        self.node(child, value, old, inner(value, old), &path, child.embedded)?;
                    } else if let Some(child) = node.additional.as_deref() {
                        let path = Path::Key(path, name);
                        self.node(child, value, old, inner(value, old), &path, child.embedded)?;
                    }
                }
            }
            Value::Array(list) => {
                let Some(items) = node.items.as_deref() else { return Ok(()) };
                let of_old = Items::of(node, old);
                for (index, value) in list.iter().enumerate() {
                    let (old, path) = (of_old.of_item(value), Path::Item(path, index));
                    self.node(items, value, old, inner(value, old), &path, items.embedded)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rules(
        &mut self,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        anchor: Anchor<'_>,
        path: &Path<'_>,
        is_resource: bool,
    ) -> Result<(), Ended> {
        let type_ = match node.types.as_slice() {
            [one] => one.name(),
            _ => "",
        };
        let mut lists = TypedLists::default();
        let this = of_json(node, value, is_resource, &mut lists);
        let uses_old = node.rules.iter().any(|rule| rule.uses_old);
        let old_this = old.filter(|_| uses_old);
        let old_this = old_this.map(|old| of_json(node, old, is_resource, &mut lists));
        for rule in node.rules.iter() {
            if rule.uses_old && old.is_none() && !rule.optional_old {
                continue;
            }
            let old_self = match rule.optional_old {
                true => some(old_this.clone()),
                false => old_this.clone().unwrap_or(CelValue::Null),
            };
            let outer = Scope { name: "oldSelf", value: &old_self, outer: None };
            let scope = Scope { name: "self", value: &this, outer: Some(&outer) };
            let mut told = |cause| self.causes.push(cause);
            let invalid = |detail: &str| Cause::invalid(path.field(), &type_.into(), detail);
            let expression = match &rule.expression {
                Ok(expression) => expression,
                Err(why) => {
                    told(invalid(&format!("rule compile error: compilation failed: {why}")));
                    continue;
                }
            };
            let mut meter = Meter { left: CALL_STEPS_MAX.min(self.left), lists: &lists };
            let before = meter.left;
            let answer = meter.eval(expression, &scope);
            self.left -= before - meter.left;
            match answer {
                Ok(CelValue::Bool(true)) => {}
                Err(Stop::Cancelled) => {
                    told(invalid(&out_of_steps(rule, self.left)));
                    return Err(Ended);
                }
                Err(Stop::Failed(why)) => told(invalid(&of_failure(&why, rule))),
                Ok(_) => {
                    // What was wrong before and has not been touched is tolerated; a rule about
                    // the change itself is not.
                    if !rule.uses_old && anchor.is_some_and(|(new, old)| new == old) {
                        continue;
                    }
                    let mut meter = Meter { left: CALL_STEPS_MAX.min(self.left), lists: &lists };
                    let detail = message(rule, &mut meter, &scope);
                    told(of_rule(rule, path, value, &detail));
                }
            }
        }
        Ok(())
    }
}

fn out_of_steps(rule: &Rule, left: u64) -> String {
    if left == 0 {
        return "validation failed due to running out of cost budget, no further validation rules will be run"
            .to_owned();
    }
    format!(
        "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {}",
        rule.name()
    )
}

fn of_failure(why: &str, rule: &Rule) -> String {
    match why.starts_with("no such overload") {
        true => format!(
            "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {}",
            rule.name()
        ),
        false => format!("{why} evaluating rule: {}", rule.name()),
    }
}

/// The message of a rule that does not hold: evaluated, written, or the rule itself.
fn message(rule: &Rule, meter: &mut Meter<'_>, scope: &Scope<'_>) -> String {
    if let Some(expression) = &rule.message_expression
        && let Ok(CelValue::String(text)) = meter.eval(expression, scope)
    {
        let text = text.trim();
        if !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n') {
            return text.to_owned();
        }
    }
    match rule.message.as_str() {
        "" => format!("failed rule: {}", rule.text.trim()),
        message => message.to_owned(),
    }
}

/// A plain value is shown; of an object or a list, only where it is.
fn of_rule(rule: &Rule, path: &Path<'_>, value: &Value, detail: &str) -> Cause {
    let field = match (&rule.field_path, path) {
        (None, path) => path.field(),
        (Some(inner), Path::Root) => inner.clone(),
        (Some(inner), path) if inner.starts_with('[') => format!("{path}{inner}"),
        (Some(inner), path) => format!("{path}.{inner}"),
    };
    match rule.reason.as_str() {
        "FieldValueForbidden" => Cause::forbidden(field, detail),
        "FieldValueRequired" => Cause::required(field, detail),
        "FieldValueDuplicate" if value.is_object() || value.is_array() => {
            Cause::duplicate_there(field)
        }
        "FieldValueDuplicate" => Cause::duplicate(field, value),
        _ if value.is_object() || value.is_array() => Cause::invalid_there(field, detail),
        _ => Cause::invalid(field, value, detail),
    }
}
