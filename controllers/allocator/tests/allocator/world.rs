//! A small cluster around the allocator: it does what the controllers and the API server would do
//! with a plan, and checks after every step that nothing is promised twice and no limit is passed.

use std::collections::BTreeMap;

use commonage_allocator::{
    AgentInfo, Allocator, Demand, FrameworkInfo, Kind, ObjectKey, OfferInfo, Options, Placement,
    Plan, QueueInfo, Refusal, RescindReason, TaskInfo,
};
use commonage_schemas::resources::{PORTS, Ranges, Resources};

pub(crate) const NAMESPACE: &str = "ns";

pub(crate) fn resources(text: &str) -> Resources {
    let pairs = text.split_whitespace().map(|pair| pair.split_once('=').unwrap());
    Resources::from_pairs(pairs).unwrap()
}

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::new(NAMESPACE, name)
}

pub(crate) fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split_whitespace().map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) allocator: Allocator,
    pub(crate) agents: BTreeMap<String, AgentInfo>,
    pub(crate) queues: BTreeMap<String, QueueInfo>,
    pub(crate) frameworks: BTreeMap<String, FrameworkInfo>,
    pub(crate) tasks: BTreeMap<ObjectKey, TaskInfo>,
    pub(crate) offers: BTreeMap<ObjectKey, OfferInfo>,
    pub(crate) now_ms: u64,
    pub(crate) seed: u64,
    pub(crate) serial: u64,
}

impl World {
    pub(crate) fn new(options: Options) -> Self {
        Self { allocator: Allocator::new(options), ..Self::default() }
    }

    pub(crate) fn agent(&mut self, name: &str, allocatable: &str) {
        self.agent_with(name, allocatable, |_| {});
    }

    pub(crate) fn agent_with(
        &mut self,
        name: &str,
        allocatable: &str,
        with: impl FnOnce(&mut AgentInfo),
    ) {
        let mut info = AgentInfo { allocatable: resources(allocatable), ..AgentInfo::default() };
        with(&mut info);
        self.allocator.upsert_agent(name, info.clone());
        self.agents.insert(name.to_owned(), info);
    }

    pub(crate) fn queue(&mut self, name: &str, weight: f64, limit: &str) {
        let info = QueueInfo { weight, limit: resources(limit), ..QueueInfo::default() };
        self.allocator.upsert_queue(name, &info);
        self.queues.insert(name.to_owned(), info);
    }

    pub(crate) fn queue_with(&mut self, name: &str, with: impl FnOnce(&mut QueueInfo)) {
        let mut info = QueueInfo::default();
        with(&mut info);
        self.allocator.upsert_queue(name, &info);
        self.queues.insert(name.to_owned(), info);
    }

    /// A framework whose tasks are placed.
    pub(crate) fn placer(&mut self, name: &str, queues: &[&str]) {
        self.framework(name, queues, |info| info.placement = Placement::Tasks);
    }

    pub(crate) fn framework(
        &mut self,
        name: &str,
        queues: &[&str],
        with: impl FnOnce(&mut FrameworkInfo),
    ) {
        let queues = queues.iter().map(|queue| (*queue).to_owned()).collect();
        let mut info = FrameworkInfo { queues, ..FrameworkInfo::default() };
        with(&mut info);
        self.allocator.upsert_framework(&key(name), info.clone());
        self.frameworks.insert(name.to_owned(), info);
    }

    /// The framework as it is, but for its demand.
    pub(crate) fn demand(&mut self, name: &str, demand: Vec<Demand>) {
        let info = self.frameworks.get_mut(name).expect("the framework is there");
        info.demand = Some(demand);
        self.allocator.upsert_framework(&key(name), info.clone());
    }

    pub(crate) fn task(&mut self, name: &str, framework: &str, queue: &str, wants: &str) {
        self.task_with(name, framework, queue, wants, |_| {});
    }

    pub(crate) fn task_with(
        &mut self,
        name: &str,
        framework: &str,
        queue: &str,
        wants: &str,
        with: impl FnOnce(&mut TaskInfo),
    ) {
        self.serial += 1;
        let mut info = TaskInfo {
            uid: format!("uid-{}", self.serial).into(),
            framework: framework.to_owned(),
            queue: queue.to_owned(),
            resources: resources(wants),
            ..TaskInfo::default()
        };
        with(&mut info);
        self.allocator.upsert_task(&key(name), &info);
        self.tasks.insert(key(name), info);
    }

    /// So many equal tasks, named `<prefix>-0` and so on.
    pub(crate) fn tasks(
        &mut self,
        prefix: &str,
        count: usize,
        framework: &str,
        queue: &str,
        wants: &str,
    ) {
        for number in 0..count {
            self.task(&format!("{prefix}-{number}"), framework, queue, wants);
        }
    }

