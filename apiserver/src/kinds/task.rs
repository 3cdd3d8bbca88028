//! Task: defaults, the state machine, what may change, and the binding to an agent.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use commonage_schemas::resources::{CPU, MEMORY};
use commonage_schemas::task::KillPolicy;
use commonage_schemas::validate::{TASK_CPU_DEFAULT, TASK_MEMORY_DEFAULT};
use commonage_schemas::{GROUP, TaskBinding, TaskState, names, reasons};
use futures::FutureExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{acceptance, checked, claim, kill, ports, sandbox, state};
use crate::engine::{Attempt, Engine, Target, WriteOptions, Written, is_deleting, take_version};
use crate::object::Object;
use crate::resource::ResourceDef;
use crate::status::{ApiError, Cause};
use crate::strategy::{Context, Strategy, SubresourceRequest};

/// The one part of a task's spec that its owner may change later.
const MUTABLE: &str = "killPolicy";

pub(super) struct Tasks;

#[async_trait]
impl Strategy for Tasks {
    fn prepare_create(&self, cx: Context<'_>, object: &mut Value) -> Result<(), ApiError> {
        let known = queues(cx, object["spec"]["framework"].as_str());
        belong(object, known.as_deref());
        check_queue(cx, object, known.as_deref())?;
        sandbox::check(cx.engine, cx.def, object)?;
        forget_lent(object);
        begin(object);
        claim::check(cx, object)?;
        state::enter(object, TaskState::Pending, cx.now);
        Ok(())
    }

    fn prepare_update(
        &self,
        cx: Context<'_>,
        subresource: Option<&str>,
        old: &Value,
        new: &mut Value,
    ) -> Result<(), ApiError> {
        if subresource != Some("status") {
            keep_given(old, new);
            ports::keep(old, new);
            return Ok(());
        }
        if let Some(agent) = cx.user.agent_name()
            && old["spec"]["agent"] != agent
        {
            let name = old["metadata"]["name"].as_str().unwrap_or_default();
            let why = format!("agent {agent:?} may report only on tasks that are bound to it");
            return Err(ApiError::forbidden(&cx.def.group, &cx.def.plural, name, &why));
        }
        if let Some(task) = cx.user.task() {
            own_words(cx, task, old, new)?;
        }
        state::report(cx.def, old, new, cx.now)
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        if old.is_some_and(|old| old["spec"] == object["spec"]) {
            // All rules are about the spec, and what was wrong with it before is tolerated.
            return Vec::new();
        }
        let mut causes = checked::causes(object);
        if let Some(old) = old.filter(|_| !causes.is_empty()) {
            // A rule that came later than the task does not keep its agent from reporting on it.
            let before = checked::causes(old);
            causes.retain(|cause| !before.contains(cause));
        }
        causes.extend(old.into_iter().flat_map(|old| changed(old, object)));
        causes
    }

    /// Nothing runs any more, and nothing is left: nobody has to be waited for.
    fn release(&self, object: &mut Value) {
        let remains = !object["status"]["cleanupPending"].is_null();
        if remains || !state::state_of(object).is_terminal() {
            return;
        }
        if let Some(all) = object["metadata"]["finalizers"].as_array_mut() {
            all.retain(|one| one != names::TASK_FINALIZER);
        }
    }

    fn own_grace_s(&self, object: &Value) -> Option<i64> {
        let own = object["spec"]["killPolicy"]["gracePeriodSeconds"].as_i64();
        Some(own.unwrap_or_else(|| KillPolicy::default().grace_period_seconds))
    }

    fn is_created_otherwise(&self, object: &Value) -> bool {
        object["spec"]["offer"].is_string()
    }

    async fn create_otherwise(
        &self,
        engine: &Arc<Engine>,
        def: &Arc<ResourceDef>,
        namespace: &str,
        object: &Value,
        options: &WriteOptions,
    ) -> Option<Result<Written, ApiError>> {
        let offer = object["spec"]["offer"].as_str()?;
        Some(acceptance::launch_one(engine, def, namespace, offer, object.clone(), options).await)
    }

    async fn post(
        &self,
        engine: &Arc<Engine>,
        request: &SubresourceRequest,
    ) -> Option<Result<(u16, Bytes), ApiError>> {
        match request.subresource.as_str() {
            "binding" => Some(bind(engine, request).await),
            "kill" => Some(kill::kill(engine, request).await),
            _ => None,
        }
    }
}

