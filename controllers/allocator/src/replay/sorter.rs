//! Sorter cases: clients are frameworks, each alone in the queue of its name.

use std::collections::BTreeMap;

use commonage_schemas::resources::Resources;

use crate::replay::bag::{Bag, queue_of, resources_of};
use crate::replay::check::TOLERANCE;
use crate::replay::cluster::options;
use crate::replay::format::{Case, Expected, Op, Total};
use crate::replay::{Outcome, verdict};
use crate::state::{Allocator, Options, Sorter};
use crate::{AgentInfo, FrameworkInfo, ObjectKey, OfferInfo, QueueInfo};

struct Clients {
    allocator: Allocator,
    /// Whether each is active.
    clients: BTreeMap<String, bool>,
    /// By client and agent.
    held: BTreeMap<(String, String), Bag>,
}

fn key(client: &str) -> ObjectKey {
    ObjectKey::new("replay", client)
}

pub(super) fn play(case: &Case) -> Result<Outcome, String> {
    let mut clients = Clients::new(options(&case.options, case.is_of_mesos)?);
    let (mut wrong, mut told) = (Vec::new(), Vec::new());
    for number in 0..=case.steps.len() {
        if let Some(op) = number.checked_sub(1).map(|at| &case.steps[at]) {
            clients.step(op).map_err(|wrong| format!("step {number}: {wrong}"))?;
            told.push(format!("step {number}: {}", clients.order(0).join(", ")));
        }
        let last = case.steps.len();
        let now = |expected: &&Expected| expected.after_step.unwrap_or(last) == number;
        for expected in case.expected.iter().filter(now) {
            clients.compare(expected, number, &mut wrong);
        }
    }
    Ok(verdict(case, wrong, told))
}

impl Clients {
    fn new(options: Options) -> Self {
        let allocator = Allocator::new(options);
        Self { allocator, clients: BTreeMap::new(), held: BTreeMap::new() }
    }

    fn step(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::SetAgent { agent, total } => {
                let (allocatable, parts) = match total {
                    Total::Map(quantities) => (resources_of(quantities), Vec::new()),
                    Total::List(items) => Bag::of(items).to_engine(),
                };
                let info = AgentInfo { allocatable, parts, ..AgentInfo::default() };
                self.allocator.upsert_agent(agent, info);
            }
            Op::RemoveAgent { agent } => self.allocator.remove_agent(agent),
            Op::Add { client } => self.tell(client, false),
            Op::Activate { client } => self.tell(client, true),
            Op::Deactivate { client } => self.tell(client, false),
            Op::Remove { client } => {
                self.clients.remove(client);
                self.held.retain(|(holder, agent), _| {
                    if holder == client {
                        self.allocator.close_offer(&key(&format!("{holder}|{agent}")), None, 0);
                    }
                    holder != client
                });
                self.allocator.remove_framework(&key(client));
            }
            Op::Allocate { client, agent, resources } => {
                self.change(client, agent, &Bag::default(), &Bag::of(resources), true);
            }
            Op::Unallocate { client, agent, resources } => {
                self.change(client, agent, &Bag::of(resources), &Bag::default(), false);
            }
            Op::Replace { client, agent, old, new } => {
                self.change(client, agent, &Bag::of(old), &Bag::of(new), false);
            }
            Op::Weight { client, weight } => {
                let info = QueueInfo { weight: *weight, ..QueueInfo::default() };
                self.allocator.upsert_queue(&queue_of(client), &info);
            }
            _ => return Err("op: not one of a sorter's".to_owned()),
        }
        Ok(())
    }

    fn tell(&mut self, client: &str, active: bool) {
        self.clients.insert(client.to_owned(), active);
        let queues = vec![queue_of(client)];
        let info = FrameworkInfo { queues, active, ..FrameworkInfo::default() };
        self.allocator.upsert_framework(&key(client), info);
    }

    fn change(&mut self, client: &str, agent: &str, less: &Bag, more: &Bag, counts: bool) {
        let holder = (client.to_owned(), agent.to_owned());
        let again = self.held.contains_key(&holder);
        let bag = self.held.entry(holder).or_default();
        bag.sub(less);
        bag.add(more);
        let (resources, parts) = bag.to_engine();
        let info = OfferInfo {
            framework: client.to_owned(),
            queue: queue_of(client),
            agent: agent.to_owned(),
            resources,
            parts,
            expires_at_ms: None,
            answered: false,
        };
        self.allocator.upsert_offer(&key(&format!("{client}|{agent}")), &info);
        if again && counts {
            let leaf = self.allocator.leaf_of(&key(client), &queue_of(client));
            self.allocator.count_allocation(leaf);
        }
    }

    fn order(&self, seed: u64) -> Vec<String> {
        let order = self.allocator.service_order(seed);
        order.into_iter().map(|(framework, _)| framework.name.to_string()).collect()
    }

    fn compare(&self, expected: &Expected, number: usize, wrong: &mut Vec<String>) {
        if let Some(wanted) = &expected.order {
            let order = self.order(0);
            if order != *wanted {
                let (wanted, order) = (wanted.join(", "), order.join(", "));
                wrong.push(format!("after step {number}: order: expected {wanted}; came {order}"));
            }
        }
        if let Some(wanted) = expected.count.filter(|count| *count != self.clients.len()) {
            let count = self.clients.len();
            wrong.push(format!("after step {number}: count: {wanted} expected, {count}"));
        }
        for (client, wanted) in expected.contains.iter().flatten() {
            if self.clients.contains_key(client) != *wanted {
                wrong.push(format!("after step {number}: contains {client}: {wanted} expected"));
            }
        }
        for (client, wanted) in expected.shares.iter().flatten() {
            let share = self.allocator.competing_share(&queue_of(client));
            if share.is_none_or(|share| (share - wanted).abs() >= TOLERANCE) {
                wrong.push(format!(
                    "after step {number}: share of {client}: {wanted} expected, {share:?}"
                ));
            }
        }
    }
}

