//! The cluster around the allocator that a scenario describes: who holds what, and what each step
//! tells the allocator. It decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use commonage_schemas::resources::Resources;

use crate::replay::bag::{Bag, Item, name_of, queue_of, resources_of, role_of};
use crate::replay::format::{Op, OptionsText, Quantities, Used};
use crate::state::{Allocator, Options, Sorter};
use crate::{
    AgentInfo, Availability, FrameworkInfo, ObjectKey, OfferInfo, Plan, QueueInfo, Refusal,
};

const NAMESPACE: &str = "replay";
const REGION_LABEL: &str = "topology.kubernetes.io/region";
/// A refusal whose time makes no sense lasts so long, and none longer than a year.
const REFUSAL_DEFAULT_MS: u64 = 5_000;
const REFUSAL_MAX_MS: u64 = 365 * 24 * 3600 * 1000;

/// Something that was offered.
#[derive(Debug, Clone)]
pub(super) struct Emitted {
    pub(super) framework: String,
    pub(super) role: String,
    pub(super) agent: String,
    pub(super) resources: Bag,
}

/// Somebody who was asked to leave.
#[derive(Debug, Clone)]
pub(super) struct Inverse {
    pub(super) framework: String,
    pub(super) agent: String,
    pub(super) start_in: Option<f64>,
}

#[derive(Default)]
pub(super) struct AgentBook {
    pub(super) total: Bag,
    capabilities: Option<Vec<String>>,
    region: Option<String>,
    attributes: BTreeMap<String, String>,
    start_in: Option<f64>,
}

#[derive(Default)]
struct FrameworkBook {
    roles: Vec<String>,
    capabilities: Vec<String>,
    least: BTreeMap<String, Vec<Quantities>>,
    active: bool,
    suppressed: BTreeSet<String>,
}

#[derive(Default)]
pub(super) struct RoleBook {
    weight: Option<f64>,
    pub(super) guarantees: Option<Quantities>,
    pub(super) limits: Option<Quantities>,
}

/// By framework, role and agent.
type Holder = (String, String, String);

#[derive(Default)]
pub(super) struct Cluster {
    pub(super) allocator: Allocator,
    pub(super) agents: BTreeMap<String, AgentBook>,
    frameworks: BTreeMap<String, FrameworkBook>,
    pub(super) roles: BTreeMap<String, RoleBook>,
    pub(super) held: BTreeMap<Holder, Bag>,
    whitelist: Option<BTreeSet<String>>,
    pub(super) now_ms: u64,
    interval_ms: u64,
    next_batch_ms: u64,
    pub(super) runs: u64,
    /// What the last step came to.
    pub(super) result: Option<String>,
    pub(super) offered: Vec<Emitted>,
    pub(super) inverse: Vec<Inverse>,
    /// Frameworks whose offers were taken back.
    pub(super) rescinded: BTreeSet<String>,
}

fn millis(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1000.0).round() as u64
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(NAMESPACE, name)
}

fn offer_key((framework, role, agent): &Holder) -> ObjectKey {
    key(&format!("{framework}|{role}|{agent}"))
}

pub(super) fn options(text: &OptionsText) -> Result<Options, String> {
    let sorter = text.role_sorter.as_deref().or(text.framework_sorter.as_deref());
    let sorter = match sorter.unwrap_or("drf") {
        "drf" => Sorter::Drf,
        "random" => Sorter::Random,
        other => return Err(format!("options: role_sorter: unknown {other:?}")),
    };
    let least = text.min_allocatable.as_ref();
    let excluded = text.fairness_excluded.iter().flatten();
    Ok(Options {
        region: text.master_region.clone(),
        refusal_floor_ms: millis(text.allocation_interval.unwrap_or(1.0)),
        sorter,
        agent_by_agent: true,
        filter_gpus: text.filter_gpu_resources.unwrap_or(true),
        fairness_excluded: excluded.map(|name| name_of(name).to_owned()).collect(),
        min_allocatable: least.map(|list| list.iter().map(resources_of).collect()),
        ..Options::default()
    })
}

