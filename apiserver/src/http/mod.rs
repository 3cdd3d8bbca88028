//! From a socket to the engine and back: connections, filters, routing, and the forms of answers.
//!
//! `server.rs` starts it. Only this module knows HTTP; it never decides what a write means, and it
//! never holds an object longer than its answer takes.

mod audited;
mod body;
mod chain;
pub(crate) mod credentials;
mod decode;
mod documents;
mod health;
mod impersonate;
mod inside;
mod leases;
mod limits;
mod list_options;
mod listener;
mod measured;
mod metrics;
mod negotiate;
mod open_calls;
mod options;
mod patience;
mod protobuf;
mod query;
mod request_info;
mod resources;
mod respond;
mod reviews;
mod routes;
mod stalled;
mod stopping;
mod tokens;
pub(crate) mod waiting;
mod watch;
mod writes;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use commonage_store::Store;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Audit;
use crate::auth::authenticator::Authenticator;
use crate::engine::Engine;
use crate::openapi::Documents;
use crate::proxy::AgentProxy;
use crate::timed_store::TimedStore;

pub(crate) use chain::{Caller, serve};
pub(crate) use listener::{Listener, tls_config};
pub(crate) use open_calls::{
    CHECK_EVERY as AUTHORITY_CHECK_EVERY, Ends, check as check_open_calls,
};
pub(crate) use patience::STALL_TIME_MAX;
pub(crate) use query::Query;
pub(crate) use resources::Target as LogTarget;

/// How long after a change of the scheme its documents are built.
const DOCUMENTS_AFTER: Duration = Duration::from_millis(50);

/// What every request is answered from.
pub(crate) struct App {
    pub(crate) engine: Arc<Engine>,
    /// Asked for its revision by the health checks and for its times by `/metrics`, nothing else.
    pub(crate) store: Arc<TimedStore>,
    /// The same, without decryption: what backups are made of.
    pub(crate) at_rest: Arc<dyn Store>,
    pub(crate) authenticator: Authenticator,
    /// `None`: nothing is written down.
    pub(crate) audit: Option<Arc<Audit>>,
    /// How clients reach this server: `https://host:port`.
    pub(crate) server_url: String,
    /// Of the scheme of a moment ago.
    openapi: RwLock<Arc<Documents>>,
    pub(crate) agents: AgentProxy,
    pub(crate) more_metrics: Option<fn() -> String>,
    /// How long a client may take nothing of what is sent to it.
    pub(crate) stall_time_max: Duration,
    metrics: Arc<metrics::Metrics>,
    limits: limits::Limits,
    /// Set first when the server goes down: `/readyz` fails, everything else goes on.
    pub(crate) draining: AtomicBool,
    /// Ends every watch.
    pub(crate) end_watches: CancellationToken,
    open_calls: open_calls::OpenCalls,
    /// Requests being answered and writes that outlive their connection; not watches.
    pub(crate) requests: TaskTracker,
}

/// What an [`App`] is made of.
pub(crate) struct Parts {
    pub(crate) engine: Arc<Engine>,
    pub(crate) store: Arc<TimedStore>,
    pub(crate) at_rest: Arc<dyn Store>,
    pub(crate) authenticator: Authenticator,
    pub(crate) audit: Option<Arc<Audit>>,
    pub(crate) server_url: String,
    pub(crate) agents: AgentProxy,
    pub(crate) more_metrics: Option<fn() -> String>,
    pub(crate) stall_time_max: Duration,
}

impl App {
    pub(crate) fn new(parts: Parts) -> App {
        let Parts { engine, store, at_rest, authenticator, audit, server_url, agents, .. } = parts;
        App {
            openapi: RwLock::new(Arc::new(Documents::build(&engine.scheme()))),
            engine,
            store,
            at_rest,
            authenticator,
            audit,
            server_url,
            agents,
            more_metrics: parts.more_metrics,
            stall_time_max: parts.stall_time_max,
            metrics: Arc::default(),
            limits: limits::Limits::default(),
            draining: AtomicBool::new(false),
            end_watches: CancellationToken::new(),
            open_calls: open_calls::OpenCalls::default(),
            requests: TaskTracker::new(),
        }
    }

    pub(crate) fn openapi(&self) -> Arc<Documents> {
        self.openapi.read().clone()
    }

    /// Builds the OpenAPI documents anew when the scheme has changed, until the server goes down.
    pub(crate) async fn follow_scheme(self: Arc<Self>) {
        let mut changes = self.engine.scheme_changes();
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = self.end_watches.cancelled() => return,
            }
            // Definitions often come many at once.
            tokio::time::sleep(DOCUMENTS_AFTER).await;
            changes.mark_unchanged();
            let scheme = self.engine.scheme();
            match tokio::task::spawn_blocking(move || Documents::build(&scheme)).await {
                Ok(documents) => *self.openapi.write() = Arc::new(documents),
                Err(error) => tracing::error!(%error, "the OpenAPI documents can't be built"),
            }
        }
    }
}
