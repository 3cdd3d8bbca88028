//! What the caller tells the allocator about the objects it watches.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use commonage_schemas::resources::Resources;

use crate::parts::Part;
use crate::selector::Selector;

/// A namespaced object's identity. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The object `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether an agent may be given something new. What it already has stays accounted to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Availability {
    /// It may.
    #[default]
    Open,
    /// Its operator set `spec.unschedulable`.
    Unschedulable,
    /// Its disk is nearly full (condition `DiskPressure`): what it has may need the rest.
    DiskPressure,
    /// It is being emptied; its outstanding offers are rescinded.
    Draining,
    /// It does not renew its Lease, or says that it is not ready; its offers are rescinded.
    NotReady,
}

/// One machine.
#[derive(Debug, Clone, Default)]
pub struct AgentInfo {
    /// Everything that tasks may have of it (`status.allocatable`).
    pub allocatable: Resources,
    /// What it has beside that for some only.
    pub parts: Vec<Part>,
    /// It can't serve frameworks that are in several queues (agents of long ago).
    pub single_queue: bool,
    /// It can't serve queues inside queues (agents of long ago).
    pub flat_queues: bool,
    /// `metadata.labels`. A change of them forgets all refusals of this agent.
    pub labels: BTreeMap<String, String>,
    /// Whether it may be given something new.
    pub availability: Availability,
}

/// Who decides where a framework's tasks go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Placement {
    /// The framework answers offers itself.
    #[default]
    Offers,
    /// Its pending tasks are placed for it.
    Tasks,
}

/// So many tasks of one size that a framework could run now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Demand {
    /// The queue; one of the framework's.
    pub queue: String,
    /// How many.
    pub count: u64,
    /// What one of them needs. `ports` says how many ports one needs, not which.
    pub each: Resources,
}

/// One scheduler.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameworkInfo {
    /// The queues it receives resources for.
    pub queues: Vec<String>,
    /// Who places its tasks.
    pub placement: Placement,
    /// Whether its scheduler is there: nothing is offered to or placed for one that is not, and
    /// its outstanding offers are rescinded.
    pub active: bool,
    /// It has capability `Gpu`: it may be offered agents that have GPUs.
    pub gpu: bool,
    /// It has capability `RegionAware`: it may be offered agents of other regions.
    pub region_aware: bool,
    /// It has capability `Revocable`: it may be offered what can be taken back at any time.
    pub revocable: bool,
    /// It has capability `Shared`: it may be offered volumes that others hold too.
    pub shared: bool,
    /// It may be offered reservations that refine another one.
    pub refined: bool,
    /// How long an offer to it stands, in milliseconds.
    pub offer_timeout_ms: u64,
    /// Offers it may hold at once.
    pub max_outstanding: usize,
    /// An offer must reach one of these; `None`: 0.01 cpu or 32 MiB of memory, as in Mesos; empty:
    /// anything will do. Does not apply to offers made for declared demand.
    pub min_allocatable: Option<Vec<Resources>>,
    /// The same for some of its queues.
    pub min_allocatable_in: BTreeMap<String, Vec<Resources>>,
    /// Agents worth offering.
    pub agents: Selector,
    /// Queues that want no offers now. Leaving this list forgets the queue's refusals (a revive).
    pub suppressed_queues: Vec<String>,
    /// What it could use now, beyond what it was offered; `None`: as much as fairness gives.
    pub demand: Option<Vec<Demand>>,
}

impl Default for FrameworkInfo {
    /// An active framework without queues that takes any offer: 30 s, at most 100 at once.
    fn default() -> Self {
        Self {
            queues: Vec::new(),
            placement: Placement::Offers,
            active: true,
            gpu: false,
            region_aware: false,
            revocable: false,
            shared: false,
            refined: false,
            offer_timeout_ms: 30_000,
            max_outstanding: 100,
            min_allocatable: None,
            min_allocatable_in: BTreeMap::new(),
            agents: Selector::default(),
            suppressed_queues: Vec::new(),
            demand: None,
        }
    }
}

