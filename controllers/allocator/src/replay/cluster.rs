//! The cluster around the allocator that a scenario describes: who holds what, and what each step
//! tells the allocator. It decides nothing.

mod books;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use commonage_schemas::resources::Resources;

use crate::replay::bag::{Bag, name_of, resources_of, role_of};
use crate::replay::format::{Case, Least, Op, OptionsText, Quantities};
use crate::state::{Allocator, Options, Sorter};
use crate::{ObjectKey, Plan};

const NAMESPACE: &str = "replay";
const REGION_LABEL: &str = "topology.kubernetes.io/region";
/// A refusal whose time makes no sense lasts so long, and none longer than a year.
const REFUSAL_DEFAULT_MS: u64 = 5_000;
const REFUSAL_MAX_MS: u64 = 365 * 24 * 3600 * 1000;

/// What an offer must reach one of, if the case says nothing else.
const MIN_ALLOCATABLE: [(&str, f64); 2] = [("cpus", 0.01), ("mem", 32.0)];

/// After so many batches that decided nothing the next one decides nothing either.
const IN_VAIN: u32 = 2;
/// As many as Mesos' metrics remember.
const RUNS_KEPT: usize = 1000;

/// Something that was offered.
#[derive(Debug, Clone)]
pub(super) struct Emitted {
    pub(super) framework: String,
    pub(super) role: String,
    pub(super) agent: String,
    pub(super) resources: Bag,
}

/// Somebody who was asked to leave.
#[derive(Debug, Clone)]
pub(super) struct Inverse {
    pub(super) framework: String,
    pub(super) agent: String,
    pub(super) start_in: Option<f64>,
}

#[derive(Default)]
pub(super) struct AgentBook {
    pub(super) total: Bag,
    capabilities: Option<Vec<String>>,
    region: Option<String>,
    attributes: BTreeMap<String, String>,
    start_in: Option<f64>,
}

#[derive(Default)]
struct FrameworkBook {
    roles: Vec<String>,
    capabilities: Vec<String>,
    least: BTreeMap<String, Vec<Quantities>>,
    active: bool,
    suppressed: BTreeSet<String>,
}

#[derive(Default)]
pub(super) struct RoleBook {
    weight: Option<f64>,
    pub(super) guarantees: Option<Quantities>,
    pub(super) limits: Option<Quantities>,
}

/// By framework, role and agent.
type Holder = (String, String, String);

#[derive(Default)]
pub(super) struct Cluster {
    pub(super) allocator: Allocator,
    pub(super) agents: BTreeMap<String, AgentBook>,
    frameworks: BTreeMap<String, FrameworkBook>,
    pub(super) roles: BTreeMap<String, RoleBook>,
    pub(super) held: BTreeMap<Holder, Bag>,
    /// What frameworks hold that are not there yet: of the agents it is held, but it counts towards nobody's
    /// share.
    absent: BTreeMap<Holder, Bag>,
    /// Agents and frameworks that were ever there.
    seen: BTreeSet<String>,
    /// The master sees to what was offered before a quota was set.
    pub(super) master: bool,
    whitelist: Option<BTreeSet<String>>,
    pub(super) now_ms: u64,
    interval_ms: u64,
    next_batch_ms: u64,
    pub(super) runs: u64,
    /// How long the last of them took, in milliseconds.
    pub(super) run_ms: Vec<f64>,
    /// What the last step came to.
    pub(super) result: Option<String>,
    pub(super) offered: Vec<Emitted>,
    pub(super) inverse: Vec<Inverse>,
    /// Frameworks whose offers were taken back, once for each offer.
    pub(super) rescinded: Vec<String>,
}

fn millis(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1000.0).round() as u64
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(NAMESPACE, name)
}

/// Who holds what frameworks hold that are not there.
fn nobody(agent: &str) -> Holder {
    ("\u{2}nobody".to_owned(), "\u{2}nobody".to_owned(), agent.to_owned())
}

fn one_of(name: &str, number: f64) -> Resources {
    resources_of(&Quantities::from([(name.to_owned(), number)]))
}

fn least_by_role(roles: &[String], least: Option<&Least>) -> BTreeMap<String, Vec<Quantities>> {
    match least {
        None => BTreeMap::new(),
        Some(Least::ByRole(map)) => map.clone(),
        Some(Least::Everywhere(list)) => {
            roles.iter().map(|role| (role.clone(), list.clone())).collect()
        }
    }
}

fn offer_key((framework, role, agent): &Holder) -> ObjectKey {
    key(&format!("{framework}|{role}|{agent}"))
}