/// Clients in an order left to chance, many times over.
pub(super) fn play_random(case: &Case) -> Result<Outcome, String> {
    let options = Options { sorter: Sorter::Random, ..options(&case.options, case.is_of_mesos)? };
    let mut clients = Clients::new(options);
    let allocatable = Resources::from_pairs([("cpu", "1")]).map_err(|error| error.to_string())?;
    clients.allocator.upsert_agent("agent", AgentInfo { allocatable, ..AgentInfo::default() });
    for client in &case.clients {
        clients.tell(client, true);
    }
    for (client, weight) in &case.weights {
        let info = QueueInfo { weight: *weight, ..QueueInfo::default() };
        clients.allocator.upsert_queue(&queue_of(client), &info);
    }
    let (mut wrong, mut told) = (Vec::new(), Vec::new());
    for (at, op) in case.steps.iter().enumerate() {
        let Op::Sort { runs } = op else { return Err(format!("step {}: not a sort", at + 1)) };
        let found = clients.frequencies(&case.clients, *runs);
        for (client, row) in case.clients.iter().zip(&found) {
            told.push(format!("step {}: {client} comes first, second, … {row:.3?}", at + 1));
        }
        let last = case.steps.len();
        let mine = |e: &&Expected| e.after_step.unwrap_or(last) == at + 1;
        for expected in case.expected.iter().filter(mine) {
            let tolerance = expected.absolute_tolerance.unwrap_or(0.05);
            let rows = expected
                .probability_of_client_i_at_position_j
                .as_ref()
                .ok_or("expected: no probabilities")?;
            let near = |a: &Vec<f64>, b: &Vec<f64>| {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
            };
            if rows.len() != found.len() || !rows.iter().zip(&found).all(|(a, b)| near(a, b)) {
                wrong.push(format!("step {}: expected {rows:?}; came {found:?}", at + 1));
            }
        }
    }
    Ok(verdict(case, wrong, told))
}

impl Clients {
    /// How often each client came to each place, as a fraction.
    fn frequencies(&self, clients: &[String], runs: u32) -> Vec<Vec<f64>> {
        let mut counts = vec![vec![0.0; clients.len()]; clients.len()];
        for run in 0..runs {
            for (place, name) in self.order(u64::from(run)).iter().enumerate() {
                if let Some(client) = clients.iter().position(|client| client == name) {
                    counts[client][place] += 1.0 / f64::from(runs);
                }
            }
        }
        counts
    }
}
