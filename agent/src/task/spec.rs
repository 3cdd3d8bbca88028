//! From a Task to the order that its shim gets, or to the reason why this agent refuses it.
//!
//! Whatever a spec asks for and this agent can't do is refused by name, never left out silently:
//! a task that runs without what it asked for is worse than one that does not run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use commonage_image::Image;
use commonage_schemas::reasons::task as reasons;
use commonage_schemas::task::{Check, Container, ContainerPort};
use commonage_schemas::{Resources, Task};
use commonage_shim::Launch;
use commonage_shim::launch::{
    CniNetwork, Limits, LogLimits, Network, PortMapping, Root, Stdio, User,
};
use kube::ResourceExt;
use nix::sys::signal::Signal;

use crate::networks::maps_ports;
use crate::prepare::{Prepared, network_of};
use crate::users::{self, UserNamespaces};

mod capabilities;
pub mod mounts;

pub use capabilities::Allowed;

/// What all tasks of one agent have in common.
#[derive(Clone, Debug)]
pub struct Site {
    pub agent: String,
    /// Under which name or address others reach the tasks' host ports.
    pub host: String,
    /// Never visible inside a task.
    pub data_dir: PathBuf,
    /// The agent's control group, directly below which those of its tasks lie: see [`crate::group`].
    pub group: String,
    /// Where the API server is: `https://host:port`.
    pub server: String,
    /// What this agent lets tasks have.
    pub leave: Leave,
}

/// What an agent lets tasks have, whatever their queues say.
#[derive(Clone, Debug, Default)]
pub struct Leave {
    /// Capabilities beyond the default set.
    pub capabilities: Allowed,
    /// Users of their own.
    pub user_namespaces: UserNamespaces,
    /// Why nobody can have those here.
    pub no_user_namespaces: Option<String>,
}

/// Why a Task is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One of [`commonage_schemas::reasons::task`].
    pub reason: &'static str,
    /// In words, with the field's name.
    pub message: String,
}

/// What can be said against a task before anything is got ready for it.
///
/// # Errors
/// The first field that asks for something this agent can't do.
pub fn check(task: &Task) -> Result<(), Refusal> {
    refuse_unknown(task)?;
    if let Some(image) = &task.spec.container.image {
        let parsed = image.parse::<commonage_image::Reference>();
        parsed.map_err(|error| unsupported(format!("spec.container.image: {error}")))?;
    }
    kill_signal(task).map(drop)
}

/// The order to the shim. `sandbox` is where the task's writable directory will be.
///
/// # Errors
/// The first field that asks for something this agent can't do.
pub fn launch(
    task: &Task,
    site: &Site,
    sandbox: PathBuf,
    prepared: &Prepared,
) -> Result<Launch, Refusal> {
    let spec = &task.spec;
    let container = &spec.container;
    check(task)?;
    let uid = task.uid().unwrap_or_default();
    let image = prepared.image.as_deref();
    let leave = &site.leave;
    users::wanted(task, leave.user_namespaces, leave.no_user_namespaces.as_deref())
        .map_err(unsupported)?;
    let (command, args) = program(container, image)?;
    let (user, user_name) = user(container, image)?;
    Ok(Launch {
        cgroup: format!("{}/{uid}", site.group),
        id: uid,
        command,
        args,
        env: environment(task, site, prepared),
        working_dir: working_dir(container, image),
        user,
        user_name,
        own_sandbox: prepared.fetched.is_some(),
        hostname: Some(hostname(&task.name_any())),
        limits: limits(&spec.resources, spec.limits.as_ref()),
        root: match image {
            Some(image) => Root::Image {
                layers: image.layers.clone(),
                read_only: container.read_only_root_filesystem,
            },
            None => Root::HostReadOnly,
        },
        sandbox,
        hidden: vec![site.data_dir.clone()],
        network: network(container, prepared)?,
        mounts: mounts::of(task, prepared)?,
        devices: Vec::new(),
        ipc: None,
        user_namespace: None,
        capabilities: capabilities::of(container, &site.leave)?,
        log: LogLimits::default(),
        stdio: Stdio {
            stdin: container.stdin,
            stdin_once: container.stdin_once,
            tty: container.tty,
        },
    })
}

/// The first signal of the task's kill policy, by number. Both `TERM` and `SIGTERM` are read.
pub fn kill_signal(task: &Task) -> Result<i32, Refusal> {
    let name = task.spec.kill_policy.signal.trim().to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    match Signal::from_str(&format!("SIG{name}")) {
        Ok(signal) => Ok(signal as i32),
        Err(_) => Err(unsupported(format!(
            "spec.killPolicy.signal: {:?} is not a signal; use TERM, INT, HUP, QUIT, USR1, USR2 or KILL",
            task.spec.kill_policy.signal
        ))),
    }
}

