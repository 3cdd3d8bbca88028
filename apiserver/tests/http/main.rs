//! The server over HTTP, in process: one file per subject, nothing that needs another program.
#![allow(clippy::unwrap_used)]

mod access;
mod access_ratchet;
mod apply;
mod audit;
mod basics;
mod clients_expect;
mod definition_details;
mod definitions;
mod encryption;
mod fence;
mod limits;
mod nodes;
mod oidc;
mod pods;
#[path = "../support/mod.rs"]
mod support;
mod task_log;
mod tokens;
mod validation;
mod watch_websocket;
