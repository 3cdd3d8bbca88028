//! Framework: takes its tasks with it, unless it is told to leave them.

use commonage_schemas::names::FRAMEWORK_FINALIZER;
use serde_json::Value;

use super::checked;
use crate::status::Cause;
use crate::strategy::Strategy;

pub(super) struct Frameworks;

impl Strategy for Frameworks {
    fn validate(&self, object: &Value, _old: Option<&Value>) -> Vec<Cause> {
        checked::causes(object)
    }

    /// The finalizer is what the controller ends the tasks by: without it they stay.
    fn orphan(&self, object: &mut Value) -> bool {
        let finalizers = object.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut);
        let Some(finalizers) = finalizers else { return false };
        let before = finalizers.len();
        finalizers.retain(|one| one != FRAMEWORK_FINALIZER);
        finalizers.len() < before
    }
}
