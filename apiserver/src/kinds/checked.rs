//! Kinds whose only rules are the checks of `commonage_schemas::validate`.

use commonage_schemas::validate::{self, FieldError, FieldErrorKind};
use serde_json::Value;

use crate::status::Cause;
use crate::strategy::Strategy;

pub(super) struct Checked;

impl Strategy for Checked {
    fn validate(&self, object: &Value, _old: Option<&Value>) -> Vec<Cause> {
        causes(object)
    }
}

/// What our own schemas find wrong with an object.
pub(super) fn causes(object: &Value) -> Vec<Cause> {
    let kind = object["kind"].as_str().unwrap_or_default();
    validate::validate(kind, object).into_iter().map(cause).collect()
}

fn cause(error: FieldError) -> Cause {
    let FieldError { field, kind, message } = error;
    // The values come as JSON text; they were JSON before.
    let value = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    match kind {
        FieldErrorKind::Required => Cause::required(field, &message),
        FieldErrorKind::Forbidden => Cause::forbidden(field, &message),
        FieldErrorKind::Invalid(refused) => Cause::invalid(field, &value(refused), &message),
        FieldErrorKind::Duplicate(refused) => Cause::duplicate(field, &value(refused)),
    }
}
