//! Whether the tasks of an acceptance fit into what was offered, and which ports they get.

use std::sync::Arc;

use commonage_schemas::resources::{PORTS, Ranges, Resources, ResourcesError};
use commonage_schemas::{OfferSpec, TaskSpec};
use serde_json::{Value, json};

use super::super::ports;
use super::body::Launched;
use crate::object::Object;
use crate::status::Cause;

/// Everything that the offers of one acceptance hold together.
pub(super) struct Offered {
    pub(super) agent: String,
    framework: String,
    queue: String,
    resources: Resources,
}

impl Offered {
    /// Offers can be joined when they are of one agent, framework and queue.
    pub(super) fn of(offers: &[(Arc<Object>, Value)]) -> Result<Offered, Vec<Cause>> {
        let mut joined: Option<Offered> = None;
        for (number, (object, offer)) in offers.iter().enumerate() {
            let field = format!("offers[{}]", number.saturating_sub(1));
            let name = json!(object.name());
            let unreadable = |error: &dyn std::fmt::Display| {
                vec![Cause::invalid(&*field, &name, &format!("the offer can't be read: {error}"))]
            };
            let spec: OfferSpec = serde_json::from_value(offer["spec"].clone())
                .map_err(|error| unreadable(&error))?;
            let Some(first) = &mut joined else {
                let OfferSpec { agent, framework, queue, resources, .. } = spec;
                joined = Some(Offered { agent, framework, queue, resources });
                continue;
            };
            let same = [
                ("agent", &spec.agent, &first.agent),
                ("framework", &spec.framework, &first.framework),
                ("queue", &spec.queue, &first.queue),
            ];
            if let Some((what, is, wanted)) = same.into_iter().find(|(_, is, wanted)| is != wanted)
            {
                let detail =
                    format!("its {what} is {is:?}, that of the offer in the path is {wanted:?}");
                return Err(vec![Cause::invalid(field, &name, &detail)]);
            }
            first.resources =
                first.resources.checked_add(&spec.resources).map_err(|error| unreadable(&error))?;
        }
        joined.ok_or_else(|| vec![Cause::required("offers", "")])
    }

    /// Makes the task one of this offer's framework and queue; what contradicts that is wrong.
    pub(super) fn claim(&self, task: &mut Value, offers: &[String]) -> Vec<Cause> {
        let mut causes = Vec::new();
        let mut set = |field: &str, wanted: &str, also: &[String]| {
            let given = &task["spec"][field];
            let fits =
                given.is_null() || given == wanted || also.iter().any(|one| given == one.as_str());
            if !fits {
                let detail = format!("the offer's is {wanted:?}");
                causes.push(Cause::invalid(format!("spec.{field}"), given, &detail));
            }
            if given.is_null() {
                task["spec"][field] = json!(wanted);
            }
        };
        set("framework", &self.framework, &[]);
        set("queue", &self.queue, &[]);
        set("agent", &self.agent, &[]);
        set("offer", offers.first().map_or("", String::as_str), offers);
        causes
    }
}

/// Takes each task out of what is offered, first what they name, then ports for those that leave
/// them open; writes the picked ports into the tasks.
pub(super) fn fit<'v>(
    offered: &Offered,
    launched: &[Launched],
    tasks: impl Iterator<Item = &'v mut Value>,
) -> Vec<Cause> {
    let mut rest = offered.resources.clone();
    let mut causes = Vec::new();
    let mut tasks: Vec<(&Launched, &mut Value, Option<Ranges>)> =
        launched.iter().zip(tasks).map(|(launched, task)| (launched, task, None)).collect();
    for (launched, task, own) in &mut tasks {
        // Amounts that do not parse are found by validation, which names them better.
        let Ok(spec) = serde_json::from_value::<TaskSpec>(task["spec"].clone()) else { continue };
        *own = spec.resources.ports().cloned();
        match rest.checked_sub(&spec.held()) {
            Ok(left) => rest = left,
            Err(error) => causes.push(refusal(launched, task, &spec, &rest, &error)),
        }
    }
    if !causes.is_empty() {
        return causes;
    }
    let mut free = rest.ports().cloned().unwrap_or_default();
    for (launched, task, own) in tasks {
        let picked = ports::pick(task, own.as_ref(), &mut free);
        // As many as are open were picked, so that filling them in can't fail.
        if picked.and_then(|picked| ports::fill(task, &picked).ok()).is_none() {
            let detail = "there are not enough ports left for those with hostPort 0";
            causes.push(Cause::forbidden(format!("{}spec.container.ports", launched.path), detail));
        }
    }
    causes
}

/// Says which field asks for more than is left.
fn refusal(
    launched: &Launched,
    task: &Value,
    spec: &TaskSpec,
    rest: &Resources,
    error: &ResourcesError,
) -> Cause {
    let path = &launched.path;
    let (ResourcesError::NotEnough { name, .. }
    | ResourcesError::Overflow { name }
    | ResourcesError::Mismatch { name, .. }) = error;
    if name == PORTS {
        let free = rest.ports().cloned().unwrap_or_default();
        let outside =
            ports::host_ports(task).into_iter().position(|port| port != 0 && !free.has(port));
        if let Some(number) = outside {
            let value = task["spec"]["container"]["ports"][number]["hostPort"].clone();
            let field = format!("{path}spec.container.ports[{number}].hostPort");
            return Cause::invalid(field, &value, &format!("the offer has ports {free}"));
        }
    }
    let wanted = spec.resources.get(name).map_or(Value::Null, |amount| json!(amount.to_text(name)));
    let left = rest.get(name).map_or_else(|| "nothing".to_owned(), |amount| amount.to_text(name));
    Cause::invalid(
        format!("{path}spec.resources.{name}"),
        &wanted,
        &format!("the offer has {left} of it left"),
    )
}
