//! The shim's loop: output, requests, and the end of the container.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::MsgFlags;

use crate::allowance::Allowance;
use crate::attach::Input;
use crate::cgroup::{self, Hierarchies};
use crate::client::{Phase, Status};
use crate::control::{Control, Task};
use crate::init::{FILTERED, Failure};
use crate::launch::{Exit, ExitError, FailureReason, Launch, Network};
use crate::output::Output;
use crate::shim::Created;
use crate::{devices, exec, fds, network, spec, sys};

/// At most these come through the exec pipe: the question, a failure, the end.
const EXEC_MESSAGES: usize = 3;

/// A started container and what is known of it so far.
pub(crate) struct Supervisor {
    launch: Launch,
    outputs: [Output; 2],
    allowance: Allowance,
    buffer: Vec<u8>,
    exec_pipe: Option<File>,
    status_pipe: File,
    go_pipe: Option<File>,
    /// Whether the command was allowed to run.
    released: bool,
    watched: Watched,
    error: Option<ExitError>,
}

/// The part that requests are about.
struct Watched {
    init: i32,
    exec_socket: OwnedFd,
    input: Input,
    started_at: Option<Timestamp>,
    /// Init's own wait status, once reaped. Before that its process id cannot be reused, so a
    /// signal never hits a stranger.
    ended: Option<i32>,
    /// Somebody asked for its death.
    killed: bool,
    hierarchies: Hierarchies,
    /// Its control group.
    cgroup: String,
}

impl Watched {
    fn group(&self) -> io::Result<cgroup::Group<'_>> {
        self.hierarchies.group(&self.cgroup)
    }
}

impl Task for Watched {
    fn status(&self) -> Status {
        let phase = match (self.ended, self.started_at) {
            (Some(_), _) => Phase::Exited,
            (None, Some(_)) => Phase::Running,
            (None, None) => Phase::Starting,
        };
        Status {
            phase,
            pid: Some(self.init),
            shim_pid: std::process::id().cast_signed(),
            started_at: self.started_at,
            tells_start: true,
        }
    }

    /// Init passes signals on to the command; SIGKILL it cannot catch, and it takes the whole
    /// pid namespace along.
    fn kill(&mut self, signal: i32) -> io::Result<()> {
        if !(1..=libc::SIGRTMAX()).contains(&signal) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("no signal {signal}")));
        }
        if signal == libc::SIGKILL {
            self.killed = true;
            // Dying takes processor time too, and a thousand processes have only their quota for it.
            self.group()?.lift_quota();
        }
        if self.ended.is_none() { sys::kill(self.init, signal) } else { Ok(()) }
    }

    /// Passes it on to init, which has what it needs. Never waits: an init that takes no orders is
    /// not worth the output of the whole task.
    fn exec(&mut self, command: &[String], flags: u8, fds: &[OwnedFd]) -> io::Result<()> {
        let order = exec::encode(command, flags)?;
        if self.status().phase != Phase::Running {
            return Err(io::Error::other("the task does not run"));
        }
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let sent = fds::send(&self.exec_socket, &order, &fds, MsgFlags::MSG_DONTWAIT);
        sent.map(drop).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::other(
                "as many commands wait to be started as there is room for: the task uses all of its processor time",
            ),
            _ => error,
        })
    }

    fn attach(&mut self, stdin: bool) -> io::Result<(BorrowedFd<'_>, bool)> {
        self.input.attach(stdin)
    }

    fn detach(&mut self, is_his: bool) -> bool {
        self.input.detach(is_his)
    }
}

impl Supervisor {
    pub(crate) fn new(launch: Launch, created: Created) -> Self {
        Self {
            outputs: created.outputs,
            allowance: Allowance::new(Instant::now()),
            buffer: Vec::new(),
            exec_pipe: Some(created.exec_pipe),
            status_pipe: created.status_pipe,
            go_pipe: Some(created.go_pipe),
            released: false,
            watched: Watched {
                init: created.init,
                exec_socket: created.exec_socket,
                input: Input::new(launch.stdio, created.stdin),
                started_at: None,
                ended: None,
                killed: false,
                hierarchies: created.hierarchies,
                cgroup: launch.cgroup.clone(),
            },
            launch,
            error: None,
        }
    }

