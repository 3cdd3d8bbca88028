//! Killing tasks for others: who, for whom, how many, and that it comes to rest.

use crate::world::{World, key, resources};
use commonage_allocator::{Demand, Gang, Placement, Plan, PreemptionReason};
use proptest::prelude::*;

fn killed(plan: &Plan) -> Vec<&str> {
    let mut names: Vec<&str> = plan.preempt.iter().map(|one| &*one.task.name).collect();
    names.sort_unstable();
    names
}

/// Two queues, `low` and `high`, with a framework each.
fn world(cpu: u32) -> World {
    let mut world = World::default();
    world.agent("a", &format!("cpu={cpu}"));
    world.placer("low", &["low"]);
    world.placer("high", &["high"]);
    world
}

#[test]
fn a_higher_priority_has_lower_ones_killed_and_no_more_than_needed() {
    let mut world = world(4);
    world.tasks("low", 4, "low", "low", "cpu=1");
    world.step();
    world.task_with("vip", "high", "high", "cpu=2", |task| task.priority = 5);
    let plan = world.step();
    assert_eq!(plan.preempt.len(), 2);
    assert_eq!(plan.preempt[0].reason, PreemptionReason::Priority);
    assert_eq!(plan.preempt[0].for_task, Some(key("vip")));
    assert_eq!((&*plan.preempt[0].queue, &*plan.preempt[0].for_queue), ("low", "high"));
    // Until they have ended nobody else is killed, and what they leave goes to no one else.
    world.tasks("more", 4, "low", "low", "cpu=1");
    assert_eq!(killed(&world.step()), [""; 0]);
    world.bury();
    let plan = world.step();
    assert_eq!(world.agent_of("vip"), Some("a"));
    assert_eq!((plan.bindings.len(), plan.preempt.len()), (1, 0));
}

#[test]
fn half_of_what_it_needs_is_kept_while_the_rest_ends() {
    let mut world = world(4);
    world.tasks("low", 3, "low", "low", "cpu=1");
    world.step();
    world.task_with("vip", "high", "high", "cpu=2", |task| task.priority = 1);
    assert_eq!(world.step().preempt.len(), 1);
    world.tasks("more", 2, "low", "low", "cpu=1");
    let plan = world.step();
    assert_eq!((plan.preempt.len(), plan.bindings.len()), (0, 0), "one core is kept for vip");
    world.bury();
    world.step();
    assert_eq!(world.agent_of("vip"), Some("a"));
}

#[test]
fn an_equal_priority_kills_nobody() {
    let mut world = world(2);
    world.tasks("low", 2, "low", "low", "cpu=1");
    world.step();
    world.task("other", "high", "high", "cpu=1");
    assert_eq!(killed(&world.step()), [""; 0]);
}

#[test]
fn revocable_ones_go_first_then_the_lowest_and_youngest() {
    let mut world = world(4);
    let ages = [("old", 0, 1, false), ("young", 0, 9, false), ("mid", 3, 1, false)];
    for (name, priority, created_ms, revocable) in ages {
        world.task_with(name, "low", "low", "cpu=1", |task| {
            (task.priority, task.created_ms) = (priority, created_ms);
            task.revocable = revocable;
        });
    }
    world.task_with("spot", "low", "low", "cpu=1", |task| {
        (task.priority, task.revocable) = (4, true);
    });
    world.step();
    for expected in ["spot", "young", "old", "mid"] {
        let name = format!("after-{expected}");
        world.task_with(&name, "high", "high", "cpu=1", |task| task.priority = 9);
        assert_eq!(killed(&world.step()), [expected]);
        world.bury();
        world.step();
        assert_eq!(world.agent_of(&name), Some("a"));
    }
}

#[test]
fn a_guarantee_is_lent_and_reclaimed() {
    let mut world = world(4);
    world.queue_with("high", |queue| queue.guarantee = resources("cpu=2"));
    world.tasks("low", 8, "low", "low", "cpu=1");
    world.step();
    assert_eq!(world.bound("low"), 2, "what is guaranteed is kept free");
    world.queue_with("high", |queue| queue.guarantee = resources(""));
    world.step();
    assert_eq!(world.bound("low"), 4, "nothing is guaranteed any more");
    world.queue_with("high", |queue| queue.guarantee = resources("cpu=2"));
    world.tasks("mine", 3, "high", "high", "cpu=1");
    let plan = world.step();
    assert_eq!(plan.preempt.len(), 2, "as much as is guaranteed");
    assert_eq!(plan.preempt[0].reason, PreemptionReason::Guarantee);
    for _ in 0..3 {
        world.bury();
        assert_eq!(killed(&world.step()), [""; 0]);
    }
    assert_eq!((world.bound("high"), world.bound("low")), (2, 2));
}

