//! What the engine, its cache, its store and the audit log count themselves.

use super::{family, histogram, line};
use crate::cache::{EVENTS_MAX, Passed};
use crate::timed_store::Asked;

#[derive(Default)]
pub(in crate::http) struct EngineCounts {
    /// Group resource and number of objects.
    pub(in crate::http) objects: Vec<(String, usize)>,
    /// Those of them that the store has and nobody can read.
    pub(in crate::http) unreadable: Vec<(String, usize)>,
    pub(in crate::http) watches_closed_slow: u64,
    /// The resourceVersion that the cache has reached.
    pub(in crate::http) cache_version: u64,
    /// Group, resource, and what went through the cache of it.
    pub(in crate::http) traffic: Vec<(String, String, Passed)>,
    /// Of the audit log: events, and those that were not written.
    pub(in crate::http) audited: (u64, u64),
    pub(in crate::http) store: Vec<Asked>,
}

/// Name, type, what it says, and the number of one kind.
type Family = (&'static str, &'static str, &'static str, fn(&Passed) -> u64);

/// Counted for each kind.
const TRAFFIC: [Family; 11] = [
    (
        "apiserver_watch_cache_events_received_total",
        "counter",
        "Changes that came from the store.",
        |passed| passed.received,
    ),
    (
        "apiserver_watch_cache_events_dispatched_total",
        "counter",
        "Changes handed to the watchers.",
        |passed| passed.dispatched,
    ),
    (
        "apiserver_watch_cache_initializations_total",
        "counter",
        "How often everything was read from the store.",
        |passed| passed.loads,
    ),
    (
        "apiserver_watch_cache_capacity",
        "gauge",
        "Changes that are kept for watches that resume, at most.",
        |_| EVENTS_MAX as u64,
    ),
    ("apiserver_init_events_total", "counter", "Objects that watches began with.", |passed| {
        passed.initial
    }),
    ("apiserver_cache_list_total", "counter", "Lists from memory.", |passed| passed.cached[0]),
    (
        "apiserver_cache_list_fetched_objects_total",
        "counter",
        "Objects looked at for them.",
        |passed| passed.cached[1],
    ),
    (
        "apiserver_cache_list_returned_objects_total",
        "counter",
        "Objects that they showed.",
        |passed| passed.cached[2],
    ),
    (
        "apiserver_storage_list_total",
        "counter",
        "Pages of a past that only the store knows.",
        |passed| passed.past[0],
    ),
    (
        "apiserver_storage_list_fetched_objects_total",
        "counter",
        "Objects read from the store for them.",
        |passed| passed.past[1],
    ),
    (
        "apiserver_storage_list_returned_objects_total",
        "counter",
        "Objects of those that were selected.",
        |passed| passed.past[2],
    ),
];

impl EngineCounts {
    pub(super) fn render(&self, text: &mut String) {
        self.render_objects(text);
        for (name, kind, help, number) in TRAFFIC {
            family(text, name, kind, help);
            for (group, resource, passed) in &self.traffic {
                let labels = [("group", group.as_str()), ("resource", resource)];
                line(text, name, &labels, number(passed));
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
        self.render_store(text);
    }

    fn render_objects(&self, text: &mut String) {
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
    }

    /// Whatever the store is: dashboards look for these names.
    fn render_store(&self, text: &mut String) {
        const TIMES: &str = "etcd_request_duration_seconds";
        family(text, TIMES, "histogram", "Time of the store's answers, by operation and resource.");
        for asked in &self.store {
            histogram(text, TIMES, &labels(asked), &asked.times);
        }
        const ALL: &str = "etcd_requests_total";
        family(text, ALL, "counter", "Answers of the store, by operation and resource.");
        for asked in &self.store {
            line(text, ALL, &labels(asked), asked.times.total());
        }
        const FAILED: &str = "etcd_request_errors_total";
        family(text, FAILED, "counter", "Those of them that were failures of the store.");
        for asked in &self.store {
            line(text, FAILED, &labels(asked), asked.failed);
        }
    }
}

fn labels(asked: &Asked) -> [(&'static str, &str); 2] {
    [("operation", asked.operation), ("type", &asked.resource)]
}
