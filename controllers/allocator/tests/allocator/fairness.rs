//! Who gets how much.

use crate::world::{World, key, resources};

#[test]
fn queues_share_in_proportion_to_their_weights() {
    let mut world = World::default();
    world.agent("a", "cpu=30 memory=30Gi");
    world.queue("big", 2.0, "");
    world.queue("small", 1.0, "");
    world.placer("default", &["big", "small"]);
    world.tasks("b", 100, "default", "big", "cpu=1 memory=1Gi");
    world.tasks("s", 100, "default", "small", "cpu=1 memory=1Gi");
    let plan = world.step();
    assert_eq!(plan.bindings.len(), 30);
    assert_eq!((world.bound("big"), world.bound("small")), (20, 10));
}

#[test]
fn the_dominant_resource_counts() {
    // Ghodsi's example: 9 cpu and 18 GB; A wants <1 cpu, 4 GB>, B <3 cpu, 1 GB>: 3 and 2 tasks.
    let mut world = World::default();
    world.agent("a", "cpu=9 memory=18Gi");
    world.placer("default", &["a", "b"]);
    world.tasks("a", 100, "default", "a", "cpu=1 memory=4Gi");
    world.tasks("b", 100, "default", "b", "cpu=3 memory=1Gi");
    world.step();
    assert_eq!((world.bound("a"), world.bound("b")), (3, 2));
}

#[test]
fn a_subtree_shares_what_its_parent_gets() {
    let mut world = World::default();
    world.agent("a", "cpu=24");
    world.queue("eng.web", 3.0, "");
    world.placer("default", &["eng.web", "eng.batch", "ops"]);
    for queue in ["eng.web", "eng.batch", "ops"] {
        world.tasks(queue, 100, "default", queue, "cpu=1");
    }
    world.step();
    assert_eq!((world.bound("eng"), world.bound("ops")), (12, 12));
    assert_eq!((world.bound("eng.web"), world.bound("eng.batch")), (9, 3));
}

#[test]
fn frameworks_of_a_queue_with_children_compete_as_one_leaf_of_weight_one() {
    let mut world = World::default();
    world.agent("a", "cpu=12");
    world.queue("eng", 5.0, "");
    world.placer("x", &["eng"]);
    world.placer("y", &["eng"]);
    world.placer("z", &["eng.web"]);
    world.tasks("x", 20, "x", "eng", "cpu=1");
    world.tasks("y", 20, "y", "eng", "cpu=1");
    world.tasks("z", 20, "z", "eng.web", "cpu=1");
    world.step();
    assert_eq!(world.bound("eng.web"), 6);
    let of = |framework: &str| {
        let mine = world.tasks.values().filter(|task| task.framework == framework);
        mine.filter(|task| task.agent.is_some()).count()
    };
    assert_eq!((of("x"), of("y")), (3, 3));
}

#[test]
fn what_one_holds_already_counts() {
    let mut world = World::default();
    world.agent("a", "cpu=10");
    world.placer("default", &["a", "b"]);
    world.tasks("first", 6, "default", "a", "cpu=1");
    world.step();
    world.tasks("a", 10, "default", "a", "cpu=1");
    world.tasks("b", 10, "default", "b", "cpu=1");
    world.step();
    assert_eq!((world.bound("a"), world.bound("b")), (6, 4));
}

#[test]
fn what_a_queue_does_not_want_goes_to_the_others() {
    let mut world = World::default();
    world.agent("a", "cpu=10");
    world.queue("a", 9.0, "");
    world.placer("default", &["a", "b"]);
    world.tasks("a", 2, "default", "a", "cpu=1");
    world.tasks("b", 20, "default", "b", "cpu=1");
    world.step();
    assert_eq!((world.bound("a"), world.bound("b")), (2, 8));
}

#[test]
fn placed_tasks_and_offers_compete_step_by_step() {
    let mut world = World::default();
    for number in 0..4 {
        world.agent(&format!("a{number}"), "cpu=2");
    }
    world.placer("default", &["tasks"]);
    world.framework("spark", &["offers"], |_| {});
    world.tasks("t", 20, "default", "tasks", "cpu=1");
    world.step();
    assert_eq!(world.bound("tasks"), 4);
    assert_eq!(world.offers.len(), 2);
}