/// What a running task may say of itself: a message, and whether it is ready where no check of its agent says so.
fn own_words(
    cx: Context<'_>,
    task: (&str, &str),
    old: &Value,
    new: &Value,
) -> Result<(), ApiError> {
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    let forbidden = |why: &str| ApiError::forbidden(&cx.def.group, &cx.def.plural, name, why);
    // Who was granted more than its own is an operator's business, and no task reports on another.
    if task != (cx.namespace, name) {
        return Err(forbidden("a task may report on itself only"));
    }
    if !matches!(state::state_of(old), TaskState::Running | TaskState::Killing) {
        return Err(forbidden("the task does not run"));
    }
    let checked = !old["spec"]["readinessCheck"].is_null();
    let own = |field: &str| field == "message" || (field == "ready" && !checked);
    let (empty, before, after) =
        (serde_json::Map::new(), old["status"].as_object(), new["status"].as_object());
    let (before, after) = (before.unwrap_or(&empty), after.unwrap_or(&empty));
    let mut fields = before.keys().chain(after.keys());
    match fields.find(|field| !own(field) && before.get(*field) != after.get(*field)) {
        None => Ok(()),
        Some(field) if field == "ready" => {
            Err(forbidden("status.ready: the task's readinessCheck says so"))
        }
        Some(field) => Err(forbidden(&format!(
            "status.{field}: a task may report its status.message and status.ready only"
        ))),
    }
}

/// Framework and queue, where the task does not name them.
fn belong(task: &mut Value, known: Option<&[String]>) {
    let spec = &mut task["spec"];
    if spec["framework"].is_null() {
        spec["framework"] = json!(names::DEFAULT_FRAMEWORK);
    }
    if spec["queue"].is_null() {
        let first = known.and_then(|queues| queues.first());
        spec["queue"] = json!(first.map_or(names::DEFAULT_QUEUE, String::as_str));
    }
}

/// What the server gave a task that did not say it stays when an update does not say it either:
/// whoever replaces the object with the text that it was made from has not changed it.
pub(super) fn keep_given(old: &Value, new: &mut Value) {
    for field in ["framework", "queue", "offer", "agent", "reserved", "lent", "kill"] {
        if new["spec"][field].is_null() && !old["spec"][field].is_null() {
            new["spec"][field] = old["spec"][field].clone();
        }
    }
    let shaped = new["spec"]["resources"].is_object() || new["spec"]["resources"].is_null();
    for name in [CPU, MEMORY].into_iter().filter(|_| shaped) {
        let given = &old["spec"]["resources"][name];
        if new["spec"]["resources"][name].is_null() && !given.is_null() {
            new["spec"]["resources"][name] = given.clone();
        }
    }
}

/// The queues of a framework; one that names none has the default one. `None`: there is no such
/// framework, as far as the cache knows.
fn queues(cx: Context<'_>, framework: Option<&str>) -> Option<Vec<String>> {
    let scheme = cx.engine.scheme();
    let frameworks = scheme.by_kind(GROUP, "Framework")?;
    let path = format!("{}/{}", cx.namespace, framework.unwrap_or(names::DEFAULT_FRAMEWORK));
    let framework = cx.engine.resource(frameworks).ok()?.get(&path)?;
    let read = serde_json::from_slice(&framework.body);
    let queues = read.ok().and_then(|Queued { spec }| spec.queues).unwrap_or_default();
    Some(if queues.is_empty() { vec![names::DEFAULT_QUEUE.to_owned()] } else { queues })
}

/// As much of a framework as its tasks have to be compared with.
#[derive(Deserialize)]
struct Queued {
    spec: QueuedSpec,
}

#[derive(Deserialize)]
struct QueuedSpec {
    queues: Option<Vec<String>>,
}

/// A task in a queue that its framework gets nothing from would wait for ever. An unknown framework
/// may still come; until then the task says that it waits for it.
fn check_queue(cx: Context<'_>, task: &Value, known: Option<&[String]>) -> Result<(), ApiError> {
    let queue = &task["spec"]["queue"];
    let Some(known) = known.filter(|known| !known.iter().any(|one| queue == one.as_str())) else {
        return Ok(());
    };
    let name = task["metadata"]["name"].as_str().unwrap_or_default();
    let framework = task["spec"]["framework"].as_str().unwrap_or_default();
    let detail = format!("framework {framework:?} has the queues: {}", known.join(", "));
    Err(ApiError::invalid(cx.def, name, vec![Cause::invalid("spec.queue", queue, &detail)]))
}

/// Cpu and memory, where the task does not name them: as much as it may use at most, else a little.
/// Without them it would be booked as nothing and run without a limit.
pub(super) fn default_resources(task: &mut Value) {
    let spec = &mut task["spec"];
    if !spec["resources"].is_null() && !spec["resources"].is_object() {
        // The schema's validation says what it must be.
        return;
    }
    for (name, default) in [(CPU, TASK_CPU_DEFAULT), (MEMORY, TASK_MEMORY_DEFAULT)] {
        if !spec["resources"][name].is_null() {
            continue;
        }
        let limit = spec["limits"].get(name).filter(|limit| !limit.is_null()).cloned();
        spec["resources"][name] = limit.unwrap_or_else(|| json!(default));
    }
}

/// What an agent lends is no task's own to say.
pub(super) fn forget_lent(task: &mut Value) {
    if let Some(spec) = task["spec"].as_object_mut() {
        spec.remove("lent");
    }
}

/// What every new task gets.
pub(super) fn begin(task: &mut Value) {
    default_resources(task);
    add_finalizer(task, names::TASK_FINALIZER);
}

