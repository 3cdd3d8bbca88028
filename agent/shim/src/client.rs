//! What the agent says to shims, and how it learns what became of them.
//!
//! Plain blocking calls with a time-out, to be used from `spawn_blocking`; nothing here touches
//! libcontainer, so any thread may call it. Only [`Shim::subscribe`] gives something to wait on.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::launch::{Exit, Launch};

/// What a state directory tells about its task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// No shim has ever taken this directory: launching (again) is safe.
    NotStarted,
    /// A shim holds it. The status is absent while the shim is too young or too busy to answer.
    Alive(Option<Status>),
    /// The task has ended and this is how.
    Exited(Exit),
    /// A shim held it once, is gone, and left no word. Call [`cleanup`], then report the task.
    Lost,
}

/// A shim's answer about its task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// How far it is.
    pub phase: Phase,
    /// Host process id of the container's init, once it exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The shim's own process id.
    pub shim_pid: i32,
    /// When the command was executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
}

/// How far a living task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The container is being made.
    Starting,
    /// The command runs.
    Running,
    /// It has ended; `exit.json` is there or about to be.
    Exited,
}

/// A connection to one living shim.
pub struct Shim {
    stream: UnixStream,
}

impl Shim {
    /// Connects to the shim of a state directory.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused`: no shim listens there (ask [`scan`] what that means).
    pub fn connect(_state_dir: &Path) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Asks how far the task is.
    ///
    /// # Errors
    /// The shim went away or did not answer in time.
    pub fn status(&mut self) -> io::Result<Status> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Sends a signal to the task: `SIGKILL` ends the whole container, anything else goes to the
    /// command's process. Succeeds if the task has ended already.
    ///
    /// # Errors
    /// The shim went away or did not answer in time, or `signal` is not one (1..=64).
    pub fn kill(&mut self, _signal: i32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Turns the connection into one that becomes readable when the task has ended: one line,
    /// then end of file, and `exit.json` exists. End of file without `exit.json` means that the
    /// shim was killed. The stream is non-blocking, ready for an event loop.
    ///
    /// # Errors
    /// The shim went away or did not answer in time.
    pub fn subscribe(self) -> io::Result<UnixStream> {
        Ok(self.stream)
    }

    /// Blocks until the task has ended, however long that takes.
    ///
    /// # Errors
    /// `UnexpectedEof`: the shim died without leaving `exit.json`; the task is lost.
    pub fn wait(self) -> io::Result<Exit> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Tells what became of the task of a state directory.
///
/// # Errors
/// The directory cannot be read. A directory that does not exist is `NotFound`.
pub fn scan(_state_dir: &Path) -> io::Result<Observed> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Kills every process in the task's control group, whatever became of its shim, and waits until
/// it is empty.
///
/// # Errors
/// The control groups cannot be read, or processes survive for five seconds (stuck in the kernel).
pub fn kill_by_cgroup(_launch: &Launch) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// After a lost shim: kills what is left of the task and removes its control group and the
/// container's files, but not the logs, the sandbox or the state directory. Safe to repeat.
///
/// # Errors
/// As [`kill_by_cgroup`], or something could not be removed.
pub fn cleanup(_state_dir: &Path, _launch: &Launch) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
