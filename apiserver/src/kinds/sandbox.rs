//! What reaches out of a container needs leave: a task's queue says what its tasks may have, and what it does not
//! say is refused.

use commonage_schemas::queue::SandboxPolicy;
use commonage_schemas::{GROUP, capabilities, reasons};
use serde_json::Value;

use crate::engine::Engine;
use crate::resource::ResourceDef;
use crate::status::ApiError;

/// Refuses a task that wants more than its queue, or one above that, allows.
pub(super) fn check(engine: &Engine, def: &ResourceDef, task: &Value) -> Result<(), ApiError> {
    let container = &task["spec"]["container"];
    let mounts = container["mounts"].as_array().into_iter().flatten().enumerate();
    let paths = mounts.filter_map(|(place, mount)| {
        Some((format!("spec.container.mounts[{place}].hostPath"), mount["hostPath"].as_str()?))
    });
    let names = container["capabilities"].as_array().into_iter().flatten().enumerate();
    let names = names.filter_map(|(place, name)| {
        Some((format!("spec.container.capabilities[{place}]"), name.as_str()?))
    });
    // Those that every task has may be had again by one that drops all others.
    let is_extra = |name: &str| {
        capabilities::bare(name).is_none_or(|bare| !capabilities::DEFAULT.contains(&bare))
    };
    let names = names.filter(|(_, name)| is_extra(name));
    let (paths, names): (Vec<_>, Vec<_>) = (paths.collect(), names.collect());
    if paths.is_empty() && names.is_empty() {
        return Ok(());
    }
    let queue = task["spec"]["queue"].as_str().unwrap_or_default();
    let policies = policies(engine, queue);
    let refused = paths
        .iter()
        .find(|(_, path)| !policies.iter().any(|policy| policy.allows_path(path)))
        .or_else(|| {
            names.iter().find(|(_, name)| !policies.iter().any(|p| p.allows_capability(name)))
        });
    let Some((field, value)) = refused else { return Ok(()) };
    let name = task["metadata"]["name"].as_str().unwrap_or_default();
    let why = format!("{field}: {value:?} is not allowed by spec.sandbox of queue {queue:?}");
    let mut error = ApiError::forbidden(&def.group, &def.plural, name, &why);
    error.reason = reasons::status::SANDBOX_DENIED.into();
    Err(error)
}

/// What the queue says, and the queues that it lies in.
fn policies(engine: &Engine, queue: &str) -> Vec<SandboxPolicy> {
    let scheme = engine.scheme();
    let Some(queues) = scheme.by_kind(GROUP, "Queue") else { return Vec::new() };
    let Ok(cache) = engine.resource(queues) else { return Vec::new() };
    let dots = queue.match_indices('.').map(|(dot, _)| &queue[..dot]);
    dots.chain([queue])
        .filter_map(|name| {
            let queue = cache.get(&format!("/{name}"))?.to_value();
            serde_json::from_value(queue["spec"]["sandbox"].clone()).ok()
        })
        .collect()
}
