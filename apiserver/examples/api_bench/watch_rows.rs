//! The rows of the table in which somebody watches.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use crate::kind;
use crate::load::{self, Outcome, Pressure, percentile};
use crate::report::Figure;
use crate::rows::{NAMESPACE, agent_name, creates};
use crate::target::{Cpu, Kind, Target};
use crate::watches::{self, Watchers};

pub(crate) const NAMES: [&str; 4] = ["watch-100", "watch-1000", "both", "agents"];

/// Events that have not come by then are lost.
const ARRIVE_WITHIN: Duration = Duration::from_secs(10);
const TIMED: usize = 2;

pub(crate) async fn run(row: &str, target: &Target) -> anyhow::Result<Figure> {
    match row {
        "watch-100" => fan_out("watch-100", target, 100).await,
        "watch-1000" => fan_out("watch-1000", target, 1000).await,
        "both" => both(target).await,
        "agents" => agents(target).await,
        row => anyhow::bail!("there is no row {row}"),
    }
}

async fn watchers_of_all(target: &Target, count: usize) -> anyhow::Result<Watchers> {
    let server = target.server();
    let version = kind::version(server, NAMESPACE).await?;
    let path = format!("{}?watch=true&resourceVersion={version}", kind::collection(NAMESPACE));
    watches::apart(server, &path, count, TIMED).await
}

/// Load and what the watchers saw of it.
struct Watched {
    done: Outcome,
    events: u64,
    lost: u64,
    /// Until the last event had come.
    seconds: f64,
    /// Until then, for each event.
    each_event: Cpu,
    /// The same for each write.
    each_write: Cpu,
    latencies_us: Vec<u32>,
    bytes_per_event: f64,
}

impl Watched {
    fn events_per_second(&self) -> f64 {
        self.events as f64 / self.seconds
    }
}

/// `each`: events that every operation is to cause.
async fn watched(
    target: &Target,
    watchers: &Watchers,
    pressure: Pressure,
    agents: u64,
    each: u64,
) -> anyhow::Result<Watched> {
    let seen = &watchers.seen;
    let (events, bytes) = (seen.events.load(Relaxed), seen.bytes.load(Relaxed));
    seen.latencies_us();
    let (started, before) = (Instant::now(), target.cpu());
    let done = load::run(target, pressure, creates(agents)).await?;
    let expected = done.operations * each;
    seen.all(events + expected, ARRIVE_WITHIN).await;
    let seconds = started.elapsed().as_secs_f64();
    let after = target.cpu();
    let arrived = seen.events.load(Relaxed) - events;
    Ok(Watched {
        events: arrived,
        lost: expected.saturating_sub(arrived),
        seconds,
        each_event: after.since(before, arrived),
        each_write: after.since(before, done.operations),
        latencies_us: seen.latencies_us(),
        done,
        bytes_per_event: (seen.bytes.load(Relaxed) - bytes) as f64 / arrived.max(1) as f64,
    })
}

/// 32 connections create as fast as they can; each create is an event for every watcher.
async fn fan_out(row: &'static str, target: &Target, count: usize) -> anyhow::Result<Figure> {
    let watchers = watchers_of_all(target, count).await?;
    let pressure = Pressure { connections: 32, time: Duration::from_secs(5), pace: None };
    let seen = watched(target, &watchers, pressure, 1, count as u64).await?;
    anyhow::ensure!(seen.lost == 0, "{} events did not come", seen.lost);
    let value = (seen.events_per_second(), "events/s");
    Ok(Figure::new(row, target, format!("watch events, {count} watchers"), value)
        .beside("≥ 3,000,000", "84,000–91,000")
        .cost(target, seen.each_event)
        .and("creates/s", seen.done.per_second)
        .and("bytes/event", seen.bytes_per_event)
        .and("watch p50 ms", percentile(&seen.latencies_us, 50) / 1e3))
}

/// 64 writers at the pace that is aimed at, and 100 watchers.
async fn both(target: &Target) -> anyhow::Result<Figure> {
    const WRITES_PER_SECOND: f64 = 10_000.0;
    let watchers = watchers_of_all(target, 100).await?;
    let pace = target.is_ours().then_some(WRITES_PER_SECOND);
    let pressure = Pressure { connections: 64, time: Duration::from_secs(8), pace };
    let seen = watched(target, &watchers, pressure, 1, 100).await?;
    anyhow::ensure!(seen.lost == 0, "{} events did not come", seen.lost);
    let value = (seen.done.per_second, "writes/s");
    Ok(Figure::new("both", target, "64 writers at 10,000/s, 100 watchers", value)
        .beside("10,000", "–")
        .cost(target, seen.each_write)
        .and("events/s (aim 1,000,000)", seen.events_per_second())
        .and("write p50 ms (aim 1.6)", seen.done.latency_ms(50))
        .and("watch p50 ms (aim 3.2)", percentile(&seen.latencies_us, 50) / 1e3)
        .and("write p99 ms", seen.done.latency_ms(99))
        .and("watch p99 ms", percentile(&seen.latencies_us, 99) / 1e3))
}

/// Many watchers, each of its own `spec.agent`, of which every write concerns one. The same with few
/// of them shows whether their number costs anything.
async fn agents(target: &Target) -> anyhow::Result<Figure> {
    // A server for which this is too much would only say so.
    let (many, few, pace) = match target.kind {
        Kind::Foreign => (2_000, 100, 300.0),
        _ => (50_000, 500, 5_000.0),
    };
    let server = target.server();
    let version = kind::version(server, NAMESPACE).await?;
    let path = |number: usize| {
        let (collection, agent) = (kind::collection(NAMESPACE), agent_name(number));
        format!(
            "{collection}?watch=true&resourceVersion={version}&fieldSelector=spec.agent%3D{agent}"
        )
    };
    let pressure = |seconds| Pressure {
        connections: 32,
        time: Duration::from_secs(seconds),
        pace: Some(pace),
    };
    let with_few = {
        let watchers = watches::together(server, path, few).await?;
        watched(target, &watchers, pressure(4), few as u64, 1).await?
    };
    let resident = target.resident_bytes();
    let watchers = watches::together(server, path, many).await?;
    let resident = (target.resident_bytes() - resident).max(0.0) / many as f64;
    let seen = watched(target, &watchers, pressure(8), many as u64, 1).await?;
    let value = (percentile(&seen.latencies_us, 99) / 1e3, "ms");
    Ok(Figure::new("agents", target, format!("{many} watchers of their own, p99"), value)
        .beside("≤ 50", "–")
        .cost(target, seen.done.cpu)
        .and("writes/s", seen.done.per_second)
        .and("watch p50 ms", percentile(&seen.latencies_us, 50) / 1e3)
        .and("events lost", seen.lost as f64)
        .and("µs/op with few watchers", with_few.done.cpu.server)
        .and("KB for a watcher", resident / 1e3))
}
