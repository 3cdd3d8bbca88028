//! What must come of faults: one file per family, after `reliability.md`'s rows. `docs/robustness.md`
//! says which test shows which row, and what was seen.
//!
//! After every fault the history of all clients is checked: what they were told can have happened.

#![allow(clippy::unwrap_used)]

mod agents;
mod consistency;
mod disks;
mod etcd;
mod exhausted;
mod failpoints;
mod images;
mod intruders;
mod liveness;
mod objects;
mod partitions;
mod restored;
mod roles;
mod servers;
mod tasks;
mod upgrade;
mod watches;
mod world;
