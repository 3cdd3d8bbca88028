//! What streams both ways between the API server and a running task: `exec`, `attach`,
//! `portforward`. Each begins as a request that is answered with 101 and goes on as a session.
//!
//! A session is owned by [`Sessions`]: bounded in number, and ended when the agent stops. What it
//! holds is bounded too: nothing is read from one side before the other has taken what came last.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::ledger::{Ledger, is_uid};
use crate::runtime::Shims;

mod attach;
mod channels;
mod exec;
mod forward;
mod limited;
pub(crate) mod process;
mod query;
mod refusal;
mod typed;

pub(crate) use refusal::Refusal;

/// At once, on one agent: each has a connection, up to three descriptors and two buffers, beside
/// the followed logs.
const SESSIONS_MAX: usize = 256;

/// What the handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    ledger: Ledger,
    shims: Shims,
    slots: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Sessions {
    /// Sessions that end with `stop`.
    pub fn new(ledger: Ledger, shims: Shims, stop: CancellationToken) -> Sessions {
        Sessions { ledger, shims, slots: Arc::new(Semaphore::new(SESSIONS_MAX)), stop }
    }

    pub fn router(self) -> Router {
        Router::new()
            .route("/exec/{namespace}/{name}/{uid}", get(exec::exec))
            .route("/attach/{namespace}/{name}/{uid}", get(attach::attach))
            .route("/portforward/{namespace}/{name}/{uid}", get(forward::forward))
            .with_state(self)
    }

    /// Whether the task that a request names runs here.
    async fn find(&self, task: &TaskPath) -> Result<(), Refusal> {
        if !is_uid(&task.2) {
            return Err(Refusal::bad_request("the uid is not one"));
        }
        let (ledger, uid) = (self.ledger.clone(), task.2.clone());
        let look = move || (ledger.entry(&uid), ledger.has_ended(&uid));
        let (entry, ended) =
            tokio::task::spawn_blocking(look).await.map_err(|_| Refusal::internal("a bug"))?;
        match entry {
            Some(entry) if entry.namespace == task.0 && entry.name == task.1 => {}
            _ => {
                return Err(Refusal::new(
                    StatusCode::NOT_FOUND,
                    format!(
                        "this agent has no task {:?}: it has not started, or was removed",
                        task.1
                    ),
                ));
            }
        }
        match ended {
            true => Err(Refusal::bad_request(format!("task {:?} has ended", task.1))),
            false => Ok(()),
        }
    }

    fn slot(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.slots.clone().try_acquire_owned().map_err(|_| {
            Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!("this agent has {SESSIONS_MAX} sessions already, which is the limit"),
            )
        })
    }

    /// Runs a session to its end, or to that of the agent. Its owner is the token: whoever
    /// cancels it has ended all sessions.
    fn spawn(&self, session: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = session => {}
            }
        });
    }
}

/// Namespace, name and uid of a request's task.
type TaskPath = (String, String, String);

/// A handler's answer.
type Answer = Result<Response, Refusal>;
