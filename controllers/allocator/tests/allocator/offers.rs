//! What is offered to whom, and when it ends.

use crate::world::{World, key, labels, ports, resources};
use commonage_allocator::{
    Availability, Demand, Operator, Options, Placement, Refusal, RescindReason, Selector,
};

#[test]
fn a_framework_that_says_nothing_gets_whole_agents() {
    let mut world = World::default();
    world.agent("a", "cpu=4 memory=8Gi disk=10Gi ports=31000-31009 example.com/keys={x,y}");
    world.framework("f", &["q"], |_| {});
    let plan = world.step();
    assert_eq!(plan.offers.len(), 1);
    let offer = plan.offers.get(0).unwrap();
    assert_eq!(*offer.resources, world.agents["a"].allocatable);
    assert_eq!(offer.expires_at_ms, 30_000);
    assert_eq!(plan.next_wake_ms, None);
    assert_eq!(world.step().next_wake_ms, Some(30_000));
}

#[test]
fn every_offer_expires() {
    let mut world = World::default();
    world.agent("a", "cpu=4");
    world.framework("f", &["q"], |info| info.offer_timeout_ms = 5_000);
    world.step();
    world.now_ms = 4_999;
    assert_eq!(world.step().expire, []);
    world.now_ms = 5_000;
    let plan = world.step();
    assert_eq!(plan.expire.len(), 1);
    assert_eq!(plan.offers, [], "what is still held is not offered again in the same plan");
    assert_eq!(world.step().offers.len(), 1);
}

#[test]
fn an_answered_offer_holds_until_it_is_closed() {
    let mut world = World::default();
    world.agent("a", "cpu=4");
    world.framework("f", &["q"], |_| {});
    world.step();
    let offer = world.offers_of("f")[0].clone();
    let mut info = world.offers[&offer].clone();
    info.answered = true;
    world.allocator.upsert_offer(&offer, &info);
    world.now_ms = 100_000;
    let plan = world.step();
    assert_eq!((plan.expire.len(), plan.offers.len()), (0, 0));
    world.accept(&offer, "t", Some("cpu=3"));
    let plan = world.step();
    assert_eq!(*plan.offers.get(0).unwrap().resources, resources("cpu=1"));
}

#[test]
fn whole_agents_go_round_by_share() {
    let mut world = World::default();
    for agent in ["a", "b", "c", "d"] {
        world.agent(agent, "cpu=4 memory=4Gi");
    }
    world.framework("f", &["x"], |_| {});
    world.framework("g", &["y"], |_| {});
    world.step();
    assert_eq!((world.offers_of("f").len(), world.offers_of("g").len()), (2, 2));
}

#[test]
fn a_refusal_blocks_its_subsets_for_its_time() {
    let mut world = World::default();
    world.agent("a", "cpu=4 memory=4Gi");
    world.framework("f", &["q"], |_| {});
    world.framework("g", &["p"], |info| info.active = false);
    world.step();
    let offer = world.offers_of("f")[0].clone();
    world.decline(&offer, 5_000);
    let plan = world.step();
    assert_eq!(plan.offers, []);
    assert_eq!(plan.next_wake_ms, Some(5_000));
    world.framework("g", &["p"], |_| {});
    world.step();
    assert_eq!(world.holders(), ["g@a"], "others are not affected");
    let offer = world.offers_of("g")[0].clone();
    world.close(&offer, None);
    world.framework("g", &["p"], |info| info.active = false);
    world.agent("a", "cpu=5 memory=4Gi");
    world.step();
    assert_eq!(world.holders(), ["f@a"], "more than was refused is offered");
    let offer = world.offers_of("f")[0].clone();
    world.decline(&offer, 5_000);
    assert_eq!(world.step().offers, []);
    world.now_ms = 5_000;
    world.step();
    assert_eq!(world.holders(), ["f@a"]);
}

#[test]
fn a_refusal_survives_one_plan_whatever_the_time() {
    let mut world = World::default();
    world.agent("a", "cpu=4");
    world.framework("f", &["q"], |_| {});
    world.step();
    let offer = world.offers_of("f")[0].clone();
    world.decline(&offer, 1);
    world.now_ms = 60_000;
    assert_eq!(world.step().offers, []);
    assert_eq!(world.step().offers.len(), 1);
    let offer = world.offers_of("f")[0].clone();
    world.decline(&offer, 0);
    assert_eq!(world.step().offers.len(), 1, "0 is no refusal");
}

