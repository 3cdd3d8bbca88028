//! Who may use which resources: what is there goes in, a plan comes out.
//!
//! [`Allocator`] keeps what the caller has told it (agents, queues, frameworks, tasks, offers) in a
//! form made for arithmetic; [`Allocator::plan`] decides from that alone. The caller (the
//! controllers' allocator driver) feeds it from its watches, writes the plan's decisions to the API
//! server, and feeds it with what was written before it asks for the next plan.
//!
//! Nothing in here does I/O, reads a clock or rolls dice: time is an argument in milliseconds, and
//! randomness is a seed, so that any plan can be made again. Rules are those of Mesos 1.11's
//! hierarchical allocator where it has one; where we go beyond it, the place says so.
//!
//! What it promises, each tested in `tests/`:
//! * nothing on an agent is promised twice (numbers, ports, sets);
//! * no queue and no ancestor of a queue is taken past its limit;
//! * who is next is always the competitor with the smallest weighted dominant share;
//! * a task that would fit if nobody let offers lie unanswered is placed within a bounded time;
//! * what a queue is guaranteed is given to nobody else while it could be given to the queue;
//! * a task is killed for another only beyond what its queue is guaranteed, for what the other's
//!   queue is guaranteed or for a higher priority, never more than needed, and it comes to rest;
//! * the same state, time and seed give the same plan.
//!
//! ```
//! use commonage_allocator::{
//!     AgentInfo, Allocator, FrameworkInfo, ObjectKey, Placement, TaskInfo,
//! };
//! use commonage_schemas::resources::Resources;
//!
//! let mut allocator = Allocator::default();
//! let allocatable = Resources::from_pairs([("cpu", "4"), ("ports", "31000-31009")])?;
//! allocator.upsert_agent("node-1", AgentInfo { allocatable, ..AgentInfo::default() });
//! let framework = FrameworkInfo {
//!     queues: vec!["eng.web".to_owned()],
//!     placement: Placement::Tasks,
//!     ..FrameworkInfo::default()
//! };
//! allocator.upsert_framework(&ObjectKey::new("shop", "default"), framework);
//! let task = TaskInfo {
//!     queue: "eng.web".to_owned(),
//!     resources: Resources::from_pairs([("cpu", "500m")])?,
//!     host_ports: vec![0],
//!     ..TaskInfo::default()
//! };
//! allocator.upsert_task(&ObjectKey::new("shop", "web-0"), &task);
//!
//! let plan = allocator.plan(0, 42);
//! assert_eq!(&*plan.bindings[0].agent, "node-1");
//! assert_eq!(plan.bindings[0].host_ports, [31000]);
//! # Ok::<(), commonage_schemas::resources::AmountError>(())
//! ```
#![forbid(unsafe_code)]

mod accounts;
mod amounts;
mod changes;
mod cycle;
mod frameworks;
mod info;
mod lanes;
mod maintenance;
mod offers;
mod parts;
mod plan;
mod queues;
pub mod replay;
mod selector;
mod shapes;
mod state;
mod table;
mod tasks;
mod usage;

pub use info::{
    AgentInfo, Availability, Demand, FrameworkInfo, Gang, ObjectKey, OfferInfo, Placement,
    QueueInfo, Refusal, TaskInfo,
};
pub use parts::{Kind, Part};
pub use plan::{
    Address, Binding, Excluded, InverseOffer, NewOffer, NoSuchPorts, Offers, Plan, Preemption,
    PreemptionReason, Rescind, RescindReason, WaitingFor, Why,
};
pub use selector::{Operator, Requirement, Selector};
pub use state::{Allocator, Options, Sorter};
pub use usage::{AgentUsage, FrameworkUsage, QueueUsage};
