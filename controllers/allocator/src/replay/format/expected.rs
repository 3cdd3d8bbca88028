//! What a scenario file expects after a step.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::replay::bag::Item;

/// Fields by name, and whether something is said in each.
type Fields<'f> = &'f [(&'static str, bool)];

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::replay) struct Expected {
    /// After the last one, if it does not say.
    pub(in crate::replay) after_step: Option<usize>,
    pub(in crate::replay) offers: Option<Vec<OfferText>>,
    pub(in crate::replay) totals: Option<Vec<OfferText>>,
    pub(in crate::replay) inverse_offers: Option<Vec<InverseText>>,
    pub(in crate::replay) dominant_share: Option<BTreeMap<String, Option<f64>>>,
    pub(in crate::replay) active_offer_filters: Option<BTreeMap<String, u64>>,
    /// Of those that are not there: null.
    pub(in crate::replay) metrics: Option<BTreeMap<String, Option<f64>>>,
    pub(in crate::replay) metrics_absent: Option<Vec<String>>,
    /// Those that are there, whatever their value is.
    pub(in crate::replay) metrics_present: Option<Vec<String>>,
    pub(in crate::replay) result: Option<String>,
    pub(in crate::replay) prose: Option<String>,
    pub(in crate::replay) rescinded: Option<Vec<String>>,
    pub(in crate::replay) rescinded_offers_at_least: Option<usize>,
    #[serde(rename = "reason")]
    _reason: Option<Value>,
    pub(in crate::replay) order: Option<Vec<String>>,
    /// Clients of a sorter, active or not.
    pub(in crate::replay) count: Option<usize>,
    pub(in crate::replay) contains: Option<BTreeMap<String, bool>>,
    pub(in crate::replay) shares: Option<BTreeMap<String, f64>>,
    pub(in crate::replay) probability_of_client_i_at_position_j: Option<Vec<Vec<f64>>>,
    pub(in crate::replay) absolute_tolerance: Option<f64>,
    #[serde(rename = "note", alias = "notes", alias = "comment")]
    _note: Option<Value>,
    #[serde(skip)]
    pub(in crate::replay) raw: Value,
}

impl Expected {
    /// One whose fields are looked at by whoever plays the case.
    pub(in crate::replay) fn raw(raw: Value) -> Self {
        Self { raw, ..Self::default() }
    }

    /// `after_step` of one that is looked at by whoever plays the case.
    pub(in crate::replay) fn raw_after_step(&self) -> Option<usize> {
        self.raw["after_step"].as_u64().and_then(|after| usize::try_from(after).ok())
    }

    /// What is expected that a case of this kind has nothing to say about.
    pub(in crate::replay) fn out_of_place(&self, kind: &str) -> Vec<&'static str> {
        let of_an_allocator = [
            ("offers", self.offers.is_some()),
            ("totals", self.totals.is_some()),
            ("inverse_offers", self.inverse_offers.is_some()),
            ("dominant_share", self.dominant_share.is_some()),
            ("active_offer_filters", self.active_offer_filters.is_some()),
            ("metrics", self.metrics.is_some()),
            ("metrics_absent", self.metrics_absent.is_some()),
            ("metrics_present", self.metrics_present.is_some()),
            ("result", self.result.is_some()),
        ];
        let of_a_master = [
            ("rescinded", self.rescinded.is_some()),
            ("rescinded_offers_at_least", self.rescinded_offers_at_least.is_some()),
        ];
        let of_a_sorter = [
            ("order", self.order.is_some()),
            ("count", self.count.is_some()),
            ("contains", self.contains.is_some()),
            ("shares", self.shares.is_some()),
        ];
        let probability = "probability_of_client_i_at_position_j";
        let of_chance = [
            (probability, self.probability_of_client_i_at_position_j.is_some()),
            ("absolute_tolerance", self.absolute_tolerance.is_some()),
        ];
        let all: [(&[&str], Fields<'_>); 4] = [
            (&["allocator", "master"], &of_an_allocator),
            (&["master"], &of_a_master),
            (&["sorter"], &of_a_sorter),
            (&["random_sorter"], &of_chance),
        ];
        let strange = all.into_iter().filter(|(kinds, _)| !kinds.contains(&kind));
        let said = strange.flat_map(|(_, fields)| fields).filter(|(_, is_said)| *is_said);
        said.map(|(name, _)| *name).collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::replay) struct OfferText {
    pub(in crate::replay) framework: Option<String>,
    pub(in crate::replay) framework_any_of: Option<Vec<String>>,
    pub(in crate::replay) role: Option<String>,
    pub(in crate::replay) role_any_of: Option<Vec<String>>,
    pub(in crate::replay) agent: Option<String>,
    pub(in crate::replay) agent_any_of: Option<Vec<String>>,
    pub(in crate::replay) resources: Option<Vec<Item>>,
    pub(in crate::replay) resources_any_of: Option<Vec<Vec<Item>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::replay) struct InverseText {
    pub(in crate::replay) framework: Option<String>,
    pub(in crate::replay) framework_any_of: Option<Vec<String>>,
    pub(in crate::replay) agent: Option<String>,
    pub(in crate::replay) agent_any_of: Option<Vec<String>>,
    #[serde(default)]
    pub(in crate::replay) resources: Vec<Item>,
    pub(in crate::replay) unavailability_start_in: Option<f64>,
}
