//! `/metrics`: the counters that dashboards made for kube-apiserver look for, as Prometheus text.
//!
//! Labels come from definitions and fixed sets alone, never from what a client sent, so their
//! number is bounded by the number of kinds.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::RwLock;

use crate::resource::ResourceDef;

mod process;

/// Upper bounds of the duration histogram, in milliseconds: kube-apiserver's, a little coarser.
const BUCKETS_MS: [u64; 16] =
    [5, 10, 25, 50, 100, 200, 400, 600, 800, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000, 60_000];

/// A definition, told apart by what its labels say: one that replaces another goes on with its
/// series.
#[derive(Clone)]
struct Named(Option<Arc<ResourceDef>>);

impl Named {
    fn names(&self) -> Option<(&str, &str, &str)> {
        let def = self.0.as_deref()?;
        Some((&def.group, &def.version, &def.plural))
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Named) -> bool {
        self.names() == other.names()
    }
}

impl Eq for Named {}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.names().hash(state);
    }
}

/// What a request is counted under.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    verb: &'static str,
    def: Named,
    subresource: &'static str,
    scope: &'static str,
    code: u16,
    dry_run: bool,
}

struct Series {
    requests: AtomicU64,
    /// Not cumulative; the last is everything beyond the bounds.
    buckets: [AtomicU64; BUCKETS_MS.len() + 1],
    sum_us: AtomicU64,
}

/// What one kind's watches carry. Shared by the watches of that kind.
#[derive(Default)]
pub(super) struct WatchCounters {
    pub(super) open: AtomicI64,
    pub(super) events: AtomicU64,
    pub(super) bytes: AtomicU64,
}

type KindWatches = (Arc<ResourceDef>, Arc<WatchCounters>);

/// A finished request, for [`Metrics::observe`].
pub(super) struct Observation<'a> {
    pub(super) verb: &'static str,
    pub(super) def: Option<&'a Arc<ResourceDef>>,
    pub(super) subresource: &'a str,
    pub(super) scope: &'static str,
    pub(super) code: u16,
    pub(super) dry_run: bool,
    pub(super) took: Duration,
}

/// What others count themselves.
#[derive(Default)]
pub(super) struct EngineCounts {
    /// Group resource and number of objects.
    pub(super) objects: Vec<(String, usize)>,
    pub(super) watches_closed_slow: u64,
    /// Of the audit log: events, and those that were not written.
    pub(super) audited: (u64, u64),
}

impl EngineCounts {
    fn render(&self, text: &mut String) {
        // The old name and the one that takes its place.
        for name in ["apiserver_storage_objects", "apiserver_resource_objects"] {
            family(text, name, "gauge", "Stored objects by resource.");
            for (resource, count) in &self.objects {
                let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
                match name {
                    "apiserver_storage_objects" => {
                        line(text, name, &[("resource", resource)], count);
                    }
                    _ => line(text, name, &[("group", group), ("resource", plural)], count),
                }
            }
        }
        const SLOW: &str = "apiserver_terminated_watchers_total";
        family(text, SLOW, "counter", "Watches closed because their client did not keep up.");
        line(text, SLOW, &[], self.watches_closed_slow);
        const AUDITED: &str = "apiserver_audit_event_total";
        family(text, AUDITED, "counter", "Events for the audit log.");
        line(text, AUDITED, &[], self.audited.0);
        const LOST: &str = "apiserver_audit_error_total";
        family(text, LOST, "counter", "Events that the audit log did not take.");
        line(text, LOST, &[("plugin", "log")], self.audited.1);
    }
}

#[derive(Default)]
pub(super) struct Metrics {
    series: RwLock<HashMap<Key, Arc<Series>>>,
    watches: RwLock<HashMap<Named, KindWatches>>,
    /// Callers that showed a token or a certificate, or nothing, and were believed; and the others.
    pub(super) authenticated: AtomicU64,
    pub(super) unauthenticated: AtomicU64,
    pub(super) reading: AtomicI64,
    pub(super) mutating: AtomicI64,
    pub(super) connections: AtomicI64,
    pub(super) connections_refused: AtomicU64,
    pub(super) requests_refused: AtomicU64,
    pub(super) panics: AtomicU64,
}

/// The known name, so that no client can make up labels.
fn known_subresource(def: Option<&Arc<ResourceDef>>, name: &str) -> &'static str {
    const NAMES: [&str; 11] = [
        "status",
        "scale",
        "finalize",
        "binding",
        "log",
        "accept",
        "decline",
        "token",
        "exec",
        "attach",
        "portforward",
    ];
    let known = NAMES.iter().find(|known| **known == name);
    known.filter(|_| def.is_some()).copied().unwrap_or_default()
}

