//! The paths of a task's state directory, and how its files are written and read.
//!
//! The agent writes `task.json` before it asks for a shim; the shim writes all the rest. The
//! directory is the ledger from which a restarted agent learns what became of its tasks.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::launch::{Exit, Launch, Stream};

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
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
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

    /// How many bytes of the beginning of a stream's log are gone, because rotation keeps only so
    /// many files. Known while the task runs.
    #[must_use]
    pub fn log_bytes_gone(&self, stream: Stream) -> u64 {
        let text = std::fs::read_to_string(gone_file(&self.log(stream))).unwrap_or_default();
        text.trim_end().parse().unwrap_or(0)
    }

    /// The addresses of the task's own network; none if it has no such network.
    #[must_use]
    pub fn addresses(&self) -> Vec<std::net::IpAddr> {
        crate::cni::addresses_of(self)
    }

    pub(crate) fn network_json(&self) -> PathBuf {
        self.0.join("network.json")
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

    /// What a task with an image writes outside of its sandbox and volumes.
    pub(crate) fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }

    /// Overlayfs's own.
    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// `/etc/hosts` and its like.
    pub(crate) fn etc(&self) -> PathBuf {
        self.0.join("etc")
    }
}

/// Where it is written how much of a log is gone.
pub(crate) fn gone_file(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".gone");
    PathBuf::from(name)
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
