//! What waits for a controller and how long it takes, under the names of client-go's work queues.

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::head;

/// Ends of the buckets: in nanoseconds, and as they are shown, in seconds.
const BOUNDS: [(u64, &str); 8] = [
    (1_000, "1e-06"),
    (10_000, "1e-05"),
    (100_000, "0.0001"),
    (1_000_000, "0.001"),
    (10_000_000, "0.01"),
    (100_000_000, "0.1"),
    (1_000_000_000, "1"),
    (10_000_000_000, "10"),
];

static QUEUES: Mutex<Vec<Arc<Queue>>> = Mutex::new(Vec::new());

/// The queue of one controller.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    name: String,
    adds: AtomicU64,
    retries: AtomicU64,
    depth: AtomicU64,
    waited: Times,
    worked: Times,
}

#[derive(Debug, Default)]
struct Times {
    /// The last is everything beyond the bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

/// The queue of this name: the same for whoever takes a controller's work over in this process.
pub(crate) fn queue(name: &str) -> Arc<Queue> {
    let mut queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = queues.iter().find(|queue| queue.name == name) {
        return found.clone();
    }
    let queue = Arc::new(Queue { name: name.to_owned(), ..Queue::default() });
    queues.push(queue.clone());
    queue
}

impl Queue {
    pub(crate) fn added(&self) {
        self.adds.fetch_add(1, Relaxed);
    }

    /// What failed is to be tried again.
    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// So many wait now.
    pub(crate) fn waiting(&self, count: usize) {
        self.depth.store(count as u64, Relaxed);
    }

    /// One was taken up, so long after it was due.
    pub(crate) fn taken(&self, late: Duration) {
        self.waited.add(late);
    }

    pub(crate) fn worked(&self, took: Duration) {
        self.worked.add(took);
    }
}

impl Times {
    fn add(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|(bound, _)| *bound < ns);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(ns, Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) -> std::fmt::Result {
        let mut total = 0;
        let ends = BOUNDS.iter().map(|(_, end)| *end).chain(["+Inf"]);
        for (end, count) in ends.zip(&self.buckets) {
            total += count.load(Relaxed);
            writeln!(out, "{name}_bucket{{{labels},le=\"{end}\"}} {total}")?;
        }
        writeln!(out, "{name}_sum{{{labels}}} {}", self.sum_ns.load(Relaxed) as f64 / 1e9)?;
        writeln!(out, "{name}_count{{{labels}}} {total}")
    }
}

pub(super) fn write(out: &mut String) -> std::fmt::Result {
    let queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    type Number = (&'static str, &'static str, &'static str, fn(&Queue) -> &AtomicU64);
    let numbers: [Number; 3] = [
        ("workqueue_adds_total", "counter", "Objects that were to be looked at.", |q| &q.adds),
        ("workqueue_retries_total", "counter", "Objects that failed.", |q| &q.retries),
        ("workqueue_depth", "gauge", "Objects that wait now.", |q| &q.depth),
    ];
    for (name, kind, help, number) in numbers {
        head(out, name, kind, help)?;
        for queue in &queues {
            writeln!(out, "{name}{{name=\"{}\"}} {}", queue.name, number(queue).load(Relaxed))?;
        }
    }
    type Family = (&'static str, &'static str, fn(&Queue) -> &Times);
    let times: [Family; 2] = [
        ("workqueue_queue_duration_seconds", "How long what was due waited.", |q| &q.waited),
        ("workqueue_work_duration_seconds", "How long an object took.", |q| &q.worked),
    ];
    for (name, help, of) in times {
        head(out, name, "histogram", help)?;
        for queue in &queues {
            of(queue).write(out, name, &format!("name=\"{}\"", queue.name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_queue_is_told_by_its_name() {
        let of_test = queue("of-a-test");
        of_test.added();
        queue("of-a-test").added();
        of_test.waiting(3);
        of_test.taken(Duration::from_micros(20));
        of_test.worked(Duration::from_secs(11));
        let mut text = String::new();
        write(&mut text).unwrap();
        for line in [
            "workqueue_adds_total{name=\"of-a-test\"} 2",
            "workqueue_depth{name=\"of-a-test\"} 3",
            "workqueue_queue_duration_seconds_bucket{name=\"of-a-test\",le=\"1e-05\"} 0",
            "workqueue_queue_duration_seconds_bucket{name=\"of-a-test\",le=\"0.0001\"} 1",
            "workqueue_work_duration_seconds_bucket{name=\"of-a-test\",le=\"10\"} 0",
            "workqueue_work_duration_seconds_bucket{name=\"of-a-test\",le=\"+Inf\"} 1",
            "workqueue_work_duration_seconds_sum{name=\"of-a-test\"} 11",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
    }
}
