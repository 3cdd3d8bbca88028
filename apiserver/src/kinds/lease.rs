//! Lease: numbers that make no sense, and fields that only coordinated leader election has use for.

use serde_json::Value;

use crate::status::{ApiError, Cause};
use crate::strategy::{Context, Strategy};

/// What a kube-apiserver without its feature gate `CoordinatedLeaderElection` knows and drops.
const UNUSED: [&str; 2] = ["strategy", "preferredHolder"];

pub(super) struct Leases;

fn drop_unused(lease: &mut Value) {
    if let Some(Value::Object(spec)) = lease.get_mut("spec") {
        spec.retain(|name, _| !UNUSED.contains(&name.as_str()));
    }
}

impl Strategy for Leases {
    fn prepare_create(&self, _cx: Context<'_>, lease: &mut Value) -> Result<(), ApiError> {
        drop_unused(lease);
        Ok(())
    }

    fn prepare_update(
        &self,
        _cx: Context<'_>,
        _subresource: Option<&str>,
        _old: &Value,
        new: &mut Value,
    ) -> Result<(), ApiError> {
        drop_unused(new);
        Ok(())
    }

    fn validate(&self, object: &Value, _old: Option<&Value>) -> Vec<Cause> {
        let spec = &object["spec"];
        let mut causes = Vec::new();
        for (field, least, why) in [
            ("leaseDurationSeconds", 1, "must be greater than 0"),
            ("leaseTransitions", 0, "must be greater than or equal to 0"),
        ] {
            if spec[field].as_i64().is_some_and(|number| number < least) {
                causes.push(Cause::invalid(format!("spec.{field}"), &spec[field], why));
            }
        }
        causes
    }
}
