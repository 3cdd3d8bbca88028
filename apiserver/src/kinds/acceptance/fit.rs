//! Whether the tasks of a launch fit into what is left, what of it they take, and which ports they
//! get.

use commonage_schemas::TaskSpec;
use commonage_schemas::offer::ReservedPart;
use commonage_schemas::resources::{PORTS, Ranges, Resources, ResourcesError};
use serde_json::{Value, json};

use super::super::ports;
use super::body::Launched;
use super::pool::{Pool, shortage};
use crate::status::Cause;

/// Takes each task out of the pool, first what they name, then ports for those that leave them
/// open; writes what was picked into the tasks.
pub(super) fn fit<'v>(
    pool: &mut Pool,
    tasks: impl Iterator<Item = (&'v Launched, &'v mut Value)>,
) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut tasks: Vec<(&Launched, &mut Value, Option<Ranges>)> =
        tasks.map(|(launched, task)| (launched, task, None)).collect();
    for (launched, task, own) in &mut tasks {
        // Amounts that do not parse are found by validation, which names them better.
        let Ok(spec) = serde_json::from_value::<TaskSpec>(task["spec"].clone()) else { continue };
        *own = spec.resources.ports().cloned();
        causes.extend(mount(pool, launched, &spec));
        match draw(pool, launched, task, &spec) {
            Ok((parts, lent)) => {
                if !parts.is_empty() {
                    task["spec"]["reserved"] = json!(parts);
                }
                if !lent.is_empty() {
                    task["spec"]["lent"] = json!(lent);
                }
            }
            Err(cause) => causes.push(cause),
        }
    }
    if !causes.is_empty() {
        return causes;
    }
    let mut free = pool.plain.ports().cloned().unwrap_or_default();
    for (launched, task, own) in tasks {
        let picked = ports::pick(task, own.as_ref(), &mut free);
        // As many as are open were picked, so that filling them in can't fail.
        if picked.and_then(|picked| ports::fill(task, &picked).ok()).is_none() {
            let detail = "there are not enough ports left for those with hostPort 0";
            causes.push(Cause::forbidden(format!("{}spec.container.ports", launched.path), detail));
        }
    }
    pool.plain.set_ports(free);
    causes
}

/// Takes what the task holds: what is lent if it may be killed at any time; then out of the
/// reservations that it names, or if it names none out of any; and the rest out of what nobody has
/// reserved. Returns what came from reservations, and what is lent.
fn draw(
    pool: &mut Pool,
    launched: &Launched,
    task: &Value,
    spec: &TaskSpec,
) -> Result<(Vec<ReservedPart>, Resources), Cause> {
    let mut rest = spec.held();
    let mut parts = spec.reserved.clone();
    let mut lent = Resources::new();
    if spec.revocable {
        let named = parts
            .iter()
            .fold(Resources::new(), |sum, part| sum.checked_add(&part.resources).unwrap_or(sum));
        let open = rest.checked_sub(&named).unwrap_or_default();
        lent = nonzero(&open.min(&pool.lent));
        rest = rest.checked_sub(&lent).unwrap_or_default();
    }
    if parts.is_empty() {
        for (name, there) in &pool.reserved {
            let part = nonzero(&rest.min(there));
            if !part.is_empty() {
                rest = rest.checked_sub(&part).unwrap_or_default();
                parts.push(ReservedPart { reservation: name.clone(), resources: part });
            }
        }
    } else {
        for (number, part) in parts.iter().enumerate() {
            let field = |name: &str| format!("{}spec.reserved[{number}].{name}", launched.path);
            if !pool.reserved.contains_key(&part.reservation) {
                let detail = "the offer brings nothing of this reservation";
                return Err(Cause::invalid(field("reservation"), &json!(part.reservation), detail));
            }
            rest = rest.checked_sub(&part.resources).map_err(|error| {
                let (name, _) = shortage(&error, &rest, "");
                let detail = "is more than the task has in spec.resources";
                Cause::invalid(field(&format!("resources.{name}")), &json!(part.resources), detail)
            })?;
        }
    }
    if let Err(error) = pool.plain.checked_sub(&rest) {
        return Err(refusal(launched, task, spec, &pool.left(spec.revocable), &error));
    }
    for (number, part) in parts.iter().enumerate() {
        pool.take(Some(&part.reservation), &part.resources).map_err(|error| {
            let have = pool.reserved.get(&part.reservation).cloned().unwrap_or_default();
            let (name, detail) = shortage(&error, &have, "the reservation");
            let field = format!("{}spec.reserved[{number}].resources.{name}", launched.path);
            Cause::invalid(field, &json!(part.resources), &detail)
        })?;
    }
    pool.take(None, &rest).map_err(|error| refusal(launched, task, spec, &pool.plain, &error))?;
    pool.lent = pool.lent.checked_sub(&lent).unwrap_or_default();
    Ok((parts, lent))
}

fn nonzero(resources: &Resources) -> Resources {
    let amounts = resources.iter().filter(|(_, amount)| !amount.is_zero());
    amounts.map(|(name, amount)| (name.to_owned(), amount.clone())).collect()
}

/// The volumes that a task mounts must come with the offer, or have been made by it.
fn mount(pool: &mut Pool, launched: &Launched, spec: &TaskSpec) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (number, mount) in spec.container.mounts.iter().enumerate() {
        let Some(name) = &mount.volume else { continue };
        let field = || format!("{}spec.container.mounts[{number}].volume", launched.path);
        match pool.volumes.get_mut(name) {
            None => {
                let detail = "the offer does not bring this volume";
                causes.push(Cause::invalid(field(), &json!(name), detail));
            }
            Some(volume) if volume.mounted && !volume.shared => {
                let detail = "another task of this acceptance mounts it, and it is not shared";
                causes.push(Cause::invalid(field(), &json!(name), detail));
            }
            Some(volume) => volume.mounted = true,
        }
    }
    causes
}

/// Says which field asks for more than is left.
fn refusal(
    launched: &Launched,
    task: &Value,
    spec: &TaskSpec,
    left: &Resources,
    error: &ResourcesError,
) -> Cause {
    let path = &launched.path;
    let (name, detail) = shortage(error, left, "the offer");
    if name == PORTS {
        let free = left.ports().cloned().unwrap_or_default();
        let outside =
            ports::host_ports(task).into_iter().position(|port| port != 0 && !free.has(port));
        if let Some(number) = outside {
            let value = task["spec"]["container"]["ports"][number]["hostPort"].clone();
            let field = format!("{path}spec.container.ports[{number}].hostPort");
            return Cause::invalid(field, &value, &format!("the offer has ports {free}"));
        }
    }
    let wanted =
        spec.resources.get(&name).map_or(Value::Null, |amount| json!(amount.to_text(&name)));
    Cause::invalid(format!("{path}spec.resources.{name}"), &wanted, &detail)
}
