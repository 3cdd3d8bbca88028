//! Processor time of this thread: on a machine that others use too, time on the wall says nothing.

use std::fs;

use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};

/// In nanoseconds.
pub(crate) struct ProcessorTime;

/// What this thread has run so far. The kernel brings the number up to date when the thread yields.
pub(crate) fn now() -> u64 {
    std::thread::yield_now();
    let stat = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts it");
    let first = stat.split(' ').next().and_then(|word| word.parse().ok());
    first.expect("nanoseconds come first")
}

impl Measurement for ProcessorTime {
    type Intermediate = u64;
    type Value = u64;

    fn start(&self) -> u64 {
        now()
    }

    fn end(&self, started: u64) -> u64 {
        now() - started
    }

    fn add(&self, a: &u64, b: &u64) -> u64 {
        a + b
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Shown
    }
}

/// Like time on the wall.
struct Shown;

impl ValueFormatter for Shown {
    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_values(typical, values)
    }

    fn scale_throughputs(
        &self,
        typical: f64,
        throughput: &Throughput,
        values: &mut [f64],
    ) -> &'static str {
        WallTime.formatter().scale_throughputs(typical, throughput, values)
    }

    fn scale_for_machines(&self, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_for_machines(values)
    }
}
