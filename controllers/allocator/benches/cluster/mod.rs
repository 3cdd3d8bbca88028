//! Clusters to measure, and a caller that does what the controllers do with a plan.

pub(crate) mod clock;

use std::collections::BTreeMap;

use commonage_allocator::{
    AgentInfo, Allocator, Demand, FrameworkInfo, Kind, ObjectKey, OfferInfo, Part, Placement, Plan,
    QueueInfo, Refusal, TaskInfo,
};
use commonage_schemas::resources::Resources;

const QUEUES: usize = 20;

#[derive(Default)]
pub(crate) struct Shape {
    pub(crate) frameworks: usize,
    pub(crate) suppressed: bool,
    pub(crate) quotas: bool,
    pub(crate) placed: bool,
    /// One more queue that is guaranteed something, and nobody in it.
    pub(crate) guarantee: bool,
    /// One more agent with something that is reserved for somebody who is not there.
    pub(crate) reservation: bool,
    /// Tasks too large for any agent, of as many sizes.
    pub(crate) waiting: usize,
}

pub(crate) struct Cluster {
    pub(crate) allocator: Allocator,
    offers: BTreeMap<ObjectKey, OfferInfo>,
    serial: u64,
    frameworks: usize,
}

fn resources(pairs: &[(&str, &str)]) -> Resources {
    Resources::from_pairs(pairs.iter().copied()).unwrap()
}

fn queue_of(framework: usize, quotas: bool) -> String {
    let queue = if quotas { framework } else { framework % QUEUES };
    format!("team-{}.q-{queue}", queue % 4)
}

impl Cluster {
    pub(crate) fn new(agents: usize, shape: &Shape) -> Self {
        let mut allocator = Allocator::default();
        let allocatable = resources(&[
            ("cpu", "24"),
            ("memory", "64Gi"),
            ("disk", "1Ti"),
            ("ports", "31000-32000"),
        ]);
        for agent in 0..agents {
            let info = AgentInfo { allocatable: allocatable.clone(), ..AgentInfo::default() };
            allocator.upsert_agent(&format!("agent-{agent}"), info);
        }
        let queues = if shape.quotas { shape.frameworks } else { QUEUES };
        for queue in 0..queues {
            let quota = resources(&[("cpu", "1"), ("memory", "512Mi"), ("disk", "256Mi")]);
            let quota = if shape.quotas { quota } else { Resources::new() };
            let weight = 1.0 + (queue % 3) as f64;
            let info = QueueInfo {
                weight,
                guarantee: quota.clone(),
                limit: quota,
                ..QueueInfo::default()
            };
            allocator.upsert_queue(&queue_of(queue, shape.quotas), &info);
        }
        for framework in 0..shape.frameworks {
            let queue = queue_of(framework, shape.quotas);
            let info = FrameworkInfo {
                queues: vec![queue.clone()],
                placement: if shape.placed { Placement::Tasks } else { Placement::Offers },
                max_outstanding: usize::MAX,
                suppressed_queues: match shape.suppressed && framework % 100 != 0 {
                    true => vec![queue],
                    false => Vec::new(),
                },
                ..FrameworkInfo::default()
            };
            allocator.upsert_framework(&ObjectKey::new("ns", &format!("f-{framework}")), info);
        }
        if shape.guarantee {
            let guarantee = resources(&[("cpu", "1")]);
            let info = QueueInfo { guarantee, ..QueueInfo::default() };
            allocator.upsert_queue("guaranteed", &info);
        }
        if shape.reservation {
            let kind = Kind { reserved: vec!["absent".to_owned()], ..Kind::default() };
            let parts = vec![Part { kind, resources: resources(&[("cpu", "1")]) }];
            allocator.upsert_agent("reserved", AgentInfo { parts, ..AgentInfo::default() });
        }
        let frameworks = shape.frameworks;
        let mut cluster = Self { allocator, offers: BTreeMap::new(), serial: 0, frameworks };
        if shape.waiting > 0 {
            let info = FrameworkInfo {
                queues: vec!["waiting".to_owned()],
                placement: Placement::Tasks,
                ..FrameworkInfo::default()
            };
            cluster.allocator.upsert_framework(&ObjectKey::new("ns", "waiting"), info);
            for task in 0..shape.waiting {
                let cpu = format!("{}", 25 + task);
                cluster.task("waiting", "waiting", &resources(&[("cpu", &cpu)]));
            }
        }
        cluster
    }

