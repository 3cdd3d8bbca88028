//! Taking, renewing and letting go of the Lease.

use anyhow::Context;
use futures::StreamExt;
use http::HeaderValue;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::{Election, holder};
use crate::allocation::cache::version;

/// Whoever stops waits so long for an API that may be gone already.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(2);

pub(super) struct Leases {
    api: Api<Lease>,
    election: Election,
}

/// A term of ours: the Lease as we last wrote it.
pub(super) struct Term {
    lease: Lease,
}

/// Between looks whether a leader of this machine still runs: three small files of `/proc`, and no request.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a candidate knows of the leader.
#[derive(Default)]
pub(super) struct Seen {
    /// The version of the Lease, and since when by our own clock: nobody else's is trusted.
    last: Option<(String, Instant)>,
    holder: String,
}

impl Seen {
    /// Who led when the Lease was last read; empty before that.
    pub(super) fn holder(&self) -> &str {
        &self.holder
    }

    /// Returns when the leader is seen to be dead, if it ran on this machine; never otherwise.
    pub(super) async fn holder_dies(&self) {
        while !holder::is_dead(&self.holder) {
            sleep(LOOK_EVERY).await;
        }
    }
}

impl Term {
    /// How often the holder had changed when this term began.
    pub(super) fn number(&self) -> i32 {
        transitions(&self.lease)
    }

    /// The version of the cluster in which it began; nothing of an earlier term came after it.
    pub(super) fn begins_at(&self) -> u64 {
        version(&self.lease)
    }

    /// What the API server compares.
    pub(super) fn fence(&self, election: &Election) -> anyhow::Result<HeaderValue> {
        let uid = self.lease.uid().context("a Lease of the API has a uid")?;
        let text = format!("{}/{}/{uid}/{}", election.namespace, election.name, self.number());
        HeaderValue::from_str(&text).context("the Lease's name does not fit into a header")
    }
}

fn transitions(lease: &Lease) -> i32 {
    lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0)
}

fn holder_of(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX).max(1)
}

impl Leases {
    pub(super) fn new(client: Client, election: Election) -> Leases {
        Leases { api: Api::namespaced(client, &election.namespace), election }
    }

    pub(super) fn election(&self) -> &Election {
        &self.election
    }

    fn spec(&self, transitions: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.election.identity.clone()),
            lease_duration_seconds: Some(seconds(self.election.lease_duration)),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Takes the Lease if nobody holds it, or its holder has not been seen to live for too long.
    pub(super) async fn try_take(&self, seen: &mut Seen) -> kube::Result<Option<Term>> {
        let Some(mut lease) = self.api.get_opt(&self.election.name).await? else {
            let metadata =
                ObjectMeta { name: Some(self.election.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(0)) };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        if !self.is_free(&lease, seen) {
            return Ok(None);
        }
        info!(from = holder_of(&lease), "taking the lead");
        lease.spec = Some(self.spec(transitions(&lease) + 1));
        self.replace(lease).await
    }

    fn is_free(&self, lease: &Lease, seen: &mut Seen) -> bool {
        let holder = holder_of(lease);
        if holder.is_empty() || holder == self.election.identity || holder::is_dead(holder) {
            return true;
        }
        let version = lease.resource_version().unwrap_or_default();
        match &seen.last {
            Some((last, since)) if *last == version => {
                let spec = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
                let lasts = spec.and_then(|seconds| u64::try_from(seconds).ok());
                since.elapsed() > lasts.map_or(self.election.lease_duration, Duration::from_secs)
            }
            _ => {
                seen.last = Some((version, Instant::now()));
                seen.holder = holder.to_owned();
                false
            }
        }
    }

    /// Returns when the Lease is let go of or deleted; never when that can't be told.
    pub(super) async fn released(&self, seen: &Seen) {
        let name = format!("metadata.name={}", self.election.name);
        let version = seen.last.as_ref().map_or("0", |(version, _)| version.as_str());
        if let Ok(events) = self.api.watch(&WatchParams::default().fields(&name), version).await {
            let mut events = pin!(events);
            while let Some(Ok(event)) = events.next().await {
                match event {
                    WatchEvent::Deleted(_) => return,
                    WatchEvent::Added(lease) | WatchEvent::Modified(lease)
                        if holder_of(&lease).is_empty() =>
                    {
                        return;
                    }
                    _ => {}
                }
            }
        }
        std::future::pending().await
    }

    async fn replace(&self, lease: Lease) -> kube::Result<Option<Term>> {
        // It carries the version that was read: of several candidates one wins.
        won(self.api.replace(&self.election.name, &PostParams::default(), &lease).await)
    }

    /// False when another term has begun.
    pub(super) async fn renew(&self, term: &mut Term) -> kube::Result<bool> {
        let mut lease = term.lease.clone();
        if let Some(spec) = &mut lease.spec {
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        if let Some(renewed) = self.replace(lease).await? {
            *term = renewed;
            return Ok(true);
        }
        // Somebody wrote to it: another leader, or a person with a label.
        let Some(now) = self.api.get_opt(&self.election.name).await? else { return Ok(false) };
        let ours = holder_of(&now) == self.election.identity
            && now.uid() == term.lease.uid()
            && transitions(&now) == term.number();
        if ours {
            term.lease = now;
        }
        Ok(ours)
    }

    /// Lets the next one take over at once.
    pub(super) async fn release(&self, term: &Term) {
        let mut lease = term.lease.clone();
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        let released = tokio::time::timeout(RELEASE_TIME_MAX, self.replace(lease)).await;
        if !matches!(released, Ok(Ok(Some(_)))) {
            warn!("the lease could not be given back; the next leader waits until it ends");
        }
    }
}

/// 404 and 409: somebody else was faster.
fn won(written: kube::Result<Lease>) -> kube::Result<Option<Term>> {
    match written {
        Ok(lease) => Ok(Some(Term { lease })),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        Err(error) => Err(error),
    }
}
