//! From a socket to the engine and back: connections, filters, routing, and the forms of answers.
//!
//! `server.rs` starts it. Only this module knows HTTP; it never decides what a write means, and it
//! never holds an object longer than its answer takes.

mod body;
mod chain;
mod documents;
mod health;
mod limits;
mod listener;
mod metrics;
mod negotiate;
mod options;
mod protobuf;
mod query;
mod request_info;
mod resources;
mod respond;
mod watch;
mod writes;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use commonage_store::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::tokens::Tokens;
use crate::engine::Engine;
use crate::openapi::Documents;
use crate::proxy::AgentProxy;

pub(crate) use chain::{Caller, serve};
pub(crate) use listener::{Listener, tls_config};
pub(crate) use query::Query;
pub(crate) use resources::Target as LogTarget;

/// What every request is answered from.
pub(crate) struct App {
    pub(crate) engine: Arc<Engine>,
    /// Asked for its revision by the health checks, and nothing else.
    pub(crate) store: Arc<dyn Store>,
    pub(crate) tokens: Tokens,
    pub(crate) openapi: Documents,
    pub(crate) agents: AgentProxy,
    metrics: Arc<metrics::Metrics>,
    limits: limits::Limits,
    /// Set first when the server goes down: `/readyz` fails, everything else goes on.
    pub(crate) draining: AtomicBool,
    /// Ends every watch.
    pub(crate) end_watches: CancellationToken,
    /// Requests being answered and writes that outlive their connection; not watches.
    pub(crate) requests: TaskTracker,
}

/// What an [`App`] is made of.
pub(crate) struct Parts {
    pub(crate) engine: Arc<Engine>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) tokens: Tokens,
    pub(crate) agents: AgentProxy,
}

impl App {
    pub(crate) fn new(parts: Parts) -> App {
        let Parts { engine, store, tokens, agents } = parts;
        App {
            openapi: Documents::build(engine.scheme()),
            engine,
            store,
            tokens,
            agents,
            metrics: Arc::default(),
            limits: limits::Limits::default(),
            draining: AtomicBool::new(false),
            end_watches: CancellationToken::new(),
            requests: TaskTracker::new(),
        }
    }
}
