//! What the agent says to shims, and how it learns what became of them.
//!
//! Plain blocking calls with a time-out, to be used from `spawn_blocking`; nothing here touches
//! libcontainer, so any thread may call it. Only [`Shim::subscribe`] gives something to wait on.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::socket::MsgFlags;
use serde::{Deserialize, Serialize};

use crate::cgroup::{Hierarchies, Usage};
use crate::control::{Answer, Request, SOCKET};
use crate::fds;
use crate::launch::{Exit, Launch};
use crate::lock::{Holder, Lock};
use crate::state_dir::StateDir;

/// A shim that makes its container does not answer for as long as that takes.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// It tells when a further command is started, if asked to. Shims of before do not.
    #[serde(default)]
    pub tells_start: bool,
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
    state: StateDir,
    stream: BufReader<UnixStream>,
}

impl Shim {
    /// Connects to the shim of a state directory.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused`: no shim listens there (ask [`scan`] what that means).
    pub fn connect(state_dir: &Path) -> io::Result<Self> {
        // By way of a descriptor, because a socket's address holds 107 bytes and no more.
        let directory = File::open(state_dir)?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { state: StateDir::new(state_dir), stream: BufReader::new(stream) })
    }

    /// Asks how far the task is.
    ///
    /// # Errors
    /// The shim went away or did not answer in time.
    pub fn status(&mut self) -> io::Result<Status> {
        self.ask(&Request::Status)
    }

    /// Sends a signal to the task: `SIGKILL` ends the whole container, anything else goes to the
    /// command's process. Succeeds if the task has ended already.
    ///
    /// # Errors
    /// The shim went away or did not answer in time, or `signal` is not one (1..=64).
    pub fn kill(&mut self, signal: i32) -> io::Result<()> {
        self.ask(&Request::Kill { signal }).map(drop)
    }

    /// Turns the connection into one that becomes readable when the task has ended: one line,
    /// then end of file, and `exit.json` exists. End of file without `exit.json` means that the
    /// shim was killed. The stream is non-blocking, ready for an event loop.
    ///
    /// # Errors
    /// The shim went away or did not answer in time.
    pub fn subscribe(mut self) -> io::Result<UnixStream> {
        self.ask(&Request::Subscribe)?;
        if !self.stream.buffer().is_empty() {
            // The end came along with the answer, and would be lost with the buffer. A stream
            // that is at its end says the same.
            let (ended, _) = UnixStream::pair()?;
            ended.set_nonblocking(true)?;
            return Ok(ended);
        }
        let stream = self.stream.into_inner();
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Waits until the command runs, for so long at most.
    ///
    /// # Errors
    /// It never came to run, the shim went away, or time is over: [`scan`] tells which.
    pub fn settle(mut self, patience: Duration) -> io::Result<Status> {
        self.stream.get_ref().set_read_timeout(Some(patience))?;
        self.ask(&Request::Settle)
    }

    /// Blocks until the task has ended, however long that takes.
    ///
    /// # Errors
    /// `UnexpectedEof`: the shim died without leaving `exit.json`; the task is lost.
    pub fn wait(mut self) -> io::Result<Exit> {
        self.stream.get_ref().set_read_timeout(None)?;
        // Whether it answers or has just gone, `exit.json` tells.
        if self.ask(&Request::Subscribe).is_ok() {
            let mut rest = Vec::new();
            let _ = self.stream.read_to_end(&mut rest);
        }
        self.state.exit()?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::UnexpectedEof, "the shim is gone without a word")
        })
    }

    /// The bare connection, on which nothing was asked yet.
    pub(crate) fn into_stream(self) -> UnixStream {
        self.stream.into_inner()
    }

    pub(crate) fn state(&self) -> &StateDir {
        &self.state
    }

    fn ask(&mut self, request: &Request) -> io::Result<Status> {
        self.ask_with(request, &[])
    }

    /// Asks, and gives descriptors along. An error of kind `Other` is the shim's own.
    pub(crate) fn ask_with(
        &mut self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<Status> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let sent = fds::send(self.stream.get_ref(), &line, fds, MsgFlags::empty())?;
        self.stream.get_mut().write_all(&line[sent..])?;
        let mut answer = String::new();
        if self.stream.read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match serde_json::from_str(&answer)? {
            Answer { ok: true, status: Some(status), .. } => Ok(status),
            Answer { error, .. } => Err(io::Error::other(error.unwrap_or_default())),
        }
    }
}

/// Tells what became of the task of a state directory.
///
/// # Errors
/// The directory cannot be read. A directory that does not exist is `NotFound`.
pub fn scan(state_dir: &Path) -> io::Result<Observed> {
    let state = StateDir::new(state_dir);
    std::fs::metadata(state_dir)?;
    if let Some(exit) = recorded(&state)? {
        return Ok(Observed::Exited(exit));
    }
    match Lock::holder(&state)? {
        Holder::Never => Ok(Observed::NotStarted),
        // Between the creation of the lock and its content, between exit.json and the release:
        // only the held lock counts.
        Holder::Process(_) => {
            let status = Shim::connect(state_dir).and_then(|mut shim| shim.status());
            Ok(Observed::Alive(status.ok()))
        }
        // It may have written its last words since we looked.
        Holder::Gone => Ok(recorded(&state)?.map_or(Observed::Lost, Observed::Exited)),
    }
}

/// A record that is damaged tells nothing.
fn recorded(state: &StateDir) -> io::Result<Option<Exit>> {
    match state.exit() {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        exit => exit,
    }
}

/// Whether a shim died while it removed what its container left: the end is known, and still something is there
/// that nobody is about to remove. Then [`cleanup`] is called for.
///
/// # Errors
/// The state directory cannot be read.
pub fn is_left_over(state_dir: &Path) -> io::Result<bool> {
    let state = StateDir::new(state_dir);
    // Looked for last to first, in the order in which a shim lets go.
    Ok(state.path().join(SOCKET).exists() && Lock::holder(&state)? == Holder::Gone)
}

/// Kills every process in the task's control group, whatever became of its shim, and waits until
/// it is empty.
///
/// # Errors
/// The control groups cannot be read, or processes survive for five seconds (stuck in the kernel).
pub fn kill_by_cgroup(launch: &Launch) -> io::Result<()> {
    Hierarchies::find()?.group(&launch.cgroup)?.kill()
}

/// After a lost shim: kills what is left of the task and removes its control group and the
/// container's files, but not the logs, the sandbox or the state directory. Safe to repeat. Not
/// for a task whose shim lives: that cleans up itself.
///
/// # Errors
/// As [`kill_by_cgroup`], or something could not be removed.
pub fn cleanup(state_dir: &Path, launch: &Launch) -> io::Result<()> {
    crate::shim::clean_up(&StateDir::new(state_dir), launch, None)
}

/// What a task uses right now, from its control group. Zeros if there is none (any more).
///
/// # Errors
/// This machine's control groups cannot be found.
pub fn usage(launch: &Launch) -> io::Result<Usage> {
    Ok(usages(std::slice::from_ref(&launch.cgroup))?
        .into_iter()
        .next()
        .flatten()
        .unwrap_or_default())
}

/// The same for many groups, in their order; `None` where there is none (any more).
///
/// # Errors
/// This machine's control groups cannot be found.
pub fn usages(cgroups: &[String]) -> io::Result<Vec<Option<Usage>>> {
    let hierarchies = Hierarchies::find()?;
    let usage = |path: &String| {
        let group = hierarchies.group(path).ok()?;
        (!group.directories().is_empty()).then(|| group.usage())
    };
    Ok(cgroups.iter().map(usage).collect())
}
