//! The first process inside a container.
//!
//! libcontainer hands over to [`Init::exec`] when namespaces, root, user and capabilities are as
//! ordered. From here on it is ours: clean signal state, the seccomp filters, then a fork. The
//! child becomes the command. The parent stays as process 1, so that signals with default
//! actions work on the command (the kernel ignores them for a process 1), orphans are reaped, and
//! the exact way the command ended is known.
//!
//! It also starts further commands when asked to: see [`crate::exec`].
//!
//! It talks to the shim through three pipes and a socket, of which the command holds none. On the *exec pipe*
//! it says [`FILTERED`] and waits; the shim asks the kernel whether that is true and answers on
//! the *go pipe*. Then the exec pipe ends when the command was executed, or a [`Failure`] comes.
//! On the *status pipe* comes the command's wait status. On the *exec socket* come orders, and the other way, before
//! the command is executed, the master of its terminal if it has one.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::rc::Rc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::launch::{ExitError, FailureReason, Launch, SANDBOX_MOUNT, Stdio};
use crate::seccomp::Filters;
use crate::{attach, spec, sys, terminal};

mod execs;

use execs::Execs;

/// What init needs, prepared while there is still a whole process around.
pub(crate) struct Plan {
    pub(crate) argv: Vec<CString>,
    pub(crate) envp: Vec<CString>,
    /// Where the program may be, in order.
    pub(crate) candidates: Vec<CString>,
    pub(crate) working_dir: CString,
    pub(crate) stdio: Stdio,
    pub(crate) filters: Filters,
    pub(crate) exec_pipe: RawFd,
    pub(crate) status_pipe: RawFd,
    pub(crate) go_pipe: RawFd,
    pub(crate) exec_socket: RawFd,
}

/// Init's ends of the three pipes and the socket.
pub(crate) struct PlanPipes {
    pub(crate) exec_pipe: RawFd,
    pub(crate) status_pipe: RawFd,
    pub(crate) go_pipe: RawFd,
    pub(crate) exec_socket: RawFd,
}

const SIGNAL_FLAGS: SfdFlags = SfdFlags::SFD_CLOEXEC.union(SfdFlags::SFD_NONBLOCK);

/// Children reaped before orders and signals are looked at again: about a tenth of a millisecond of work.
const REAPED_AT_ONCE: usize = 64;

/// "The filters are in force; may I?"
pub(crate) const FILTERED: u8 = b'R';

/// The executor given to libcontainer.
#[derive(Clone)]
pub(crate) struct Init(pub(crate) Rc<Plan>);

/// What went wrong before the command ran, small enough for one atomic write to a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) step: Step,
    pub(crate) errno: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    Seccomp = b'S',
    Go = b'G',
    Fork = b'F',
    WorkingDir = b'D',
    Exec = b'X',
    /// Only of further commands: too many at once.
    Busy = b'B',
    Terminal = b'T',
}

impl Plan {
    /// Strings in the form the kernel takes. `check` has seen to it that none holds a zero byte.
    pub(crate) fn new(launch: &Launch, filters: Filters, pipes: PlanPipes) -> Self {
        let PlanPipes { exec_pipe, status_pipe, go_pipe, exec_socket } = pipes;
        let c = |s: &str| CString::new(s).unwrap_or_default();
        let mut environment = spec::environment(launch);
        if launch.stdio.tty && !environment.iter().any(|v| v.starts_with("TERM=")) {
            environment.push(terminal::TERM.to_owned());
        }
        let program = launch.command.first().map_or("", String::as_str);
        let path = environment.iter().find_map(|v| v.strip_prefix("PATH=")).unwrap_or_default();
        let working_dir = launch.working_dir.as_deref().unwrap_or(Path::new(SANDBOX_MOUNT));
        Self {
            argv: launch.command.iter().chain(&launch.args).map(|s| c(s)).collect(),
            envp: environment.iter().map(|s| c(s)).collect(),
            candidates: candidates(program, path).iter().map(|s| c(s)).collect(),
            working_dir: c(&working_dir.display().to_string()),
            stdio: launch.stdio,
            filters,
            exec_pipe,
            status_pipe,
            go_pipe,
            exec_socket,
        }
    }
}

/// The rule of execvp(3), except that an empty entry of `PATH` is not the working directory.
fn candidates(program: &str, path: &str) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let entries = path.split(':').filter(|entry| !entry.is_empty());
    entries.map(|entry| format!("{entry}/{program}")).collect()
}

impl Executor for Init {
    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        let failure = run(&self.0);
        report(self.0.exec_pipe, failure);
        Err(ExecutorError::Other(format!("{failure:?}")))
    }

    /// Nothing: whether the command is there is found out by executing it.
    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    /// Nothing: the environment is given to the command, init itself wants none.
    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}