impl Metrics {
    pub(super) fn observe(&self, request: &Observation<'_>) {
        let key = Key {
            verb: request.verb,
            def: Named(request.def.cloned()),
            subresource: known_subresource(request.def, request.subresource),
            scope: request.scope,
            code: request.code,
            dry_run: request.dry_run,
        };
        let found = self.series.read().get(&key).cloned();
        let series = found.unwrap_or_else(|| {
            let mut all = self.series.write();
            let series = all.entry(key).or_insert_with(|| {
                Arc::new(Series {
                    requests: AtomicU64::new(0),
                    buckets: Default::default(),
                    sum_us: AtomicU64::new(0),
                })
            });
            series.clone()
        });
        series.requests.fetch_add(1, Relaxed);
        let took_us = u64::try_from(request.took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_MS.partition_point(|bound| bound * 1000 < took_us);
        series.buckets[bucket].fetch_add(1, Relaxed);
        series.sum_us.fetch_add(took_us, Relaxed);
    }

    pub(super) fn watch_counters(&self, def: &Arc<ResourceDef>) -> Arc<WatchCounters> {
        let key = Named(Some(def.clone()));
        if let Some((_, found)) = self.watches.read().get(&key) {
            return found.clone();
        }
        let mut all = self.watches.write();
        let entry = all.entry(key).or_insert_with(|| (def.clone(), Arc::default()));
        entry.1.clone()
    }

    /// The whole text.
    pub(super) fn render(&self, engine: &EngineCounts) -> String {
        let mut text = String::with_capacity(64 * 1024);
        self.render_requests(&mut text);
        self.render_watches(&mut text);
        engine.render(&mut text);
        family(
            &mut text,
            "apiserver_current_inflight_requests",
            "gauge",
            "Requests being worked on now, watches left out.",
        );
        for (kind, count) in [("readOnly", &self.reading), ("mutating", &self.mutating)] {
            let count = count.load(Relaxed);
            line(
                &mut text,
                "apiserver_current_inflight_requests",
                &[("request_kind", kind)],
                count,
            );
        }
        for (name, help, value) in [
            (
                "apiserver_requests_refused_total",
                "Requests answered 429 because too many were in flight.",
                self.requests_refused.load(Relaxed),
            ),
            (
                "apiserver_connections_refused_total",
                "Connections closed because too many were open.",
                self.connections_refused.load(Relaxed),
            ),
            (
                "apiserver_request_panics_total",
                "Requests answered 500 because our code panicked.",
                self.panics.load(Relaxed),
            ),
        ] {
            family(&mut text, name, "counter", help);
            line(&mut text, name, &[], value);
        }
        const ATTEMPTS: &str = "authentication_attempts";
        family(&mut text, ATTEMPTS, "counter", "Requests, by whether their caller was believed.");
        for (result, count) in
            [("success", &self.authenticated), ("failure", &self.unauthenticated)]
        {
            line(&mut text, ATTEMPTS, &[("result", result)], count.load(Relaxed));
        }
        let connections = self.connections.load(Relaxed);
        family(&mut text, "apiserver_connections", "gauge", "Open TLS connections.");
        line(&mut text, "apiserver_connections", &[], connections);
        process::render(&mut text);
        text
    }

    fn render_requests(&self, text: &mut String) {
        let series: Vec<(Key, Arc<Series>)> = {
            let all = self.series.read();
            all.iter().map(|(key, one)| (key.clone(), one.clone())).collect()
        };
        family(
            text,
            "apiserver_request_total",
            "counter",
            "Requests answered, by verb, resource and HTTP status.",
        );
        for (key, one) in &series {
            let code = key.code.to_string();
            let dry_run = if key.dry_run { "All" } else { "" };
            let mut labels = labels(key).to_vec();
            labels.extend([("code", code.as_str()), ("dry_run", dry_run)]);
            let count = one.requests.load(Relaxed);
            line(text, "apiserver_request_total", &labels, count);
        }
        const DURATION: &str = "apiserver_request_duration_seconds";
        family(
            text,
            DURATION,
            "histogram",
            "Time from the whole request head to the answer, watches left out.",
        );
        // Kubernetes' histogram has no status: the series that differ in it are added up.
        let mut merged: HashMap<Key, Vec<&Arc<Series>>> = HashMap::new();
        for (key, one) in series.iter().filter(|(key, _)| key.verb != "WATCH") {
            let key = Key { code: 0, dry_run: false, ..key.clone() };
            merged.entry(key).or_default().push(one);
        }
        for (key, parts) in &merged {
            let sum = |of: &dyn Fn(&Series) -> u64| parts.iter().map(|one| of(one)).sum::<u64>();
            let labels = labels(key);
            let mut cumulative = 0;
            for (at, bound) in BUCKETS_MS.iter().enumerate() {
                cumulative += sum(&|one| one.buckets[at].load(Relaxed));
                let bound = (*bound as f64 / 1000.0).to_string();
                let mut labels = labels.to_vec();
                labels.push(("le", bound.as_str()));
                line(text, &format!("{DURATION}_bucket"), &labels, cumulative);
            }
            cumulative += sum(&|one| one.buckets[BUCKETS_MS.len()].load(Relaxed));
            let mut all = labels.to_vec();
            all.push(("le", "+Inf"));
            line(text, &format!("{DURATION}_bucket"), &all, cumulative);
            let seconds = sum(&|one| one.sum_us.load(Relaxed)) as f64 / 1e6;
            line(text, &format!("{DURATION}_sum"), &labels, seconds);
            line(text, &format!("{DURATION}_count"), &labels, cumulative);
        }
    }

    fn render_watches(&self, text: &mut String) {
        let watches: Vec<KindWatches> = self.watches.read().values().cloned().collect();
        for (name, kind, help) in [
            ("apiserver_longrunning_requests", "gauge", "Watches that are open now."),
            ("apiserver_watch_events_total", "counter", "Events sent to watchers."),
            ("apiserver_watch_events_bytes_total", "counter", "Bytes of events sent to watchers."),
        ] {
            family(text, name, kind, help);
            for (def, counters) in &watches {
                let labels = [
                    ("group", def.group.as_str()),
                    ("version", def.version.as_str()),
                    ("resource", def.plural.as_str()),
                ];
                match name {
                    "apiserver_longrunning_requests" => {
                        let mut labels = labels.to_vec();
                        labels.push(("verb", "WATCH"));
                        line(text, name, &labels, counters.open.load(Relaxed));
                    }
                    "apiserver_watch_events_total" => {
                        line(text, name, &labels, counters.events.load(Relaxed));
                    }
                    _ => line(text, name, &labels, counters.bytes.load(Relaxed)),
                }
            }
        }
    }
}

fn labels(key: &Key) -> [(&'static str, &str); 7] {
    let def = key.def.0.as_deref();
    [
        ("verb", key.verb),
        ("group", def.map_or("", |def| &def.group)),
        ("version", def.map_or("", |def| &def.version)),
        ("resource", def.map_or("", |def| &def.plural)),
        ("subresource", key.subresource),
        ("scope", key.scope),
        ("component", "apiserver"),
    ]
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    text.push_str(name);
    for (at, (key, value)) in labels.iter().enumerate() {
        text.push(if at == 0 { '{' } else { ',' });
        let _ = write!(text, "{key}=\"{value}\"");
    }
    if !labels.is_empty() {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_that_replaces_another_goes_on_with_its_series() {
        let metrics = Metrics::default();
        for _ in 0..2 {
            metrics.observe(&Observation {
                verb: "GET",
                def: Some(&Arc::new(crate::resource::tests::task_def())),
                subresource: "",
                scope: "resource",
                code: 200,
                dry_run: false,
                took: Duration::from_millis(1),
            });
        }
        let text = metrics.render(&EngineCounts::default());
        let counted = text.lines().filter(|line| line.starts_with("apiserver_request_total{"));
        let counted: Vec<&str> = counted.collect();
        assert!(matches!(counted[..], [line] if line.ends_with(" 2")), "{counted:?}");
    }

    #[test]
    fn requests_are_counted_and_timed() {
        let metrics = Metrics::default();
        for (code, ms) in [(200, 3), (200, 30), (404, 100_000)] {
            metrics.observe(&Observation {
                verb: "GET",
                def: None,
                subresource: "made-up",
                scope: "",
                code,
                dry_run: false,
                took: Duration::from_millis(ms),
            });
        }
        let text = metrics.render(&EngineCounts::default());
        assert!(text.contains(
            "apiserver_request_total{verb=\"GET\",group=\"\",version=\"\",resource=\"\",\
             subresource=\"\",scope=\"\",component=\"apiserver\",code=\"200\",dry_run=\"\"} 2\n"
        ));
        assert!(text.contains("le=\"0.005\"} 1\n"), "{text}");
        assert!(text.contains("le=\"60\"} 2\n"));
        assert!(text.contains("le=\"+Inf\"} 3\n"));
        assert!(!text.contains("made-up"));
        assert!(text.contains("process_resident_memory_bytes "));
    }
}
