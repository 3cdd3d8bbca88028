//! What people see of the allocator's books: the statuses of queues, frameworks and agents, and why
//! each waiting task waits. Written when it has changed, at most twice a second.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Debug,
};

use commonage_allocator::{ObjectKey, Plan, WaitingFor, Why};
use commonage_schemas::{
    Agent, Framework, Queue, Resources, Task,
    names::{DEFAULT_FRAMEWORK, DEFAULT_QUEUE},
    reasons,
    task::{Excluded, WhyPending},
};
use futures::{StreamExt, stream};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::debug;

use super::{
    accounting::Accounting,
    cache::{Key, key},
};
use crate::patch;

/// Status writes under way at once: they must not crowd out the decisions themselves.
const WRITES_AT_ONCE: usize = 16;
/// Explanations written at one time, at most; the others follow in the next turns.
const EXPLANATIONS_PER_TURN: usize = 500;

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
}

impl Statuses {
    pub(crate) async fn publish(&mut self, client: &Client, accounting: &Accounting, plan: &Plan) {
        let mut writes = Vec::new();
        self.queues(accounting, &mut writes);
        self.frameworks(accounting, &mut writes);
        self.agents(accounting, &mut writes);
        self.explanations(accounting, plan, &mut writes);
        stream::iter(writes)
            .for_each_concurrent(WRITES_AT_ONCE, |write| carry_out(client, write))
            .await;
    }

    fn queues(&mut self, accounting: &Accounting, writes: &mut Vec<StatusWrite>) {
        let now_ms = accounting.now_ms();
        for usage in accounting.allocator().queue_usage() {
            let key = (String::new(), usage.queue.to_string());
            if accounting.world().queues.get(&key).is_none() {
                continue;
            }
            let oldest = usage
                .oldest_pending_ms
                .map(|since| now_ms.saturating_sub(since) / 1000 / AGE_STEP_S * AGE_STEP_S);
            let status = json!({
                "allocated": shown(&usage.allocated),
                "offered": shown(&usage.offered),
                "dominantShare": share(usage.dominant_share),
                "dominantResource": usage.dominant_resource.as_deref(),
                "pendingTasks": usage.pending,
                "oldestPendingSeconds": oldest,
            });
            changed(&mut self.queues, Kind::Queue, key, status, writes);
        }
        let world = accounting.world();
        self.queues.retain(|key, _| world.queues.get(key).is_some());
    }

    fn frameworks(&mut self, accounting: &Accounting, writes: &mut Vec<StatusWrite>) {
        let world = accounting.world();
        let mut states: HashMap<Key, BTreeMap<&str, u64>> = HashMap::new();
        for task in world.tasks.iter() {
            let framework = task.spec.framework.clone().unwrap_or_default();
            let counts =
                states.entry((task.namespace().unwrap_or_default(), framework)).or_default();
            *counts.entry(task.state().name()).or_default() += 1;
        }
        for framework in world.frameworks.iter() {
            let key = key(framework.as_ref());
            let Some(usage) =
                accounting.allocator().framework_usage(&ObjectKey::new(&key.0, &key.1))
            else {
                continue;
            };
            let mut tasks = json!(states.remove(&key).unwrap_or_default());
            // A merge patch keeps what it does not name: states that emptied are named with null.
            for state in framework.status.iter().flat_map(|s| s.tasks.keys()) {
                if tasks.get(state).is_none() {
                    tasks[state] = Value::Null;
                }
            }
            let status = json!({
                "allocated": shown(&usage.allocated),
                "offered": shown(&usage.offered),
                "offers": usage.offers,
                "dominantShare": share(usage.dominant_share),
                "tasks": tasks,
            });
            changed(&mut self.frameworks, Kind::Framework, key, status, writes);
        }
        self.frameworks.retain(|key, _| world.frameworks.get(key).is_some());
    }

