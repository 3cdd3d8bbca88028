//! Mesos' metrics, by its names, as far as they say what the allocator has decided.

use std::collections::{BTreeMap, BTreeSet};

use crate::replay::bag::{Bag, queue_of, role_of};
use crate::replay::cluster::Cluster;

const ALWAYS: [&str; 4] = ["cpus", "mem", "disk", "gpus"];

/// All that there is now.
pub(super) fn all(cluster: &Cluster) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    let mut set =
        |name: String, value: f64| metrics.insert(format!("allocator/mesos/{name}"), value);
    for resource in ALWAYS {
        let total: f64 = cluster.agents.values().map(|book| book.total.quantity(resource)).sum();
        let there =
            cluster.held.iter().filter(|(holder, _)| cluster.agents.contains_key(&holder.2));
        let held: f64 = there.map(|(_, bag)| bag.quantity(resource)).sum();
        set(format!("resources/{resource}/total"), total);
        set(format!("resources/{resource}/offered_or_allocated"), held);
    }
    set("allocation_runs".to_owned(), cluster.runs as f64);
    // Here whoever triggers a run waits for it, so none is ever late.
    let late = vec![0.0; cluster.run_ms.len()];
    for (name, series) in
        [("allocation_run_ms", &cluster.run_ms), ("allocation_run_latency_ms", &late)]
    {
        for (what, value) in statistics(series) {
            set(format!("{name}{what}"), value);
        }
    }
    for (role, book) in &cluster.roles {
        for (what, quantities) in [("guarantee", &book.guarantees), ("limit", &book.limits)] {
            for (resource, number) in quantities.iter().flatten() {
                set(format!("quota/roles/{role}/resources/{resource}/{what}"), *number);
            }
        }
        let names: BTreeSet<&String> = (book.guarantees.iter().flatten())
            .chain(book.limits.iter().flatten())
            .map(|(resource, _)| resource)
            .collect();
        for resource in names {
            let name = format!("quota/roles/{role}/resources/{resource}/offered_or_allocated");
            set(name, used(cluster, role, resource));
        }
    }
    let refusals = cluster.allocator.refusals(cluster.now_ms);
    for usage in cluster.allocator.queue_usage() {
        let role = role_of(&usage.queue);
        if let Some(share) = cluster.allocator.competing_share(&usage.queue) {
            set(format!("roles/{role}/shares/dominant"), share);
            let count = refusals.get(&*usage.queue).copied().unwrap_or_default();
            set(format!("offer_filters/roles/{role}/active"), count as f64);
        }
    }
    metrics
}

/// The last value of a series, and what is said of all of them once there are two.
fn statistics(series: &[f64]) -> Vec<(&'static str, f64)> {
    let Some(last) = series.last() else { return Vec::new() };
    let mut all = vec![("", *last)];
    if series.len() > 1 {
        let mut sorted = series.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |part: f64| sorted[((sorted.len() - 1) as f64 * part).round() as usize];
        all.extend([
            ("/count", series.len() as f64),
            ("/min", at(0.0)),
            ("/max", at(1.0)),
            ("/p50", at(0.5)),
            ("/p90", at(0.9)),
            ("/p95", at(0.95)),
            ("/p99", at(0.99)),
            ("/p999", at(0.999)),
            ("/p9999", at(0.9999)),
        ]);
    }
    all
}

fn used(cluster: &Cluster, role: &str, resource: &str) -> f64 {
    let queue = queue_of(role);
    let mut sum = Bag::default();
    for (holder, bag) in &cluster.held {
        let path = queue_of(&holder.1);
        let below = path.strip_prefix(&*queue).is_some_and(|rest| rest.starts_with('.'));
        if path == queue || below {
            sum.add(bag);
        }
    }
    sum.quantity(resource)
}

/// Names that are there although `absent` says that they are not. A name may be short for its end
/// (`.../cpus/limit`), or stand for all names that the case has said (`all four keys`).
pub(super) fn there_after_all(
    metrics: &BTreeMap<String, f64>,
    absent: &[String],
    said: &BTreeSet<String>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let there = |wanted: &str| is_there(metrics, wanted);
    for name in absent {
        if name.starts_with("all ") && name.ends_with(" keys") {
            wrong.extend(said.iter().filter(|name| there(name)).cloned());
        } else if there(name) {
            wrong.push(name.clone());
        }
    }
    wrong
}

/// Whether there is one of that name, or with that end.
pub(super) fn is_there(metrics: &BTreeMap<String, f64>, wanted: &str) -> bool {
    match wanted.strip_prefix("...") {
        Some(end) => metrics.keys().any(|key| key.ends_with(end)),
        None => metrics.contains_key(wanted),
    }
}
