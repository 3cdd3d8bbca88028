//! `/metrics`: the counters that dashboards made for kube-apiserver look for, as Prometheus text.
//!
//! Labels come from definitions and fixed sets alone, never from what a client sent, so their
//! number is bounded by the number of kinds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::RwLock;

use crate::discovery;
use crate::histogram::{Bounds, Counted, DURATIONS, EVENT_SIZES, Histogram, RESPONSE_SIZES};
use crate::resource::ResourceDef;

mod access;
mod engine;
mod process;
mod sizes;
#[cfg(test)]
mod tests;
mod text;

pub(super) use engine::EngineCounts;
use text::{family, histogram, line};

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

#[derive(Default)]
pub(super) struct Metrics {
    series: RwLock<HashMap<Key, Arc<Series>>>,
    watches: RwLock<HashMap<Named, KindWatches>>,
    pub(super) reading: AtomicI64,
    pub(super) mutating: AtomicI64,
    pub(super) connections: AtomicI64,
    pub(super) connections_refused: AtomicU64,
    pub(super) streams_reset: AtomicU64,
    /// For want of a place: reads and writes.
    pub(super) dropped: [AtomicU64; 2],
    pub(super) handshakes_failed: AtomicU64,
    pub(super) panics: AtomicU64,
    /// Of the control plane's own parts in this process, by status and method.
    own_requests: RwLock<BTreeMap<(u16, &'static str), AtomicU64>>,
    pub(super) access: access::AccessTimes,
}

/// The known name, so that no client can make up labels.
fn known_subresource(def: Option<&Arc<ResourceDef>>, name: &str) -> &'static str {
    const NAMES: [&str; 13] = [
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
        "sandbox",
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

    /// A client in this process was answered.
    pub(super) fn own_request(&self, code: u16, method: &'static str) {
        if let Some(count) = self.own_requests.read().get(&(code, method)) {
            count.fetch_add(1, Relaxed);
            return;
        }
        let mut all = self.own_requests.write();
        all.entry((code, method)).or_default().fetch_add(1, Relaxed);
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
        const DROPPED: &str = "apiserver_dropped_requests_total";
        let help = "Requests answered 429 because too many were in flight.";
        family(&mut text, DROPPED, "counter", help);
        for (kind, count) in ["readOnly", "mutating"].iter().zip(&self.dropped) {
            line(&mut text, DROPPED, &[("request_kind", kind)], count.load(Relaxed));
        }
        for (name, help, value) in [
            (
                "apiserver_tls_handshake_errors_total",
                "Connections that did not become TLS.",
                self.handshakes_failed.load(Relaxed),
            ),
            (
                "apiserver_connections_refused_total",
                "Connections closed because too many were open.",
                self.connections_refused.load(Relaxed),
            ),
            (
                "apiserver_streams_reset_total",
                "Streams of HTTP/2 given up because their clients took nothing of the answer.",
                self.streams_reset.load(Relaxed),
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
        const OWN: &str = "rest_client_requests_total";
        family(&mut text, OWN, "counter", "Requests of the controllers in this process.");
        for ((code, method), count) in &*self.own_requests.read() {
            let code = code.to_string();
            let labels = [("code", code.as_str()), ("host", "in-process"), ("method", method)];
            line(&mut text, OWN, &labels, count.load(Relaxed));
        }
        self.access.render(&mut text);
        build_info(&mut text);
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
        const ENDED: &str = "apiserver_request_terminations_total";
        let help = "Requests that the server broke off or turned away to protect itself.";
        family(text, ENDED, "counter", help);
        for (key, one) in series.iter().filter(|(key, _)| matches!(key.code, 429 | 504)) {
            let code = key.code.to_string();
            let mut labels = labels(key).to_vec();
            labels.push(("code", &code));
            line(text, ENDED, &labels, one.requests.load(Relaxed));
        }
        const DEPRECATED: &str = "apiserver_requested_deprecated_apis";
        family(text, DEPRECATED, "gauge", "Deprecated versions that somebody has asked for.");
        let deprecated = series.iter().filter_map(|(key, _)| {
            let def = key.def.0.as_ref().filter(|def| def.deprecation.is_some())?;
            Some((&def.group, &def.version, &def.plural, key.subresource))
        });
        for (group, version, resource, subresource) in deprecated.collect::<BTreeSet<_>>() {
            let labels = [
                ("group", group.as_str()),
                ("version", version),
                ("resource", resource),
                ("subresource", subresource),
                ("removed_release", ""),
            ];
            line(text, DEPRECATED, &labels, 1);
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

/// Which Kubernetes this claims to be, for whoever groups servers by it.
fn build_info(text: &mut String) {
    const NAME: &str = "kubernetes_build_info";
    let version: serde_json::Value =
        serde_json::from_slice(&discovery::version()).unwrap_or_default();
    let said = |field: &str| version[field].as_str().unwrap_or_default().to_owned();
    let names = ["major", "minor", "gitVersion", "gitCommit", "buildDate", "platform"];
    let labels = ["major", "minor", "git_version", "git_commit", "build_date", "platform"];
    let values = names.map(said);
    let labels: Vec<(&str, &str)> =
        labels.into_iter().zip(values.iter().map(String::as_str)).collect();
    family(text, NAME, "gauge", "One, with what the server says of its version.");
    line(text, NAME, &labels, 1);
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
