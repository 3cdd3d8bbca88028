//! The small single-threaded process that forks shims, and the agent's handle on it.
//!
//! It is this executable once more (`<exe> zygote`), started with an empty environment and seen
//! through a read-only mount, so that no task can ever reach a writable descriptor of it by way
//! of `/proc/PID/exe`. Its standard input is the socket on which it is asked. It reaps the shims
//! as long as it lives; when the agent's end of the socket closes it leaves, and the shims become
//! children of init.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde::{Deserialize, Serialize};

use crate::seccomp::Filters;
use crate::state_dir::StateDir;
use crate::{shim, sys};

/// `argv[1]` of a zygote.
pub const SUBCOMMAND: &str = "zygote";

/// A fork takes well under a millisecond; a zygote that needs this long is replaced.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    state_dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Answer {
    Pid(i32),
    Error(String),
}

/// The agent's end. Any thread may use it; it is cheap to share in an `Arc`.
pub struct ZygoteHandle {
    program: Program,
    zygote: Mutex<Option<Zygote>>,
}

enum Program {
    /// A read-only view of the executable that is running now, even if the file was replaced.
    View(OwnedFd),
    Path(PathBuf),
}

struct Zygote {
    child: Child,
    socket: UnixStream,
}

/// Starts a zygote: this same executable again, as `<exe> zygote`. `main` must call
/// [`crate::dispatch`] first thing. May be called at any time, from any thread.
///
/// # Errors
/// The executable cannot be run.
pub fn start() -> io::Result<ZygoteHandle> {
    start_program(Path::new("/proc/self/exe"))
}

/// The same with another executable that calls [`crate::dispatch`] (tests whose own `main` does
/// not).
///
/// # Errors
/// The executable cannot be run.
pub fn start_program(program: &Path) -> io::Result<ZygoteHandle> {
    let real = std::fs::canonicalize(program)?;
    let program = match sys::read_only_view(&real) {
        Ok(view) => Program::View(view),
        Err(_) => Program::Path(real),
    };
    let zygote = Zygote::start(&program)?;
    Ok(ZygoteHandle { program, zygote: Mutex::new(Some(zygote)) })
}

impl ZygoteHandle {
    /// Forks a shim for a prepared state directory and returns its process id. Blocks for about
    /// a millisecond; a zygote that died is replaced. The shim is no child of the caller and
    /// survives both it and the zygote. What the shim makes of it: [`crate::client::scan`].
    /// Asking twice for one directory is harmless: only one shim can ever hold it.
    ///
    /// # Errors
    /// No shim could be forked.
    pub fn launch(&self, state_dir: &Path) -> io::Result<i32> {
        let request = Request { state_dir: std::path::absolute(state_dir)? };
        let mut slot = self.zygote.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(zygote) = slot.as_mut() {
            match zygote.ask(&request) {
                Ok(answer) => return answer.into_result(),
                // Dead or stuck. The lock keeps a second shim harmless, should there be a first.
                Err(_) => *slot = None,
            }
        }
        slot.insert(Zygote::start(&self.program)?).ask(&request)?.into_result()
    }

    /// The zygote's process id, for tests and for the curious.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let slot = self.zygote.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().map(|zygote| zygote.child.id())
    }
}

impl Answer {
    fn into_result(self) -> io::Result<i32> {
        match self {
            Self::Pid(pid) => Ok(pid),
            Self::Error(message) => Err(io::Error::other(message)),
        }
    }
}

impl Zygote {
    fn start(program: &Program) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        ours.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let path = match program {
            // Resolved in the child before its descriptors are closed on exec.
            Program::View(view) => OsString::from(format!("/proc/self/fd/{}", view.as_raw_fd())),
            Program::Path(path) => path.clone().into(),
        };
        let child = Command::new(path)
            .arg0("cmn")
            .arg(SUBCOMMAND)
            .env_clear()
            .envs(commonage_failpoint::environment())
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { child, socket: ours })
    }

    fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.socket.write_all(&line)?;
        let mut answer = String::new();
        if BufReader::new(&self.socket).read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&answer)?)
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // A healthy one leaves when the socket closes; a stuck one has to be made to. Its shims
        // are sessions of their own and do not notice either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The zygote's `main`. Never returns; must run before the process has a second thread.
pub fn main() -> ! {
    let code = match serve() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("zygote: {error}");
            1
        }
    };
    sys::exit(code)
}

fn serve() -> io::Result<()> {
    let _ = nix::unistd::setsid();
    nix::sys::prctl::set_name(c"cmn-zygote")?;
    sys::hasten();
    sys::hasten_session();
    sys::close_from(3, &[]);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let filters = Filters::compile().map_err(io::Error::other)?;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block()?;
    let signals = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    // SAFETY: standard input is the socket that the handle passed, and nothing else here uses it.
    let socket = unsafe { UnixStream::from_raw_fd(0) };
    let mut requests = BufReader::new(socket.try_clone()?);
    loop {
        let mut fds = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let asked = fds[0].any().unwrap_or(true);
        while let Ok(Some(_)) = signals.read_signal() {}
        while let Ok(Some(_)) = sys::wait_raw(-1, libc::WNOHANG) {}
        if asked {
            let mut line = String::new();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let answer = match fork_shim(&line, &filters) {
                Ok(pid) => Answer::Pid(pid),
                Err(error) => Answer::Error(error.to_string()),
            };
            let mut line = serde_json::to_vec(&answer)?;
            line.push(b'\n');
            (&socket).write_all(&line)?;
        }
    }
}

fn fork_shim(line: &str, filters: &Filters) -> io::Result<i32> {
    let request: Request = serde_json::from_str(line)?;
    match sys::fork()? {
        Some(pid) => Ok(pid),
        None => {
            // The zygote's socket and signal descriptor. The values that own them are never
            // dropped in this process, which ends by `exit`.
            sys::close_from(3, &[]);
            sys::exit(shim::run(&StateDir::new(request.state_dir), filters))
        }
    }
}
