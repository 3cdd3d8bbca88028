//! One wrong field, with the messages of apimachinery's `field.Error`.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use crate::schema::go;

/// One wrong field of a rejected object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    pub reason: Cow<'static, str>,
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl Cause {
    /// `value` is printed as Go prints it; `detail` may be empty.
    fn with_value(
        reason: &'static str,
        words: &str,
        field: impl Into<String>,
        value: &Value,
        detail: &str,
    ) -> Cause {
        let value = match value {
            // As Go prints a float64: a whole one without its fraction.
            Value::Number(number) if number.is_f64() => {
                number.as_f64().unwrap_or(f64::NAN).to_string()
            }
            Value::String(text) => go::quoted(text),
            other => other.to_string(),
        };
        let message = if detail.is_empty() {
            format!("{words}: {value}")
        } else {
            format!("{words}: {value}: {detail}")
        };
        Cause { reason: reason.into(), message, field: field.into() }
    }

    fn without_value(
        reason: &'static str,
        words: &str,
        field: impl Into<String>,
        detail: &str,
    ) -> Cause {
        let message =
            if detail.is_empty() { words.to_owned() } else { format!("{words}: {detail}") };
        Cause { reason: reason.into(), message, field: field.into() }
    }

    pub fn required(field: impl Into<String>, detail: &str) -> Cause {
        Self::without_value("FieldValueRequired", "Required value", field, detail)
    }

    pub fn forbidden(field: impl Into<String>, detail: &str) -> Cause {
        Self::without_value("FieldValueForbidden", "Forbidden", field, detail)
    }

    pub fn too_long(field: impl Into<String>, detail: &str) -> Cause {
        Self::without_value("FieldValueTooLong", "Too long", field, detail)
    }

    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Cause {
        Self::with_value("FieldValueInvalid", "Invalid value", field, value, detail)
    }

    /// As [`Cause::invalid`], of a value whose text is this.
    pub fn invalid_shown(field: impl Into<String>, shown: &str, detail: &str) -> Cause {
        let message = format!("Invalid value: {shown}: {detail}");
        Cause { reason: "FieldValueInvalid".into(), message, field: field.into() }
    }

    /// As [`Cause::invalid`], of a value that would say too much.
    pub fn invalid_there(field: impl Into<String>, detail: &str) -> Cause {
        Self::without_value("FieldValueInvalid", "Invalid value", field, detail)
    }

    pub fn type_invalid(field: impl Into<String>, value: &Value, detail: &str) -> Cause {
        Self::with_value("FieldValueTypeInvalid", "Invalid value", field, value, detail)
    }

    pub fn not_found(field: impl Into<String>, value: &Value) -> Cause {
        Self::with_value("FieldValueNotFound", "Not found", field, value, "")
    }

    pub fn duplicate(field: impl Into<String>, value: &Value) -> Cause {
        Self::with_value("FieldValueDuplicate", "Duplicate value", field, value, "")
    }

    /// As [`Cause::duplicate`], of a value that would say too much.
    pub fn duplicate_there(field: impl Into<String>) -> Cause {
        Self::without_value("FieldValueDuplicate", "Duplicate value", field, "")
    }

    pub fn not_supported<'v>(
        field: impl Into<String>,
        value: &Value,
        supported: impl IntoIterator<Item = &'v str>,
    ) -> Cause {
        let supported: Vec<String> = supported.into_iter().map(|one| format!("{one:?}")).collect();
        let detail = if supported.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", supported.join(", "))
        };
        Self::with_value("FieldValueNotSupported", "Unsupported value", field, value, &detail)
    }

    pub fn too_many(field: impl Into<String>, actual: usize, most: usize) -> Cause {
        let items = if most == 1 { "item" } else { "items" };
        let detail = format!("must have at most {most} {items}");
        Self::with_value("FieldValueTooMany", "Too many", field, &actual.into(), &detail)
    }
}