/// A named claim on the cluster.
#[derive(Debug, Clone)]
pub struct QueueInfo {
    /// Greater than 0; anything else counts as 1.
    pub weight: f64,
    /// What it can always obtain.
    pub guarantee: Resources,
    /// What it and everything below it never exceeds; a name that is absent is not limited.
    pub limit: Resources,
    /// Tasks of a queue with a higher one may take what tasks of one with a lower one hold, beyond
    /// what is guaranteed. 0: that of the queue above.
    pub priority: i32,
}

impl Default for QueueInfo {
    fn default() -> Self {
        Self { weight: 1.0, guarantee: Resources::new(), limit: Resources::new(), priority: 0 }
    }
}

/// All or nothing: the tasks of one namespace and framework with the same gang name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gang {
    /// Its name.
    pub name: String,
    /// How many tasks it has; none is placed before that many exist.
    pub size: usize,
}

/// One task that is not in a terminal state.
#[derive(Debug, Clone)]
pub struct TaskInfo {
    /// `metadata.uid`. A task that was seen with an agent never goes back to waiting under the
    /// same uid, however late an old event comes.
    pub uid: Arc<str>,
    /// The framework it belongs to, in the task's namespace.
    pub framework: String,
    /// The queue it counts towards.
    pub queue: String,
    /// `spec.agent`: where it is; `None`: it waits.
    pub agent: Option<String>,
    /// `spec.resources`. Ports in it are these very ports. Of a bound task without its parts.
    pub resources: Resources,
    /// What a bound task holds of its agent's parts, beside `resources`.
    pub parts: Vec<Part>,
    /// It takes nothing out of parts: it stands for something that is to be set aside, and what is
    /// set aside already can't be.
    pub only_plain: bool,
    /// `hostPort` of its container's ports, in order; 0 is one to be picked.
    pub host_ports: Vec<u16>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// Higher goes first inside the framework's queue, and may take what lower ones hold.
    pub priority: i32,
    /// It can be killed at any time for another that can't; such tasks are killed first, and take
    /// what is lent before anything else.
    pub revocable: bool,
    /// It is being killed: what it holds will be free, and it is not killed for others again.
    pub ending: bool,
    /// Milliseconds; of two tasks with the same priority the older goes first.
    pub created_ms: u64,
    /// Tasks of one group go to one agent.
    pub group: Option<String>,
    /// All of a gang are placed in one plan, or none.
    pub gang: Option<Gang>,
    /// Labels the agent must have.
    pub required: Selector,
    /// Labels the agent should have.
    pub preferred: Selector,
    /// Spread the framework's tasks over the values of this label of agents.
    pub spread: Option<String>,
    /// Never on an agent with a task of the same namespace with such labels.
    pub anti_affinity: Option<Selector>,
}

impl Default for TaskInfo {
    fn default() -> Self {
        Self {
            uid: "".into(),
            framework: "default".to_owned(),
            queue: "default".to_owned(),
            agent: None,
            resources: Resources::new(),
            parts: Vec::new(),
            only_plain: false,
            host_ports: Vec::new(),
            labels: BTreeMap::new(),
            priority: 0,
            revocable: false,
            ending: false,
            created_ms: 0,
            group: None,
            gang: None,
            required: Selector::default(),
            preferred: Selector::default(),
            spread: None,
            anti_affinity: None,
        }
    }
}

/// One offer that exists, answered or not.
#[derive(Debug, Clone)]
pub struct OfferInfo {
    /// The framework it was made to, in the offer's namespace.
    pub framework: String,
    /// The queue it counts towards.
    pub queue: String,
    /// The agent it is a part of.
    pub agent: String,
    /// What it holds.
    pub resources: Resources,
    /// What it holds beside that.
    pub parts: Vec<Part>,
    /// When it ends, in milliseconds.
    pub expires_at_ms: Option<u64>,
    /// It has been answered and only waits to be closed: it still holds, but neither expires nor
    /// is rescinded.
    pub answered: bool,
}

/// What a framework does not want to see again for a while.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What it turned down: the whole offer, or what an acceptance left over. Offers of the same
    /// agent to the same framework and queue that are part of this are held back.
    pub resources: Resources,
    /// What it turned down beside that.
    pub parts: Vec<Part>,
    /// For how long, in milliseconds; 0: not at all. At least one plan is held back otherwise.
    pub for_ms: u64,
}
