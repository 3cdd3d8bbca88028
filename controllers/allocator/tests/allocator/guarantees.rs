//! Guarantees, limits at every level and reservations, whatever the cluster looks like.

use std::collections::BTreeMap;

use commonage_allocator::{
    AgentInfo, Allocator, FrameworkInfo, Kind, ObjectKey, OfferInfo, Options, Part, Placement,
    QueueInfo, TaskInfo,
};
use commonage_schemas::resources::Resources;
use proptest::prelude::*;

const QUEUES: [&str; 7] = ["a", "a.b", "a.b.c", "a.d", "e", "e.f", "g"];

#[derive(Debug, Clone)]
struct Machine {
    cpu: u8,
    /// Cores reserved, and for which queue.
    reserved: Option<(usize, u8)>,
}

#[derive(Debug, Clone, Default)]
struct Claim {
    guarantee: u8,
    /// On top of the guarantee; `None`: no limit.
    limit: Option<u8>,
}

#[derive(Debug, Clone)]
struct Scene {
    machines: Vec<Machine>,
    claims: Vec<Claim>,
    /// Queues with a framework.
    frameworks: Vec<bool>,
    agent_by_agent: bool,
    seed: u64,
}

fn scene() -> impl Strategy<Value = Scene> {
    let machine = (1..9_u8, proptest::option::of((0..7_usize, 1..5_u8)))
        .prop_map(|(cpu, reserved)| Machine { cpu, reserved });
    let claim = (0..5_u8, proptest::option::of(0..5_u8))
        .prop_map(|(guarantee, limit)| Claim { guarantee, limit });
    (
        proptest::collection::vec(machine, 1..8),
        proptest::collection::vec(claim, 7),
        proptest::collection::vec(any::<bool>(), 7),
        any::<bool>(),
        any::<u64>(),
    )
        .prop_map(|(machines, claims, frameworks, agent_by_agent, seed)| Scene {
            machines,
            claims,
            frameworks,
            agent_by_agent,
            seed,
        })
}

fn cores(count: i64) -> Resources {
    let mut resources = Resources::new();
    resources.set_scalar("cpu", count * 1000);
    resources
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

fn build(scene: &Scene) -> Allocator {
    let mut allocator =
        Allocator::new(Options { agent_by_agent: scene.agent_by_agent, ..Options::default() });
    for (number, machine) in scene.machines.iter().enumerate() {
        let parts = machine.reserved.map(|(queue, cpu)| Part {
            kind: Kind { reserved: vec![QUEUES[queue].to_owned()], ..Kind::default() },
            resources: cores(cpu.into()),
        });
        let info = AgentInfo {
            allocatable: cores(machine.cpu.into()),
            parts: parts.into_iter().collect(),
            ..AgentInfo::default()
        };
        allocator.upsert_agent(&format!("agent-{number}"), info);
    }
    for (claim, queue) in scene.claims.iter().zip(QUEUES) {
        let limit = claim.limit.map(|more| cores((claim.guarantee + more).into()));
        let guarantee = cores(claim.guarantee.into());
        let info =
            QueueInfo { guarantee, limit: limit.unwrap_or_default(), ..QueueInfo::default() };
        allocator.upsert_queue(queue, &info);
    }
    for (queue, _) in QUEUES.iter().zip(&scene.frameworks).filter(|(_, is)| **is) {
        let queues = vec![(*queue).to_owned()];
        let info = FrameworkInfo { queues, refined: true, ..FrameworkInfo::default() };
        allocator.upsert_framework(&key(queue), info);
    }
    allocator
}

fn is_in(queue: &str, above: &str) -> bool {
    queue == above || queue.strip_prefix(above).is_some_and(|rest| rest.starts_with('.'))
}

/// Thousandths of a core that each queue holds with those below, reservations aside; and in all.
fn holdings(allocator: &mut Allocator, scene: &Scene) -> BTreeMap<&'static str, (i64, i64)> {
    let plan = allocator.plan(0, scene.seed);
    let mut per_agent: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    let mut held: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for (number, offer) in plan.offers.iter().enumerate() {
        let plain = offer.resources.cpu_millis();
        let reserved: i64 = offer.parts.iter().map(|part| part.resources.cpu_millis()).sum();
        for part in &offer.parts {
            assert!(is_in(&offer.to.queue, &part.kind.reserved[0]), "a reservation of others");
        }
        let agent = per_agent.entry(offer.agent.to_string()).or_default();
        *agent = (agent.0 + plain, agent.1 + reserved);
        for queue in QUEUES.iter().filter(|queue| is_in(&offer.to.queue, queue)) {
            let sum = held.entry(queue).or_default();
            *sum = (sum.0 + plain, sum.1 + plain + reserved);
        }
        let info = OfferInfo {
            framework: offer.to.framework.name.to_string(),
            queue: offer.to.queue.to_string(),
            agent: offer.agent.to_string(),
            resources: (*offer.resources).clone(),
            parts: offer.parts.clone(),
            expires_at_ms: None,
            answered: false,
        };
        allocator.upsert_offer(&key(&format!("offer-{number}")), &info);
    }
    for (number, machine) in scene.machines.iter().enumerate() {
        let (plain, reserved) =
            per_agent.get(&format!("agent-{number}")).copied().unwrap_or_default();
        assert!(plain <= i64::from(machine.cpu) * 1000, "agent-{number} is overbooked");
        let may = machine.reserved.map_or(0, |(_, cpu)| i64::from(cpu) * 1000);
        assert!(reserved <= may, "agent-{number}'s reservation is overbooked");
    }
    held
}

