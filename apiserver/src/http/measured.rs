//! Reads of metrics.k8s.io: the agents concerned are asked side by side. One that does not answer is left
//! out of a list, as metrics-server leaves it out; whoever asks for one object is told why there is none.

use std::collections::{BTreeMap, HashMap};

use axum::body::Body;
use commonage_schemas::stats::{AgentStats, TaskStats};
use commonage_schemas::{GROUP, VERSION};
use futures::StreamExt;
use http::{Response, StatusCode};
use serde_json::Value;

use super::chain::Call;
use super::negotiate::Format;
use super::resources::Target;
use super::{list_options, respond};
use crate::engine::ListOptions;
use crate::kinds::measured::{Measured, of_agent, of_task};
use crate::proxy;
use crate::status::ApiError;

/// Agents asked at once: each is a TLS handshake.
const ASKED_MAX: usize = 64;

pub(super) async fn read(
    call: &Call<'_>,
    target: &Target,
    what: Measured,
) -> Result<Response<Body>, ApiError> {
    let format = Format::negotiate(call.headers, call.query)?;
    let object = match (what, target.name.is_empty()) {
        (Measured::Pods, true) => pods(call, target).await?,
        (Measured::Pods, false) => pod(call, target).await?,
        (Measured::Nodes, true) => nodes(call).await?,
        (Measured::Nodes, false) => node(call, target).await?,
    };
    Ok(respond::document(StatusCode::OK, object.to_string().into(), format))
}

async fn pod(call: &Call<'_>, target: &Target) -> Result<Value, ApiError> {
    let not_found = || ApiError::not_found(&target.def, &target.name);
    let task = one(call, "tasks", &target.namespace, &target.name).await?.ok_or_else(not_found)?;
    let agent = runs_on(&task).ok_or_else(not_found)?;
    let seen = ask(call, agent).await?;
    let mine = seen.tasks.iter().find(|stats| task["metadata"]["uid"] == stats.uid);
    Ok(of_task(&task, &seen, mine.ok_or_else(not_found)?))
}

async fn node(call: &Call<'_>, target: &Target) -> Result<Value, ApiError> {
    let agent = one(call, "agents", "", &target.name).await?;
    let agent = agent.ok_or_else(|| ApiError::not_found(&target.def, &target.name))?;
    Ok(of_agent(&agent, &ask(call, target.name.clone()).await?))
}

async fn pods(call: &Call<'_>, target: &Target) -> Result<Value, ApiError> {
    let tasks = listed(call, "tasks", target.namespaces()).await?;
    let mut by_agent: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for task in tasks {
        if let Some(agent) = runs_on(&task) {
            by_agent.entry(agent).or_default().push(task);
        }
    }
    let seen = ask_all(call, by_agent.keys().cloned().collect()).await;
    let mut items = Vec::new();
    for (agent, tasks) in &by_agent {
        let Some(seen) = seen.get(agent) else { continue };
        let stats: HashMap<&str, &TaskStats> =
            seen.tasks.iter().map(|stats| (&*stats.uid, stats)).collect();
        for task in tasks {
            let uid = task["metadata"]["uid"].as_str().unwrap_or_default();
            items.extend(stats.get(uid).map(|stats| of_task(task, seen, stats)));
        }
    }
    Ok(Measured::Pods.list(items))
}

async fn nodes(call: &Call<'_>) -> Result<Value, ApiError> {
    let agents = listed(call, "agents", None).await?;
    let names = agents.iter().filter_map(|agent| agent["metadata"]["name"].as_str());
    let seen = ask_all(call, names.map(str::to_owned).collect()).await;
    let items = agents.iter().filter_map(|agent| {
        let seen = seen.get(agent["metadata"]["name"].as_str()?)?;
        Some(of_agent(agent, seen))
    });
    Ok(Measured::Nodes.list(items.collect()))
}

/// The agent that a Task has a container on.
fn runs_on(task: &Value) -> Option<String> {
    let state = task.pointer("/status/state")?.as_str()?;
    let running = matches!(state, "Running" | "Killing");
    running.then(|| task["spec"]["agent"].as_str().map(str::to_owned)).flatten()
}

async fn one(
    call: &Call<'_>,
    plural: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, ApiError> {
    let scheme = call.app.engine.scheme();
    let def = scheme.get(GROUP, VERSION, plural).ok_or_else(|| not_served(plural))?;
    match call.app.engine.get(def, namespace, name, Some(0)).await {
        Ok(found) => Ok(Some(found.to_value())),
        Err(error) if error.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the selectors of the query choose.
async fn listed(
    call: &Call<'_>,
    plural: &str,
    namespace: Option<&str>,
) -> Result<Vec<Value>, ApiError> {
    let scheme = call.app.engine.scheme();
    let def = scheme.get(GROUP, VERSION, plural).ok_or_else(|| not_served(plural))?;
    let asked = list_options::list(call.query)?;
    let options = ListOptions {
        label_selector: asked.label_selector,
        field_selector: asked.field_selector,
        limit: 0,
        continue_: None,
        // What was measured has no version; any state of a moment ago will do.
        resource_version: Some(0),
        version_match: None,
    };
    let list = call.app.engine.list(def, namespace, options).await?;
    Ok(list.items.iter().map(|object| object.to_value()).collect())
}

fn not_served(plural: &str) -> ApiError {
    ApiError::internal(format!("{plural} are not served"))
}

async fn ask(call: &Call<'_>, agent: String) -> Result<AgentStats, ApiError> {
    let at = proxy::find(call.app, agent).await?;
    call.app.agents.stats(&at).await
}

async fn ask_all(call: &Call<'_>, agents: Vec<String>) -> HashMap<String, AgentStats> {
    let asked =
        futures::stream::iter(agents).map(async |agent| match ask(call, agent.clone()).await {
            Ok(seen) => Some((agent, seen)),
            Err(error) => {
                tracing::debug!(agent, error = error.message, "left out of what is in use");
                None
            }
        });
    asked.buffer_unordered(ASKED_MAX).filter_map(std::future::ready).collect().await
}
