//! Secret: a type for those that do not say theirs.

use serde_json::{Value, json};

use crate::status::ApiError;
use crate::strategy::{Context, Strategy};

/// Kubernetes' type of secrets that mean nothing in particular to it.
const OPAQUE: &str = "Opaque";

pub(super) struct Secrets;

impl Strategy for Secrets {
    fn prepare_create(&self, _cx: Context<'_>, object: &mut Value) -> Result<(), ApiError> {
        set_type(object);
        Ok(())
    }

    fn prepare_update(
        &self,
        _cx: Context<'_>,
        _subresource: Option<&str>,
        _old: &Value,
        new: &mut Value,
    ) -> Result<(), ApiError> {
        set_type(new);
        Ok(())
    }
}

fn set_type(object: &mut Value) {
    if object["type"].as_str().unwrap_or_default().is_empty() {
        object["type"] = json!(OPAQUE);
    }
}
