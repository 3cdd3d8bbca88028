//! Pulls over real connections: from a small registry of our own that misbehaves as told, and from Debian's
//! docker-registry. Every image is made by the test that pulls it. Needs root, as the agent does.
#![allow(clippy::unwrap_used)]

mod disk;
mod distribution;
mod good;
mod made;
mod malformed;
mod network;
mod server;