    /// Plans, carries the plan out, and checks what came of it: that looking at what has changed
    /// came to the same as looking at everything would, too.
    pub(crate) fn step(&mut self) -> Plan {
        let mut full = self.allocator.clone();
        full.look_at_everything();
        let plan = self.allocator.plan(self.now_ms, self.seed);
        assert_eq!(plan, full.plan(self.now_ms, self.seed), "as if everything were looked at");
        self.apply(&plan);
        self.check();
        plan
    }

    pub(crate) fn apply(&mut self, plan: &Plan) {
        for binding in &plan.bindings {
            let info = self.tasks.get_mut(&binding.task).unwrap();
            assert_eq!(info.uid, binding.uid);
            assert!(info.agent.is_none(), "{} is bound twice", binding.task);
            info.agent = Some(binding.agent.to_string());
            let mut picked = binding.host_ports.iter();
            for port in info.host_ports.iter_mut().filter(|port| **port == 0) {
                *port = *picked.next().expect("a port for every 0");
            }
            assert_eq!(picked.next(), None, "more ports than asked for");
            for part in &binding.parts {
                let rest = info.resources.checked_sub(&info.resources.min(&part.resources));
                info.resources = rest.unwrap();
                let ports = part.resources.ports().cloned().unwrap_or_default();
                info.host_ports.retain(|port| !ports.has(*port));
            }
            info.parts.clone_from(&binding.parts);
            self.allocator.upsert_task(&binding.task, info);
        }
        for offer in plan.offers.iter() {
            self.serial += 1;
            let name = ObjectKey {
                namespace: offer.to.framework.namespace.clone(),
                name: format!("offer-{}", self.serial).into(),
            };
            let info = OfferInfo {
                framework: offer.to.framework.name.to_string(),
                queue: offer.to.queue.to_string(),
                agent: offer.agent.to_string(),
                parts: offer.parts.clone(),
                resources: (*offer.resources).clone(),
                expires_at_ms: Some(offer.expires_at_ms),
                answered: false,
            };
            self.allocator.upsert_offer(&name, &info);
            self.offers.insert(name, info);
        }
        for preemption in &plan.preempt {
            let info = self.tasks.get_mut(&preemption.task).unwrap();
            assert_eq!(info.uid, preemption.uid);
            assert_eq!(info.agent.as_deref(), Some(&*preemption.agent));
            assert!(!info.ending, "{} is killed twice", preemption.task);
            info.ending = true;
            self.allocator.upsert_task(&preemption.task, info);
        }
        for gone in &plan.expire {
            self.unanswered(gone, None);
        }
        for rescind in &plan.rescind {
            if rescind.reason == RescindReason::NeededForTask {
                self.unanswered(&rescind.offer, Some(5_000));
            } else {
                self.close(&rescind.offer, None);
            }
        }
    }

    pub(crate) fn close(&mut self, offer: &ObjectKey, refusal: Option<&Refusal>) {
        self.allocator.close_offer(offer, refusal, self.now_ms);
        self.offers.remove(offer).expect("the offer is there");
    }

    fn unanswered(&mut self, offer: &ObjectKey, refused_ms: Option<u64>) {
        let info = self.offers[offer].clone();
        self.allocator.heard_from(&key(&info.framework), false);
        let resources = self.agents.get(&info.agent).map(|a| a.allocatable.clone());
        let resources = resources.unwrap_or_default();
        let refusal = refused_ms.map(|for_ms| Refusal { resources, parts: Vec::new(), for_ms });
        self.close(offer, refusal.as_ref());
    }

    pub(crate) fn decline(&mut self, offer: &ObjectKey, for_ms: u64) {
        self.allocator.heard_from(&key(&self.offers[offer].framework), true);
        let resources = self.offers[offer].resources.clone();
        self.close(offer, Some(&Refusal { resources, parts: Vec::new(), for_ms }));
    }

    /// Launches one task on the offer, with all of it or what is given.
    pub(crate) fn accept(&mut self, offer: &ObjectKey, task: &str, wants: Option<&str>) {
        let info = self.offers[offer].clone();
        self.allocator.heard_from(&key(&info.framework), true);
        let wants = wants.map_or_else(|| info.resources.clone(), resources);
        self.task_with(task, &info.framework, &info.queue, "", |task| {
            task.agent = Some(info.agent.clone());
            task.resources = wants;
        });
        self.close(offer, None);
    }

    pub(crate) fn finish(&mut self, task: &ObjectKey) {
        self.allocator.remove_task(task);
        self.tasks.remove(task).expect("the task is there");
    }

