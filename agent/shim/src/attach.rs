//! Being attached to a task: what is written into it from outside, while it runs.
//!
//! The shim holds the writing end of the task's standard input, or the master of its terminal, and gives copies of it
//! to those who ask on the control socket. So bytes go to the task without passing the shim, nobody has to be there
//! for the task to go on, and an agent that was restarted asks again. What the task prints goes to its log as ever,
//! and is read there.
//!
//! Who is attached keeps the connection on which the copy came: its end is how the shim learns that somebody is gone,
//! and how everybody learns that the input was closed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::MsgFlags;

use crate::client::Shim;
use crate::control::{Answer, Request};
use crate::fds;
use crate::launch::Stdio;

/// Attached to one task at once, so that orders to its shim always find a free connection.
pub const ATTACHED_MAX: usize = 16;

/// What the agent holds while somebody is attached.
#[derive(Debug)]
pub struct Attachment {
    /// Ends when the task's input was closed, or its shim has gone. Closing it is to be gone. Non-blocking.
    pub control: UnixStream,
    /// To be written, and not to be read: a pipe, or the master of the task's terminal. Non-blocking.
    pub input: OwnedFd,
}

impl Shim {
    /// Attaches to the task: `stdin` to write to it, else only to size its terminal. Blocks for about a millisecond.
    ///
    /// # Errors
    /// Of kind `Other`: the shim's own words why it can't be. Any other: the task does not run (any more).
    pub fn attach(self, stdin: bool) -> io::Result<Attachment> {
        let control = self.into_stream();
        let mut line = serde_json::to_vec(&Request::Attach { stdin })?;
        line.push(b'\n');
        io::Write::write_all(&mut &control, &line)?;
        let (mut answer, mut input) = (Vec::new(), None);
        let mut chunk = [0; 4096];
        while !answer.ends_with(b"\n") {
            let (length, fds) = fds::receive(&control, &mut chunk)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            answer.extend_from_slice(&chunk[..length]);
            input = fds.into_iter().next().or(input);
        }
        let Answer { ok, error, .. } = serde_json::from_slice(&answer)?;
        match (ok, input) {
            (true, Some(input)) => {
                control.set_nonblocking(true)?;
                Ok(Attachment { control, input })
            }
            _ => Err(io::Error::other(error.unwrap_or_default())),
        }
    }
}

/// The shim's end of what a task reads.
#[derive(Debug)]
pub(crate) struct Input {
    stdio: Stdio,
    /// Absent before a terminal was made, and after the input was closed.
    end: Option<OwnedFd>,
    closed: bool,
    /// Somebody has been attached to write to it.
    opened: bool,
    attached: usize,
}

impl Input {
    /// `pipe`: the writing end, if the task reads from one.
    pub(crate) fn new(stdio: Stdio, pipe: Option<OwnedFd>) -> Input {
        Input { stdio, end: pipe, closed: false, opened: false, attached: 0 }
    }

    /// Takes the master of the task's terminal, which comes before the command is executed. Returns a copy, to be
    /// read: `None` if there is none.
    pub(crate) fn receive_terminal(
        &mut self,
        socket: BorrowedFd<'_>,
    ) -> io::Result<Option<OwnedFd>> {
        if !self.stdio.tty {
            return Ok(None);
        }
        let (_, fds) = fds::receive_with(socket, &mut [0], MsgFlags::MSG_DONTWAIT)?;
        let Some(master) = fds.into_iter().next() else { return Ok(None) };
        let copy = master.try_clone()?;
        self.end = Some(master);
        Ok(Some(copy))
    }