pub(super) fn options(text: &OptionsText, is_of_mesos: bool) -> Result<Options, String> {
    let mut sorter = None;
    for name in [&text.role_sorter, &text.framework_sorter].into_iter().flatten() {
        let named = match name.as_str() {
            "drf" => Sorter::Drf,
            "random" => Sorter::Random,
            other => {
                return Err(format!("options: role_sorter, framework_sorter: unknown {other:?}"));
            }
        };
        if sorter.replace(named).is_some_and(|before| before != named) {
            return Err("options: role_sorter and framework_sorter: one for both levels".to_owned());
        }
    }
    let least = match &text.min_allocatable {
        Some(list) => list.iter().map(resources_of).collect(),
        None => MIN_ALLOCATABLE.map(|(name, number)| one_of(name, number)).into(),
    };
    let excluded = text.fairness_excluded.iter().flatten();
    Ok(Options {
        region: text.master_region.clone(),
        refusal_floor_ms: millis(text.allocation_interval.unwrap_or(1.0)),
        sorter: sorter.unwrap_or_default(),
        agent_by_agent: true,
        limits_bind_below: text.limits_bind_below.unwrap_or(!is_of_mesos),
        headroom_of_closed: true,
        filter_gpus: text.filter_gpu_resources.unwrap_or(true),
        fairness_excluded: excluded.map(|name| name_of(name).to_owned()).collect(),
        min_allocatable: Some(least),
        ..Options::default()
    })
}

impl Cluster {
    pub(super) fn new(case: &Case) -> Result<Self, String> {
        let text = &case.options;
        let interval_ms = millis(text.allocation_interval.unwrap_or(1.0)).max(1);
        Ok(Self {
            allocator: Allocator::new(options(text, case.is_of_mesos)?),
            interval_ms,
            next_batch_ms: interval_ms,
            ..Self::default()
        })
    }

    pub(super) fn step(&mut self, op: &Op) -> Result<(), String> {
        self.result = None;
        match op {
            Op::AddAgent { .. }
            | Op::UpdateAgent { .. }
            | Op::RemoveAgent { .. }
            | Op::AddResourceProvider { .. }
            | Op::SetWhitelist { .. }
            | Op::SetUnavailability { .. } => self.step_agent(op),
            Op::AddFramework { .. }
            | Op::UpdateFramework { .. }
            | Op::ActivateFramework { .. }
            | Op::DeactivateFramework { .. }
            | Op::RemoveFramework { .. }
            | Op::Suppress { .. }
            | Op::Revive { .. } => self.step_framework(op),
            Op::Recover { framework, role, agent, resources, filter_seconds } => {
                self.check_seen("framework", framework)?;
                self.check_seen("agent", agent)?;
                let holder = self.holder(framework, role.as_ref(), agent)?;
                let all = || self.held.get(&holder).cloned().unwrap_or_default();
                let bag = resources.as_ref().map_or_else(all, |items| Bag::of(items));
                if !bag.is_empty() {
                    self.recover(holder, &bag, *filter_seconds);
                }
                Ok(())
            }
            Op::RecoverAll {} => {
                for (holder, bag) in self.held.clone() {
                    self.recover(holder, &bag, None);
                }
                Ok(())
            }
            Op::Convert { framework, role, agent, consumed, converted } => {
                let holder = self.holder(framework, role.as_ref(), agent)?;
                self.convert(holder, consumed, converted)
            }
            Op::ConvertAvailable { agent, consumed, converted } => {
                self.convert_available(agent, consumed, converted)
            }
            Op::SetQuota { role, guarantees, limits } => {
                let book = self.roles.entry(role.clone()).or_default();
                book.guarantees.clone_from(guarantees);
                book.limits.clone_from(limits);
                self.tell_role(role);
                if self.master {
                    self.decide_on_agents(&[]);
                }
                Ok(())
            }
            Op::UpdateWeights { weights } => {
                for (role, weight) in weights.pairs() {
                    if !(weight.is_finite() && weight > 0.0) {
                        return Err(format!("weights: {role}: {weight}: it must be above 0"));
                    }
                    self.roles.entry(role.clone()).or_default().weight = Some(weight);
                    self.tell_role(role);
                }
                if self.master {
                    self.decide_on_agents(&[]);
                }
                Ok(())
            }
            Op::Advance { seconds } => {
                self.advance(*seconds);
                Ok(())
            }
            _ => Err("op: not one of the allocator's".to_owned()),
        }
    }

