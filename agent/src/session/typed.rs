//! What somebody types who is attached to a task, on its way to the task's standard input.

use std::io;

use commonage_shim::attach::Attachment;
use commonage_shim::launch::Stdio;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::channels::{Incoming, Said};
use super::process::{self, Input, Terminal};

/// Ctrl-D: how a terminal says that its input is at its end (`VEOF`).
const END_OF_INPUT: &[u8] = b"\x04";

/// The way into a task. Dropping it is to be gone.
pub(super) struct Keyboard {
    /// Ends when the input was closed for all.
    control: UnixStream,
    input: Input,
    terminal: Option<Terminal>,
    stdio: Stdio,
}

impl Keyboard {
    pub(super) fn new(attached: Attachment, stdio: Stdio) -> io::Result<Keyboard> {
        let Attachment { control, input } = attached;
        let control = UnixStream::from_std(control)?;
        let (input, terminal) = process::input_of_task(input, stdio.tty)?;
        Ok(Keyboard { control, input, terminal, stdio })
    }

    /// Waits until the input was closed for all, or the shim has gone.
    async fn closed(&self) {
        loop {
            if self.control.readable().await.is_err() {
                return;
            }
            match self.control.try_read(&mut [0; 64]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Nothing is ever said.
                Ok(1..) => {}
                _ => return,
            }
        }
    }

    /// False: the task takes no more.
    async fn hear(&mut self, said: Said) -> bool {
        match said {
            Said::Stdin(bytes) => self.input.write_all(&bytes).await.is_ok(),
            Said::StdinClosed if !self.stdio.stdin_once => true,
            Said::StdinClosed if self.stdio.tty => self.input.write_all(END_OF_INPUT).await.is_ok(),
            Said::StdinClosed => false,
            Said::Resize { columns, rows } => {
                if let Some(terminal) = &self.terminal {
                    terminal.resize(columns, rows);
                }
                true
            }
        }
    }
}

/// Takes what the client says, until it is gone. While the task takes no input, nothing more is read.
pub(super) async fn listen(incoming: &mut Incoming, keyboard: Option<Keyboard>, typed: &Notify) {
    if let Some(mut keyboard) = keyboard {
        loop {
            let said = tokio::select! {
                said = incoming.next() => said,
                () = keyboard.closed() => break,
            };
            let Some(said) = said else { return };
            if !keyboard.hear(said).await {
                break;
            }
            typed.notify_one();
        }
    }
    // It still sees what the task prints.
    while incoming.next().await.is_some() {}
}