/// The port that a check goes to: the one it names, else the container's first; in a network of the task's own
/// the port there, else the host's.
pub fn check_port(container: &Container, name: Option<&str>) -> Option<u16> {
    let port = match name {
        Some(name) => container.ports.iter().find(|port| port.name.as_deref() == Some(name)),
        None => container.ports.first(),
    };
    let port = port?;
    let inside = network_of(container).and(port.container_port);
    u16::try_from(inside.unwrap_or(port.host_port)).ok().filter(|port| *port > 0)
}

fn refuse_unknown(task: &Task) -> Result<(), Refusal> {
    let spec = &task.spec;
    let container = &spec.container;
    let no_image = container.image.is_none();
    if no_image && container.command.is_empty() && container.args.is_empty() {
        return Err(unsupported(
            "spec.container.command: is empty, and without an image there is no default",
        ));
    }
    if no_image && container.command.is_empty() {
        return Err(unsupported(
            "spec.container.args: without an image the program belongs into spec.container.command",
        ));
    }
    capabilities::of(container, &Leave::default())?;
    mounts::check(task)?;
    for port in &container.ports {
        refuse_unbound_port(port)?;
    }
    for (field, check) in
        [("spec.healthCheck", &spec.health_check), ("spec.readinessCheck", &spec.readiness_check)]
    {
        if let Some(check) = check {
            refuse_check(field, check, container)?;
        }
    }
    Ok(())
}

fn refuse_unbound_port(port: &ContainerPort) -> Result<(), Refusal> {
    if port.host_port == 0 {
        return Err(unsupported(
            "spec.container.ports: a hostPort is still 0, the control plane picked none",
        ));
    }
    Ok(())
}

fn refuse_check(field: &str, check: &Check, container: &Container) -> Result<(), Refusal> {
    let port_name = match (&check.http, &check.tcp, &check.exec) {
        (Some(http), None, None) => &http.port,
        (None, Some(tcp), None) => &tcp.port,
        (None, None, Some(exec)) if exec.command.first().is_none_or(String::is_empty) => {
            return Err(unsupported(format!("{field}.exec.command: must name a program")));
        }
        (None, None, Some(_)) => return Ok(()),
        _ => {
            return Err(unsupported(format!(
                "{field}: exactly one of http, tcp and exec must be set"
            )));
        }
    };
    if container.network.as_deref() == Some("None") {
        return Err(unsupported(format!(
            "{field}: nothing can reach a task with spec.container.network None"
        )));
    }
    if check_port(container, port_name.as_deref()).is_none() {
        return Err(unsupported(format!(
            "{field}: spec.container.ports has no port {}",
            port_name.as_deref().unwrap_or("at all"),
        )));
    }
    Ok(())
}

/// What is run, as Kubernetes has it: a command replaces the image's entrypoint and its arguments, arguments alone
/// only the image's.
fn program(
    container: &Container,
    image: Option<&Image>,
) -> Result<(Vec<String>, Vec<String>), Refusal> {
    let (command, args) = (&container.command, &container.args);
    let config = image.map(|image| image.config.clone()).unwrap_or_default();
    if image.is_none() || !command.is_empty() {
        return Ok((command.clone(), args.clone()));
    }
    let args = if args.is_empty() { config.cmd } else { args.clone() };
    let mut words = config.entrypoint.into_iter().chain(args);
    match words.next() {
        Some(program) => Ok((vec![program], words.collect())),
        None => Err(unsupported(
            "spec.container.command: is empty, and the image has neither entrypoint nor command",
        )),
    }
}

fn working_dir(container: &Container, image: Option<&Image>) -> Option<PathBuf> {
    let given = container.working_dir.clone().map(PathBuf::from);
    let Some(image) = image else { return given };
    // Always from the top, also where an image leaves the first slash out.
    Some(given.unwrap_or_else(|| Path::new("/").join(&image.config.working_dir)))
}

/// The signal that an image wants to be ended by, given by name, such as `SIGQUIT`, or by number.
pub fn image_signal(wish: &str) -> Option<i32> {
    let name = wish.trim().to_ascii_uppercase();
    let number = name.parse().ok().filter(|number| (1..=64).contains(number));
    let named = || Signal::from_str(&format!("SIG{}", name.trim_start_matches("SIG"))).ok();
    number.or_else(|| named().map(|signal| signal as i32))
}

/// `uid` or `uid:gid`. The group defaults to the user's number, not to root's group. What an image says, or what
/// may be a name of one, the shim finds out in it.
fn user(container: &Container, image: Option<&Image>) -> Result<(User, Option<String>), Refusal> {
    if let Some(image) = image {
        let said = container.user.clone().unwrap_or_else(|| image.config.user.clone());
        return Ok((User::default(), Some(said).filter(|said| !said.is_empty())));
    }
    numbers(container).map(|user| (user, None))
}

