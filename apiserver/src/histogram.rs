//! Counts of values by size, as Prometheus' histograms have them. Any task may add at any time.
//!
//! What the values are, and under which names they are shown, is up to the owner.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// More than any [`Bounds`] has.
const COUNTS_MAX: usize = 24;

/// Where the buckets end.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// Growing; fewer than [`COUNTS_MAX`]; in the unit that values are counted in.
    pub(crate) upper: &'static [u64],
    /// How many of that unit are one of the unit that is shown.
    pub(crate) per_shown: f64,
}

/// Of durations in microseconds, shown in seconds: those of kube-apiserver's requests and stores.
pub(crate) static DURATIONS: Bounds = Bounds {
    upper: &[
        5_000, 25_000, 50_000, 100_000, 200_000, 400_000, 600_000, 800_000, 1_000_000, 1_250_000,
        1_500_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000, 6_000_000, 8_000_000, 10_000_000,
        15_000_000, 20_000_000, 30_000_000, 45_000_000, 60_000_000,
    ],
    per_shown: 1e6,
};

/// Of the bytes of answers.
pub(crate) static RESPONSE_SIZES: Bounds = Bounds {
    upper: &[1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000],
    per_shown: 1.0,
};

/// Of the bytes of watch events.
pub(crate) static EVENT_SIZES: Bounds =
    Bounds { upper: &[1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072], per_shown: 1.0 };

impl Bounds {
    fn bucket(&self, value: u64) -> usize {
        self.upper.partition_point(|bound| *bound < value)
    }
}

#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static Bounds,
    /// Not cumulative; the last is everything beyond the bounds.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// A histogram as it was at one moment. Several can be added up.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub(crate) bounds: &'static Bounds,
    pub(crate) counts: Vec<u64>,
    pub(crate) sum: u64,
}

impl Counted {
    pub(crate) fn none(bounds: &'static Bounds) -> Counted {
        Counted { bounds, counts: vec![0; bounds.upper.len() + 1], sum: 0 }
    }

    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl Histogram {
    pub(crate) fn new(bounds: &'static Bounds) -> Histogram {
        let counts = (0..=bounds.upper.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, sum: AtomicU64::new(0) }
    }

    pub(crate) fn observe(&self, value: u64) {
        self.counts[self.bounds.bucket(value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// Shared memory is touched once for each bucket that they fall into, not for each value.
    pub(crate) fn observe_all(&self, values: impl Iterator<Item = u64>) {
        let mut counts = [0; COUNTS_MAX];
        let mut sum = 0;
        for value in values {
            counts[self.bounds.bucket(value)] += 1;
            sum += value;
        }
        for (count, added) in self.counts.iter().zip(counts).filter(|(_, added)| *added > 0) {
            count.fetch_add(added, Relaxed);
        }
        self.sum.fetch_add(sum, Relaxed);
    }

    pub(crate) fn add_to(&self, counted: &mut Counted) {
        for (count, all) in self.counts.iter().zip(&mut counted.counts) {
            *all += count.load(Relaxed);
        }
        counted.sum += self.sum.load(Relaxed);
    }

    pub(crate) fn counted(&self) -> Counted {
        let mut counted = Counted::none(self.bounds);
        self.add_to(&mut counted);
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_that_holds_it() {
        let (one, all) = (Histogram::new(&EVENT_SIZES), Histogram::new(&EVENT_SIZES));
        let values = [0, 1024, 1025, 131_072, 131_073];
        values.into_iter().for_each(|value| one.observe(value));
        all.observe_all(values.into_iter());
        for counted in [one.counted(), all.counted()] {
            assert_eq!(counted.counts, [2, 1, 0, 0, 0, 0, 0, 1, 1]);
            assert_eq!((counted.total(), counted.sum), (5, values.iter().sum()));
        }
        for bounds in [&DURATIONS, &RESPONSE_SIZES, &EVENT_SIZES] {
            assert!(bounds.upper.len() < COUNTS_MAX && bounds.upper.is_sorted());
        }
    }
}
