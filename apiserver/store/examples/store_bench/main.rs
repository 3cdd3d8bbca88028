//! How many durable writes a second each engine does: `cargo run --release -p commonage-store
//! --example store_bench -- [memory] [embedded] [etcd] [requests in flight to etcd] [away=MS] [writers=N]`.
//! With `away`, etcd is so many milliseconds away, there and back.
//!
//! Every write creates a key of its own with 1 KB under the guard that it is absent, as the API
//! server does. A tail runs beside it, as there always is one.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commonage_store::embedded::{EmbeddedOptions, EmbeddedStore};
use commonage_store::etcd::{EtcdOptions, EtcdStore};
use commonage_store::memory::MemoryStore;
use commonage_store::{Compare, GuardedWrite, Op, Store};
use futures::StreamExt;

#[path = "../../tests/contract/etcd_process.rs"]
#[allow(dead_code, reason = "shared with the tests, which also kill it")]
mod etcd_process;
mod slow;

const WRITERS: [usize; 4] = [1, 32, 64, 256];
const VALUE_BYTES: usize = 1_024;
const MEASURED: Duration = Duration::from_secs(4);

#[tokio::main]
async fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let (in_flight, asked): (Vec<String>, Vec<String>) =
        asked.into_iter().partition(|word| word.parse::<usize>().is_ok());
    let option = |name: &str| asked.iter().find_map(|word| word.strip_prefix(name));
    let away_ms = option("away=").and_then(|ms| ms.parse::<f64>().ok());
    let writers = option("writers=").and_then(|count| count.parse().ok());
    let engines: Vec<&String> = asked.iter().filter(|word| !word.contains('=')).collect();
    let in_flight: Option<usize> = in_flight.first().and_then(|number| number.parse().ok());
    let wanted = |engine: &str| engines.is_empty() || engines.iter().any(|name| *name == engine);
    println!("engine    writers  commits/s    p50 µs    p99 µs    processor µs");
    for writers in writers.map_or(WRITERS.to_vec(), |one| vec![one]) {
        if wanted("memory") {
            measure("memory", Arc::new(MemoryStore::new()), writers).await;
        }
        if wanted("embedded") {
            let dir = tempfile::tempdir().expect("a temporary directory can be made");
            match EmbeddedStore::open(dir.path(), EmbeddedOptions::default()) {
                Ok(store) => measure("embedded", Arc::new(store), writers).await,
                Err(error) => return failed(&error),
            }
            reopen(dir.path()).await;
        }
        if wanted("etcd") {
            let process = etcd_process::EtcdProcess::start();
            let mut endpoint = process.endpoint();
            if let Some(ms) = away_ms {
                let target = endpoint.trim_start_matches("http://").to_owned();
                match slow::before(target, Duration::from_secs_f64(ms / 2e3)).await {
                    Ok(address) => endpoint = address,
                    Err(error) => return failed(&error),
                }
            }
            let mut options = EtcdOptions::new([endpoint]);
            options.requests_in_flight = in_flight.unwrap_or(options.requests_in_flight);
            match EtcdStore::connect(options).await {
                Ok(store) => measure("etcd", Arc::new(store), writers).await,
                Err(error) => return failed(&error),
            }
        }
    }
    ExitCode::SUCCESS
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}

/// How long the embedded engine takes to open what has just been written.
async fn reopen(dir: &std::path::Path) {
    let began = Instant::now();
    match EmbeddedStore::open(dir, EmbeddedOptions::default()) {
        Ok(store) => {
            let revision = store.revision().await.map_or(0, |revision| revision.0);
            println!("         opened again in {:?}, {revision} writes", began.elapsed());
        }
        Err(error) => println!("         not opened again: {error}"),
    }
}

async fn measure(engine: &str, store: Arc<dyn Store>, writers: usize) {
    let start = store.revision().await.expect("the store has just been opened");
    let mut tail = store.tail(start);
    let tail = tokio::spawn(async move { while let Some(Ok(_)) = tail.next().await {} });
    let (began, used) = (Instant::now(), processor_us());
    let writers: Vec<_> = (0..writers)
        .map(|writer| tokio::spawn(write_until(store.clone(), writer, began + MEASURED)))
        .collect();
    let count = writers.len();
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.extend(writer.await.expect("a writer does not panic"));
    }
    let seconds = began.elapsed().as_secs_f64();
    let used = processor_us() - used;
    tail.abort();
    // It holds on to the store.
    let _ = tail.await;
    latencies.sort_unstable();
    let percentile = |percent: usize| latencies[latencies.len() * percent / 100].as_micros();
    println!(
        "{engine:<8} {count:>8} {:>10.0} {:>9} {:>9} {:>15.1}",
        latencies.len() as f64 / seconds,
        percentile(50),
        percentile(99),
        used / latencies.len().max(1) as f64,
    );
}

/// Of this process alone, so far.
fn processor_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    // Ticks of 10 ms.
    after.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        * 10_000.0
}

/// The time each write took.
async fn write_until(store: Arc<dyn Store>, writer: usize, deadline: Instant) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    while Instant::now() < deadline {
        let key = Bytes::from(format!("/bench/things/default/{writer}-{}", latencies.len()));
        let write = GuardedWrite {
            compares: vec![Compare::Absent { key: key.clone() }],
            ops: vec![Op::Put { key, value: value.clone() }],
        };
        let began = Instant::now();
        store.commit(write).await.expect("nobody else writes this key");
        latencies.push(began.elapsed());
    }
    latencies
}