    /// The grace period of those that were killed is over.
    pub(crate) fn bury(&mut self) {
        let ending = self.tasks.iter().filter(|(_, task)| task.ending);
        for task in ending.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.finish(&task);
        }
    }

    pub(crate) fn bound(&self, queue: &str) -> usize {
        let below = format!("{queue}.");
        let mut tasks = self.tasks.values().filter(|task| task.agent.is_some());
        let mut count = 0;
        for task in tasks.by_ref() {
            count += usize::from(task.queue == queue || task.queue.starts_with(&below));
        }
        count
    }

    pub(crate) fn agent_of(&self, task: &str) -> Option<&str> {
        self.tasks[&key(task)].agent.as_deref()
    }

    /// Who holds an offer of which agent, as `framework@agent`, sorted.
    pub(crate) fn holders(&self) -> Vec<String> {
        let mut all: Vec<_> = self
            .offers
            .values()
            .map(|offer| format!("{}@{}", offer.framework, offer.agent))
            .collect();
        all.sort();
        all
    }

    /// The offers of a framework, oldest name first.
    pub(crate) fn offers_of(&self, framework: &str) -> Vec<ObjectKey> {
        let mine = self.offers.iter().filter(|(_, offer)| offer.framework == framework);
        mine.map(|(key, _)| key.clone()).collect()
    }

    /// Everything that is held, as (agent, queue, resources with ports).
    fn held(&self) -> Vec<(String, String, Resources)> {
        let tasks = self.tasks.values().filter_map(|task| {
            let mut held = task.resources.clone();
            let ports: Ranges = task.host_ports.iter().copied().filter(|port| *port != 0).collect();
            held.set_ports(held.ports().cloned().unwrap_or_default().union(&ports));
            Some((task.agent.clone()?, task.queue.clone(), held))
        });
        let offers = self
            .offers
            .values()
            .map(|offer| (offer.agent.clone(), offer.queue.clone(), offer.resources.clone()));
        tasks.chain(offers).collect()
    }

    /// Invariants: the agent has what it holds, no port twice, no queue past its limit.
    pub(crate) fn check(&self) {
        let mut agents: BTreeMap<String, Resources> = BTreeMap::new();
        let mut queues: BTreeMap<String, Resources> = BTreeMap::new();
        for (agent, queue, held) in self.held() {
            let sum = agents.entry(agent.clone()).or_default();
            if let (Some(before), Some(more)) = (sum.ports(), held.ports()) {
                assert!(before.intersect(more).is_empty(), "{agent}: a port of {more} twice");
            }
            *sum = sum.checked_add(&held).unwrap();
            let mut path = queue.as_str();
            loop {
                let sum = queues.entry(path.to_owned()).or_default();
                *sum = sum.checked_add(&held.only_scalars()).unwrap();
                match path.rsplit_once('.') {
                    Some((parent, _)) => path = parent,
                    None => break,
                }
            }
        }
        for (agent, held) in &agents {
            if let Some(info) = self.agents.get(agent) {
                let missing = info.allocatable.missing(held);
                assert!(missing.is_empty(), "{agent} has {} and holds {held}", info.allocatable);
            }
        }
        self.check_parts();
        for (queue, info) in &self.queues {
            let held = queues.remove(queue).unwrap_or_default();
            for (name, limit) in info.limit.scalars() {
                let got = held.scalar(name);
                assert!(got <= limit, "{queue} holds {got} of {name}, limit {limit}");
            }
        }
    }
}

impl World {
    /// Of each of its parts an agent has what is held of it, and nobody has what is not for it.
    fn check_parts(&self) {
        let mut held: BTreeMap<(&str, &Kind), Resources> = BTreeMap::new();
        let tasks = self.tasks.values().map(|t| (t.agent.as_deref(), &t.queue, &t.parts));
        let offers = self.offers.values().map(|o| (Some(&*o.agent), &o.queue, &o.parts));
        for (agent, queue, parts) in tasks.chain(offers) {
            for part in parts {
                let sum = held.entry((agent.unwrap(), &part.kind)).or_default();
                *sum = sum.checked_add(&part.resources).unwrap();
                let owner = part.kind.reserved.last();
                let below = |owner: &String| {
                    queue
                        .strip_prefix(owner.as_str())
                        .is_some_and(|r| r.is_empty() || r.starts_with('.'))
                };
                assert!(owner.is_none_or(below), "{queue} has what is reserved for {owner:?}");
            }
        }
        for ((agent, kind), held) in held {
            let Some(info) = self.agents.get(agent) else { continue };
            let there = info.parts.iter().find(|part| part.kind == *kind);
            let there = there.map(|part| part.resources.clone()).unwrap_or_default();
            assert!(kind.shared || there.contains(&held), "{agent} has {there}, holds {held}");
        }
    }
}

/// The ports of resources, as text.
pub(crate) fn ports(resources: &Resources) -> String {
    resources.get(PORTS).map(|amount| amount.to_text(PORTS)).unwrap_or_default()
}
