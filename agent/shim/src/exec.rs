//! Further commands in a running container: what is said about them, and the agent's end of one.
//!
//! The container's init starts them. It already is what they have to be: in the namespaces, the
//! control group, the filters and the limits of the task, as its user. So nothing has to be
//! entered again, nothing can be forgotten on the way, and a start costs a fork.
//!
//! ```text
//! agent ──{"op":"exec"} + descriptors──► shim ──command + descriptors──► init ──fork──► command
//!   └───────────────── one control connection per command ────────────────┘
//! ```
//!
//! The control connection is a stream. From init come [`Message`]s; from the agent single bytes,
//! each the number of a signal for the command's process group. When it closes before the command
//! has ended, nobody is there any more to hear of it, and init kills the group, or forgets the order.
//! A command ends with its container at the latest: init is process 1 there.
//!
//! Init and the command share what the task has. In a task that uses all of it a start can take long, so that it is
//! told ([`Message::Started`]) and not waited for without end ([`START_TIME_MAX`]).

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::MsgFlags;
use nix::unistd::{Gid, Uid, fchown, pipe2};

use crate::client::Shim;
use crate::control::Request;
use crate::fds;
use crate::init::{Failure, Step};

/// Commands of `exec` at once in one container; more are refused.
pub const EXECS_MAX: usize = 32;

/// Bytes of a command and its arguments together; what the kernel takes for one argument.
pub const COMMAND_BYTES_MAX: usize = 128 * 1024;

/// So long a start may take: ten thousand times what it takes in a task that is not at its limits.
pub const START_TIME_MAX: Duration = Duration::from_secs(10);

/// What is to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// The program and its arguments. A name without a slash is looked up in the task's `PATH`.
    pub command: Vec<String>,
    /// Whether it gets an input; otherwise that is empty. A terminal always has one.
    pub stdin: bool,
    /// Whether it runs in a terminal of its own.
    pub tty: bool,
}

/// A command that was handed over to the container's init.
#[derive(Debug)]
pub struct Exec {
    /// Yields [`Message`]s and takes signals. Non-blocking. Closing it kills the command.
    pub control: UnixStream,
    /// What the command reads and writes.
    pub streams: Streams,
    /// Whether [`Message::Started`] will come: the shim of a task may be older than the agent, and know none.
    pub tells_start: bool,
}

/// The agent's ends of a command's standard streams.
#[derive(Debug)]
pub enum Streams {
    /// One pipe each.
    Pipes {
        /// To be written, if one was ordered.
        stdin: Option<OwnedFd>,
        /// To be read.
        stdout: OwnedFd,
        /// To be read.
        stderr: OwnedFd,
    },
    /// The master of its terminal.
    Terminal(OwnedFd),
}

/// Why a command does not run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// There is no container to run it in, or its shim does not answer.
    #[error("reach the task's container")]
    Container(#[source] io::Error),
    /// It could not be started. In the words of container runtimes, which people know.
    #[error("{0}")]
    Start(String),
    /// The container's init could not start it, and this is how that failed.
    #[error("the command was not started")]
    Refused(StartFailure),
    /// It had not started after [`START_TIME_MAX`].
    #[error("the command did not start in time")]
    TooSlow,
}

/// What init says of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A terminal was made; its master comes along.
    Terminal,
    /// It is about to be executed: its process has come so far.
    Started,
    /// It could not be started.
    Failed(StartFailure),
    /// It has ended: the code it exited with, or 128 and the number of the signal.
    Ended(i32),
}

/// Which step of a start failed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartFailure(pub(crate) Failure);

impl Message {
    /// Every message is this long.
    pub const BYTES: usize = 1 + Failure::BYTES;

    /// Takes one apart; `None` if it is none.
    #[must_use]
    pub fn parse(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        match bytes {
            [b'T', ..] => Some(Self::Terminal),
            [b'S', ..] => Some(Self::Started),
            [b'F', failure @ ..] => Failure::parse(failure).map(StartFailure).map(Self::Failed),
            [b'E', a, b, c, d, _] => Some(Self::Ended(i32::from_le_bytes([*a, *b, *c, *d]))),
            _ => None,
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        match self {
            Self::Terminal => bytes[0] = b'T',
            Self::Started => bytes[0] = b'S',
            Self::Failed(StartFailure(failure)) => {
                bytes[0] = b'F';
                bytes[1..].copy_from_slice(&failure.to_bytes());
            }
            Self::Ended(code) => {
                bytes[0] = b'E';
                bytes[1..5].copy_from_slice(&code.to_le_bytes());
            }
        }
        bytes
    }
}

impl StartFailure {
    /// What a shell would end with: 127 if there is no such program, 126 if it is not one; `None` if it was
    /// not for the program.
    #[must_use]
    pub fn exit_code(self) -> Option<i32> {
        let Failure { step, errno } = self.0;
        match (step, Errno::from_raw(errno)) {
            _ if self.lacks_room() => None,
            (Step::Exec, Errno::ENOENT) => Some(127),
            (Step::Exec, _) => Some(126),
            _ => None,
        }
    }

