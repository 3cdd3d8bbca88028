//! Tasks on what is reserved for their queue, and on what is lent.

use commonage_allocator::{AgentInfo, Demand, Gang, Kind, Part, TaskInfo};

use crate::world::{World, resources};

fn reserved(queue: &str, what: &str) -> Part {
    let kind = Kind { reserved: vec![queue.to_owned()], ..Kind::default() };
    Part { kind, resources: resources(what) }
}

fn lent(what: &str) -> Part {
    Part { kind: Kind { revocable: true, ..Kind::default() }, resources: resources(what) }
}

/// An agent with parts, and a framework in two queues.
fn cluster(plain: &str, parts: Vec<Part>) -> World {
    let mut world = World::default();
    world.placer("f", &["q", "q.below", "other"]);
    world.agent_with("a", plain, |info| info.parts = parts);
    world
}

fn again(world: &mut World, name: &str, change: impl FnOnce(&mut AgentInfo)) {
    let mut info = world.agents[name].clone();
    change(&mut info);
    world.allocator.upsert_agent(name, info.clone());
    world.agents.insert(name.to_owned(), info);
}

/// What a task took, as `plain + owner: part`.
fn took(world: &World, name: &str) -> String {
    let task = &world.tasks[&crate::world::key(name)];
    if task.agent.is_none() {
        return "waits".to_owned();
    }
    let mut text = task.resources.to_string();
    for part in &task.parts {
        let owner = part.kind.reserved.last().map_or("lent", String::as_str);
        text += &format!(" + {owner}: {}", part.resources);
    }
    text
}

fn number(world: &World, name: &str) -> [i64; 2] {
    let task: &TaskInfo = &world.tasks[&crate::world::key(name)];
    let parts = task.parts.iter().map(|part| part.resources.cpu_millis() / 1000).sum();
    [task.resources.cpu_millis() / 1000, parts]
}

#[test]
fn what_is_reserved_goes_first_and_to_nobody_else() {
    let mut world = cluster("cpu=2", vec![reserved("q", "cpu=3")]);
    world.task("stranger", "f", "other", "cpu=3");
    world.task("mine", "f", "q", "cpu=2");
    world.task("below", "f", "q.below", "cpu=2");
    world.step();
    assert_eq!(took(&world, "stranger"), "waits");
    assert_eq!(number(&world, "mine"), [0, 2]);
    assert_eq!(number(&world, "below"), [1, 1], "the rest is plain");
    let usage = world.allocator.agent_usage("a").unwrap();
    assert_eq!((usage.allocated.cpu_millis(), usage.free.cpu_millis()), (4000, 1000));
}

#[test]
fn a_limit_counts_what_is_reserved_once() {
    let mut world = cluster("cpu=4", vec![reserved("q", "cpu=2")]);
    world.queue("q", 1.0, "cpu=3");
    world.tasks("t", 5, "f", "q", "cpu=1");
    world.step();
    assert_eq!(world.bound("q"), 3);
    world.step();
    assert_eq!(world.bound("q"), 3);
}

#[test]
fn groups_and_gangs_go_to_what_is_reserved_too() {
    let mut world = cluster("cpu=1", vec![reserved("q", "cpu=4")]);
    for name in ["one", "two"] {
        world.task_with(name, "f", "q", "cpu=1", |task| task.group = Some("g".to_owned()));
    }
    for name in ["three", "four", "five"] {
        world.task_with(name, "f", "q", "cpu=1", |task| {
            task.gang = Some(Gang { name: "all".to_owned(), size: 3 });
        });
    }
    world.step();
    let parts: i64 =
        ["one", "two", "three", "four", "five"].map(|t| number(&world, t)[1]).iter().sum();
    assert_eq!((world.bound("q"), parts), (5, 4));
}

