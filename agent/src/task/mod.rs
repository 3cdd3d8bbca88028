//! What the agent makes of a Task: the order to a shim, and what its end means.
//!
//! Pure: no clock, no disk, no network. The driver calls this through [`crate::plan`].

pub mod outcome;
pub mod spec;
