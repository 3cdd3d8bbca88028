//! What every long-running role needs around it: a runtime, a log, an end.

use std::{
    fs,
    future::Future,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args as ClapArgs;
use commonage_agent::config::{
    AllowedCapabilities, GpuChoice, Gpus, ImageOptions, ImagePolicy, Leave, Networks, Sandboxes,
    UserNamespaces, Watermarks, no_user_namespaces,
};
use commonage_agent::{Config as AgentConfig, Identity, Overrides};
use commonage_schemas::{names, resources::Amount};
use commonage_shim::ZygoteHandle;
use kube::Client;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    errors::{Failure, Result, exit},
    output, wait,
};

/// How long the threads of a role that has ended may take to notice.
const RUNTIME_END: Duration = Duration::from_secs(1);

/// Threads that wait for disks and shims; what comes beyond that waits its turn. Nobody has so many disks.
const BLOCKING_THREADS_MAX: usize = 64;
/// They stay, because a machine that has run out of processes gives no new ones: an agent that has some goes on.
const BLOCKING_THREADS_KEPT: Duration = Duration::from_secs(3600);

/// How much a role says.
#[derive(Debug, Clone, Copy, ClapArgs)]
pub(crate) struct Log {
    /// Log more; twice, log everything of ours. $RUST_LOG goes into detail
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Log {
    /// To stderr, so that whoever supervises the process decides where it goes.
    pub(crate) fn start(self) {
        self.start_telling("");
    }

    /// With these directives of `tracing_subscriber::EnvFilter` beside the usual ones: `,TARGET=LEVEL`.
    pub(crate) fn start_telling(self, more: &str) {
        // Whoever made a request that failed says so; the client would say it once more.
        let usual = match self.verbose {
            0 => "warn,kube_client=off",
            1 => "info,kube_client=off",
            _ => {
                "info,commonage=debug,commonage_agent=debug,commonage_apiserver=debug,commonage_controllers=debug"
            }
        };
        let usual = || EnvFilter::new(format!("{usual}{more}"));
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| usual());
        let colour = output::paint(output::Stream::Stderr, output::Tone::Good, "").contains('\x1b');
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(colour)
            .with_writer(std::io::stderr)
            .init();
    }
}

/// Runs a role to its end, on as many threads as there are processors.
pub(crate) fn block_on(role: impl Future<Output = Result<()>>) -> Result<ExitCode> {
    take_all_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(BLOCKING_THREADS_KEPT)
        .build()
        .map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(role);
    runtime.shutdown_timeout(RUNTIME_END);
    result.map(|()| ExitCode::SUCCESS)
}

/// As many open files as this process may have: an agent holds one for each of its tasks, an API server one for each
/// watch, and the usual soft limit of 1024 is for programs that use `select`.
fn take_all_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Nothing but a new start mends the store.
pub(crate) fn store_failed(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("the store has failed: {error}"))
        .hint("start it again: what was acknowledged is there, and tasks run on meanwhile")
}

/// Returns when the process is asked to end: Ctrl-C, or SIGTERM.
pub(crate) async fn asked_to_stop() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|error| Failure::new(format!("cannot wait for signals: {error}")))?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Some part that runs until it is told to stop.
pub(crate) struct Part {
    name: &'static str,
    stop: CancellationToken,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Part {
    pub(crate) fn start<F>(name: &'static str, part: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        Self { name, ended: tokio::spawn(part(stop.clone())), stop }
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        let name = self.name;
        end_of(name, self.ended.await)
    }

    /// Waits for an end that nobody asked for. Cancel safe.
    pub(crate) async fn dies(&mut self) -> Failure {
        match end_of(self.name, (&mut self.ended).await) {
            Ok(()) => Failure::new(format!("the {} stopped by itself", self.name)),
            Err(failure) => failure,
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.ended.is_finished()
    }
}

fn end_of(name: &str, ended: Result<anyhow::Result<()>, tokio::task::JoinError>) -> Result<()> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::new(format!("the {name} failed: {error:#}"))),
        Err(error) => Err(Failure::new(format!("the {name} crashed: {error}"))),
    }
}

/// The same client, which has no use for who owns the fields of an object (`managedFields`) and is
/// not sent it: that is two fifths of a task or an agent.
pub(crate) fn lean(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |mut request: http::Request<kube::client::Body>| {
        let client = client.clone();
        request.headers_mut().insert(
            http::HeaderName::from_static(names::OMIT_HEADER),
            http::HeaderValue::from_static(names::MANAGED_FIELDS),
        );
        async move { client.send(request).await }
    });
    Client::new(service, namespace)
}

