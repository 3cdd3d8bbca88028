//! Where tasks go, and why they wait.

use crate::world::{World, key, labels};
use commonage_allocator::{
    Availability, Excluded, Gang, Operator, Placement, Selector, TaskInfo, WaitingFor,
};

fn cluster(agents: usize, allocatable: &str) -> World {
    let mut world = World::default();
    for number in 0..agents {
        world.agent_with(&format!("a{number}"), allocatable, |info| {
            info.labels = labels(&format!("rack=r{} name=a{number}", number % 2));
        });
    }
    world.placer("default", &["default"]);
    world
}

fn task(world: &mut World, name: &str, wants: &str, with: impl FnOnce(&mut TaskInfo)) {
    world.task_with(name, "default", "default", wants, with);
}

#[test]
fn tasks_are_packed() {
    let mut world = cluster(4, "cpu=4");
    world.tasks("t", 2, "default", "default", "cpu=1");
    world.step();
    world.seed = 7;
    world.tasks("u", 2, "default", "default", "cpu=1");
    world.step();
    let first = world.agent_of("t-0").map(ToOwned::to_owned);
    assert!(world.tasks.values().all(|task| task.agent == first));
}

#[test]
fn gpus_are_kept_for_those_that_need_them() {
    let mut world = cluster(1, "cpu=4");
    world.agent("gpu", "cpu=4 gpu=1");
    task(&mut world, "plain", "cpu=1", |_| {});
    task(&mut world, "gpu", "cpu=1 gpu=1", |_| {});
    world.step();
    assert_eq!(world.agent_of("plain"), Some("a0"));
    assert_eq!(world.agent_of("gpu"), Some("gpu"));
}

#[test]
fn spread_tasks_go_to_all_values_alike() {
    let mut world = cluster(6, "cpu=8");
    for number in 0..6 {
        task(&mut world, &format!("t{number}"), "cpu=1", |task| {
            task.spread = Some("rack".to_owned());
        });
    }
    world.step();
    let mut agents: Vec<_> = world.tasks.values().filter_map(|task| task.agent.clone()).collect();
    agents.sort();
    agents.dedup();
    assert_eq!(agents.len(), 6, "and inside a value to all agents alike");
    world.agent_with("a7", "cpu=8", |info| info.labels = labels("rack=new"));
    task(&mut world, "next", "cpu=1", |task| task.spread = Some("rack".to_owned()));
    world.step();
    assert_eq!(world.agent_of("next"), Some("a7"));
}

#[test]
fn constraints_are_kept_and_preferences_where_possible() {
    let mut world = cluster(2, "cpu=2");
    let only = |task: &mut TaskInfo| task.required = Selector::labels([("rack", "r1")]);
    let rather = |task: &mut TaskInfo| {
        task.preferred = Selector::default().and("rack", Operator::In, ["r0"]);
    };
    for number in 0..3 {
        task(&mut world, &format!("only{number}"), "cpu=1", only);
        task(&mut world, &format!("rather{number}"), "cpu=500m", rather);
    }
    let plan = world.step();
    assert_eq!(world.agent_of("only0"), Some("a1"));
    assert_eq!(world.agent_of("only1"), Some("a1"));
    assert_eq!(world.agent_of("only2"), None);
    for number in 0..3 {
        assert_eq!(world.agent_of(&format!("rather{number}")), Some("a0"));
    }
    let (waiting, why) = &plan.why[0];
    assert_eq!(waiting, &key("only2"));
    assert_eq!(why.waiting_for, WaitingFor::Resources);
    assert_eq!(why.agents, 2);
    let by = |by: &str| Excluded { by: by.to_owned(), agents: 1 };
    assert_eq!(why.excluded, [by("constraints"), by("cpu")]);
}

#[test]
fn antiaffinity_keeps_apart() {
    let mut world = cluster(3, "cpu=8");
    for number in 0..4 {
        task(&mut world, &format!("t{number}"), "cpu=1", |task| {
            task.labels = labels("app=db");
            task.anti_affinity = Some(Selector::labels([("app", "db")]));
        });
    }
    let plan = world.step();
    assert_eq!(world.bound("default"), 3);
    assert_eq!(plan.why[0].1.excluded, [Excluded { by: "antiAffinity".to_owned(), agents: 3 }]);
    let plan = world.step();
    assert_eq!(plan.bindings, []);
}

#[test]
fn a_group_goes_to_one_agent() {
    let mut world = cluster(2, "cpu=3");
    world.tasks("filler", 1, "default", "default", "cpu=2");
    world.step();
    for number in 0..2 {
        task(&mut world, &format!("g{number}"), "cpu=1", |task| {
            task.group = Some("pod".to_owned())
        });
    }
    world.step();
    assert_ne!(world.agent_of("g0"), world.agent_of("filler-0"));
    assert_eq!(world.agent_of("g0"), world.agent_of("g1"));
    for number in 2..4 {
        task(&mut world, &format!("g{number}"), "cpu=1", |task| {
            task.group = Some("pod".to_owned())
        });
    }
    let plan = world.step();
    assert_eq!(plan.bindings, [], "those that come later go there too, together");
    assert_eq!(plan.why.len(), 2);
    world.finish(&key("g3"));
    world.step();
    assert_eq!(world.agent_of("g2"), world.agent_of("g0"));
}

