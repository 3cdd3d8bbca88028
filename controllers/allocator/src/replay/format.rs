//! The form of scenario files. Every field that is not known is an error.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::replay::bag::Item;

/// Numbers by resource.
pub(super) type Quantities = BTreeMap<String, f64>;

/// One case, with its steps understood.
pub(super) struct Case {
    pub(super) kind: String,
    pub(super) options: OptionsText,
    pub(super) clients: Vec<String>,
    pub(super) weights: BTreeMap<String, f64>,
    pub(super) steps: Vec<Op>,
    pub(super) expected: Vec<Expected>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseText {
    #[serde(default = "allocator")]
    kind: String,
    #[serde(default)]
    options: Value,
    #[serde(default)]
    clients: Vec<String>,
    #[serde(default)]
    weights: BTreeMap<String, f64>,
    #[serde(default)]
    steps: Vec<Value>,
    #[serde(default)]
    expected: Vec<Value>,
    #[serde(rename = "name")]
    _name: Option<Value>,
    #[serde(rename = "category")]
    _category: Option<Value>,
    #[serde(rename = "source_test")]
    _source_test: Option<Value>,
    #[serde(rename = "note")]
    _note: Option<Value>,
    #[serde(rename = "derived")]
    _derived: Option<Value>,
    /// What there is all told; the steps say it again.
    #[serde(rename = "agents")]
    _agents: Option<Value>,
    #[serde(rename = "frameworks")]
    _frameworks: Option<Value>,
}

fn allocator() -> String {
    "allocator".to_owned()
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OptionsText {
    pub(super) master_region: Option<String>,
    pub(super) allocation_interval: Option<f64>,
    pub(super) min_allocatable: Option<Vec<Quantities>>,
    pub(super) filter_gpu_resources: Option<bool>,
    pub(super) fairness_excluded: Option<Vec<String>>,
    pub(super) role_sorter: Option<String>,
    pub(super) framework_sorter: Option<String>,
}

impl Case {
    pub(super) fn parse(case: Value) -> Result<Self, String> {
        let text: CaseText = serde_json::from_value(case).map_err(|error| error.to_string())?;
        let options = match text.options {
            Value::Null => OptionsText::default(),
            options => {
                serde_json::from_value(options).map_err(|error| format!("options: {error}"))?
            }
        };
        let numbered =
            |what: &str, at: usize, error: serde_json::Error| format!("{what} {}: {error}", at + 1);
        let steps = (text.steps.into_iter().enumerate())
            .map(|(at, step)| {
                serde_json::from_value(step).map_err(|error| numbered("step", at, error))
            })
            .collect::<Result<_, _>>()?;
        let lenient = text.kind == "roles";
        let expected = (text.expected.into_iter().enumerate())
            .map(|(at, expected)| match lenient {
                // Their fields depend on the step; whoever plays it looks for those it knows.
                true => Ok(Expected { raw: expected, ..Expected::default() }),
                false => serde_json::from_value(expected)
                    .map_err(|error| numbered("expectation", at, error)),
            })
            .collect::<Result<_, _>>()?;
        let (kind, clients, weights) = (text.kind, text.clients, text.weights);
        Ok(Self { kind, options, clients, weights, steps, expected })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Used {
    pub(super) framework: Option<String>,
    pub(super) agent: Option<String>,
    pub(super) role: String,
    pub(super) resources: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Op {
    #[serde(rename_all = "snake_case")]
    AddAgent {
        agent: String,
        resources: Vec<Item>,
        #[serde(default)]
        used: Vec<Used>,
        agent_capabilities: Option<Vec<String>>,
        region: Option<String>,
        unavailability: Option<f64>,
        attributes: Option<BTreeMap<String, String>>,
    },
    #[serde(rename_all = "snake_case")]
    UpdateAgent {
        agent: String,
        resources: Option<Vec<Item>>,
        agent_capabilities: Option<Vec<String>>,
        attributes: Option<BTreeMap<String, String>>,
    },
    RemoveAgent {
        agent: String,
    },
    AddResourceProvider {
        agent: String,
        resources: Vec<Item>,
        #[serde(default)]
        used: Vec<Used>,
    },
    #[serde(rename_all = "snake_case")]
    AddFramework {
        framework: String,
        roles: Vec<String>,
        capabilities: Option<Vec<String>>,
        min_allocatable: Option<BTreeMap<String, Vec<Quantities>>>,
        active: Option<bool>,
        #[serde(default)]
        used: Vec<Used>,
        #[serde(default, alias = "suppressed")]
        suppressed_roles: Vec<String>,
    },
    #[serde(rename_all = "snake_case")]
    UpdateFramework {
        framework: String,
        roles: Option<Vec<String>>,
        capabilities: Option<Vec<String>>,
        min_allocatable: Option<BTreeMap<String, Vec<Quantities>>>,
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
        role: String,
        agent: String,
        resources: Vec<Item>,
        filter_seconds: Option<f64>,
    },
    RecoverAll {},
    Suppress {
        framework: String,
        roles: Vec<String>,
    },
    Revive {
        framework: String,
        roles: Vec<String>,
    },
    SetQuota {
        role: String,
        guarantees: Option<Quantities>,
        limits: Option<Quantities>,
    },
    UpdateWeights {
        weights: BTreeMap<String, f64>,
    },
    SetWhitelist {
        agents: Option<Vec<String>>,
    },
    Convert {
        framework: String,
        role: String,
        agent: String,
        consumed: Vec<Item>,
        converted: Vec<Item>,
    },
    ConvertAvailable {
        agent: String,
        consumed: Vec<Item>,
        converted: Vec<Item>,
    },
    #[serde(rename_all = "snake_case")]
    SetUnavailability {
        agent: String,
        start_in: Option<f64>,
    },
    Advance {
        seconds: f64,
    },
    SetAgent {
        agent: String,
        total: Quantities,
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
    Allocate {
        client: String,
        agent: String,
        resources: Vec<Item>,
    },
    Unallocate {
        client: String,
        agent: String,
        resources: Vec<Item>,
    },
    Replace {
        client: String,
        agent: String,
        old: Vec<Item>,
        new: Vec<Item>,
    },
    Weight {
        client: String,
        weight: f64,
    },
    Sort {
        runs: u32,
    },
    ParseRoles {
        #[serde(rename = "in")]
        _text: String,
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

impl Op {
    pub(super) fn is_note(&self) -> bool {
        matches!(self, Self::Note { .. })
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    #[serde(default)]
    pub(super) after_step: usize,
    pub(super) offers: Option<Vec<OfferText>>,
    pub(super) totals: Option<Vec<OfferText>>,
    pub(super) inverse_offers: Option<Vec<InverseText>>,
    pub(super) dominant_share: Option<BTreeMap<String, Option<f64>>>,
    pub(super) active_offer_filters: Option<BTreeMap<String, u64>>,
    pub(super) metrics: Option<BTreeMap<String, f64>>,
    pub(super) metrics_absent: Option<Vec<String>>,
    pub(super) result: Option<String>,
    pub(super) prose: Option<String>,
    pub(super) rescinded: Option<Vec<String>>,
    pub(super) rescinded_offers_at_least: Option<usize>,
    #[serde(rename = "reason")]
    _reason: Option<Value>,
    pub(super) order: Option<Vec<String>>,
    pub(super) shares: Option<BTreeMap<String, f64>>,
    pub(super) probability_of_client_i_at_position_j: Option<Vec<Vec<f64>>>,
    pub(super) absolute_tolerance: Option<f64>,
    #[serde(rename = "note")]
    _note: Option<Value>,
    #[serde(skip)]
    pub(super) raw: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfferText {
    pub(super) framework: Option<String>,
    pub(super) framework_any_of: Option<Vec<String>>,
    pub(super) role: Option<String>,
    pub(super) role_any_of: Option<Vec<String>>,
    pub(super) agent: Option<String>,
    pub(super) agent_any_of: Option<Vec<String>>,
    pub(super) resources: Option<Vec<Item>>,
    pub(super) resources_any_of: Option<Vec<Vec<Item>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InverseText {
    pub(super) framework: String,
    pub(super) agent: String,
    #[serde(default)]
    pub(super) resources: Vec<Item>,
    pub(super) unavailability_start_in: Option<f64>,
}
