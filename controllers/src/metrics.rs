//! What the controllers count, in Prometheus' text form, and the page that shows it.
//!
//! There is one allocator in a process, so these are the process' own. Numbers that grow are counted
//! where it happens; what is held now is written down once per turn of the statuses.

pub(crate) mod workqueue;

use std::{
    fmt::Write as _,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, http::header, routing::get};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// For the head of a request, from the moment the server waits for one.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Of a connection. A page is some kilobytes, and whoever wants one more often connects anew.
const LIFE_TIME_MAX: Duration = Duration::from_secs(300);
/// At once: a few who collect metrics, and people.
const CONNECTIONS_MAX: usize = 64;

/// Upper bounds of the buckets of a run's duration, in microseconds.
const RUN_BOUNDS_US: [u64; 13] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::default);

#[derive(Default)]
struct Metrics {
    run_buckets: [AtomicU64; RUN_BOUNDS_US.len() + 1],
    run_us: AtomicU64,
    turn_us: AtomicU64,
    turns: AtomicU64,
    offers: [AtomicU64; OUTCOMES.len()],
    bindings: AtomicU64,
    preemptions: AtomicU64,
    now: Mutex<Vec<QueueNow>>,
    waiting: AtomicU64,
}

/// How offers begin and end.
#[derive(Clone, Copy)]
pub(crate) enum OfferOutcome {
    Made,
    Accepted,
    Declined,
    Rescinded,
    Expired,
}

const OUTCOMES: [&str; 5] = ["made", "accepted", "declined", "rescinded", "expired"];

/// What a queue has now.
pub(crate) struct QueueNow {
    pub(crate) queue: String,
    pub(crate) share: f64,
    pub(crate) pending: u64,
    pub(crate) filters: u64,
    /// Resource, held by tasks, held by offers; in cores, bytes, pieces.
    pub(crate) held: Vec<(String, f64, f64)>,
}

/// One run of the allocator.
pub(crate) fn ran(took: Duration) {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let bucket = RUN_BOUNDS_US.partition_point(|bound| *bound < us);
    METRICS.run_buckets[bucket].fetch_add(1, Relaxed);
    METRICS.run_us.fetch_add(us, Relaxed);
}

/// One run with everything that it decided carried out.
pub(crate) fn carried_out(took: Duration) {
    METRICS.turns.fetch_add(1, Relaxed);
    METRICS.turn_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
}

pub(crate) fn offer(outcome: OfferOutcome) {
    METRICS.offers[outcome as usize].fetch_add(1, Relaxed);
}

pub(crate) fn decided(bindings: usize, preemptions: usize) {
    METRICS.bindings.fetch_add(bindings as u64, Relaxed);
    METRICS.preemptions.fetch_add(preemptions as u64, Relaxed);
}

/// What is now, of every queue.
pub(crate) fn now(queues: Vec<QueueNow>, waiting: usize) {
    *METRICS.now.lock().unwrap_or_else(PoisonError::into_inner) = queues;
    METRICS.waiting.store(waiting as u64, Relaxed);
}

