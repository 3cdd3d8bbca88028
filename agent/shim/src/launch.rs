//! The order to a shim (`task.json`, a [`Launch`]) and its last words (`exit.json`, an [`Exit`]).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a task finds its writable directory inside the container.
pub const SANDBOX_MOUNT: &str = "/sandbox";

/// Processes and threads a task may have unless it says otherwise. Enough for any JVM, far too
/// few for a fork bomb to hurt the machine.
pub const DEFAULT_PIDS: u64 = 4096;

/// Size at which a log file is rotated.
pub const DEFAULT_LOG_FILE_BYTES: u64 = 10 * 1024 * 1024;

/// Files kept per stream, the current one included.
pub const DEFAULT_LOG_FILES: u32 = 5;

/// Everything the shim needs to run one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Launch {
    /// The container's id: letters, digits, `-`, `_` and `.`; unique on the machine (the task's
    /// uid, say).
    pub id: String,
    /// The task's control group from the root of every hierarchy: `/commonage/<node>/<id>`.
    pub cgroup: String,
    /// The program and its first arguments. A name without a slash is looked up in the task's
    /// own `PATH`.
    pub command: Vec<String>,
    /// Further arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The whole environment; `PATH`, `HOME`, `HOSTNAME` and `COMMONAGE_SANDBOX` are added where
    /// absent. Nothing of the agent's own environment reaches a task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Absolute path inside the container; default is the sandbox, and `/` in an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<PathBuf>,
    /// Who runs the command.
    #[serde(default)]
    pub user: User,
    /// The same as `user` or `user:group`, names of the image's or numbers. Goes before `user`; only with
    /// [`Root::Image`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// Host name inside the container; default is the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// What lies in the sandbox already is given to `user` as well.
    #[serde(default)]
    pub own_sandbox: bool,
    /// What the kernel enforces.
    #[serde(default)]
    pub limits: Limits,
    /// The root file system.
    #[serde(default)]
    pub root: Root,
    /// The writable directory on the host that appears as [`SANDBOX_MOUNT`]. Must exist; the
    /// shim gives it to `user`.
    pub sandbox: PathBuf,
    /// Host paths that must not be seen inside, first of all the agent's data directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<PathBuf>,
    /// Which network the task sees.
    #[serde(default)]
    pub network: Network,
    /// With whom else it shares memory and queues; absent: with nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipc: Option<SharedIpc>,
    /// Which of the machine's users its users are; absent: themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_namespace: Option<IdRange>,
    /// Further directories and files of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Devices beyond those that every task has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// How its capabilities differ from those that every task has.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// How much of its output is kept.
    #[serde(default)]
    pub log: LogLimits,
    /// What it reads from, and whether it writes to a terminal.
    #[serde(default, skip_serializing_if = "Stdio::is_plain")]
    pub stdio: Stdio,
}

impl Launch {
    /// An order with nothing but a name and a place: for what an order that cannot be read any more has left.
    #[must_use]
    pub fn new(id: &str, cgroup: &str, sandbox: PathBuf) -> Launch {
        Launch {
            id: id.to_owned(),
            cgroup: cgroup.to_owned(),
            command: Vec::new(),
            args: Vec::new(),
            env: BTreeMap::new(),
            working_dir: None,
            user: User::default(),
            user_name: None,
            hostname: None,
            own_sandbox: false,
            limits: Limits::default(),
            root: Root::default(),
            sandbox,
            hidden: Vec::new(),
            network: Network::default(),
            ipc: None,
            user_namespace: None,
            mounts: Vec::new(),
            devices: Vec::new(),
            capabilities: Capabilities::default(),
            log: LogLimits::default(),
            stdio: Stdio::default(),
        }
    }
}

/// A task's standard streams, with the names and the meaning that Kubernetes gives them. By default it reads from
/// `/dev/null`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stdio {
    /// What it reads comes from those who are attached to it. Until somebody is it waits.
    #[serde(default)]
    pub stdin: bool,
    /// Its input ends when the first who was attached to it is gone; with a terminal, that hangs up.
    #[serde(default)]
    pub stdin_once: bool,
    /// It runs in a terminal of its own: there is one output then.
    #[serde(default)]
    pub tty: bool,
}

impl Stdio {
    fn is_plain(&self) -> bool {
        *self == Stdio::default()
    }
}

/// Users and groups of the machine that are a container's: its number 0 is the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The machine's number of the container's root.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

/// A character device that a task may read and write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Of its node inside the container.
    pub path: PathBuf,
    /// The kernel's number of its driver.
    pub major: u64,
    /// That driver's number of it.
    pub minor: u64,
}

/// Names of capabilities as the kernel has them, in capitals and with `CAP_`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// Beyond the default set. Whoever is not root inside the container has these and no others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// Of the default set, not to be had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

/// Numeric identity inside the container. Outside the numbers are the same, unless it has a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
}

/// Enforced by control groups; an absent limit is not enforced, except `pids`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Share of a contended cpu, in thousandths of one (`spec.resources.cpu`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    /// Hard ceiling in thousandths of a cpu, by CFS quota (`spec.limits.cpu`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_quota_millis: Option<u64>,
    /// Hard ceiling in bytes; beyond it the kernel kills inside the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processes and threads at once.
    #[serde(default = "default_pids")]
    pub pids: u64,
}

