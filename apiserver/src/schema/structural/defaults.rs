//! Defaults of a schema must be what an object may hold there: valid, and without unknown fields.

use serde_json::Value;

use super::super::Structural;
use super::{child, flag, members};
use crate::status::Cause;

pub(super) fn check(schema: &Value, field: &str, causes: &mut Vec<Cause>) {
    node(schema, field, false, causes);
}

fn node(schema: &Value, field: &str, inside_meta: bool, causes: &mut Vec<Cause>) {
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let inside_meta = inside_meta && !embedded;
    if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
        one(schema, default, &format!("{field}.default"), inside_meta, causes);
    }
    if let Some(items) = child(schema, "items") {
        node(items, &format!("{field}.items"), inside_meta, causes);
    }
    for (name, property) in members(schema, "properties").into_iter().flatten() {
        let of_type = embedded && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
        node(property, &format!("{field}.properties[{name}]"), inside_meta || of_type, causes);
    }
}

fn one(schema: &Value, default: &Value, field: &str, inside_meta: bool, causes: &mut Vec<Cause>) {
    // A schema that does not compile has been told of where it is checked itself.
    let Ok(compiled) = Structural::compile_value(schema) else { return };
    let mut pruned = default.clone();
    if !inside_meta && !compiled.prune_value(&mut pruned).is_empty() {
        causes.push(Cause::invalid(field, default, "must not have unknown fields"));
    }
    causes.extend(compiled.validate_value(default).into_iter().map(|cause| below(cause, field)));
}

/// The cause of a value that is itself at `field`.
fn below(mut cause: Cause, field: &str) -> Cause {
    cause.field = match cause.field.as_str() {
        "" | "<nil>" => field.to_owned(),
        inner if inner.starts_with('[') => format!("{field}{inner}"),
        inner => format!("{field}.{inner}"),
    };
    cause
}
