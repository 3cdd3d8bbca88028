//! What people see of the allocator's books: the statuses of queues, frameworks and agents, and why
//! each waiting task waits. Written when it has changed, at most twice a second, beside the decisions:
//! these never wait for it.

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::Arc,
};

use commonage_allocator::{ObjectKey, Plan, Why};
use commonage_schemas::{
    Agent, Framework, Queue, Reservation, Resources, Task, Volume, reasons,
    reservation::BOUND,
    resources::{DISK, MEMORY},
};
use futures::{StreamExt, stream};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::debug;

use super::{
    accounting::Accounting,
    cache::{Key, key},
    reserved::{disk, named, plus},
    starving::{self, Starving},
    words::{exclusions, explanation},
    world::World,
};
use crate::{events, metrics, patch};

/// Status writes under way at once: they must not crowd out the decisions themselves.
const WRITES_AT_ONCE: usize = 16;
/// Explanations written at one time, at most; the others follow in the next turns.
const EXPLANATIONS_PER_TURN: usize = 500;

/// Queues, frameworks and agents written at one time, of each kind at most so many, those first that have waited
/// longest: in a large cluster under load nearly each of them changes in every turn, and telling people of it must not
/// cost more than the decisions.
const PER_TURN: usize = 250;
/// The same while more happens than [`QUIET`]: then each of these writes takes the time of a task's.
const PER_BUSY_TURN: usize = 25;
/// Changes of tasks and offers in a turn.
const QUIET: usize = 250;

/// Turns after which all agents are looked at, in case one was missed.
const ALL_AGENTS_EVERY: u64 = 120;
/// Of many tasks that begin to wait at once, so many get an Event; their status has it all.
const EVENTS_PER_TURN: usize = 20;

/// Ages are shown in steps of so many seconds, or a queue with waiting tasks would be rewritten at
/// every turn.
const AGE_STEP_S: u64 = 10;

/// What was written last, so that only changes are written.
#[derive(Debug, Default)]
pub(crate) struct Statuses {
    queues: HashMap<Key, Value>,
    frameworks: HashMap<Key, Value>,
    agents: HashMap<Key, Value>,
    tasks: HashMap<String, Value>,
    reservations: HashMap<Key, Value>,
    volumes: HashMap<Key, Value>,
    /// Tasks that wait since now, and why.
    news: Vec<(Arc<Task>, Value)>,
    starving: Starving,
    turns: u64,
    /// When each queue and framework was written last, in turns.
    queues_written: HashMap<Key, u64>,
    frameworks_written: HashMap<Key, u64>,
}

struct StatusWrite {
    kind: Kind,
    key: Key,
    version: Option<String>,
    status: Value,
}

#[derive(Clone, Copy)]
enum Kind {
    Queue,
    Framework,
    Agent,
    Task,
    Reservation,
    Volume,
}

/// What is to be written now.
pub(crate) struct News {
    writes: Vec<StatusWrite>,
    events: Vec<(Arc<Task>, Value)>,
}

impl News {
    pub(crate) async fn publish(self, client: Client) {
        stream::iter(self.writes)
            .for_each_concurrent(WRITES_AT_ONCE, |write| carry_out(&client, write))
            .await;
        stream::iter(self.events)
            .for_each_concurrent(WRITES_AT_ONCE, |(task, why)| tell(&client, task, why))
            .await;
    }
}

impl Statuses {
    /// What has changed since the last time.
    pub(crate) fn news(&mut self, accounting: &mut Accounting, plan: &Plan) -> News {
        measure(accounting, plan);
        let mut writes = Vec::new();
        self.turns += 1;
        let most = match accounting.tallies.take_touches() {
            0..=QUIET => PER_TURN,
            _ => PER_BUSY_TURN,
        };
        self.queues(accounting, most, &mut writes);
        self.frameworks(accounting, plan, most, &mut writes);
        self.agents(accounting, most, &mut writes);
        self.explanations(accounting, plan, &mut writes);
        self.reservations(accounting, plan, &mut writes);
        self.volumes(accounting, &mut writes);
        News { writes, events: std::mem::take(&mut self.news) }
    }

