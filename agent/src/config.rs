//! Everything an agent is told at its start. Filled in by `cmn agent` and `cmn up`; read nowhere
//! else from flags, files or the environment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use commonage_image::{Options as ImageOptions, Policy as ImagePolicy, Watermarks};
use commonage_schemas::resources::{Amount, Ranges};
use commonage_shim::ZygoteHandle;

pub use crate::collect::Sandboxes;
pub use crate::gpus::{Choice as GpuChoice, Gpus};
pub use crate::networks::Networks;
pub use crate::task::spec::{Allowed as AllowedCapabilities, Leave};
pub use crate::users::{UserNamespaces, impossible as no_user_namespaces};

/// Under which control group those of all agents of a machine lie.
pub const CGROUP_PARENT: &str = "/commonage";

/// What an agent needs to run. Taken apart field by field in [`crate::run`].
pub struct Config {
    /// The agent's name, also that of its Agent object and its Lease.
    pub name: String,
    /// Where the ledger and the sandboxes live. Made when absent; must outlive the agent.
    pub data_dir: PathBuf,
    /// A client that speaks as `system:agent:<name>`.
    pub client: kube::Client,
    /// Where that client's server is, `https://host:port`: tasks with a token of their own are told.
    pub server: String,
    /// The agent's certificate, with which it serves its endpoint.
    pub identity: Identity,
    /// Where the endpoint listens; port 0 is any free one.
    pub listen: SocketAddr,
    /// The host under which the API server and clients of tasks reach this machine. Default: the
    /// address in `listen`, or the host name if that is unspecified.
    pub advertise: Option<String>,
    /// Labels of the Agent object beyond the ones that are detected.
    pub labels: BTreeMap<String, String>,
    /// What the operator says instead of what is detected.
    pub overrides: Overrides,
    /// Forks shims. It was started before this process had any thread.
    pub zygote: Arc<ZygoteHandle>,
    /// Control group in which the agent makes its own; [`CGROUP_PARENT`].
    pub cgroup_parent: String,
    /// Where images may come from beyond HTTPS, how large they may be, when they go again.
    pub images: ImageOptions,
    /// When sandboxes of ended tasks go, and how full the disk may be.
    pub sandboxes: Sandboxes,
    /// Where networks are configured, and the plugins that make them.
    pub networks: Networks,
    /// What there is to give: see [`Gpus::detect`].
    pub gpus: Option<Gpus>,
    /// What tasks may have here.
    pub leave: Leave,
    /// How often the Lease is renewed. The control plane waits for four of these before it calls an
    /// agent unreachable, as Kubernetes does.
    pub lease_interval: Duration,
    /// How long the logs of a task stay whose Task object is deleted, for those who still
    /// read them.
    pub keep_deleted: Duration,
    /// Kill every task on shutdown and wait until they are gone, for 10 s at most. Otherwise they
    /// stay, and the next agent on this data directory finds them.
    pub kill_tasks_on_shutdown: bool,
}

/// A certificate chain and its key, and whom to trust. All PEM.
#[derive(Clone)]
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: String,
    pub ca_pem: String,
}

/// Amounts that replace the detected ones. What is set here is offered to tasks whole, without the
/// reserve for the system: the operator is expected to have thought of it, as with Mesos'
/// `--resources`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    pub cpu_millis: Option<i64>,
    pub memory_bytes: Option<i64>,
    pub disk_bytes: Option<i64>,
    pub ports: Option<Ranges>,
    /// Further resources by name, such as `example.com/fpga`.
    pub other: BTreeMap<String, Amount>,
}