    /// Something may come back from who has gone since; who never was there is a slip of the pen.
    fn check_seen(&self, what: &str, name: &str) -> Result<(), String> {
        let seen = self.seen.contains(name);
        seen.then_some(()).ok_or_else(|| format!("{what}: no {name:?} was ever there"))
    }

    fn framework(&mut self, name: &str) -> Result<&mut FrameworkBook, String> {
        self.frameworks.get_mut(name).ok_or_else(|| format!("framework: no {name:?} there"))
    }

    /// Who holds something of an agent. A framework with one role need not say which.
    fn holder(
        &self,
        framework: &str,
        role: Option<&String>,
        agent: &str,
    ) -> Result<Holder, String> {
        let only = || match self.frameworks.get(framework).map(|book| &book.roles[..]) {
            Some([role]) => Ok(role),
            _ => Err(format!("role: which of those that {framework} has?")),
        };
        let role = role.map_or_else(only, Ok)?;
        Ok((framework.to_owned(), role.clone(), agent.to_owned()))
    }

    fn advance(&mut self, seconds: f64) {
        let until = self.now_ms + millis(seconds);
        let mut in_vain = 0;
        while self.next_batch_ms <= until {
            self.now_ms = self.next_batch_ms;
            self.next_batch_ms += self.interval_ms;
            let decided = self.run(|allocator, now_ms, seed| allocator.plan(now_ms, seed));
            in_vain = if decided { 0 } else { in_vain + 1 };
            if in_vain >= IN_VAIN {
                self.pass_batches(until);
            }
        }
        self.now_ms = until;
    }

    /// Counts batches that decide nothing, because nothing has changed, until something ends by time.
    fn pass_batches(&mut self, until: u64) {
        let ends = self.allocator.next_end_ms(self.now_ms).unwrap_or(u64::MAX).min(until);
        let passed = ends.saturating_sub(self.next_batch_ms).div_ceil(self.interval_ms);
        self.runs += passed;
        self.next_batch_ms += passed * self.interval_ms;
        self.note_runs(passed, 0.0);
    }

    fn note_runs(&mut self, count: u64, took_ms: f64) {
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(RUNS_KEPT);
        self.run_ms.extend(std::iter::repeat_n(took_ms, count));
        let surplus = self.run_ms.len().saturating_sub(RUNS_KEPT);
        self.run_ms.drain(..surplus);
    }

    fn decide(&mut self) {
        self.run(|allocator, now_ms, seed| allocator.plan_now(now_ms, seed, None));
    }

    fn decide_on(&mut self, agent: &str) {
        self.decide_on_agents(&[agent]);
    }

    fn decide_on_agents(&mut self, agents: &[&str]) {
        self.run(|allocator, now_ms, seed| allocator.plan_now(now_ms, seed, Some(agents)));
    }

    /// Whether anything was decided.
    fn run(&mut self, decide: impl FnOnce(&mut Allocator, u64, u64) -> Plan) -> bool {
        self.runs += 1;
        let started = std::time::Instant::now();
        let plan = decide(&mut self.allocator, self.now_ms, self.runs);
        self.note_runs(1, started.elapsed().as_secs_f64() * 1000.0);
        self.carry_out(&plan);
        !(plan.offers.is_empty() && plan.inverse_offers.is_empty() && plan.rescind.is_empty())
    }

    fn carry_out(&mut self, plan: &Plan) {
        for offer in plan.offers.iter() {
            let bag = Bag::from_engine(&offer.resources, &offer.parts);
            let (framework, role) = (offer.to.framework.name.to_string(), role_of(&offer.to.queue));
            let agent = offer.agent.to_string();
            self.hold((framework.clone(), role.clone(), agent.clone()), &bag);
            self.offered.push(Emitted { framework, role, agent, resources: bag });
        }
        // Mesos' allocator takes nothing back; its master does when quotas or weights change.
        for rescind in plan.rescind.iter() {
            let holder = self.held.keys().find(|h| offer_key(h) == rescind.offer).cloned();
            let taken_back = self.master && rescind.reason.is_about_queues();
            if let (Some(holder), true) = (holder, taken_back) {
                self.held.remove(&holder);
                self.tell_held(&holder);
                self.rescinded.push(holder.0);
            }
        }
        for inverse in &plan.inverse_offers {
            let agent = inverse.agent.to_string();
            self.inverse.push(Inverse {
                framework: inverse.framework.name.to_string(),
                start_in: self.agents.get(&agent).and_then(|book| book.start_in),
                agent,
            });
        }
        self.allocator.asked_to_leave(&plan.inverse_offers);
    }
}