#[test]
fn a_gang_is_placed_whole_or_not_at_all() {
    let mut world = cluster(2, "cpu=3 ports=1-9");
    let gang = |task: &mut TaskInfo| {
        task.gang = Some(Gang { name: "mpi".to_owned(), size: 4 });
        task.host_ports = vec![0];
        task.priority = 1;
    };
    for number in 0..3 {
        task(&mut world, &format!("m{number}"), "cpu=2", gang);
    }
    task(&mut world, "single", "cpu=1", |_| {});
    let plan = world.step();
    assert_eq!(plan.bindings.len(), 1, "the single one is not held up");
    assert_eq!(plan.why[0].1.waiting_for, WaitingFor::Gang);
    task(&mut world, "m3", "cpu=2", gang);
    let plan = world.step();
    assert_eq!(plan.bindings, []);
    assert_eq!(plan.why.len(), 4);
    assert_eq!(plan.why[0].1.waiting_for, WaitingFor::Resources);
    world.agent("a2", "cpu=2 ports=1-9");
    assert_eq!(world.step().bindings, []);
    world.agent("a3", "cpu=2 ports=1-9");
    world.finish(&key("single"));
    let plan = world.step();
    assert_eq!(plan.bindings.len(), 4);
    assert!(plan.bindings.iter().all(|binding| binding.host_ports.len() == 1));
}

#[test]
fn a_gang_that_fails_leaves_no_trace() {
    for spread in [None, Some("rack".to_owned())] {
        let mut world = cluster(2, "cpu=2");
        world.queue("default", 1.0, "cpu=4");
        for number in 0..5 {
            task(&mut world, &format!("m{number}"), "cpu=1", |task| {
                task.gang = Some(Gang { name: "mpi".to_owned(), size: 5 });
                task.spread.clone_from(&spread);
                task.priority = 1;
            });
            // Of the same shape: the search for it must be where it was.
            let single = format!("t-{number}");
            task(&mut world, &single, "cpu=1", |task| task.spread.clone_from(&spread));
        }
        let plan = world.step();
        assert_eq!(plan.bindings.len(), 4);
        assert!(plan.bindings.iter().all(|binding| binding.task.name.starts_with("t-")));
    }
}

#[test]
fn priority_then_age_decides_inside_a_queue() {
    let mut world = cluster(1, "cpu=2");
    task(&mut world, "young", "cpu=1", |task| task.created_ms = 20);
    task(&mut world, "old", "cpu=1", |task| task.created_ms = 10);
    task(&mut world, "urgent", "cpu=1", |task| {
        task.created_ms = 30;
        task.priority = 5;
    });
    let plan = world.step();
    let order: Vec<_> = plan.bindings.iter().map(|binding| &*binding.task.name).collect();
    assert_eq!(order, ["urgent", "old"]);
}

#[test]
fn ports_are_picked_and_named_ones_kept() {
    let mut world = cluster(1, "cpu=8 ports=31000-31003,80");
    task(&mut world, "web", "cpu=1", |task| task.host_ports = vec![0, 80, 0]);
    let plan = world.step();
    assert_eq!(plan.bindings[0].host_ports, [31000, 31001]);
    task(&mut world, "other", "cpu=1", |task| task.host_ports = vec![80]);
    task(&mut world, "claims", "cpu=1 ports=31002", |_| {});
    task(&mut world, "greedy", "cpu=1", |task| task.host_ports = vec![0, 0]);
    let plan = world.step();
    assert_eq!(world.agent_of("claims"), Some("a0"));
    assert_eq!(plan.why.len(), 2);
    for (_, why) in &plan.why {
        assert_eq!(why.excluded, [Excluded { by: "ports".to_owned(), agents: 1 }]);
    }
    world.finish(&key("web"));
    world.step();
    assert_eq!(world.bound("default"), 3);
}

#[test]
fn sets_are_given_out_by_name() {
    let mut world = cluster(1, "cpu=8 example.com/keys={a,b}");
    task(&mut world, "one", "cpu=1 example.com/keys={a}", |_| {});
    task(&mut world, "two", "cpu=1 example.com/keys={a}", |_| {});
    let plan = world.step();
    assert_eq!(world.bound("default"), 1);
    assert_eq!(plan.why[0].1.excluded[0].by, "example.com/keys");
}