/// A data directory, made if it is not there, readable by its owner only.
pub(crate) fn make_data_dir(path: &Path) -> Result<PathBuf> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| path.canonicalize());
    made.map_err(|error| {
        Failure::new(format!("cannot use the data directory {}: {error}", path.display()))
            .hint("another one: --data-dir DIR")
            .exit(exit::HOST)
    })
}

/// What an agent is told by its command line, alone or as part of `cmn up`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Machine {
    /// The agent's name; the host's if not given
    #[arg(long = "node-name", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Labels of the agent, e.g. `rack=r7`
    #[arg(long = "node-label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// What the agent offers instead of what it finds, e.g. `cpu=4,memory=8Gi,ports=31000-31999`.
    /// Agents that share a machine should divide its ports
    #[arg(long, value_name = "NAME=AMOUNT,...", value_delimiter = ',', value_parser = label)]
    resources: Vec<(String, String)>,
    /// A registry, `host` or `host:port`, to speak to without TLS. Those on the machine itself always are
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]", value_delimiter = ',')]
    insecure_registries: Vec<String>,
    /// A host, `host` or `host:port`, that registries may redirect to though it is not public or has no TLS
    #[arg(long = "registry-redirect", value_name = "HOST[:PORT]", value_delimiter = ',')]
    registry_redirects: Vec<String>,
    /// Where the networks are configured that tasks may name (CNI)
    #[arg(long, value_name = "DIR", default_value = commonage_agent::networks::CONFIG_DIR)]
    cni_config_dir: PathBuf,
    /// Where the plugins of those networks are
    #[arg(long = "cni-plugin-dir", value_name = "DIR", value_delimiter = ',', default_values = commonage_agent::networks::PLUGIN_DIRS)]
    cni_plugin_dirs: Vec<PathBuf>,
    /// Images that no task runs go when more than so many percent of the disk are used
    #[arg(long, value_name = "PERCENT", default_value_t = 85, value_parser = clap::value_parser!(u8).range(1..=100))]
    image_gc_high_threshold: u8,
    /// They go until not more than so many percent are used
    #[arg(long, value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=100))]
    image_gc_low_threshold: u8,
    /// What a task ran within this time stays all the same
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = wait::duration)]
    minimum_image_ttl_duration: Duration,
    /// What no task ran for this long goes though there is room
    #[arg(long, value_name = "TIME", default_value = "336h", value_parser = wait::duration)]
    image_maximum_gc_age: Duration,
    /// With more of the disk used than so many percent, and less than 10 GiB left, what ended tasks left goes, and no new
    /// task comes
    #[arg(long, value_name = "PERCENT", default_value_t = 90, value_parser = clap::value_parser!(u8).range(1..=100))]
    disk_pressure_threshold: u8,
    /// How long sandboxes and logs of ended tasks stay on an empty disk; the fuller it is, the shorter
    #[arg(long, value_name = "TIME", default_value = "168h", value_parser = wait::duration)]
    sandbox_gc_delay: Duration,
    /// Which of the machine's GPUs tasks may have: `auto` (all), `none`, or some by number or UUID
    #[arg(long, value_name = "auto|none|GPU,...", default_value = "auto", value_parser = str::parse::<GpuChoice>)]
    gpus: GpuChoice,
    /// Linux capabilities beyond the default set that tasks may have here if their queues allow them: `all`,
    /// `none`, or names
    #[arg(long = "task-capabilities", value_name = "all|none|NAME,...", default_value = "all", value_parser = str::parse::<AllowedCapabilities>)]
    task_capabilities: AllowedCapabilities,
    /// Whether tasks have users of their own, so that root in a container is nobody outside: `off` (those that ask),
    /// `on` (those that do not refuse, where the kernel can), `required`
    #[arg(long, value_name = "off|on|required", default_value = "off", value_parser = str::parse::<UserNamespaces>)]
    user_namespaces: UserNamespaces,
    /// How often the agent says that it lives. Missing four times in a row makes it unreachable: see
    /// `cmn controllers --agent-unreachable-after`
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = wait::duration)]
    lease_interval: Duration,
    /// How long the logs of a task stay that was deleted
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = wait::duration)]
    keep_deleted_logs: Duration,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Whom an agent speaks as, and where it lives.
pub(crate) struct Seat {
    pub(crate) name: String,
    pub(crate) client: Client,
    pub(crate) server: String,
    pub(crate) identity: Identity,
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: std::net::SocketAddr,
    pub(crate) zygote: ZygoteHandle,
    pub(crate) kill_tasks_on_shutdown: bool,
}

