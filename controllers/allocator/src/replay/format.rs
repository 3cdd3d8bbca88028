//! The form of scenario files. Every field that is not known is an error.

mod expected;
mod op;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

pub(super) use self::expected::{Expected, InverseText, OfferText};
pub(super) use self::op::Op;
use crate::replay::bag::Item;

/// `null` is as if the field were not there.
pub(super) fn or_nothing<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

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
        let cited = text.source_test.as_str().is_some_and(|test| {
            // What Mesos has had disabled for years is how it was to be, not how it is.
            test.contains("src/") && !test.contains("DISABLED_")
        });
        let is_of_mesos = cited && !target;
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

/// Words, numbers or yes and no, by name.
#[derive(Deserialize)]
pub(super) struct Attributes(BTreeMap<String, Attribute>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Attribute {
    Text(String),
    Number(f64),
    Flag(bool),
}

impl Attributes {
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let text = |value: &Attribute| match value {
            Attribute::Text(text) => text.clone(),
            Attribute::Number(number) => number.to_string(),
            Attribute::Flag(flag) => flag.to_string(),
        };
        self.0.iter().map(|(name, value)| (name.clone(), text(value))).collect()
    }
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