/// Returns only if the command could not even be tried.
fn run(plan: &Plan) -> Failure {
    let fail = |step, errno: i32| Failure { step, errno };
    sys::default_signals();
    sys::close_from(3, &[plan.exec_pipe, plan.status_pipe, plan.go_pipe, plan.exec_socket]);
    // Not to be traced or read by the task: this process image is the host's. And not to outlive
    // the shim: a task that nobody supervises is over.
    let hardened = nix::sys::prctl::set_dumpable(false)
        .and_then(|()| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL))
        .and_then(|()| nix::sys::prctl::set_name(c"init"));
    if let Err(errno) = hardened {
        return fail(Step::Fork, errno as i32);
    }
    // Blocked, a signal waits for process 1 even where it would otherwise be ignored.
    if let Err(errno) = SigSet::all().thread_block() {
        return fail(Step::Fork, errno as i32);
    }
    let signals = match SignalFd::with_flags(&SigSet::all(), SIGNAL_FLAGS) {
        Ok(signals) => signals,
        Err(errno) => return fail(Step::Fork, errno as i32),
    };
    if plan.filters.apply().is_err() {
        return fail(Step::Seccomp, Errno::last_raw());
    }
    write_all(plan.exec_pipe, &[FILTERED]);
    match nix::unistd::read(plan.go_pipe, &mut [0]) {
        Ok(1) => {}
        Ok(_) => return fail(Step::Go, 0),
        Err(errno) => return fail(Step::Go, errno as i32),
    }
    match sys::fork_unchecked() {
        Ok(None) => {
            let failure = become_command(plan);
            report(plan.exec_pipe, failure);
            sys::exit(127)
        }
        Ok(Some(child)) => {
            let _ = nix::unistd::close(plan.exec_pipe);
            let _ = nix::unistd::close(plan.go_pipe);
            if plan.stdio.stdin {
                let_go_of_stdin();
            }
            supervise(child, plan, &signals)
        }
        Err(error) => fail(Step::Fork, error.raw_os_error().unwrap_or(libc::EAGAIN)),
    }
}

fn become_command(plan: &Plan) -> Failure {
    let _ = nix::unistd::setsid();
    sys::do_not_hasten();
    let _ = nix::sys::prctl::set_pdeathsig(None);
    if plan.stdio.tty
        && let Err(error) = enter_terminal(plan)
    {
        return Failure { step: Step::Terminal, errno: error.raw_os_error().unwrap_or(libc::EIO) };
    }
    let unblocked = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    if let Err(errno) = unblocked {
        return Failure { step: Step::Fork, errno: errno as i32 };
    }
    execute(&plan.working_dir, &plan.candidates, &plan.argv, &plan.envp)
}

/// The shim keeps the master: whoever is attached may come and go.
fn enter_terminal(plan: &Plan) -> io::Result<()> {
    let master = terminal::enter()?;
    // SAFETY: the descriptor is the socket kept open for this and for orders.
    let socket = unsafe { BorrowedFd::borrow_raw(plan.exec_socket) };
    attach::hand_over(socket, master.as_fd())
}

/// A command that closes its input is to be the last who does.
fn let_go_of_stdin() {
    if let Ok(null) = File::open("/dev/null") {
        let _ = sys::redirect(&null, libc::STDIN_FILENO);
    }
}

/// Becomes the first of the candidates that is there. Returns only on a failure.
fn execute(
    working_dir: &CString,
    candidates: &[CString],
    argv: &[CString],
    envp: &[CString],
) -> Failure {
    if let Err(errno) = nix::unistd::chdir(working_dir.as_c_str()) {
        return Failure { step: Step::WorkingDir, errno: errno as i32 };
    }
    let mut worst = Errno::ENOENT;
    for candidate in candidates {
        match sys::execve(candidate, argv, envp) {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => worst = Errno::EACCES,
            errno => return Failure { step: Step::Exec, errno: errno as i32 },
        }
    }
    Failure { step: Step::Exec, errno: worst as i32 }
}

/// Process 1 for the rest of the container's life.
fn supervise(child: i32, plan: &Plan, signals: &SignalFd) -> ! {
    // SAFETY: kept open for this, and nothing else in this process uses it any more.
    let socket = unsafe { OwnedFd::from_raw_fd(plan.exec_socket) };
    let mut execs = Execs::new(plan, socket);
    let mut more_to_reap = false;
    loop {
        let mut fds: Vec<PollFd<'_>> = std::iter::once(signals.as_fd())
            .chain(execs.poll_fds())
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        // An error can only be an interruption; then nothing is ready.
        let timeout = if more_to_reap { PollTimeout::ZERO } else { PollTimeout::NONE };
        let _ = poll(&mut fds, timeout);
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        execs.hear(&ready[2..]);
        if ready[1] {
            execs.take_order();
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            match signal.ssi_signo.cast_signed() {
                libc::SIGCHLD => more_to_reap = true,
                signal => drop(sys::kill(child, signal)),
            }
        }
        more_to_reap = more_to_reap && reap(child, plan.status_pipe, &mut execs);
    }
}

