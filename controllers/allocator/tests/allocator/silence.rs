//! Frameworks that never answer beside tasks that are placed: neither starves the other, nor those
//! that do answer.

use commonage_allocator::{Demand, RescindReason};
use proptest::prelude::*;

use crate::world::{World, key, resources};

const GRACE_MS: u64 = 1_000;

/// One agent, a task that runs, and a silent framework that holds the rest.
fn silent_world() -> World {
    let mut world = World::default();
    world.agent("a", "cpu=4 memory=8Gi ports=31000-31009");
    world.placer("default", &["default"]);
    world.task("first", "default", "default", "cpu=1");
    world.step();
    world.framework("fa", &["fa"], |_| {});
    world.step();
    assert_eq!(world.holders(), ["fa@a"]);
    world
}

#[test]
fn an_offer_that_nobody_answers_makes_way_for_a_task() {
    let mut world = silent_world();
    world.task("second", "default", "default", "cpu=1");
    world.now_ms = GRACE_MS - 1;
    let plan = world.step();
    assert_eq!((plan.rescind.len(), plan.bindings.len()), (0, 0));
    assert_eq!(plan.next_wake_ms, Some(GRACE_MS));
    world.now_ms = GRACE_MS;
    let plan = world.step();
    assert_eq!(plan.rescind[0].reason, RescindReason::NeededForTask);
    assert_eq!(plan.bindings, [], "never in the plan that takes it back");
    let plan = world.step();
    assert_eq!(world.agent_of("second"), Some("a"));
    assert_eq!(plan.offers, [], "fa is spared for a while");
    world.now_ms += 5_000;
    world.step();
    assert_eq!(world.holders(), ["fa@a"], "and gets its next chance on what is left");
}

#[test]
fn a_newcomer_may_try_once_before_the_tasks() {
    let mut world = silent_world();
    for name in ["fb", "fc"] {
        world.framework(name, &[name], |_| {});
    }
    world.task("second", "default", "default", "cpu=1");
    world.now_ms = GRACE_MS;
    world.step();
    world.step();
    assert_eq!(world.holders(), ["fb@a"], "it may be one that answers");
    world.now_ms = 2 * GRACE_MS;
    world.step();
    let plan = world.step();
    assert_eq!(plan.offers, []);
    assert_eq!(world.agent_of("second"), Some("a"));
    world.step();
    assert_eq!(world.holders(), ["fc@a"], "what the task leaves is offered on");
}

#[test]
fn no_more_offers_than_needed_are_taken_back() {
    let mut world = World::default();
    for number in 0..5 {
        world.agent(&format!("a{number}"), "cpu=2");
    }
    world.framework("f", &["f"], |_| {});
    world.step();
    world.placer("default", &["q"]);
    world.tasks("t", 3, "default", "q", "cpu=1");
    world.task("wide", "default", "q", "cpu=3");
    world.now_ms = GRACE_MS;
    let plan = world.step();
    assert_eq!(plan.rescind.len(), 2, "two agents have room for three tasks");
    assert_eq!(world.step().bindings.len(), 3);
    assert_eq!(world.offers_of("f").len(), 3);
}

#[test]
fn a_gang_takes_back_all_that_it_needs_or_nothing() {
    for (size, rescinded) in [(4, 2), (5, 0)] {
        let mut world = World::default();
        world.agent("a", "cpu=2");
        world.agent("b", "cpu=2");
        world.framework("f", &["f"], |_| {});
        world.step();
        world.placer("default", &["q"]);
        for number in 0..size {
            world.task_with(&format!("t{number}"), "default", "q", "cpu=1", |task| {
                task.gang = Some(commonage_allocator::Gang { name: "g".to_owned(), size });
            });
        }
        world.now_ms = GRACE_MS;
        assert_eq!(world.step().rescind.len(), rescinded);
        assert_eq!(world.step().bindings.len(), 2 * rescinded);
    }
}