#[test]
fn a_gang_that_does_not_fit_leaves_what_is_reserved_to_others() {
    let mut world = cluster("cpu=1", vec![reserved("q", "cpu=2")]);
    for name in ["g0", "g1", "g2", "g3"] {
        world.task_with(name, "f", "q", "cpu=1", |task| {
            (task.gang, task.priority) = (Some(Gang { name: "all".to_owned(), size: 4 }), 1);
        });
    }
    world.tasks("t", 3, "f", "q", "cpu=1");
    world.step();
    assert_eq!(took(&world, "g0"), "waits");
    assert_eq!(world.bound("q"), 3);
}

#[test]
fn ports_are_taken_out_of_what_is_reserved() {
    let parts = vec![reserved("q", "cpu=2 ports=31000-31001")];
    let mut world = cluster("cpu=2 ports=32000-32001", parts);
    world.task_with("named", "f", "q", "cpu=1", |task| task.host_ports = vec![31001]);
    world.task_with("open", "f", "q", "cpu=1", |task| task.host_ports = vec![0, 0]);
    world.task_with("stranger", "f", "other", "cpu=1", |task| task.host_ports = vec![31000]);
    world.step();
    let ports = |name: &str| {
        let task = &world.tasks[&crate::world::key(name)];
        let parts = task.parts.iter().map(|part| crate::world::ports(&part.resources));
        (task.host_ports.clone(), parts.collect::<Vec<_>>())
    };
    assert_eq!(ports("named"), (vec![], vec!["31001".to_owned()]));
    assert_eq!(ports("open"), (vec![32000], vec!["31000".to_owned()]));
    assert_eq!(took(&world, "stranger"), "waits");
}

#[test]
fn what_is_lent_is_for_those_who_may_be_killed_and_counts_towards_no_limit() {
    let mut world = cluster("cpu=1", vec![lent("cpu=2")]);
    world.queue("q", 1.0, "cpu=1");
    world.task("firm", "f", "q", "cpu=1");
    world.task("too-much", "f", "other", "cpu=2");
    for name in ["r0", "r1", "r2"] {
        world.task_with(name, "f", "q", "cpu=1", |task| task.revocable = true);
    }
    world.step();
    assert_eq!(number(&world, "firm"), [1, 0]);
    assert_eq!(took(&world, "too-much"), "waits");
    assert_eq!((number(&world, "r0"), number(&world, "r1")), ([0, 1], [0, 1]));
    assert_eq!(took(&world, "r2"), "waits");
    // More is lent: the one that waits gets it.
    again(&mut world, "a", |info| info.parts = vec![lent("cpu=3")]);
    world.step();
    assert_eq!(number(&world, "r2"), [0, 1]);
}

#[test]
fn what_is_to_be_set_aside_is_not_what_is_set_aside_already() {
    let mut world = cluster("cpu=2", vec![reserved("q", "cpu=2")]);
    world.task_with("more", "f", "q", "cpu=2", |task| task.only_plain = true);
    world.step();
    assert_eq!(number(&world, "more"), [2, 0]);
    world.task_with("yet-more", "f", "q", "cpu=2", |task| task.only_plain = true);
    let plan = world.step();
    assert_eq!(took(&world, "yet-more"), "waits");
    assert_eq!(plan.why[0].1.excluded[0].by, "cpu");
}

#[test]
fn declared_demand_is_served_out_of_what_is_reserved_first() {
    let mut world = World::default();
    world.agent_with("a", "cpu=4 ports=32000-32009", |info| {
        let mut volume = reserved("q", "disk=5Gi");
        volume.kind.volume = Some("ns/data".to_owned());
        info.parts = vec![reserved("q", "cpu=3 ports=31000-31001"), volume];
    });
    let demand = |count: u64, queue: &str| {
        let queue = queue.to_owned();
        Some(vec![Demand { queue, count, each: resources("cpu=1 ports=1") }])
    };
    world.framework("stranger", &["other"], |info| info.demand = demand(1, "other"));
    world.framework("f", &["q"], |info| info.demand = demand(4, "q"));
    world.step();
    let told = |world: &World, framework: &str| {
        let offers = world.offers_of(framework);
        let sums = offers.iter().map(|offer| {
            let offer = &world.offers[offer];
            let parts = offer.parts.iter().map(|part| part.resources.to_string());
            (offer.resources.to_string(), parts.collect::<Vec<_>>().join(" and "))
        });
        sums.collect::<Vec<_>>()
    };
    let [mine] = &told(&world, "f")[..] else { panic!("{:?}", told(&world, "f")) };
    assert!(mine.1.contains("31000-31001") && mine.1.contains("5Gi"), "{mine:?}");
    let offer = &world.offers[&world.offers_of("f")[0]];
    let reserved: i64 = offer.parts.iter().map(|part| part.resources.cpu_millis()).sum();
    assert_eq!(
        (reserved, offer.resources.cpu_millis()),
        (2000, 2000),
        "two units have ports there"
    );
    let [theirs] = &told(&world, "stranger")[..] else { panic!() };
    assert_eq!(theirs.1, "");
    assert!(world.step().offers.is_empty(), "all of the demand is offered");
}

