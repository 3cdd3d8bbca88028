//! The allocator over Mesos' own grid: agents by frameworks, refusals, suppression, thousands of
//! queues with quotas, a mixed load; and what one agent that is free again costs. Release, one
//! thread, processor time. `docs/performance.md` says what came out, and what must be touched at
//! least.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;

use std::hint::black_box;
use std::time::Duration;

use cluster::clock::{self, ProcessorTime};
use cluster::{Cluster, Shape};
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};

/// What `cmn` uses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const AGENTS: [usize; 3] = [1_000, 10_000, 50_000];
const FRAMEWORKS: [usize; 4] = [1, 200, 1_000, 6_000];

fn grid() -> impl Iterator<Item = (usize, usize)> {
    AGENTS.into_iter().flat_map(|agents| FRAMEWORKS.into_iter().map(move |f| (agents, f)))
}

/// Measures looking at everything, in a cluster that is only made if it is asked for.
fn whole(
    group: &mut BenchmarkGroup<'_, ProcessorTime>,
    agents: usize,
    shape: &Shape,
    prepare: impl Fn(&mut Cluster),
) {
    let mut made = None;
    let name = BenchmarkId::from_parameter(format!("{agents}x{}", shape.frameworks));
    group.bench_function(name, |bencher| {
        let cluster = made.get_or_insert_with(|| {
            let mut cluster = Cluster::new(agents, shape);
            prepare(&mut cluster);
            cluster
        });
        bencher.iter(|| black_box(cluster.full()).offers.len());
    });
}

/// Everything is free, and all of it is offered.
fn all_free(criterion: &mut Criterion<ProcessorTime>) {
    let mut group = group(criterion, "offers");
    for (agents, frameworks) in grid() {
        whole(&mut group, agents, &Shape { frameworks, ..Shape::default() }, |_| ());
    }
    group.finish();
}

/// Everything was offered in turn, and every framework has refused what it was offered.
fn all_declining(criterion: &mut Criterion<ProcessorTime>) {
    let mut group = group(criterion, "declined");
    for (agents, frameworks) in grid() {
        whole(&mut group, agents, &Shape { frameworks, ..Shape::default() }, |cluster| {
            for _ in 0..4 {
                cluster.decline_all();
            }
        });
    }
    group.finish();
}

/// 99 of 100 frameworks want nothing now.
fn suppressed(criterion: &mut Criterion<ProcessorTime>) {
    let mut group = group(criterion, "suppressed");
    for (agents, frameworks) in grid() {
        let shape = Shape { frameworks, suppressed: true, ..Shape::default() };
        whole(&mut group, agents, &shape, |_| ());
    }
    group.finish();
}

/// A queue with a quota for each framework.
fn quotas(criterion: &mut Criterion<ProcessorTime>) {
    let mut group = group(criterion, "quotas");
    for (agents, frameworks) in [(1_000, 3_000), (10_000, 3_000)] {
        whole(&mut group, agents, &Shape { frameworks, quotas: true, ..Shape::default() }, |_| ());
    }
    group.finish();
}

/// Nothing is free, and nothing has changed.
fn idle(criterion: &mut Criterion<ProcessorTime>) {
    let mut group = group(criterion, "idle");
    for (agents, frameworks) in grid() {
        let mut made = None;
        let name = BenchmarkId::from_parameter(format!("{agents}x{frameworks}"));
        group.bench_function(name, |bencher| {
            let shape = Shape { frameworks, ..Shape::default() };
            let cluster = made.get_or_insert_with(|| Cluster::all_offered(agents, &shape));
            bencher.iter(|| black_box(cluster.plan()).offers.len());
        });
    }
    group.finish();
}

