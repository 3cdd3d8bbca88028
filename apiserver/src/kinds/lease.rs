//! Lease: numbers that make no sense.

use serde_json::Value;

use crate::status::Cause;
use crate::strategy::Strategy;

pub(super) struct Leases;

impl Strategy for Leases {
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
        let said = |field: &str| spec[field].as_str().is_some_and(|text| !text.is_empty());
        if said("preferredHolder") && !said("strategy") {
            let why = "may only be specified if `strategy` is defined";
            causes.push(Cause::forbidden("spec.preferredHolder", why));
        }
        causes
    }
}