#[test]
fn why_tells_every_reason_once() {
    let mut world = cluster(2, "cpu=2");
    for (name, availability) in [
        ("cordoned", Availability::Unschedulable),
        ("full", Availability::DiskPressure),
        ("drained", Availability::Draining),
        ("lost", Availability::NotReady),
    ] {
        world.agent_with(name, "cpu=9", |info| info.availability = availability);
    }
    world.agent("held", "cpu=4");
    world.framework("f", &["q"], |info| info.agents = Selector::labels([("no", "where")]));
    world.step();
    world.framework("f", &["q"], |info| {
        info.agents = Selector::default().and("rack", Operator::DoesNotExist, ["x"; 0]);
    });
    world.step();
    assert_eq!(world.holders(), ["f@held"]);
    task(&mut world, "t", "cpu=3", |_| {});
    let plan = world.step();
    let mut reasons: Vec<_> =
        plan.why[0].1.excluded.iter().map(|excluded| (&*excluded.by, excluded.agents)).collect();
    reasons.sort_unstable();
    assert_eq!(
        reasons,
        [
            ("cpu", 2),
            ("diskPressure", 1),
            ("draining", 1),
            ("notReady", 1),
            ("offered", 1),
            ("unschedulable", 1)
        ]
    );
    assert_eq!(plan.why[0].1.agents, 7);
}

#[test]
fn tasks_without_a_scheduler_wait_for_it() {
    let mut world = cluster(1, "cpu=2");
    world.framework("own", &["default"], |info| info.max_outstanding = 0);
    world.framework("away", &["default"], |info| {
        info.placement = Placement::Tasks;
        info.active = false;
    });
    for framework in ["own", "away", "nobody"] {
        world.task(framework, framework, "default", "cpu=1");
    }
    let plan = world.step();
    assert_eq!(plan.bindings, []);
    let why = |name: &str| {
        let found = plan.why.iter().find(|(task, _)| *task == key(name));
        found.unwrap().1.waiting_for
    };
    assert_eq!(why("own"), WaitingFor::Launch);
    assert_eq!(why("away"), WaitingFor::ActiveFramework);
    assert_eq!(why("nobody"), WaitingFor::Framework);
}

#[test]
fn a_task_that_wants_what_nobody_has_waits_until_somebody_does() {
    let mut world = cluster(1, "cpu=2");
    task(&mut world, "t", "cpu=1 example.com/fpga=1", |_| {});
    let plan = world.step();
    assert_eq!(plan.why[0].1.excluded[0].by, "example.com/fpga");
    world.agent("f", "cpu=1 example.com/fpga=1");
    world.step();
    assert_eq!(world.agent_of("t"), Some("f"));
}

#[test]
fn a_task_that_wants_nothing_fits_a_full_agent() {
    let mut world = cluster(1, "cpu=1");
    world.tasks("t", 1, "default", "default", "cpu=1");
    world.step();
    task(&mut world, "nothing", "", |_| {});
    world.step();
    assert_eq!(world.agent_of("nothing"), Some("a0"));
}

#[test]
fn another_task_of_the_name_is_another_task() {
    let mut world = cluster(1, "cpu=1");
    task(&mut world, "t", "cpu=1", |_| {});
    let before = world.tasks[&key("t")].clone();
    world.step();
    assert_eq!(world.step().bindings, []);
    let again = TaskInfo { uid: "another".into(), ..before };
    world.allocator.upsert_task(&key("t"), &again);
    world.tasks.insert(key("t"), again);
    assert_eq!(world.step().bindings.len(), 1);
}

#[test]
fn what_no_agent_has_is_named_before_what_others_hold() {
    let mut world = World::default();
    world.agent("a", "cpu=4 ports=31000-32000");
    world.framework("f", &["x"], |_| {});
    world.placer("default", &["q"]);
    world.step();
    assert_eq!(world.holders(), ["f@a"]);
    world.task_with("ssh", "default", "q", "cpu=1", |task| task.host_ports = vec![22]);
    world.task("huge", "default", "q", "cpu=5");
    world.task("small", "default", "q", "cpu=1");
    let plan = world.step();
    let by = |name: &str| {
        let found = plan.why.iter().find(|(task, _)| *task == key(name));
        found.map(|(_, why)| why.excluded[0].by.clone()).unwrap()
    };
    assert_eq!(by("ssh"), "ports");
    assert_eq!(by("huge"), "cpu");
    assert_eq!(by("small"), "offered");
}

#[test]
fn an_invented_queue_gives_nothing() {
    let mut world = World::default();
    world.agent("a", "cpu=4");
    world.queue("q", 1.0, "cpu=1");
    world.placer("default", &["q"]);
    world.tasks("real", 4, "default", "q", "cpu=1");
    world.task("sly", "default", "elsewhere", "cpu=1");
    let plan = world.step();
    assert_eq!(plan.bindings.len(), 1);
    let sly = plan.why.iter().find(|(task, _)| *task == key("sly")).unwrap();
    assert_eq!(sly.1.waiting_for, WaitingFor::Queue);
    world.placer("default", &["q", "elsewhere"]);
    world.step();
    assert_eq!(world.agent_of("sly"), Some("a"));
}

#[test]
fn what_was_bound_and_waits_again_is_placed_again() {
    let mut world = cluster(1, "cpu=2");
    task(&mut world, "t", "cpu=2", |_| {});
    world.step();
    assert_eq!(world.agent_of("t"), Some("a0"));
    // As after a restore of the store to a state before the binding.
    let waiting = TaskInfo { agent: None, ..world.tasks[&key("t")].clone() };
    world.allocator.upsert_task(&key("t"), &waiting);
    world.tasks.insert(key("t"), waiting);
    world.step();
    assert_eq!(world.agent_of("t"), Some("a0"));
}
