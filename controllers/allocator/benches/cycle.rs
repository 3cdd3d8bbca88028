//! A full cycle over a free cluster: every agent is offered, or every task placed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;

use commonage_allocator::{
    AgentInfo, Allocator, FrameworkInfo, ObjectKey, Placement, QueueInfo, TaskInfo,
};
use commonage_schemas::resources::Resources;
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};

const FRAMEWORKS: usize = 200;
const QUEUES: usize = 20;

fn resources(pairs: &[(&str, &str)]) -> Resources {
    Resources::from_pairs(pairs.iter().copied()).unwrap()
}

fn cluster(agents: usize, placement: Placement) -> Allocator {
    let mut allocator = Allocator::default();
    let allocatable =
        resources(&[("cpu", "24"), ("memory", "64Gi"), ("disk", "1Ti"), ("ports", "31000-32000")]);
    for agent in 0..agents {
        let info = AgentInfo { allocatable: allocatable.clone(), ..AgentInfo::default() };
        allocator.upsert_agent(&format!("agent-{agent}"), info);
    }
    for queue in 0..QUEUES {
        let weight = 1.0 + (queue % 3) as f64;
        let info = QueueInfo { weight, ..QueueInfo::default() };
        allocator.upsert_queue(&format!("team-{}.q-{queue}", queue % 4), &info);
    }
    for framework in 0..FRAMEWORKS {
        let queue = framework % QUEUES;
        let info = FrameworkInfo {
            queues: vec![format!("team-{}.q-{queue}", queue % 4)],
            placement,
            max_outstanding: usize::MAX,
            ..FrameworkInfo::default()
        };
        allocator.upsert_framework(&ObjectKey::new("ns", &format!("f-{framework}")), info);
    }
    allocator
}

/// Four equal tasks for each agent, over all frameworks.
fn with_tasks(mut allocator: Allocator, agents: usize) -> Allocator {
    let wants = resources(&[("cpu", "6"), ("memory", "8Gi")]);
    for task in 0..agents * 4 {
        let framework = task % FRAMEWORKS;
        let queue = framework % QUEUES;
        let info = TaskInfo {
            framework: format!("f-{framework}"),
            queue: format!("team-{}.q-{queue}", queue % 4),
            resources: wants.clone(),
            ..TaskInfo::default()
        };
        allocator.upsert_task(&ObjectKey::new("ns", &format!("t-{task}")), &info);
    }
    allocator
}

fn cycle(criterion: &mut Criterion) {
    for agents in [1_000, 10_000] {
        let mut offers = cluster(agents, Placement::Offers);
        let mut group = criterion.benchmark_group("offers");
        group.sample_size(20);
        group.bench_function(BenchmarkId::from_parameter(agents), |bencher| {
            bencher.iter(|| black_box(offers.plan(0, 1)).offers.len());
        });
        group.finish();
        let mut tasks = with_tasks(cluster(agents, Placement::Tasks), agents);
        let mut group = criterion.benchmark_group("tasks");
        group.sample_size(20);
        group.bench_function(BenchmarkId::from_parameter(agents * 4), |bencher| {
            bencher.iter(|| black_box(tasks.plan(0, 1)).bindings.len());
        });
        group.finish();
        let mut group = criterion.benchmark_group("idle");
        group.sample_size(20);
        let mut full = cluster(agents, Placement::Offers);
        let plan = full.plan(0, 1);
        for (number, offer) in plan.offers.iter().enumerate() {
            let info = commonage_allocator::OfferInfo {
                framework: offer.framework.name.to_string(),
                queue: offer.queue.to_string(),
                agent: offer.agent.to_string(),
                parts: Vec::new(),
                resources: offer.resources.clone(),
                expires_at_ms: Some(offer.expires_at_ms),
                answered: false,
            };
            full.upsert_offer(&ObjectKey::new("ns", &format!("o-{number}")), &info);
        }
        group.bench_function(BenchmarkId::from_parameter(agents), |bencher| {
            bencher.iter_batched(|| 1, |seed| full.plan(0, seed), BatchSize::SmallInput);
        });
        group.finish();
    }
}

criterion_group!(benches, cycle);
criterion_main!(benches);
