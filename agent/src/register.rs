//! Telling the cluster that this machine is here: the Agent object and its status.
//!
//! The Agent's `spec` belongs to the operator and is never written after creation; of the status
//! this writes what the machine knows (capacity, addresses, system, the conditions `Ready` and
//! `DiskPressure`), never what the allocator accounts. Liveness is the Lease's business.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use commonage_image::Images;
use commonage_schemas::agent::{AgentAddress, AgentImage, AgentSystem, condition};
use commonage_schemas::names;
use commonage_schemas::resources::{Amount, CPU, DISK, GPU, MEMORY, Ranges};
use commonage_schemas::{Agent, AgentSpec, AgentStatus, Resources, Task};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::collect::Sandboxes;
use crate::config::Overrides;
use crate::detect::{Amounts, Machine, allocatable, disk_used};
use crate::gpus::Gpus;
use crate::report::status_code;
use crate::runtime::describe;

/// Between looks at the Agent object, in case somebody deleted or emptied it.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// Images that are told; as many as Kubernetes' kubelet tells.
const IMAGES_MAX: usize = 50;
/// Pause after a failed attempt, at first.
pub(crate) const AGAIN_FIRST: Duration = Duration::from_millis(250);
/// The longest such pause: a cluster that comes up late is joined soon after.
const AGAIN_LONGEST: Duration = Duration::from_secs(5);
/// The farewell may take this long.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// The machine as the cluster shall know it.
#[derive(Clone)]
pub(crate) struct Registration {
    pub client: kube::Client,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub status: AgentStatus,
    /// What the machine keeps; a simulated one keeps nothing.
    pub images: Option<Images>,
    /// Beside `status`, because their health changes.
    pub gpus: Option<Gpus>,
    pub lease_interval: Duration,
    /// Whose file system is watched for `DiskPressure`.
    pub data_dir: PathBuf,
    /// How full that may be.
    pub sandboxes: Sandboxes,
    /// Rung when the control plane may have taken this agent for dead in the meantime.
    pub returned: Arc<Notify>,
    /// Rung then as well, for whoever follows the tasks: the connection of a watch may have died without a word, and
    /// a watch that hears nothing cannot tell for minutes.
    pub listen_anew: Arc<Notify>,
    /// Rung when there is something new to tell of the machine.
    pub changed: Arc<Notify>,
}

