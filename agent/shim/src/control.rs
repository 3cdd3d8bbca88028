//! The shim's end of `ctl.sock`: one JSON object per line, both ways.
//!
//! Requests: `{"op":"status"}`, `{"op":"kill","signal":15}`, `{"op":"subscribe"}`, `{"op":"settle"}`,
//! `{"op":"exec","command":["ls"],"tty":false,"tellStart":true}` with descriptors (see [`crate::exec`]),
//! `{"op":"attach","stdin":true}`, whose answer comes with one (see [`crate::attach`]). Answers:
//! `{"ok":true,"status":{…}}` or `{"ok":false,"error":"…"}`; a subscriber gets
//! `{"ok":true,"exit":{…}}` as its last line. `settle` is answered when the command runs, and if it never
//! does, not at all: the connection ends. Whoever does not read is dropped, never waited for.

use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::socket::MsgFlags;
use serde::{Deserialize, Serialize};

use crate::client::{Phase, Status};
use crate::exec::{COMMAND_BYTES_MAX, FLAG_TELL_START, FLAG_TTY};
use crate::fds;
use crate::launch::Exit;
use crate::state_dir::StateDir;

/// Name of the socket in the state directory.
pub(crate) const SOCKET: &str = "ctl.sock";

/// Connections at once. The agent keeps one per task; the rest is for people.
const MAX_CLIENTS: usize = 32;

/// A command, each byte of which JSON may write with six, and a little around it.
const MAX_REQUEST_BYTES: usize = 6 * COMMAND_BYTES_MAX + 4096;

/// Read at once.
const CHUNK_BYTES: usize = 4096;

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase")]
pub(crate) enum Request {
    Status,
    Kill {
        signal: i32,
    },
    Subscribe,
    Settle,
    #[serde(rename_all = "camelCase")]
    Exec {
        command: Vec<String>,
        tty: bool,
        /// Agents from before there were such messages do not understand them.
        #[serde(default)]
        tell_start: bool,
    },
    Attach {
        stdin: bool,
    },
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    pub(crate) ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<Status>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exit: Option<Exit>,
}

/// The task as the control socket sees it.
pub(crate) trait Task {
    fn status(&self) -> Status;
    fn kill(&mut self, signal: i32) -> io::Result<()>;
    /// Has a further command started, whose ends of things these are. The flags are those of an order to init.
    fn exec(&mut self, command: &[String], flags: u8, fds: &[OwnedFd]) -> io::Result<()>;
    /// What somebody gets who attaches, and whether the input ends with him.
    fn attach(&mut self, stdin: bool) -> io::Result<(BorrowedFd<'_>, bool)>;
    /// Somebody who was attached is gone, with whom the input ends or not. True: it is gone for everybody.
    fn detach(&mut self, is_his: bool) -> bool;
}

pub(crate) struct Control {
    listener: UnixListener,
    clients: Vec<Client>,
}

struct Client {
    stream: UnixStream,
    pending: Vec<u8>,
    /// Came with the pending request.
    fds: Vec<OwnedFd>,
    subscribed: bool,
    /// Waits for the command to run.
    settling: bool,
    attached: Option<Attached>,
}

/// To be told when the task's input is closed.
struct Attached {
    /// The input ends with this client.
    is_his: bool,
}

impl Control {
    /// Listens. Reached by way of a descriptor of the directory, because a socket's address is
    /// limited to 107 bytes and a state directory's path is not.
    pub(crate) fn bind(state: &StateDir) -> io::Result<Self> {
        let directory = std::fs::File::open(state.path())?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, clients: Vec::new() })
    }

    /// What to poll for reading.
    pub(crate) fn poll_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let clients = self.clients.iter().map(|client| client.stream.as_fd());
        std::iter::once(self.listener.as_fd()).chain(clients)
    }

    /// Accepts and answers whatever is there.
    pub(crate) fn serve(&mut self, task: &mut impl Task) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() < MAX_CLIENTS && stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client::new(stream));
            }
        }
        let mut closed = false;
        self.clients.retain_mut(|client| {
            let stays = client.serve(task);
            if let (false, Some(attached)) = (stays, &client.attached) {
                closed |= task.detach(attached.is_his);
            }
            stays
        });
        if closed {
            self.clients.retain(|client| client.attached.is_none());
        }
    }

    /// Answers those who wait for the command to run, if it does.
    pub(crate) fn tell_settled(&mut self, task: &impl Task) {
        if self.clients.iter().any(|client| client.settling) {
            self.clients.retain_mut(|client| client.settle(task));
        }
    }

    /// Tells the subscribers and hangs up on everybody.
    pub(crate) fn announce(self, exit: &Exit) {
        let answer = Answer { ok: true, exit: Some(exit.clone()), ..Answer::default() };
        for mut client in self.clients {
            if client.subscribed {
                client.answer(&answer);
            }
        }
    }
}

