//! Reservations and Volumes: who gets them, and what the tasks that want them wait for.
//!
//! A Reservation that is not bound yet is to the allocator a task like any other, one for each agent
//! that it still wants: so it takes its turn, keeps within its queue's limit, and whatever it waits
//! for is explained. Volumes and refinements take from what is reserved already, which is nobody
//! else's business.

mod serving;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use commonage_allocator::{
    Binding, FrameworkInfo, ObjectKey, Operator, Placement, Requirement, Selector, TaskInfo,
};
use commonage_schemas::{
    Offer, Reservation, Task, framework, offer::OfferAnswer, reservation::BOUND,
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::Accounting;
use crate::allocation::{
    apply::Write,
    cache::{Key, version},
    info,
    reserved::{Taken, View, disk, named, plus},
};

/// The allocator's name for all who wait as Reservations. No object has an empty namespace and a
/// framework.
const RESERVATIONS: &str = "reservations";
/// Tells apart tasks that claim an agent for a framework that answers offers itself. No name of an
/// object contains this.
const CLAIMS: &str = "!claims";
/// The label that keeps the parts of one Reservation on different agents.
const RESERVATION_LABEL: &str = "reservation";

#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Agents that each unbound reservation was told to the allocator for, by name.
    waiting: BTreeMap<String, Vec<ObjectKey>>,
    queues: BTreeSet<String>,
    /// Tasks that wait for volumes, and why each does.
    for_volumes: BTreeMap<Key, String>,
    /// Which waiting task has the next turn at a volume that only one can have.
    turns: HashMap<Key, Key>,
    /// Frameworks for whose tasks there is a claimant.
    claimants: BTreeSet<Key>,
    /// What refinements and volumes are given in this turn.
    pub(super) taken: Taken,
    /// Something that reservations could serve has changed.
    pub(super) look: bool,
}