    /// Whether it was for want of memory or of processes.
    #[must_use]
    pub fn lacks_room(self) -> bool {
        matches!(Errno::from_raw(self.0.errno), Errno::ENOMEM | Errno::EAGAIN)
    }

    /// The same for people.
    #[must_use]
    pub fn explain(self, command: &[String]) -> String {
        let Failure { step, errno } = self.0;
        let errno = Errno::from_raw(errno);
        let program = command.first().map_or("", String::as_str);
        match (step, errno) {
            (Step::Busy, _) => {
                format!("{EXECS_MAX} commands run in this container already, which is the limit")
            }
            _ if self.lacks_room() => {
                format!("no room to start {program:?} within the task's limits: {}", errno.desc())
            }
            (Step::Exec, Errno::ENOENT) if program.contains('/') => {
                format!("exec: {program:?}: stat {program}: no such file or directory")
            }
            (Step::Exec, Errno::ENOENT) => {
                format!("exec: {program:?}: executable file not found in $PATH")
            }
            (Step::Exec, Errno::EACCES) => format!("exec: {program:?}: permission denied"),
            (Step::Exec, _) => format!("exec: {program:?}: {}", errno.desc()),
            (Step::WorkingDir, _) => format!("chdir to cwd of the task: {}", errno.desc()),
            (Step::Terminal, _) => format!("make a terminal: {}", errno.desc()),
            _ => format!("start {program:?}: {}", errno.desc()),
        }
    }
}

/// In the first byte of an order to init: the command runs in a terminal of its own.
pub(crate) const FLAG_TTY: u8 = 1;
/// That it was started is to be told.
pub(crate) const FLAG_TELL_START: u8 = 2;

/// What the shim passes on to init: one byte of flags, then the words with a zero byte between them.
pub(crate) fn encode(command: &[String], flags: u8) -> io::Result<Vec<u8>> {
    let invalid = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if command.first().is_none_or(String::is_empty) {
        return invalid("command: must name a program");
    }
    if command.iter().any(|word| word.contains('\0')) {
        return invalid("command: must not contain a zero byte");
    }
    let mut bytes = vec![flags];
    bytes.extend_from_slice(command.join("\0").as_bytes());
    if bytes.len() > COMMAND_BYTES_MAX {
        return invalid("command: longer than 128 KiB");
    }
    Ok(bytes)
}

impl Shim {
    /// Has a command started in the container. Blocks for about a millisecond.
    ///
    /// # Errors
    /// The task does not run (any more), or the terminal could not be made. That there is no such
    /// program, say, is told later, by a [`Message`].
    pub fn exec(mut self, order: &Order) -> Result<Exec, ExecError> {
        let container = ExecError::Container;
        let (control, theirs) = UnixStream::pair().map_err(container)?;
        let request =
            Request::Exec { command: order.command.clone(), tty: order.tty, tell_start: true };
        if order.tty {
            let tells_start = self.hand_over(&request, &[theirs.as_fd()])?;
            drop(theirs);
            let master = receive_terminal(&control)?;
            control.set_nonblocking(true).map_err(container)?;
            return Ok(Exec { control, streams: Streams::Terminal(master), tells_start });
        }
        let ends = Ends::make(order.stdin, self.user()).map_err(container)?;
        let theirs =
            [theirs.as_fd(), ends.stdin.as_fd(), ends.stdout.1.as_fd(), ends.stderr.1.as_fd()];
        let tells_start = self.hand_over(&request, &theirs)?;
        control.set_nonblocking(true).map_err(container)?;
        let Ends { to_stdin, stdout, stderr, .. } = ends;
        let streams = Streams::Pipes { stdin: to_stdin, stdout: stdout.0, stderr: stderr.0 };
        Ok(Exec { control, streams, tells_start })
    }

