//! What is held, by whom: keeps the allocator's books in step with the objects.
//!
//! The one thing that needs care is the moment in which an offer becomes tasks. Offers and tasks
//! come over two watches, in no common order. So an offer holds its resources until it is seen to be
//! answered *and* all of its tasks are known, and those tasks count from that moment on: what is
//! held never dips in between, and is never counted twice.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use commonage_allocator::{Allocator, ObjectKey, Options, Plan, Refusal, RescindReason};
use commonage_schemas::{
    Offer, Task,
    offer::{OfferAnswer, refuse_seconds},
};
use jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt};

use super::{
    apply::{Addressee, Outcome, Write},
    cache::{Key, key},
    info,
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
    now: Timestamp,
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
            now: Timestamp::UNIX_EPOCH,
        }
    }

    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    pub(crate) fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// Tells the time; what is taken in from here on happened now.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
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
                let changed = self.world.agents.apply(event);
                changed.iter().for_each(|key| self.sync_agent(key));
                !changed.is_empty()
            }
            Input::Framework(event) => {
                let changed = self.world.frameworks.apply(event);
                changed.iter().for_each(|key| self.sync_framework(key));
                !changed.is_empty()
            }
            Input::Queue(event) => {
                let changed = self.world.queues.apply(event);
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
        }
    }

    /// Takes in the answer to a write; returns whether anything has changed.
    pub(crate) fn take_in_outcome(&mut self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Offered(offer) | Outcome::Ending(offer) => {
                let changed = self.world.offers.assume(*offer);
                self.sync_offers(changed)
            }
            Outcome::Bound(task) => {
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
        for offer in &plan.offers {
            let agent = self.world.agents.get(&(String::new(), offer.agent.to_string()));
            let owner_key =
                (offer.framework.namespace.to_string(), offer.framework.name.to_string());
            let framework = self.world.frameworks.get(&owner_key);
            let to = Addressee {
                framework: framework.and_then(|f| f.controller_owner_ref(&())),
                agent_labels: agent
                    .map(|a| commonage_schemas::task::labels(&a.metadata))
                    .unwrap_or_default(),
            };
            writes.push(Write::Offer(offer.clone(), to));
        }
        writes.extend(plan.bindings.iter().cloned().map(Write::Bind));
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
        match self.world.agents.get(key) {
            Some(agent) => self.allocator.upsert_agent(&key.1, info::agent(agent)),
            None => {
                self.unanswered.forget_agent(&key.1);
                self.allocator.remove_agent(&key.1);
            }
        }
    }

    fn sync_queue(&mut self, key: &Key) {
        match self.world.queues.get(key) {
            Some(queue) => self.allocator.upsert_queue(&key.1, &info::queue(queue)),
            None => self.allocator.remove_queue(&key.1),
        }
    }

    fn sync_framework(&mut self, key: &Key) {
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
        match self.world.tasks.get(key).and_then(|task| info::task(task)) {
            Some(task) => self.allocator.upsert_task(&object_key(key), &task),
            None => self.allocator.remove_task(&object_key(key)),
        }
    }

    fn sync_offers(&mut self, changed: Vec<Key>) -> bool {
        for key in &changed {
            let Some(offer) = self.world.offers.get(key).cloned() else {
                self.settle(key, None);
                self.to_close.remove(key);
                continue;
            };
            if offer.metadata.deletion_timestamp.is_none() || !self.all_tasks_known(&offer) {
                self.holding.insert(key.clone());
                self.allocator.upsert_offer(&object_key(key), &info::offer(&offer));
            } else {
                self.account_for(key, offer);
            }
        }
        !changed.is_empty()
    }

    /// An answered offer whose tasks are all known: it holds nothing any more and can go.
    fn account_for(&mut self, key: &Key, offer: Arc<Offer>) {
        let refusal = self.holding.contains(key).then(|| self.refusal(key, &offer)).flatten();
        self.settle(key, refusal.as_ref());
        self.to_close.insert(key.clone(), offer);
    }

    /// From here on the offer's tasks hold what they use, and the offer nothing.
    fn settle(&mut self, key: &Key, refusal: Option<&Refusal>) {
        self.holding.remove(key);
        self.ending.remove(key);
        for task in self.launched.remove(key).unwrap_or_default() {
            self.sync_task(&task);
        }
        let now_ms = self.now_ms();
        self.allocator.close_offer(&object_key(key), refusal, now_ms);
    }

    fn all_tasks_known(&self, offer: &Offer) -> bool {
        let Some(answer) = answer(offer) else {
            return true;
        };
        let name = offer.name_any();
        task_keys(offer, answer).iter().all(|key| {
            let task = self.world.tasks.get(key);
            task.is_some_and(|task| task.spec.offer.as_deref() == Some(name.as_str()))
        })
    }

    /// What its framework does not want again for a while, by the answer to an offer.
    /// Silence is an answer too: an offer that ends unanswered is refused for longer each time.
    fn refusal(&mut self, key: &Key, offer: &Offer) -> Option<Refusal> {
        let answer = answer(offer);
        let ours = self.ending.get(key).copied();
        let ending = match answer.map(|a| Ending::of(a.verdict)) {
            // It was answered just before we took it back.
            Some(Ending::Answered) => Ending::Answered,
            said => ours.or(said)?,
        };
        let framework = (key.0.clone(), offer.spec.framework.clone());
        let seconds = match ending {
            Ending::Obsolete => return None,
            Ending::Unanswered => return Some(self.silence(&framework, offer)),
            Ending::Answered => refuse_seconds(answer.and_then(|a| a.refuse_seconds)),
        };
        self.unanswered.forget_framework(&framework);
        self.allocator.heard_from(&object_key(&framework), true);
        let tasks = answer.map(|answer| task_keys(offer, answer)).unwrap_or_default();
        let tasks: Vec<Arc<Task>> =
            tasks.iter().filter_map(|key| self.world.tasks.get(key).cloned()).collect();
        // As an unsigned number of milliseconds: at most a year, see `refuse_seconds`.
        Some(Refusal {
            parts: Vec::new(),
            resources: info::left_over(offer, &tasks),
            for_ms: (seconds * 1000.0) as u64,
        })
    }

    /// Who does not answer does not want anything of the agent, however much is free there.
    fn silence(&mut self, framework: &Key, offer: &Offer) -> Refusal {
        self.allocator.heard_from(&object_key(framework), false);
        let for_ms = self.unanswered.one_more(framework, &offer.spec.agent);
        let agent = self.world.agents.get(&(String::new(), offer.spec.agent.clone()));
        let all = agent.map(|agent| info::agent(agent).allocatable);
        Refusal {
            resources: all.unwrap_or_else(|| offer.spec.resources.clone()),
            parts: Vec::new(),
            for_ms,
        }
    }
}

fn answer(offer: &Offer) -> Option<&OfferAnswer> {
    offer.status.as_ref().and_then(|status| status.answer.as_ref())
}

fn task_keys(offer: &Offer, answer: &OfferAnswer) -> Vec<Key> {
    let namespace = offer.namespace().unwrap_or_default();
    answer.tasks.iter().map(|name| (namespace.clone(), name.clone())).collect()
}

/// The offer that a task was launched on.
fn offer_key(task: &Task) -> Option<Key> {
    let (namespace, _) = key(task);
    task.spec.offer.clone().map(|offer| (namespace, offer))
}

#[cfg(test)]
mod tests;
