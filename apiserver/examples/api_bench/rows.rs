//! The rows of the table that need a running server: what each of them asks, and of whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tokio::time::Instant;

use crate::client::Request;
use crate::kind::{self, SMALL_BYTES};
use crate::load::{self, Outcome, Pressure};
use crate::report::Figure;
use crate::target::{Kind, Target};

pub(crate) const NAMESPACE: &str = "bench";
pub(crate) const LIST_NAMESPACE: &str = "bench-list";

/// Long enough for two digits of a figure, short enough that all rows take a few minutes.
const SECONDS: u64 = 5;
const CONNECTIONS: u64 = 32;
const LISTED: u64 = 10_000;
/// What they are together, as a list.
const LISTED_BYTES: usize = 8_900_000;
const LISTS: usize = 20;

/// Names of rows that run on one server after the other.
pub(crate) const NAMES: [&str; 5] = ["create", "create-one", "get", "patch", "list"];

/// Objects made so far, so that no name comes twice in a run or in the next.
static MADE: AtomicU64 = AtomicU64::new(0);

fn fresh_name() -> String {
    format!("o-{}-{:08}", std::process::id(), MADE.fetch_add(1, Relaxed))
}

/// As fast as the server answers.
fn flat_out(connections: u64, seconds: u64) -> Pressure {
    Pressure { connections, time: Duration::from_secs(seconds), pace: None }
}

fn of(target: &Target, embedded: &'static str, etcd: &'static str) -> &'static str {
    if target.kind == Kind::Etcd { etcd } else { embedded }
}

/// Creates of objects of 256 bytes.
pub(crate) fn creates(agents: u64) -> Arc<load::Make> {
    Arc::new(move |_, turn| {
        let name = fresh_name();
        // Any agent, but every one in its turn.
        let agent = (turn.wrapping_mul(7919) + MADE.load(Relaxed)) % agents;
        let body = kind::object(&name, &agent_name(agent as usize), SMALL_BYTES);
        (kind::create(NAMESPACE, &body), 201)
    })
}

pub(crate) fn agent_name(number: usize) -> String {
    format!("a-{number}")
}

/// One object for each connection; their paths.
async fn one_each(target: &Target) -> anyhow::Result<Vec<String>> {
    let mut connection = target.server().connect().await?;
    let mut paths = Vec::new();
    for _ in 0..CONNECTIONS {
        let name = fresh_name();
        let body = kind::object(&name, "a-0", SMALL_BYTES);
        let answer = connection.send(&kind::create(NAMESPACE, &body)).await?;
        anyhow::ensure!(answer.status == 201, "create: {}", answer.status);
        paths.push(format!("{}/{name}", kind::collection(NAMESPACE)));
    }
    Ok(paths)
}

pub(crate) async fn run(row: &str, target: &Target) -> anyhow::Result<Figure> {
    match row {
        "create" => create(target).await,
        "create-one" => create_one(target).await,
        "get" => get(target).await,
        "patch" => patch(target).await,
        "list" => list(target).await,
        row => anyhow::bail!("there is no row {row}"),
    }
}

async fn create(target: &Target) -> anyhow::Result<Figure> {
    let done = load::run(target, flat_out(CONNECTIONS, SECONDS), creates(1)).await?;
    let aim = of(target, "≥ 25,000", "≥ 15,000");
    let what = "creates of 256 bytes, 32 connections";
    Ok(throughput("create", target, what, &done).beside(aim, "585 (1,640 µs)"))
}

async fn create_one(target: &Target) -> anyhow::Result<Figure> {
    let done = load::run(target, flat_out(1, 3), creates(1)).await?;
    let aim = of(target, "≤ 0.5", "≤ 0.9");
    let value = (done.latency_ms(50), "ms");
    Ok(Figure::new("create-one", target, "create, one connection, p50", value)
        .beside(aim, "1.25")
        .cost(target, done.cpu)
        .and("p99 ms", done.latency_ms(99)))
}