    /// Whether a start is told.
    fn hand_over(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<bool, ExecError> {
        let answer = self.ask_with(request, fds);
        answer.map(|status| status.tells_start).map_err(|error| match error.kind() {
            // Its own words, not the connection's.
            io::ErrorKind::Other => ExecError::Start(error.to_string()),
            _ => ExecError::Container(error),
        })
    }

    /// Who owns the pipes, so that the command may open `/dev/stdout` again.
    fn user(&self) -> (Uid, Gid) {
        let user = self.state().launch().map(|launch| launch.user).unwrap_or_default();
        (Uid::from_raw(user.uid), Gid::from_raw(user.gid))
    }
}

/// Both ends of a command's pipes.
struct Ends {
    stdin: OwnedFd,
    to_stdin: Option<OwnedFd>,
    stdout: (OwnedFd, OwnedFd),
    stderr: (OwnedFd, OwnedFd),
}

impl Ends {
    fn make(stdin: bool, (uid, gid): (Uid, Gid)) -> io::Result<Self> {
        let pipe = || -> io::Result<(OwnedFd, OwnedFd)> {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            fchown(write.as_raw_fd(), Some(uid), Some(gid))?;
            Ok((read, write))
        };
        let (stdin, to_stdin) = if stdin {
            let (read, write) = pipe()?;
            (read, Some(write))
        } else {
            (OpenOptions::new().read(true).open("/dev/null")?.into(), None)
        };
        Ok(Self { stdin, to_stdin, stdout: pipe()?, stderr: pipe()? })
    }
}

/// Init's first word on a command with a terminal.
fn receive_terminal(control: &UnixStream) -> Result<OwnedFd, ExecError> {
    let mut bytes = [0; Message::BYTES];
    control.set_read_timeout(Some(START_TIME_MAX)).map_err(ExecError::Container)?;
    let received = fds::receive(control, &mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => ExecError::TooSlow,
        _ => ExecError::Container(error),
    });
    let (length, mut fds) = received?;
    let rest = &mut bytes[length..];
    if length == 0 {
        return Err(ExecError::Container(io::ErrorKind::UnexpectedEof.into()));
    }
    let mut control = control;
    control.read_exact(rest).map_err(ExecError::Container)?;
    match (Message::parse(&bytes), fds.pop()) {
        (Some(Message::Terminal), Some(master)) => Ok(master),
        (Some(Message::Failed(failure)), _) => Err(ExecError::Refused(failure)),
        _ => Err(ExecError::Start("the container's init does not make sense".to_owned())),
    }
}

/// Says one thing of a command; whoever does not listen any more does not matter.
pub(crate) fn say(control: BorrowedFd<'_>, message: Message, attached: &[BorrowedFd<'_>]) {
    let _ = fds::send(control, &message.to_bytes(), attached, MsgFlags::MSG_DONTWAIT);
}

/// Sends a signal to the process group of a command.
///
/// # Errors
/// The connection is broken: the command has ended.
pub fn signal(control: &UnixStream, signal: u8) -> io::Result<()> {
    let mut control = control;
    control.write_all(&[signal])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn messages_survive_the_connection() {
        let failed = StartFailure(Failure { step: Step::Exec, errno: libc::ENOENT });
        let all =
            [Message::Terminal, Message::Started, Message::Failed(failed), Message::Ended(137)];
        for message in all {
            assert_eq!(Message::parse(&message.to_bytes()), Some(message));
        }
        assert_eq!(Message::parse(&[0; Message::BYTES]), None);
        let said = |program: &str| failed.explain(&[program.to_owned()]);
        assert_eq!(said("nix"), "exec: \"nix\": executable file not found in $PATH");
        assert_eq!(failed.exit_code(), Some(127));
        assert_eq!(said("/nix"), "exec: \"/nix\": stat /nix: no such file or directory");
    }

    #[test]
    fn what_cannot_be_a_command_is_refused() {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        assert_eq!(encode(&words(&["a", "", "b"]), FLAG_TTY).unwrap(), b"\x01a\0\0b");
        assert!(encode(&[], 0).is_err());
        assert!(encode(&words(&["", "x"]), 0).is_err());
        assert!(encode(&words(&["a\0b"]), 0).is_err());
        assert!(encode(&words(&[&"x".repeat(COMMAND_BYTES_MAX)]), 0).is_err());
    }
}
