//! What the allocator decides.

mod offers;

use std::sync::Arc;

use commonage_schemas::resources::{Ranges, Resources};

use crate::info::ObjectKey;
use crate::parts::Part;

pub use offers::Offers;
pub(crate) use offers::{Names, Whole};

/// Decisions, in the order in which they were taken. They can be carried out in any order, and any
/// of them may fail without harm to the others: none gives away what another has yet to free.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Offers to make.
    pub offers: Offers,
    /// Frameworks to ask to leave an agent.
    pub inverse_offers: Vec<InverseOffer>,
    /// Tasks to bind.
    pub bindings: Vec<Binding>,
    /// Tasks to kill, with their grace period, for others.
    pub preempt: Vec<Preemption>,
    /// Offers to take back.
    pub rescind: Vec<Rescind>,
    /// Offers whose time is up.
    pub expire: Vec<ObjectKey>,
    /// Why each task that still waits does so.
    pub why: Vec<(ObjectKey, Arc<Why>)>,
    /// When something will have changed by itself (an offer or a refusal ends), in milliseconds.
    pub next_wake_ms: Option<u64>,
}

/// An offer to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOffer {
    /// To whom; offers to the same share it.
    pub to: Arc<Address>,
    /// The agent it is a part of.
    pub agent: Arc<str>,
    /// What it holds; offers of equal amounts share it.
    pub resources: Arc<Resources>,
    /// What it holds beside that.
    pub parts: Vec<Part>,
    /// When it ends, in milliseconds.
    pub expires_at_ms: u64,
}

/// To whom an offer is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The framework; the offer lives in its namespace.
    pub framework: ObjectKey,
    /// The queue it counts towards.
    pub queue: Arc<str>,
}

/// What a framework has on an agent is asked back, because the agent is going to be maintained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InverseOffer {
    /// Who is asked.
    pub framework: ObjectKey,
    /// The agent.
    pub agent: Arc<str>,
    /// When the maintenance begins, in milliseconds.
    pub starts_at_ms: u64,
}

/// A task to bind to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The task.
    pub task: ObjectKey,
    /// Its uid: another task of that name is not meant.
    pub uid: Arc<str>,
    /// Where it goes.
    pub agent: Arc<str>,
    /// One port for each `hostPort: 0`, in order.
    pub host_ports: Vec<u16>,
    /// What of its resources, picked ports included, comes out of its agent's parts.
    pub parts: Vec<Part>,
    /// Of a task with a group: how many of it are bound in this step.
    pub group_size: Option<usize>,
}

/// A task to kill for another, with its grace period. Until the caller tells that it is ending, the
/// next plan says so again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    /// The task.
    pub task: ObjectKey,
    /// Its uid: another task of that name is not meant.
    pub uid: Arc<str>,
    /// Its queue.
    pub queue: Arc<str>,
    /// Where it runs.
    pub agent: Arc<str>,
    /// Why.
    pub reason: PreemptionReason,
    /// The task for which it makes way; `None`: for declared demand of a framework.
    pub for_task: Option<ObjectKey>,
    /// Whose task, or whose demand.
    pub for_framework: ObjectKey,
    /// The queue that gets what it holds.
    pub for_queue: Arc<str>,
}

/// Why a task is killed for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PreemptionReason {
    /// The other's queue, or one above, has less than it is guaranteed, and this one's more.
    Guarantee,
    /// The other has a higher priority, and this one is beyond what its queue is guaranteed.
    Priority,
}

/// An offer to take back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rescind {
    /// The offer.
    pub offer: ObjectKey,
    /// Why.
    pub reason: RescindReason,
}

/// Why an offer is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RescindReason {
    /// Its agent is gone, not ready, unschedulable or draining.
    AgentNotAvailable,
    /// Its agent has less than what is held on it.
    AgentShrank,
    /// Its framework is gone or not there, or does not use offers.
    FrameworkNotActive,
    /// Its framework has left its queue.
    QueueLeft,
    /// Its queue, or one above, is past its limit.
    QueueLimit,
    /// A queue is guaranteed what it holds, and waits for it.
    QueueGuarantee,
    /// A queue was given another weight.
    WeightChanged,
    /// Nobody has answered it for a while, and a waiting task would fit if it were not there.
    NeededForTask,
}

impl RescindReason {
    /// Whether a queue's limit, guarantee or weight is the reason.
    #[must_use]
    pub fn is_about_queues(self) -> bool {
        matches!(self, Self::QueueLimit | Self::QueueGuarantee | Self::WeightChanged)
    }
}

/// What a waiting task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaitingFor {
    /// Room on an agent, or in its queue; the exclusions say which.
    Resources,
    /// The rest of its gang to be created.
    Gang,
    /// Its framework to exist.
    Framework,
    /// Its framework to list the queue that it names.
    Queue,
    /// Its framework's scheduler to come back.
    ActiveFramework,
    /// Its framework, which answers offers itself, to launch it.
    Launch,
}

/// Why a task waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// What for.
    pub waiting_for: WaitingFor,
    /// Agents looked at.
    pub agents: u64,
    /// How many of them each reason excluded; each agent is counted once, under the first reason
    /// that applies to it.
    pub excluded: Vec<Excluded>,
    /// It names ports that no agent has.
    pub no_such_ports: Option<NoSuchPorts>,
}

/// Ports that are asked for and that nobody has to give, however long they are waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSuchPorts {
    /// Those.
    pub asked: Ranges,
    /// What the agents have.
    pub there_are: Ranges,
}

/// Agents that one reason excluded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excluded {
    /// `notReady`, `unschedulable`, `diskPressure`, `draining`, `constraints`, `antiAffinity`, a resource's name,
    /// `offered` (would fit but for outstanding offers), `queueLimit`, `headroom` (free, but kept for
    /// what other queues are guaranteed), `gang`, `group`.
    pub by: String,
    /// How many.
    pub agents: u64,
}
