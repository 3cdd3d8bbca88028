//! Task: one container, or a small group that shares its fate, to run once on an agent.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use kube::{CustomResource, api::ObjectMeta};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Resources, TaskState, offer::ReservedPart, resources::Ranges};

mod container;

pub use container::{
    Check, Container, ContainerPort, EnvSource, EnvVar, ExecCheck, Fetch, HttpCheck, KeyReference,
    LocalReference, Mount, TcpCheck, Tmpfs,
};

/// One container to run once on an agent. Restarting, scaling and rolling belong to whoever
/// created it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "commonage.dev",
    version = "v1",
    kind = "Task",
    namespaced,
    shortname = "tk",
    category = "commonage",
    category = "all",
    status = "TaskStatus",
    derive = "PartialEq",
    selectable = ".spec.agent",
    selectable = ".spec.framework",
    selectable = ".spec.queue",
    selectable = ".status.state",
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state","description":"Where the task is in its life"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.reason","description":"Why it is in that state"}"#,
    printcolumn = r#"{"name":"Framework","type":"string","jsonPath":".spec.framework"}"#,
    printcolumn = r#"{"name":"Agent","type":"string","jsonPath":".spec.agent"}"#,
    printcolumn = r#"{"name":"CPU","type":"string","jsonPath":".spec.resources.cpu"}"#,
    printcolumn = r#"{"name":"Memory","type":"string","jsonPath":".spec.resources.memory"}"#,
    printcolumn = r#"{"name":"Exit","type":"integer","jsonPath":".status.exitCode","priority":1}"#,
    printcolumn = r#"{"name":"Queue","type":"string","jsonPath":".spec.queue","priority":1}"#,
    printcolumn = r#"{"name":"Ports","type":"string","jsonPath":".status.hostPorts","priority":1,"description":"The agent's ports that it was given"}"#,
    printcolumn = r#"{"name":"IP","type":"string","jsonPath":".status.ip","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[kube(
    doc = "One container to run once on an agent. Restarting, scaling and rolling belong to whoever created it."
)]
#[serde(rename_all = "camelCase")]
pub struct TaskSpec {
    /// The framework that the task belongs to. Default: the namespace's framework `default`, which
    /// always exists and has its tasks placed for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framework: Option<String>,
    /// The queue that it counts towards. Default: the framework's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The offer that it uses up. A task created with one is launched on that offer's agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<String>,
    /// The agent that it runs on; set when it gets its resources. A task created with one claims
    /// that very agent: 409 `DoesNotFit` when there is no room, else it goes there or waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The part of `resources` that comes from reservations. A task that is launched on an offer
    /// and does not say takes what is reserved first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<ReservedPart>,
    /// The part of `resources` that its agent lends and may take back at any time. Only a task that
    /// is `revocable` gets any; written when it gets its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lent: Option<Resources>,
    /// What is set aside for it: cpu, memory, disk, gpu, ports. A task that does not name cpu gets
    /// what `limits` says, else 100m; one that does not name memory likewise, else 64Mi. At least
    /// 1m of cpu and 4Mi of memory: less can't be enforced.
    #[serde(default)]
    pub resources: Resources,
    /// What it can never exceed; not less than `resources`. Default: equal to `resources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Resources>,
    /// Higher goes first inside its queue.
    #[serde(default)]
    pub priority: i32,
    /// It may be killed at any time to give its resources back. In return it may have what agents
    /// lend beyond what they can promise.
    #[serde(default, skip_serializing_if = "crate::is_false")]
    pub revocable: bool,
    /// Tasks of one group are placed together, on one agent, and share their network and what they say to each
    /// other in memory. Those that get their resources together start together; when one of them ends otherwise
    /// than `Finished`, or is told to end, the others are told to end too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// All tasks of the gang get resources in one step, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<Gang>,
    /// Which agents will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Constraints>,
    /// What to run.
    #[serde(default)]
    pub container: Container,
    /// Files to bring into the sandbox before it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetch: Vec<Fetch>,
    /// The task is killed when this fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<Check>,
    /// The task is marked ready when this succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_check: Option<Check>,
    /// How it is told to end.
    #[serde(default)]
    pub kill_policy: KillPolicy,
    /// An order to end it, given at `tasks/NAME/kill`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill: Option<KillOrder>,
    /// Killed when it has run for so long, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_completion_seconds: Option<i64>,
    /// Deleted so long after its end, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// All or nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gang {
    /// Whose tasks it are: all that name it in their namespace.
    pub name: String,
    /// How many tasks the gang has.
    #[schemars(range(min = 1))]
    pub size: i32,
}

/// Which agents will do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Constraints {
    /// Labels that the agent must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<LabelSelector>,
    /// Labels that the agent should have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred: Option<LabelSelector>,
    /// Spread the framework's tasks evenly over the values of this label of agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<String>,
    /// Never on an agent that runs a task with such labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anti_affinity: Option<LabelSelector>,
}

/// How a task is told to end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KillPolicy {
    /// The first signal, such as `TERM` or `INT`.
    #[serde(default = "default_kill_signal")]
    pub signal: String,
    /// Time between that and `KILL`, in seconds.
    #[serde(default = "default_kill_grace_seconds")]
    #[schemars(range(min = 0, max = 86400))]
    pub grace_period_seconds: i64,
}