impl Machine {
    /// Whether the command line says which ports tasks may have.
    pub(crate) fn has_ports(&self) -> bool {
        self.resources.iter().any(|(name, _)| name == "ports")
    }

    pub(crate) fn config(self, seat: Seat) -> Result<AgentConfig> {
        let Self {
            name: _,
            labels,
            resources,
            insecure_registries,
            registry_redirects,
            cni_config_dir,
            cni_plugin_dirs,
            image_gc_high_threshold,
            image_gc_low_threshold,
            minimum_image_ttl_duration,
            image_maximum_gc_age,
            disk_pressure_threshold,
            sandbox_gc_delay,
            gpus,
            task_capabilities,
            user_namespaces,
            lease_interval,
            keep_deleted_logs,
        } = self;
        let gpus = Gpus::detect(&gpus).map_err(|error| {
            Failure::new(error.to_string())
                .hint("`nvidia-smi -L` lists them; `--gpus none` does without")
                .exit(exit::HOST)
        })?;
        let policy = ImagePolicy { insecure: insecure_registries, redirects: registry_redirects };
        if image_gc_low_threshold > image_gc_high_threshold {
            let what = "--image-gc-low-threshold is above --image-gc-high-threshold";
            return Err(Failure::new(what)
                .hint("images go from the one down to the other")
                .exit(2));
        }
        let watermarks = Watermarks {
            high: f64::from(image_gc_high_threshold) / 100.0,
            low: f64::from(image_gc_low_threshold) / 100.0,
            keep: minimum_image_ttl_duration,
            max_age: image_maximum_gc_age,
        };
        let Seat {
            name,
            client,
            server,
            identity,
            data_dir,
            listen,
            zygote,
            kill_tasks_on_shutdown,
        } = seat;
        Ok(AgentConfig {
            name,
            data_dir,
            client,
            server,
            identity,
            listen,
            advertise: None,
            labels: labels.into_iter().collect(),
            overrides: overrides(&resources)?,
            zygote: zygote.into(),
            cgroup_parent: commonage_agent::config::CGROUP_PARENT.to_owned(),
            networks: Networks { config_dir: cni_config_dir, plugin_dirs: cni_plugin_dirs },
            gpus,
            leave: Leave {
                capabilities: task_capabilities,
                user_namespaces,
                no_user_namespaces: no_user_namespaces(),
            },
            images: ImageOptions { policy, watermarks, ..ImageOptions::default() },
            sandboxes: Sandboxes {
                delay: sandbox_gc_delay,
                pressure: f64::from(disk_pressure_threshold) / 100.0,
            },
            lease_interval,
            keep_deleted: keep_deleted_logs,
            kill_tasks_on_shutdown,
        })
    }
}

fn overrides(resources: &[(String, String)]) -> Result<Overrides> {
    let mut overrides = Overrides::default();
    for (name, text) in resources {
        let amount = Amount::parse(name, text)
            .map_err(|error| Failure::new(format!("--resources {name}={text}: {error}")).exit(2))?;
        match (name.as_str(), amount) {
            ("cpu", Amount::Scalar(millis)) => overrides.cpu_millis = Some(millis),
            ("memory", Amount::Scalar(bytes)) => overrides.memory_bytes = Some(bytes),
            ("disk", Amount::Scalar(bytes)) => overrides.disk_bytes = Some(bytes),
            ("ports", Amount::Ranges(ports)) => overrides.ports = Some(ports),
            ("gpu", _) => {
                return Err(Failure::new(
                    "--resources gpu: an agent gives out the GPUs that it finds",
                )
                .hint("choose among them by --gpus, for example --gpus 0,1")
                .exit(2));
            }
            (_, amount) => {
                overrides.other.insert(name.clone(), amount);
            }
        }
    }
    Ok(overrides)
}

/// The host's name in the form that object names have.
pub(crate) fn host_name() -> String {
    let raw = nix::unistd::gethostname().unwrap_or_default();
    let name: String = raw
        .to_string_lossy()
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() { "agent".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn amounts_of_the_command_line_replace_detected_ones() {
        let given = [
            ("cpu", "1500m"),
            ("memory", "1Gi"),
            ("ports", "33000-33009"),
            ("example.com/fpga", "2"),
        ];
        let given: Vec<_> = given.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let overrides = overrides(&given).unwrap();
        assert_eq!(overrides.cpu_millis, Some(1_500));
        assert_eq!(overrides.memory_bytes, Some(1 << 30));
        assert_eq!(overrides.ports.unwrap().len(), 10);
        assert!(overrides.other.contains_key("example.com/fpga"));
        assert!(super::overrides(&[("cpu".to_owned(), "-1".to_owned())]).is_err());
    }
}
