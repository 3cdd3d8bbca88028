//! What tasks and the machine use, served to the API server: `GET /stats`.
//!
//! Use of cpu is a difference between two looks. Nobody looks while nobody asks: the first who asks
//! waits for a second look, and later ones are measured against the last. So an agent that is not
//! watched spends nothing on it.

mod machine;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use commonage_schemas::stats::{AgentStats, TaskStats, Usage};
use commonage_shim::client;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::Mutex;

use crate::ledger::{Entry, Ledger};

/// Whoever asks again this soon gets the same answer: no number of askers costs more than four looks a second.
const ANSWER_KEPT: Duration = Duration::from_millis(250);
/// Between two looks; the kernel counts a machine's cpu time in hundredths of a second.
const WINDOW_MIN: Duration = Duration::from_secs(1);
/// An average over a longer time says nothing about now.
const WINDOW_MAX: Duration = Duration::from_secs(30);

/// What is in use. Cheap to clone.
#[derive(Clone)]
pub struct Stats {
    ledger: Ledger,
    /// Below it lies the control group of every task.
    group: Arc<str>,
    known: Arc<Mutex<Known>>,
}

/// What was seen before.
#[derive(Default)]
struct Known {
    /// What the next one is measured against.
    base: Option<Look>,
    answer: Option<(Instant, AgentStats)>,
}

/// Counters at one time.
struct Look {
    at: Instant,
    machine: machine::Counters,
    tasks: Vec<(Entry, commonage_shim::Usage)>,
}

impl Stats {
    /// `group` is the control group of this agent, such as `/commonage/node-1`.
    pub fn new(ledger: Ledger, group: String) -> Stats {
        Stats { ledger, group: group.into(), known: Arc::default() }
    }

    pub fn router(self) -> Router {
        Router::new().route("/stats", get(answer)).with_state(self)
    }

    /// What is in use now.
    ///
    /// # Errors
    /// The machine can't be read.
    pub async fn now(&self) -> std::io::Result<AgentStats> {
        let mut known = self.known.lock().await;
        if let Some((at, answer)) = &known.answer
            && at.elapsed() < ANSWER_KEPT
        {
            return Ok(answer.clone());
        }
        let base = match known.base.take().filter(|base| base.at.elapsed() < WINDOW_MAX) {
            Some(base) => base,
            None => self.look().await?,
        };
        if let Some(rest) = WINDOW_MIN.checked_sub(base.at.elapsed()) {
            tokio::time::sleep(rest).await;
        }
        let look = self.look().await?;
        let answer = between(&base, &look);
        known.base = Some(look);
        known.answer = Some((Instant::now(), answer.clone()));
        Ok(answer)
    }

    async fn look(&self) -> std::io::Result<Look> {
        let (ledger, group) = (self.ledger.clone(), self.group.clone());
        let look = tokio::task::spawn_blocking(move || look(&ledger, &group));
        look.await.map_err(std::io::Error::other)?
    }
}

