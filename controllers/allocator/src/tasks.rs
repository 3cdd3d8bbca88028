//! Tasks: waiting ones stand in their leaf's line, bound ones hold resources.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use commonage_schemas::resources::Ranges;

use crate::accounts::{Held, Holder};
use crate::info::{Gang, ObjectKey, TaskInfo};
use crate::lanes::Goods;
use crate::shapes::Shape;
use crate::state::{Allocator, Turn};
use crate::table::Id;

/// A group's or a gang's name: unique inside a namespace and framework.
pub(crate) type MembersKey = (Arc<str>, Id, Arc<str>);

/// Who belongs to a group or a gang, waiting and bound.
pub(crate) type Members = HashMap<MembersKey, BTreeSet<Id>>;

/// One task that is not in a terminal state.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) key: ObjectKey,
    pub(crate) uid: Arc<str>,
    pub(crate) leaf: Id,
    /// Set while it is bound.
    pub(crate) held: Option<Held>,
    /// Set while it waits.
    pub(crate) wait: Option<Wait>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) group: Option<MembersKey>,
    pub(crate) gang: Option<(MembersKey, usize)>,
    pub(crate) priority: i32,
    pub(crate) revocable: bool,
    pub(crate) only_plain: bool,
    pub(crate) ending: bool,
    pub(crate) created_ms: u64,
    /// Kept while it wants something under a name that no agent has yet.
    pub(crate) deferred: Option<Box<TaskInfo>>,
}

/// What a waiting task needs, and where it stands in the line.
#[derive(Debug, Clone)]
pub(crate) struct Wait {
    pub(crate) shape: Id,
    pub(crate) turn: Turn,
}

impl Allocator {
    /// Tells of a task that is not in a terminal state, or of a change of it. Changes come in their
    /// order: what is said last is so.
    pub fn upsert_task(&mut self, key: &ObjectKey, info: &TaskInfo) {
        if let Some(agent) = &info.agent {
            self.upsert_bound(key, info, agent);
        } else {
            self.upsert_waiting(key, info);
        }
    }

    fn upsert_bound(&mut self, key: &ObjectKey, info: &TaskInfo, agent: &str) {
        // It got these resources from an agent, so their names are an agent's.
        self.learn(&info.resources);
        let framework =
            ObjectKey { namespace: key.namespace.clone(), name: (*info.framework).into() };
        let leaf = self.leaf_of(&framework, &info.queue);
        let (lanes, _) = self.names.lanes(&info.resources);
        let mut goods = Goods::of(&info.resources);
        let ports: Ranges = info.host_ports.iter().copied().filter(|port| *port != 0).collect();
        goods.ports = goods.ports.union(&ports);
        let place = self.agent_id(agent);
        let parts = self.pieces_of(&info.parts);
        let held = Held { agent: place, leaf, lanes, goods, parts };
        let mut known_as_bound = false;
        if let Some(id) = self.tasks.id(key) {
            let task = &mut self.tasks[id];
            known_as_bound = task.uid == info.uid && task.held.is_some();
            if known_as_bound && task.held.as_ref() == Some(&held) {
                let mut news = (task.priority, task.revocable, task.ending)
                    != (info.priority, info.revocable, info.ending);
                if task.labels != info.labels {
                    task.labels.clone_from(&info.labels);
                    news = true;
                }
                if news {
                    self.changes.agent(place);
                }
                self.mark(id, info);
                return;
            }
        }
        let before = self.forget_task(key);
        let id = self.insert_task(key, info, leaf);
        self.hold(Holder::Task(id), &held);
        self.tasks[id].held = Some(held);
        *self.bound_priorities.entry(info.priority).or_default() += 1;
        self.mark(id, info);
        if !known_as_bound {
            self.count_allocation(leaf);
            if self.places_tasks(self.leaves[leaf].framework) {
                self.claims.remove(&place);
            }
        }
        self.collect_places(before);
    }

    /// What may change of a bound task while it holds what it holds.
    fn mark(&mut self, id: Id, info: &TaskInfo) {
        self.unmark(id);
        let task = &mut self.tasks[id];
        (task.priority, task.revocable, task.ending) = (info.priority, info.revocable, info.ending);
        *self.bound_priorities.entry(info.priority).or_default() += 1;
        if info.ending {
            self.ending.insert(id);
        }
    }

    fn unmark(&mut self, id: Id) {
        self.ending.remove(&id);
        let priority = self.tasks[id].priority;
        if let Some(count) = self.bound_priorities.get_mut(&priority) {
            *count -= 1;
            if *count == 0 {
                self.bound_priorities.remove(&priority);
            }
        }
    }

