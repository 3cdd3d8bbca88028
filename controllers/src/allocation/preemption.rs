//! What both sides of a preemption are told.

use std::sync::Arc;

use commonage_allocator::{ObjectKey, Preemption, PreemptionReason};
use commonage_schemas::{Task, reasons};
use kube::Client;

use super::{reserved::named, world::World};
use crate::events;

/// The Reservation that the allocator knows as a task.
fn reservation(task: &ObjectKey) -> Option<&str> {
    let name = task.name.rsplit_once('/').map_or(&*task.name, |(name, _)| name);
    task.namespace.is_empty().then_some(name)
}

/// Who gets what the victim holds.
fn beneficiary(preemption: &Preemption) -> String {
    match &preemption.for_task {
        Some(task) => match reservation(task) {
            Some(name) => format!("reservation {name}"),
            None => format!("task {task}"),
        },
        None => format!("framework {}", preemption.for_framework),
    }
}

fn why(preemption: &Preemption) -> String {
    match preemption.reason {
        PreemptionReason::Guarantee => {
            format!("queue {} has less than it is guaranteed", preemption.for_queue)
        }
        PreemptionReason::Priority => "it has a higher priority".to_owned(),
    }
}

/// What the victim's status says.
pub(super) fn told_victim(preemption: &Preemption) -> String {
    format!("makes way for {}: {}", beneficiary(preemption), why(preemption))
}

/// Writes an Event for the victim, and one for whoever gets what it holds.
pub(super) async fn tell(client: &Client, world: &World, preempted: &[Preemption]) {
    let key_of = |key: &ObjectKey| (key.namespace.to_string(), key.name.to_string());
    for preemption in preempted {
        if let Some(victim) = world.tasks.get(&key_of(&preemption.task)) {
            let message = told_victim(preemption);
            events::warn_once(client, &**victim, reasons::task::PREEMPTED, message).await;
        }
        let message = format!(
            "task {} on agent {} is killed for it: {}",
            preemption.task,
            preemption.agent,
            why(preemption)
        );
        let reason = reasons::task::PREEMPTING;
        let Some(task) = &preemption.for_task else {
            let owner = world.frameworks.get(&key_of(&preemption.for_framework));
            if let Some(framework) = owner {
                events::warn(client, &**framework, reason, message).await;
            }
            continue;
        };
        if let Some(name) = reservation(task) {
            if let Some(reservation) = world.reservations.get(&named(name)) {
                events::warn(client, &**reservation, reason, message).await;
            }
        } else if let Some(task) = world.tasks.get(&key_of(task)) {
            events::warn(client, &**task, reason, message).await;
        }
    }
}

/// Writes an Event for each task whose agent takes back what it has lent.
pub(super) async fn tell_called_in(client: &Client, tasks: Vec<(Arc<Task>, String)>) {
    for (task, message) in tasks {
        events::warn_once(client, &*task, reasons::task::PREEMPTED, message).await;
    }
}
