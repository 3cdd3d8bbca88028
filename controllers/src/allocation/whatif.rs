//! Where tasks would go if they were created now: the allocator itself, over what the API says, with
//! nothing written.

use std::{collections::BTreeMap, fmt::Debug};

use commonage_allocator::{ObjectKey, Options, Why};
use commonage_schemas::{Agent, Resources, Task, names::DEFAULT_QUEUE};
use jiff::Timestamp;
use kube::{Api, Client, Resource, ResourceExt, api::ListParams, runtime::watcher::Event};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    accounting::Accounting, apply::Write, cache::key, info, preemption, reserved::plus,
    words::in_words, world::Input,
};

/// What would become of one task.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    pub namespace: String,
    pub task: String,
    /// Where it would go; `None`: it would wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The ports that would be picked for those with `hostPort: 0`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<u16>,
    /// Reservations that it would use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reservations: Vec<String>,
    /// Why it would wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Agents that there are.
    pub agents: u64,
    /// Why not elsewhere: agents by what speaks against them; `fits` are those that would do too.
    pub elsewhere: BTreeMap<String, u64>,
    /// Tasks that would be killed for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preempts: Vec<String>,
}

/// Decides about `tasks` as if they had just been created, in this order; each needs a name, a
/// namespace and a uid.
///
/// # Errors
/// A list can't be read.
pub async fn decide(client: &Client, tasks: &[Task]) -> kube::Result<Vec<Verdict>> {
    let mut books = Accounting::new(Options::default());
    books.tick(Timestamp::now());
    read(client, &mut books, Input::Agent).await?;
    read(client, &mut books, Input::Framework).await?;
    read(client, &mut books, Input::Queue).await?;
    read(client, &mut books, Input::Reservation).await?;
    read(client, &mut books, Input::Volume).await?;
    read(client, &mut books, Input::Offer).await?;
    read(client, &mut books, Input::Task).await?;
    Ok(over(&mut books, tasks))
}

async fn read<K>(
    client: &Client,
    books: &mut Accounting,
    wrap: fn(Event<K>) -> Input,
) -> kube::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    books.take_in(wrap(Event::Init));
    for object in Api::<K>::all(client.clone()).list(&ListParams::default()).await? {
        books.take_in(wrap(Event::InitApply(object)));
    }
    books.take_in(wrap(Event::InitDone));
    Ok(())
}

fn over(books: &mut Accounting, tasks: &[Task]) -> Vec<Verdict> {
    for task in tasks {
        books.take_in(Input::Task(Event::Apply(task.clone())));
    }
    let mut writes = books.serve_from_reservations();
    // Any seed will do; a fixed one gives the same answer twice.
    let plan = books.plan(0);
    writes.extend(books.writes(&plan));
    let mut verdicts: Vec<Verdict> = tasks
        .iter()
        .map(|task| Verdict {
            namespace: task.namespace().unwrap_or_default(),
            task: task.name_any(),
            agents: books.world().agents.iter().count() as u64,
            ..Verdict::default()
        })
        .collect();
    for (verdict, task) in verdicts.iter_mut().zip(tasks) {
        let mine =
            |key: &ObjectKey| *key.namespace == *verdict.namespace && *key.name == *verdict.task;
        let bound = writes.iter().find_map(|write| match write {
            Write::Bind(binding, parts, _) if mine(&binding.task) => Some((binding, parts)),
            _ => None,
        });
        let why = plan.why.iter().find(|(key, _)| mine(key)).map(|(_, why)| why);
        let victims = plan.preempt.iter().filter(|p| p.for_task.as_ref().is_some_and(mine));
        let victims: Vec<String> = victims
            .map(|victim| format!("{}: {}", victim.task, preemption::told_victim(victim)))
            .collect();
        let waits = books.waiting_for_volumes().find(|(waiting, _)| **waiting == key(task));
        let waits = waits.map(|(_, why)| why.to_owned());
        match bound {
            Some((binding, parts)) => {
                verdict.agent = Some(binding.agent.to_string());
                verdict.host_ports = binding.host_ports.clone();
                verdict.reservations = parts.iter().map(|p| p.reservation.clone()).collect();
            }
            None => {
                verdict.why = Some(waits.unwrap_or_else(|| words(task, why.map(AsRef::as_ref))))
            }
        }
        verdict.preempts = victims;
        verdict.elsewhere = match (&verdict.agent, why) {
            (None, Some(why)) => {
                why.excluded.iter().map(|one| (one.by.clone(), one.agents)).collect()
            }
            _ => elsewhere(books, task, verdict.agent.as_deref()),
        };
    }
    verdicts
}

fn words(task: &Task, why: Option<&Why>) -> String {
    match why {
        Some(why) => in_words(task, why).1,
        None => "it would wait for its turn".to_owned(),
    }
}

/// What speaks against each agent but the chosen one, by what is held before the plan.
fn elsewhere(books: &Accounting, task: &Task, chosen: Option<&str>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for agent in books.world().agents.iter() {
        let name = agent.name_any();
        if chosen != Some(&name) {
            *counts.entry(obstacle(books, agent, &name, task)).or_default() += 1;
        }
    }
    counts
}

fn obstacle(books: &Accounting, agent: &Agent, name: &str, task: &Task) -> String {
    use commonage_allocator::Availability::{
        DiskPressure, Draining, NotReady, Open, Unschedulable,
    };
    let known = info::agent(agent, books.reserved().portions(&books.view(), name));
    match known.availability {
        NotReady => return "notReady".to_owned(),
        Unschedulable => return "unschedulable".to_owned(),
        DiskPressure => return "diskPressure".to_owned(),
        Draining => return "draining".to_owned(),
        Open => {}
    }
    let required = task.spec.required_labels().map(info::selector).unwrap_or_default();
    let claimed = task.spec.agent.as_deref().is_none_or(|claimed| claimed == name);
    if !claimed || !required.matches(&known.labels) {
        return "constraints".to_owned();
    }
    let usage = books.allocator().agent_usage(name).unwrap_or_default();
    let wanted: Resources = task.spec.resources.only_scalars();
    // What is reserved for its queue there, or lent if it may be killed at any time, is had first.
    let queue = task.spec.queue.as_deref().unwrap_or(DEFAULT_QUEUE);
    let (own, own_but_for_offers) =
        books.allocator().set_aside_for(name, queue, task.spec.revocable);
    let had = plus(&usage.free_but_for_offers, &own_but_for_offers);
    if let Some(short) = had.missing(&wanted).first() {
        return short.clone();
    }
    if !plus(&usage.free, &own).contains(&wanted) {
        return "offered".to_owned();
    }
    "fits".to_owned()
}

#[cfg(test)]
mod tests;
