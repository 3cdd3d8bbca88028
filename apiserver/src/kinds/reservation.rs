//! Reservation: what of it may change, and that it stays as long as something uses it.

use commonage_schemas::{GROUP, reasons};
use serde_json::Value;

use super::checked;
use crate::status::{ApiError, Cause};
use crate::strategy::{Context, Strategy};

pub(super) struct Reservations;

/// What a reservation is, once and for all.
const FIXED: [&str; 4] = ["queue", "agent", "selector", "parent"];

impl Strategy for Reservations {
    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = checked::causes(object);
        let spec = &object["spec"];
        if spec["resources"].as_object().is_none_or(serde_json::Map::is_empty) {
            causes.push(Cause::required("spec.resources", "how much to set aside on each agent"));
        }
        if spec["agent"].is_string() {
            for field in ["selector", "count"] {
                if !spec[field].is_null() {
                    let detail = "may not be set when `agent` is";
                    causes.push(Cause::forbidden(format!("spec.{field}"), detail));
                }
            }
        }
        for field in FIXED {
            let Some(old) = old else { break };
            if old["spec"][field] != spec[field] {
                causes.push(Cause::invalid(
                    format!("spec.{field}"),
                    &spec[field],
                    "field is immutable",
                ));
            }
        }
        causes
    }

    fn prepare_create(&self, cx: Context<'_>, object: &mut Value) -> Result<(), ApiError> {
        let Some(parent) = object["spec"]["parent"].as_str() else { return Ok(()) };
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let wrong = |field: &str, value: &Value, detail: &str| {
            let cause = Cause::invalid(format!("spec.{field}"), value, detail);
            Err(ApiError::invalid(cx.def, name, vec![cause]))
        };
        let Some(found) = cx.engine.resource(cx.def)?.get(&format!("/{parent}")) else {
            return wrong("parent", &object["spec"]["parent"], "there is no such reservation");
        };
        let above = found.to_value();
        let (queue, of) = (object["spec"]["queue"].as_str(), above["spec"]["queue"].as_str());
        let (queue, of) = (queue.unwrap_or_default(), of.unwrap_or_default());
        if queue != of && !queue.starts_with(&format!("{of}.")) {
            let detail = format!("must be {of:?}, the queue of its parent, or one below it");
            return wrong("queue", &object["spec"]["queue"], &detail);
        }
        Ok(())
    }

    fn may_delete(&self, cx: Context<'_>, object: &Value) -> Result<(), ApiError> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let in_use = |why: &str| Err(ApiError::refused(cx.def, name, reasons::status::IN_USE, why));
        let used = object["status"]["used"].as_object().into_iter().flatten();
        let held: Vec<&str> = used
            .filter(|(_, amount)| amount.as_str().is_some_and(|amount| amount != "0"))
            .map(|(resource, _)| resource.as_str())
            .collect();
        if !held.is_empty() {
            return in_use(&format!("tasks or volumes use its {}", held.join(", ")));
        }
        let scheme = cx.engine.scheme();
        if let Some(volumes) = scheme.by_kind(GROUP, "Volume") {
            let (all, _) = cx.engine.resource(volumes)?.snapshot();
            for volume in all.values() {
                if volume.to_value()["spec"]["reservation"] == name {
                    return in_use(&format!("volume {} is made from it", volume.name()));
                }
            }
        }
        let (all, _) = cx.engine.resource(cx.def)?.snapshot();
        for child in all.values() {
            if child.to_value()["spec"]["parent"] == name {
                return in_use(&format!("reservation {} is a part of it", child.name()));
            }
        }
        Ok(())
    }
}
