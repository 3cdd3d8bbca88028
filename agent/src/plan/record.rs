//! What is known about one task: the input of [`super::plan`].

use std::sync::Arc;

use commonage_schemas::Task;
use jiff::Timestamp;

use crate::ledger::Entry;
use crate::prepare::Prepared;
use crate::task::outcome::End;

/// All that is known about one task.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The Task as the API server has it; `None` once it is deleted (or is not known yet).
    pub desired: Option<Task>,
    /// The ledger's side; `None` if nothing was ever begun.
    pub actual: Option<Actual>,
    /// What was got ready for a task before its container.
    pub preparation: Preparation,
    /// How often that has failed.
    pub preparation_failures: u32,
    pub report: Reporting,
    /// When `desired` became `None`.
    pub gone_since: Option<Timestamp>,
    /// An action of an earlier plan is still being carried out; see [`super::Action::is_exclusive`].
    pub busy: bool,
}

/// How far the preparations of a task are. Forgotten with the agent: a new one prepares anew.
#[derive(Clone, Debug, Default)]
pub enum Preparation {
    #[default]
    NotBegun,
    /// With what there is to say about it, if it takes long enough to say anything.
    UnderWay(Option<Words>),
    /// It failed, and may succeed later.
    Waiting {
        words: Words,
        until: Timestamp,
    },
    /// It failed for good.
    Failed(Words),
    Ready(Arc<Prepared>),
}

/// A reason, for programs, and the same for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// One of [`commonage_schemas::reasons::task`].
    pub reason: &'static str,
    pub message: String,
}

/// What was begun for a task, and how far it is.
#[derive(Clone, Debug)]
pub struct Actual {
    pub entry: Entry,
    pub phase: Phase,
    /// The last signal that its shim took, and when. Forgotten with the agent, so that a new one
    /// sends it again.
    pub signalled: Option<(i32, Timestamp)>,
    pub health: Health,
    pub remains: Remains,
    /// It has reached its limit of disk; in words.
    pub over_disk: Option<String>,
    /// Of its own network, if it has one; known when it runs.
    pub address: Option<std::net::IpAddr>,
}

impl Actual {
    /// What is known about a task whose container is about to be made.
    pub fn launching(entry: Entry, since: Timestamp) -> Actual {
        Actual {
            entry,
            phase: Phase::Launching { since },
            signalled: None,
            health: Health::default(),
            remains: Remains::default(),
            over_disk: None,
            address: None,
        }
    }
}

/// How far a container is.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Its shim has been asked for, or is making it.
    Launching { since: Timestamp },
    /// Its command runs.
    Running { started_at: Timestamp },
    /// It is no more.
    Ended(End),
}

/// What there still is of a container that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Remains {
    #[default]
    Nothing,
    /// Its shim is about to remove it, which takes milliseconds.
    Unknown,
    /// It cannot be removed; in words. It is tried again.
    Something(String),
}

/// What the checks have found so far; `None` where there is no verdict yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// Checks were begun for this container.
    pub watched: bool,
    pub healthy: Option<bool>,
    pub ready: Option<bool>,
    /// The health check failed for good; in words.
    pub failed: Option<String>,
}

/// How far the reports are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reporting {
    /// One is on its way; the next waits for it, so that no two overtake each other.
    pub in_flight: bool,
    /// The last one failed: not again before this time.
    pub not_before: Option<Timestamp>,
    /// How many failed in a row.
    pub failures: u32,
}
