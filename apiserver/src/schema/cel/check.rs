//! Whether the rules of a schema compile: their syntax, the names and types they use, that they
//! answer yes or no, and that their cost stays within bounds.

use std::rc::Rc;

use serde_json::Value;

use super::checker::{self, Checked};
use super::cost;
use super::decl::Decl;
use super::rule::{self, names};
use super::types::Type;
use crate::status::Cause;

/// Steps that evaluating one rule may take by the estimate, and all those of a schema together:
/// kube-apiserver's limits.
const RULE_COST_MAX: u64 = 10_000_000;
const SCHEMA_COST_MAX: u64 = 100_000_000;

/// Rules that are named when all of them together are too expensive.
const EXPENSIVE_NAMED: usize = 4;

/// Adds what is wrong with the rules of a schema and of all below it.
pub(in crate::schema) fn definitions(schema: &Value, field: &str, causes: &mut Vec<Cause>) {
    let mut check = Check { causes, total: 0, expensive: Vec::new() };
    let place = Place { is_resource: true, atomic: None, instances: Some(1) };
    check.node(schema, field, &place);
    if check.total <= SCHEMA_COST_MAX {
        return;
    }
    let Check { total, expensive, .. } = check;
    for (rule, _) in expensive {
        let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        causes.push(Cause::forbidden(rule, detail));
    }
    let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
    causes.push(Cause::forbidden(field, &too_expensive(what, total, SCHEMA_COST_MAX)));
}

#[derive(Clone, Copy)]
struct Place<'f> {
    is_resource: bool,
    /// The part around this one in which old and new cannot be told apart.
    atomic: Option<&'f str>,
    /// How many values of this schema an object has at most, if the schemas around say so.
    instances: Option<u64>,
}

struct Check<'c> {
    causes: &'c mut Vec<Cause>,
    total: u64,
    /// The most expensive first.
    expensive: Vec<(String, u64)>,
}

