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

use crate::histogram::{Bounds, Counted, DURATIONS, EVENT_SIZES, Histogram, RESPONSE_SIZES};
use crate::resource::ResourceDef;

mod process;
mod sizes;
#[cfg(test)]
mod tests;

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

pub(super) struct Series {
    requests: AtomicU64,
    durations: Histogram,
    /// Without the time that a request stood in line, as service level indicators are reckoned.
    in_service: Histogram,
    /// Of reads alone.
    sizes: Histogram,
}

impl Default for Series {
    fn default() -> Series {
        Series {
            requests: AtomicU64::new(0),
            durations: Histogram::new(&DURATIONS),
            in_service: Histogram::new(&DURATIONS),
            sizes: Histogram::new(&RESPONSE_SIZES),
        }
    }
}

/// What one kind's watches carry. Shared by the watches of that kind.
pub(super) struct WatchCounters {
    pub(super) open: AtomicI64,
    pub(super) sizes: Histogram,
}

impl Default for WatchCounters {
    fn default() -> WatchCounters {
        WatchCounters { open: AtomicI64::new(0), sizes: Histogram::new(&EVENT_SIZES) }
    }
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
    /// Of which it stood in line for a place.
    pub(super) waited: Duration,
}

/// What others count themselves.
#[derive(Default)]
pub(super) struct EngineCounts {
    /// Group resource and number of objects.
    pub(super) objects: Vec<(String, usize)>,
    /// Those of them that the store has and nobody can read.
    pub(super) unreadable: Vec<(String, usize)>,
    pub(super) watches_closed_slow: u64,
    /// The resourceVersion that the cache has reached.
    pub(super) cache_version: u64,
    /// Of the audit log: events, and those that were not written.
    pub(super) audited: (u64, u64),
    /// Operations of the store by resource, in microseconds.
    pub(super) store_times: Vec<(&'static str, String, Counted)>,
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
        const UNREADABLE: &str = "apiserver_storage_unreadable_objects";
        family(text, UNREADABLE, "gauge", "Objects of the store that can't be read, by resource.");
        for (resource, count) in &self.unreadable {
            line(text, UNREADABLE, &[("resource", resource)], count);
        }
        const VERSION: &str = "apiserver_watch_cache_resource_version";
        family(text, VERSION, "gauge", "How far the watch cache is, the same for every resource.");
        for (resource, _) in &self.objects {
            let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
            let labels = [("group", group), ("resource", plural)];
            line(text, VERSION, &labels, self.cache_version);
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
        // Whatever the store is: dashboards look for this name.
        const STORE: &str = "etcd_request_duration_seconds";
        family(text, STORE, "histogram", "Time of the store's answers, by operation and resource.");
        for (operation, resource, times) in &self.store_times {
            histogram(text, STORE, &[("operation", operation), ("type", resource)], times);
        }
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
    const NAMES: [&str; 12] = [
        "status",
        "scale",
        "finalize",
        "binding",
        "kill",
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
    /// The series that it was counted in, for the size of its answer.
    pub(super) fn observe(&self, request: &Observation<'_>) -> Arc<Series> {
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
            all.entry(key).or_default().clone()
        });
        series.requests.fetch_add(1, Relaxed);
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        series.durations.observe(us(request.took));
        series.in_service.observe(us(request.took.saturating_sub(request.waited)));
        series
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
        // Kubernetes' histograms have no status: the series that differ in it are added up.
        let mut merged: HashMap<Key, Vec<&Series>> = HashMap::new();
        for (key, one) in series.iter().filter(|(key, _)| key.verb != "WATCH") {
            let key = Key { code: 0, dry_run: false, ..key.clone() };
            merged.entry(key).or_default().push(one);
        }
        type Of = fn(&Series) -> &Histogram;
        let families: [(&str, &'static Bounds, Of, &str); 3] = [
            (
                "apiserver_request_duration_seconds",
                &DURATIONS,
                |one| &one.durations,
                "Time from the whole request head to the answer, watches left out.",
            ),
            (
                "apiserver_request_sli_duration_seconds",
                &DURATIONS,
                |one| &one.in_service,
                "The same without the time that a request waited for its turn.",
            ),
            (
                "apiserver_response_sizes",
                &RESPONSE_SIZES,
                |one| &one.sizes,
                "Bytes of the answers to reads, watches left out.",
            ),
        ];
        for (name, bounds, of, help) in families {
            family(text, name, "histogram", help);
            for (key, parts) in &merged {
                let mut counted = Counted::none(bounds);
                parts.iter().for_each(|one| of(one).add_to(&mut counted));
                if counted.total() > 0 {
                    histogram(text, name, &labels(key), &counted);
                }
            }
        }
    }

    fn render_watches(&self, text: &mut String) {
        let watches: Vec<KindWatches> = self.watches.read().values().cloned().collect();
        for (name, kind, help) in [
            ("apiserver_longrunning_requests", "gauge", "Watches that are open now."),
            ("apiserver_longrunning_gauge", "gauge", "The same, by its old name."),
            ("apiserver_watch_events_total", "counter", "Events sent to watchers."),
            ("apiserver_watch_events_sizes", "histogram", "Bytes of the events sent to watchers."),
        ] {
            family(text, name, kind, help);
            for (def, counters) in &watches {
                let labels = [
                    ("group", def.group.as_str()),
                    ("version", def.version.as_str()),
                    ("resource", def.plural.as_str()),
                ];
                match name {
                    "apiserver_longrunning_requests" | "apiserver_longrunning_gauge" => {
                        let mut labels = labels.to_vec();
                        labels.push(("verb", "WATCH"));
                        line(text, name, &labels, counters.open.load(Relaxed));
                    }
                    "apiserver_watch_events_total" => {
                        line(text, name, &labels, counters.sizes.counted().total());
                    }
                    _ => histogram(text, name, &labels, &counters.sizes.counted()),
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

/// A bound in the unit that is shown, as Go writes numbers: label values are compared as text.
fn shown_bound(bound: u64, per_shown: f64) -> String {
    let shown = bound as f64 / per_shown;
    match shown < 1e6 {
        true => shown.to_string(),
        // Two digits at least.
        false => format!("{shown:e}").replace('e', "e+0"),
    }
}

fn histogram(text: &mut String, name: &str, labels: &[(&str, &str)], counted: &Counted) {
    let bounds = counted.bounds;
    let buckets = format!("{name}_bucket");
    let mut cumulative = 0;
    let ends = bounds.upper.iter().map(|bound| shown_bound(*bound, bounds.per_shown));
    for (end, count) in ends.chain(["+Inf".to_owned()]).zip(&counted.counts) {
        cumulative += count;
        let mut labels = labels.to_vec();
        labels.push(("le", end.as_str()));
        line(text, &buckets, &labels, cumulative);
    }
    line(text, &format!("{name}_sum"), labels, counted.sum as f64 / bounds.per_shown);
    line(text, &format!("{name}_count"), labels, cumulative);
}
