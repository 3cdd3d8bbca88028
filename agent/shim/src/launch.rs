//! What a task's state directory holds: the order to the shim (`task.json`) and its last words
//! (`exit.json`), and the paths of everything else in there.
//!
//! The agent writes `task.json` before it asks for a shim; the shim writes all the rest. The
//! directory is the ledger from which a restarted agent learns what became of its tasks.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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
    /// Absolute path inside the container; default is the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<PathBuf>,
    /// Who runs the command.
    #[serde(default)]
    pub user: User,
    /// Host name inside the container; default is the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
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
    /// Further directories and files of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// How much of its output is kept.
    #[serde(default)]
    pub log: LogLimits,
}

/// Numeric identity inside the container (the same numbers outside: no user namespace yet).
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
        Self {
            cpu_millis: None,
            cpu_quota_millis: None,
            memory_bytes: None,
            pids: DEFAULT_PIDS,
        }
    }
}

/// Where the root file system comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Root {
    /// No image: the host's own, read-only, with fresh `/dev`, `/proc`, `/sys`, `/run`, `/tmp`.
    #[default]
    HostReadOnly,
    /// A directory that already holds a root file system (an unpacked image).
    Bundle(PathBuf),
}

/// Which network the task sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The machine's own.
    #[default]
    Host,
    /// A namespace of its own with nothing in it but a loopback that is down.
    None,
}

/// A bind mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the container. With [`Root::HostReadOnly`] its first component must
    /// exist on the host or nothing else may lie in it.
    pub target: PathBuf,
    /// Whether writing is refused.
    pub read_only: bool,
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
        Self {
            max_file_bytes: DEFAULT_LOG_FILE_BYTES,
            max_files: DEFAULT_LOG_FILES,
        }
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

/// The paths in one task's state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Names the directory; nothing is touched. The path must be absolute.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Creates the directory (mode 0700) and writes `task.json` (0600), durably: after this the
    /// intent is on disk and a shim may be asked for.
    ///
    /// # Errors
    /// Whatever the file system says. A directory that exists is reused.
    pub fn prepare(&self, launch: &Launch) -> io::Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)?;
        let json = serde_json::to_vec_pretty(launch)?;
        write_durably(&self.task_json(), &json)
    }

    /// Reads `task.json`.
    ///
    /// # Errors
    /// It is absent or not a [`Launch`].
    pub fn launch(&self) -> io::Result<Launch> {
        Ok(serde_json::from_slice(&std::fs::read(self.task_json())?)?)
    }

    /// Reads `exit.json`, if the task has ended.
    ///
    /// # Errors
    /// It cannot be read or is not an [`Exit`] (never half of one: it is renamed into place).
    pub fn exit(&self) -> io::Result<Option<Exit>> {
        match std::fs::read(self.exit_json()) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The order: a [`Launch`].
    #[must_use]
    pub fn task_json(&self) -> PathBuf {
        self.0.join("task.json")
    }

    /// The end: an [`Exit`]. There if and only if the task has ended and its log is complete.
    #[must_use]
    pub fn exit_json(&self) -> PathBuf {
        self.0.join("exit.json")
    }

    /// The newest log file of a stream; older ones have `.1`, `.2`, … appended. Raw bytes, as
    /// the task wrote them.
    #[must_use]
    pub fn log(&self, stream: Stream) -> PathBuf {
        self.0.join(match stream {
            Stream::Stdout => "stdout.log",
            Stream::Stderr => "stderr.log",
        })
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub(crate) fn pid_json(&self) -> PathBuf {
        self.0.join("pid.json")
    }

    pub(crate) fn shim_log(&self) -> PathBuf {
        self.0.join("shim.log")
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.0.join("bundle")
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.0.join("rootfs")
    }

    pub(crate) fn runtime_root(&self) -> PathBuf {
        self.0.join("rt")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }
}

/// Writes a file so that a reader, even after a power cut, sees all of it or none.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    write_renamed(path, bytes, true)?;
    std::fs::File::open(parent)?.sync_all()
}

/// The same without the flushes: all or none for readers while the machine is up.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_renamed(path, bytes, false)
}

fn write_renamed(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    if sync {
        file.sync_all()?;
    }
    std::fs::rename(&temporary, path)
}
