//! Events about tasks that this agent has something to say on. They are news for people: one that can't be
//! written is dropped, and so is what is ordinary when there is much of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use commonage_schemas::{Task, TaskState, TaskStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::ledger::KillCause;
use crate::report::status_code;

/// News that takes longer to tell is old.
const TIMEOUT: Duration = Duration::from_secs(5);
const COMPONENT: &str = "commonage-agent";

/// So many events about what is ordinary at once, and so many a second after that. A task has three of
/// them and is written some six times: where tasks come and go faster than this, its status must do.
const ORDINARY_MAX: f64 = 30.0;
const ORDINARY_PER_SECOND: f64 = 1.0;

/// Writes Events.
#[derive(Clone)]
pub(crate) struct Events {
    client: kube::Client,
    agent: String,
    allowance: Arc<Mutex<Allowance>>,
}

/// How many events may be written now: a token bucket.
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Allowance {
        Allowance { left: ORDINARY_MAX, at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let gained = now.duration_since(self.at).as_secs_f64() * ORDINARY_PER_SECOND;
        self.left = (self.left + gained).min(ORDINARY_MAX);
        self.at = now;
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        allowed
    }
}

/// What happened, and how often it has by now.
pub(crate) struct News<'a> {
    pub(crate) warning: bool,
    pub(crate) reason: &'a str,
    pub(crate) message: &'a str,
    pub(crate) count: u32,
}

impl Events {
    pub(crate) fn new(client: kube::Client, agent: &str) -> Events {
        let allowance = Arc::new(Mutex::new(Allowance::new(Instant::now())));
        Events { client, agent: agent.to_owned(), allowance }
    }

    /// A task got onto this agent.
    pub(crate) fn placed(&self, task: &Task) {
        self.ordinary(task, "Scheduled", format!("Placed on agent {}", self.agent));
    }

    /// A task is told to end.
    pub(crate) fn killing(&self, task: &Task, cause: &KillCause, grace_seconds: i64) {
        let why = match cause {
            KillCause::Deleted => "it is being deleted".to_owned(),
            KillCause::Abandoned => "nobody wants it any more".to_owned(),
            KillCause::Ordered { message, .. } => message.clone(),
            KillCause::HealthCheckFailed(message) => format!("its health check failed: {message}"),
            KillCause::MaxCompletionTime => "it ran for longer than it may".to_owned(),
            KillCause::DiskLimit(how) | KillCause::GroupEnded(how) => how.clone(),
            KillCause::AgentShutdown => "the agent stops".to_owned(),
        };
        let message = format!("Stopping the container within {grace_seconds} s: {why}");
        self.ordinary(task, "Killing", message);
    }

    /// The state of a task changed. One that nobody wanted is told by the controllers.
    pub(crate) fn changed(&self, task: &Task, status: &TaskStatus) {
        let before = task.status.as_ref().map(|status| status.state);
        if before == Some(status.state) {
            return;
        }
        match status.state {
            TaskState::Running => {
                self.ordinary(task, "Started", "Started the container".to_owned());
            }
            TaskState::Finished => {
                let code = status.exit_code.unwrap_or_default();
                self.ordinary(task, "Finished", format!("Exit code {code}"));
            }
            _ => {}
        }
    }

    /// Beside everything else, and only as often as [`ORDINARY_PER_SECOND`] says.
    fn ordinary(&self, task: &Task, reason: &'static str, message: String) {
        let take = |allowance: &mut Allowance| allowance.take(Instant::now());
        if !take(&mut self.allowance.lock().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let (events, task) = (self.clone(), task.clone());
        tokio::spawn(async move {
            let news = News { warning: false, reason, message: &message, count: 1 };
            events.tell(&task, news).await;
        });
    }

    /// Tells about a task. News of one reason is one Event that is brought up to date.
    pub(crate) async fn tell(&self, task: &Task, news: News<'_>) {
        match tokio::time::timeout(TIMEOUT, self.write(task, &news)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "an event is lost"),
            Err(_) => tracing::debug!("an event is lost: no answer"),
        }
    }

    async fn write(&self, task: &Task, news: &News<'_>) -> kube::Result<()> {
        let namespace = task.namespace().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let uid = task.uid().unwrap_or_default();
        let mark: String = uid.chars().filter(char::is_ascii_alphanumeric).take(10).collect();
        let name = format!("{}.{}.{mark}", task.name_any(), news.reason.to_ascii_lowercase());
        let event = self.event(task, news, &name);
        if news.count > 1 {
            let change = json!({
                "message": news.message,
                "count": news.count,
                "lastTimestamp": event["lastTimestamp"],
            });
            match api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await {
                Err(error) if status_code(&error) == Some(404) => {}
                patched => return patched.map(drop),
            }
        }
        let event: Event = serde_json::from_value(event).map_err(kube::Error::SerdeError)?;
        match api.create(&PostParams::default(), &event).await {
            // An agent before this one has told it already.
            Err(error) if status_code(&error) == Some(409) => Ok(()),
            created => created.map(drop),
        }
    }

    fn event(&self, task: &Task, news: &News<'_>, name: &str) -> Value {
        let now = Timestamp::now().round(jiff::Unit::Second).unwrap_or(Timestamp::UNIX_EPOCH);
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": task.namespace()},
            "involvedObject": {
                "apiVersion": "commonage.dev/v1",
                "kind": "Task",
                "namespace": task.namespace(),
                "name": task.name_any(),
                "uid": task.uid(),
            },
            "type": if news.warning { "Warning" } else { "Normal" },
            "reason": news.reason,
            "message": news.message,
            "count": news.count,
            "firstTimestamp": now.to_string(),
            "lastTimestamp": now.to_string(),
            "source": {"component": COMPONENT, "host": self.agent},
            "reportingComponent": COMPONENT,
            "reportingInstance": self.agent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ordinary_is_told_so_often_and_not_oftener() {
        let began = Instant::now();
        let mut allowance = Allowance::new(began);
        let taken =
            |allowance: &mut Allowance, now| (0..1000).filter(|_| allowance.take(now)).count();
        assert_eq!(taken(&mut allowance, began), 30);
        assert_eq!(taken(&mut allowance, began + Duration::from_secs(5)), 5);
        assert_eq!(taken(&mut allowance, began + Duration::from_secs(5)), 0);
        assert_eq!(taken(&mut allowance, began + Duration::from_secs(5000)), 30);
    }
}