async fn get(target: &Target) -> anyhow::Result<Figure> {
    let paths = one_each(target).await?;
    let make = move |connection: u64, _| (Request::get(paths[connection as usize].as_str()), 200);
    let done = load::run(target, flat_out(CONNECTIONS, SECONDS), Arc::new(make)).await?;
    let aim = of(target, "≥ 40,000", "≥ 25,000");
    let what = "gets, linearizable, 32 connections";
    Ok(throughput("get", target, what, &done).beside(aim, "1,673 (510 µs)"))
}

async fn patch(target: &Target) -> anyhow::Result<Figure> {
    let paths = one_each(target).await?;
    let make = move |connection: u64, turn: u64| {
        let path = format!("{}/status", paths[connection as usize]);
        let body = format!(r#"{{"status":{{"counter":{turn}}}}}"#);
        let mut request = Request::new("PATCH", path, &body);
        request.content_type = "application/merge-patch+json";
        (request, 200)
    };
    let done = load::run(target, flat_out(CONNECTIONS, SECONDS), Arc::new(make)).await?;
    let aim = of(target, "≥ 25,000", "≥ 15,000");
    let what = "merge patches of status, 32 connections";
    Ok(throughput("patch", target, what, &done).beside(aim, "746 (1,260 µs)"))
}

fn throughput(row: &'static str, target: &Target, what: &str, done: &Outcome) -> Figure {
    Figure::new(row, target, what, (done.per_second, "/s"))
        .cost(target, done.cpu)
        .and("p50 ms", done.latency_ms(50))
        .and("p99 ms", done.latency_ms(99))
}

/// Objects so large that all of them are a list of the wanted size.
async fn make_listed(target: &Target) -> anyhow::Result<()> {
    let mut connection = target.server().connect().await?;
    let probe = kind::object("l-probe-000", "a-0", SMALL_BYTES);
    let answer = connection.send(&kind::create(LIST_NAMESPACE, &probe)).await?;
    anyhow::ensure!(matches!(answer.status, 201 | 409), "create: {}", answer.status);
    let probe = Request::get(kind::collection(LIST_NAMESPACE) + "/l-probe-000");
    let one = connection.send(&probe).await?.body.len();
    let bytes = (SMALL_BYTES + LISTED_BYTES / LISTED as usize).saturating_sub(one + 1);
    let make = move |connection: u64, turn: u64| {
        let number = turn * CONNECTIONS + connection;
        let body = kind::object(&format!("l-{number:09}"), "a-0", bytes);
        (kind::create(LIST_NAMESPACE, &body), 201)
    };
    let make: Arc<load::Make> = Arc::new(make);
    let mut running = tokio::task::JoinSet::new();
    for number in 0..CONNECTIONS {
        let (server, make) = (target.server().clone(), make.clone());
        running.spawn(async move {
            let mut connection = server.connect().await?;
            for turn in (0..).take_while(|turn| turn * CONNECTIONS + number < LISTED - 1) {
                let (request, _) = make(number, turn);
                let status = connection.send(&request).await?.status;
                // Of a run before, on somebody else's server.
                anyhow::ensure!(matches!(status, 201 | 409), "create: {status}");
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

async fn list(target: &Target) -> anyhow::Result<Figure> {
    make_listed(target).await?;
    let request = Request::get(kind::collection(LIST_NAMESPACE));
    let mut connection = target.server().connect().await?;
    let body = connection.send(&request).await?.body.to_vec();
    let list: Value = serde_json::from_slice(&body)?;
    let items = list["items"].as_array().context("a list has items")?.len();
    anyhow::ensure!(items as u64 == LISTED, "{items} objects listed");
    let before = target.cpu();
    let mut times = Vec::with_capacity(LISTS);
    for _ in 0..LISTS {
        let started = Instant::now();
        connection.send(&request).await?;
        times.push(u32::try_from(started.elapsed().as_micros())?);
    }
    let after = target.cpu();
    let cpu = after.since(before, LISTS as u64);
    times.sort_unstable();
    let value = (load::percentile(&times, 50) / 1e3, "ms");
    Ok(Figure::new("list", target, "list of 10,000 objects, consistent", value)
        .beside("≤ 25", "680–1,700")
        .cost(target, cpu)
        .and("MB", body.len() as f64 / 1e6)
        .and("fastest ms", load::percentile(&times, 0) / 1e3))
}
