//! Who holds what, and how the allocator is told of it.

use commonage_schemas::resources::Resources;

use super::{Cluster, Holder, REFUSAL_DEFAULT_MS, REFUSAL_MAX_MS, REGION_LABEL};
use super::{key, millis, nobody, offer_key};
use crate::replay::bag::{Bag, Item, queue_of, resources_of};
use crate::replay::format::Quantities;
use crate::{AgentInfo, Availability, FrameworkInfo, OfferInfo, QueueInfo, Refusal};

impl Cluster {
    pub(super) fn tell_agent(&mut self, agent: &str) {
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

    pub(super) fn tell_maintenance(&mut self, agent: &str) {
        let start = self.agents[agent].start_in.map(|seconds| self.now_ms + millis(seconds));
        self.allocator.schedule_maintenance(agent, start);
    }

    pub(super) fn tell_framework(&mut self, framework: &str) {
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

    pub(super) fn tell_role(&mut self, role: &str) {
        let book = &self.roles[role];
        let weight = book.weight.filter(|weight| *weight != 1.0);
        let queue = queue_of(role);
        let none = |quota: &Option<Quantities>| quota.iter().flatten().next().is_none();
        if weight.is_none() && none(&book.guarantees) && none(&book.limits) {
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
            ..QueueInfo::default()
        };
        self.allocator.upsert_queue(&queue, &info);
    }

    /// Two may tell of the same use: the agent and the framework.
    pub(super) fn use_once(&mut self, holder: Holder, resources: &[Item]) {
        if self.held.contains_key(&holder) || self.absent.contains_key(&holder) {
            return;
        }
        let bag = Bag::of(resources);
        if self.frameworks.contains_key(&holder.0) {
            self.hold(holder, &bag);
        } else {
            self.hold(nobody(&holder.2), &bag);
            self.absent.insert(holder, bag);
        }
    }

    /// What it held before it came is its own from now on.
    pub(super) fn welcome(&mut self, framework: &str) {
        for (holder, bag) in std::mem::take(&mut self.absent) {
            if holder.0 == framework {
                self.let_go(&nobody(&holder.2), &bag);
                self.hold(holder, &bag);
            } else {
                self.absent.insert(holder, bag);
            }
        }
    }

    /// All that it holds is free from now on, as `removeFramework` of Mesos' allocator has it.
    pub(super) fn part_with(&mut self, framework: &str) {
        let its: Vec<Holder> = self.held.keys().filter(|h| h.0 == framework).cloned().collect();
        for holder in its {
            self.held.remove(&holder);
            self.tell_held(&holder);
        }
    }

    pub(super) fn let_go(&mut self, holder: &Holder, bag: &Bag) {
        let Some(held) = self.held.get_mut(holder) else { return };
        held.sub(bag);
        if held.is_empty() {
            self.held.remove(holder);
        }
        self.tell_held(holder);
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

    pub(super) fn recover(&mut self, holder: Holder, bag: &Bag, filter_seconds: Option<f64>) {
        self.let_go(&holder, bag);
        if let Some(held) = self.absent.get_mut(&holder) {
            held.sub(bag);
            self.let_go(&nobody(&holder.2), bag);
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

    pub(super) fn convert(
        &mut self,
        holder: Holder,
        from: &[Item],
        to: &[Item],
    ) -> Result<(), String> {
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

    pub(super) fn convert_available(
        &mut self,
        agent: &str,
        from: &[Item],
        to: &[Item],
    ) -> Result<(), String> {
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
}