    /// What somebody gets who attaches, and counts as attached from now on; and whether the input ends with him.
    pub(crate) fn attach(&mut self, stdin: bool) -> io::Result<(BorrowedFd<'_>, bool)> {
        let Stdio { stdin: has_stdin, tty, .. } = self.stdio;
        let refused = |why: &str| Err(io::Error::other(why));
        if self.closed {
            return refused(
                "the task's standard input was closed when the first who was attached to it had gone (stdinOnce)",
            );
        }
        if stdin && !has_stdin {
            return refused("the task has no standard input");
        }
        if !stdin && !tty {
            return refused("the task has no terminal");
        }
        if self.attached >= ATTACHED_MAX {
            return refused(&format!(
                "{ATTACHED_MAX} are attached to the task already, which is the limit"
            ));
        }
        match &self.end {
            Some(end) => {
                self.attached += 1;
                let is_his = stdin && self.stdio.stdin_once && !self.opened;
                self.opened |= stdin;
                Ok((end.as_fd(), is_his))
            }
            None => refused("the task does not run yet"),
        }
    }

    /// Somebody who was attached is gone, with whom the input ends or not. Returns whether that closes it: then
    /// everybody else is to be told.
    pub(crate) fn detach(&mut self, is_his: bool) -> bool {
        self.attached = self.attached.saturating_sub(1);
        let closes = is_his && !self.closed;
        if closes {
            self.closed = true;
            self.end = None;
        }
        closes
    }

    /// Whether the task is to find itself without a terminal.
    pub(crate) fn has_hung_up(&self) -> bool {
        self.closed && self.stdio.tty
    }
}

/// The master of the terminal on its way from the command that is about to be to the shim.
pub(crate) fn hand_over(socket: BorrowedFd<'_>, master: BorrowedFd<'_>) -> io::Result<()> {
    fds::send(socket, b"T", &[master], MsgFlags::MSG_DONTWAIT).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn input(stdio: Stdio) -> (OwnedFd, Input) {
        let (read, write) = nix::unistd::pipe().unwrap();
        (read, Input::new(stdio, Some(write)))
    }

    #[test]
    fn the_first_who_goes_closes_an_input_that_is_open_once() {
        let (_read, mut once) = input(Stdio { stdin: true, stdin_once: true, tty: false });
        let first = once.attach(true).unwrap().1;
        let second = once.attach(true).unwrap().1;
        assert_eq!((first, second), (true, false));
        assert!(!once.detach(second), "it is the first one's");
        assert!(once.detach(first));
        assert!(!once.detach(first), "it is closed once");
        let refused = once.attach(true).unwrap_err().to_string();
        assert!(refused.contains("stdinOnce"), "{refused}");
        let (_read, mut open) = input(Stdio { stdin: true, ..Stdio::default() });
        let first = open.attach(true).unwrap().1;
        assert!(!open.detach(first));
        open.attach(true).unwrap();
    }

    #[test]
    fn what_is_not_there_is_refused_with_its_name() {
        let (_read, mut none) = input(Stdio::default());
        assert_eq!(none.attach(true).unwrap_err().to_string(), "the task has no standard input");
        assert_eq!(none.attach(false).unwrap_err().to_string(), "the task has no terminal");
        let mut early = Input::new(Stdio { stdin: true, stdin_once: false, tty: true }, None);
        assert_eq!(early.attach(true).unwrap_err().to_string(), "the task does not run yet");
    }

    #[test]
    fn no_more_are_attached_than_leave_room_for_orders() {
        let (_read, mut open) = input(Stdio { stdin: true, ..Stdio::default() });
        for _ in 0..ATTACHED_MAX {
            open.attach(true).unwrap();
        }
        assert!(open.attach(true).unwrap_err().to_string().contains("16 are attached"));
        open.detach(false);
        open.attach(true).unwrap();
    }

    #[test]
    fn who_only_watches_a_terminal_closes_nothing() {
        let (_read, mut once) = input(Stdio { stdin: true, stdin_once: true, tty: true });
        let watches = once.attach(false).unwrap().1;
        assert!(!once.detach(watches) && !once.has_hung_up());
        let first = once.attach(true).unwrap().1;
        assert!(once.detach(first) && once.has_hung_up());
    }
}
