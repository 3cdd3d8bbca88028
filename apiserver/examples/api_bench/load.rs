//! Load: many connections that ask again and again, as fast as they are answered or at a pace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::bail;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::{Request, Server};
use crate::target::{Cpu, Target};

/// How much is asked, and for how long.
#[derive(Clone, Copy)]
pub(crate) struct Pressure {
    pub(crate) connections: u64,
    pub(crate) time: Duration,
    /// Requests a second of all connections together; `None` is as many as there is time for.
    pub(crate) pace: Option<f64>,
}

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) operations: u64,
    pub(crate) per_second: f64,
    /// For one operation.
    pub(crate) cpu: Cpu,
    latencies_us: Vec<u32>,
}

impl Outcome {
    pub(crate) fn latency_ms(&self, percent: usize) -> f64 {
        percentile(&self.latencies_us, percent) / 1e3
    }
}

/// Of values in order; 0 of none.
pub(crate) fn percentile(sorted: &[u32], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((sorted.len() * percent / 100).min(last)).map_or(0.0, |value| f64::from(*value))
}

/// Request number `number` of connection `connection`, and the status that it must be answered by.
pub(crate) type Make = dyn Fn(u64, u64) -> (Request, u16) + Send + Sync;

pub(crate) async fn run(
    target: &Target,
    pressure: Pressure,
    make: Arc<Make>,
) -> anyhow::Result<Outcome> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut running = JoinSet::new();
    let begin = Instant::now() + Duration::from_millis(100);
    for number in 0..pressure.connections {
        let (server, stop, make) = (target.server().clone(), stop.clone(), make.clone());
        running.spawn(connection(server, number, pressure, begin, stop, make));
    }
    tokio::time::sleep_until(begin).await;
    let before = target.cpu();
    let ended = tokio::time::timeout(pressure.time, running.join_next()).await;
    stop.store(true, Relaxed);
    let mut latencies_us = Vec::new();
    if let Ok(Some(failed)) = ended {
        latencies_us = failed??;
    }
    while let Some(done) = running.join_next().await {
        latencies_us.extend(done??);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let after = target.cpu();
    latencies_us.sort_unstable();
    let operations = latencies_us.len() as u64;
    let cpu = after.since(before, operations);
    Ok(Outcome { operations, per_second: operations as f64 / seconds, cpu, latencies_us })
}

/// How long each request took, in microseconds. A request that came too late for its pace has
/// waited, and that counts.
async fn connection(
    server: Arc<Server>,
    number: u64,
    pressure: Pressure,
    begin: Instant,
    stop: Arc<AtomicBool>,
    make: Arc<Make>,
) -> anyhow::Result<Vec<u32>> {
    let mut connection = server.connect().await?;
    let mut latencies = Vec::new();
    let every = pressure.pace.map(|pace| pressure.connections as f64 / pace);
    tokio::time::sleep_until(begin).await;
    for turn in 0.. {
        let due = match every {
            None => Instant::now(),
            Some(every) => {
                let share = number as f64 / pressure.connections as f64;
                let due = begin + Duration::from_secs_f64((turn as f64 + share) * every);
                tokio::time::sleep_until(due).await;
                due
            }
        };
        if stop.load(Relaxed) {
            break;
        }
        let (request, expected) = make(number, turn);
        let answer = connection.send(&request).await?;
        if answer.status != expected {
            let said = String::from_utf8_lossy(&answer.body[..answer.body.len().min(300)]);
            bail!("{} {}: {} {said}", request.method, request.path, answer.status);
        }
        latencies.push(u32::try_from(due.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    Ok(latencies)
}
