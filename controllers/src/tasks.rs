//! The end of a task's life: lets deleted tasks go once nothing runs any more, and deletes finished
//! ones when their time has come.
//!
//! Binding is the allocator's, running the agent's; this controller only ever acts on tasks that
//! are being deleted or are over. It keeps none of the others: they are looked at and forgotten.

use std::{sync::Arc, time::Duration};

use commonage_schemas::{Task, TaskState, names::TASK_FINALIZER, reasons, task::StateChange};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Preconditions},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{agenda, events, patch};

/// As much of a Task as its end needs. Every change of every task comes by here, and most are
/// nothing to us: what is not named is not decoded.
#[derive(Clone, Debug, Default, Deserialize, Serialize, Resource)]
#[resource(inherit = "Task")]
struct Ending {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: EndingSpec,
    #[serde(default)]
    status: EndingStatus,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct EndingSpec {
    ttl_seconds_after_finished: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct EndingStatus {
    state: TaskState,
    reason: Option<String>,
    message: Option<String>,
    exit_code: Option<i32>,
    cleanup_pending: Option<String>,
    finished_at: Option<Time>,
    history: Vec<StateChange>,
}

pub(crate) async fn run(client: Client, shutdown: CancellationToken) -> anyhow::Result<()> {
    let api = Api::<Ending>::all(client.clone());
    let work = |task: Arc<Ending>| reconcile(task, client.clone());
    agenda::run(api, |task| due(task, Timestamp::now()), work, shutdown).await
}

/// After how long there is something to do about a task.
fn due(task: &Ending, now: Timestamp) -> Option<Duration> {
    let to_tell = bad_end(task, now).is_some();
    match plan(task, now) {
        Step::Nothing if !to_tell => None,
        Step::Later(seconds) if !to_tell => Some(Duration::from_secs(seconds)),
        _ => Some(Duration::ZERO),
    }
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

fn plan(task: &Ending, now: Timestamp) -> Step {
    let state = task.status.state;
    if task.metadata.deletion_timestamp.is_some() {
        let held = task.finalizers().iter().any(|f| f == TASK_FINALIZER);
        return match state {
            _ if !held => Step::Nothing,
            _ if task.status.cleanup_pending.is_some() => Step::Nothing,
            _ if state.is_terminal() => Step::Release,
            TaskState::Pending => Step::Withdraw,
            _ => Step::Nothing,
        };
    }
    let Some(ttl) = task.spec.ttl_seconds_after_finished.filter(|_| state.is_terminal()) else {
        return Step::Nothing;
    };
    let ended = task.status.finished_at.as_ref().or(task.status.history.last().map(|h| &h.time));
    let left = ended.map_or(ttl, |at| at.0.as_second() + ttl - now.as_second());
    u64::try_from(left).ok().filter(|left| *left > 0).map_or(Step::Delete, Step::Later)
}

/// Reason and words for a task that has just ended as nobody wanted.
fn bad_end(task: &Ending, now: Timestamp) -> Option<(String, String)> {
    let status = &task.status;
    let bad = matches!(status.state, TaskState::Failed | TaskState::Error | TaskState::Dropped);
    let entered = status.history.last().filter(|_| bad)?.time.0;
    if now.duration_since(entered) > NEWS_FOR {
        return None;
    }
    let reason = status.reason.clone().unwrap_or_else(|| status.state.to_string());
    let code = status.exit_code.map(|code| format!("exit code {code}"));
    Some((reason, status.message.clone().or(code).unwrap_or_default()))
}

/// Does what is to be done now; returns after how long to look again, if the task does not change.
async fn reconcile(task: Arc<Ending>, client: Client) -> kube::Result<Option<Duration>> {
    let namespace = task.namespace().unwrap_or_default();
    let api = Api::<Ending>::namespaced(client.clone(), &namespace);
    let name = task.name_any();
    let now = Timestamp::now();
    if let Some((reason, message)) = bad_end(&task, now) {
        events::warn_once(&client, &*task, &reason, message).await;
    }
    match plan(&task, now) {
        Step::Nothing => {}
        Step::Later(seconds) => return Ok(Some(Duration::from_secs(seconds))),
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
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(state: TaskState, deleting: bool) -> Ending {
        let mut task = Ending::default();
        task.metadata.finalizers = Some(vec![TASK_FINALIZER.to_owned()]);
        task.metadata.deletion_timestamp = deleting.then_some(Time(Timestamp::UNIX_EPOCH));
        task.status.state = state;
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
        done.status.finished_at = Some(Time(Timestamp::from_second(100).unwrap()));
        assert_eq!(plan(&done, Timestamp::from_second(130).unwrap()), Step::Later(30));
        assert_eq!(plan(&done, Timestamp::from_second(160).unwrap()), Step::Delete);
    }

    #[test]
    fn as_much_of_a_task_as_is_read_is_what_tasks_have() {
        let mut task = Task::new("t", commonage_schemas::TaskSpec::default());
        task.spec.ttl_seconds_after_finished = Some(7);
        task.status = Some(commonage_schemas::TaskStatus {
            state: TaskState::Failed,
            exit_code: Some(3),
            finished_at: Some(Time(Timestamp::UNIX_EPOCH)),
            ..Default::default()
        });
        let read: Ending = serde_json::from_value(serde_json::to_value(&task).unwrap()).unwrap();
        assert_eq!(read.spec.ttl_seconds_after_finished, Some(7));
        assert_eq!((read.status.state, read.status.exit_code), (TaskState::Failed, Some(3)));
        assert!(read.status.finished_at.is_some());
        task.status = None;
        let read: Ending = serde_json::from_value(serde_json::to_value(&task).unwrap()).unwrap();
        assert_eq!(plan(&read, Timestamp::UNIX_EPOCH), Step::Nothing);
    }
}
