//! The form of scenario files. Every field that is not known is an error.

mod expected;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

pub(super) use self::expected::{Expected, InverseText, OfferText};
use crate::replay::bag::Item;

/// Numbers by resource.
pub(super) type Quantities = BTreeMap<String, f64>;

/// One case, with its steps understood.
pub(super) struct Case {
    pub(super) kind: String,
    pub(super) options: OptionsText,
    /// It says what Mesos 1.11 decides.
    pub(super) is_of_mesos: bool,
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
    #[serde(default)]
    name: Value,
    #[serde(rename = "category")]
    _category: Option<Value>,
    #[serde(default)]
    source_test: Value,
    #[serde(rename = "note", alias = "notes", alias = "comment", alias = "description")]
    _note: Option<Value>,
    #[serde(rename = "derived", alias = "source", alias = "parameters")]
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
    /// Whether a limit binds all roles below, too. Unless a case says so itself: what cites a test
    /// of Mesos 1.11 has it as there, and everything else as a cluster has it.
    pub(super) limits_bind_below: Option<bool>,
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
        let target = text.name.as_str().is_some_and(|name| name.starts_with("target_"));
        let is_of_mesos = text.source_test.is_string() && !target;
        let lenient = text.kind == "roles";
        let expected = (text.expected.into_iter().enumerate())
            .map(|(at, expected)| match lenient {
                // Their fields depend on the step; whoever plays it looks for those it knows.
                true => Ok(Expected::raw(expected)),
                false => serde_json::from_value(expected)
                    .map_err(|error| numbered("expectation", at, error)),
            })
            .collect::<Result<_, _>>()?;
        let (kind, clients, weights) = (text.kind, text.clients, text.weights);
        Ok(Self { kind, options, is_of_mesos, clients, weights, steps, expected })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Used {
    pub(super) framework: Option<String>,
    pub(super) agent: Option<String>,
    /// The only one that the framework has, if it does not say which.
    pub(super) role: Option<String>,
    pub(super) resources: Vec<Item>,
}

/// When a window begins: a number of seconds from now, or an object that says so.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Start {
    In(f64),
    Window(Window),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    #[serde(alias = "start")]
    start_in: f64,
    #[serde(rename = "duration", alias = "duration_seconds")]
    _duration: Option<Value>,
}

impl Start {
    pub(super) fn seconds(&self) -> f64 {
        match self {
            Self::In(seconds) | Self::Window(Window { start_in: seconds, .. }) => *seconds,
        }
    }
}

/// Weights by role, in either of two forms.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Weights {
    Map(BTreeMap<String, f64>),
    List(Vec<WeightText>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WeightText {
    role: String,
    weight: f64,
}

impl Weights {
    pub(super) fn pairs(&self) -> Vec<(&String, f64)> {
        match self {
            Self::Map(map) => map.iter().map(|(role, weight)| (role, *weight)).collect(),
            Self::List(list) => list.iter().map(|one| (&one.role, one.weight)).collect(),
        }
    }
}

/// A total of numbers, as a map or as a list of resources.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Total {
    Map(Quantities),
    List(Vec<Item>),
}

/// For each role what an offer must reach, or one list for all roles.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Least {
    ByRole(BTreeMap<String, Vec<Quantities>>),
    Everywhere(Vec<Quantities>),
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Op {
    #[serde(rename_all = "snake_case")]
    AddAgent {
        agent: String,
        #[serde(alias = "total")]
        resources: Vec<Item>,
        #[serde(default)]
        used: Vec<Used>,
        #[serde(alias = "capabilities")]
        agent_capabilities: Option<Vec<String>>,
        region: Option<String>,
        unavailability: Option<Start>,
        attributes: Option<BTreeMap<String, String>>,
    },
    #[serde(rename_all = "snake_case")]
    UpdateAgent {
        agent: String,
        #[serde(alias = "total")]
        resources: Option<Vec<Item>>,
        #[serde(alias = "capabilities")]
        agent_capabilities: Option<Vec<String>>,
        attributes: Option<BTreeMap<String, String>>,
    },
    RemoveAgent {
        agent: String,
    },
    AddResourceProvider {
        agent: String,
        #[serde(default, alias = "total")]
        resources: Vec<Item>,
        #[serde(default)]
        used: Vec<Used>,
    },
    #[serde(rename_all = "snake_case")]
    AddFramework {
        framework: String,
        roles: Vec<String>,
        capabilities: Option<Vec<String>>,
        min_allocatable: Option<Least>,
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
        #[serde(default)]
        roles: Vec<String>,
    },
    Revive {
        framework: String,
        #[serde(default)]
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
        #[serde(default)]
        consumed: Vec<Item>,
        #[serde(default)]
        converted: Vec<Item>,
    },
    ConvertAvailable {
        agent: String,
        #[serde(default)]
        consumed: Vec<Item>,
        #[serde(default)]
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
        #[serde(default)]
        old: Vec<Item>,
        #[serde(default)]
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

/// Often enough for what comes to be near what is likely.
fn often() -> u32 {
    1000
}

impl Op {
    pub(super) fn is_note(&self) -> bool {
        matches!(self, Self::Note { .. })
    }
}
