//! Secret: a type for those that do not say theirs.

use serde_json::{Value, json};

use crate::strategy::Strategy;

/// Kubernetes' type of secrets that mean nothing in particular to it.
const OPAQUE: &str = "Opaque";

pub(super) struct Secrets;

impl Strategy for Secrets {
    fn default(&self, object: &mut Value) {
        if object["type"].as_str().unwrap_or_default().is_empty() {
            object["type"] = json!(OPAQUE);
        }
    }
}
