//! An allocator case from its first step to its last, with what must be so after each.

use std::collections::{BTreeMap, BTreeSet};

use crate::replay::bag::queue_of;
use crate::replay::cluster::Cluster;
use crate::replay::format::{Case, Expected, OfferText};
use crate::replay::{Outcome, matching, metrics, told, verdict};

/// Shares and metrics are told to that many places.
pub(super) const TOLERANCE: f64 = 1e-9;

struct Check {
    cluster: Cluster,
    wrong: Vec<String>,
    /// Metrics that the case has named.
    said: BTreeSet<String>,
}

pub(super) fn play(case: &Case) -> Result<Outcome, String> {
    if !case.clients.is_empty() || !case.weights.is_empty() {
        return Err("clients, weights: only of kind random_sorter".to_owned());
    }
    let mut check =
        Check { cluster: Cluster::new(case)?, wrong: Vec::new(), said: BTreeSet::new() };
    check.cluster.master = case.kind == "master";
    let mut plan = Vec::new();
    check.after(0, case);
    for (at, op) in case.steps.iter().enumerate() {
        let number = at + 1;
        check.cluster.step(op).map_err(|wrong| format!("step {number}: {wrong}"))?;
        if case.expected.is_empty() {
            plan.extend(told::step(number, &mut check.cluster));
        }
        check.after(number, case);
    }
    Ok(verdict(case, check.wrong, plan))
}

impl Check {
    fn after(&mut self, number: usize, case: &Case) {
        let last = case.steps.len();
        let now = |expected: &&Expected| expected.after_step.unwrap_or(last) == number;
        for expected in case.expected.iter().filter(now) {
            let before = self.wrong.len();
            self.compare(expected);
            for wrong in &mut self.wrong[before..] {
                *wrong = format!("after step {number}: {wrong}");
            }
        }
    }

    fn compare(&mut self, expected: &Expected) {
        self.compare_offers(expected);
        if let Some(inverse) = &expected.inverse_offers {
            let asked = std::mem::take(&mut self.cluster.inverse);
            if !matching::same_inverse(inverse, &asked) {
                let wanted: Vec<String> = inverse.iter().map(matching::told_inverse).collect();
                self.differs("inverse_offers", &wanted, &told::inverse(&asked));
            }
        }
        for (role, wanted) in expected.dominant_share.iter().flatten() {
            let share = self.cluster.allocator.competing_share(&queue_of(role));
            let same = match (wanted, share) {
                (Some(wanted), Some(share)) => (wanted - share).abs() < TOLERANCE,
                (wanted, share) => wanted.is_none() && share.is_none(),
            };
            if !same {
                self.wrong
                    .push(format!("dominant_share of {role}: {wanted:?} expected, {share:?}"));
            }
        }
        let refusals = self.cluster.allocator.refusals(self.cluster.now_ms);
        for (role, wanted) in expected.active_offer_filters.iter().flatten() {
            let count = refusals.get(&*queue_of(role)).copied().unwrap_or_default();
            if count != *wanted {
                self.wrong
                    .push(format!("active_offer_filters of {role}: {wanted} expected, {count}"));
            }
        }
        self.compare_metrics(expected);
        self.compare_rescinded(expected);
        if let Some(wanted) = &expected.result
            && self.cluster.result.as_ref() != Some(wanted)
        {
            let result = self.cluster.result.as_deref().unwrap_or("none");
            self.wrong.push(format!("result: {wanted} expected, {result}"));
        }
    }

    fn compare_offers(&mut self, expected: &Expected) {
        if expected.offers.is_none() && expected.totals.is_none() {
            return;
        }
        let offered = std::mem::take(&mut self.cluster.offered);
        let words = |texts: &[OfferText]| texts.iter().map(matching::told).collect::<Vec<_>>();
        if let Some(offers) = &expected.offers
            && !matching::same(offers, &offered, true)
        {
            self.differs("offers", &words(offers), &told::offers(&offered));
        }
        let sums = matching::totals(&offered);
        if let Some(totals) = &expected.totals
            && !matching::same(totals, &sums, false)
        {
            self.differs("totals", &words(totals), &told::offers(&sums));
        }
    }

    fn compare_rescinded(&mut self, expected: &Expected) {
        if expected.rescinded.is_none() && expected.rescinded_offers_at_least.is_none() {
            return;
        }
        let mut came = std::mem::take(&mut self.cluster.rescinded);
        came.sort_unstable();
        if let Some(least) = expected.rescinded_offers_at_least
            && came.len() < least
        {
            self.wrong.push(format!("rescinded: at least {least} offers expected, {}", came.len()));
        }
        if let Some(wanted) = &expected.rescinded {
            let mut wanted = wanted.clone();
            wanted.sort_unstable();
            if wanted != came {
                self.differs("rescinded", &wanted, &came);
            }
        }
    }

    fn compare_metrics(&mut self, expected: &Expected) {
        let wanted: BTreeMap<&String, &Option<f64>> = expected.metrics.iter().flatten().collect();
        let absent = expected.metrics_absent.as_deref().unwrap_or_default();
        let present = expected.metrics_present.as_deref().unwrap_or_default();
        if wanted.is_empty() && absent.is_empty() && present.is_empty() {
            return;
        }
        let metrics = metrics::all(&self.cluster);
        for (name, wanted) in wanted {
            self.said.insert(name.clone());
            let value = metrics.get(name);
            let same = match (value, wanted) {
                (Some(value), Some(wanted)) => (value - wanted).abs() < TOLERANCE,
                (value, wanted) => value.is_none() && wanted.is_none(),
            };
            if !same {
                let wanted = wanted.map_or_else(|| "none".to_owned(), |wanted| wanted.to_string());
                self.wrong.push(format!("metric {name}: {wanted} expected, {value:?}"));
            }
        }
        for name in present.iter().filter(|name| !metrics::is_there(&metrics, name)) {
            self.wrong.push(format!("metric {name} should be there"));
        }
        self.said.extend(present.iter().cloned());
        let there = metrics::there_after_all(&metrics, absent, &self.said);
        self.wrong.extend(there.into_iter().map(|name| format!("metric {name} should be absent")));
        self.said.extend(absent.iter().filter(|name| !name.starts_with("all ")).cloned());
    }

    fn differs(&mut self, what: &str, wanted: &[String], came: &[String]) {
        let list = |all: &[String]| match all {
            [] => "none".to_owned(),
            all => all.join("; "),
        };
        self.wrong.push(format!("{what}: expected {}; came {}", list(wanted), list(came)));
    }
}