#[test]
fn nobody_is_killed_below_what_is_guaranteed_to_its_queue() {
    let mut world = world(4);
    world.queue_with("low", |queue| queue.guarantee = resources("cpu=3"));
    world.tasks("low", 4, "low", "low", "cpu=1");
    world.step();
    assert_eq!(world.bound("low"), 4);
    world.task_with("vip-1", "high", "high", "cpu=1", |task| task.priority = 9);
    world.task_with("vip-2", "high", "high", "cpu=1", |task| task.priority = 9);
    assert_eq!(world.step().preempt.len(), 1);
    world.bury();
    assert_eq!(killed(&world.step()), [""; 0]);
    assert_eq!((world.bound("high"), world.bound("low")), (1, 3));
}

#[test]
fn a_queues_priority_comes_before_its_tasks() {
    let mut world = world(2);
    world.queue_with("high", |queue| queue.priority = 1);
    for number in 0..2 {
        world.task_with(&format!("low-{number}"), "low", "low", "cpu=1", |t| t.priority = 7);
    }
    world.step();
    world.task("one", "high", "high", "cpu=1");
    assert_eq!(world.step().preempt.len(), 1);
}

#[test]
fn a_gang_has_all_of_its_room_made_or_none() {
    let mut world = world(3);
    world.tasks("low", 3, "low", "low", "cpu=1");
    world.step();
    let gang = |world: &mut World, name: &str, size: usize| {
        for number in 0..size {
            world.task_with(&format!("{name}-{number}"), "high", "high", "cpu=1", |task| {
                task.priority = 1;
                task.gang = Some(Gang { name: name.to_owned(), size });
            });
        }
    };
    gang(&mut world, "big", 4);
    assert_eq!(killed(&world.step()), [""; 0]);
    gang(&mut world, "fit", 2);
    assert_eq!(world.step().preempt.len(), 2);
    world.bury();
    world.step();
    assert_eq!(world.bound("high"), 2);
}

#[test]
fn a_group_is_killed_as_a_whole() {
    let mut world = world(3);
    for number in 0..2 {
        world.task_with(&format!("pod-{number}"), "low", "low", "cpu=1", |task| {
            task.group = Some("pod".to_owned());
        });
    }
    world.task_with("single", "low", "low", "cpu=1", |task| task.priority = 1);
    world.step();
    world.task_with("vip", "high", "high", "cpu=1", |task| task.priority = 2);
    assert_eq!(killed(&world.step()), ["pod-0", "pod-1"]);
}

#[test]
fn guaranteed_demand_has_room_made_for_it_once() {
    let mut world = world(4);
    world.tasks("low", 4, "low", "low", "cpu=1");
    world.step();
    world.queue_with("g", |queue| queue.guarantee = resources("cpu=2"));
    world.framework("asks", &["g"], |info| {
        info.placement = Placement::Offers;
        let each = resources("cpu=1");
        info.demand = Some(vec![Demand { queue: "g".to_owned(), count: 3, each }]);
    });
    let plan = world.step();
    assert_eq!(plan.preempt.len(), 2);
    assert_eq!(plan.preempt[0].for_task, None);
    assert_eq!(killed(&world.step()), [""; 0]);
    world.bury();
    let plan = world.step();
    assert_eq!((plan.preempt.len(), plan.offers.len()), (0, 1));
    assert_eq!(*plan.offers.get(0).unwrap().resources, resources("cpu=2"));
}

#[test]
fn an_offer_that_lies_unanswered_is_waited_for_and_nobody_killed() {
    let mut world = World::default();
    world.agent("a", "cpu=2");
    world.placer("low", &["low"]);
    world.task("low", "low", "low", "cpu=1");
    world.step();
    world.framework("silent", &["s"], |_| {});
    world.step();
    assert_eq!(world.holders(), ["silent@a"]);
    world.task_with("vip", "low", "low", "cpu=1", |task| task.priority = 5);
    assert_eq!(killed(&world.step()), [""; 0]);
}

#[derive(Debug, Clone)]
enum Event {
    Task { queue: usize, cpu: u8, priority: u8, kind: u8 },
    Guarantee { queue: usize, cpu: u8 },
    Finish { task: usize },
    Bury,
    Nothing,
}

const QUEUES: [&str; 4] = ["a", "a.b", "c", "d"];

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..4_usize, 1..4_u8, 0..4_u8, 0..8_u8)
            .prop_map(|(queue, cpu, priority, kind)| Event::Task { queue, cpu, priority, kind }),
        1 => (0..4_usize, 0..5_u8).prop_map(|(queue, cpu)| Event::Guarantee { queue, cpu }),
        1 => any::<usize>().prop_map(|task| Event::Finish { task }),
        2 => Just(Event::Bury),
        1 => Just(Event::Nothing),
    ]
}

fn happen(world: &mut World, serial: usize, event: &Event) {
    match *event {
        Event::Task { queue, cpu, priority, kind } => {
            let count = if kind < 2 { 2 } else { 1 };
            for number in 0..count {
                let name = format!("t{serial}-{number}");
                world.task_with(&name, "f", QUEUES[queue], &format!("cpu={cpu}"), |task| {
                    task.priority = i32::from(priority);
                    task.created_ms = serial as u64;
                    match kind {
                        0 => task.group = Some(format!("g{serial}")),
                        1 => task.gang = Some(Gang { name: format!("g{serial}"), size: 2 }),
                        2 => task.revocable = true,
                        _ => {}
                    }
                });
            }
        }
        Event::Guarantee { queue, cpu } => world.queue_with(QUEUES[queue], |info| {
            info.guarantee = resources(&format!("cpu={cpu}"));
        }),
        Event::Finish { task } => {
            let bound: Vec<_> = world
                .tasks
                .iter()
                .filter(|(_, t)| t.agent.is_some())
                .map(|(k, _)| k.clone())
                .collect();
            if !bound.is_empty() {
                world.finish(&bound[task % bound.len()]);
            }
        }
        Event::Bury => world.bury(),
        Event::Nothing => {}
    }
}