    /// One in which all is offered already.
    pub(crate) fn all_offered(agents: usize, shape: &Shape) -> Self {
        let mut cluster = Self::new(agents, shape);
        cluster.offer_all();
        cluster.plan();
        cluster
    }

    /// Everything is looked at.
    pub(crate) fn full(&mut self) -> Plan {
        self.allocator.look_at_everything();
        self.allocator.plan(1, 1)
    }

    pub(crate) fn plan(&mut self) -> Plan {
        self.serial += 1;
        self.allocator.plan(1, self.serial)
    }

    pub(crate) fn apply(&mut self, plan: &Plan) {
        for offer in plan.offers.iter() {
            self.serial += 1;
            let key = ObjectKey::new("ns", &format!("o-{}", self.serial));
            let info = OfferInfo {
                framework: offer.to.framework.name.to_string(),
                queue: offer.to.queue.to_string(),
                agent: offer.agent.to_string(),
                parts: Vec::new(),
                resources: (*offer.resources).clone(),
                expires_at_ms: Some(offer.expires_at_ms),
                answered: false,
            };
            self.allocator.upsert_offer(&key, &info);
            self.offers.insert(key, info);
        }
    }

    pub(crate) fn offer_all(&mut self) {
        let plan = self.plan();
        self.apply(&plan);
    }

    /// A framework that answers offers says how many units it could use.
    pub(crate) fn want(&mut self, framework: usize, count: u64) {
        let queue = queue_of(framework, false);
        let each = resources(&[("cpu", "1"), ("memory", "1Gi")]);
        let info = FrameworkInfo {
            queues: vec![queue.clone()],
            placement: Placement::Offers,
            max_outstanding: usize::MAX,
            demand: Some(vec![Demand { queue, count, each }]),
            ..FrameworkInfo::default()
        };
        self.allocator.upsert_framework(&ObjectKey::new("ns", &format!("f-{framework}")), info);
    }

    /// Whoever is offered something refuses it for long.
    pub(crate) fn decline_all(&mut self) {
        self.offer_all();
        for (key, offer) in std::mem::take(&mut self.offers) {
            let refusal =
                Refusal { resources: offer.resources, parts: Vec::new(), for_ms: 1_000_000 };
            self.allocator.close_offer(&key, Some(&refusal), 1);
        }
    }

    /// So many offers end and leave nothing behind.
    pub(crate) fn free(&mut self, count: usize) {
        for _ in 0..count {
            let (key, _) = self.offers.pop_first().unwrap();
            self.allocator.close_offer(&key, None, 1);
        }
    }

    fn task(&mut self, framework: &str, queue: &str, wants: &Resources) {
        self.serial += 1;
        let info = TaskInfo {
            framework: framework.to_owned(),
            queue: queue.to_owned(),
            resources: wants.clone(),
            ..TaskInfo::default()
        };
        self.allocator.upsert_task(&ObjectKey::new("ns", &format!("t-{}", self.serial)), &info);
    }

    /// Equal tasks over all frameworks.
    pub(crate) fn tasks(&mut self, count: usize) {
        let wants = resources(&[("cpu", "6"), ("memory", "8Gi")]);
        for task in 0..count {
            let framework = task % self.frameworks;
            self.task(&format!("f-{framework}"), &queue_of(framework, false), &wants);
        }
    }

    /// Like what services, builds and analyses bring: many small tasks of a few kinds.
    pub(crate) fn mixed_load(&mut self) -> usize {
        let kinds = [
            ("service", 50, 150, ["1", "1Gi"], 1.0),
            ("build", 100, 70, ["500m", "2Gi"], 2.0),
            ("analysis", 50, 100, ["2", "4Gi"], 1.0),
        ];
        let mut count = 0;
        for (kind, frameworks, tasks, [cpu, memory], weight) in kinds {
            let wants = resources(&[("cpu", cpu), ("memory", memory)]);
            let info = QueueInfo { weight, ..QueueInfo::default() };
            self.allocator.upsert_queue(kind, &info);
            for number in 0..frameworks {
                let name = format!("{kind}-{number}");
                let info = FrameworkInfo {
                    queues: vec![kind.to_owned()],
                    placement: Placement::Tasks,
                    ..FrameworkInfo::default()
                };
                self.allocator.upsert_framework(&ObjectKey::new("ns", &name), info);
                for _ in 0..tasks {
                    self.task(&name, kind, &wants);
                }
                count += tasks;
            }
        }
        count
    }
}
