//! The allocator over Mesos' own grid: agents by frameworks, refusals, suppression, thousands of
//! queues with quotas, a mixed load; and what one agent that is free again costs. Release, one
//! thread. `docs/performance.md` says what came out, and what must be touched at least.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;

use std::hint::black_box;
use std::time::{Duration, Instant};

use cluster::{Cluster, Shape};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const AGENTS: [usize; 3] = [1_000, 10_000, 50_000];
const FRAMEWORKS: [usize; 4] = [1, 200, 1_000, 6_000];

fn grid() -> impl Iterator<Item = (usize, usize)> {
    AGENTS.into_iter().flat_map(|agents| FRAMEWORKS.into_iter().map(move |f| (agents, f)))
}

/// Everything is free, and all of it is offered.
fn all_free(criterion: &mut Criterion) {
    let mut group = group(criterion, "offers");
    for (agents, frameworks) in grid() {
        let mut cluster = Cluster::new(agents, &Shape { frameworks, ..Shape::default() });
        let name = BenchmarkId::from_parameter(format!("{agents}x{frameworks}"));
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(cluster.full()).offers.len());
        });
    }
    group.finish();
}

/// Everything was offered in turn, and every framework has refused what it was offered.
fn all_declining(criterion: &mut Criterion) {
    let mut group = group(criterion, "declined");
    for (agents, frameworks) in grid() {
        let mut cluster = Cluster::new(agents, &Shape { frameworks, ..Shape::default() });
        for _ in 0..4 {
            cluster.decline_all();
        }
        let name = BenchmarkId::from_parameter(format!("{agents}x{frameworks}"));
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(cluster.full()).offers.len());
        });
    }
    group.finish();
}

/// 99 of 100 frameworks want nothing now.
fn suppressed(criterion: &mut Criterion) {
    let mut group = group(criterion, "suppressed");
    for (agents, frameworks) in grid() {
        let shape = Shape { frameworks, suppressed: true, ..Shape::default() };
        let mut cluster = Cluster::new(agents, &shape);
        let name = BenchmarkId::from_parameter(format!("{agents}x{frameworks}"));
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(cluster.full()).offers.len());
        });
    }
    group.finish();
}

/// A queue with a quota for each framework.
fn quotas(criterion: &mut Criterion) {
    let mut group = group(criterion, "quotas");
    for (agents, frameworks) in [(1_000, 3_000), (10_000, 3_000)] {
        let shape = Shape { frameworks, quotas: true, ..Shape::default() };
        let mut cluster = Cluster::new(agents, &shape);
        let name = BenchmarkId::from_parameter(format!("{agents}x{frameworks}"));
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(cluster.full()).offers.len());
        });
    }
    group.finish();
}

/// Nothing is free, and nothing has changed.
fn idle(criterion: &mut Criterion) {
    let mut group = group(criterion, "idle");
    for (agents, frameworks) in grid() {
        let mut cluster = Cluster::new(agents, &Shape { frameworks, ..Shape::default() });
        cluster.offer_all();
        let name = BenchmarkId::from_parameter(format!("{agents}x{frameworks}"));
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(cluster.plan()).offers.len());
        });
    }
    group.finish();
}

/// A thousand agents become free and are offered anew: time for one of them, of the plan alone.
fn freed(criterion: &mut Criterion) {
    let mut group = group(criterion, "freed");
    for (agents, frameworks) in [(10_000, 200), (50_000, 200), (50_000, 6_000)] {
        let mut cluster = Cluster::new(agents, &Shape { frameworks, ..Shape::default() });
        cluster.offer_all();
        let name = BenchmarkId::from_parameter(format!("{agents}x{frameworks}"));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds.div_ceil(1_000) {
                    cluster.free(1_000);
                    let started = Instant::now();
                    let plan = cluster.plan();
                    spent += started.elapsed();
                    assert_eq!(plan.offers.len(), 1_000);
                    cluster.apply(&plan);
                }
                spent.mul_f64(rounds as f64 / (rounds.div_ceil(1_000) * 1_000) as f64)
            });
        });
    }
    group.finish();
}

/// Waiting tasks find their agents.
fn placed(criterion: &mut Criterion) {
    let mut group = group(criterion, "placed");
    for (agents, tasks) in [(10_000, 40_000), (50_000, 100_000)] {
        let shape = Shape { frameworks: 200, placed: true, ..Shape::default() };
        let mut cluster = Cluster::new(agents, &shape);
        cluster.tasks(tasks);
        let name = BenchmarkId::from_parameter(format!("{tasks}on{agents}"));
        group.bench_function(name, |bencher| {
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
    criterion: &'a mut Criterion,
    name: &str,
) -> criterion::BenchmarkGroup<'a, criterion::measurement::WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(200));
    group.measurement_time(Duration::from_millis(600));
    group
}

criterion_group!(benches, all_free, all_declining, suppressed, quotas, idle, freed, placed);
criterion_main!(benches);