fn held(world: &World, queue: &str) -> i64 {
    let below = format!("{queue}.");
    let mine = world.tasks.values().filter(|t| t.queue == queue || t.queue.starts_with(&below));
    mine.filter(|t| t.agent.is_some() && !t.ending).map(|t| t.resources.cpu_millis()).sum()
}

/// Nobody is killed for one of the same or a lower priority but for a guarantee, and no queue falls
/// below its own.
fn judge(world: &World, plan: &Plan, before: &World) {
    for one in &plan.preempt {
        let victim = &before.tasks[&one.task];
        let winner = &before.tasks[one.for_task.as_ref().unwrap()];
        assert!(!winner.revocable && winner.agent.is_none());
        let guarantee =
            |queue: &str| before.queues.get(queue).map_or(0, |info| info.guarantee.cpu_millis());
        match one.reason {
            PreemptionReason::Priority => {
                // Of a group or a gang the most important counts.
                assert!(victim.priority < winner.priority, "{one:?}");
            }
            PreemptionReason::Guarantee => assert!(guarantee(&winner.queue) > 0, "{one:?}"),
        }
        let mut path = &*victim.queue;
        loop {
            // Whoever has its own killed for its own may well have less until those are there.
            let together = plan.preempt.iter().any(|one| {
                *one.for_queue == *path || one.for_queue.starts_with(&format!("{path}."))
            });
            let enough = held(world, path) >= guarantee(path).min(held(before, path));
            assert!(together || enough, "{path} is below its guarantee: {one:?}");
            match path.rsplit_once('.') {
                Some((parent, _)) => path = parent,
                None => break,
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn killing_is_just_and_comes_to_rest(
        agents in proptest::collection::vec(1..8_u8, 1..4),
        events in proptest::collection::vec(event(), 1..40),
        seed: u64,
    ) {
        let mut world = World { seed, ..World::default() };
        for (number, cpu) in agents.iter().enumerate() {
            world.agent(&format!("agent-{number}"), &format!("cpu={cpu}"));
        }
        world.placer("f", &QUEUES);
        for (serial, event) in events.iter().enumerate() {
            happen(&mut world, serial, event);
            let before = world.clone();
            let plan = world.step();
            judge(&world, &plan, &before);
        }
        // With nothing new nobody is killed any more after as many rounds as there are tasks.
        let most = world.tasks.len() + 2;
        let mut quiet = 0;
        for _ in 0..2 * most {
            world.bury();
            let before = world.clone();
            let plan = world.step();
            judge(&world, &plan, &before);
            quiet = if plan.preempt.is_empty() && plan.bindings.is_empty() { quiet + 1 } else { 0 };
        }
        prop_assert!(quiet >= 2, "it does not come to rest");
    }

    #[test]
    fn what_is_guaranteed_is_had_whoever_was_there_before(
        agents in proptest::collection::vec(1..6_u8, 1..5),
        claims in proptest::collection::vec((0..6_u8, 0..6_u8, 0..4_u8), 1..4),
        others in proptest::collection::vec((1..4_u8, 0..4_u8), 0..20),
        seed: u64,
    ) {
        let mut world = World { seed, ..World::default() };
        let mut left: u8 = agents.iter().sum();
        for (number, cpu) in agents.iter().enumerate() {
            world.agent(&format!("agent-{number}"), &format!("cpu={cpu}"));
        }
        world.placer("z", &["z"]);
        for (number, (cpu, priority)) in others.iter().enumerate() {
            world.task_with(&format!("z{number}"), "z", "z", &format!("cpu={cpu}"), |task| {
                task.priority = i32::from(*priority);
            });
        }
        world.step();
        let mut wanted = Vec::new();
        for (number, (guarantee, tasks, priority)) in claims.iter().enumerate() {
            let queue = format!("q{number}");
            let guarantee = (*guarantee).min(left);
            left -= guarantee;
            world.queue_with(&queue, |info| info.guarantee = resources(&format!("cpu={guarantee}")));
            world.placer(&queue, &[&queue]);
            for task in 0..*tasks {
                world.task_with(&format!("{queue}-{task}"), &queue, &queue, "cpu=1", |info| {
                    info.priority = i32::from(*priority);
                });
            }
            wanted.push((queue, usize::from(guarantee.min(*tasks))));
        }
        for _ in 0..4 {
            world.step();
            world.bury();
        }
        world.step();
        for (queue, least) in wanted {
            prop_assert!(world.bound(&queue) >= least, "{queue}: {} of {least}", world.bound(&queue));
        }
    }
}