/// True: there may be more. A command whose children die as fast as they are reaped is not to keep init from everything
/// else.
fn reap(child: i32, status_pipe: RawFd, execs: &mut Execs<'_>) -> bool {
    for _ in 0..REAPED_AT_ONCE {
        let Ok(Some((pid, status))) = sys::wait_raw(-1, libc::WNOHANG) else { return false };
        if pid == child {
            write_all(status_pipe, &status.to_le_bytes());
            // Leaving kills whatever the command left behind.
            sys::exit(exit_code(status))
        }
        execs.ended(pid, status);
    }
    true
}

/// As a shell tells it: the code, or 128 and the number of the signal.
fn exit_code(status: i32) -> i32 {
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

fn report(pipe: RawFd, failure: Failure) {
    write_all(pipe, &failure.to_bytes());
}

fn write_all(pipe: RawFd, bytes: &[u8]) {
    // SAFETY: the descriptor is one of the pipes kept open for exactly this.
    let pipe = unsafe { BorrowedFd::borrow_raw(pipe) };
    // Far below PIPE_BUF, so it is all or nothing; and if the shim is gone nobody wants it.
    let _ = nix::unistd::write(pipe, bytes);
}

impl Failure {
    pub(crate) const BYTES: usize = 5;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = self.step as u8;
        bytes[1..].copy_from_slice(&self.errno.to_le_bytes());
        bytes
    }

    /// What came out of the exec pipe; `None` if that is no message.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let step = match bytes.first()? {
            b'S' => Step::Seccomp,
            b'G' => Step::Go,
            b'F' => Step::Fork,
            b'D' => Step::WorkingDir,
            b'X' => Step::Exec,
            b'B' => Step::Busy,
            b'T' => Step::Terminal,
            _ => return None,
        };
        let errno = bytes.get(1..Self::BYTES)?.try_into().ok().map(i32::from_le_bytes)?;
        Some(Self { step, errno })
    }

    /// The same for people.
    pub(crate) fn explain(self, launch: &Launch) -> ExitError {
        let errno = Errno::from_raw(self.errno);
        let program = launch.command.first().map_or("", String::as_str);
        let directory = launch.working_dir.as_deref().unwrap_or(Path::new(SANDBOX_MOUNT));
        let (reason, message) = match (self.step, errno) {
            (Step::Seccomp, _) => (
                FailureReason::SeccompMissing,
                format!("the system call filter was not accepted: {}", errno.desc()),
            ),
            (_, Errno::ENOMEM | Errno::EAGAIN) => (
                FailureReason::LimitsTooSmall,
                format!("no room to start {program:?} within the limits: {}", errno.desc()),
            ),
            (Step::Terminal, _) => (
                FailureReason::CreateFailed,
                format!("the task's terminal could not be made: {}", errno.desc()),
            ),
            (Step::Fork | Step::Go | Step::Busy, _) => (
                FailureReason::CreateFailed,
                format!("the container's first process: {}", errno.desc()),
            ),
            (Step::WorkingDir, _) => (
                FailureReason::InvalidWorkingDir,
                format!(
                    "working directory {}: {}{}",
                    directory.display(),
                    errno.desc(),
                    hint(directory)
                ),
            ),
            (Step::Exec, Errno::ENOENT) => (
                FailureReason::CommandNotFound,
                format!(
                    "command {program:?}: no such program, or its interpreter is missing{}",
                    hint(Path::new(program))
                ),
            ),
            (Step::Exec, Errno::E2BIG) => (
                FailureReason::InvalidLaunch,
                format!(
                    "command {program:?}: its arguments and environment are more than the kernel takes; put what is \
                     long into a file"
                ),
            ),
            (Step::Exec, _) => (
                FailureReason::CommandNotFound,
                format!(
                    "command {program:?} cannot be executed: {}{}",
                    errno.desc(),
                    open_hint(errno)
                ),
            ),
        };
        ExitError { reason, message }
    }
}

/// What nobody guesses: the path is there, only not for a task.
fn hint(path: &Path) -> &'static str {
    let hidden = ["/home", "/root", "/run", "/tmp"].iter().any(|place| path.starts_with(place));
    if hidden && path.exists() {
        " (the machine's own /home, /root, /run and /tmp are hidden from tasks)"
    } else {
        ""
    }
}

/// The other thing that surprises: the task's root owns none of the machine's files.
fn open_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES => " (of the machine's files, tasks see what every user may see)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_is_looked_up_in_the_path_and_a_path_is_not() {
        assert_eq!(candidates("sh", "/usr/bin::/bin"), ["/usr/bin/sh", "/bin/sh"]);
        assert_eq!(candidates("./sh", "/bin"), ["./sh"]);
    }

    #[test]
    fn failures_survive_the_pipe() {
        let failure = Failure { step: Step::Exec, errno: libc::ENOENT };
        let bytes = failure.to_bytes();
        assert_eq!(Failure::parse(&bytes), Some(failure));
        assert_eq!(Failure::parse(&bytes[..3]), None);
        assert_eq!(Failure::parse(b"?1234"), None);
    }
}