#[test]
fn new_labels_and_a_revive_forget_refusals() {
    for revive in [false, true] {
        let mut world = World::default();
        world.agent("a", "cpu=4");
        world.framework("f", &["q"], |_| {});
        world.step();
        let offer = world.offers_of("f")[0].clone();
        world.decline(&offer, 1_000_000);
        let suppress = |info: &mut commonage_allocator::FrameworkInfo| {
            info.suppressed_queues = vec!["q".to_owned()];
        };
        world.framework("f", &["q"], suppress);
        world.agent("a", "cpu=4");
        assert_eq!(world.step().offers, []);
        if revive {
            world.framework("f", &["q"], |_| {});
        } else {
            world.agent_with("a", "cpu=4", |info| info.labels = labels("rack=r1"));
            assert_eq!(world.step().offers, [], "still suppressed");
            world.framework("f", &["q"], |_| {});
        }
        assert_eq!(world.step().offers.len(), 1);
    }
}

#[test]
fn what_an_acceptance_left_over_can_be_refused() {
    let mut world = World::default();
    world.agent("a", "cpu=4");
    world.framework("f", &["q"], |_| {});
    world.step();
    let offer = world.offers_of("f")[0].clone();
    world.task_with("t", "f", "q", "cpu=1", |task| task.agent = Some("a".to_owned()));
    let refusal = Refusal { resources: resources("cpu=3"), parts: Vec::new(), for_ms: 5_000 };
    world.close(&offer, Some(&refusal));
    assert_eq!(world.step().offers, []);
    world.finish(&key("t"));
    assert_eq!(*world.step().offers.get(0).unwrap().resources, resources("cpu=4"));
}

#[test]
fn too_little_is_not_offered() {
    let mut world = World::default();
    world.agent("a", "cpu=9m memory=31Mi disk=10Gi");
    world.framework("f", &["q"], |_| {});
    assert_eq!(world.step().offers, []);
    world.framework("f", &["q"], |info| info.min_allocatable = Some(vec![]));
    assert_eq!(world.step().offers.len(), 1);
    let mut world = World::default();
    world.agent("a", "cpu=1 memory=1Gi");
    world.framework("f", &["q"], |info| {
        info.min_allocatable = Some(vec![resources("cpu=2"), resources("memory=2Gi")]);
    });
    assert_eq!(world.step().offers, []);
    world.agent("a", "cpu=1 memory=2Gi");
    assert_eq!(world.step().offers.len(), 1);
}

#[test]
fn agents_are_offered_only_where_they_are_wanted_and_understood() {
    let mut world = World::new(Options { region: Some("eu".to_owned()), ..Options::default() });
    world.agent("plain", "cpu=1");
    world.agent("gpu", "cpu=1 gpu=2");
    world.agent_with("far", "cpu=1", |info| {
        info.labels = labels("topology.kubernetes.io/region=us");
    });
    world.agent_with("rack", "cpu=1", |info| {
        info.labels = labels("rack=r1 topology.kubernetes.io/region=eu");
    });
    world.framework("f", &["q"], |info| info.max_outstanding = 10);
    world.step();
    assert_eq!(world.holders(), ["f@plain", "f@rack"]);
    world.framework("g", &["q"], |info| info.gpu = true);
    world.framework("h", &["q"], |info| {
        info.region_aware = true;
        info.agents = Selector::default().and("rack", Operator::DoesNotExist, ["x"; 0]);
    });
    world.step();
    assert_eq!(world.holders(), ["f@plain", "f@rack", "g@gpu", "h@far"]);
}

#[test]
fn agents_that_are_not_open_are_not_offered_and_offers_of_them_end() {
    for availability in [
        Availability::Draining,
        Availability::NotReady,
        Availability::Unschedulable,
        Availability::DiskPressure,
    ] {
        let mut world = World::default();
        world.agent("a", "cpu=1");
        world.framework("f", &["q"], |_| {});
        world.step();
        world.agent_with("a", "cpu=1", |info| info.availability = availability);
        let plan = world.step();
        assert_eq!(plan.rescind[0].reason, RescindReason::AgentNotAvailable);
        assert_eq!(world.step().offers, []);
    }
}

