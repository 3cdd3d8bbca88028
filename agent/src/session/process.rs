//! A further command in a task's container, for asynchronous use.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use commonage_shim::exec::{Exec, ExecError, Message, Order, START_TIME_MAX, Streams};
use commonage_shim::terminal;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use crate::health::Commands;
use crate::ledger::Uid;
use crate::runtime::{Shims, describe};
use crate::session::limited::Limited;

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
    /// It never ran.
    NotStarted(NotStarted),
}

/// Why a command never ran, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotStarted {
    /// There is no such program, or it is none: with the code that a shell ends with then.
    Program(String, i32),
    /// It took too long.
    TooSlow(String),
    Other(String),
}

impl NotStarted {
    pub(crate) fn why(&self) -> &str {
        match self {
            NotStarted::Program(why, _) | NotStarted::TooSlow(why) | NotStarted::Other(why) => why,
        }
    }
}

/// Tells of the end, once.
pub(crate) struct End {
    control: UnixStream,
    command: Vec<String>,
    task: Limited,
    /// Until then it must have started; absent: it has.
    deadline: Option<Instant>,
}

impl End {
    /// Waits for it. Not to be called again once it has told.
    pub(crate) async fn wait(&mut self) -> Ended {
        loop {
            let mut bytes = [0; Message::BYTES];
            let read = self.control.read_exact(&mut bytes);
            let read = match self.deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, read).await,
                None => Ok(read.await),
            };
            match read {
                Err(_) => return Ended::NotStarted(self.task.too_slow().await),
                Ok(Err(_)) => return Ended::Code(KILLED),
                Ok(Ok(_)) => {}
            }
            return match Message::parse(&bytes) {
                Some(Message::Started) => {
                    self.deadline = None;
                    continue;
                }
                Some(Message::Ended(code)) => Ended::Code(code),
                Some(Message::Failed(failure)) => {
                    Ended::NotStarted(self.task.refused(failure, &self.command).await)
                }
                _ => {
                    let why = "the container's init does not make sense".to_owned();
                    Ended::NotStarted(NotStarted::Other(why))
                }
            };
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

/// The input of a task that somebody is attached to, and the terminal that it may be. Its output is not read here.
pub(crate) fn input_of_task(end: OwnedFd, tty: bool) -> io::Result<(Input, Option<Terminal>)> {
    if !tty {
        return Ok((Input(pipe::Sender::from_owned_fd(end)?), None));
    }
    let input = pipe::Sender::from_owned_fd_unchecked(end.try_clone()?)?;
    Ok((Input(input), Some(Terminal(end))))
}

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
pub(crate) async fn start(shims: &Shims, uid: &str, order: Order) -> Result<Process, NotStarted> {
    let task = Limited { shims: shims.clone(), uid: uid.to_owned() };
    let (asked, command) = (task.clone(), order.command.clone());
    // As it is here and not when a thread is free for it: those who wait for one are told in time as well.
    let deadline = Instant::now() + START_TIME_MAX;
    let started = tokio::task::spawn_blocking(move || asked.shims.exec(&asked.uid, &order)).await;
    let started =
        started.unwrap_or_else(|error| Err(ExecError::Container(io::Error::other(error))));
    let Exec { control, streams, tells_start } = match started {
        Ok(exec) => exec,
        Err(ExecError::Refused(failure)) => return Err(task.refused(failure, &command).await),
        Err(ExecError::TooSlow) => return Err(task.too_slow().await),
        Err(error) => return Err(NotStarted::Other(describe(&error))),
    };
    let take = || -> io::Result<Process> {
        let control = UnixStream::from_std(control)?;
        let deadline = tells_start.then_some(deadline);
        let end = End { control, command, task, deadline };
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
    take().map_err(|error| NotStarted::Other(describe(&ExecError::Container(error))))
}

/// Bytes of what a failed check printed that are told.
const COMPLAINT_BYTES: usize = 256;
/// For reading what is in a pipe.
const LAST_WORDS_TIME_MAX: Duration = Duration::from_millis(100);

impl Commands for Shims {
    async fn run(&self, uid: &Uid, command: &[String]) -> Result<(), String> {
        let order = Order { command: command.to_vec(), ..Order::default() };
        let process = start(self, uid, order).await.map_err(|not| not.why().to_owned())?;
        let Process { mut end, mut output, errors, .. } = process;
        let (mut said, mut complained) = (Vec::new(), Vec::new());
        let ended = {
            let mut printing = std::pin::pin!(async {
                let complaining = async {
                    if let Some(mut errors) = errors {
                        errors.collect(&mut complained).await;
                    }
                };
                tokio::join!(output.collect(&mut said), complaining);
            });
            let mut ended = std::pin::pin!(end.wait());
            tokio::select! {
                ended = &mut ended => {
                    // What it printed last is there already; its children are not waited for.
                    let _ = tokio::time::timeout(LAST_WORDS_TIME_MAX, printing).await;
                    ended
                }
                // Nothing to read any more; it may go on in silence.
                () = &mut printing => ended.await,
            }
        };
        said.extend(complained);
        let said = String::from_utf8_lossy(&said);
        match (ended, said.trim()) {
            (Ended::Code(0), _) => Ok(()),
            (Ended::Code(code), "") => Err(format!("exit code {code}")),
            (Ended::Code(code), said) => Err(format!("exit code {code}: {said}")),
            (Ended::NotStarted(not), _) => Err(not.why().to_owned()),
        }
    }
}

impl Output {
    /// Reads to the end and keeps the beginning.
    async fn collect(&mut self, kept: &mut Vec<u8>) {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = self.read(&mut buffer).await {
            let room = COMPLAINT_BYTES.saturating_sub(kept.len());
            kept.extend_from_slice(&buffer[..count.min(room)]);
        }
    }
}
