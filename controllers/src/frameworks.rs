//! Frameworks: whether their schedulers are alive, and what becomes of their tasks when they are
//! deleted or stay away.

pub(crate) mod defaults;

use std::{sync::Arc, time::Duration};

use commonage_schemas::{
    Framework, Task, framework::FrameworkPhase, names::FRAMEWORK_FINALIZER, reasons,
};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::coordination::v1::Lease,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams},
    core::PartialObjectMeta,
    runtime::{Controller, controller::Action, watcher},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{events, patch, reconciling::until_ended};

/// A failed reconcile, or one that waits for tasks to end, is tried again after this long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(crate) async fn run(client: Client, shutdown: CancellationToken) -> anyhow::Result<()> {
    let api = Api::<Framework>::all(client.clone());
    let controller = Controller::new(api, watcher::Config::default());
    let known = controller.store();
    let running = controller
        .graceful_shutdown_on(shutdown.clone().cancelled_owned())
        .run(reconcile, |_, _, _| Action::requeue(RETRY_AFTER), Arc::new(client))
        .for_each(|result| async {
            if let Err(error) = result {
                warn!(%error, "framework not reconciled");
            }
        });
    until_ended(running, known, shutdown).await;
    Ok(())
}

async fn reconcile(framework: Arc<Framework>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let namespace = framework.namespace().unwrap_or_default();
    let api = Api::<Framework>::namespaced((*client).clone(), &namespace);
    let held = framework.finalizers().iter().any(|f| f == FRAMEWORK_FINALIZER);
    if framework.metadata.deletion_timestamp.is_some() {
        return if held {
            let_go(&framework, &client, &api).await
        } else {
            Ok(Action::await_change())
        };
    }
    if !held {
        // The write itself brings us back here.
        patch::add_finalizer(&api, &*framework, FRAMEWORK_FINALIZER).await?;
        return Ok(Action::await_change());
    }
    let lease = match framework.spec.lease_duration_seconds {
        Some(_) => {
            Api::<Lease>::namespaced((*client).clone(), &namespace)
                .get_opt(&framework.name_any())
                .await?
        }
        None => None,
    };
    let now = Timestamp::now();
    let phase = phase(&framework, lease.as_ref(), now);
    if phase == FrameworkPhase::Completed {
        delete_tasks(&framework, &client).await?;
    }
    if framework.status.as_ref().and_then(|s| s.phase) != Some(phase) {
        if phase != FrameworkPhase::Active {
            let message = format!("its lease {namespace}/{} is not renewed", framework.name_any());
            events::warn(&client, &*framework, &format!("Framework{phase:?}"), message).await;
        }
        let others = framework.status.iter().flat_map(|s| &s.conditions);
        let others = others.filter(|c| c.type_ != reasons::framework::CONNECTED).cloned();
        let conditions: Vec<Condition> =
            std::iter::once(connected(&framework, phase, now)).chain(others).collect();
        let status = json!({"phase": phase, "conditions": conditions});
        patch::status(&api, &framework.name_any(), framework.resource_version(), status).await?;
    }
    Ok(match framework.spec.lease_duration_seconds {
        // Looked at three times per lease duration: a scheduler that dies is noticed within 4/3.
        Some(seconds) => Action::requeue(Duration::from_secs((seconds.max(3) / 3) as u64)),
        None => Action::await_change(),
    })
}

/// Whether the scheduler is there: by its Lease, which it renews; Active when it asked for no check.
fn phase(framework: &Framework, lease: Option<&Lease>, now: Timestamp) -> FrameworkPhase {
    let Some(duration) = framework.spec.lease_duration_seconds else {
        return FrameworkPhase::Active;
    };
    let renewed =
        lease.and_then(|l| l.spec.as_ref()).and_then(|s| s.renew_time.as_ref()).map(|t| t.0);
    // A framework that has never connected counts from its creation.
    let since =
        renewed.or(framework.metadata.creation_timestamp.as_ref().map(|t| t.0)).unwrap_or(now);
    let silent = now.duration_since(since);
    let allowed = SignedDuration::from_secs(i64::from(duration));
    if silent <= allowed {
        FrameworkPhase::Active
    } else if silent
        <= allowed
            .saturating_add(SignedDuration::from_secs(framework.spec.failover_timeout_seconds))
    {
        FrameworkPhase::Inactive
    } else {
        FrameworkPhase::Completed
    }
}

fn connected(framework: &Framework, phase: FrameworkPhase, now: Timestamp) -> Condition {
    let (status, reason) = match phase {
        _ if framework.spec.lease_duration_seconds.is_none() => ("Unknown", "NotChecked"),
        FrameworkPhase::Active => ("True", "LeaseRenewed"),
        FrameworkPhase::Inactive | FrameworkPhase::Completed => ("False", "LeaseExpired"),
    };
    Condition {
        type_: reasons::framework::CONNECTED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        last_transition_time: Time(now),
        observed_generation: None,
    }
}

/// A deleted framework takes its tasks with it, and goes when the last one has.
async fn let_go(
    framework: &Framework,
    client: &Client,
    api: &Api<Framework>,
) -> Result<Action, kube::Error> {
    if delete_tasks(framework, client).await? {
        return Ok(Action::requeue(RETRY_AFTER));
    }
    patch::remove_finalizer(api, framework, FRAMEWORK_FINALIZER).await?;
    Ok(Action::await_change())
}

/// Deletes the framework's tasks, by one request for all; returns whether there still are some.
///
/// Of those that are left one is looked at, so that waiting for a hundred thousand costs no more than for one. If it
/// came after the deletion the rest is deleted once more.
async fn delete_tasks(framework: &Framework, client: &Client) -> Result<bool, kube::Error> {
    let namespace = framework.namespace().unwrap_or_default();
    let tasks = Api::<PartialObjectMeta<Task>>::namespaced(client.clone(), &namespace);
    let mine = ListParams::default().fields(&format!("spec.framework={}", framework.name_any()));
    let one = Api::<Task>::namespaced(client.clone(), &namespace);
    let found = one.list_metadata(&mine.clone().limit(1)).await?;
    let Some(first) = found.items.first() else { return Ok(false) };
    if first.metadata.deletion_timestamp.is_none() {
        tasks.delete_collection(&DeleteParams::background(), &mine).await?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use commonage_schemas::FrameworkSpec;
    use k8s_openapi::{
        api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime,
    };

    use super::*;

    #[test]
    fn a_silent_scheduler_is_inactive_and_in_the_end_completed() {
        let spec = FrameworkSpec {
            lease_duration_seconds: Some(30),
            failover_timeout_seconds: 100,
            ..FrameworkSpec::default()
        };
        let framework = Framework::new("f", spec);
        let lease = Lease {
            spec: Some(LeaseSpec {
                renew_time: Some(MicroTime(Timestamp::from_second(1000).unwrap())),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        let at = |second| phase(&framework, Some(&lease), Timestamp::from_second(second).unwrap());
        assert_eq!(at(1030), FrameworkPhase::Active);
        assert_eq!(at(1031), FrameworkPhase::Inactive);
        assert_eq!(at(1130), FrameworkPhase::Inactive);
        assert_eq!(at(1131), FrameworkPhase::Completed);
    }

    #[test]
    fn without_a_lease_duration_nobody_checks() {
        let framework = Framework::new("f", FrameworkSpec::default());
        assert_eq!(phase(&framework, None, Timestamp::now()), FrameworkPhase::Active);
    }
}
