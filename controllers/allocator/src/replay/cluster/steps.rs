//! What happens to agents and frameworks, step by step.

use std::collections::BTreeSet;

use super::{AgentBook, Cluster, FrameworkBook, Holder, key, least_by_role};
use crate::replay::bag::{Bag, queue_of};
use crate::replay::format::{Attributes, Op, Start, Used};
use crate::replay::role_names;

/// Mesos' capabilities, also those that change nothing here. The first two are those of an agent that does not say.
const AGENTS_CAN: [&str; 8] = [
    "MULTI_ROLE",
    "HIERARCHICAL_ROLE",
    "RESERVATION_REFINEMENT",
    "RESOURCE_PROVIDER",
    "RESIZE_VOLUME",
    "AGENT_OPERATION_FEEDBACK",
    "AGENT_DRAINING",
    "TASK_RESOURCE_LIMITS",
];
const FRAMEWORKS_CAN: [&str; 9] = [
    "REVOCABLE_RESOURCES",
    "TASK_KILLING_STATE",
    "GPU_RESOURCES",
    "SHARED_RESOURCES",
    "PARTITION_AWARE",
    "MULTI_ROLE",
    "RESERVATION_REFINEMENT",
    "REGION_AWARE",
    "QUOTA_V2",
];

fn check_known(field: &str, named: &Option<Vec<String>>, known: &[&str]) -> Result<(), String> {
    let strange = named.iter().flatten().find(|name| !known.contains(&name.as_str()));
    strange.map_or(Ok(()), |name| Err(format!("{field}: unknown {name:?}")))
}

/// Of an agent that does not say, those that every agent has.
fn can(named: &Option<Vec<String>>) -> BTreeSet<&str> {
    match named {
        Some(named) => named.iter().map(String::as_str).collect(),
        None => AGENTS_CAN[..2].iter().copied().collect(),
    }
}

fn check_names(roles: &[String]) -> Result<(), String> {
    let wrong = roles.iter().find_map(|role| role_names::wrong(role));
    wrong.map_or(Ok(()), |wrong| Err(format!("roles: {wrong}")))
}

impl Cluster {
    pub(super) fn step_agent(&mut self, op: &Op) -> Result<(), String> {
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
                check_known("agent_capabilities", agent_capabilities, &AGENTS_CAN)?;
                let book = AgentBook {
                    total: Bag::of(resources),
                    capabilities: agent_capabilities.clone(),
                    region: region.clone(),
                    attributes: attributes.as_ref().map(Attributes::labels).unwrap_or_default(),
                    start_in: unavailability.as_ref().map(Start::seconds),
                };
                self.agents.insert(agent.clone(), book);
                self.seen.insert(agent.clone());
                self.tell_agent(agent);
                for used in used {
                    let framework = used.framework.as_ref().ok_or("used: no framework")?;
                    let holder = self.holder(framework, used.role.as_ref(), agent)?;
                    self.seen.insert(framework.clone());
                    self.use_once(holder, &used.resources);
                }
                if unavailability.is_some() {
                    self.tell_maintenance(agent);
                }
                self.decide_on(agent);
            }
            Op::UpdateAgent { agent, resources, agent_capabilities, attributes } => {
                check_known("agent_capabilities", agent_capabilities, &AGENTS_CAN)?;
                let book = self.agents.get_mut(agent).ok_or("agent: not there")?;
                let mut changed = false;
                if let Some(total) = resources.as_ref().map(|items| Bag::of(items)) {
                    changed |= book.total != total;
                    book.total = total;
                }
                if agent_capabilities.is_some() {
                    changed |= can(&book.capabilities) != can(agent_capabilities);
                    book.capabilities.clone_from(agent_capabilities);
                }
                if let Some(attributes) = attributes.as_ref().map(Attributes::labels) {
                    changed |= book.attributes != attributes;
                    book.attributes = attributes;
                }
                self.tell_agent(agent);
                if changed {
                    self.decide_on(agent);
                }
            }
            Op::RemoveAgent { agent } => {
                self.check_seen("agent", agent)?;
                let gone: Vec<Holder> =
                    self.held.keys().filter(|holder| holder.2 == *agent).cloned().collect();
                for holder in gone {
                    self.held.remove(&holder);
                    self.tell_held(&holder);
                }
                self.absent.retain(|holder, _| holder.2 != *agent);
                self.agents.remove(agent);
                self.allocator.remove_agent(agent);
            }
            Op::AddResourceProvider { agent, resources, used } => {
                let book = self.agents.get_mut(agent).ok_or("agent: not there")?;
                book.total.add(&Bag::of(resources));
                self.tell_agent(agent);
                for Used { framework, role, resources, .. } in used {
                    let framework = framework.as_ref().ok_or("used: no framework")?;
                    let holder = self.holder(framework, role.as_ref(), agent)?;
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
                self.agents.get_mut(agent).ok_or("agent: not there")?.start_in =
                    start_in.as_ref().map(Start::seconds);
                self.tell_maintenance(agent);
                self.decide_on(agent);
            }
            _ => return Err("op: not about an agent".to_owned()),
        }
        Ok(())
    }

    pub(super) fn step_framework(&mut self, op: &Op) -> Result<(), String> {
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
                check_known("capabilities", capabilities, &FRAMEWORKS_CAN)?;
                check_names(roles)?;
                let active = active.unwrap_or(true);
                let book = FrameworkBook {
                    roles: roles.clone(),
                    capabilities: capabilities.clone().unwrap_or_default(),
                    least: least_by_role(roles, min_allocatable.as_ref()),
                    active,
                    suppressed: suppressed_roles.iter().cloned().collect(),
                };
                self.frameworks.insert(framework.clone(), book);
                self.seen.insert(framework.clone());
                self.tell_framework(framework);
                self.welcome(framework);
                for used in used {
                    let agent = used.agent.as_ref().ok_or("used: no agent")?;
                    if self.agents.contains_key(agent) {
                        let holder = self.holder(framework, used.role.as_ref(), agent)?;
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
                check_known("capabilities", capabilities, &FRAMEWORKS_CAN)?;
                let book = self.framework(framework)?;
                if let Some(roles) = roles {
                    check_names(roles)?;
                    book.roles.clone_from(roles);
                }
                if let Some(capabilities) = capabilities {
                    book.capabilities.clone_from(capabilities);
                }
                if min_allocatable.is_some() {
                    book.least = least_by_role(&book.roles, min_allocatable.as_ref());
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
                self.part_with(framework);
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
}
