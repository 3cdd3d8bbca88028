//! Walking over the junctors of a schema.

use serde_json::Value;

use super::{child, list};

/// Calls for every schema directly below a junctor of this one, with its place.
pub(super) fn flesh(schema: &Value, field: &str, each: &mut dyn FnMut(&Value, &str)) {
    for name in ["allOf", "anyOf", "oneOf"] {
        for (at, inner) in list(schema, name).iter().enumerate() {
            each(inner, &format!("{field}.{name}[{at}]"));
        }
    }
    if let Some(not) = child(schema, "not") {
        each(not, &format!("{field}.not"));
    }
}
