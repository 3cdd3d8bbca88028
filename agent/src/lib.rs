//! The agent: one machine that runs tasks.
//!
//! Owns the machine's registration, the ledger of what runs on it, the way of each Task to a
//! container and back to a status, checks, and the output of tasks. It is an ordinary client of
//! the API server; it never calls libcontainer (that is a shim's work, see `commonage-shim`) and
//! never decides what should run here.
//!
//! ```text
//! watch of my Tasks ─┐
//! shims' ends ───────┼─► driver: record → plan (pure) → actions → ledger, shims, reports
//! checks, timers ────┘
//! ```
//!
//! A killed agent loses nothing: the ledger says what was begun, the shims say how it went, and the
//! API server says what was reported; the plan is the difference.
#![forbid(unsafe_code)]

pub mod collect;
pub mod company;
pub mod config;
pub mod detect;
pub mod disk;
mod driver;
mod events;
pub mod gpus;
pub mod group;
pub mod health;
mod lease;
pub mod ledger;
pub mod logs;
pub mod networks;
pub mod plan;
pub mod prepare;
mod register;
mod report;
mod run;
pub mod runtime;
mod sandbox;
pub mod serve;
pub mod session;
pub mod simulate;
pub mod stats;
pub mod task;
pub mod users;

pub use config::{Config, Identity, Overrides};
pub use run::run;
