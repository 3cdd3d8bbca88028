//! What holds for every history: the world checks after each step that nothing is promised twice
//! and no limit is passed at any level.

use crate::world::{World, labels, resources};
use commonage_allocator::{Availability, Demand, Gang, Kind, Part, Placement, Selector};
use commonage_schemas::resources::Resources;
use proptest::prelude::*;

/// One thing that happens to the cluster. Numbers pick among what is there, modulo its count.
#[derive(Debug, Clone)]
enum Event {
    Agent { cpu: u8, memory: u8, ports: u8, gpu: u8, state: u8, aside: u8 },
    Queue { queue: usize, weight: u8, cpu: Option<u8> },
    Tasks { count: u8, queue: usize, cpu: u8, memory: u8, ports: u8, kind: u8 },
    Framework { kind: u8, queue: usize, count: u8, cpu: u8 },
    Demand { framework: usize, queue: usize, count: u8, cpu: u8 },
    Decline { offer: usize, seconds: u8 },
    Accept { offer: usize },
    Finish { task: usize },
    Cordon { agent: usize, state: u8 },
    Advance { seconds: u8 },
}

const QUEUES: [&str; 6] = ["a", "a.b", "a.b.c", "a.d", "e", "e.f"];

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1..9_u8, 0..9_u8, 0..5_u8, 0..3_u8, 0..8_u8, 0..16_u8).prop_map(
            |(cpu, memory, ports, gpu, state, aside)| Event::Agent {
                cpu,
                memory,
                ports,
                gpu,
                state,
                aside
            }
        ),
        (0..6_usize, 1..5_u8, proptest::option::of(0..12_u8))
            .prop_map(|(queue, weight, cpu)| Event::Queue { queue, weight, cpu }),
        (1..6_u8, 0..6_usize, 0..5_u8, 0..4_u8, 0..3_u8, 0..10_u8).prop_map(
            |(count, queue, cpu, memory, ports, kind)| Event::Tasks {
                count,
                queue,
                cpu,
                memory,
                ports,
                kind
            }
        ),
        (0..6_u8, 0..6_usize, 0..6_u8, 1..4_u8)
            .prop_map(|(kind, queue, count, cpu)| Event::Framework { kind, queue, count, cpu }),
        (0..3_usize, 0..6_usize, 0..6_u8, 1..4_u8).prop_map(|(framework, queue, count, cpu)| {
            Event::Demand { framework, queue, count, cpu }
        }),
        (any::<usize>(), 0..9_u8).prop_map(|(offer, seconds)| Event::Decline { offer, seconds }),
        any::<usize>().prop_map(|offer| Event::Accept { offer }),
        any::<usize>().prop_map(|task| Event::Finish { task }),
        (any::<usize>(), 0..8_u8).prop_map(|(agent, state)| Event::Cordon { agent, state }),
        (0..20_u8).prop_map(|seconds| Event::Advance { seconds }),
    ]
}

fn availability(state: u8) -> Availability {
    match state {
        0 => Availability::Unschedulable,
        1 => Availability::Draining,
        2 => Availability::NotReady,
        _ => Availability::Open,
    }
}

fn pick<T: Clone>(items: impl Iterator<Item = T>, number: usize) -> Option<T> {
    let items: Vec<T> = items.collect();
    (!items.is_empty()).then(|| items[number % items.len()].clone())
}

/// Something beside what is plain: reserved for a queue, or lent.
fn set_aside(number: u8) -> Option<Part> {
    let kind = match number {
        queue @ 0..6 => {
            Kind { reserved: vec![QUEUES[usize::from(queue)].to_owned()], ..Kind::default() }
        }
        6 => Kind { revocable: true, ..Kind::default() },
        _ => return None,
    };
    Some(Part { kind, resources: resources("cpu=2 memory=3Gi ports=32000-32001") })
}

/// What one task of a declared demand needs. Ports tie all agents to each other, so they are rare.
fn unit(cpu: u8) -> Resources {
    resources(&match cpu {
        3 => "cpu=3 ports=1".to_owned(),
        _ => format!("cpu={cpu}"),
    })
}