fn numbers(container: &Container) -> Result<User, Refusal> {
    let Some(text) = container.user.as_deref() else {
        return Ok(User::default());
    };
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    match (uid.parse(), gid.parse()) {
        (Ok(uid), Ok(gid)) => Ok(User { uid, gid, additional_gids: Vec::new() }),
        _ => Err(unsupported(format!(
            "spec.container.user: {text:?} is not uid or uid:gid in numbers"
        ))),
    }
}

fn network(container: &Container, prepared: &Prepared) -> Result<Network, Refusal> {
    let Some(name) = network_of(container) else {
        return Ok(match container.network.as_deref() {
            Some("None") => Network::None,
            _ => Network::Host,
        });
    };
    let Some(network) = &prepared.network else {
        return Err(unsupported(format!("spec.container.network: {name:?} was not got ready")));
    };
    let ports: Vec<PortMapping> = port_mappings(container).collect();
    if !ports.is_empty() && !maps_ports(network) {
        return Err(unsupported(format!(
            "spec.container.ports: network {name:?} has no plugin that leads ports of the agent to it (portmap)"
        )));
    }
    Ok(Network::Cni(CniNetwork { ports, ..network.clone() }))
}

/// Which ports of the machine are to lead to which of a container's own network.
pub fn port_mappings(container: &Container) -> impl Iterator<Item = PortMapping> {
    let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
    container.ports.iter().filter_map(move |port| {
        let host = number(port.host_port)?;
        Some(PortMapping { host, container: port.container_port.and_then(number).unwrap_or(host) })
    })
}

/// What the kernel enforces: `limits`, and for what it does not name, `resources`.
fn limits(resources: &Resources, limits: Option<&Resources>) -> Limits {
    let ceiling = |name: &str| {
        let limit = limits.filter(|limits| limits.get(name).is_some());
        positive(limit.unwrap_or(resources).scalar(name))
    };
    Limits {
        cpu_millis: positive(resources.cpu_millis()),
        cpu_quota_millis: ceiling(commonage_schemas::resources::CPU),
        memory_bytes: ceiling(commonage_schemas::resources::MEMORY),
        ..Limits::default()
    }
}

fn positive(amount: i64) -> Option<u64> {
    u64::try_from(amount).ok().filter(|amount| *amount > 0)
}

/// What the image says, then who and where the task is, and its ports; the spec's own variables win.
fn environment(task: &Task, site: &Site, prepared: &Prepared) -> BTreeMap<String, String> {
    let container = &task.spec.container;
    let image = prepared.image.as_deref();
    let mut env = image.map(|image| image.config.environment()).unwrap_or_default();
    env.extend([
        ("COMMONAGE_TASK".to_owned(), task.name_any()),
        ("COMMONAGE_NAMESPACE".to_owned(), task.namespace().unwrap_or_default()),
        ("COMMONAGE_AGENT".to_owned(), site.agent.clone()),
        ("HOST".to_owned(), site.host.clone()),
    ]);
    if container.api_token {
        env.extend(server_variables(&site.server));
    }
    for (place, port) in container.ports.iter().enumerate() {
        env.insert(format!("PORT{place}"), port.host_port.to_string());
        if let Some(name) = &port.name {
            env.insert(format!("PORT_{}", variable_name(name)), port.host_port.to_string());
        }
    }
    for variable in &container.env {
        let read = prepared.env.get(&variable.name).unwrap_or(&variable.value);
        env.insert(variable.name.clone(), read.clone());
    }
    env
}

/// Where Kubernetes' clients look for the server that they run on.
fn server_variables(server: &str) -> Vec<(String, String)> {
    let mut variables = vec![("COMMONAGE_API".to_owned(), server.to_owned())];
    if let Ok(server) = server.parse::<http::Uri>()
        && let Some(host) = server.host()
    {
        let port = server.port_u16().unwrap_or(443).to_string();
        variables
            .push(("KUBERNETES_SERVICE_HOST".to_owned(), host.trim_matches(['[', ']']).to_owned()));
        variables.push(("KUBERNETES_SERVICE_PORT".to_owned(), port));
    }
    variables
}

/// A port's name as shells can read it: `admin-http` is found as `PORT_ADMIN_HTTP`.
fn variable_name(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() => c.to_ascii_uppercase(),
            _ => '_',
        })
        .collect()
}

/// The task's name, cut to what the kernel takes (64 bytes), up to its first dot.
fn hostname(name: &str) -> String {
    const HOST_NAME_MAX: usize = 63;
    let label = name.split('.').next().unwrap_or(name);
    label.chars().take(HOST_NAME_MAX).collect()
}

fn unsupported(message: impl Into<String>) -> Refusal {
    Refusal { reason: reasons::UNSUPPORTED, message: message.into() }
}

#[cfg(test)]
mod tests;
