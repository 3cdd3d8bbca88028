//! How many durable writes a second each engine does: `cargo run --release -p commonage-store
//! --example store_bench -- [memory] [embedded] [etcd] [requests in flight to etcd]`.
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

#[path = "../tests/contract/etcd_process.rs"]
#[allow(dead_code, reason = "shared with the tests, which also kill it")]
mod etcd_process;

const WRITERS: [usize; 3] = [1, 64, 256];
const VALUE_BYTES: usize = 1_024;
const MEASURED: Duration = Duration::from_secs(4);

#[tokio::main]
async fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let (in_flight, asked): (Vec<String>, Vec<String>) =
        asked.into_iter().partition(|word| word.parse::<usize>().is_ok());
    let in_flight: Option<usize> = in_flight.first().and_then(|number| number.parse().ok());
    let wanted = |engine: &str| asked.is_empty() || asked.iter().any(|name| name == engine);
    println!("engine    writers  commits/s    p50 µs    p99 µs");
    for writers in WRITERS {
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
            let mut options = EtcdOptions::new([process.endpoint()]);
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
    let began = Instant::now();
    let writers: Vec<_> = (0..writers)
        .map(|writer| tokio::spawn(write_until(store.clone(), writer, began + MEASURED)))
        .collect();
    let count = writers.len();
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.extend(writer.await.expect("a writer does not panic"));
    }
    let seconds = began.elapsed().as_secs_f64();
    tail.abort();
    // It holds on to the store.
    let _ = tail.await;
    latencies.sort_unstable();
    let percentile = |percent: usize| latencies[latencies.len() * percent / 100].as_micros();
    println!(
        "{engine:<8} {count:>8} {:>10.0} {:>9} {:>9}",
        latencies.len() as f64 / seconds,
        percentile(50),
        percentile(99)
    );
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