/// Everything, as Prometheus reads it.
#[must_use]
pub fn text() -> String {
    let mut out = String::with_capacity(4096);
    // Writing to a String can't fail.
    let _ = write_runs(&mut out)
        .and_then(|()| write_counts(&mut out))
        .and_then(|()| write_queues(&mut out))
        .and_then(|()| workqueue::write(&mut out));
    out
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn write_runs(out: &mut String) -> std::fmt::Result {
    let name = "commonage_allocator_run_duration_seconds";
    head(out, name, "histogram", "How long the allocator takes to decide.")?;
    let mut total = 0;
    for (place, bucket) in METRICS.run_buckets.iter().enumerate() {
        total += bucket.load(Relaxed);
        match RUN_BOUNDS_US.get(place) {
            Some(bound) => {
                writeln!(out, "{name}_bucket{{le=\"{}\"}} {total}", *bound as f64 / 1e6)?
            }
            None => writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {total}")?,
        }
    }
    writeln!(
        out,
        "{name}_sum {}\n{name}_count {total}",
        METRICS.run_us.load(Relaxed) as f64 / 1e6
    )?;
    let runs = "commonage_allocator_runs_total";
    head(out, runs, "counter", "Runs of the allocator.")?;
    writeln!(out, "{runs} {total}")?;
    let turn = "commonage_allocator_turn_duration_seconds";
    head(out, turn, "summary", "How long a run takes with the writes that carry it out.")?;
    let (sum, count) = (METRICS.turn_us.load(Relaxed) as f64 / 1e6, METRICS.turns.load(Relaxed));
    writeln!(out, "{turn}_sum {sum}\n{turn}_count {count}")
}

fn write_counts(out: &mut String) -> std::fmt::Result {
    let offers = "commonage_allocator_offers_total";
    head(out, offers, "counter", "Offers by what became of them.")?;
    for (outcome, count) in OUTCOMES.iter().zip(&METRICS.offers) {
        writeln!(out, "{offers}{{outcome=\"{outcome}\"}} {}", count.load(Relaxed))?;
    }
    let counts = [
        ("commonage_allocator_bindings_total", "counter", "Tasks placed.", &METRICS.bindings),
        (
            "commonage_allocator_preemptions_total",
            "counter",
            "Tasks killed for others.",
            &METRICS.preemptions,
        ),
        (
            "commonage_allocator_tasks_waiting",
            "gauge",
            "Tasks that wait and have an explanation.",
            &METRICS.waiting,
        ),
    ];
    for (name, kind, help, count) in counts {
        head(out, name, kind, help)?;
        writeln!(out, "{name} {}", count.load(Relaxed))?;
    }
    Ok(())
}

fn write_queues(out: &mut String) -> std::fmt::Result {
    let queues = METRICS.now.lock().unwrap_or_else(PoisonError::into_inner);
    type Column = (&'static str, &'static str, fn(&QueueNow) -> f64);
    let columns: [Column; 3] = [
        (
            "commonage_queue_dominant_share",
            "Largest share that the queue holds of any one resource, 0 to 1.",
            |queue| queue.share,
        ),
        ("commonage_queue_tasks_pending", "Tasks that wait.", |queue| queue.pending as f64),
        ("commonage_allocator_offer_filters", "Refusals that hold offers back now.", |queue| {
            queue.filters as f64
        }),
    ];
    for (name, help, value) in columns {
        head(out, name, "gauge", help)?;
        for queue in queues.iter() {
            writeln!(out, "{name}{{queue=\"{}\"}} {}", queue.queue, value(queue))?;
        }
    }
    for (name, help, offered) in [
        ("commonage_queue_allocated", "Held by tasks: cores, bytes, pieces.", false),
        ("commonage_queue_offered", "Held by outstanding offers: cores, bytes, pieces.", true),
    ] {
        head(out, name, "gauge", help)?;
        for queue in queues.iter() {
            for (resource, by_tasks, by_offers) in &queue.held {
                let value = if offered { by_offers } else { by_tasks };
                let queue = &queue.queue;
                writeln!(out, "{name}{{queue=\"{queue}\",resource=\"{resource}\"}} {value}")?;
            }
        }
    }
    Ok(())
}

/// Serves `/metrics` (and `/healthz`) until `shutdown`.
pub async fn serve(listener: TcpListener, shutdown: CancellationToken) {
    serve_within(listener, shutdown, HEAD_TIME_MAX).await;
}

/// Whoever takes longer over asking is hung up on, and so are those who come when too many are there.
async fn serve_within(listener: TcpListener, shutdown: CancellationToken, patience: Duration) {
    let page = || async { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text()) };
    let routes = Router::new().route("/metrics", get(page)).route("/healthz", get(async || "ok"));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely: the pause keeps the loop from spinning.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let (routes, stop) = (routes.clone(), shutdown.clone());
        connections.spawn(async move {
            let _slot = slot;
            let mut builder = auto::Builder::new(TokioExecutor::new());
            // Without a timer hyper ignores the time-out.
            builder.http1().timer(TokioTimer::new()).header_read_timeout(patience);
            let service = TowerToHyperService::new(routes);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            // How it ended is the client's business.
            let _ = stop.run_until_cancelled(tokio::time::timeout(LIFE_TIME_MAX, connection)).await;
        });
    }
    connections.close();
    connections.wait().await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn who_asks_slowly_is_hung_up_on_and_others_are_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving =
            tokio::spawn(serve_within(listener, stop.clone(), Duration::from_millis(200)));
        let patience = Duration::from_secs(30);
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /metrics HTTP/1.1\r\nHo").await.unwrap();
        let mut said = Vec::new();
        // The end of the connection, with a word or without one.
        let _ = tokio::time::timeout(patience, slow.read_to_end(&mut said)).await.unwrap();
        let mut quick = TcpStream::connect(address).await.unwrap();
        quick
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        quick.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
        // Nobody who is still there holds up the end.
        let _idle = TcpStream::connect(address).await.unwrap();
        stop.cancel();
        tokio::time::timeout(patience, serving).await.unwrap().unwrap();
    }

    #[test]
    fn every_sample_stands_below_its_head() {
        ran(Duration::from_micros(700));
        offer(OfferOutcome::Declined);
        now(
            vec![QueueNow {
                queue: "eng.web".to_owned(),
                share: 0.25,
                pending: 3,
                filters: 1,
                held: vec![("cpu".to_owned(), 2.5, 1.0)],
            }],
            3,
        );
        let text = text();
        for line in [
            "commonage_allocator_run_duration_seconds_bucket{le=\"0.001\"} 1",
            "commonage_allocator_runs_total 1",
            "commonage_allocator_offers_total{outcome=\"declined\"} 1",
            "commonage_queue_dominant_share{queue=\"eng.web\"} 0.25",
            "commonage_queue_allocated{queue=\"eng.web\",resource=\"cpu\"} 2.5",
            "commonage_allocator_offer_filters{queue=\"eng.web\"} 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
        let heads = |of: &str| text.lines().filter(|line| line.starts_with(of)).count();
        assert_eq!(heads("# TYPE"), heads("# HELP"));
    }
}
