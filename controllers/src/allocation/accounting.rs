//! What is held, by whom: keeps the allocator's books in step with the objects.
//!
//! The one thing that needs care is the moment in which an offer becomes tasks. Offers and tasks
//! come over two watches, in no common order. So an offer holds its resources until it is seen to be
//! answered *and* all of its tasks are known, and those tasks count from that moment on: what is
//! held never dips in between, and is never counted twice.

mod claims;
mod groups;
mod lent;
mod offers;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use commonage_allocator::{Allocator, InverseOffer, ObjectKey, Options, Plan, RescindReason};
use commonage_schemas::{Offer, Task, TaskKill, reasons};
use jiff::{SignedDuration, Timestamp};
use kube::{Resource, runtime::watcher::Event};

use crate::metrics::{self, OfferOutcome};

use self::offers::{answer, offer_key, task_keys};
use self::{claims::Claims, groups::Groups, lent::Lent};
use super::{
    apply::{Addressee, Outcome, Write},
    cache::{Cache, Key, key},
    info, preemption,
    reserved::Reserved,
    tallies::Tallies,
    unanswered::{Ending, Unanswered},
    world::{Input, World},
};

/// How long the watch may take to show the tasks of an accepted offer before they are asked for.
const TASKS_SHOW_WITHIN: SignedDuration = SignedDuration::from_secs(2);

pub(crate) struct Accounting {
    world: World,
    allocator: Allocator,
    /// Offers that hold resources in the allocator's books.
    holding: HashSet<Key>,
    /// Tasks by the offer that they were launched on, as long as that one still holds.
    launched: HashMap<Key, HashSet<Key>>,
    /// Offers that have been accounted for and can go.
    to_close: HashMap<Key, Arc<Offer>>,
    /// Offers that we are taking back ourselves.
    ending: HashMap<Key, Ending>,
    unanswered: Unanswered,
    reserved: Reserved,
    claims: Claims,
    pub(crate) lent: Lent,
    groups: Groups,
    /// When the maintenance of agents begins, in milliseconds, as the allocator was told.
    windows: HashMap<String, u64>,
    pub(crate) tallies: Tallies,
    now: Timestamp,
}

/// The object that an event is about, as it was known until now.
fn before<K: Resource>(known: &Cache<K>, event: &Event<K>) -> Option<Arc<K>> {
    match event {
        Event::Apply(object) | Event::InitApply(object) => known.get(&key(object)).cloned(),
        _ => None,
    }
}

/// Whether nothing has changed that the allocator looks at: most changes of agents, queues and frameworks are what we
/// told of them ourselves.
fn same<K>(before: &Option<Arc<K>>, now: Option<&Arc<K>>, same: impl Fn(&K, &K) -> bool) -> bool {
    before.as_ref().zip(now).is_some_and(|(before, now)| same(before, now))
}

fn object_key(key: &Key) -> ObjectKey {
    ObjectKey::new(&key.0, &key.1)
}

impl Accounting {
    pub(crate) fn new(options: Options) -> Accounting {
        Accounting {
            world: World::default(),
            allocator: Allocator::new(options),
            holding: HashSet::new(),
            launched: HashMap::new(),
            to_close: HashMap::new(),
            ending: HashMap::new(),
            unanswered: Unanswered::default(),
            reserved: Reserved::default(),
            claims: Claims::default(),
            lent: Lent::default(),
            groups: Groups::default(),
            windows: HashMap::new(),
            tallies: Tallies::default(),
            now: Timestamp::UNIX_EPOCH,
        }
    }

    /// The books of everything that is known.
    pub(crate) fn over(world: World, now: Timestamp) -> Accounting {
        let mut books = Accounting { world, ..Accounting::new(Options::default()) };
        books.tick(now);
        books.world.agents.keys().iter().for_each(|key| books.sync_agent(key));
        books.world.queues.keys().iter().for_each(|key| books.sync_queue(key));
        books.world.frameworks.keys().iter().for_each(|key| books.sync_framework(key));
        books.sync_reservations(books.world.reservations.keys(), Vec::new());
        books.sync_volumes(books.world.volumes.keys());
        // Tasks of an offer that still holds what they use wait for it.
        books.sync_offers(books.world.offers.keys());
        books.sync_tasks(books.world.tasks.keys());
        books
    }

    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    pub(crate) fn reserved(&self) -> &Reserved {
        &self.reserved
    }

