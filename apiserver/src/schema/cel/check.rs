//! Whether the rules of a schema compile: their syntax, the names they use, and that they answer
//! yes or no.

use serde_json::Value;

use super::rule::{self, names};
use super::types::{self, Type};
use crate::status::Cause;

/// Adds what is wrong with the rules of a schema and of all below it.
pub(in crate::schema) fn definitions(schema: &Value, field: &str, causes: &mut Vec<Cause>) {
    node(schema, field, true, None, causes);
}

/// `atomic`: the place of the part around this one in which old and new cannot be told apart.
fn node(
    schema: &Value,
    field: &str,
    is_resource: bool,
    atomic: Option<&str>,
    causes: &mut Vec<Cause>,
) {
    let is = |name: &str, value: &str| schema.get(name).and_then(Value::as_str) == Some(value);
    let embedded =
        |schema: &Value| schema.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
    let of_members = atomic.or_else(|| is("x-kubernetes-map-type", "atomic").then_some(field));
    let members = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    for (name, property) in members {
        let at = format!("{field}.properties[{name}]");
        node(property, &at, embedded(property), of_members, causes);
    }
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        let at = format!("{field}.additionalProperties");
        node(values, &at, embedded(values), of_members, causes);
    }
    if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
        let of_items = atomic.or_else(|| (!is("x-kubernetes-list-type", "map")).then_some(field));
        node(items, &format!("{field}.items"), embedded(items), of_items, causes);
    }
    let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array);
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        let at = format!("{field}.x-kubernetes-validations[{index}]");
        one(schema, rule, &at, is_resource, atomic, causes);
    }
}

fn one(
    schema: &Value,
    rule: &Value,
    at: &str,
    is_resource: bool,
    atomic: Option<&str>,
    causes: &mut Vec<Cause>,
) {
    let text = |name: &str| rule.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut invalid = |name: &str, detail: &str| {
        // The whole rule is printed, as Go prints its internal type.
        let message = format!("Invalid value: {}: {detail}", internal(rule));
        let field = format!("{at}.{name}");
        causes.push(Cause { reason: "FieldValueInvalid".into(), message, field });
    };
    let self_ = Type::of(schema, is_resource);
    let optional_old = rule.get("optionalOldSelf") == Some(&Value::Bool(true));
    let mut uses_old = false;
    match rule::parse(text("rule")) {
        Err(why) => invalid("rule", &format!("compilation failed: {why}")),
        Ok(expression) => {
            uses_old = names(&expression, "oldSelf");
            match types::check(&expression, text("rule"), &self_, optional_old) {
                Err(why) => invalid("rule", &format!("compilation failed: {why}")),
                Ok(Type::Bool | Type::Any) => {}
                Ok(_) => invalid("rule", "cel expression must evaluate to a bool"),
            }
        }
    }
    let message = text("messageExpression");
    if rule.get("messageExpression").is_some() && !message.is_empty() {
        match rule::parse(message)
            .and_then(|expression| types::check(&expression, message, &self_, optional_old))
        {
            Err(why) => {
                invalid(
                    "messageExpression",
                    &format!("messageExpression compilation failed: {why}"),
                );
            }
            Ok(Type::String | Type::Any) => {}
            Ok(_) => invalid("messageExpression", "messageExpression must evaluate to a string"),
        }
    }
    if uses_old && let Some(place) = atomic {
        let detail = format!(
            "oldSelf cannot be used on the uncorrelatable portion of the schema within {place}"
        );
        causes.push(Cause::invalid(format!("{at}.rule"), &text("rule").into(), &detail));
    } else if optional_old && !uses_old {
        let detail = "may not be set to true if oldSelf is not used in rule";
        causes.push(Cause::invalid(format!("{at}.optionalOldSelf"), &true.into(), detail));
    }
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