    fn queues(&mut self, accounting: &Accounting, most: usize, writes: &mut Vec<StatusWrite>) {
        let mut news = Vec::new();
        let now_ms = accounting.now_ms();
        let reserved = reserved_by_queue(accounting.world());
        for usage in accounting.allocator().queue_usage() {
            let key = (String::new(), usage.queue.to_string());
            if accounting.world().queues.get(&key).is_none() {
                continue;
            }
            let oldest = usage
                .oldest_pending_ms
                .map(|since| now_ms.saturating_sub(since) / 1000 / AGE_STEP_S * AGE_STEP_S);
            let mut status = json!({
                "allocated": shown(&usage.allocated),
                "offered": shown(&usage.offered),
                "dominantShare": share(usage.dominant_share),
                "dominantResource": usage.dominant_resource.as_deref(),
                "pendingTasks": usage.pending,
                "oldestPendingSeconds": oldest,
            });
            let was = self.queues.get(&key).is_some_and(|status| !status["reserved"].is_null());
            let now = reserved.get(&key.1);
            if now.is_some() || was {
                status["reserved"] = shown(now.unwrap_or(&Resources::new()));
            }
            news.extend(changed(&self.queues, Kind::Queue, key, status));
        }
        let (kept, written) = (&mut self.queues, &mut self.queues_written);
        longest_waiting(news, most, written, self.turns).for_each(|news| note(kept, news, writes));
        let world = accounting.world();
        self.queues.retain(|key, _| world.queues.get(key).is_some());
        self.queues_written.retain(|key, _| world.queues.get(key).is_some());
    }

    fn frameworks(
        &mut self,
        accounting: &Accounting,
        plan: &Plan,
        most: usize,
        writes: &mut Vec<StatusWrite>,
    ) {
        let mut news = Vec::new();
        let world = accounting.world();
        let now_ms = accounting.now_ms();
        for framework in world.frameworks.iter() {
            let key = key(framework.as_ref());
            let Some(usage) =
                accounting.allocator().framework_usage(&ObjectKey::new(&key.0, &key.1))
            else {
                continue;
            };
            let mut tasks = json!(accounting.tallies.states(&key));
            // A merge patch keeps what it does not name: states that emptied are named with null.
            for state in framework.status.iter().flat_map(|s| s.tasks.keys()) {
                if tasks.get(state).is_none() {
                    tasks[state] = Value::Null;
                }
            }
            let mut status = json!({
                "allocated": shown(&usage.allocated),
                "offered": shown(&usage.offered),
                "offers": usage.offers,
                "dominantShare": share(usage.dominant_share),
                "tasks": tasks,
            });
            let why = self.starving.look(framework, &key, &usage, now_ms, (world, plan));
            if let Some(conditions) = starving::conditions(framework, why, accounting.now()) {
                status["conditions"] = conditions;
            }
            news.extend(changed(&self.frameworks, Kind::Framework, key, status));
        }
        let (kept, written) = (&mut self.frameworks, &mut self.frameworks_written);
        longest_waiting(news, most, written, self.turns).for_each(|news| note(kept, news, writes));
        self.frameworks.retain(|key, _| world.frameworks.get(key).is_some());
        self.frameworks_written.retain(|key, _| world.frameworks.get(key).is_some());
        self.starving.retain(|key| world.frameworks.get(key).is_some());
    }

    fn agents(&mut self, accounting: &mut Accounting, most: usize, writes: &mut Vec<StatusWrite>) {
        if self.turns.is_multiple_of(ALL_AGENTS_EVERY) {
            let all: Vec<String> =
                accounting.world().agents.iter().map(|agent| agent.name_any()).collect();
            all.iter().for_each(|name| accounting.tallies.touch_agent(name));
        }
        for name in accounting.tallies.take_agents(most) {
            let key = named(&name);
            if accounting.world().agents.get(&key).is_none() {
                self.agents.remove(&key);
                continue;
            }
            let Some(usage) = accounting.allocator().agent_usage(&key.1) else {
                continue;
            };
            let status =
                json!({"allocated": shown(&usage.allocated), "offered": shown(&usage.offered)});
            if let Some(news) = changed(&self.agents, Kind::Agent, key, status) {
                note(&mut self.agents, news, writes);
            }
        }
    }

    fn explanations(
        &mut self,
        accounting: &Accounting,
        plan: &Plan,
        writes: &mut Vec<StatusWrite>,
    ) {
        let mut waiting = HashSet::new();
        for (task, why) in &plan.why {
            let key = (task.namespace.to_string(), task.name.to_string());
            let Some(task) = accounting.world().tasks.get(&key) else {
                continue;
            };
            let uid = task.uid().unwrap_or_default();
            waiting.insert(uid.clone());
            self.explain(task, key, explanation(task, why), writes);
        }
        for (key, why) in accounting.waiting_for_volumes() {
            if let Some(task) = accounting.world().tasks.get(key) {
                waiting.insert(task.uid().unwrap_or_default());
                let reason = reasons::task::WAITING_FOR_VOLUME;
                let status = json!({"reason": reason, "message": why, "whyPending": null});
                self.explain(task, key.clone(), status, writes);
            }
        }
        self.tasks.retain(|uid, _| waiting.contains(uid));
    }