#[test]
fn a_limit_binds_at_every_level() {
    let mut world = World::default();
    world.agent("a", "cpu=30 memory=30Gi");
    world.queue("eng", 1.0, "cpu=10");
    world.queue("eng.web", 1.0, "cpu=4");
    world.queue("eng.batch", 1.0, "memory=2Gi");
    world.placer("default", &["eng.web", "eng.batch", "eng.other"]);
    for queue in ["eng.web", "eng.batch", "eng.other"] {
        world.tasks(queue, 20, "default", queue, "cpu=1 memory=1Gi");
    }
    let plan = world.step();
    assert_eq!(world.bound("eng.web"), 4);
    assert_eq!(world.bound("eng.batch"), 2);
    assert_eq!(world.bound("eng"), 10);
    let why = plan.why.iter().find(|(key, _)| key.name.starts_with("eng.web")).unwrap();
    assert_eq!(why.1.excluded[0].by, "queueLimit");
}

#[test]
fn a_lowered_limit_takes_offers_back() {
    let mut world = World::default();
    world.agent("a", "cpu=4");
    world.agent("b", "cpu=4");
    world.framework("f", &["q"], |_| {});
    world.step();
    assert_eq!(world.offers.len(), 2);
    world.queue("q", 1.0, "cpu=4");
    let plan = world.step();
    assert_eq!(plan.rescind.len(), 1);
    assert_eq!(world.step().offers, []);
    assert_eq!(world.offers.len(), 1);
}

#[test]
fn usage_tells_who_has_what() {
    let mut world = World::default();
    world.agent("a", "cpu=10 memory=10Gi");
    world.queue("eng.web", 2.0, "");
    world.placer("default", &["eng.web"]);
    world.framework("f", &["ops"], |info| info.max_outstanding = 0);
    world.tasks("t", 12, "default", "eng.web", "cpu=1 memory=512Mi");
    world.step();
    let usage = world.allocator.queue_usage();
    let eng = usage.iter().find(|usage| &*usage.queue == "eng").unwrap();
    assert_eq!(eng.allocated, resources("cpu=10 memory=5Gi"));
    assert_eq!(eng.dominant_resource.as_deref(), Some("cpu"));
    assert!((eng.dominant_share - 1.0).abs() < 1e-12);
    assert_eq!(eng.pending, 2);
    assert!(!eng.declared);
    let agent = world.allocator.agent_usage("a").unwrap();
    assert_eq!(agent.allocated, resources("cpu=10 memory=5Gi"));
    let framework = world.allocator.framework_usage(&key("default")).unwrap();
    assert_eq!(framework.pending, 2);
    assert_eq!(framework.allocated, agent.allocated);
}

/// Mesos' own `HierarchicalAllocatorTest.UnreservedDRF`: each new agent goes whole to the framework
/// with the smallest share in the queue with the smallest share.
#[test]
fn whole_agents_go_where_mesos_sends_them() {
    let mut world = World::default();
    let next_agent_goes_to = |world: &mut World, agent: &str, allocatable: &str| {
        world.agent(agent, allocatable);
        let plan = world.step();
        assert_eq!(plan.offers.len(), 1, "{agent}");
        plan.offers.get(0).unwrap().to.framework.name.to_string()
    };
    world.framework("f1", &["role1"], |_| {});
    assert_eq!(next_agent_goes_to(&mut world, "a1", "cpu=2 memory=1Gi"), "f1");
    world.framework("f2", &["role2"], |_| {});
    assert_eq!(next_agent_goes_to(&mut world, "a2", "cpu=1 memory=512Mi"), "f2");
    assert_eq!(next_agent_goes_to(&mut world, "a3", "cpu=3 memory=2Gi"), "f2");
    world.framework("f3", &["role1"], |_| {});
    assert_eq!(next_agent_goes_to(&mut world, "a4", "cpu=4 memory=4Gi"), "f3");
    world.framework("f4", &["role1"], |_| {});
    assert_eq!(next_agent_goes_to(&mut world, "a5", "cpu=1 memory=512Mi"), "f2");
}
