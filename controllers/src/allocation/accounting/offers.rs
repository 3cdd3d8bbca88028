//! From an offer to its tasks: what holds the resources meanwhile, and what an answer says.

use std::sync::Arc;

use commonage_allocator::Refusal;
use commonage_schemas::{
    Offer, Resources, Task,
    offer::{OfferAnswer, OfferVerdict, refuse_seconds},
};
use kube::ResourceExt;

use super::{Accounting, object_key};
use crate::allocation::{
    cache::{Key, key},
    info,
    reserved::minus,
    unanswered::Ending,
};
use crate::metrics::{self, OfferOutcome};

impl Accounting {
    pub(super) fn sync_offers(&mut self, changed: Vec<Key>) -> bool {
        for key in &changed {
            if let Some(offer) = self.world.offers.get(key) {
                self.tallies.touch_agent(&offer.spec.agent);
            }
            let Some(offer) = self.world.offers.get(key).cloned() else {
                self.settle(key, None);
                self.to_close.remove(key);
                continue;
            };
            if offer.metadata.deletion_timestamp.is_none() || !self.all_tasks_known(&offer) {
                self.holding.insert(key.clone());
                let agents = self.reserved.offer(key, Some(&offer));
                self.sync_portions(&agents);
                let parts = self.reserved.parts_of(&self.view(), &offer);
                self.allocator.upsert_offer(&object_key(key), &info::offer(&offer, parts));
            } else {
                self.account_for(key, offer);
            }
        }
        !changed.is_empty()
    }

    /// An answered offer whose tasks are all known: it holds nothing any more and can go.
    pub(super) fn account_for(&mut self, key: &Key, offer: Arc<Offer>) {
        let first = self.holding.contains(key);
        if let Some(answer) = answer(&offer).filter(|_| first) {
            metrics::offer(match answer.verdict {
                OfferVerdict::Accepted => OfferOutcome::Accepted,
                OfferVerdict::Declined => OfferOutcome::Declined,
                OfferVerdict::Rescinded => OfferOutcome::Rescinded,
                OfferVerdict::Expired => OfferOutcome::Expired,
            });
        }
        let refusal = first.then(|| self.refusal(key, &offer)).flatten();
        self.settle(key, refusal.as_ref());
        self.to_close.insert(key.clone(), offer);
    }

    /// From here on the offer's tasks hold what they use, and the offer nothing.
    fn settle(&mut self, key: &Key, refusal: Option<&Refusal>) {
        self.holding.remove(key);
        self.ending.remove(key);
        let mut agents = self.reserved.offer(key, None);
        for task in self.launched.remove(key).unwrap_or_default() {
            self.sync_task(&task);
        }
        let now_ms = self.now_ms();
        self.allocator.close_offer(&object_key(key), refusal, now_ms);
        // What was made from it counts from now on.
        let offer = self.world.offers.get(key);
        let made = offer.and_then(|offer| answer(offer).map(|answer| (offer, answer)));
        agents.extend(
            made.filter(|(_, a)| !a.reservations.is_empty() || !a.volumes.is_empty())
                .map(|(offer, _)| offer.spec.agent.clone()),
        );
        self.sync_portions(&agents);
    }

    pub(super) fn all_tasks_known(&self, offer: &Offer) -> bool {
        let Some(answer) = answer(offer) else {
            return true;
        };
        let name = offer.name_any();
        let tasks = task_keys(offer, answer).iter().all(|key| {
            let task = self.world.tasks.get(key);
            task.is_some_and(|task| task.spec.offer.as_deref() == Some(name.as_str()))
        });
        tasks && self.all_made_known(offer, answer)
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
        let (parts, sum) = self.reserved.parts_of(&self.view(), offer);
        let plain = minus(&offer.spec.resources, &sum);
        Some(Refusal {
            parts,
            resources: info::left_over(&plain, &tasks),
            for_ms: (seconds * 1000.0) as u64,
        })
    }

    /// Who does not answer does not want anything of the agent, however much is free there.
    fn silence(&mut self, framework: &Key, offer: &Offer) -> Refusal {
        self.allocator.heard_from(&object_key(framework), false);
        let for_ms = self.unanswered.one_more(framework, &offer.spec.agent);
        let agent = self.world.agents.get(&(String::new(), offer.spec.agent.clone()));
        let portions = self.reserved.portions(&self.view(), &offer.spec.agent);
        let all = agent.map(|agent| info::agent(agent, portions));
        let (resources, parts): (Resources, _) = match all {
            Some(all) => (all.allocatable, all.parts),
            None => (offer.spec.resources.clone(), Vec::new()),
        };
        Refusal { resources, parts, for_ms }
    }
}

pub(super) fn answer(offer: &Offer) -> Option<&OfferAnswer> {
    offer.status.as_ref().and_then(|status| status.answer.as_ref())
}

pub(super) fn task_keys(offer: &Offer, answer: &OfferAnswer) -> Vec<Key> {
    let namespace = offer.namespace().unwrap_or_default();
    answer.tasks.iter().map(|name| (namespace.clone(), name.clone())).collect()
}

/// The offer that a task was launched on.
pub(super) fn offer_key(task: &Task) -> Option<Key> {
    let (namespace, _) = key(task);
    task.spec.offer.clone().map(|offer| (namespace, offer))
}
