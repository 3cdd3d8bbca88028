//! Every namespace has a framework `default`, whose tasks the control plane places: so a Task that
//! names no framework just runs.

use std::{sync::Arc, time::Duration};

use commonage_schemas::{
    Framework, FrameworkSpec,
    framework::Placement,
    names::{DEFAULT_FRAMEWORK, DEFAULT_QUEUE},
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    api::PostParams,
    runtime::{Controller, controller::Action, reflector::ObjectRef, watcher},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{patch, reconciling::until_ended};

/// Its deletion wakes us; this is for what a broken watch may have missed.
const CHECK_EVERY: Duration = Duration::from_secs(60);
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(crate) async fn run(client: Client, shutdown: CancellationToken) -> anyhow::Result<()> {
    let only_default = format!("metadata.name={DEFAULT_FRAMEWORK}");
    let controller =
        Controller::new(Api::<Namespace>::all(client.clone()), watcher::Config::default());
    let known = controller.store();
    let running = controller
        .watches(
            Api::<Framework>::all(client.clone()),
            watcher::Config::default().fields(&only_default),
            |framework| framework.namespace().map(|namespace| ObjectRef::new(&namespace)),
        )
        .graceful_shutdown_on(shutdown.clone().cancelled_owned())
        .run(reconcile, |_, _, _| Action::requeue(RETRY_AFTER), Arc::new(client))
        .for_each(|result| async {
            if let Err(error) = result {
                warn!(%error, "default framework not made");
            }
        });
    until_ended(running, known, shutdown).await;
    Ok(())
}

async fn reconcile(namespace: Arc<Namespace>, client: Arc<Client>) -> Result<Action, kube::Error> {
    if namespace.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let api = Api::<Framework>::namespaced((*client).clone(), &namespace.name_any());
    if api.get_metadata_opt(DEFAULT_FRAMEWORK).await?.is_none() {
        let spec = FrameworkSpec {
            queues: vec![DEFAULT_QUEUE.to_owned()],
            placement: Placement::Tasks,
            ..FrameworkSpec::default()
        };
        let framework = Framework::new(DEFAULT_FRAMEWORK, spec);
        patch::overtaken(api.create(&PostParams::default(), &framework).await)?;
    }
    Ok(Action::requeue(CHECK_EVERY))
}