#[test]
fn offers_end_with_what_they_were_made_for() {
    let mut world = World::default();
    world.agent("a", "cpu=2");
    world.framework("f", &["q"], |_| {});
    world.step();
    let rescinded = |world: &World| {
        let plan = world.clone().step();
        plan.rescind.first().map(|rescind| rescind.reason)
    };
    assert_eq!(rescinded(&world), None);
    let mut gone = world.clone();
    gone.allocator.remove_framework(&key("f"));
    assert_eq!(rescinded(&gone), Some(RescindReason::FrameworkNotActive));
    let mut inactive = world.clone();
    inactive.framework("f", &["q"], |info| info.active = false);
    assert_eq!(rescinded(&inactive), Some(RescindReason::FrameworkNotActive));
    let mut placed = world.clone();
    placed.framework("f", &["q"], |info| info.placement = Placement::Tasks);
    assert_eq!(rescinded(&placed), Some(RescindReason::FrameworkNotActive));
    let mut moved = world.clone();
    moved.framework("f", &["p"], |_| {});
    assert_eq!(rescinded(&moved), Some(RescindReason::QueueLeft));
    let mut shrunk = world.clone();
    shrunk.agent("a", "cpu=1");
    assert_eq!(rescinded(&shrunk), Some(RescindReason::AgentShrank));
    let mut without = world;
    without.allocator.remove_agent("a");
    assert_eq!(rescinded(&without), Some(RescindReason::AgentNotAvailable));
}

#[test]
fn a_framework_holds_so_many_offers_at_most() {
    let mut world = World::default();
    for number in 0..5 {
        world.agent(&format!("a{number}"), "cpu=1");
    }
    world.framework("f", &["q", "p"], |info| info.max_outstanding = 3);
    world.step();
    assert_eq!(world.offers.len(), 3);
    assert_eq!(world.step().offers, []);
}

#[test]
fn an_offer_is_cut_to_the_queues_limit() {
    let mut world = World::default();
    world.agent("a", "cpu=4 memory=4Gi gpu=4 ports=1-10");
    world.queue("q", 1.0, "cpu=1500m gpu=2");
    world.framework("f", &["q"], |info| info.gpu = true);
    let plan = world.step();
    assert_eq!(
        *plan.offers.get(0).unwrap().resources,
        resources("cpu=1500m memory=4Gi gpu=2 ports=1-10")
    );
    assert_eq!(world.step().offers, []);
}

fn demand(queue: &str, count: u64, each: &str) -> Option<Vec<Demand>> {
    Some(vec![Demand { queue: queue.to_owned(), count, each: resources(each) }])
}

#[test]
fn demand_cuts_offers_to_what_is_wanted() {
    let mut world = World::default();
    world.agent("a", "cpu=8 memory=32Gi ports=31000-31099");
    world.framework("f", &["q"], |info| {
        info.demand = demand("q", 3, "cpu=2 memory=1Gi ports=1-2");
    });
    let plan = world.step();
    assert_eq!(plan.offers.len(), 1);
    let offered = plan.offers.get(0).unwrap().resources;
    assert_eq!(offered.cpu_millis(), 6000);
    assert_eq!(offered.memory_bytes(), 3 << 30);
    assert_eq!(ports(&offered), "31000-31005");
    assert_eq!(world.step().offers, [], "what is offered stands for the demand");
    world.framework("f", &["q"], |info| {
        info.demand = demand("q", 9, "cpu=2 memory=1Gi ports=1-2");
    });
    assert_eq!(
        world.step().offers.get(0).unwrap().resources.cpu_millis(),
        2000,
        "whole tasks only"
    );
    world.framework("f", &["q"], |info| info.demand = Some(vec![]));
    world.agent("b", "cpu=8 memory=32Gi");
    assert_eq!(world.step().offers, [], "no demand, no offers");
}

#[test]
fn demand_is_served_fairly() {
    let mut world = World::default();
    for number in 0..3 {
        world.agent(&format!("a{number}"), "cpu=4");
    }
    world.queue("x", 2.0, "");
    world.framework("f", &["x"], |info| info.demand = demand("x", 100, "cpu=1"));
    world.framework("g", &["y"], |info| info.demand = demand("y", 100, "cpu=1"));
    world.step();
    let cpus = |framework: &str| -> i64 {
        let mine = world.offers.values().filter(|offer| offer.framework == framework);
        mine.map(|offer| offer.resources.cpu_millis()).sum()
    };
    assert_eq!((cpus("f"), cpus("g")), (8000, 4000));
}

