//! A further command in a task's container, for asynchronous use.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use commonage_shim::exec::{Exec, ExecError, Message, Order, Streams};
use commonage_shim::terminal;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use crate::runtime::Shims;

/// What a command that was cut off with its container is said to have ended with: `SIGKILL`'s.
const KILLED: i32 = 137;

/// A command that was ordered. Dropping [`Process::end`] kills it; dropping the rest takes its
/// input and output away.
pub(crate) struct Process {
    pub end: End,
    pub input: Option<Input>,
    /// What it prints, and its errors unless it has a terminal.
    pub output: Output,
    pub errors: Option<Output>,
    pub terminal: Option<Terminal>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    /// It never ran; why, in words.
    NotStarted(String),
}

/// Tells of the end, once.
pub(crate) struct End {
    control: UnixStream,
    command: Vec<String>,
}

impl End {
    /// Waits for it. Not to be called again.
    pub(crate) async fn wait(&mut self) -> Ended {
        let mut bytes = [0; Message::BYTES];
        if self.control.read_exact(&mut bytes).await.is_err() {
            return Ended::Code(KILLED);
        }
        match Message::parse(&bytes) {
            Some(Message::Ended(code)) => Ended::Code(code),
            Some(Message::Failed(failure)) => Ended::NotStarted(failure.explain(&self.command)),
            _ => Ended::NotStarted("the container's init does not make sense".to_owned()),
        }
    }
}

/// What a command is given to read.
pub(crate) struct Input(pipe::Sender);

impl Input {
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }
}

/// What a command prints.
pub(crate) struct Output(pipe::Receiver);

impl Output {
    /// Zero: the end. Nothing is lost if the future is dropped.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer).await {
            // How a terminal says that nobody is left on the other side.
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => Ok(0),
            result => result,
        }
    }
}

/// The master of a terminal.
pub(crate) struct Terminal(OwnedFd);

impl Terminal {
    /// In characters.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        if let Err(error) = terminal::resize(&self.0, columns, rows) {
            tracing::debug!(%error, "a terminal was not resized");
        }
    }

    /// Both directions of it, which can be polled like pipes.
    fn streams(&self) -> io::Result<(Input, Output)> {
        fcntl(self.0.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
        let input = pipe::Sender::from_owned_fd_unchecked(self.0.try_clone()?)?;
        let output = pipe::Receiver::from_owned_fd_unchecked(self.0.try_clone()?)?;
        Ok((Input(input), Output(output)))
    }
}

/// Has a command started. That it could not be is told by [`End::wait`], mostly.
pub(crate) async fn start(shims: &Shims, uid: &str, order: Order) -> Result<Process, ExecError> {
    let (shims, uid, command) = (shims.clone(), uid.to_owned(), order.command.clone());
    let started = tokio::task::spawn_blocking(move || shims.exec(&uid, &order)).await;
    let Exec { control, streams } =
        started.map_err(|error| ExecError::Container(io::Error::other(error)))??;
    let take = || -> io::Result<Process> {
        let end = End { control: UnixStream::from_std(control)?, command };
        Ok(match streams {
            Streams::Pipes { stdin, stdout, stderr } => {
                let stdin = stdin.map(pipe::Sender::from_owned_fd).transpose()?;
                Process {
                    end,
                    input: stdin.map(Input),
                    output: Output(pipe::Receiver::from_owned_fd(stdout)?),
                    errors: Some(Output(pipe::Receiver::from_owned_fd(stderr)?)),
                    terminal: None,
                }
            }
            Streams::Terminal(master) => {
                let terminal = Terminal(master);
                let (input, output) = terminal.streams()?;
                let (input, terminal) = (Some(input), Some(terminal));
                Process { end, input, output, errors: None, terminal }
            }
        })
    };
    take().map_err(ExecError::Container)
}
