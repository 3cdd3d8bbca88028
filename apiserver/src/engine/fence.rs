//! Fences: writes that land only while whoever sends them leads.
//!
//! A leader names, with every write, the Lease that it leads by and the term for which it was
//! elected. The Lease is compared in the store's own transaction: so a write of a term that has
//! ended never lands, however long it was on its way. A write without a fence pays nothing.
//!
//! The fence of a request travels beside it, not through every function on the way to the store:
//! no write of any kind can forget it.

use std::sync::Arc;

use bytes::Bytes;
use commonage_schemas::names::FENCE_HEADER;
use commonage_store::{Committed, Compare, GuardedWrite, Version};
use http::HeaderMap;
use serde::Deserialize;

use super::Engine;
use super::commit::CommitError;
use crate::status::ApiError;

/// Times that a write is tried when the Lease changes under it. It changes with every renewal, once
/// in two seconds.
const ATTEMPTS: usize = 8;

/// A term of office: of the Lease of this uid, after this many changes of its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    namespace: String,
    name: String,
    uid: String,
    transitions: i64,
}

tokio::task_local! {
    static FENCE: Arc<Fence>;
}

/// Does `work` behind a fence, if there is one.
pub(crate) async fn behind<T>(fence: Option<Arc<Fence>>, work: impl Future<Output = T>) -> T {
    match fence {
        Some(fence) => FENCE.scope(fence, work).await,
        None => work.await,
    }
}

/// What the current request is fenced by.
pub(super) fn current() -> Option<Arc<Fence>> {
    FENCE.try_with(Arc::clone).ok()
}

impl Fence {
    /// `NAMESPACE/NAME/UID/TRANSITIONS` of a Lease.
    ///
    /// # Errors
    /// 400: a header that says something else must not pass for none.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Arc<Fence>>, ApiError> {
        let Some(value) = headers.get(FENCE_HEADER) else { return Ok(None) };
        let parsed = value.to_str().ok().and_then(|text| {
            let mut parts = text.split('/');
            let mut part = || parts.next().filter(|part| !part.is_empty()).map(str::to_owned);
            let (namespace, name, uid) = (part()?, part()?, part()?);
            let transitions = part()?.parse().ok()?;
            parts.next().is_none().then_some(Fence { namespace, name, uid, transitions })
        });
        parsed.map(|fence| Some(Arc::new(fence))).ok_or_else(|| {
            ApiError::bad_request(format!(
                "the header {FENCE_HEADER} must be NAMESPACE/NAME/UID/TRANSITIONS of a Lease"
            ))
        })
    }

    fn is_term_of(&self, uid: &str, spec: &LeaseSpec) -> bool {
        self.uid == uid && self.transitions == spec.lease_transitions
    }

    fn refusal(&self, now: Option<&LeaseSpec>) -> ApiError {
        let Fence { namespace, name, transitions, .. } = self;
        let now = match now {
            Some(LeaseSpec { holder_identity, lease_transitions }) => {
                format!("{holder_identity:?} leads now, in term {lease_transitions}")
            }
            None => "that Lease is gone".to_owned(),
        };
        ApiError::new(
            409,
            "Fenced",
            format!(
                "the write is of term {transitions} of Lease {namespace}/{name}, which has ended: {now}"
            ),
        )
    }
}

#[derive(Deserialize)]
struct Lease {
    spec: LeaseSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LeaseSpec {
    holder_identity: String,
    lease_transitions: i64,
}

impl Engine {
    /// The Lease's key and version, while it is the fence's term. What the cache says against it is
    /// checked first: a new leader may be known here later than elsewhere.
    pub(crate) async fn leading(&self, fence: &Fence) -> Result<(Bytes, Version), ApiError> {
        let scheme = self.scheme();
        let Some(def) = scheme.by_kind("coordination.k8s.io", "Lease") else {
            return Err(fence.refusal(None));
        };
        let path = format!("{}/{}", fence.namespace, fence.name);
        for fresh in [false, true] {
            if fresh {
                self.fresh(None).await?;
            }
            let lease = self.resource(def)?.get(&path);
            let spec = lease.as_ref().and_then(|lease| {
                serde_json::from_slice::<Lease>(&lease.body).ok().map(|lease| lease.spec)
            });
            match (lease, spec) {
                (Some(lease), Some(spec)) if fence.is_term_of(&lease.uid, &spec) => {
                    return Ok((def.key(&fence.namespace, &fence.name).into(), lease.version));
                }
                (_, spec) if fresh => return Err(fence.refusal(spec.as_ref())),
                _ => {}
            }
        }
        Err(fence.refusal(None))
    }

    /// As [`Engine::commit`], if the fence's term has not ended by then.
    pub(super) async fn commit_behind(
        &self,
        fence: &Fence,
        write: GuardedWrite,
    ) -> Result<Committed, CommitError> {
        for _ in 0..ATTEMPTS {
            let (key, version) = self.leading(fence).await.map_err(CommitError::Failed)?;
            let mut fenced = write.clone();
            // First: who does not lead any more is told so, and not of what others have done since.
            fenced.compares.insert(0, Compare::At { key, version });
            match self.commit_now(fenced).await {
                // Renewed meanwhile, or taken.
                Err(CommitError::Conflict(0)) => {
                    self.fresh(None).await.map_err(CommitError::Failed)?;
                }
                Err(CommitError::Conflict(compare)) => {
                    return Err(CommitError::Conflict(compare - 1));
                }
                done => return done,
            }
        }
        let why = "the Lease that the write is fenced by changes too often";
        Err(CommitError::Failed(ApiError::timeout(why)))
    }
}