    fn explain(
        &mut self,
        task: &Arc<Task>,
        key: Key,
        status: Value,
        writes: &mut Vec<StatusWrite>,
    ) {
        let uid = task.uid().unwrap_or_default();
        if self.tasks.get(&uid) == Some(&status) || writes.len() >= EXPLANATIONS_PER_TURN {
            return;
        }
        if !self.tasks.contains_key(&uid) && self.news.len() < EVENTS_PER_TURN {
            self.news.push((task.clone(), status.clone()));
        }
        self.tasks.insert(uid, status.clone());
        let version = task.resource_version();
        writes.push(StatusWrite { kind: Kind::Task, key, version, status });
    }

    fn reservations(
        &mut self,
        accounting: &Accounting,
        plan: &Plan,
        writes: &mut Vec<StatusWrite>,
    ) {
        let world = accounting.world();
        let mut why: HashMap<String, &Why> = HashMap::new();
        for (waiting, reason) in &plan.why {
            if let Some(reservation) = accounting.reservation_of(waiting) {
                why.entry(reservation.name_any()).or_insert(reason);
            }
        }
        for reservation in world.reservations.iter() {
            let name = reservation.name_any();
            let mut used = Resources::new();
            for agent in reservation.agents() {
                used = plus(&used, &accounting.reserved().used(&name, agent));
            }
            for volume in world.volumes.iter().filter(|v| v.spec.reservation == name) {
                used = plus(&used, &disk(volume.bound_bytes()));
            }
            let before = reservation.status.as_ref().and_then(|s| s.used.clone());
            let mut status = json!({});
            if !used.is_empty() || before.is_some_and(|before| !before.is_empty()) {
                status["used"] = shown(&used);
            }
            if let Some(why) = why.get(&name) {
                status["phase"] = json!("Pending");
                let message = exclusions(why);
                let said = reservation.status.iter().flat_map(|s| &s.conditions);
                let said = said.into_iter().find(|c| c.type_ == BOUND);
                if said.is_none_or(|said| said.message != message) {
                    let condition =
                        accounting.condition(false, reasons::task::WAITING_FOR_RESOURCES, &message);
                    status["conditions"] = json!([condition]);
                }
            }
            if status.as_object().is_some_and(|status| !status.is_empty()) {
                let key = key(reservation.as_ref());
                if let Some(news) = changed(&self.reservations, Kind::Reservation, key, status) {
                    note(&mut self.reservations, news, writes);
                }
            }
        }
        self.reservations.retain(|key, _| world.reservations.get(key).is_some());
    }

    fn volumes(&mut self, accounting: &Accounting, writes: &mut Vec<StatusWrite>) {
        let world = accounting.world();
        for volume in world.volumes.iter() {
            let key = key(volume.as_ref());
            let users = accounting.reserved().users(&key);
            let known = volume.status.as_ref().map(|s| s.used_by.clone()).unwrap_or_default();
            if users != known || self.volumes.contains_key(&key) {
                let status = json!({"usedBy": users});
                if let Some(news) = changed(&self.volumes, Kind::Volume, key, status) {
                    note(&mut self.volumes, news, writes);
                }
            }
        }
        self.volumes.retain(|key, _| world.volumes.get(key).is_some());
    }
}

/// What the page of metrics shows of now.
fn measure(accounting: &Accounting, plan: &Plan) {
    let refusals = accounting.allocator().refusals(accounting.now_ms());
    let queues = accounting.allocator().queue_usage().into_iter().map(|usage| {
        let mut names: Vec<&str> = usage.allocated.scalars().map(|(name, _)| name).collect();
        names.extend(usage.offered.scalars().map(|(name, _)| name));
        names.sort_unstable();
        names.dedup();
        let shown = |of: &Resources, name: &str| {
            let unit = if matches!(name, MEMORY | DISK) { 1.0 } else { 1000.0 };
            of.scalar(name) as f64 / unit
        };
        let held = names.into_iter().map(|name| {
            (name.to_owned(), shown(&usage.allocated, name), shown(&usage.offered, name))
        });
        metrics::QueueNow {
            queue: usage.queue.to_string(),
            share: usage.dominant_share,
            pending: usage.pending,
            filters: refusals.get(&usage.queue).copied().unwrap_or(0),
            held: held.collect(),
        }
    });
    metrics::now(queues.collect(), plan.why.len());
}