impl Accounting {
    pub(crate) fn view(&self) -> View<'_> {
        View { world: &self.world, holding: &self.holding }
    }

    /// Tasks that wait for a volume, and for what about it.
    pub(crate) fn waiting_for_volumes(&self) -> impl Iterator<Item = (&Key, &str)> {
        self.claims.for_volumes.iter().map(|(key, why)| (key, why.as_str()))
    }

    pub(super) fn reserved_agents(&self) -> Vec<String> {
        let all = self.world.reservations.iter();
        all.flat_map(|reservation| reservation.agents().to_vec()).collect()
    }

    /// Brings the allocator's picture of these agents up to date.
    pub(super) fn sync_portions(&mut self, agents: &[String]) {
        for agent in agents {
            self.claims.look = true;
            self.sync_agent(&named(agent));
            for task in self.reserved.tasks_on(agent) {
                self.sync_task(&task);
            }
        }
        if !agents.is_empty() {
            let waiting: Vec<Key> = self.claims.for_volumes.keys().cloned().collect();
            waiting.iter().for_each(|key| self.sync_task(key));
        }
    }

    pub(super) fn sync_reservations(&mut self, changed: Vec<Key>, before: Vec<String>) -> bool {
        for (_, name) in &changed {
            self.sync_waiting(name);
        }
        if !changed.is_empty() {
            let mut agents: BTreeSet<String> = before.into_iter().collect();
            agents.extend(self.reserved_agents());
            self.sync_portions(&agents.into_iter().collect::<Vec<_>>());
            self.settle_waiting_offers();
        }
        !changed.is_empty()
    }

    pub(super) fn sync_volumes(&mut self, changed: Vec<Key>) -> bool {
        if !changed.is_empty() {
            let agents = self.reserved_agents();
            self.sync_portions(&agents);
            self.settle_waiting_offers();
        }
        !changed.is_empty()
    }

    /// Offers that were accepted and whose reservations or volumes have perhaps come now.
    fn settle_waiting_offers(&mut self) {
        let made = |offer: &Offer| {
            super::answer(offer)
                .is_some_and(|a| !a.reservations.is_empty() || !a.volumes.is_empty())
        };
        let holding = self.holding.iter();
        let answered: Vec<Key> = holding
            .filter(|key| self.world.offers.get(key).is_some_and(|o| made(o)))
            .cloned()
            .collect();
        self.sync_offers(answered);
    }

    /// Whether what an acceptance made beside tasks is there as it made it, or later.
    pub(super) fn all_made_known(&self, offer: &Offer, answer: &OfferAnswer) -> bool {
        // One write, one revision: the low byte is the place in it.
        let since = version(offer) / 256;
        let namespace = offer.namespace().unwrap_or_default();
        let reservations = answer.reservations.iter().all(|name| {
            let found = self.world.reservations.get(&named(name));
            found.is_some_and(|found| version(found.as_ref()) / 256 >= since)
        });
        reservations
            && answer.volumes.iter().all(|name| {
                let found = self.world.volumes.get(&(namespace.clone(), name.clone()));
                found.is_some_and(|found| version(found.as_ref()) / 256 >= since)
            })
    }

    /// Tells the allocator of what a reservation still wants.
    fn sync_waiting(&mut self, name: &str) {
        let before = self.claims.waiting.remove(name).unwrap_or_default();
        let found = self.world.reservations.get(&named(name)).cloned();
        let wants = found.filter(|r| {
            r.spec.parent.is_none()
                && r.metadata.deletion_timestamp.is_none()
                && r.agents().len() < r.count()
        });
        let mut now = Vec::new();
        if let Some(reservation) = wants {
            if self.claims.queues.insert(reservation.spec.queue.clone()) {
                let info = FrameworkInfo {
                    queues: self.claims.queues.iter().cloned().collect(),
                    placement: Placement::Tasks,
                    gpu: true,
                    region_aware: true,
                    ..FrameworkInfo::default()
                };
                self.allocator.upsert_framework(&ObjectKey::new("", RESERVATIONS), info);
            }
            for place in reservation.agents().len()..reservation.count() {
                let key = ObjectKey::new("", &format!("{name}/{place}"));
                self.allocator.upsert_task(&key, &wanted(&reservation, place));
                now.push(key);
            }
        }
        for gone in before.iter().filter(|key| !now.contains(key)) {
            self.allocator.remove_task(gone);
        }
        if !now.is_empty() {
            self.claims.waiting.insert(name.to_owned(), now);
        }
    }

    /// Reservations that were given agents.
    pub(super) fn bind_reservations(&self, bindings: &[Binding]) -> Vec<Write> {
        let mut by_name: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for binding in bindings {
            let name = binding.task.name.rsplit_once('/').map_or("", |(name, _)| name);
            by_name.entry(name).or_default().push(binding.agent.to_string());
        }
        let found = by_name.into_iter().filter_map(|(name, agents)| {
            let reservation = self.world.reservations.get(&named(name))?.clone();
            Some(self.bound(reservation, &agents))
        });
        found.collect()
    }

    fn bound(&self, reservation: Arc<Reservation>, more: &[String]) -> Write {
        let mut agents = reservation.agents().to_vec();
        agents.extend_from_slice(more);
        let all = agents.len() >= reservation.count();
        let message = match agents.len() {
            1 => format!("set aside on {}", agents[0]),
            some => format!("set aside on {some} of {} agents", reservation.count()),
        };
        let condition = self.condition(all, if all { "SetAside" } else { "Waiting" }, &message);
        let phase = if all { "Bound" } else { "Pending" };
        let status = json!({"phase": phase, "agents": agents, "conditions": [condition]});
        Write::Reserve(reservation, status)
    }

    pub(crate) fn condition(&self, holds: bool, reason: &str, message: &str) -> Value {
        json!({
            "type": BOUND, "status": if holds { "True" } else { "False" }, "reason": reason,
            "message": message, "lastTransitionTime": self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        })
    }

    /// The reservation that an explanation is about, if it is about one.
    pub(crate) fn reservation_of(&self, waiting: &ObjectKey) -> Option<&Arc<Reservation>> {
        let (name, _) = waiting.name.rsplit_once('/').filter(|_| waiting.namespace.is_empty())?;
        self.world.reservations.get(&named(name))
    }

    /// A waiting task as the allocator is to see it: at its volumes, if it mounts any, and as one of
    /// a claimant if it claims an agent for a framework that answers offers. `None`: it waits for a
    /// volume.
    pub(super) fn claimed(
        &mut self,
        key: &Key,
        task: Option<&Task>,
        mut info: TaskInfo,
    ) -> Option<TaskInfo> {
        let task = task?;
        let volumes: Vec<Key> =
            task.spec.volumes().map(|name| (key.0.clone(), name.to_owned())).collect();
        if info.agent.is_some() {
            self.claims.for_volumes.remove(key);
            for volume in volumes {
                self.claims.turns.retain(|_, whose| whose != key);
                // Disk that nobody else can have meanwhile counts as the task's.
                let found = self.world.volumes.get(&volume).filter(|v| !v.spec.shared);
                let bytes = found.map_or(0, |volume| volume.bound_bytes());
                info.resources = plus(&info.resources, &disk(bytes));
            }
            return Some(info);
        }
        self.claims.look |= self.world.reservations.iter().next().is_some();
        for volume in &volumes {
            match self.turn_at(volume, key) {
                Ok(agent) => info.required.0.push(info::agents(Operator::In, &[agent])),
                Err(why) => {
                    self.claims.for_volumes.insert(key.clone(), why);
                    return None;
                }
            }
        }
        self.claims.for_volumes.remove(key);
        if task.spec.agent.is_some() {
            let owner = (key.0.clone(), info.framework.clone());
            if self.claims.claimants.insert(owner.clone()) {
                self.sync_claimants(&owner);
            }
            if self.answers_offers(&owner) {
                info.framework.push_str(CLAIMS);
            }
        }
        Some(info)
    }

    fn answers_offers(&self, framework: &Key) -> bool {
        let found = self.world.frameworks.get(framework);
        found.is_some_and(|f| f.spec.placement == framework::Placement::Offers)
    }

    /// Tasks that claim an agent are placed even for a framework that answers offers itself: in its
    /// queues, by a claimant of its own.
    pub(super) fn sync_claimants(&mut self, owner: &Key) {
        if !self.claims.claimants.contains(owner) {
            return;
        }
        let claimant = ObjectKey::new(&owner.0, &format!("{}{CLAIMS}", owner.1));
        match self.world.frameworks.get(owner) {
            Some(framework) => {
                let info = FrameworkInfo {
                    placement: Placement::Tasks,
                    demand: None,
                    suppressed_queues: Vec::new(),
                    ..info::framework(framework)
                };
                self.allocator.upsert_framework(&claimant, info);
            }
            None => self.allocator.remove_framework(&claimant),
        }
    }

    /// Where the volume is, if this task may mount it next.
    fn turn_at(&mut self, volume: &Key, task: &Key) -> Result<String, String> {
        let name = &volume.1;
        let Some(found) = self.world.volumes.get(volume) else {
            return Err(format!("volume {name} does not exist"));
        };
        let Some(agent) = self.view().place_of(found).map(str::to_owned) else {
            return Err(format!("volume {name} is not bound"));
        };
        if found.spec.shared {
            return Ok(agent);
        }
        let users = self.reserved.users(volume);
        if !users.is_empty() {
            return Err(format!("volume {name} is used by {}", users.join(", ")));
        }
        if self.reserved.is_offered(volume) {
            return Err(format!("volume {name} is offered to a framework"));
        }
        let waits = |key: &Key| self.world.tasks.get(key).is_some_and(|t| info::task(t).is_some());
        match self.claims.turns.get(volume).filter(|whose| *whose != task && waits(whose)) {
            Some(whose) => Err(format!("volume {name} goes to {} next", whose.1)),
            None => {
                self.claims.turns.insert(volume.clone(), task.clone());
                Ok(agent)
            }
        }
    }
}

