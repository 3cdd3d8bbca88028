//! Volume: what of it may change, and that it stays as long as a task mounts it.

use commonage_schemas::reasons;
use serde_json::Value;

use super::checked;
use crate::status::{ApiError, Cause};
use crate::strategy::{Context, Strategy};

pub(super) struct Volumes;

impl Strategy for Volumes {
    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = checked::causes(object);
        for field in ["reservation", "shared"] {
            let Some(old) = old else { break };
            let (before, after) = (&old["spec"][field], &object["spec"][field]);
            let absent = |value: &Value| value.is_null() || *value == Value::Bool(false);
            if before != after && !(absent(before) && absent(after)) {
                causes.push(Cause::invalid(format!("spec.{field}"), after, "field is immutable"));
            }
        }
        causes
    }

    fn may_delete(&self, cx: Context<'_>, object: &Value) -> Result<(), ApiError> {
        let users = object["status"]["usedBy"].as_array().cloned().unwrap_or_default();
        if users.is_empty() {
            return Ok(());
        }
        let users: Vec<&str> = users.iter().filter_map(Value::as_str).collect();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let why = format!("it is mounted by {}", users.join(", "));
        Err(ApiError::refused(cx.def, name, reasons::status::IN_USE, &why))
    }
}
