//! How many requests are worked on at once. Beyond that they wait a little, and beyond that they
//! are refused with 429: a server that takes on everything serves nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::metrics::Metrics;
use crate::status::ApiError;

/// kube-apiserver's --max-requests-inflight and --max-mutating-requests-inflight.
const READING_MAX: usize = 400;
const MUTATING_MAX: usize = 200;
/// Requests that may wait for a place, for each that has one. A write takes about a millisecond,
/// so this many are through well before [`WAIT_MAX`].
const WAITING_PER_PLACE: usize = 4;
/// Longer than a pause of the store, shorter than a client's patience.
const WAIT_MAX: Duration = Duration::from_secs(5);
const RETRY_AFTER_S: u32 = 1;

pub(super) struct Limits {
    reading: Limit,
    mutating: Limit,
}

struct Limit {
    places: Semaphore,
    /// The places and the waiting room together.
    admitted: Semaphore,
}

/// Held while a request is worked on.
pub(super) struct Place<'a> {
    _permits: Option<(SemaphorePermit<'a>, SemaphorePermit<'a>)>,
    _counted: Counted,
}

struct Counted {
    metrics: Arc<Metrics>,
    read_only: bool,
}

impl Counted {
    fn new(metrics: &Arc<Metrics>, read_only: bool) -> Counted {
        let counted = Counted { metrics: metrics.clone(), read_only };
        counted.gauge().fetch_add(1, Relaxed);
        counted
    }

    fn gauge(&self) -> &AtomicI64 {
        match self.read_only {
            true => &self.metrics.reading,
            false => &self.metrics.mutating,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge().fetch_sub(1, Relaxed);
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::new(READING_MAX, MUTATING_MAX)
    }
}

impl Limits {
    fn new(reading: usize, mutating: usize) -> Limits {
        let limit = |places| Limit {
            places: Semaphore::new(places),
            admitted: Semaphore::new(places * (1 + WAITING_PER_PLACE)),
        };
        Limits { reading: limit(reading), mutating: limit(mutating) }
    }

    /// `exempt`: of the control plane itself, which must get through when all others queue.
    pub(super) async fn enter<'a>(
        &'a self,
        metrics: &Arc<Metrics>,
        read_only: bool,
        exempt: bool,
    ) -> Result<Place<'a>, ApiError> {
        let limit = match read_only {
            true => &self.reading,
            false => &self.mutating,
        };
        let permits = match exempt {
            true => None,
            false => Some(limit.enter().await.ok_or_else(|| {
                metrics.dropped[usize::from(!read_only)].fetch_add(1, Relaxed);
                ApiError::too_many("Too many requests, please try again later.", RETRY_AFTER_S)
            })?),
        };
        Ok(Place { _permits: permits, _counted: Counted::new(metrics, read_only) })
    }
}

impl Limit {
    async fn enter(&self) -> Option<(SemaphorePermit<'_>, SemaphorePermit<'_>)> {
        let admitted = self.admitted.try_acquire().ok()?;
        if let Ok(place) = self.places.try_acquire() {
            return Some((admitted, place));
        }
        let place = tokio::time::timeout(WAIT_MAX, self.places.acquire()).await;
        Some((admitted, place.ok()?.ok()?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_full_server_lets_a_few_wait_and_refuses_the_rest() {
        let limits = Arc::new(Limits::new(1, 1));
        let metrics = Arc::new(Metrics::default());
        let first = limits.enter(&metrics, true, false).await.unwrap();
        assert_eq!(metrics.reading.load(Relaxed), 1);
        let waiting: Vec<_> = (0..WAITING_PER_PLACE)
            .map(|_| {
                let (limits, metrics) = (limits.clone(), metrics.clone());
                tokio::spawn(async move {
                    limits.enter(&metrics, true, false).await.map(|_| ()).is_ok()
                })
            })
            .collect();
        while limits.reading.admitted.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = limits.enter(&metrics, true, false).await.err().unwrap();
        assert_eq!((refused.code, refused.retry_after_s()), (429, Some(1)));
        assert!(limits.enter(&metrics, true, true).await.is_ok());
        assert!(limits.enter(&metrics, false, false).await.is_ok());
        drop(first);
        for one in waiting {
            assert!(one.await.unwrap());
        }
        assert_eq!(metrics.reading.load(Relaxed), 0);
    }
}