    fn agents(&mut self, accounting: &Accounting, writes: &mut Vec<StatusWrite>) {
        let world = accounting.world();
        for agent in world.agents.iter() {
            let key = key(agent.as_ref());
            let Some(usage) = accounting.allocator().agent_usage(&key.1) else {
                continue;
            };
            let status =
                json!({"allocated": shown(&usage.allocated), "offered": shown(&usage.offered)});
            changed(&mut self.agents, Kind::Agent, key, status, writes);
        }
        self.agents.retain(|key, _| world.agents.get(key).is_some());
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
            let status = explanation(task, why);
            if self.tasks.get(&uid) == Some(&status) || writes.len() >= EXPLANATIONS_PER_TURN {
                continue;
            }
            self.tasks.insert(uid, status.clone());
            writes.push(StatusWrite {
                kind: Kind::Task,
                key,
                version: task.resource_version(),
                status,
            });
        }
        self.tasks.retain(|uid, _| waiting.contains(uid));
    }
}

fn changed(
    written: &mut HashMap<Key, Value>,
    kind: Kind,
    key: Key,
    status: Value,
    writes: &mut Vec<StatusWrite>,
) {
    if written.get(&key) != Some(&status) {
        written.insert(key.clone(), status.clone());
        writes.push(StatusWrite { kind, key, version: None, status });
    }
}

async fn carry_out(client: &Client, write: StatusWrite) {
    let result = match write.kind {
        Kind::Queue => merge::<Queue>(Api::all(client.clone()), &write).await,
        Kind::Agent => merge::<Agent>(Api::all(client.clone()), &write).await,
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

fn explanation(task: &Task, why: &Why) -> Value {
    let (reason, message) = match why.waiting_for {
        WaitingFor::Framework => (reasons::task::FRAMEWORK_NOT_FOUND, "its framework does not exist in this namespace".to_owned()),
        WaitingFor::Queue => (
            reasons::task::QUEUE_NOT_OF_FRAMEWORK,
            format!(
                "its framework {} does not list queue {}",
                task.spec.framework.as_deref().unwrap_or(DEFAULT_FRAMEWORK),
                task.spec.queue.as_deref().unwrap_or(DEFAULT_QUEUE),
            ),
        ),
        WaitingFor::ActiveFramework => (reasons::task::WAITING_FOR_FRAMEWORK, "its framework's scheduler is away".to_owned()),
        WaitingFor::Launch => (
            reasons::task::WAITING_FOR_FRAMEWORK,
            "its framework answers offers itself: launch the task on an offer, or set the framework's placement to Tasks".to_owned(),
        ),
        WaitingFor::Gang => (reasons::task::WAITING_FOR_RESOURCES, "its gang is not complete".to_owned()),
        WaitingFor::Resources => (reasons::task::WAITING_FOR_RESOURCES, in_words(why)),
    };
    let excluded =
        why.excluded.iter().map(|e| Excluded { by: e.by.clone(), agents: e.agents as i64 });
    let pending = WhyPending { agents: why.agents as i64, excluded: excluded.collect() };
    json!({"reason": reason, "message": message, "whyPending": pending})
}

/// `3 agents: 2 without enough memory, 1 unschedulable`.
fn in_words(why: &Why) -> String {
    if why.agents == 0 {
        return "there are no agents: start one with `cmn agent`".to_owned();
    }
    let each: Vec<String> = why
        .excluded
        .iter()
        .map(|e| {
            let n = e.agents;
            match e.by.as_str() {
                "notReady" => format!("{n} not ready"),
                "unschedulable" => format!("{n} unschedulable"),
                "draining" => format!("{n} draining"),
                "constraints" => format!("{n} excluded by constraints"),
                "antiAffinity" => format!("{n} excluded by anti-affinity"),
                "offered" => format!("{n} with resources that are offered to others now"),
                "queueLimit" => format!("{n} beyond the queue's limit"),
                "gang" => format!("{n} without room for the whole gang"),
                "group" => format!("{n} without room for the whole group"),
                "ports" => format!("{n} without the ports that it asks for"),
                resource => format!("{n} without enough {resource}"),
            }
        })
        .collect();
    let agents =
        if why.agents == 1 { "1 agent".to_owned() } else { format!("{} agents", why.agents) };
    format!("{agents}: {}", each.join(", "))
}