#[test]
fn equal_units_are_dealt_so_that_they_are_few_offers() {
    let mut world = World::default();
    for number in 0..4 {
        world.agent(&format!("a{number}"), "cpu=4 memory=4Gi");
    }
    let each = "cpu=1 memory=1Gi";
    for name in ["f", "g", "h"] {
        world.framework(name, &[name], |info| info.demand = demand(name, 4, each));
    }
    let offered = |world: &World| {
        let all = world.offers.values();
        all.map(|offer| (offer.framework.clone(), offer.resources.cpu_millis()))
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(world.step().offers.len(), 3, "one by one it would be nine");
    let whole = ["f", "g", "h"].map(|name| (name.to_owned(), 4000));
    assert_eq!(offered(&world), whole.into());

    // Units of another size are not exchanged.
    let mut world = World::default();
    world.agent("a0", "cpu=4 memory=4Gi");
    world.agent("a1", "cpu=4 memory=4Gi");
    world.framework("f", &["f"], |info| info.demand = demand("f", 4, each));
    world.framework("g", &["g"], |info| info.demand = demand("g", 2, "cpu=2 memory=1Gi"));
    world.step();
    let cpus = |framework: &str| -> i64 {
        let mine = world.offers.values().filter(|offer| offer.framework == framework);
        mine.map(|offer| offer.resources.cpu_millis()).sum()
    };
    assert_eq!((cpus("f"), cpus("g")), (4000, 4000));
}

#[test]
fn nobody_is_dealt_units_of_an_agent_that_he_refuses() {
    for refusing in ["f", "g", "h"] {
        let mut world = World::default();
        world.agent("a0", "cpu=6");
        world.framework(refusing, &[refusing], |info| info.demand = demand(refusing, 6, "cpu=1"));
        world.step();
        let offer = world.offers.keys().next().unwrap().clone();
        world.decline(&offer, 1_000_000);
        world.agent("a1", "cpu=6");
        for name in ["f", "g", "h"] {
            world.framework(name, &[name], |info| info.demand = demand(name, 4, "cpu=1"));
        }
        world.step();
        let offers: Vec<_> = world.offers.values().collect();
        let total: i64 = offers.iter().map(|offer| offer.resources.cpu_millis()).sum();
        assert_eq!(total, 12_000);
        for offer in offers {
            assert!(offer.framework != refusing || offer.agent != "a0", "{offer:?}");
        }
    }
}

#[test]
fn a_resource_of_the_operators_own_is_offered_and_limited() {
    let mut world = World::default();
    world.framework("f", &["q"], |info| info.demand = demand("q", 5, "cpu=1 example.com/fpga=1"));
    world.agent("plain", "cpu=8");
    assert_eq!(world.step().offers, []);
    world.queue("q", 1.0, "example.com/fpga=3");
    world.agent("a", "cpu=8 example.com/fpga=4");
    let plan = world.step();
    assert_eq!(*plan.offers.get(0).unwrap().resources, resources("cpu=3 example.com/fpga=3"));
}

#[test]
fn a_new_weight_has_whole_agents_shared_out_anew() {
    let mut world = World::default();
    for name in ["a", "b", "c"] {
        world.agent(name, "cpu=2");
    }
    world.framework("f", &["q"], |_| {});
    world.queue("q", 2.0, "");
    world.step();
    world.framework("g", &["r"], |_| {});
    assert_eq!(world.holders(), ["f@a", "f@b", "f@c"]);
    assert_eq!(world.step().rescind, [], "weights that the first plan found are not new");
    world.queue("q", 2.0, "");
    world.queue("nobody", 3.0, "");
    assert_eq!(world.step().rescind, [], "neither is the same again, nor one of nobody");
    world.queue("r", 4.0, "");
    let plan = world.step();
    let reasons: Vec<_> = plan.rescind.iter().map(|rescind| rescind.reason).collect();
    assert_eq!(reasons, [RescindReason::WeightChanged; 3]);
    let plan = world.step();
    let of_g = plan.offers.iter().filter(|offer| &*offer.to.framework.name == "g").count();
    assert_eq!((plan.offers.len(), of_g), (3, 2), "by the new weights");
    assert_eq!(world.step().rescind, []);
}

#[test]
fn nobody_is_dealt_more_offers_than_he_may_hold() {
    // Units of both frameworks lie on all agents; who may hold one offer only keeps to it, whatever is dealt.
    for most in 1..=3 {
        let mut world = World::default();
        for name in ["a0", "a1", "a2"] {
            world.agent(name, "cpu=6 memory=6Gi");
        }
        let two_sizes = |queue: &str| {
            let unit =
                |each: &str| Demand { queue: queue.to_owned(), count: 3, each: resources(each) };
            Some(vec![unit("cpu=1 memory=1Gi"), unit("cpu=2 memory=1Gi")])
        };
        world.framework("both", &["both"], |info| {
            info.demand = two_sizes("both");
            info.max_outstanding = most;
        });
        for name in ["f", "g"] {
            world.framework(name, &[name], |info| {
                info.demand = demand(name, 6, "cpu=1 memory=1Gi");
                info.max_outstanding = most;
            });
        }
        for _ in 0..3 {
            world.step();
            for name in ["both", "f", "g"] {
                let held = world.offers_of(name).len();
                assert!((1..=most).contains(&held), "{name} holds {held} of {most}");
            }
        }
    }
}