async fn answer(State(stats): State<Stats>) -> Response {
    match stats.now().await {
        Ok(stats) => Json(stats).into_response(),
        Err(error) => {
            let message = format!("what is in use can't be read: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, message).into_response()
        }
    }
}

/// Blocks on the kernel's files, some microseconds for each.
fn look(ledger: &Ledger, group: &str) -> std::io::Result<Look> {
    let mut entries = ledger.entries().map_err(std::io::Error::other)?;
    entries.retain(|entry| !ledger.has_ended(&entry.uid));
    let groups: Vec<String> =
        entries.iter().map(|entry| format!("{group}/{}", entry.uid)).collect();
    let usages = client::usages(&groups)?;
    let machine = machine::Counters::read()?;
    let tasks = entries.into_iter().zip(usages);
    let tasks = tasks.filter_map(|(entry, usage)| Some((entry, usage?))).collect();
    Ok(Look { at: Instant::now(), machine, tasks })
}

/// A task that was not there at the first look has begun since: its counters began at nothing.
fn between(before: &Look, after: &Look) -> AgentStats {
    let window = after.at.duration_since(before.at);
    let rate = |from: u64, to: u64| per_second(to.saturating_sub(from), window);
    let cpu_before: HashMap<&str, u64> =
        before.tasks.iter().map(|(entry, usage)| (&*entry.uid, usage.cpu_ns)).collect();
    let tasks = after.tasks.iter().map(|(entry, usage)| TaskStats {
        namespace: entry.namespace.clone(),
        name: entry.name.clone(),
        uid: entry.uid.clone(),
        usage: Usage {
            cpu_nanos: rate(cpu_before.get(&*entry.uid).copied().unwrap_or(0), usage.cpu_ns),
            memory_bytes: usage.working_set_bytes,
            io_read_bytes: usage.io_read_bytes,
            io_written_bytes: usage.io_written_bytes,
        },
        processes: usage.pids,
        throttled_millis: usage.throttled_ns / 1_000_000,
        oom_kills: usage.oom_kills,
    });
    AgentStats {
        time: Time(Timestamp::now()),
        window_millis: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
        machine: Usage {
            cpu_nanos: rate(before.machine.cpu_ns, after.machine.cpu_ns),
            memory_bytes: after.machine.memory_bytes,
            io_read_bytes: after.machine.io_read_bytes,
            io_written_bytes: after.machine.io_written_bytes,
        },
        tasks: tasks.collect(),
    }
}

fn per_second(amount: u64, window: Duration) -> u64 {
    match window.as_nanos() {
        0 => 0,
        nanos => u64::try_from(u128::from(amount) * 1_000_000_000 / nanos).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(uid: &str) -> Entry {
        Entry {
            uid: uid.to_owned(),
            namespace: "shop".to_owned(),
            name: format!("web-{uid}"),
            boot_id: "b".to_owned(),
            ..Entry::default()
        }
    }

    fn seen(at: Instant, machine_ns: u64, tasks: &[(&str, u64)]) -> Look {
        let usage = |cpu_ns| commonage_shim::Usage { cpu_ns, pids: 2, ..Default::default() };
        Look {
            at,
            machine: machine::Counters { cpu_ns: machine_ns, ..Default::default() },
            tasks: tasks.iter().map(|(uid, ns)| (entry(uid), usage(*ns))).collect(),
        }
    }

    #[test]
    fn use_of_cpu_is_what_came_between_two_looks() {
        let start = Instant::now();
        let before = seen(start, 1_000, &[("a", 500_000_000), ("gone", 9)]);
        let later = start + Duration::from_secs(2);
        let after = seen(later, 3_000_001_000, &[("a", 1_500_000_000), ("new", 200_000_000)]);
        let stats = between(&before, &after);
        assert_eq!(stats.window_millis, 2000);
        assert_eq!(stats.machine.cpu_nanos, 1_500_000_000);
        let cpu: Vec<(&str, u64)> =
            stats.tasks.iter().map(|task| (&*task.name, task.usage.cpu_nanos)).collect();
        assert_eq!(cpu, [("web-a", 500_000_000), ("web-new", 100_000_000)]);
    }

    #[test]
    fn a_counter_that_went_back_is_no_use_at_all() {
        let start = Instant::now();
        let stats = between(&seen(start, 5, &[("a", 9)]), &seen(start, 1, &[("a", 1)]));
        assert_eq!((stats.machine.cpu_nanos, stats.tasks[0].usage.cpu_nanos), (0, 0));
    }

    #[tokio::test]
    async fn the_first_who_asks_gets_an_average_and_the_next_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let stats = Stats::new(Ledger::open(dir.path()).unwrap(), "/commonage/nobody".to_owned());
        let (first, second) = tokio::join!(stats.now(), stats.now());
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(first.window_millis >= 1000 && first.machine.memory_bytes > 0, "{first:?}");
        assert_eq!(first, second);
        assert!(first.tasks.is_empty());
    }
}