impl Client {
    fn new(stream: UnixStream) -> Self {
        let (pending, fds) = (Vec::new(), Vec::new());
        Self { stream, pending, fds, subscribed: false, settling: false, attached: None }
    }

    /// False: hang up.
    fn serve(&mut self, task: &mut impl Task) -> bool {
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            match fds::receive(&self.stream, &mut chunk) {
                Ok((0, _)) => return false,
                Ok((bytes, fds)) => {
                    self.pending.extend_from_slice(&chunk[..bytes]);
                    self.fds.extend(fds);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return false,
            }
            while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                if let Some(answer) = self.handle(&line, task)
                    && !self.answer(&answer)
                {
                    return false;
                }
            }
            if self.pending.len() > MAX_REQUEST_BYTES || self.fds.len() > fds::FDS_MAX {
                return false;
            }
        }
    }

    /// `None`: the answer comes later.
    fn handle(&mut self, line: &[u8], task: &mut impl Task) -> Option<Answer> {
        let outcome = match serde_json::from_slice(line) {
            Ok(Request::Status) => Ok(()),
            Ok(Request::Kill { signal }) => task.kill(signal).map_err(|e| e.to_string()),
            Ok(Request::Subscribe) => {
                self.subscribed = true;
                Ok(())
            }
            Ok(Request::Settle) => {
                self.settling = true;
                return None;
            }
            Ok(Request::Exec { command, tty, tell_start }) => {
                let fds = std::mem::take(&mut self.fds);
                let flag = |set: bool, flag: u8| if set { flag } else { 0 };
                let flags = flag(tty, FLAG_TTY) | flag(tell_start, FLAG_TELL_START);
                task.exec(&command, flags, &fds).map_err(|e| e.to_string())
            }
            Ok(Request::Attach { stdin }) if self.attached.is_none() => {
                return self.attach(stdin, task);
            }
            Ok(Request::Attach { .. }) => Err("attached already".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        Some(match outcome {
            Ok(()) => Answer { ok: true, status: Some(task.status()), ..Answer::default() },
            Err(error) => Answer { error: Some(error), ..Answer::default() },
        })
    }

    /// The answer, unless it has gone out with what the client is given.
    fn attach(&mut self, stdin: bool, task: &mut impl Task) -> Option<Answer> {
        let answer = Answer { ok: true, status: Some(task.status()), ..Answer::default() };
        match task.attach(stdin) {
            Ok((input, is_his)) => {
                let line = line(&answer);
                let sent = fds::send(&self.stream, &line, &[input], MsgFlags::MSG_DONTWAIT);
                self.attached = Some(Attached { is_his });
                if sent.ok() != Some(line.len()) {
                    // It is found to be gone when it is looked at next.
                    let _ = self.stream.shutdown(Shutdown::Both);
                }
                None
            }
            Err(error) => Some(Answer { error: Some(error.to_string()), ..Answer::default() }),
        }
    }

    /// False: hang up.
    fn settle(&mut self, task: &impl Task) -> bool {
        let status = task.status();
        if !self.settling || status.phase != Phase::Running {
            return true;
        }
        self.settling = false;
        self.answer(&Answer { ok: true, status: Some(status), ..Answer::default() })
    }

    /// False if it could not be written at once: the peer does not read.
    fn answer(&mut self, answer: &Answer) -> bool {
        self.stream.write_all(&line(answer)).is_ok()
    }
}

fn line(answer: &Answer) -> Vec<u8> {
    let mut line = serde_json::to_vec(answer).expect("an answer has only string keys");
    line.push(b'\n');
    line
}