    fn upsert_waiting(&mut self, key: &ObjectKey, info: &TaskInfo) {
        let (mut arrival, mut nominated) = (None, None);
        if let Some(id) = self.tasks.id(key) {
            // One that was bound waits again when the store was taken back to before its binding.
            let task = &self.tasks[id];
            arrival = task.wait.as_ref().map(|wait| wait.turn.2);
            nominated = self.nominated.get(&id).copied();
        }
        let framework =
            ObjectKey { namespace: key.namespace.clone(), name: (*info.framework).into() };
        let leaf = self.leaf_of(&framework, &info.queue);
        let before = self.forget_task(key);
        let id = self.insert_task(key, info, leaf);
        let arrival = arrival.unwrap_or_else(|| {
            self.arrivals += 1;
            self.arrivals
        });
        let shape = self.shape_of(key, info);
        if !shape.unknown.is_empty() {
            self.tasks[id].deferred = Some(Box::new(info.clone()));
        }
        let turn = (Reverse(info.priority), info.created_ms, arrival, id);
        let shape = self.shapes.acquire(shape);
        self.changes.pending += usize::from(self.leaves[leaf].pending.insert(turn));
        if let Some(agent) = nominated {
            self.nominated.insert(id, agent);
        }
        self.tasks[id].wait = Some(Wait { shape, turn });
        self.changes.tasks.insert(id);
        self.collect_places(before);
    }

    fn shape_of(&self, key: &ObjectKey, info: &TaskInfo) -> Shape {
        let (lanes, mut unknown) = self.names.lanes(&info.resources);
        unknown.sort_unstable();
        let mut goods = Goods::of(&info.resources);
        let named: Ranges = info.host_ports.iter().copied().filter(|port| *port != 0).collect();
        goods.ports = goods.ports.union(&named);
        Shape {
            lanes,
            goods,
            picks: info.host_ports.iter().filter(|port| **port == 0).count(),
            unknown,
            required: info.required.clone(),
            preferred: info.preferred.clone(),
            spread: info.spread.clone(),
            anti_affinity: info
                .anti_affinity
                .clone()
                .map(|selector| (key.namespace.clone(), selector)),
        }
    }

    fn insert_task(&mut self, key: &ObjectKey, info: &TaskInfo, leaf: Id) -> Id {
        let framework = self.leaves[leaf].framework;
        let member_of = |name: &str| (key.namespace.clone(), framework, Arc::from(name));
        let group = info.group.as_deref().map(member_of);
        let gang = info.gang.as_ref().map(|Gang { name, size }| (member_of(name), *size));
        let id = self.tasks.id_or_insert_with(key, || Task {
            key: key.clone(),
            uid: info.uid.clone(),
            leaf,
            held: None,
            wait: None,
            labels: info.labels.clone(),
            group: group.clone(),
            gang: gang.clone(),
            priority: info.priority,
            revocable: info.revocable,
            only_plain: info.only_plain,
            ending: info.ending,
            created_ms: info.created_ms,
            deferred: None,
        });
        if let Some(group) = group {
            self.groups.entry(group).or_default().insert(id);
        }
        if let Some((gang, _)) = gang {
            self.gangs.entry(gang).or_default().insert(id);
        }
        id
    }

    /// Tells that a task has ended or is gone: what it held is free.
    pub fn remove_task(&mut self, key: &ObjectKey) {
        let before = self.forget_task(key);
        self.collect_places(before);
    }

    /// Forgets where a task was booked, if nothing else is.
    fn collect_places(&mut self, places: Option<(Id, Option<Id>)>) {
        let Some((leaf, agent)) = places else { return };
        self.collect_leaf(leaf);
        if let Some(agent) = agent {
            self.collect_agent(agent);
        }
    }

    /// Takes the task out, and says where it was booked.
    fn forget_task(&mut self, key: &ObjectKey) -> Option<(Id, Option<Id>)> {
        let id = self.tasks.id(key)?;
        let task = &mut self.tasks[id];
        let (leaf, held, wait) = (task.leaf, task.held.take(), task.wait.take());
        let (group, gang) = (task.group.take(), task.gang.take());
        // What was kept for it on that agent is not any more.
        if let Some(agent) = self.nominated.remove(&id) {
            self.changes.agent(agent);
        }
        self.changes.tasks.remove(&id);
        self.changes.anything = true;
        if let Some(held) = &held {
            self.unmark(id);
            self.release(Holder::Task(id), held);
        }
        if let Some(wait) = wait {
            self.changes.pending -= usize::from(self.leaves[leaf].pending.remove(&wait.turn));
            self.shapes.release(wait.shape);
        }
        if let Some(group) = group {
            leave(&mut self.groups, &group, id);
        }
        if let Some((gang, _)) = gang {
            leave(&mut self.gangs, &gang, id);
        }
        self.tasks.remove(key);
        Some((leaf, held.map(|held| held.agent)))
    }
}

fn leave(members: &mut Members, key: &MembersKey, id: Id) {
    if let Some(ids) = members.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            members.remove(key);
        }
    }
}
