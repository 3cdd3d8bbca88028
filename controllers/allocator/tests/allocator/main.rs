//! The allocator as its caller sees it, one file per promise.
#![allow(clippy::unwrap_used)]

mod fairness;
mod guarantees;
mod offers;
mod parts;
mod placement;
mod preemption;
mod properties;
mod scenarios;
mod silence;
mod world;
