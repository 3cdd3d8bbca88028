//! What must come of faults: one file per family, after `reliability.md`'s rows. `docs/robustness.md`
//! says which test shows which row, and what was seen.
//!
//! After every fault the history of all clients is checked: what they were told can have happened.

#![allow(clippy::unwrap_used)]

mod agents;
mod consistency;
mod etcd;
mod failpoints;
mod images;
mod liveness;
mod objects;
mod restored;
mod roles;
mod servers;
mod watches;
mod world;