impl Cluster {
    pub(super) fn new(text: &OptionsText) -> Result<Self, String> {
        let interval_ms = millis(text.allocation_interval.unwrap_or(1.0)).max(1);
        Ok(Self {
            allocator: Allocator::new(options(text)?),
            interval_ms,
            next_batch_ms: interval_ms,
            ..Self::default()
        })
    }

    pub(super) fn step(&mut self, op: &Op) -> Result<(), String> {
        self.result = None;
        match op {
            Op::AddAgent { .. }
            | Op::UpdateAgent { .. }
            | Op::RemoveAgent { .. }
            | Op::AddResourceProvider { .. }
            | Op::SetWhitelist { .. }
            | Op::SetUnavailability { .. } => self.step_agent(op),
            Op::AddFramework { .. }
            | Op::UpdateFramework { .. }
            | Op::ActivateFramework { .. }
            | Op::DeactivateFramework { .. }
            | Op::RemoveFramework { .. }
            | Op::Suppress { .. }
            | Op::Revive { .. } => self.step_framework(op),
            Op::Recover { framework, role, agent, resources, filter_seconds } => {
                let holder = (framework.clone(), role.clone(), agent.clone());
                self.recover(holder, &Bag::of(resources), *filter_seconds);
                Ok(())
            }
            Op::RecoverAll {} => {
                for (holder, bag) in self.held.clone() {
                    self.recover(holder, &bag, None);
                }
                Ok(())
            }
            Op::Convert { framework, role, agent, consumed, converted } => {
                let holder = (framework.clone(), role.clone(), agent.clone());
                self.convert(holder, consumed, converted)
            }
            Op::ConvertAvailable { agent, consumed, converted } => {
                self.convert_available(agent, consumed, converted)
            }
            Op::SetQuota { role, guarantees, limits } => {
                let book = self.roles.entry(role.clone()).or_default();
                book.guarantees.clone_from(guarantees);
                book.limits.clone_from(limits);
                self.tell_role(role);
                Ok(())
            }
            Op::UpdateWeights { weights } => {
                for (role, weight) in weights {
                    self.roles.entry(role.clone()).or_default().weight = Some(*weight);
                    self.tell_role(role);
                }
                Ok(())
            }
            Op::Advance { seconds } => {
                self.advance(*seconds);
                Ok(())
            }
            Op::Note { .. } => Err("op note: prose between steps can't be played".to_owned()),
            _ => Err("op: not one of the allocator's".to_owned()),
        }
    }