fn default_kill_signal() -> String {
    "TERM".to_owned()
}

fn default_kill_grace_seconds() -> i64 {
    30
}

impl Default for KillPolicy {
    fn default() -> Self {
        KillPolicy {
            signal: default_kill_signal(),
            grace_period_seconds: default_kill_grace_seconds(),
        }
    }
}

/// An order to end a task. Its object stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KillOrder {
    /// Why, for programs: the reason that the task ends with.
    pub reason: String,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Instead of its own grace period, if that is longer, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub grace_period_seconds: Option<i64>,
}

/// What the control plane and the agent observed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    #[serde(default)]
    pub state: TaskState,
    /// Why it is in this state, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The agent that it runs on, or ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The container, as its runtime calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// The address of the task in its network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The agent's ports that it was given, in the order of `spec.container.ports`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<i32>,
    /// The GPUs that it was given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
    /// How many tasks of its group got their resources in the same step: they start together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_size: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// What its command ended with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it, by number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Its readiness check succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Its health check succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// It is over, and something of its container could not be removed yet: what, for people. What it held is given
    /// to nobody else before this goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup_pending: Option<String>,
    /// Every state that it was in, oldest first. Kept by the server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<StateChange>,
    /// Why a pending task waits; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_pending: Option<WhyPending>,
}

/// One state that a task was in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateChange {
    pub state: TaskState,
    pub time: Time,
    /// Why: one of the reasons that `status.reason` can have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why a task waits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WhyPending {
    /// Agents looked at.
    pub agents: i64,
    /// How many of them each reason excluded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<Excluded>,
}

/// Agents that one reason excluded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Excluded {
    /// A resource's name, `constraints`, `unschedulable`, `notReady`, `queueLimit`, `offered`, …
    pub by: String,
    /// How many agents.
    pub agents: i64,
}

/// Body of `POST tasks/{name}/binding`: gives a pending task its agent. Only the allocator does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskBinding {
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// The Agent, by name.
    pub agent: String,
    /// For the ports with `hostPort: 0`, in order.
    #[serde(default)]
    pub host_ports: Vec<u16>,
    /// What of its resources comes from reservations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<ReservedPart>,
    /// What of its resources is lent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lent: Option<Resources>,
    /// How many tasks of its group are bound in the same step, itself included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_size: Option<i32>,
}

/// Body of `POST tasks/{name}/kill`: ends a task and keeps its object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskKill {
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// Why, for programs. Default: `KillRequested`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Instead of the task's own grace period, if that is longer, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<i64>,
}

impl TaskKill {
    pub fn new(reason: &str, message: String) -> TaskKill {
        TaskKill {
            api_version: format!("{}/{}", crate::GROUP, crate::VERSION),
            kind: "TaskKill".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            ..TaskKill::default()
        }
    }
}

impl TaskBinding {
    pub fn new(agent: impl Into<String>, host_ports: Vec<u16>) -> TaskBinding {
        TaskBinding {
            api_version: format!("{}/{}", crate::GROUP, crate::VERSION),
            kind: "TaskBinding".to_owned(),
            agent: agent.into(),
            host_ports,
            ..TaskBinding::default()
        }
    }
}

impl Task {
    /// The state, `Pending` before anybody said anything.
    pub fn state(&self) -> TaskState {
        self.status.as_ref().map(|s| s.state).unwrap_or_default()
    }

    /// Whether it has been given its agent. A task that waits may name one that it claims.
    pub fn is_bound(&self) -> bool {
        self.spec.agent.is_some() && self.state() != TaskState::Pending
    }

    /// Whether it is over and something of it still is on its agent.
    pub fn leaves_remains(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.cleanup_pending.is_some())
    }

    /// Whether it holds resources of its agent: bound, and not over with nothing left of it.
    pub fn holds_resources(&self) -> bool {
        self.is_bound() && (!self.state().is_terminal() || self.leaves_remains())
    }
}

impl TaskSpec {
    /// What the task takes out of its agent: `resources` and the host ports that it was given.
    /// Ports of the agent that are already part of `resources` are not counted twice.
    pub fn held(&self) -> Resources {
        let mut held = self.resources.clone();
        let given: Ranges = self
            .container
            .ports
            .iter()
            .filter_map(|port| u16::try_from(port.host_port).ok())
            .filter(|port| *port != 0)
            .collect();
        let asked = held.ports().cloned().unwrap_or_default();
        held.set_ports(asked.union(&given));
        held
    }

    /// The volumes that it mounts, by name.
    pub fn volumes(&self) -> impl Iterator<Item = &str> {
        self.container.mounts.iter().filter_map(|mount| mount.volume.as_deref())
    }

    /// How many host ports somebody still has to pick.
    pub fn ports_to_pick(&self) -> usize {
        self.container.ports.iter().filter(|p| p.host_port == 0).count()
    }

    /// Labels that the agent must have.
    pub fn required_labels(&self) -> Option<&LabelSelector> {
        self.constraints.as_ref().and_then(|c| c.required.as_ref())
    }
}

/// Every label of an object, empty when it has none.
pub fn labels(meta: &ObjectMeta) -> BTreeMap<String, String> {
    meta.labels.clone().unwrap_or_default()
}
