//! The end of a task's life: lets deleted tasks go once nothing runs any more, and deletes finished
//! ones when their time has come.
//!
//! Binding is the allocator's, running the agent's; this controller only ever acts on tasks that
//! are being deleted or are over.

use std::{sync::Arc, time::Duration};

use commonage_schemas::{Task, TaskState, names::TASK_FINALIZER, reasons};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Preconditions},
    runtime::{Controller, controller::Action, watcher},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{events, patch};

/// A failed reconcile is tried again after this long; the API server answers in milliseconds, so
/// what fails is either overtaken or an outage.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(crate) async fn run(client: Client, shutdown: CancellationToken) -> anyhow::Result<()> {
    Controller::new(Api::<Task>::all(client.clone()), watcher::Config::default())
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, |_, _, _| Action::requeue(RETRY_AFTER), Arc::new(client))
        .for_each(|result| async {
            if let Err(error) = result {
                warn!(%error, "task not reconciled");
            }
        })
        .await;
    Ok(())
}

/// An end is told as an event for so long: started anew, we do not tell old ones again.
const NEWS_FOR: SignedDuration = SignedDuration::from_secs(60);

/// What to do about a task now.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// It waits for resources and is not wanted any more.
    Withdraw,
    /// Nothing of it is left anywhere.
    Release,
    /// Its time after the end is over.
    Delete,
    /// Look again after so many seconds.
    Later(u64),
}

fn plan(task: &Task, now: Timestamp) -> Step {
    let state = task.state();
    if task.metadata.deletion_timestamp.is_some() {
        let held = task.finalizers().iter().any(|f| f == TASK_FINALIZER);
        return match state {
            _ if !held => Step::Nothing,
            _ if state.is_terminal() => Step::Release,
            TaskState::Pending => Step::Withdraw,
            _ => Step::Nothing,
        };
    }
    let Some(ttl) = task.spec.ttl_seconds_after_finished.filter(|_| state.is_terminal()) else {
        return Step::Nothing;
    };
    let ended = task
        .status
        .as_ref()
        .and_then(|s| s.finished_at.as_ref().or(s.history.last().map(|h| &h.time)));
    let left = ended.map_or(ttl, |at| at.0.as_second() + ttl - now.as_second());
    u64::try_from(left).ok().filter(|left| *left > 0).map_or(Step::Delete, Step::Later)
}

/// Reason and words for a task that has just ended as nobody wanted.
fn bad_end(task: &Task, now: Timestamp) -> Option<(String, String)> {
    let status = task.status.as_ref()?;
    let bad = matches!(status.state, TaskState::Failed | TaskState::Error | TaskState::Dropped);
    let entered = status.history.last()?.time.0;
    if !bad || now.duration_since(entered) > NEWS_FOR {
        return None;
    }
    let reason = status.reason.clone().unwrap_or_else(|| status.state.to_string());
    let code = status.exit_code.map(|code| format!("exit code {code}"));
    Some((reason, status.message.clone().or(code).unwrap_or_default()))
}

async fn reconcile(task: Arc<Task>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let namespace = task.namespace().unwrap_or_default();
    let api = Api::<Task>::namespaced((*client).clone(), &namespace);
    let name = task.name_any();
    let now = Timestamp::now();
    if let Some((reason, message)) = bad_end(&task, now) {
        events::warn_once(&client, &*task, &reason, message).await;
    }
    match plan(&task, now) {
        Step::Nothing => {}
        Step::Later(seconds) => return Ok(Action::requeue(Duration::from_secs(seconds))),
        Step::Withdraw => {
            let status = json!({
                "state": TaskState::Killed,
                "reason": reasons::task::DELETED,
                "message": "deleted before it got resources",
            });
            patch::status(&api, &name, task.resource_version(), status).await?;
        }
        Step::Release => {
            patch::remove_finalizer(&api, &*task, TASK_FINALIZER).await?;
        }
        Step::Delete => {
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: task.uid(),
                    resource_version: task.resource_version(),
                }),
                ..DeleteParams::background()
            };
            patch::overtaken(api.delete(&name, &params).await)?;
        }
    }
    Ok(Action::await_change())
}

#[cfg(test)]
mod tests {
    use commonage_schemas::{TaskSpec, TaskStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn task(state: TaskState, deleting: bool) -> Task {
        let mut task = Task::new("t", TaskSpec::default());
        task.metadata.finalizers = Some(vec![TASK_FINALIZER.to_owned()]);
        task.metadata.deletion_timestamp = deleting.then_some(Time(Timestamp::UNIX_EPOCH));
        task.status = Some(TaskStatus { state, ..TaskStatus::default() });
        task
    }

    #[test]
    fn a_deleted_task_goes_when_nothing_runs() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(plan(&task(TaskState::Pending, true), now), Step::Withdraw);
        assert_eq!(plan(&task(TaskState::Running, true), now), Step::Nothing);
        assert_eq!(plan(&task(TaskState::Unreachable, true), now), Step::Nothing);
        assert_eq!(plan(&task(TaskState::Killed, true), now), Step::Release);
        assert_eq!(plan(&task(TaskState::Killed, false), now), Step::Nothing);
    }

    #[test]
    fn a_finished_task_goes_after_its_time() {
        let mut done = task(TaskState::Finished, false);
        done.spec.ttl_seconds_after_finished = Some(60);
        if let Some(status) = &mut done.status {
            status.finished_at = Some(Time(Timestamp::from_second(100).unwrap()));
        }
        assert_eq!(plan(&done, Timestamp::from_second(130).unwrap()), Step::Later(30));
        assert_eq!(plan(&done, Timestamp::from_second(160).unwrap()), Step::Delete);
    }
}