/// What a reservation wants of one more agent, as a task.
fn wanted(reservation: &Reservation, place: usize) -> TaskInfo {
    let spec = &reservation.spec;
    let name = reservation.name_any();
    let mut required = spec.selector.as_ref().map(info::selector).unwrap_or_default();
    if let Some(agent) = &spec.agent {
        required.0.push(info::agents(Operator::In, std::slice::from_ref(agent)));
    }
    if !reservation.agents().is_empty() {
        required.0.push(info::agents(Operator::NotIn, reservation.agents()));
    }
    let label = Requirement {
        key: RESERVATION_LABEL.to_owned(),
        operator: Operator::In,
        values: vec![name.clone()],
    };
    let created = reservation.metadata.creation_timestamp.as_ref();
    TaskInfo {
        uid: format!("{}/{place}", reservation.uid().unwrap_or_default()).into(),
        framework: RESERVATIONS.to_owned(),
        queue: spec.queue.clone(),
        resources: spec.resources.clone(),
        labels: BTreeMap::from([(RESERVATION_LABEL.to_owned(), name)]),
        created_ms: created.map_or(0, |time| info::millis(time.0)),
        priority: if spec.preempt { i32::MAX } else { 0 },
        only_plain: true,
        required,
        anti_affinity: (reservation.count() > 1).then(|| Selector(vec![label])),
        ..TaskInfo::default()
    }
}