/// The same without anything that ties all agents to each other.
fn plain(event: Event) -> Event {
    match event {
        Event::Agent { cpu, memory, ports, gpu, state, .. } => {
            Event::Agent { cpu, memory, ports, gpu, state, aside: u8::MAX }
        }
        Event::Framework { kind, queue, count, cpu } => {
            Event::Framework { kind, queue, count, cpu: cpu.min(2) }
        }
        Event::Demand { framework, queue, count, cpu } => {
            Event::Demand { framework, queue, count, cpu: cpu.min(2) }
        }
        other => other,
    }
}

fn happen(world: &mut World, serial: usize, event: &Event) {
    match *event {
        Event::Agent { cpu, memory, ports, gpu, state, aside } => {
            let mut text = format!("cpu={cpu} memory={memory}Gi gpu={gpu}");
            if ports > 0 {
                text += &format!(" ports=31000-{}", 31000 + u16::from(ports));
            }
            world.agent_with(&format!("agent-{serial}"), &text, |info| {
                info.availability = availability(state);
                info.labels = labels(&format!("rack=r{}", serial % 3));
                info.parts.extend(set_aside(aside));
            });
        }
        Event::Queue { queue, weight, cpu } => {
            // A limit below what is held already is the one thing the world can't check.
            if !world.queues.contains_key(QUEUES[queue]) && world.bound(QUEUES[queue]) == 0 {
                let held =
                    world.offers.values().any(|offer| offer.queue.starts_with(QUEUES[queue]));
                let limit = cpu.filter(|_| !held).map(|cpu| format!("cpu={cpu}"));
                world.queue(QUEUES[queue], f64::from(weight), &limit.unwrap_or_default());
            }
        }
        Event::Tasks { count, queue, cpu, memory, ports, kind } => {
            let wants = format!("cpu={cpu} memory={memory}Gi");
            for number in 0..count {
                let name = format!("task-{serial}-{number}");
                world.task_with(&name, "default", QUEUES[queue], &wants, |task| {
                    task.host_ports = vec![0; usize::from(ports)];
                    task.labels = labels("app=x");
                    match kind {
                        0 => task.spread = Some("rack".to_owned()),
                        1 => task.group = Some(format!("group-{serial}")),
                        2 => {
                            let size = usize::from(count);
                            task.gang = Some(Gang { name: format!("gang-{serial}"), size });
                        }
                        3 => task.anti_affinity = Some(Selector::labels([("app", "x")])),
                        4 => task.required = Selector::labels([("rack", "r1")]),
                        5 => task.preferred = Selector::labels([("rack", "r2")]),
                        6 => task.host_ports.push(31001),
                        7 => task.resources = resources("cpu=1 gpu=1"),
                        8 => task.revocable = true,
                        _ => {}
                    }
                });
            }
        }
        Event::Framework { kind, queue, count, cpu } => {
            let name = format!("framework-{}", kind % 3);
            world.framework(&name, &[QUEUES[queue], QUEUES[(queue + 2) % 6]], |info| {
                info.gpu = kind < 3;
                info.revocable = kind < 2;
                info.max_outstanding = usize::from(count);
                info.min_allocatable = (kind % 2 == 0).then(Vec::new);
                info.demand = (kind > 2).then(|| {
                    vec![Demand {
                        queue: QUEUES[queue].to_owned(),
                        count: u64::from(count),
                        each: unit(cpu),
                    }]
                });
            });
        }
        Event::Demand { framework, queue, count, cpu } => {
            let name = format!("framework-{framework}");
            if world.frameworks.contains_key(&name) {
                let queue = QUEUES[queue].to_owned();
                let each = unit(cpu);
                world.demand(&name, vec![Demand { queue, count: u64::from(count), each }]);
            }
        }
        Event::Decline { offer, seconds } => {
            if let Some(offer) = pick(world.offers.keys().cloned(), offer) {
                world.decline(&offer, 1000 * u64::from(seconds));
            }
        }
        Event::Accept { offer } => {
            if let Some(offer) = pick(world.offers.keys().cloned(), offer) {
                world.accept(&offer, &format!("accepted-{serial}"), None);
            }
        }
        Event::Finish { task } => {
            let bound = world.tasks.iter().filter(|(_, task)| task.agent.is_some());
            if let Some(task) = pick(bound.map(|(key, _)| key.clone()), task) {
                world.finish(&task);
            }
        }
        Event::Cordon { agent, state } => {
            if let Some(name) = pick(world.agents.keys().cloned(), agent) {
                let mut info = world.agents[&name].clone();
                info.availability = availability(state);
                world.allocator.upsert_agent(&name, info.clone());
                world.agents.insert(name, info);
            }
        }
        Event::Advance { seconds } => world.now_ms += 1000 * u64::from(seconds),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_promised_twice_and_no_limit_is_passed(
        events in proptest::collection::vec(event(), 1..60),
        seed: u64,
    ) {
        let mut world = World { seed, ..World::default() };
        // Nothing is shared with this one, down to the keys of its hash tables.
        let mut twin = World { seed, ..World::default() };
        world.placer("default", &QUEUES);
        twin.placer("default", &QUEUES);
        for (serial, event) in events.iter().enumerate() {
            for one in [&mut world, &mut twin] {
                happen(one, serial, event);
                one.seed = one.seed.wrapping_add(1);
            }
            let plan = world.step();
            prop_assert_eq!(&plan, &twin.step(), "same seed, same plan");
            // Every waiting task is either placed or explained.
            let waiting = world.tasks.values().filter(|task| task.agent.is_none()).count();
            prop_assert_eq!(plan.why.len(), waiting);
        }
        // Nothing is left behind when everything has gone.
        for offer in world.offers.keys().cloned().collect::<Vec<_>>() {
            world.close(&offer, None);
        }
        for task in world.tasks.keys().cloned().collect::<Vec<_>>() {
            world.finish(&task);
        }
        for usage in world.allocator.queue_usage() {
            prop_assert!(usage.allocated.is_empty() && usage.offered.is_empty());
            prop_assert_eq!(usage.pending, 0);
        }
    }

    /// The world compares each plan with one that looks at everything: this is about what ports and parts would have
    /// looked at anew anyway.
    #[test]
    fn a_changed_demand_comes_to_what_a_full_run_would(
        events in proptest::collection::vec(event().prop_map(plain), 1..80),
        seed: u64,
    ) {
        let mut world = World { seed, ..World::default() };
        world.placer("default", &QUEUES);
        for (serial, event) in events.iter().enumerate() {
            happen(&mut world, serial, event);
            world.seed = world.seed.wrapping_add(1);
            world.step();
        }
    }

    /// When i got its last task, its share was not above j's, so afterwards it is above by at most
    /// that one task, over its weight.
    #[test]
    fn equal_tasks_are_shared_by_weight_within_one_task(
        weights in proptest::collection::vec(1..20_u32, 2..6),
        room in 1..60_u32,
        agents in 1..5_u32,
        seed: u64,
    ) {
        let mut world = World { seed, ..World::default() };
        for agent in 0..agents {
            world.agent(&format!("a{agent}"), &format!("cpu={room} memory={}Gi", 2 * room));
        }
        for (queue, weight) in weights.iter().enumerate() {
            let queue = format!("q{queue}");
            world.queue(&queue, f64::from(*weight), "");
            world.placer(&format!("f-{queue}"), &[&queue]);
            let count = (room * agents) as usize;
            world.tasks(&queue, count, &format!("f-{queue}"), &queue, "cpu=1 memory=1Gi");
        }
        world.step();
        let got: Vec<f64> = (0..weights.len())
            .map(|queue| world.bound(&format!("q{queue}")) as f64)
            .collect();
        prop_assert_eq!(got.iter().sum::<f64>(), f64::from(room * agents));
        for (i, got_i) in got.iter().enumerate().filter(|(_, got)| **got > 0.0) {
            for (j, got_j) in got.iter().enumerate() {
                let (weight_i, weight_j) = (f64::from(weights[i]), f64::from(weights[j]));
                let ahead = got_i / weight_i - got_j / weight_j;
                prop_assert!(ahead <= 1.0 / weight_i + 1e-9, "{:?} of {:?}", got, weights);
            }
        }
    }
}

#[test]
fn placement_kinds_do_not_leak_into_each_other() {
    let mut world = World::default();
    world.agent("a", "cpu=4");
    world.framework("f", &["q"], |info| info.placement = Placement::Offers);
    world.placer("p", &["q"]);
    world.task("t", "p", "q", "cpu=4");
    world.step();
    // Equal shares, and "f" before "p" by name: the offer comes first, then the task waits for it.
    assert_eq!(world.holders(), ["f@a"]);
    world.now_ms = 30_000;
    world.step();
    world.step();
    assert_eq!(world.bound("q"), 1, "fewer allocations go first among equal shares");
}
