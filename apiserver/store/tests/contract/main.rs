//! The contract of the store, run against every engine.
//!
//! Each test is a function of a store; `for_every_engine!` makes one test of it per engine. etcd is
//! a real one, started for each test and killed after it.

#![allow(clippy::unwrap_used)]

mod crash;
mod embedded;
mod engine;
mod etcd;
mod etcd_full;
mod etcd_members;
mod etcd_process;
mod expiry;
mod history;
mod model;
mod reads;
mod tails;
mod words;
mod writes;