/// What is reserved for each queue and those below it.
fn reserved_by_queue(world: &World) -> HashMap<String, Resources> {
    let mut reserved: HashMap<String, Resources> = HashMap::new();
    // A refinement is part of what it refines, which is its queue's or one's above.
    for reservation in world.reservations.iter() {
        let spec = &reservation.spec;
        let above = spec.parent.as_ref().and_then(|parent| world.reservations.get(&named(parent)));
        let covered = above.map(|above| above.spec.queue.as_str());
        let mut queue = spec.queue.as_str();
        while covered != Some(queue) {
            let sum = reserved.entry(queue.to_owned()).or_default();
            for _ in reservation.agents() {
                *sum = plus(sum, &spec.resources);
            }
            let Some((parent, _)) = queue.rsplit_once('.') else { break };
            queue = parent;
        }
    }
    reserved
}

/// The write that makes a status what it is now; `None` when that was written last.
fn changed(
    written: &HashMap<Key, Value>,
    kind: Kind,
    key: Key,
    status: Value,
) -> Option<StatusWrite> {
    let known = written.get(&key) == Some(&status);
    (!known).then_some(StatusWrite { kind, key, version: None, status })
}

/// The status will be written.
fn note(written: &mut HashMap<Key, Value>, news: StatusWrite, writes: &mut Vec<StatusWrite>) {
    written.insert(news.key.clone(), news.status.clone());
    writes.push(news);
}

/// At most so many, those that were written longest ago, which they are now.
fn longest_waiting(
    mut news: Vec<StatusWrite>,
    most: usize,
    written: &mut HashMap<Key, u64>,
    turn: u64,
) -> impl Iterator<Item = StatusWrite> {
    if news.len() > most {
        news.sort_by_key(|one| written.get(&one.key).copied().unwrap_or(0));
        news.truncate(most);
    }
    for one in &news {
        written.insert(one.key.clone(), turn);
    }
    news.into_iter()
}

async fn carry_out(client: &Client, write: StatusWrite) {
    let result = match write.kind {
        Kind::Queue => merge::<Queue>(Api::all(client.clone()), &write).await,
        Kind::Agent => merge::<Agent>(Api::all(client.clone()), &write).await,
        Kind::Reservation => merge::<Reservation>(Api::all(client.clone()), &write).await,
        Kind::Volume => {
            merge::<Volume>(Api::namespaced(client.clone(), &write.key.0), &write).await
        }
        Kind::Framework => {
            merge::<Framework>(Api::namespaced(client.clone(), &write.key.0), &write).await
        }
        Kind::Task => merge::<Task>(Api::namespaced(client.clone(), &write.key.0), &write).await,
    };
    if let Err(error) = result {
        debug!(name = %write.key.1, %error, "status not written");
    }
}

async fn merge<K>(api: Api<K>, write: &StatusWrite) -> kube::Result<()>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    patch::status(&api, &write.key.1, write.version.clone(), write.status.clone()).await.map(|_| ())
}

/// Says as an Event that a task waits, once.
async fn tell(client: &Client, task: Arc<Task>, why: Value) {
    let text = |field: &str| why[field].as_str().unwrap_or_default().to_owned();
    events::warn_once(client, &*task, &text("reason"), text("message")).await;
}

/// The whole amount, with zeros for what is gone: a merge patch keeps what it does not name.
fn shown(resources: &Resources) -> Value {
    let mut shown = json!({"cpu": "0", "memory": "0"});
    for (name, amount) in resources.iter() {
        shown[name] = json!(amount.to_text(name));
    }
    shown
}

/// Two decimals are what a person compares; more would rewrite the object at every task.
fn share(share: f64) -> String {
    format!("{share:.2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_waited_longest_is_told_of_first_and_everybody_in_turn() {
        let mut written = HashMap::new();
        let mut told = Vec::new();
        for turn in 1..=3 {
            let news = (0..6).map(|n| StatusWrite {
                kind: Kind::Queue,
                key: named(&n.to_string()),
                version: None,
                status: json!(turn),
            });
            let most = longest_waiting(news.collect(), 2, &mut written, turn);
            told.extend(most.map(|one| one.key.1));
        }
        told.sort();
        assert_eq!(told, ["0", "1", "2", "3", "4", "5"]);
    }
}
