//! The heart-beat: a Lease of the agent's name, renewed at a steady pace.
//!
//! Kept apart from the Agent object, so that heart-beats cost little, and independent of it: an
//! agent that can't register still says that it lives.

use std::time::Duration;

use commonage_schemas::names;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::register::{AGAIN_FIRST, Registration, next_pause};
use crate::report::status_code;
use crate::runtime::describe;

/// The Lease runs out after this many intervals without renewal. Kubernetes: 40 s for 10 s.
const LEASE_INTERVALS: u32 = 4;
/// A renewal without an answer within half an interval is tried again: well before the Lease runs out. Not sooner
/// than this, which a busy server may need.
const RENEW_TIMEOUT_MIN: Duration = Duration::from_secs(2);

impl Registration {
    /// Renews the Lease until `shutdown`, beginning at once.
    pub(crate) async fn keep_lease(self, shutdown: CancellationToken) {
        let mut pause = AGAIN_FIRST;
        // By the calendar's clock, which also runs while a machine is suspended.
        let mut renewed_at = Timestamp::now();
        loop {
            let wait = match self.renew_in_time().await {
                Ok(()) => {
                    // Stopped, suspended or cut off: the control plane may have noticed.
                    let now = Timestamp::now();
                    if now.duration_since(renewed_at).unsigned_abs() > self.lease_interval * 2 {
                        self.returned.notify_one();
                        self.listen_anew.notify_one();
                    }
                    renewed_at = now;
                    pause = AGAIN_FIRST;
                    self.lease_interval
                }
                Err(error) => {
                    tracing::warn!(agent = self.name, error, "lease not renewed");
                    next_pause(&mut pause)
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn renew_in_time(&self) -> Result<(), String> {
        let patience = (self.lease_interval / 2).max(RENEW_TIMEOUT_MIN);
        match tokio::time::timeout(patience, self.renew()).await {
            Ok(renewed) => renewed.map_err(|error| describe(&error)),
            Err(_) => Err(format!("no answer within {patience:?}")),
        }
    }

    async fn renew(&self) -> kube::Result<()> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), names::AGENT_LEASE_NAMESPACE);
        let spec = self.lease_spec();
        let renewal = Patch::Merge(json!({"spec": {
            "holderIdentity": spec.holder_identity,
            "leaseDurationSeconds": spec.lease_duration_seconds,
            "renewTime": spec.renew_time,
        }}));
        let renewed = api.patch(&self.name, &PatchParams::default(), &renewal).await;
        match renewed {
            // The Lease or its namespace is missing; in the second case the creation fails too,
            // and is tried again until the control plane has made the namespace.
            Err(error) if status_code(&error) == Some(404) => {}
            renewed => return renewed.map(drop),
        }
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(names::AGENT_LEASE_NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
        };
        api.create(&PostParams::default(), &lease).await.map(drop)
    }

    fn lease_spec(&self) -> LeaseSpec {
        let duration = (self.lease_interval * LEASE_INTERVALS).as_secs().max(1);
        LeaseSpec {
            holder_identity: Some(self.name.clone()),
            lease_duration_seconds: Some(i32::try_from(duration).unwrap_or(i32::MAX)),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        }
    }
}
