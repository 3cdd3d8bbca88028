//! Events about tasks that this agent has something to say on. They are news for people: one that can't be
//! written is dropped.

use std::time::Duration;

use commonage_schemas::Task;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::report::status_code;

/// News that takes longer to tell is old.
const TIMEOUT: Duration = Duration::from_secs(5);
const COMPONENT: &str = "commonage-agent";

/// Writes Events.
#[derive(Clone)]
pub(crate) struct Events {
    client: kube::Client,
    agent: String,
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
        Events { client, agent: agent.to_owned() }
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