fn default_pids() -> u64 {
    DEFAULT_PIDS
}

impl Default for Limits {
    fn default() -> Self {
        Self { cpu_millis: None, cpu_quota_millis: None, memory_bytes: None, pids: DEFAULT_PIDS }
    }
}

/// Where the root file system comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Root {
    /// No image: the host's own, read-only, with fresh `/dev`, `/proc`, `/sys`, `/run`, `/tmp`.
    #[default]
    HostReadOnly,
    /// A directory that already holds a root file system.
    Bundle(PathBuf),
    /// An image: its layers, stacked, with a directory of the task's own on top of them.
    #[serde(rename_all = "camelCase")]
    Image {
        /// Uppermost first, absolute. Never written to.
        layers: Vec<PathBuf>,
        /// Nothing but the sandbox, `/tmp` and mounts can be written.
        read_only: bool,
    },
}

/// Which network the task sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The machine's own.
    #[default]
    Host,
    /// A namespace of its own with nothing in it but a loopback.
    None,
    /// A namespace of its own that plugins attach to something.
    Cni(CniNetwork),
    /// That of its group.
    Shared(SharedNetwork),
}

/// A network that several tasks have together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedNetwork {
    /// Where its namespace is mounted.
    pub namespace: PathBuf,
    /// What plugins gave it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

/// What several tasks say to each other by System V and POSIX means: see ipc_namespaces(7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedIpc {
    /// Where the namespace is mounted.
    pub namespace: PathBuf,
    /// What they have as `/dev/shm`.
    pub memory: PathBuf,
}

/// A network as its configuration has it: see the specification of the Container Network Interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CniNetwork {
    /// The network's name.
    pub name: String,
    /// Version of the specification that the plugins are spoken to by.
    pub cni_version: String,
    /// Configurations of the plugins, called in this order.
    pub plugins: Vec<serde_json::Value>,
    /// Where the plugins are.
    pub plugin_dirs: Vec<PathBuf>,
    /// Ports of the host that are to lead to the task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
}

/// A port of the host and that of the task to which it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// On the host.
    pub host: u16,
    /// In the task's network.
    pub container: u16,
}

/// Something mounted into a container: a file or directory of the host, or memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Absolute path on the host; of no meaning for memory.
    pub source: PathBuf,
    /// Absolute path in the container. With [`Root::HostReadOnly`] its first component must
    /// exist on the host or nothing else may lie in it.
    pub target: PathBuf,
    /// Whether writing is refused.
    pub read_only: bool,
    /// Its files belong to the machine's users, and not to the container's: of meaning with a user namespace.
    #[serde(default)]
    pub foreign: bool,
    /// A file system in memory of so many bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmpfs_bytes: Option<u64>,
}

/// How much of a stream is kept. `stdout.log` is the newest file, `stdout.log.1` the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLimits {
    /// A file is rotated before it would exceed this.
    pub max_file_bytes: u64,
    /// Files kept per stream, the current one included; at least 1.
    pub max_files: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { max_file_bytes: DEFAULT_LOG_FILE_BYTES, max_files: DEFAULT_LOG_FILES }
    }
}

/// How a task ended: the content of `exit.json`. Either `error` (it never ran), or one of
/// `exit_code` and `signal`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// What the command returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The kernel killed something in it for exceeding its memory, and it did not succeed.
    #[serde(default)]
    pub oom_killed: bool,
    /// How often the kernel did so.
    #[serde(default)]
    pub oom_kills: u64,
    /// When the command was executed; absent if it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the shim learned of the end.
    pub finished_at: Timestamp,
    /// Why it never ran, or why it was stopped by the shim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ExitError>,
    /// Output that could not be written (disk full).
    #[serde(default)]
    pub log_bytes_dropped: u64,
    /// Output that was kept once and had to go for newer output, of both streams.
    #[serde(default)]
    pub log_bytes_rotated_away: u64,
}

impl Exit {
    /// Whether the command ran and returned 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.error.is_none() && self.exit_code == Some(0)
    }
}

/// A failure that is not the command's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitError {
    /// For machines.
    pub reason: FailureReason,
    /// For people; names the offending path or limit.
    pub message: String,
}

/// Why a task never ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FailureReason {
    /// No such program, or not executable by this user.
    CommandNotFound,
    /// The working directory does not exist or may not be entered.
    InvalidWorkingDir,
    /// A container cannot even start within these limits.
    LimitsTooSmall,
    /// `task.json` is not something that can be run.
    InvalidLaunch,
    /// The container could not be made.
    CreateFailed,
    /// The seccomp filter was not in force, so the task was killed.
    SeccompMissing,
    /// It could not be attached to its network.
    NetworkFailed,
}

impl FailureReason {
    /// The word used in `exit.json` and in a Task's `status.reason`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CommandNotFound => "CommandNotFound",
            Self::InvalidWorkingDir => "InvalidWorkingDir",
            Self::LimitsTooSmall => "LimitsTooSmall",
            Self::InvalidLaunch => "InvalidLaunch",
            Self::CreateFailed => "CreateFailed",
            Self::SeccompMissing => "SeccompMissing",
            Self::NetworkFailed => "NetworkFailed",
        }
    }
}

/// One of a task's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