impl Registration {
    /// Keeps the Agent object as it shall be, until `shutdown`.
    pub(crate) async fn keep_agent(self, shutdown: CancellationToken) {
        let mut pause = AGAIN_FIRST;
        loop {
            let wait = match self.register().await {
                Ok(()) => {
                    pause = AGAIN_FIRST;
                    REFRESH_INTERVAL
                }
                Err(error) => {
                    tracing::warn!(agent = self.name, error = describe(&error), "not registered");
                    next_pause(&mut pause)
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.returned.notified() => {}
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// The first time, for whoever has a turn to wait for; [`Registration::keep_agent`] goes on.
    pub(crate) async fn begin(&self) {
        if let Err(error) = self.register().await {
            tracing::warn!(agent = self.name, error = describe(&error), "not registered yet");
        }
    }

    /// Creates or completes the Agent object.
    async fn register(&self) -> kube::Result<()> {
        let api: Api<Agent> = Api::all(self.client.clone());
        let agent = match api.get_opt(&self.name).await? {
            Some(agent) => agent,
            None => self.create(&api).await?,
        };
        self.label(&api, &agent).await?;
        let known = agent.status.clone().unwrap_or_default();
        let mut wanted = self.status_with_ready(&known, "True", "AgentRunning", "the agent runs");
        self.look_at_disk(&mut wanted.conditions);
        self.keep_what_tasks_hold(&known, &mut wanted).await?;
        if wanted != known {
            self.write_status(&api, &wanted).await?;
            tracing::info!(agent = self.name, endpoint = wanted.endpoint, "registered");
        }
        Ok(())
    }

    /// An agent that was started anew with less becomes smaller only as far as the tasks that it runs allow, and by
    /// the rest as they end: nothing is promised twice.
    async fn keep_what_tasks_hold(
        &self,
        known: &AgentStatus,
        wanted: &mut AgentStatus,
    ) -> kube::Result<()> {
        let size = wanted.allocatable.take().unwrap_or_default();
        let before = known.allocatable.clone().unwrap_or_default();
        let held = match size.contains(&without_gpus(before)) {
            true => Resources::new(),
            false => without_gpus(self.held_by_tasks().await?),
        };
        let short = size.missing(&held).join(", ");
        if !short.is_empty() {
            let message = format!(
                "the agent runs; its tasks hold more than it was started with of {short}, so it keeps that until they end"
            );
            tracing::warn!(agent = self.name, held = %held, size = %size, message);
            let conditions = &mut wanted.conditions;
            set_condition(conditions, condition::READY, "True", "AgentRunning", &message);
        }
        wanted.allocatable = Some(at_least(size, &held));
        Ok(())
    }

    /// What the tasks of this agent have that have not ended, revocable resources apart.
    async fn held_by_tasks(&self) -> kube::Result<Resources> {
        let tasks: Api<Task> = Api::all(self.client.clone());
        let here = ListParams::default().fields(&format!("spec.agent={}", self.name));
        let tasks = tasks.list(&here).await?.items;
        let live = tasks.iter().filter(|task| !(task.state().is_terminal() || task.spec.revocable));
        Ok(live.fold(Resources::new(), |sum, task| {
            // Two tasks never have the same port; were it so, it would be held all the same.
            sum.checked_add(&task.spec.resources).unwrap_or(sum)
        }))
    }

    async fn create(&self, api: &Api<Agent>) -> kube::Result<Agent> {
        let mut agent = Agent::new(&self.name, AgentSpec::default());
        agent.metadata.labels = Some(self.labels.clone());
        match api.create(&PostParams::default(), &agent).await {
            // Somebody else was faster: an operator who declares the machine beforehand.
            Err(error) if status_code(&error) == Some(409) => api.get(&self.name).await,
            created => created,
        }
    }

    async fn label(&self, api: &Api<Agent>, agent: &Agent) -> kube::Result<()> {
        let have = agent.labels();
        if self.labels.iter().all(|(key, value)| have.get(key) == Some(value)) {
            return Ok(());
        }
        let patch = Patch::Merge(json!({"metadata": {"labels": self.labels}}));
        api.patch(&self.name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    async fn write_status(&self, api: &Api<Agent>, status: &AgentStatus) -> kube::Result<()> {
        let patch = Patch::Merge(json!({"status": {
            "capacity": status.capacity,
            "allocatable": status.allocatable,
            "addresses": status.addresses,
            "endpoint": status.endpoint,
            "system": status.system,
            "gpus": status.gpus,
            "images": status.images,
            "conditions": status.conditions,
        }}));
        api.patch_status(&self.name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// `known` with this machine's own fields and the condition `Ready` set.
    fn status_with_ready(
        &self,
        known: &AgentStatus,
        ready: &str,
        reason: &str,
        message: &str,
    ) -> AgentStatus {
        let mut conditions = known.conditions.clone();
        set_condition(&mut conditions, condition::READY, ready, reason, message);
        let (mut capacity, mut allocatable) =
            (self.status.capacity.clone(), self.status.allocatable.clone());
        if let Some(gpus) = &self.gpus {
            let (all, healthy) = gpus.counts();
            set_gpus(&mut capacity, all);
            set_gpus(&mut allocatable, healthy);
            tell_health(&mut conditions, gpus);
        } else {
            conditions.retain(|condition| condition.type_ != condition::GPUS_HEALTHY);
        }
        AgentStatus {
            capacity,
            allocatable,
            gpus: self.gpus.as_ref().map(Gpus::told).unwrap_or_default(),
            addresses: self.status.addresses.clone(),
            endpoint: self.status.endpoint.clone(),
            system: self.status.system.clone(),
            images: self.kept(),
            conditions,
            ..known.clone()
        }
    }

    /// The images, the largest first; a status has room for so many.
    fn kept(&self) -> Vec<AgentImage> {
        let kept = self.images.as_ref().and_then(|images| images.kept().ok());
        let mut kept = kept.unwrap_or_default();
        kept.sort_by_key(|image| std::cmp::Reverse(image.bytes));
        kept.truncate(IMAGES_MAX);
        kept.into_iter()
            .map(|image| AgentImage {
                names: image.names,
                digest: image.digest.to_string(),
                size_bytes: i64::try_from(image.bytes).unwrap_or(i64::MAX),
            })
            .collect()
    }

    fn look_at_disk(&self, conditions: &mut Vec<Condition>) {
        let used = match disk_used(&self.data_dir) {
            Ok(used) => used,
            Err(error) => {
                tracing::warn!(error = describe(&error), "the disk can't be looked at");
                return;
            }
        };
        // No figures in the message: it would change, and be written, with every look.
        let (status, reason, message) = match self.sandboxes.is_pressed(used) {
            true => {
                let most = self.sandboxes.pressure * 100.0;
                let message = format!(
                    "over {most:.0} % of the data directory's disk are used: nothing new is sent here"
                );
                ("True", "DiskNearlyFull", message)
            }
            false => ("False", "DiskHasRoom", "the data directory's disk has room".to_owned()),
        };
        set_condition(conditions, condition::DISK_PRESSURE, status, reason, &message);
    }

    /// Says that the agent stops, so that nothing new is sent here while the Lease still holds.
    pub(crate) async fn say_farewell(&self) {
        let farewell = async {
            let api: Api<Agent> = Api::all(self.client.clone());
            let known = api.get(&self.name).await?.status.unwrap_or_default();
            let status =
                self.status_with_ready(&known, "False", "AgentStopped", "the agent was stopped");
            self.write_status(&api, &status).await
        };
        match tokio::time::timeout(FAREWELL_TIMEOUT, farewell).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(error = describe(&error), "the cluster could not be told");
            }
            Err(_) => tracing::debug!("the cluster did not hear the farewell in time"),
        }
    }
}

fn set_gpus(resources: &mut Option<Resources>, count: usize) {
    let thousandths = i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(1000);
    resources.get_or_insert_default().set_scalar(GPU, thousandths);
}

/// Why some of the GPUs are not given out.
fn tell_health(conditions: &mut Vec<Condition>, gpus: &Gpus) {
    let ill: Vec<String> = gpus
        .told()
        .into_iter()
        .filter_map(|gpu| Some(format!("{} {}: {}", gpu.index, gpu.uuid, gpu.message?)))
        .collect();
    let (status, reason, message) = match ill.is_empty() {
        true => ("True", "GpusAnswer", "all GPUs can be given to tasks".to_owned()),
        false => ("False", "GpuUnhealthy", format!("not given to tasks: {}", ill.join("; "))),
    };
    set_condition(conditions, condition::GPUS_HEALTHY, status, reason, &message);
}

pub(crate) fn next_pause(pause: &mut Duration) -> Duration {
    let now = *pause;
    *pause = (now * 2).min(AGAIN_LONGEST);
    now
}

/// Sets a condition; its time moves only when its status does.
fn set_condition(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
) {
    let old = conditions.iter().position(|condition| condition.type_ == type_);
    let since = old
        .map(|place| &conditions[place])
        .filter(|condition| condition.status == status)
        .map(|condition| condition.last_transition_time.clone());
    let new = Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since.unwrap_or_else(|| Time(Timestamp::now())),
        observed_generation: None,
    };
    match old {
        Some(place) => conditions[place] = new,
        None => conditions.push(new),
    }
}

/// What the machine reports: detected, then overridden.
pub(crate) fn status_of(
    machine: &Machine,
    overrides: &Overrides,
    ports: &Ranges,
    host: &str,
    endpoint: String,
) -> AgentStatus {
    let mut addresses =
        vec![AgentAddress { type_: "Hostname".to_owned(), address: machine.hostname.clone() }];
    if host.parse::<std::net::IpAddr>().is_ok() {
        addresses.push(AgentAddress { type_: "InternalIP".to_owned(), address: host.to_owned() });
    }
    AgentStatus {
        capacity: Some(resources(machine.capacity, overrides, ports)),
        allocatable: Some(resources(allocatable(machine.capacity), overrides, ports)),
        addresses,
        endpoint: Some(endpoint),
        system: Some(AgentSystem {
            kernel: Some(machine.kernel.clone()),
            os: machine.os.clone(),
            arch: Some(machine.arch.clone()),
            boot_id: Some(machine.boot_id.clone()),
            cgroup_version: Some(machine.cgroup.as_str().to_owned()),
            versions: BTreeMap::from([("agent".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
        }),
        ..AgentStatus::default()
    }
}

fn resources(amounts: Amounts, overrides: &Overrides, ports: &Ranges) -> Resources {
    let mut resources = Resources::new();
    resources.set_scalar(CPU, overrides.cpu_millis.unwrap_or(amounts.cpu_millis));
    resources.set_scalar(MEMORY, overrides.memory_bytes.unwrap_or(amounts.memory_bytes));
    resources.set_scalar(DISK, overrides.disk_bytes.unwrap_or(amounts.disk_bytes));
    resources.set_ports(ports.clone());
    for (name, amount) in &overrides.other {
        resources.set(name.clone(), amount.clone());
    }
    resources
}

/// GPUs come and go with their health, whatever runs on them.
fn without_gpus(mut resources: Resources) -> Resources {
    resources.remove(GPU);
    resources
}

/// `size`, and where it is less, what is held.
fn at_least(mut size: Resources, held: &Resources) -> Resources {
    for name in size.missing(held) {
        let Some(held) = held.get(&name) else { continue };
        let more = match (size.get(&name), held) {
            (Some(Amount::Ranges(some)), Amount::Ranges(held)) => Amount::Ranges(some.union(held)),
            (Some(Amount::Set(some)), Amount::Set(held)) => Amount::Set(some | held),
            _ => held.clone(),
        };
        size.set(name, more);
    }
    size
}

/// The labels of the Agent object: detected ones, then the operator's.
pub(crate) fn labels_of(
    machine: &Machine,
    gpus: Option<&Gpus>,
    given: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (names::HOSTNAME_LABEL.to_owned(), machine.hostname.clone()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), go_arch(&machine.arch).to_owned()),
    ]);
    labels.extend(gpus.into_iter().flat_map(Gpus::labels));
    labels.extend(given.clone());
    labels
}

/// Kubernetes labels machines with Go's names of architectures.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ready_keeps_the_time_of_its_last_change() {
        let mut conditions = Vec::new();
        set_condition(&mut conditions, "Ready", "True", "AgentRunning", "runs");
        conditions[0].last_transition_time = Time("2026-01-01T00:00:00Z".parse().unwrap());
        set_condition(&mut conditions, "Ready", "True", "AgentRunning", "still runs");
        assert_eq!(conditions.len(), 1);
        assert_eq!(
            conditions[0].last_transition_time,
            Time("2026-01-01T00:00:00Z".parse().unwrap())
        );
        set_condition(&mut conditions, "Ready", "False", "AgentStopped", "stopped");
        assert!(conditions[0].last_transition_time.0.year_after_2026());
    }

    trait Later {
        fn year_after_2026(&self) -> bool;
    }

    impl Later for Timestamp {
        fn year_after_2026(&self) -> bool {
            *self > "2026-01-01T00:00:00Z".parse().unwrap()
        }
    }

    #[test]
    fn what_tasks_hold_is_kept() {
        let resources =
            |pairs: &[(&str, &str)]| Resources::from_pairs(pairs.iter().copied()).unwrap();
        let size = resources(&[("cpu", "200m"), ("memory", "1Gi"), ("ports", "29900-29999")]);
        let held =
            resources(&[("cpu", "1300m"), ("memory", "32Mi"), ("ports", "29000"), ("x/y", "1")]);
        let kept = at_least(size.clone(), &held);
        let wanted = resources(&[
            ("cpu", "1300m"),
            ("memory", "1Gi"),
            ("ports", "29000,29900-29999"),
            ("x/y", "1"),
        ]);
        assert_eq!(kept, wanted);
        assert_eq!(at_least(size.clone(), &Resources::new()), size);
    }

    #[test]
    fn what_the_operator_says_is_offered_whole() {
        let amounts = Amounts { cpu_millis: 2000, memory_bytes: 8 << 30, disk_bytes: 100 << 30 };
        let overrides = Overrides { memory_bytes: Some(16 << 30), ..Overrides::default() };
        let ports = Ranges::from_pairs([(31000, 31009)]);
        let resources = resources(allocatable(amounts), &overrides, &ports);
        assert_eq!(resources.memory_bytes(), 16 << 30);
        assert_eq!(resources.cpu_millis(), 1930);
        assert_eq!(resources.ports().unwrap().len(), 10);
    }
}
