//! The commands that init starts besides the task's own, until each has ended. See [`crate::exec`].

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

use super::{Failure, Plan, Step, candidates, execute};
use crate::exec::{
    COMMAND_BYTES_MAX, EXECS_MAX, FLAG_TELL_START, FLAG_TTY, Message, StartFailure, say,
};
use crate::{fds, sys, terminal};

/// One command that runs.
struct Running {
    pid: i32,
    /// Gone when the agent hung up; then only the end is waited for.
    control: Option<OwnedFd>,
}

/// All of them, and where the shim asks for more.
pub(super) struct Execs<'a> {
    plan: &'a Plan,
    socket: OwnedFd,
    running: Vec<Running>,
}

/// One order, as it came.
struct Order {
    words: Vec<CString>,
    candidates: Vec<CString>,
    tty: bool,
    tell_start: bool,
    control: OwnedFd,
    /// Input, output, errors; none with a terminal.
    streams: Vec<OwnedFd>,
}

impl<'a> Execs<'a> {
    pub(super) fn new(plan: &'a Plan, socket: OwnedFd) -> Self {
        Self { plan, socket, running: Vec::new() }
    }

    /// What to poll for reading: the shim's socket, then one connection per command.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let controls = self.running.iter().filter_map(|running| running.control.as_ref());
        std::iter::once(self.socket.as_fd()).chain(controls.map(AsFd::as_fd))
    }

    /// The shim has an order, or is gone: then so is init, in a moment.
    pub(super) fn take_order(&mut self) {
        let mut bytes = vec![0; COMMAND_BYTES_MAX];
        let Ok((length, fds)) = fds::receive(&self.socket, &mut bytes) else { return };
        bytes.truncate(length);
        // Who has hung up meanwhile is not worth a process.
        let order = Order::parse(&bytes, fds, self.plan).filter(|order| !order.is_forgotten());
        if let Some(order) = order {
            self.start(order);
        }
    }

    fn start(&mut self, order: Order) {
        let refuse = |step, errno| {
            let failure = StartFailure(Failure { step, errno });
            say(order.control.as_fd(), Message::Failed(failure), &[]);
        };
        if self.running.len() >= EXECS_MAX {
            return refuse(Step::Busy, 0);
        }
        match sys::fork_unchecked() {
            Ok(None) => {
                let Failure { step, errno } = become_command(self.plan, &order);
                refuse(step, errno);
                sys::exit(127)
            }
            Ok(Some(pid)) => {
                let Order { control, .. } = order;
                self.running.push(Running { pid, control: Some(control) });
            }
            Err(error) => refuse(Step::Fork, error.raw_os_error().unwrap_or(libc::EAGAIN)),
        }
    }

    /// Takes what came on the connections of the commands: signals, or the end. `ready` tells for
    /// each, in the order of [`Self::poll_fds`], whether there is something.
    pub(super) fn hear(&mut self, ready: &[bool]) {
        let mut signals = [0; 16];
        let connected = self.running.iter_mut().filter(|running| running.control.is_some());
        for (running, _) in connected.zip(ready).filter(|(_, ready)| **ready) {
            let Some(control) = &running.control else { continue };
            match nix::unistd::read(control.as_raw_fd(), &mut signals) {
                Ok(count) if count > 0 => {
                    for signal in &signals[..count] {
                        let _ = sys::kill(-running.pid, (*signal).into());
                    }
                }
                _ => {
                    running.control = None;
                    let _ = sys::kill(-running.pid, libc::SIGKILL);
                }
            }
        }
    }

    /// A child was reaped; if it was one of these, its end is told.
    pub(super) fn ended(&mut self, pid: i32, status: i32) {
        let Some(place) = self.running.iter().position(|running| running.pid == pid) else {
            return;
        };
        let running = self.running.swap_remove(place);
        if let Some(control) = running.control {
            say(control.as_fd(), Message::Ended(super::exit_code(status)), &[]);
        }
    }
}

impl Order {
    fn parse(bytes: &[u8], fds: Vec<OwnedFd>, plan: &Plan) -> Option<Self> {
        let (flags, words) = bytes.split_first()?;
        let words: Vec<CString> =
            words.split(|byte| *byte == 0).map(CString::new).collect::<Result<_, _>>().ok()?;
        let program = words.first()?.to_str().ok()?;
        let in_path = plan.envp.iter().find_map(|v| v.to_str().ok()?.strip_prefix("PATH="));
        let candidates = candidates(program, in_path.unwrap_or_default());
        let mut fds = fds.into_iter();
        let order = Self {
            candidates: candidates.into_iter().filter_map(|c| CString::new(c).ok()).collect(),
            words,
            tty: flags & FLAG_TTY != 0,
            tell_start: flags & FLAG_TELL_START != 0,
            control: fds.next()?,
            streams: fds.collect(),
        };
        (order.tty || order.streams.len() == 3).then_some(order)
    }

    /// Whether nobody is at the other end of its connection any more.
    fn is_forgotten(&self) -> bool {
        let mut control = [PollFd::new(self.control.as_fd(), PollFlags::empty())];
        let _ = poll(&mut control, PollTimeout::ZERO);
        control[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP))
    }
}

/// In the child. Returns only on a failure.
fn become_command(plan: &Plan, order: &Order) -> Failure {
    let _ = nix::unistd::setsid();
    sys::do_not_hasten();
    let joined = if order.tty { join_terminal(order) } else { join_pipes(order) };
    if let Err(error) = joined {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        return Failure { step: Step::Terminal, errno };
    }
    let unblocked = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    if let Err(errno) = unblocked {
        return Failure { step: Step::Fork, errno: errno as i32 };
    }
    if order.tell_start {
        say(order.control.as_fd(), Message::Started, &[]);
    }
    let mut envp = plan.envp.clone();
    if order.tty && !envp.iter().any(|variable| variable.to_bytes().starts_with(b"TERM=")) {
        envp.extend(CString::new(terminal::TERM));
    }
    execute(&plan.working_dir, &order.candidates, &order.words, &envp)
}

fn join_pipes(order: &Order) -> io::Result<()> {
    for (place, stream) in (0..).zip(&order.streams) {
        nix::unistd::dup2(stream.as_raw_fd(), place)?;
    }
    Ok(())
}

fn join_terminal(order: &Order) -> io::Result<()> {
    let master = terminal::enter()?;
    say(order.control.as_fd(), Message::Terminal, &[master.as_fd()]);
    Ok(())
}
