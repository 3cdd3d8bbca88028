//! What a scenario file lets happen in a step.

use serde::Deserialize;

use super::{Attributes, Least, Quantities, Start, Total, Used, Weights, or_nothing};
use crate::replay::bag::Item;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::replay) enum Op {
    #[serde(rename_all = "snake_case")]
    AddAgent {
        agent: String,
        #[serde(alias = "total")]
        resources: Vec<Item>,
        #[serde(default, deserialize_with = "or_nothing")]
        used: Vec<Used>,
        #[serde(alias = "capabilities")]
        agent_capabilities: Option<Vec<String>>,
        region: Option<String>,
        unavailability: Option<Start>,
        attributes: Option<Attributes>,
    },
    #[serde(rename_all = "snake_case")]
    UpdateAgent {
        agent: String,
        #[serde(alias = "total")]
        resources: Option<Vec<Item>>,
        #[serde(alias = "capabilities")]
        agent_capabilities: Option<Vec<String>>,
        attributes: Option<Attributes>,
    },
    RemoveAgent {
        agent: String,
    },
    AddResourceProvider {
        agent: String,
        #[serde(default, alias = "total", deserialize_with = "or_nothing")]
        resources: Vec<Item>,
        #[serde(default, deserialize_with = "or_nothing")]
        used: Vec<Used>,
    },
    #[serde(rename_all = "snake_case")]
    AddFramework {
        framework: String,
        roles: Vec<String>,
        capabilities: Option<Vec<String>>,
        min_allocatable: Option<Least>,
        active: Option<bool>,
        #[serde(default, deserialize_with = "or_nothing")]
        used: Vec<Used>,
        #[serde(default, alias = "suppressed", deserialize_with = "or_nothing")]
        suppressed_roles: Vec<String>,
    },
    #[serde(rename_all = "snake_case")]
    UpdateFramework {
        framework: String,
        roles: Option<Vec<String>>,
        capabilities: Option<Vec<String>>,
        min_allocatable: Option<Least>,
        #[serde(alias = "suppressed")]
        suppressed_roles: Option<Vec<String>>,
    },
    ActivateFramework {
        framework: String,
    },
    DeactivateFramework {
        framework: String,
    },
    RemoveFramework {
        framework: String,
    },
    #[serde(rename_all = "snake_case")]
    Recover {
        framework: String,
        role: Option<String>,
        agent: String,
        /// All that is held, if it does not say what.
        resources: Option<Vec<Item>>,
        filter_seconds: Option<f64>,
    },
    RecoverAll {},
    Suppress {
        framework: String,
        #[serde(default, deserialize_with = "or_nothing")]
        roles: Vec<String>,
    },
    Revive {
        framework: String,
        #[serde(default, deserialize_with = "or_nothing")]
        roles: Vec<String>,
    },
    SetQuota {
        role: String,
        guarantees: Option<Quantities>,
        limits: Option<Quantities>,
    },
    UpdateWeights {
        weights: Weights,
    },
    SetWhitelist {
        #[serde(alias = "hostnames", alias = "whitelist")]
        agents: Option<Vec<String>>,
    },
    Convert {
        framework: String,
        role: Option<String>,
        agent: String,
        #[serde(default, deserialize_with = "or_nothing")]
        consumed: Vec<Item>,
        #[serde(default, deserialize_with = "or_nothing")]
        converted: Vec<Item>,
    },
    ConvertAvailable {
        agent: String,
        #[serde(default, deserialize_with = "or_nothing")]
        consumed: Vec<Item>,
        #[serde(default, deserialize_with = "or_nothing")]
        converted: Vec<Item>,
    },
    #[serde(rename_all = "snake_case")]
    SetUnavailability {
        agent: String,
        #[serde(alias = "unavailability", alias = "start")]
        start_in: Option<Start>,
    },
    Advance {
        seconds: f64,
    },
    SetAgent {
        agent: String,
        #[serde(alias = "resources")]
        total: Total,
    },
    Add {
        client: String,
    },
    Activate {
        client: String,
    },
    Deactivate {
        client: String,
    },
    Remove {
        client: String,
    },
    #[serde(alias = "allocated")]
    Allocate {
        client: String,
        agent: String,
        resources: Vec<Item>,
    },
    #[serde(alias = "unallocated")]
    Unallocate {
        client: String,
        agent: String,
        resources: Vec<Item>,
    },
    #[serde(alias = "update")]
    Replace {
        client: String,
        agent: String,
        #[serde(default, deserialize_with = "or_nothing")]
        old: Vec<Item>,
        #[serde(default, deserialize_with = "or_nothing")]
        new: Vec<Item>,
    },
    Weight {
        #[serde(alias = "path", alias = "role")]
        client: String,
        weight: f64,
    },
    Sort {
        #[serde(default = "often")]
        runs: u32,
    },
    ParseRoles {
        #[serde(rename = "in")]
        roles: String,
    },
    Validate {},
    Ancestors {
        #[serde(rename = "in")]
        role: String,
    },
    IsStrictSubroleOf {},
    UpdateWeight {
        role: String,
        weight: f64,
    },
    TrackReservations {
        resources: Vec<Item>,
    },
    UntrackReservations {
        resources: Vec<Item>,
    },
    TrackFramework {
        framework: String,
        role: String,
    },
    UntrackFramework {
        framework: String,
        role: String,
    },
    Note {
        #[serde(rename = "text")]
        _text: String,
    },
}

/// Often enough for what comes to be near what is likely.
fn often() -> u32 {
    1000
}

impl Op {
    pub(in crate::replay) fn is_note(&self) -> bool {
        matches!(self, Self::Note { .. })
    }
}