#[test]
fn nobody_is_killed_for_what_goes_back_to_a_reservation() {
    let mut world = cluster("cpu=1", vec![reserved("q", "cpu=2")]);
    world.task("on-reserved", "f", "q", "cpu=2");
    world.step();
    world.task_with("high", "f", "other", "cpu=2", |task| task.priority = 9);
    let plan = world.step();
    assert!(plan.preempt.is_empty(), "its end would free nothing for others: {:?}", plan.preempt);
    assert_eq!(took(&world, "high"), "waits");
}

#[test]
fn reserved_ports_that_wait_are_explained() {
    let mut world = cluster("cpu=2", vec![reserved("other", "cpu=1 ports=31000-31001")]);
    world.task_with("t", "f", "q", "cpu=1", |task| task.host_ports = vec![31000]);
    let plan = world.step();
    let why = &plan.why[0].1;
    assert_eq!((why.excluded[0].by.as_str(), &why.no_such_ports), ("ports", &None));
}

#[test]
fn what_is_reserved_counts_when_others_are_killed_for_the_rest() {
    let mut world = cluster("cpu=2", vec![reserved("q", "cpu=2")]);
    world.task("low", "f", "other", "cpu=2");
    world.step();
    world.task_with("vip", "f", "q", "cpu=5", |task| task.priority = 5);
    assert_eq!(world.step().preempt.len(), 0, "it would not fit all the same");
    world.finish(&crate::world::key("vip"));
    world.task_with("vip", "f", "q", "cpu=3", |task| task.priority = 5);
    assert_eq!(world.step().preempt.len(), 1);
    assert_eq!(world.step().preempt.len(), 0, "once is enough");
    world.bury();
    world.step();
    assert_eq!(number(&world, "vip"), [1, 2]);
}

#[test]
fn what_is_reserved_comes_back_when_its_holder_is_killed() {
    let mut world = cluster("memory=1Gi", vec![reserved("q", "cpu=2")]);
    world.task("low", "f", "q", "cpu=2");
    world.step();
    assert_eq!(number(&world, "low"), [0, 2]);
    world.task_with("stranger", "f", "other", "cpu=2", |task| task.priority = 5);
    assert_eq!(world.step().preempt.len(), 0, "it is not for others");
    world.task_with("vip", "f", "q.below", "cpu=2", |task| task.priority = 5);
    assert_eq!(world.step().preempt.len(), 1);
    assert_eq!(world.step().preempt.len(), 0, "once is enough");
    world.bury();
    world.step();
    assert_eq!(number(&world, "vip"), [0, 2]);
    assert_eq!(took(&world, "stranger"), "waits");
}

#[test]
fn an_offer_of_what_is_reserved_makes_way_for_a_task_of_the_queue() {
    let mut world = cluster("cpu=1", vec![reserved("q", "cpu=2")]);
    world.framework("silent", &["q"], |_| {});
    world.step();
    assert_eq!(world.holders(), ["silent@a"]);
    world.task("mine", "f", "q.below", "cpu=3");
    assert_eq!(world.step().rescind.len(), 0, "it may answer yet");
    world.now_ms = 1_000;
    assert_eq!(world.step().rescind.len(), 1);
    world.step();
    assert_eq!(number(&world, "mine"), [1, 2]);
}
