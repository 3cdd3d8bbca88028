//! What is reserved is given out without the allocator: to refinements, volumes, and tasks of queues
//! that it is reserved for.

use std::collections::HashMap;
use std::sync::Arc;

use commonage_allocator::{Binding, Placement};
use commonage_schemas::{
    Resources, Task, Volume,
    names::{DEFAULT_FRAMEWORK, DEFAULT_QUEUE},
    offer::ReservedPart,
    reservation::BOUND,
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::Accounting;
use crate::allocation::{
    accounting::object_key,
    apply::Write,
    cache::key,
    info,
    reserved::{disk, minus, named, plus},
};

impl Accounting {
    /// What can be given out of reservations without asking anybody: refinements, volumes, and
    /// places for tasks of queues that have something reserved.
    pub(crate) fn serve_from_reservations(&mut self) -> Vec<Write> {
        if !std::mem::take(&mut self.claims.look) || self.world.reservations.iter().next().is_none()
        {
            return Vec::new();
        }
        let mut writes = self.refine();
        writes.extend(self.provide_volumes());
        writes.extend(self.place_on_reservations());
        writes
    }

    fn refine(&self) -> Vec<Write> {
        let view = self.view();
        let mut writes = Vec::new();
        let mut taken: HashMap<(String, String), Resources> = HashMap::new();
        for child in self.world.reservations.iter().filter(|r| r.agents().len() < r.count()) {
            let Some(parent) = child.spec.parent.as_deref() else { continue };
            let above = self.world.reservations.get(&named(parent));
            let places: Vec<String> = above.map(|r| r.agents().to_vec()).unwrap_or_default();
            let wanted = child.spec.agent.as_ref();
            let place = places.iter().filter(|a| wanted.is_none_or(|w| w == *a)).find(|agent| {
                let place = (parent.to_owned(), (*agent).clone());
                let taken = taken.get(&place).cloned().unwrap_or_default();
                let free = minus(&self.reserved.free(&view, parent, agent), &taken);
                !child.agents().contains(agent) && free.contains(&child.spec.resources)
            });
            if let Some(agent) = place {
                let place = taken.entry((parent.to_owned(), agent.clone())).or_default();
                *place = plus(place, &child.spec.resources);
                writes.push(self.bound(child.clone(), std::slice::from_ref(agent)));
            }
        }
        writes
    }

    fn provide_volumes(&self) -> Vec<Write> {
        let view = self.view();
        let mut taken: HashMap<(String, String), Resources> = HashMap::new();
        let mut writes = Vec::new();
        for volume in self.world.volumes.iter() {
            let (has, wants) = (volume.bound_bytes(), volume.wanted_bytes());
            if volume.is_bound() && has == wants || volume.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let name = &volume.spec.reservation;
            let more = disk(wants - has);
            let places = match view.place_of(volume) {
                Some(agent) => vec![agent.to_owned()],
                None => {
                    let found = self.world.reservations.get(&named(name));
                    found.map(|r| r.agents().to_vec()).unwrap_or_default()
                }
            };
            let place = places.into_iter().find(|agent| {
                let taken = taken.get(&(name.clone(), agent.clone())).cloned().unwrap_or_default();
                minus(&self.reserved.free(&view, name, agent), &taken).contains(&more)
            });
            let status = match place {
                Some(agent) => {
                    let place = taken.entry((name.clone(), agent.clone())).or_default();
                    *place = plus(place, &more);
                    let condition = self.condition(true, "SetAside", "its disk is set aside");
                    json!({"phase": "Bound", "size": volume.spec.size, "agent": agent,
                           "conditions": [condition]})
                }
                None => match self.waits(volume) {
                    Some(status) => status,
                    None => continue,
                },
            };
            writes.push(Write::Provide(volume.clone(), status));
        }
        writes
    }

    /// What a volume says that waits; `None`: it says so already.
    fn waits(&self, volume: &Volume) -> Option<Value> {
        let name = &volume.spec.reservation;
        let message = match self.world.reservations.get(&named(name)) {
            None => format!("reservation {name} does not exist"),
            Some(found) if found.agents().is_empty() => format!("reservation {name} is not bound"),
            Some(_) => format!("reservation {name} has too little disk left"),
        };
        let conditions =
            volume.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        if conditions.iter().any(|c| c.type_ == BOUND && c.message == message) {
            return None;
        }
        let phase = if volume.is_bound() { "Bound" } else { "Pending" };
        let condition = self.condition(volume.is_bound(), "WaitingForDisk", &message);
        Some(json!({"phase": phase, "conditions": [condition]}))
    }

    /// Places tasks on what is reserved for their queue: that needs nobody's turn, and is counted
    /// whether it is used or not.
    fn place_on_reservations(&mut self) -> Vec<Write> {
        let mut free: Vec<(String, String, String, Resources)> = Vec::new();
        let view = self.view();
        for reservation in self.world.reservations.iter().filter(|r| !r.agents().is_empty()) {
            let name = reservation.name_any();
            for agent in reservation.agents() {
                let left = self.reserved.free(&view, &name, agent);
                let found = self.world.agents.get(&named(agent));
                let open = found.is_some_and(|agent| info::is_open(agent));
                if !left.is_empty() && open {
                    let queue = reservation.spec.queue.clone();
                    free.push((name.clone(), agent.clone(), queue, left));
                }
            }
        }
        let mut writes = Vec::new();
        if free.is_empty() {
            return writes;
        }
        let mut waiting: Vec<&Arc<Task>> =
            self.world.tasks.iter().filter(|task| self.is_simple(task)).collect();
        waiting.sort_by_key(|t| {
            (-t.spec.priority, t.metadata.creation_timestamp.clone().map(|c| c.0))
        });
        let mut placed = Vec::new();
        for task in waiting {
            let place = free.iter_mut().find(|(_, agent, queue, left)| {
                let queue_of_task = task.spec.queue.as_deref().unwrap_or(DEFAULT_QUEUE);
                let below = queue_of_task.strip_prefix(queue.as_str());
                below.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                    && left.contains(&task.spec.resources)
                    && self.may_go(task, agent)
            });
            let Some((name, agent, _, left)) = place else { continue };
            *left = minus(left, &task.spec.resources);
            let part =
                ReservedPart { reservation: name.clone(), resources: task.spec.resources.clone() };
            let key = key(task.as_ref());
            let binding = Binding {
                task: object_key(&key),
                uid: task.uid().unwrap_or_default().into(),
                agent: agent.as_str().into(),
                host_ports: Vec::new(),
            };
            placed.push(key);
            writes.push(Write::Bind(binding, vec![part]));
        }
        // The allocator must not place them once more before the answer is there.
        for key in &placed {
            self.allocator.remove_task(&object_key(key));
        }
        self.claims.placed = placed;
        writes
    }

    /// The writes are done: who was not placed after all waits as before.
    pub(crate) fn settle_placed(&mut self) {
        for key in std::mem::take(&mut self.claims.placed) {
            self.sync_task(&key);
        }
    }

    /// A task that waits to be placed and needs nothing but numbers.
    fn is_simple(&self, task: &Task) -> bool {
        let spec = &task.spec;
        let framework = spec.framework.clone().unwrap_or_else(|| DEFAULT_FRAMEWORK.to_owned());
        let owner = (task.namespace().unwrap_or_default(), framework);
        let alone = spec.gang.is_none() && spec.group.is_none() && spec.container.ports.is_empty();
        let picky = spec
            .constraints
            .as_ref()
            .is_some_and(|c| c.spread.is_some() || c.anti_affinity.is_some());
        !task.is_bound()
            && !task.state().is_terminal()
            && task.metadata.deletion_timestamp.is_none()
            && alone
            && !picky
            && !self.claims.for_volumes.contains_key(&key(task))
            && self.world.frameworks.get(&owner).is_some_and(|framework| {
                let info = info::framework(framework);
                info.active
                    && info.placement == Placement::Tasks
                    && info.queues.iter().any(|q| Some(q) == spec.queue.as_ref())
            })
    }

    fn may_go(&self, task: &Task, agent: &str) -> bool {
        let Some(found) = self.world.agents.get(&named(agent)) else { return false };
        let at_volumes = task.spec.volumes().all(|name| {
            let key = (task.namespace().unwrap_or_default(), name.to_owned());
            let volume = self.world.volumes.get(&key);
            volume.is_some_and(|v| self.view().place_of(v) == Some(agent))
        });
        let claimed = task.spec.agent.as_deref().is_none_or(|claimed| claimed == agent);
        let required = task.spec.required_labels().map(info::selector).unwrap_or_default();
        let labels = commonage_schemas::task::labels(&found.metadata);
        at_volumes && claimed && required.matches(&labels)
    }
}
