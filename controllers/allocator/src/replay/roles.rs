//! Role cases, where we have the same thing: a role is a queue. Mesos' syntax of names and its HTTP
//! endpoints are its own.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::replay::bag::{Bag, queue_of, resources_of, role_of};
use crate::replay::format::{Case, Op, Quantities};
use crate::replay::role_names;
use crate::replay::{Outcome, verdict};
use crate::state::Allocator;
use crate::{AgentInfo, FrameworkInfo, ObjectKey, QueueInfo};

const AGENT: &str = "agent";

#[derive(Default)]
struct Tree {
    allocator: Allocator,
    weights: BTreeMap<String, f64>,
    /// Guarantees and limits.
    quotas: BTreeMap<String, [Quantities; 2]>,
    reserved: Bag,
    frameworks: BTreeMap<String, BTreeSet<String>>,
    /// What the last step was asked.
    out: Option<Result<Vec<String>, String>>,
}

pub(super) fn play(case: &Case) -> Result<Outcome, String> {
    if case
        .expected
        .iter()
        .any(|e| e.raw.as_object().is_some_and(|e| e.keys().any(|key| key.starts_with("GET "))))
    {
        return Ok(Outcome::Skipped("the HTTP endpoint is Mesos' own".to_owned()));
    }
    for expected in &case.expected {
        let after = expected.raw["after_step"].as_u64();
        if let Some(late) = after.filter(|after| *after as usize > case.steps.len()) {
            return Err(format!("after_step {late}: there are {} steps", case.steps.len()));
        }
    }
    let mut tree = Tree::default();
    let (mut wrong, mut told) = (Vec::new(), Vec::new());
    for (at, op) in case.steps.iter().enumerate() {
        let number = at + 1;
        tree.step(op).map_err(|wrong| format!("step {number}: {wrong}"))?;
        told.push(format!("step {number}: there are {}", tree.exist().join(", ")));
        for expected in &case.expected {
            let fields = expected.raw.as_object().ok_or("expected: not an object")?;
            let after = fields.get("after_step").and_then(Value::as_u64);
            if after.is_some_and(|after| after as usize != number) {
                continue;
            }
            for (field, value) in fields.iter().filter(|(field, _)| *field != "after_step") {
                if let Some(text) = tree.differs(field, value)? {
                    wrong.push(format!("after step {number}: {field}: {text}"));
                }
            }
        }
    }
    Ok(verdict(case, wrong, told))
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, String> {
    serde_json::from_value(value.clone()).map_err(|error| error.to_string())
}

/// The first set that is otherwise: valid are those of which each name is.
fn validated(sets: &[Vec<String>], wanted: bool) -> Option<String> {
    let wrong = |set: &Vec<String>| set.iter().find_map(|role| role_names::wrong(role));
    let found = sets.iter().find(|set| wrong(set).is_none() != wanted)?;
    Some(wrong(found).unwrap_or_else(|| format!("{found:?} is valid")))
}

/// A queue above the other.
fn is_below(role: &str, above: &str) -> bool {
    ancestors(role).iter().any(|name| name == above)
}

/// The nearest first.
fn ancestors(role: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut rest = role;
    while let Some((above, _)) = rest.rsplit_once('/') {
        all.push(above.to_owned());
        rest = above;
    }
    all
}

impl Tree {
    fn step(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::UpdateWeight { role, weight } => {
                self.weights.insert(role.clone(), *weight);
                self.tell(role);
            }
            Op::SetQuota { role, guarantees, limits } => {
                let quota = [guarantees, limits].map(|part| part.clone().unwrap_or_default());
                if quota.iter().all(Quantities::is_empty) {
                    self.quotas.remove(role);
                } else {
                    self.quotas.insert(role.clone(), quota);
                }
                self.tell(role);
            }
            Op::TrackReservations { resources } => {
                self.reserved.add(&Bag::of(resources));
                self.tell_reserved();
            }
            Op::UntrackReservations { resources } => {
                self.reserved.sub(&Bag::of(resources));
                self.tell_reserved();
            }
            Op::TrackFramework { framework, role } => {
                self.frameworks.entry(framework.clone()).or_default().insert(role.clone());
                self.tell_framework(framework);
            }
            Op::UntrackFramework { framework, role } => {
                self.frameworks.entry(framework.clone()).or_default().remove(role);
                self.tell_framework(framework);
            }
            Op::Ancestors { role } => self.out = Some(Ok(ancestors(role))),
            Op::ParseRoles { roles } => self.out = Some(role_names::parse(roles)),
            Op::IsStrictSubroleOf {} | Op::Validate {} => {}
            _ => return Err("op: not one of the role tree's".to_owned()),
        }
        Ok(())
    }

    fn tell(&mut self, role: &str) {
        let weight = self.weights.get(role).copied().unwrap_or(1.0);
        let quota = self.quotas.get(role);
        if weight == 1.0 && quota.is_none() {
            self.allocator.remove_queue(&queue_of(role));
            return;
        }
        let part = |at: usize| quota.map(|quota| resources_of(&quota[at])).unwrap_or_default();
        let info = QueueInfo { weight, guarantee: part(0), limit: part(1), ..QueueInfo::default() };
        self.allocator.upsert_queue(&queue_of(role), &info);
    }

    fn tell_reserved(&mut self) {
        let (allocatable, parts) = self.reserved.to_engine();
        self.allocator
            .upsert_agent(AGENT, AgentInfo { allocatable, parts, ..AgentInfo::default() });
    }

    fn tell_framework(&mut self, framework: &str) {
        let roles = &self.frameworks[framework];
        let key = ObjectKey::new("replay", framework);
        if roles.is_empty() {
            self.allocator.remove_framework(&key);
            return;
        }
        let queues = roles.iter().map(|role| queue_of(role)).collect();
        self.allocator.upsert_framework(&key, FrameworkInfo { queues, ..FrameworkInfo::default() });
    }

    fn exist(&self) -> Vec<String> {
        let queues = self.allocator.queue_usage();
        queues.iter().filter(|q| !q.queue.is_empty()).map(|q| role_of(&q.queue)).collect()
    }

    /// How it is otherwise, if it is.
    fn differs(&self, field: &str, value: &Value) -> Result<Option<String>, String> {
        let pairs = |wanted: bool| -> Result<Option<String>, String> {
            let pairs: Vec<(String, String)> = read(value)?;
            let bad = pairs.iter().find(|(role, above)| is_below(role, above) != wanted);
            Ok(bad.map(|(role, above)| format!("{role} below {above}: {}", !wanted)))
        };
        let same = |wanted: &Value, is: &Value| {
            (wanted != is).then(|| format!("expected {wanted}; came {is}"))
        };
        Ok(match field {
            "out" => match &self.out {
                Some(Err(wrong)) => Some(wrong.clone()),
                out => same(value, &Value::from(out.clone().and_then(Result::ok))),
            },
            "error" => same(value, &Value::from(matches!(self.out, Some(Err(_))))),
            "valid" | "invalid" => {
                let roles: Vec<String> = read(value)?;
                let sets: Vec<_> = roles.into_iter().map(|role| vec![role]).collect();
                validated(&sets, field == "valid")
            }
            "valid_sets" | "invalid_sets" => {
                validated(&read::<Vec<_>>(value)?, field == "valid_sets")
            }
            "true" => pairs(true)?,
            "false" => pairs(false)?,
            "exist" => {
                let mut wanted: Vec<String> = read(value)?;
                wanted.sort_unstable();
                same(&Value::from(wanted), &Value::from(self.exist()))
            }
            "weights" => {
                let weight = |role: &String| self.weights.get(role).copied().unwrap_or(1.0);
                let wanted: BTreeMap<String, f64> = read(value)?;
                let bad = wanted.iter().find(|(role, wanted)| weight(role) != **wanted);
                bad.map(|(role, wanted)| {
                    format!("{role}: expected {wanted}; came {}", weight(role))
                })
            }
            "reservation_quantities" => {
                let wanted: BTreeMap<String, Quantities> = read(value)?;
                let bad = wanted.iter().find(|(role, wanted)| {
                    let reserved = self.allocator.reserved(&queue_of(role));
                    reserved.as_ref() != Some(&resources_of(wanted))
                });
                bad.map(|(role, _)| format!("of {role}: other than expected"))
            }
            "frameworks" => {
                let wanted: BTreeMap<String, usize> = read(value)?;
                let count = |role: &String| {
                    self.frameworks.values().filter(|roles| roles.contains(role)).count()
                };
                let exist = self.exist();
                let bad = wanted
                    .iter()
                    .find(|(role, wanted)| count(role) != **wanted || !exist.contains(role));
                bad.map(|(role, wanted)| format!("{role}: expected {wanted}; came {}", count(role)))
            }
            other => return Err(format!("expected: unknown field {other:?}")),
        })
    }
}