pub(super) fn add_finalizer(object: &mut Value, finalizer: &str) {
    let finalizers = &mut object["metadata"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(present) if present.iter().any(|one| one == finalizer) => {}
        Some(present) => present.push(json!(finalizer)),
        None => *finalizers = json!([finalizer]),
    }
}

/// A task is run once and as it was asked for: its spec never changes. (Binding does not come
/// this way.)
fn changed(old: &Value, new: &Value) -> Vec<Cause> {
    let nothing = serde_json::Map::new();
    let old = old["spec"].as_object().unwrap_or(&nothing);
    let new = new["spec"].as_object().unwrap_or(&nothing);
    let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
    names
        .filter(|name| *name != MUTABLE && old.get(*name) != new.get(*name))
        .map(|name| {
            let value = new.get(name).cloned().unwrap_or(Value::Null);
            Cause::invalid(format!("spec.{name}"), &value, "field is immutable")
        })
        .collect()
}

/// Gives a pending task its agent and its ports.
async fn bind(
    engine: &Arc<Engine>,
    request: &SubresourceRequest,
) -> Result<(u16, Bytes), ApiError> {
    let binding: TaskBinding = serde_json::from_value(request.body.clone()).map_err(|error| {
        ApiError::bad_request(format!("the body is not a TaskBinding: {error}"))
    })?;
    let target = &Target::new(&request.def, &request.namespace, &request.name, None);
    let (engine, binding) = (&**engine, &binding);
    let bound = engine
        .retrying(target, move |current| {
            bind_once(engine, request, binding, target, current).boxed()
        })
        .await?;
    Ok((201, bound.body.clone()))
}

async fn bind_once(
    engine: &Engine,
    request: &SubresourceRequest,
    binding: &TaskBinding,
    target: &Target,
    current: Arc<Object>,
) -> Result<Arc<Object>, Attempt> {
    let (def, name) = (&request.def, request.name.as_str());
    let version = current.version.0.to_string();
    if binding.metadata.resource_version.as_ref().is_some_and(|wanted| *wanted != version) {
        return Err(ApiError::conflict(def, name).into());
    }
    if let Some(uid) = binding.metadata.uid.as_deref().filter(|uid| **uid != *current.uid) {
        return Err(ApiError::uid_conflict(def, &request.namespace, name, uid, &current.uid).into());
    }
    // A binding is the server's own doing: who owns what of the task stays as it is.
    let (mut task, entries) = current.to_value_and_entries();
    take_version(&mut task);
    if is_deleting(&task) {
        return Err(ApiError::conflict_because(def, name, "the task is being deleted").into());
    }
    let before = state::state_of(&task);
    if before != TaskState::Pending {
        let why = match task["spec"]["agent"].as_str() {
            Some(agent) => format!("the task is already bound to agent {agent:?}"),
            None => format!("the task is {before}"),
        };
        return Err(ApiError::refused(def, name, reasons::status::ALREADY_BOUND, &why).into());
    }
    if binding.agent.is_empty() {
        return Err(invalid_binding(
            name,
            Cause::required("agent", "the agent that the task is to run on"),
        )
        .into());
    }
    if let Some(claimed) = task["spec"]["agent"].as_str().filter(|one| *one != binding.agent) {
        let why = format!("the task claims agent {claimed:?}");
        return Err(ApiError::conflict_because(def, name, &why).into());
    }
    if !binding.reserved.is_empty() {
        task["spec"]["reserved"] = json!(binding.reserved);
    }
    if let Some(lent) = &binding.lent {
        task["spec"]["lent"] = json!(lent);
    }
    ports::fill(&mut task, &binding.host_ports).map_err(|wanted| {
        let detail =
            format!("the task has {wanted} ports with hostPort 0, and needs as many numbers");
        invalid_binding(name, Cause::invalid("hostPorts", &json!(binding.host_ports), &detail))
    })?;
    place(&mut task, &binding.agent);
    if let Some(size) = binding.group_size {
        task["status"]["groupSize"] = json!(size);
    }
    crate::meta::bump_generation(&mut task);
    state::enter(&mut task, TaskState::Staging, jiff::Timestamp::now());
    let entries = entries.as_deref();
    engine.store_edit_with(target, &current, &task, entries, request.options.dry_run).await
}

/// Writes down where the task runs.
pub(super) fn place(task: &mut Value, agent: &str) {
    task["spec"]["agent"] = json!(agent);
    task["status"]["agent"] = json!(agent);
    let given = ports::host_ports(task);
    if !given.is_empty() {
        task["status"]["hostPorts"] = json!(given);
    }
    if let Some(status) = task["status"].as_object_mut() {
        status.remove("whyPending");
        status.remove("reason");
        status.remove("message");
    }
}

fn invalid_binding(name: &str, cause: Cause) -> ApiError {
    ApiError::invalid_kind(GROUP, "TaskBinding", name, vec![cause])
}