/// Some agents become free and are offered anew: time for one of them, of the plan alone. Beside
/// plain clusters there are those with a guarantee, with a reservation on one of the agents, and
/// with waiting tasks that fit nowhere.
fn freed(criterion: &mut Criterion<ProcessorTime>) {
    let mut group = group(criterion, "freed");
    let plain = |frameworks| Shape { frameworks, ..Shape::default() };
    let some = || plain(200);
    for (name, agents, shape, count) in [
        ("10000x200", 10_000, some(), 1_000),
        ("50000x200", 50_000, some(), 1_000),
        ("50000x6000", 50_000, plain(6_000), 1_000),
        ("50000x200single", 50_000, some(), 1),
        ("50000x6000single", 50_000, plain(6_000), 1),
        ("50000x200guarantee", 50_000, Shape { guarantee: true, ..some() }, 1),
        ("50000x200reservation", 50_000, Shape { reservation: true, ..some() }, 1),
        ("50000x200waiting", 50_000, Shape { waiting: 100, ..some() }, 1),
    ] {
        let mut made = None;
        group.bench_function(name, |bencher| {
            let cluster = made.get_or_insert_with(|| Cluster::all_offered(agents, &shape));
            bencher.iter_custom(|rounds| {
                let (mut spent, plans) = (0, rounds.div_ceil(count as u64));
                for _ in 0..plans {
                    cluster.free(count);
                    let started = clock::now();
                    let plan = cluster.plan();
                    spent += clock::now() - started;
                    assert!(plan.offers.len() >= count);
                    cluster.apply(&plan);
                }
                (spent as f64 * rounds as f64 / (plans as f64 * count as f64)) as u64
            });
        });
    }
    group.finish();
}

/// A framework that has accepted an offer says what more it could use, as each does after each: until it is offered that.
fn demanded(criterion: &mut Criterion<ProcessorTime>) {
    let mut group = group(criterion, "demanded");
    for agents in [10_000, 50_000] {
        let mut made = None;
        group.bench_function(BenchmarkId::from_parameter(format!("{agents}x200")), |bencher| {
            let cluster = made.get_or_insert_with(|| {
                let mut cluster =
                    Cluster::new(agents, &Shape { frameworks: 200, ..Shape::default() });
                (0..200).for_each(|framework| cluster.want(framework, 0));
                cluster.plan();
                cluster
            });
            bencher.iter_custom(|rounds| {
                let mut spent = 0;
                for round in 0..rounds {
                    let framework = round as usize % 200;
                    let started = clock::now();
                    cluster.want(framework, 10);
                    let plan = cluster.plan();
                    spent += clock::now() - started;
                    assert_eq!(plan.offers.len(), 1);
                    cluster.apply(&plan);
                    cluster.free(1);
                    cluster.want(framework, 0);
                    cluster.plan();
                }
                spent
            });
        });
    }
    group.finish();
}

/// What 50,000 agents take beside everything else, before and after all was offered: `cargo bench -p commonage-allocator -- memory`.
fn memory(_: &mut Criterion<ProcessorTime>) {
    const AGENTS: usize = 50_000;
    // Whatever is measured after it would be measured in memory that was used before.
    if !std::env::args().any(|asked| asked == "memory") {
        return;
    }
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let before = resident();
    let mut cluster = Cluster::new(AGENTS, &Shape { frameworks: 200, ..Shape::default() });
    let known = resident() - before;
    drop(cluster.full());
    let planned = resident() - before;
    println!("memory: {} B an agent, {} B after a full plan", known / AGENTS, planned / AGENTS);
}

/// Waiting tasks find their agents.
fn placed(criterion: &mut Criterion<ProcessorTime>) {
    let mut group = group(criterion, "placed");
    for (agents, tasks) in [(10_000, 40_000), (50_000, 100_000)] {
        let mut made = None;
        let name = BenchmarkId::from_parameter(format!("{tasks}on{agents}"));
        group.bench_function(name, |bencher| {
            let cluster = made.get_or_insert_with(|| {
                let shape = Shape { frameworks: 200, placed: true, ..Shape::default() };
                let mut cluster = Cluster::new(agents, &shape);
                cluster.tasks(tasks);
                cluster
            });
            bencher.iter(|| {
                let plan = black_box(cluster.full());
                assert_eq!(plan.bindings.len(), tasks);
            });
        });
    }
    let mut cluster = Cluster::new(1_000, &Shape { frameworks: 0, ..Shape::default() });
    let tasks = cluster.mixed_load();
    group.bench_function(format!("mixed{tasks}"), |bencher| {
        bencher.iter(|| black_box(cluster.full()).bindings.len());
    });
    group.finish();
}

fn group<'a>(
    criterion: &'a mut Criterion<ProcessorTime>,
    name: &str,
) -> BenchmarkGroup<'a, ProcessorTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(200));
    group.measurement_time(Duration::from_millis(600));
    group
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(ProcessorTime);
    targets = memory, all_free, all_declining, suppressed, quotas, idle, freed, demanded, placed
}
criterion_main!(benches);
