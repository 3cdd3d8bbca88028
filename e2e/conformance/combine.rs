//! Cases that differ in what is combined: every value of every axis with every value of the others.
//! They are written as rules, so that none of the hundreds is forgotten and all can be read.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::suite::{Case, Expect, Step, Variables};

/// A table of combinations.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Combinations {
    /// What is combined: `lists`.
    name: String,
    /// Of every combination, with `{AXIS}` for what it stands for there.
    request: String,
    /// In their order: names, and what each of their values stands for.
    axes: Vec<Axis>,
    /// Axes whose values make cases; those of the others are steps of one.
    cases: Vec<String>,
    /// The options' kind in refusals: `ListOptions`.
    options: String,
    /// All whose conditions hold are told together, in this order.
    refusals: Vec<Refusal>,
    /// Where nothing is refused: the first whose conditions hold.
    answers: Vec<Answer>,
    #[serde(default)]
    only: Variables,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Axis {
    name: String,
    values: BTreeMap<String, String>,
}

/// Values by axis; an axis that is not named may have any.
type When = BTreeMap<String, Vec<String>>;
/// Of one combination.
type Chosen<'c> = BTreeMap<&'c str, (&'c str, &'c str)>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    when: When,
    reason: String,
    field: String,
    message: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    #[serde(default)]
    when: When,
    expect: Expect,
}

impl Combinations {
    /// The cases of all combinations.
    pub(crate) fn cases(&self) -> Vec<Case> {
        let mut cases: Vec<Case> = Vec::new();
        for chosen in self.all() {
            let named = self.cases.iter().map(|axis| format!("{axis} {}", chosen[axis.as_str()].0));
            let name = format!("{}: {}", self.name, named.collect::<Vec<_>>().join(", "));
            let step = self.step(&chosen);
            match cases.iter_mut().find(|case| case.name == name) {
                Some(case) => case.steps.push(step),
                None => cases.push(Case {
                    name,
                    only: self.only.clone(),
                    pending: None,
                    bare: false,
                    steps: vec![step],
                }),
            }
        }
        cases
    }

    fn all(&self) -> Vec<Chosen<'_>> {
        let mut all = vec![Chosen::new()];
        for Axis { name, values } in &self.axes {
            let mut longer = Vec::with_capacity(all.len() * values.len());
            for chosen in &all {
                for (value, text) in values {
                    let mut chosen: Chosen<'_> = chosen.clone();
                    chosen.insert(name, (value, text));
                    longer.push(chosen);
                }
            }
            all = longer;
        }
        all
    }

    fn step(&self, chosen: &Chosen<'_>) -> Step {
        let mut request = self.request.clone();
        for (axis, (_, text)) in chosen {
            request = request.replace(&format!("{{{axis}}}"), text);
        }
        let refusals: Vec<&Refusal> =
            self.refusals.iter().filter(|refusal| holds(&refusal.when, chosen)).collect();
        let expect = match refusals.as_slice() {
            [] => self.answer(chosen),
            refusals => refused(&self.options, refusals),
        };
        // A stream has events, or ends without any.
        let open = (!expect.events.is_empty() || expect.ends).then(|| request.clone());
        Step { request: Some(request), open, expect, ..Step::default() }
    }

    fn answer(&self, chosen: &Chosen<'_>) -> Expect {
        let found = self.answers.iter().find(|answer| holds(&answer.when, chosen));
        found
            .unwrap_or_else(|| panic!("{}: nothing is known of {chosen:?}", self.name))
            .expect
            .clone()
    }
}

fn holds(when: &When, chosen: &Chosen<'_>) -> bool {
    when.iter().all(|(axis, values)| {
        let (value, _) = chosen.get(axis.as_str()).expect("rules name the table's axes");
        values.iter().any(|one| one == value)
    })
}

/// apimachinery's words for options of which these are wrong.
fn refused(options: &str, refusals: &[&Refusal]) -> Expect {
    let told: Vec<String> =
        refusals.iter().map(|one| format!("{}: {}", one.field, one.message)).collect();
    let told = match told.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let causes: Vec<Value> = refusals
        .iter()
        .map(|one| json!({"reason": one.reason, "message": one.message, "field": one.field}))
        .collect();
    let exactly = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("{options}.meta.k8s.io \"\" is invalid: {told}"),
        "reason": "Invalid",
        "details": {"group": "meta.k8s.io", "kind": options, "causes": causes},
        "code": 422,
    });
    Expect { status: Some(422), exactly: Some(exactly), ..Expect::default() }
}