impl Check<'_> {
    fn node(&mut self, schema: &Value, field: &str, place: &Place<'_>) {
        let is = |name: &str, value: &str| schema.get(name).and_then(Value::as_str) == Some(value);
        let inside = |schema: &Value, atomic| Place {
            is_resource: schema.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)),
            atomic,
            instances: place.instances,
        };
        let most = |name: &str| {
            let limit = schema.get(name).and_then(Value::as_u64);
            Some(place.instances?.saturating_mul(limit?))
        };
        let atomic = place.atomic;
        let of_members = atomic.or_else(|| is("x-kubernetes-map-type", "atomic").then_some(field));
        let members = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        for (name, property) in members {
            let at = format!("{field}.properties[{name}]");
            self.node(property, &at, &inside(property, of_members));
        }
        if let Some(values) = schema.get("additionalProperties").filter(|of| of.is_object()) {
            let at = format!("{field}.additionalProperties");
            let place = Place { instances: most("maxProperties"), ..inside(values, of_members) };
            self.node(values, &at, &place);
        }
        if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
            let of_items =
                atomic.or_else(|| (!is("x-kubernetes-list-type", "map")).then_some(field));
            let place = Place { instances: most("maxItems"), ..inside(items, of_items) };
            self.node(items, &format!("{field}.items"), &place);
        }
        let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
        let Some(rules) = rules.filter(|rules| !rules.is_empty()) else { return };
        let Some(decl) = Decl::of(schema, place.is_resource) else {
            return self.causes.push(no_declaration(field));
        };
        for (index, rule) in rules.iter().enumerate() {
            let at = format!("{field}.x-kubernetes-validations[{index}]");
            self.rule(&decl, rule, &at, place);
        }
    }

    fn rule(&mut self, decl: &Rc<Decl>, rule: &Value, at: &str, place: &Place<'_>) {
        let text = |name: &str| rule.get(name).and_then(Value::as_str).unwrap_or_default();
        let optional_old = rule.get("optionalOldSelf") == Some(&Value::Bool(true));
        let mut uses_old = false;
        match Compiled::of(text("rule"), decl, optional_old) {
            Err(why) => self.invalid(rule, at, "rule", &format!("compilation failed: {why}")),
            Ok(compiled) => {
                uses_old = compiled.uses_old;
                let instances = place.instances.unwrap_or_else(|| decl.instances_max());
                let cost = compiled.cost.saturating_mul(instances);
                self.observe(at, "rule", "estimated rule cost", cost);
                if compiled.checked.result != Type::Bool {
                    self.invalid(rule, at, "rule", "cel expression must evaluate to a bool");
                }
            }
        }
        let message = text("messageExpression");
        if !message.is_empty() {
            self.message(decl, rule, message, at, optional_old);
        }
        if uses_old && let Some(place) = place.atomic {
            let detail = format!(
                "oldSelf cannot be used on the uncorrelatable portion of the schema within {place}"
            );
            let cause = Cause::invalid(format!("{at}.rule"), &text("rule").into(), &detail);
            self.causes.push(cause);
        } else if let Some(given) = rule.get("optionalOldSelf").filter(|_| !uses_old)
            && !given.is_null()
        {
            let detail = "may not be set if oldSelf is not used in rule";
            self.causes.push(Cause::invalid(format!("{at}.optionalOldSelf"), given, detail));
        }
    }

    fn message(
        &mut self,
        decl: &Rc<Decl>,
        rule: &Value,
        message: &str,
        at: &str,
        optional_old: bool,
    ) {
        const NAME: &str = "messageExpression";
        match Compiled::of(message, decl, optional_old) {
            Err(why) => {
                self.invalid(rule, at, NAME, &format!("{NAME} compilation failed: {why}"));
            }
            Ok(compiled) if compiled.checked.result != Type::String => {
                self.invalid(rule, at, NAME, "messageExpression must evaluate to a string");
            }
            Ok(compiled) => {
                self.observe(at, NAME, "estimated messageExpression cost", compiled.cost);
            }
        }
    }

    fn invalid(&mut self, rule: &Value, at: &str, name: &str, detail: &str) {
        // The whole rule is printed, as Go prints its internal type.
        let message = format!("Invalid value: {}: {detail}", internal(rule));
        let field = format!("{at}.{name}");
        self.causes.push(Cause { reason: "FieldValueInvalid".into(), message, field });
    }

    fn observe(&mut self, at: &str, name: &str, what: &str, cost: u64) {
        let field = format!("{at}.{name}");
        if cost > RULE_COST_MAX {
            let detail = too_expensive(what, cost, RULE_COST_MAX);
            self.causes.push(Cause::forbidden(field.clone(), &detail));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_COST_MAX / 100 {
            self.expensive.push((field, cost));
            self.expensive.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            self.expensive.truncate(EXPENSIVE_NAMED);
        }
    }
}

struct Compiled {
    checked: Checked,
    cost: u64,
    uses_old: bool,
}

impl Compiled {
    fn of(text: &str, decl: &Rc<Decl>, optional_old: bool) -> Result<Compiled, String> {
        let parsed = rule::parse(text)?;
        let self_ = decl.type_of();
        let old = match optional_old {
            true => Type::optional(self_.clone()),
            false => self_.clone(),
        };
        let checked = checker::check(&parsed, text, &[("self", self_), ("oldSelf", old)])?;
        Ok(Compiled {
            cost: cost::estimate(&parsed.expression, &checked, decl),
            uses_old: names(&parsed.expression, "oldSelf"),
            checked,
        })
    }
}

fn no_declaration(field: &str) -> Cause {
    Cause {
        reason: "InternalError".into(),
        message: "Internal error: internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations".into(),
        field: format!("{field}.x-kubernetes-validations"),
    }
}

fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        factor if factor > 100.0 => "more than 100x".to_owned(),
        // As not to say that it is 1.0 times too expensive.
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// A rule as JSON of apiextensions' internal type, whose fields have Go's names.
fn internal(rule: &Value) -> String {
    let fields = [
        ("Rule", "rule", "\"\""),
        ("Message", "message", "\"\""),
        ("MessageExpression", "messageExpression", "\"\""),
        ("Reason", "reason", "null"),
        ("FieldPath", "fieldPath", "\"\""),
        ("OptionalOldSelf", "optionalOldSelf", "null"),
    ];
    let shown = fields.map(|(shown, name, unset)| {
        let value = rule.get(name).map_or_else(|| unset.to_owned(), Value::to_string);
        format!("\"{shown}\":{value}")
    });
    format!("{{{}}}", shown.join(","))
}
