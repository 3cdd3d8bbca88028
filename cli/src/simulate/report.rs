//! When tasks began and when they ran, and the figures of that.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use commonage_schemas::{Task, TaskState};
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{Duration, Instant},
};

/// Names are spread over so many maps, so that nobody waits for another.
const SHARDS: usize = 64;

/// What is known of every task, by name.
pub(super) struct Watcher {
    shards: Vec<Mutex<HashMap<String, Times>>>,
    running: AtomicUsize,
    ended: AtomicUsize,
    /// Something has been seen.
    pub(super) news: Notify,
}

#[derive(Clone, Copy)]
struct Times {
    created: Instant,
    running: Option<Instant>,
    ended: bool,
}

impl Default for Watcher {
    fn default() -> Self {
        Watcher {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            running: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            news: Notify::new(),
        }
    }
}

impl Watcher {
    fn shard(&self, name: &str) -> &Mutex<HashMap<String, Times>> {
        let hash = name
            .bytes()
            .fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        &self.shards[hash % SHARDS]
    }

    /// The request that creates it is about to be sent.
    pub(super) fn begin(&self, name: &str) {
        let times = Times { created: Instant::now(), running: None, ended: false };
        let mut shard = self.shard(name).lock().unwrap_or_else(PoisonError::into_inner);
        shard.insert(name.to_owned(), times);
    }

    /// It was not created after all.
    pub(super) fn forget(&self, name: &str) {
        self.shard(name).lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The API server has taken a report.
    pub(super) fn see(&self, task: &Task, state: TaskState) {
        let name = task.name_any();
        let mut shard = self.shard(&name).lock().unwrap_or_else(PoisonError::into_inner);
        let Some(times) = shard.get_mut(&name) else { return };
        if state == TaskState::Running && times.running.is_none() {
            times.running = Some(Instant::now());
            self.running.fetch_add(1, Relaxed);
        } else if state.is_terminal() && !times.ended {
            times.ended = true;
            self.ended.fetch_add(1, Relaxed);
        }
        self.news.notify_waiters();
    }

    pub(super) fn running(&self) -> usize {
        self.running.load(Relaxed)
    }

    pub(super) fn ended(&self) -> usize {
        self.ended.load(Relaxed)
    }

    /// From creation to running, of those whose name begins so; and when the first was created and
    /// the last ran.
    fn waits(&self, prefix: &str) -> (Vec<Duration>, Option<(Instant, Instant)>) {
        let mut waits = Vec::new();
        let mut span: Option<(Instant, Instant)> = None;
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for times in shard.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, t)| t) {
                let Some(running) = times.running else { continue };
                waits.push(running - times.created);
                span = Some(span.map_or((times.created, running), |(first, last)| {
                    (first.min(times.created), last.max(running))
                }));
            }
        }
        waits.sort_unstable();
        (waits, span)
    }

    pub(super) fn figures(&self, load: &str, probe: &str, wanted: usize) -> Figures {
        let (waits, span) = self.waits(load);
        let (probes, _) = self.waits(probe);
        let seconds = span.map_or(0.0, |(first, last)| (last - first).as_secs_f64());
        Figures {
            wanted,
            launched: waits.len(),
            ended: self.ended(),
            seconds,
            waits: Quantiles::of(&waits),
            probes: Quantiles::of(&probes),
        }
    }
}

/// In milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Quantiles {
    count: usize,
    p50: f64,
    p99: f64,
    max: f64,
}

impl Quantiles {
    fn of(sorted: &[Duration]) -> Quantiles {
        let at = |share: f64| {
            let place = (sorted.len() as f64 * share).ceil() as usize;
            let one = sorted.get(place.saturating_sub(1)).copied().unwrap_or_default();
            one.as_secs_f64() * 1000.0
        };
        Quantiles { count: sorted.len(), p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

/// What came out.
pub(super) struct Figures {
    wanted: usize,
    launched: usize,
    ended: usize,
    /// From the first creation to the last that ran.
    seconds: f64,
    waits: Quantiles,
    probes: Quantiles,
}

impl Figures {
    fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.launched as f64 / self.seconds } else { 0.0 }
    }

    pub(super) fn json(&self, agents: usize, frameworks: usize) -> Value {
        let shown = |of: &Quantiles| json!({"count": of.count, "p50": of.p50, "p99": of.p99, "max": of.max});
        json!({
            "agents": agents, "frameworks": frameworks, "tasks": self.wanted,
            "launched": self.launched, "ended": self.ended, "seconds": self.seconds,
            "launchesPerSecond": self.rate(),
            "createToRunningMilliseconds": shown(&self.waits),
            "probeMilliseconds": shown(&self.probes),
        })
    }

    pub(super) fn table(&self, agents: usize, frameworks: usize) -> String {
        let headers = [
            "AGENTS",
            "FRAMEWORKS",
            "TASKS",
            "LAUNCHED",
            "SECONDS",
            "LAUNCHES/S",
            "P50",
            "P99",
            "MAX",
            "PROBE P50",
            "PROBE P99",
        ];
        let ms = |value: f64| format!("{value:.0} ms");
        let row = vec![
            agents.to_string(),
            frameworks.to_string(),
            self.wanted.to_string(),
            self.launched.to_string(),
            format!("{:.1}", self.seconds),
            format!("{:.0}", self.rate()),
            ms(self.waits.p50),
            ms(self.waits.p99),
            ms(self.waits.max),
            ms(self.probes.p50),
            ms(self.probes.p99),
        ];
        crate::table::plain(&headers, &[row], "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let all: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        let found = Quantiles::of(&all);
        assert_eq!(found, Quantiles { count: 100, p50: 50.0, p99: 99.0, max: 100.0 });
        assert_eq!(Quantiles::of(&[]), Quantiles::default());
    }
}