    /// Until the container is gone and all it wrote is in the log.
    pub(crate) fn run(
        mut self,
        mut control: Control,
        signals: &SignalFd,
    ) -> io::Result<(Exit, Control)> {
        while self.watched.ended.is_none() {
            let rest = self.allowance.rest(Instant::now());
            let ready = self.wait(&control, signals, rest)?;
            // First: whether it ran is to be known before it is known to have ended.
            if ready.exec {
                self.on_exec();
            }
            if rest.is_none() {
                for output in &mut self.outputs {
                    self.allowance.take(output.pump(&mut self.buffer));
                }
            }
            if ready.control {
                control.serve(&mut self.watched);
                if self.watched.input.has_hung_up() {
                    // Closes the last copy of the terminal's master that is ours.
                    self.outputs[0].drain(&mut self.buffer);
                }
            }
            control.tell_settled(&self.watched);
            if ready.signal {
                while let Ok(Some(_)) = signals.read_signal() {}
                self.reap();
            }
        }
        // Nobody is left to write: a message, perhaps, and the end.
        for _ in 0..EXEC_MESSAGES {
            self.on_exec();
        }
        for output in &mut self.outputs {
            output.drain(&mut self.buffer);
        }
        Ok((self.exit(), control))
    }

    /// Until there is something to do; while the output has to `rest`, not for more of it.
    fn wait(
        &self,
        control: &Control,
        signals: &SignalFd,
        rest: Option<Duration>,
    ) -> io::Result<Ready> {
        fn entry(fd: BorrowedFd<'_>) -> PollFd<'_> {
            PollFd::new(fd, PollFlags::POLLIN)
        }
        let exec = self.exec_pipe.iter().map(|pipe| pipe.as_fd());
        let outputs = self.outputs.iter().filter(|_| rest.is_none());
        let outputs = outputs.filter_map(Output::poll_fd);
        // The order here is the order in which the answers are taken apart below.
        let mut fds: Vec<PollFd<'_>> = std::iter::once(signals.as_fd())
            .chain(control.poll_fds())
            .chain(exec)
            .chain(outputs)
            .map(entry)
            .collect();
        let timeout = rest.map_or(PollTimeout::NONE, |rest| {
            // Rounded up, or it would be for nothing.
            PollTimeout::try_from(rest + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        let controls = 1 + control.poll_fds().count();
        Ok(Ready {
            signal: ready(&fds[0]),
            control: fds[1..controls].iter().any(ready),
            exec: self.exec_pipe.is_some() && ready(&fds[controls]),
        })
    }

    /// Init asks to go on, or says what failed, or the exec pipe has ended: the command runs.
    fn on_exec(&mut self) {
        let mut bytes = [0; 64];
        let Some(pipe) = self.exec_pipe.as_mut() else { return };
        let message = match pipe.read(&mut bytes) {
            Ok(length) => &bytes[..length],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => &[],
        };
        let (asks, rest) = match message {
            [FILTERED, rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        if asks {
            self.on_filtered();
        }
        if let Some(failure) = Failure::parse(rest) {
            self.error.get_or_insert_with(|| failure.explain(&self.launch));
        }
        if message.is_empty() {
            self.exec_pipe = None;
            self.take_terminal();
            if self.error.is_none() {
                self.on_end_of_exec();
            }
        }
    }

    /// Before the command, so that nothing of it ever runs unfiltered.
    fn on_filtered(&mut self) {
        // Dropped in any case: init takes the end of the pipe for a no.
        let go = self.go_pipe.take();
        let error = if !seccomp_in_force(self.watched.init) {
            let reason = FailureReason::SeccompMissing;
            ExitError { reason, message: "the system call filter is not in force".to_owned() }
        } else if let Err(error) = self.restrict_devices() {
            let reason = FailureReason::CreateFailed;
            ExitError { reason, message: format!("device rules: {error}") }
        } else if let Err(error) = self.forbid_swap() {
            let reason = FailureReason::CreateFailed;
            ExitError { reason, message: format!("limit of swap: {error}") }
        } else if let Err(error) = self.set_cpu_shares() {
            let reason = FailureReason::CreateFailed;
            ExitError { reason, message: format!("share of the processors: {error}") }
        } else if let Err(error) = self.start_loopback() {
            let reason = FailureReason::CreateFailed;
            ExitError { reason, message: format!("loopback: {error}") }
        } else {
            let _ = go.map(|mut pipe| pipe.write_all(&[FILTERED]));
            self.released = true;
            return;
        };
        let _ = sys::kill(self.watched.init, libc::SIGKILL);
        self.error = Some(error);
    }

    fn restrict_devices(&self) -> io::Result<()> {
        self.watched.group()?.restrict_devices(&devices::rules(&self.launch.devices))
    }

    fn forbid_swap(&self) -> io::Result<()> {
        match self.launch.limits.memory_bytes {
            Some(_) => self.watched.group()?.forbid_swap(),
            None => Ok(()),
        }
    }

    fn set_cpu_shares(&self) -> io::Result<()> {
        match self.launch.limits.cpu_millis {
            Some(millis) => self.watched.group()?.set_cpu_shares(spec::cpu_shares(millis)),
            None => Ok(()),
        }
    }

    fn start_loopback(&self) -> io::Result<()> {
        match &self.launch.network {
            // A network that was made before has its loopback on.
            Network::Host | Network::Cni(_) | Network::Shared(_) => Ok(()),
            Network::None => network::start_loopback(self.watched.init),
        }
    }

    /// What the command prints into its terminal is its output from now on.
    fn take_terminal(&mut self) {
        let Watched { input, exec_socket, .. } = &mut self.watched;
        let taken = input.receive_terminal(exec_socket.as_fd()).and_then(|master| match master {
            Some(master) => self.outputs[0].read_from(master),
            None => Ok(()),
        });
        if let Err(error) = taken {
            // It failed before, which was said, or it was killed.
            eprintln!("shim: no terminal: {error}");
        }
    }

    fn on_end_of_exec(&mut self) {
        if self.released {
            self.watched.started_at = Some(Timestamp::now());
            return;
        }
        if self.watched.killed {
            return;
        }
        // Without a word: killed from outside, or by the kernel for want of memory.
        let (reason, what) = match self.oom_kills() {
            0 => (FailureReason::CreateFailed, "was killed"),
            _ => (FailureReason::LimitsTooSmall, "did not fit into the memory limit"),
        };
        let message = format!("the container's first process {what}");
        self.error = Some(ExitError { reason, message });
    }

    fn oom_kills(&self) -> u64 {
        self.watched.group().map_or(0, |group| group.oom_kills())
    }

    fn reap(&mut self) {
        // Others can only be strays that libcontainer left behind.
        while let Ok(Some((pid, status))) = sys::wait_raw(-1, libc::WNOHANG) {
            if pid == self.watched.init {
                self.watched.ended = Some(status);
            }
        }
    }

    fn exit(&mut self) -> Exit {
        let oom_kills = self.oom_kills();
        // Init's report is the command's own status. Without one, init itself was killed.
        let mut reported = [0; size_of::<i32>()];
        let reported = match self.status_pipe.read(&mut reported) {
            Ok(length) if length == reported.len() => Some(i32::from_le_bytes(reported)),
            _ => None,
        };
        let status = reported.or(self.watched.ended).unwrap_or_default();
        let ran = self.error.is_none();
        let exit_code = (ran && libc::WIFEXITED(status)).then(|| libc::WEXITSTATUS(status));
        let signal = (ran && libc::WIFSIGNALED(status)).then(|| libc::WTERMSIG(status));
        Exit {
            exit_code,
            signal,
            oom_killed: ran && oom_kills > 0 && exit_code != Some(0),
            oom_kills,
            started_at: self.watched.started_at,
            finished_at: Timestamp::now(),
            error: self.error.take(),
            log_bytes_dropped: self.outputs.iter().map(Output::dropped_bytes).sum(),
            log_bytes_rotated_away: self.outputs.iter().map(Output::rotated_away_bytes).sum(),
        }
    }
}

/// What `poll` found.
struct Ready {
    signal: bool,
    control: bool,
    exec: bool,
}

/// Asks the kernel. A process that cannot be asked counts as unfiltered. Only a living one can: a
/// zombie has no filters any more.
fn seccomp_in_force(pid: i32) -> bool {
    const FILTERING: &str = "2";
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    // The second is told since Linux 5.9.
    field("Seccomp:") == Some(FILTERING)
        && field("Seccomp_filters:").is_none_or(|count| count == FILTERING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_filter_is_recognized() {
        assert!(!seccomp_in_force(std::process::id().cast_signed()));
        assert!(!seccomp_in_force(i32::MAX));
    }
}