#[test]
fn offers_make_way_only_where_the_queue_may_have_it() {
    let mut world = silent_world();
    world.queue("default", 1.0, "cpu=1");
    world.task("second", "default", "default", "cpu=1");
    world.now_ms = GRACE_MS;
    assert_eq!(world.step().rescind, []);
    // The silent framework's own offer is what uses up the limit.
    let mut world = World::default();
    world.agent("a", "cpu=2");
    world.agent("b", "cpu=2");
    world.queue("q", 1.0, "cpu=2");
    world.framework("f", &["q"], |_| {});
    world.step();
    world.placer("default", &["q"]);
    world.task("t", "default", "q", "cpu=1");
    world.now_ms = GRACE_MS;
    assert_eq!(world.step().rescind.len(), 1);
    assert_eq!(world.step().bindings.len(), 1);
}

#[test]
fn declared_demand_is_not_taken_back() {
    let mut world = World::default();
    world.agent("a", "cpu=2");
    world.framework("f", &["f"], |info| {
        let each = resources("cpu=2");
        info.demand = Some(vec![Demand { queue: "f".to_owned(), count: 1, each }]);
    });
    world.step();
    world.placer("default", &["q"]);
    world.task("t", "default", "q", "cpu=1");
    world.now_ms = 29_000;
    assert_eq!(world.step().rescind, []);
    world.now_ms = 30_000;
    world.step();
    assert_eq!(world.step().bindings.len(), 1, "a silent framework stands back when it expires");
}

#[test]
fn placed_tasks_and_an_answering_framework_share_by_weight_whoever_else_is_silent() {
    for (heavy, light) in [("live", "default"), ("default", "live")] {
        let mut world = World::default();
        for agent in ["a", "b", "c"] {
            world.agent(agent, "cpu=10");
        }
        world.queue(heavy, 2.0, "");
        for number in 0..3 {
            world.framework(&format!("silent-{number}"), &[&format!("s{number}")], |_| {});
        }
        world.step();
        world.framework("live", &["live"], |_| {});
        world.placer("default", &["default"]);
        world.tasks("t", 60, "default", "default", "cpu=1");
        for round in 0..200 {
            // It answers each offer at once with one task, and wants the rest again.
            for offer in world.offers_of("live") {
                world.accept(&offer, &format!("{}-{round}", offer.name), Some("cpu=1"));
            }
            world.now_ms += 100;
            world.step();
        }
        let held = |queue| i64::try_from(world.bound(queue)).unwrap();
        assert_eq!(held(heavy) + held(light), 30, "{heavy} is heavy");
        assert!((held(heavy) - 2 * held(light)).abs() <= 3, "{} {}", held(heavy), held(light));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Whatever silent frameworks there are: what would fit without their offers runs within two
    /// graces and the plans between them.
    #[test]
    fn no_task_starves(
        silent in 1..20_usize,
        agents in 1..5_usize,
        start_ms in 0..20_000_u64,
        tasks in proptest::collection::vec((1..4_u64, 0..5_000_u64), 1..8),
        seed: u64,
    ) {
        let mut world = World { seed, ..World::default() };
        // Enough for all tasks on any one agent.
        for agent in 0..agents {
            world.agent(&format!("a{agent}"), "cpu=32 memory=8Gi");
        }
        world.placer("default", &["default"]);
        world.task("first", "default", "default", "cpu=1");
        world.step();
        for number in 0..silent {
            world.framework(&format!("f{number}"), &[&format!("q{number}")], |info| {
                info.offer_timeout_ms = 5_000;
            });
        }
        let tick = |world: &mut World| {
            world.now_ms += 250;
            world.seed = world.seed.wrapping_add(1);
            world.step();
        };
        while world.now_ms < start_ms {
            tick(&mut world);
        }
        for (number, (cpu, pause_ms)) in tasks.into_iter().enumerate() {
            let name = format!("t{number}");
            world.task(&name, "default", "default", &format!("cpu={cpu}"));
            let created = world.now_ms;
            while world.agent_of(&name).is_none() {
                tick(&mut world);
                prop_assert!(
                    world.now_ms - created <= 2 * GRACE_MS + 5 * 250,
                    "{name} still waits after {} ms", world.now_ms - created
                );
            }
            let until = world.now_ms + pause_ms;
            while world.now_ms < until {
                tick(&mut world);
            }
        }
        prop_assert!(world.agent_of("first").is_some() && world.tasks.contains_key(&key("t0")));
    }
}