/// All that is reserved for a queue and those below.
fn reserved(scene: &Scene, queue: &str) -> i64 {
    let all = scene.machines.iter().filter_map(|machine| machine.reserved);
    all.filter(|(of, _)| is_in(QUEUES[*of], queue)).map(|(_, cpu)| i64::from(cpu) * 1000).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What is reserved counts towards a limit, held or not; nothing else is given beyond it.
    #[test]
    fn no_level_is_taken_past_its_limit(scene in scene()) {
        let mut allocator = build(&scene);
        for _ in 0..2 {
            let held = holdings(&mut allocator, &scene);
            for (claim, queue) in scene.claims.iter().zip(QUEUES) {
                let (plain, _) = held.get(queue).copied().unwrap_or_default();
                let Some(more) = claim.limit else { continue };
                let limit = i64::from(claim.guarantee + more) * 1000;
                let room = (limit - reserved(&scene, queue)).max(0);
                prop_assert!(plain <= room, "{queue} holds {plain} of {room}");
            }
            allocator = build(&scene);
        }
    }

    /// Without levels: where all guarantees together fit the cluster, each queue whose framework
    /// takes anything has its own.
    #[test]
    fn guarantees_are_met_where_they_can_be(mut scene in scene()) {
        let top = [0, 4, 6];
        for (at, claim) in scene.claims.iter_mut().enumerate() {
            if !top.contains(&at) {
                *claim = Claim::default();
            }
        }
        for machine in &mut scene.machines {
            machine.reserved = None;
        }
        let all: i64 = scene.machines.iter().map(|machine| i64::from(machine.cpu)).sum();
        let wanted: i64 = scene.claims.iter().map(|claim| i64::from(claim.guarantee)).sum();
        prop_assume!(wanted <= all);
        let mut allocator = build(&scene);
        let held = holdings(&mut allocator, &scene);
        for at in top.into_iter().filter(|at| scene.frameworks[*at]) {
            let (_, held) = held.get(QUEUES[at]).copied().unwrap_or_default();
            let guarantee = i64::from(scene.claims[at].guarantee) * 1000;
            prop_assert!(held >= guarantee, "{} holds {held} of {guarantee}", QUEUES[at]);
        }
    }

    /// The head-room stays free for a queue that comes late: others never have it.
    #[test]
    fn what_is_guaranteed_stays_free_for_late_comers(mut scene in scene()) {
        for machine in &mut scene.machines {
            machine.reserved = None;
        }
        for claim in &mut scene.claims {
            *claim = Claim::default();
        }
        let all: i64 = scene.machines.iter().map(|machine| i64::from(machine.cpu)).sum();
        scene.claims[6].guarantee = 3;
        prop_assume!(all >= 3);
        scene.frameworks[6] = false;
        let mut allocator = build(&scene);
        holdings(&mut allocator, &scene);
        let info = FrameworkInfo { queues: vec!["g".to_owned()], ..FrameworkInfo::default() };
        allocator.upsert_framework(&key("g"), info);
        let plan = allocator.plan(1, scene.seed);
        let late: i64 = plan.offers.iter().map(|offer| offer.resources.cpu_millis()).sum();
        prop_assert!(late >= 3000, "the late comer got {late}");
    }

    /// The same for tasks that are placed.
    #[test]
    fn placed_tasks_leave_what_is_guaranteed_to_others(cpus in 3..12_i64, tasks in 1..20_usize) {
        let mut allocator = Allocator::default();
        let allocatable = cores(cpus);
        allocator.upsert_agent("agent", AgentInfo { allocatable, ..AgentInfo::default() });
        let info = QueueInfo { guarantee: cores(3), ..QueueInfo::default() };
        allocator.upsert_queue("sure", &info);
        for (framework, count) in [("other", tasks), ("sure", 3)] {
            let queues = vec![framework.to_owned()];
            let placement = Placement::Tasks;
            let info = FrameworkInfo { queues, placement, ..FrameworkInfo::default() };
            allocator.upsert_framework(&key(framework), info);
            for number in 0..count {
                let info = TaskInfo {
                    framework: framework.to_owned(),
                    queue: framework.to_owned(),
                    resources: cores(1),
                    ..TaskInfo::default()
                };
                allocator.upsert_task(&key(&format!("{framework}-{number}")), &info);
            }
        }
        let plan = allocator.plan(0, 1);
        let sure = plan.bindings.iter().filter(|b| b.task.name.starts_with("sure")).count();
        prop_assert_eq!(sure, 3);
        prop_assert_eq!(plan.bindings.len() as i64 - 3, (cpus - 3).min(tasks as i64));
    }

    #[test]
    fn the_same_seed_gives_the_same_plan(scene in scene()) {
        prop_assert_eq!(build(&scene).plan(0, scene.seed), build(&scene).plan(0, scene.seed));
    }
}
