//! Frameworks that want something and get nothing: the condition `Starved`.

use std::collections::HashMap;

use commonage_allocator::{FrameworkUsage, Plan};
use commonage_schemas::{Framework, framework::Placement, reasons};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{cache::Key, words::exclusions, world::World};

/// Whoever waits for less than this is not starved: offers and refusals take some seconds to end.
const STARVED_AFTER_MS: u64 = 30_000;

/// Since when each framework has wanted something and got nothing.
#[derive(Debug, Default)]
pub(super) struct Starving(HashMap<Key, Hunger>);

#[derive(Debug)]
struct Hunger {
    since_ms: u64,
    /// Held then: more of it ends the hunger.
    held: (i64, i64),
}

impl Starving {
    /// Why the framework is starved, if it is.
    pub(super) fn look(
        &mut self,
        framework: &Framework,
        key: &Key,
        usage: &FrameworkUsage,
        now_ms: u64,
        (world, plan): (&World, &Plan),
    ) -> Option<String> {
        let demand: i64 = framework.spec.demand.iter().flatten().map(|demand| demand.count).sum();
        let wants = match framework.spec.placement {
            Placement::Tasks => usage.pending > 0,
            Placement::Offers => demand > 0 && usage.offers == 0,
        };
        if !wants {
            self.0.remove(key);
            return None;
        }
        let held = (usage.allocated.cpu_millis(), usage.allocated.memory_bytes());
        let hunger = self.0.entry(key.clone()).or_insert(Hunger { since_ms: now_ms, held });
        if held.0 > hunger.held.0 || held.1 > hunger.held.1 {
            hunger.since_ms = now_ms;
        }
        hunger.held = held;
        let waited_ms = now_ms.saturating_sub(hunger.since_ms);
        if waited_ms < STARVED_AFTER_MS {
            return None;
        }
        let mine = plan.why.iter().filter(|_| usage.pending > 0).find(|(task, _)| {
            let task = world.tasks.get(&(task.namespace.to_string(), task.name.to_string()));
            task.is_some_and(|task| {
                task.namespace().as_deref() == Some(&key.0)
                    && task.spec.framework.as_deref() == Some(&key.1)
            })
        });
        Some(match mine {
            Some((task, why)) => format!("task {} waits: {}", task.name, exclusions(why)),
            None => format!("no agent has what it asks for ({demand} tasks) free for it"),
        })
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Key) -> bool) {
        self.0.retain(|key, _| keep(key));
    }
}

/// The framework's conditions with `Starved` as it is now; `None` if that is what they say.
pub(super) fn conditions(
    framework: &Framework,
    why: Option<String>,
    now: Timestamp,
) -> Option<Value> {
    let known = framework.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let before = known.iter().find(|c| c.type_ == reasons::framework::STARVED);
    let status = if why.is_some() { "True" } else { "False" };
    match before {
        Some(before) if before.status == status => return None,
        None if why.is_none() => return None,
        _ => {}
    }
    let condition = Condition {
        type_: reasons::framework::STARVED.to_owned(),
        status: status.to_owned(),
        reason: if why.is_some() { "NothingFits" } else { "Served" }.to_owned(),
        message: why.unwrap_or_default(),
        last_transition_time: Time(now),
        observed_generation: None,
    };
    let mut all: Vec<Condition> =
        known.iter().filter(|c| c.type_ != condition.type_).cloned().collect();
    all.push(condition);
    Some(json!(all))
}

#[cfg(test)]
mod tests {
    use commonage_allocator::ObjectKey;
    use commonage_schemas::{FrameworkSpec, Resources, framework::Demand};

    use super::*;

    #[test]
    fn who_wants_something_and_gets_nothing_is_starved_until_it_gets_some() {
        let demand = Demand { queue: None, count: 3, resources: Resources::new() };
        let spec = FrameworkSpec { demand: Some(vec![demand]), ..FrameworkSpec::default() };
        let framework = Framework::new("f", spec);
        let key = ("ns".to_owned(), "f".to_owned());
        let mut usage = FrameworkUsage {
            framework: ObjectKey::new("ns", "f"),
            allocated: Resources::new(),
            offered: Resources::new(),
            offers: 0,
            dominant_share: 0.0,
            dominant_resource: None,
            pending: 0,
        };
        let mut starving = Starving::default();
        let mut at = |usage: &FrameworkUsage, ms| {
            starving.look(&framework, &key, usage, ms, (&World::default(), &Plan::default()))
        };
        assert_eq!(at(&usage, 1000), None);
        assert!(at(&usage, 31_000).is_some_and(|why| why.contains("3 tasks")));
        usage.allocated = Resources::from_pairs([("cpu", "1")]).unwrap();
        assert_eq!(at(&usage, 32_000), None, "it got some");
        usage.offers = 1;
        assert_eq!(at(&usage, 99_000), None, "it is offered something");
        let starved =
            conditions(&framework, Some("why".to_owned()), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(starved[0]["status"], "True");
        assert_eq!(conditions(&framework, None, Timestamp::UNIX_EPOCH), None);
    }
}