    pub(crate) fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// Tells the time; what is taken in from here on happened now.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn now_ms(&self) -> u64 {
        info::millis(self.now)
    }

    /// What to do now. `seed` decides where there is nothing to choose by.
    pub(crate) fn plan(&mut self, seed: u64) -> Plan {
        self.allocator.plan(self.now_ms(), seed)
    }

    /// Takes in an event of a watch; returns whether anything has changed.
    pub(crate) fn take_in(&mut self, input: Input) -> bool {
        match input {
            Input::Agent(event) => {
                let before = before(&self.world.agents, &event);
                let mut changed = self.world.agents.apply(event);
                changed.retain(|key| !same(&before, self.world.agents.get(key), info::same_agent));
                changed.iter().for_each(|key| self.sync_agent(key));
                !changed.is_empty()
            }
            Input::Framework(event) => {
                let before = before(&self.world.frameworks, &event);
                let mut changed = self.world.frameworks.apply(event);
                let now = &self.world.frameworks;
                changed.retain(|key| !same(&before, now.get(key), info::same_framework));
                changed.iter().for_each(|key| self.sync_framework(key));
                !changed.is_empty()
            }
            Input::Queue(event) => {
                let before = before(&self.world.queues, &event);
                let mut changed = self.world.queues.apply(event);
                let now = &self.world.queues;
                changed.retain(|key| !same(&before, now.get(key), |a, b| a.spec == b.spec));
                changed.iter().for_each(|key| self.sync_queue(key));
                !changed.is_empty()
            }
            Input::Offer(event) => {
                let changed = self.world.offers.apply(event);
                self.sync_offers(changed)
            }
            Input::Task(event) => {
                let changed = self.world.tasks.apply(event);
                self.sync_tasks(changed)
            }
            Input::Reservation(event) => {
                let before = self.reserved_agents();
                let changed = self.world.reservations.apply(event);
                self.sync_reservations(changed, before)
            }
            Input::Volume(event) => {
                let changed = self.world.volumes.apply(event);
                self.sync_volumes(changed)
            }
            Input::Reached(kind, version) => {
                self.world.note_reached(kind, version);
                false
            }
        }
    }

    /// Takes in the answer to a write; returns whether anything has changed.
    pub(crate) fn take_in_outcome(&mut self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Offered(offer) | Outcome::Ending(offer) => {
                if offer.metadata.deletion_timestamp.is_none() {
                    metrics::offer(OfferOutcome::Made);
                }
                let changed = self.world.offers.assume(*offer);
                self.sync_offers(changed)
            }
            Outcome::Reserved(reservation) => {
                let changed = self.world.reservations.assume(*reservation);
                self.sync_reservations(changed, Vec::new())
            }
            Outcome::Provided(volume) => {
                let changed = self.world.volumes.assume(*volume);
                self.sync_volumes(changed)
            }
            Outcome::Bound(task) | Outcome::Killing(task) => {
                let changed = self.world.tasks.assume(*task);
                self.sync_tasks(changed)
            }
            Outcome::Closed(offer) => {
                let changed = self.world.offers.delete(&offer);
                self.sync_offers(changed)
            }
            Outcome::Overtaken => false,
            Outcome::Unknown => {
                // It may have been a closing that has to be done again.
                let answered =
                    self.world.offers.iter().filter(|o| o.metadata.deletion_timestamp.is_some());
                let again = answered.map(|offer| key(offer.as_ref())).collect();
                self.sync_offers(again)
            }
        }
    }

    /// The writes that carry out a plan, and those that let accounted offers go.
    pub(crate) fn writes(&mut self, plan: &Plan) -> Vec<Write> {
        let mut writes = Vec::new();
        let mut taken = self.take_taken();
        for offer in plan.offers.iter() {
            let agent = self.world.agents.get(&(String::new(), offer.agent.to_string()));
            let owner_key =
                (offer.to.framework.namespace.to_string(), offer.to.framework.name.to_string());
            let framework = self.world.frameworks.get(&owner_key);
            let (reserved, volumes, lent) = match offer.parts.is_empty() {
                true => Default::default(),
                false => self.reserved.spell_out(&self.view(), &offer, &mut taken),
            };
            let to = Addressee {
                reserved,
                volumes,
                lent,
                framework: framework.and_then(|f| f.controller_owner_ref(&())),
                agent_labels: agent
                    .map(|a| commonage_schemas::task::labels(&a.metadata))
                    .unwrap_or_default(),
            };
            writes.push(Write::Offer(offer, to));
        }
        let (ours, tasks): (Vec<_>, Vec<_>) =
            plan.bindings.iter().cloned().partition(|b| b.task.namespace.is_empty());
        writes.extend(tasks.into_iter().filter_map(|binding| {
            let parts = self.reserved.spell_out_binding(&self.view(), &binding, &mut taken);
            parts.map(|(reserved, lent)| Write::Bind(binding, reserved, lent))
        }));
        writes.extend(self.call_in());
        writes.extend(self.end_groups());
        writes.extend(self.bind_reservations(&ours));
        writes.extend(plan.preempt.iter().map(|victim| {
            let mut order =
                TaskKill::new(reasons::task::PREEMPTED, preemption::told_victim(victim));
            order.metadata.uid = Some(victim.uid.to_string());
            Write::Kill(victim.task.clone(), order)
        }));
        let rescinded = plan.rescind.iter().map(|r| match r.reason {
            RescindReason::NeededForTask => (&r.offer, Ending::Unanswered),
            _ => (&r.offer, Ending::Obsolete),
        });
        let expired = plan.expire.iter().map(|offer| (offer, Ending::Unanswered));
        for (offer, ending) in rescinded.chain(expired) {
            let key = (offer.namespace.to_string(), offer.name.to_string());
            if let Some(current) = self.world.offers.get(&key) {
                writes.push(Write::End((**current).clone()));
                self.ending.insert(key, ending);
            }
        }
        writes.extend(self.to_close.drain().map(|(_, offer)| Write::Close((*offer).clone())));
        writes
    }

    /// Tasks of accepted offers that should have been seen by now.
    pub(crate) fn missing_tasks(&self) -> Vec<Key> {
        let offers = self.holding.iter().filter_map(|key| self.world.offers.get(key));
        let late = offers.filter_map(|offer| {
            let answer = answer(offer)?;
            let since = answer.answered_at.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
            (self.now.duration_since(since) > TASKS_SHOW_WITHIN).then_some((offer, answer))
        });
        late.flat_map(|(offer, answer)| task_keys(offer, answer))
            .filter(|key| self.world.tasks.get(key).is_none())
            .collect()
    }

    /// Takes in what was asked for: a task that does not exist any more holds nothing.
    pub(crate) fn take_in_found(&mut self, keys: &[Key], found: Vec<Option<Task>>) {
        let mut gone: HashSet<&Key> = HashSet::new();
        for (key, task) in keys.iter().zip(found) {
            match task {
                Some(task) => {
                    let changed = self.world.tasks.assume(task);
                    self.sync_tasks(changed);
                }
                None => {
                    gone.insert(key);
                }
            }
        }
        let settled: Vec<Key> = self
            .holding
            .iter()
            .filter(|key| {
                let offer = self.world.offers.get(key);
                let tasks = offer.and_then(|o| answer(o).map(|a| task_keys(o, a)));
                tasks.is_some_and(|all| {
                    all.iter().all(|t| gone.contains(t) || self.world.tasks.get(t).is_some())
                })
            })
            .cloned()
            .collect();
        for key in settled {
            if let Some(offer) = self.world.offers.get(&key).cloned() {
                self.account_for(&key, offer);
            }
        }
    }

    fn sync_agent(&mut self, key: &Key) {
        self.tallies.touch_agent(&key.1);
        match self.world.agents.get(key) {
            Some(agent) => {
                let portions = self.reserved.portions(&self.view(), &key.1);
                let window = agent.spec.maintenance.as_ref().map(|m| info::millis(m.start.0));
                let lent = info::lent_by(agent);
                self.allocator.upsert_agent(&key.1, info::agent(agent, portions));
                self.note_lent(&key.1, &lent);
                self.schedule(&key.1, window);
            }
            None => {
                self.unanswered.forget_agent(&key.1);
                self.windows.remove(&key.1);
                self.allocator.remove_agent(&key.1);
            }
        }
    }

    fn schedule(&mut self, agent: &str, window: Option<u64>) {
        if self.windows.get(agent).copied() == window {
            return;
        }
        match window {
            Some(start) => self.windows.insert(agent.to_owned(), start),
            None => self.windows.remove(agent),
        };
        self.allocator.schedule_maintenance(agent, window);
    }

    /// Tells that these were asked to leave.
    pub(crate) fn asked_to_leave(&mut self, offers: &[InverseOffer]) {
        self.allocator.asked_to_leave(offers);
    }

    fn sync_queue(&mut self, key: &Key) {
        match self.world.queues.get(key) {
            Some(queue) => self.allocator.upsert_queue(&key.1, &info::queue(queue)),
            None => self.allocator.remove_queue(&key.1),
        }
    }

    fn sync_framework(&mut self, key: &Key) {
        self.sync_claimants(key);
        match self.world.frameworks.get(key) {
            Some(framework) => {
                self.allocator.upsert_framework(&object_key(key), info::framework(framework))
            }
            None => {
                self.unanswered.forget_framework(key);
                self.allocator.remove_framework(&object_key(key));
            }
        }
    }

    fn sync_tasks(&mut self, changed: Vec<Key>) -> bool {
        for key in &changed {
            let task = self.world.tasks.get(key).cloned();
            self.tallies.task(key, task.as_deref());
            self.note_group(key);
            if let Some(agent) = task.as_ref().and_then(|task| task.spec.agent.as_deref()) {
                self.tallies.touch_agent(agent);
            }
            let offer = task.as_ref().and_then(|t| offer_key(t));
            if let Some(offer) = offer.filter(|offer| self.holding.contains(offer)) {
                // Its offer still holds what it uses.
                self.launched.entry(offer.clone()).or_default().insert(key.clone());
                self.sync_offers(vec![offer]);
            } else {
                self.sync_task(key);
            }
        }
        !changed.is_empty()
    }

    fn sync_task(&mut self, key: &Key) {
        let task = self.world.tasks.get(key).cloned();
        let info = task.as_ref().and_then(|task| info::task(task));
        let info = info.and_then(|info| self.claimed(key, task.as_deref(), info));
        let info = info.map(|info| self.with_parts(task.as_deref(), info));
        match info {
            Some(task) => self.allocator.upsert_task(&object_key(key), &task),
            None => self.allocator.remove_task(&object_key(key)),
        }
        let agents = self.reserved.task(key, task.as_deref(), &self.world);
        self.sync_portions(&agents);
    }
}

#[cfg(test)]
pub(crate) mod reserved_tests;
#[cfg(test)]
pub(crate) mod tests;
