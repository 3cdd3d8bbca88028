//! What the allocator needs to know of each object: our kinds on one side, its plain types on the
//! other.

use std::{collections::BTreeMap, sync::Arc};

use commonage_allocator as alloc;
use commonage_schemas::{
    Agent, Framework, Offer, Queue, Resources, Task, TaskState,
    agent::condition,
    framework::{self, Capability, FrameworkPhase},
    names::{DEFAULT_FRAMEWORK, DEFAULT_QUEUE},
    task::labels,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use kube::ResourceExt;

use super::reserved::{Portions, minus, plus};

/// Milliseconds since 1970.
pub(crate) fn millis(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}

fn created_ms(created: Option<&Time>) -> u64 {
    created.map_or(0, |time| millis(time.0))
}

/// Every agent has its own name under this label, as far as the allocator is concerned: so that a
/// task or a reservation can be for one agent.
const AGENT_LABEL: &str = "commonage.dev/agent";

/// Only these agents, or all but these.
pub(crate) fn agents(operator: alloc::Operator, names: &[String]) -> alloc::Requirement {
    alloc::Requirement { key: AGENT_LABEL.to_owned(), operator, values: names.to_vec() }
}

pub(crate) fn agent(agent: &Agent, portions: Portions) -> alloc::AgentInfo {
    let status = agent.status.as_ref();
    let says = |kind: &str| {
        status
            .and_then(|s| s.conditions.iter().find(|c| c.type_ == kind))
            .map(|c| c.status == "True")
    };
    let availability =
        if agent.metadata.deletion_timestamp.is_some() || says(condition::READY) != Some(true) {
            alloc::Availability::NotReady
        } else if agent.spec.drain.is_some() {
            alloc::Availability::Draining
        } else if agent.spec.unschedulable {
            alloc::Availability::Unschedulable
        } else if says(condition::DISK_PRESSURE) == Some(true) {
            alloc::Availability::DiskPressure
        } else {
            alloc::Availability::Open
        };
    let all = status.and_then(|s| s.allocatable.clone()).unwrap_or_default();
    let allocatable = if portions.parts.is_empty() { all } else { minus(&all, &portions.sum) };
    let mut parts = portions.parts;
    let lent = lent_by(agent);
    if !lent.is_empty() {
        let kind = alloc::Kind { revocable: true, ..alloc::Kind::default() };
        parts.push(alloc::Part { kind, resources: lent });
    }
    let mut labels = labels(&agent.metadata);
    labels.insert(AGENT_LABEL.to_owned(), agent.name_any());
    alloc::AgentInfo { allocatable, parts, labels, availability, ..alloc::AgentInfo::default() }
}

/// Whether [`agent`] and [`lent_by`] say the same of both, and its maintenance too.
pub(crate) fn same_agent(a: &Agent, b: &Agent) -> bool {
    let status = |agent: &Agent| {
        agent.status.as_ref().map(|s| {
            let says = |kind: &str| {
                s.conditions.iter().find(|c| c.type_ == kind).map(|c| c.status.clone())
            };
            let conditions = (says(condition::READY), says(condition::DISK_PRESSURE));
            (s.allocatable.clone(), s.revocable.clone(), conditions)
        })
    };
    a.spec == b.spec
        && a.metadata.uid == b.metadata.uid
        && a.metadata.labels == b.metadata.labels
        && a.metadata.deletion_timestamp == b.metadata.deletion_timestamp
        && status(a) == status(b)
}

/// What an agent lends beyond what it can promise: what it says itself, and what its operator does.
pub(crate) fn lent_by(agent: &Agent) -> Resources {
    let own = agent.status.as_ref().and_then(|status| status.revocable.as_ref());
    let both = own.into_iter().chain(&agent.spec.overcommit);
    both.fold(Resources::new(), |sum, some| plus(&sum, some))
}

pub(crate) fn queue(queue: &Queue) -> alloc::QueueInfo {
    alloc::QueueInfo {
        weight: queue.spec.weight(),
        guarantee: queue.spec.guarantee.clone().unwrap_or_default(),
        limit: queue.spec.limit.clone().unwrap_or_default(),
        priority: queue.spec.priority,
    }
}

/// The queues of a framework, `default` when it names none.
pub(crate) fn queues_of(framework: &Framework) -> Vec<String> {
    match framework.spec.queues.as_slice() {
        [] => vec![DEFAULT_QUEUE.to_owned()],
        named => named.to_vec(),
    }
}

pub(crate) fn framework(framework: &Framework) -> alloc::FrameworkInfo {
    let spec = &framework.spec;
    let policy = spec.offers.clone().unwrap_or_default();
    let queues = queues_of(framework);
    let first = queues.first().cloned().unwrap_or_default();
    let alive = framework.status.as_ref().and_then(|s| s.phase).unwrap_or(FrameworkPhase::Active);
    let demand = spec.demand.as_ref().map(|all| {
        all.iter()
            .map(|d| alloc::Demand {
                queue: d.queue.clone().unwrap_or_else(|| first.clone()),
                count: u64::try_from(d.count).unwrap_or(0),
                each: d.resources.clone(),
            })
            .collect()
    });
    alloc::FrameworkInfo {
        queues,
        placement: match spec.placement {
            framework::Placement::Offers => alloc::Placement::Offers,
            framework::Placement::Tasks => alloc::Placement::Tasks,
        },
        active: framework.metadata.deletion_timestamp.is_none() && alive == FrameworkPhase::Active,
        gpu: spec.capabilities.contains(&Capability::Gpu),
        region_aware: spec.capabilities.contains(&Capability::RegionAware),
        revocable: spec.capabilities.contains(&Capability::Revocable),
        shared: spec.capabilities.contains(&Capability::Shared),
        refined: true,
        offer_timeout_ms: u64::try_from(policy.timeout_seconds).unwrap_or(30) * 1000,
        max_outstanding: usize::try_from(policy.max_outstanding).unwrap_or(1),
        min_allocatable: policy.min_allocatable,
        min_allocatable_in: BTreeMap::new(),
        agents: policy.match_.as_ref().map(selector).unwrap_or_default(),
        suppressed_queues: policy.suppressed_queues,
        demand,
    }
}

/// Whether [`framework`] says the same of both.
pub(crate) fn same_framework(a: &Framework, b: &Framework) -> bool {
    let phase = |framework: &Framework| framework.status.as_ref().and_then(|s| s.phase);
    a.spec == b.spec
        && a.metadata.uid == b.metadata.uid
        && a.metadata.deletion_timestamp == b.metadata.deletion_timestamp
        && phase(a) == phase(b)
}

/// A task that holds or wants resources; `None` when it is over and nothing is left of it, or when it waits but is
/// being deleted.
pub(crate) fn task(task: &Task) -> Option<alloc::TaskInfo> {
    let spec = &task.spec;
    let waits = !task.is_bound();
    let is_over = task.state().is_terminal() && !task.holds_resources();
    if is_over || (waits && task.metadata.deletion_timestamp.is_some()) {
        return None;
    }
    let constraints = spec.constraints.as_ref();
    let mut required = spec.required_labels().map(selector).unwrap_or_default();
    if let Some(claimed) = spec.agent.as_ref().filter(|_| waits) {
        required.0.push(agents(alloc::Operator::In, std::slice::from_ref(claimed)));
    }
    Some(alloc::TaskInfo {
        uid: task.uid().unwrap_or_default().into(),
        framework: spec.framework.clone().unwrap_or_else(|| DEFAULT_FRAMEWORK.to_owned()),
        queue: spec.queue.clone().unwrap_or_else(|| DEFAULT_QUEUE.to_owned()),
        agent: spec.agent.clone().filter(|_| !waits),
        resources: spec.resources.clone(),
        host_ports: spec
            .container
            .ports
            .iter()
            .map(|p| u16::try_from(p.host_port).unwrap_or(0))
            .collect(),
        labels: labels(&task.metadata),
        priority: spec.priority,
        revocable: spec.revocable,
        parts: Vec::new(),
        only_plain: false,
        ending: spec.kill.is_some()
            || task.metadata.deletion_timestamp.is_some()
            || matches!(task.state(), state if state == TaskState::Killing || state.is_terminal()),
        created_ms: created_ms(task.metadata.creation_timestamp.as_ref()),
        group: spec.group.clone(),
        gang: spec.gang.as_ref().map(|g| alloc::Gang {
            name: g.name.clone(),
            size: usize::try_from(g.size).unwrap_or(1),
        }),
        required,
        preferred: constraints.and_then(|c| c.preferred.as_ref()).map(selector).unwrap_or_default(),
        spread: constraints.and_then(|c| c.spread.clone()),
        anti_affinity: constraints.and_then(|c| c.anti_affinity.as_ref()).map(selector),
    })
}

/// What an offer holds. One that was accepted holds its resources until `tasks_seen`: from then on
/// its tasks do.
pub(crate) fn offer(
    offer: &Offer,
    (parts, sum): (Vec<alloc::Part>, Resources),
) -> alloc::OfferInfo {
    alloc::OfferInfo {
        framework: offer.spec.framework.clone(),
        queue: offer.spec.queue.clone(),
        agent: offer.spec.agent.clone(),
        resources: if sum.is_empty() {
            offer.spec.resources.clone()
        } else {
            minus(&offer.spec.resources, &sum)
        },
        parts,
        expires_at_ms: offer.spec.expires_at.as_ref().map(|t| millis(t.0)),
        answered: offer.metadata.deletion_timestamp.is_some(),
    }
}

/// What of an offer nobody has reserved and its tasks left over.
pub(crate) fn left_over(plain: &Resources, tasks: &[Arc<Task>]) -> Resources {
    tasks.iter().fold(plain.clone(), |left, task| {
        let reserved = task.spec.reserved.iter();
        let reserved = reserved.fold(Resources::new(), |sum, part| plus(&sum, &part.resources));
        let not_plain = task.spec.lent.iter().fold(reserved, |sum, lent| plus(&sum, lent));
        minus(&left, &minus(&task.spec.held(), &not_plain))
    })
}

pub(crate) fn selector(labels: &LabelSelector) -> alloc::Selector {
    let equal = labels.match_labels.iter().flatten().map(|(key, value)| alloc::Requirement {
        key: key.clone(),
        operator: alloc::Operator::In,
        values: vec![value.clone()],
    });
    let expressions = labels.match_expressions.iter().flatten().map(|e| alloc::Requirement {
        key: e.key.clone(),
        operator: match e.operator.as_str() {
            "NotIn" => alloc::Operator::NotIn,
            "Exists" => alloc::Operator::Exists,
            "DoesNotExist" => alloc::Operator::DoesNotExist,
            _ => alloc::Operator::In,
        },
        values: e.values.clone().unwrap_or_default(),
    });
    alloc::Selector(equal.chain(expressions).collect())
}