    fn step_agent(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::AddAgent {
                agent,
                resources,
                used,
                agent_capabilities,
                region,
                unavailability,
                attributes,
            } => {
                let book = AgentBook {
                    total: Bag::of(resources),
                    capabilities: agent_capabilities.clone(),
                    region: region.clone(),
                    attributes: attributes.clone().unwrap_or_default(),
                    start_in: *unavailability,
                };
                self.agents.insert(agent.clone(), book);
                self.tell_agent(agent);
                for used in used {
                    let framework = used.framework.as_ref().ok_or("used: no framework")?;
                    let holder = (framework.clone(), used.role.clone(), agent.clone());
                    self.use_once(holder, &used.resources);
                }
                if unavailability.is_some() {
                    self.tell_maintenance(agent);
                }
                self.decide_on(agent);
            }
            Op::UpdateAgent { agent, resources, agent_capabilities, attributes } => {
                let book = self.agents.get_mut(agent).ok_or("agent: not there")?;
                let mut changed = false;
                if let Some(total) = resources.as_ref().map(|items| Bag::of(items)) {
                    changed |= book.total != total;
                    book.total = total;
                }
                if agent_capabilities.is_some() {
                    changed |= book.capabilities != *agent_capabilities;
                    book.capabilities.clone_from(agent_capabilities);
                }
                if let Some(attributes) = attributes {
                    changed |= book.attributes != *attributes;
                    book.attributes.clone_from(attributes);
                }
                self.tell_agent(agent);
                if changed {
                    self.decide_on(agent);
                }
            }
            Op::RemoveAgent { agent } => {
                let gone: Vec<Holder> =
                    self.held.keys().filter(|holder| holder.2 == *agent).cloned().collect();
                for holder in gone {
                    self.held.remove(&holder);
                    self.tell_held(&holder);
                }
                self.agents.remove(agent);
                self.allocator.remove_agent(agent);
            }
            Op::AddResourceProvider { agent, resources, used } => {
                let book = self.agents.get_mut(agent).ok_or("agent: not there")?;
                book.total.add(&Bag::of(resources));
                self.tell_agent(agent);
                for Used { framework, role, resources, .. } in used {
                    let framework = framework.as_ref().ok_or("used: no framework")?;
                    let holder = (framework.clone(), role.clone(), agent.clone());
                    self.hold(holder, &Bag::of(resources));
                }
            }
            Op::SetWhitelist { agents } => {
                self.whitelist = agents.as_ref().map(|names| names.iter().cloned().collect());
                for agent in self.agents.keys().cloned().collect::<Vec<_>>() {
                    self.tell_agent(&agent);
                }
            }
            Op::SetUnavailability { agent, start_in } => {
                self.agents.get_mut(agent).ok_or("agent: not there")?.start_in = *start_in;
                self.tell_maintenance(agent);
                self.decide_on(agent);
            }
            _ => return Err("op: not about an agent".to_owned()),
        }
        Ok(())
    }

    fn step_framework(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::AddFramework {
                framework,
                roles,
                capabilities,
                min_allocatable,
                active,
                used,
                suppressed_roles,
            } => {
                let active = active.unwrap_or(true);
                let book = FrameworkBook {
                    roles: roles.clone(),
                    capabilities: capabilities.clone().unwrap_or_default(),
                    least: min_allocatable.clone().unwrap_or_default(),
                    active,
                    suppressed: suppressed_roles.iter().cloned().collect(),
                };
                self.frameworks.insert(framework.clone(), book);
                self.tell_framework(framework);
                for used in used {
                    let agent = used.agent.as_ref().ok_or("used: no agent")?;
                    if self.agents.contains_key(agent) {
                        let holder = (framework.clone(), used.role.clone(), agent.clone());
                        self.use_once(holder, &used.resources);
                    }
                }
                if active {
                    self.decide();
                }
            }
            Op::UpdateFramework {
                framework,
                roles,
                capabilities,
                min_allocatable,
                suppressed_roles,
            } => {
                let book = self.framework(framework)?;
                if let Some(roles) = roles {
                    book.roles.clone_from(roles);
                }
                if let Some(capabilities) = capabilities {
                    book.capabilities.clone_from(capabilities);
                }
                if let Some(least) = min_allocatable {
                    book.least.clone_from(least);
                }
                if let Some(suppressed) = suppressed_roles {
                    book.suppressed = suppressed.iter().cloned().collect();
                }
                self.tell_framework(framework);
            }
            Op::ActivateFramework { framework } => {
                self.framework(framework)?.active = true;
                self.tell_framework(framework);
                self.decide();
            }
            Op::DeactivateFramework { framework } => {
                self.framework(framework)?.active = false;
                self.tell_framework(framework);
                self.allocator.forget_refusals(&key(framework));
            }
            Op::RemoveFramework { framework } => {
                self.framework(framework)?;
                self.frameworks.remove(framework);
                self.allocator.remove_framework(&key(framework));
            }
            Op::Suppress { framework, roles } => {
                let book = self.framework(framework)?;
                let all = book.roles.clone();
                let roles = if roles.is_empty() { &all } else { roles };
                book.suppressed.extend(roles.iter().cloned());
                self.tell_framework(framework);
            }
            Op::Revive { framework, roles } => {
                let book = self.framework(framework)?;
                let all = book.roles.clone();
                let roles = if roles.is_empty() { &all } else { roles };
                book.suppressed.retain(|role| !roles.contains(role));
                self.tell_framework(framework);
                for role in roles {
                    self.allocator.forget_refusals_in(&key(framework), &queue_of(role));
                }
                self.decide();
            }
            _ => return Err("op: not about a framework".to_owned()),
        }
        Ok(())
    }

    fn framework(&mut self, name: &str) -> Result<&mut FrameworkBook, String> {
        self.frameworks.get_mut(name).ok_or_else(|| format!("framework: no {name:?} there"))
    }

    fn tell_agent(&mut self, agent: &str) {
        let book = &self.agents[agent];
        let (allocatable, parts) = book.total.to_engine();
        let mut labels = book.attributes.clone();
        if let Some(region) = &book.region {
            labels.insert(REGION_LABEL.to_owned(), region.clone());
        }
        let can = |capability: &str| {
            book.capabilities.as_ref().is_none_or(|all| all.iter().any(|one| one == capability))
        };
        let listed = self.whitelist.as_ref().is_none_or(|list| list.contains(agent));
        let info = AgentInfo {
            allocatable,
            parts,
            single_queue: !can("MULTI_ROLE"),
            flat_queues: !can("HIERARCHICAL_ROLE"),
            labels,
            availability: if listed { Availability::Open } else { Availability::Unschedulable },
        };
        self.allocator.upsert_agent(agent, info);
    }

    fn tell_maintenance(&mut self, agent: &str) {
        let start = self.agents[agent].start_in.map(|seconds| self.now_ms + millis(seconds));
        self.allocator.schedule_maintenance(agent, start);
    }

    fn tell_framework(&mut self, framework: &str) {
        let book = &self.frameworks[framework];
        let can = |capability: &str| book.capabilities.iter().any(|one| one == capability);
        let queues = |roles: &mut dyn Iterator<Item = &String>| {
            roles.map(|role| queue_of(role)).collect::<Vec<String>>()
        };
        let least = book.least.iter().map(|(role, list)| {
            (queue_of(role), list.iter().map(resources_of).collect::<Vec<Resources>>())
        });
        let info = FrameworkInfo {
            queues: queues(&mut book.roles.iter()),
            active: book.active,
            gpu: can("GPU_RESOURCES"),
            region_aware: can("REGION_AWARE"),
            revocable: can("REVOCABLE_RESOURCES"),
            shared: can("SHARED_RESOURCES"),
            refined: can("RESERVATION_REFINEMENT"),
            max_outstanding: usize::MAX,
            min_allocatable_in: least.collect(),
            suppressed_queues: queues(&mut book.suppressed.iter()),
            ..FrameworkInfo::default()
        };
        self.allocator.upsert_framework(&key(framework), info);
    }

    fn tell_role(&mut self, role: &str) {
        let book = &self.roles[role];
        let weight = book.weight.filter(|weight| *weight != 1.0);
        let queue = queue_of(role);
        if weight.is_none() && book.guarantees.is_none() && book.limits.is_none() {
            self.roles.remove(role);
            self.allocator.remove_queue(&queue);
            return;
        }
        let resources = |quantities: &Option<Quantities>| {
            quantities.as_ref().map(resources_of).unwrap_or_default()
        };
        let info = QueueInfo {
            weight: weight.unwrap_or(1.0),
            guarantee: resources(&book.guarantees),
            limit: resources(&book.limits),
        };
        self.allocator.upsert_queue(&queue, &info);
    }

    /// Two may tell of the same use: the agent and the framework.
    fn use_once(&mut self, holder: Holder, resources: &[Item]) {
        if !self.held.contains_key(&holder) {
            self.hold(holder, &Bag::of(resources));
        }
    }

    pub(super) fn hold(&mut self, holder: Holder, bag: &Bag) {
        if bag.is_empty() {
            return;
        }
        let again = self.held.contains_key(&holder);
        self.held.entry(holder.clone()).or_default().add(bag);
        self.tell_held(&holder);
        if again {
            let leaf = self.allocator.leaf_of(&key(&holder.0), &queue_of(&holder.1));
            self.allocator.count_allocation(leaf);
        }
    }

    pub(super) fn tell_held(&mut self, holder: &Holder) {
        let Some(bag) = self.held.get(holder) else {
            self.allocator.close_offer(&offer_key(holder), None, self.now_ms);
            return;
        };
        let (resources, parts) = bag.to_engine();
        let info = OfferInfo {
            framework: holder.0.clone(),
            queue: queue_of(&holder.1),
            agent: holder.2.clone(),
            resources,
            parts,
            expires_at_ms: None,
            answered: false,
        };
        self.allocator.upsert_offer(&offer_key(holder), &info);
    }

    fn recover(&mut self, holder: Holder, bag: &Bag, filter_seconds: Option<f64>) {
        if let Some(held) = self.held.get_mut(&holder) {
            held.sub(bag);
            if held.is_empty() {
                self.held.remove(&holder);
            }
            self.tell_held(&holder);
        }
        let for_ms = match filter_seconds {
            None => 0,
            Some(seconds) if seconds < 0.0 => REFUSAL_DEFAULT_MS,
            Some(seconds) => millis(seconds).min(REFUSAL_MAX_MS),
        };
        let (resources, parts) = bag.to_engine();
        let refusal = Refusal { resources, parts, for_ms };
        let (framework, queue) = (key(&holder.0), queue_of(&holder.1));
        self.allocator.refuse((&framework, &queue), &holder.2, &refusal, self.now_ms);
    }

    fn convert(&mut self, holder: Holder, from: &[Item], to: &[Item]) -> Result<(), String> {
        let (from, to) = (Bag::of(from), Bag::of(to));
        let held = self.held.get_mut(&holder).ok_or("convert: nothing is held")?;
        if !held.contains(&from) {
            return Err(format!("consumed: {} is not held", from.told()));
        }
        held.sub(&from);
        held.add(&to);
        let total = &mut self.agents.get_mut(&holder.2).ok_or("agent: not there")?.total;
        total.sub(&from);
        total.add(&to);
        self.tell_held(&holder);
        self.tell_agent(&holder.2);
        Ok(())
    }

    fn convert_available(&mut self, agent: &str, from: &[Item], to: &[Item]) -> Result<(), String> {
        let (from, to) = (Bag::of(from), Bag::of(to));
        let mut free = self.agents.get(agent).ok_or("agent: not there")?.total.clone();
        for (_, bag) in self.held.iter().filter(|(holder, _)| holder.2 == agent) {
            free.sub(bag);
        }
        if !free.contains(&from) {
            self.result = Some("failed".to_owned());
            return Ok(());
        }
        self.result = Some("ok".to_owned());
        let total = &mut self.agents.get_mut(agent).expect("it was just found").total;
        total.sub(&from);
        total.add(&to);
        self.tell_agent(agent);
        Ok(())
    }

    fn advance(&mut self, seconds: f64) {
        let until = self.now_ms + millis(seconds);
        while self.next_batch_ms <= until {
            self.now_ms = self.next_batch_ms;
            self.next_batch_ms += self.interval_ms;
            self.runs += 1;
            let plan = self.allocator.plan(self.now_ms, self.runs);
            self.carry_out(&plan);
        }
        self.now_ms = until;
    }

    fn decide(&mut self) {
        self.runs += 1;
        let plan = self.allocator.plan_now(self.now_ms, self.runs, None);
        self.carry_out(&plan);
    }

    fn decide_on(&mut self, agent: &str) {
        self.runs += 1;
        let plan = self.allocator.plan_now(self.now_ms, self.runs, Some(&[agent]));
        self.carry_out(&plan);
    }

    fn carry_out(&mut self, plan: &Plan) {
        for offer in &plan.offers {
            let bag = Bag::from_engine(&offer.resources, &offer.parts);
            let (framework, role) = (offer.framework.name.to_string(), role_of(&offer.queue));
            let agent = offer.agent.to_string();
            self.hold((framework.clone(), role.clone(), agent.clone()), &bag);
            self.offered.push(Emitted { framework, role, agent, resources: bag });
        }
        for rescind in &plan.rescind {
            let framework = rescind.offer.name.split('|').next().unwrap_or_default();
            self.rescinded.insert(framework.to_owned());
        }
        for inverse in &plan.inverse_offers {
            let agent = inverse.agent.to_string();
            self.inverse.push(Inverse {
                framework: inverse.framework.name.to_string(),
                start_in: self.agents.get(&agent).and_then(|book| book.start_in),
                agent,
            });
        }
        self.allocator.asked_to_leave(&plan.inverse_offers);
    }
}
