//! A program on a terminal of its own, as if a person sat in front of it.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::eventually;

/// It is killed when the value goes.
#[derive(Debug)]
pub struct Screen {
    process: Child,
    keyboard: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Screen {
    /// Starts a command with all of its standard streams on a new terminal, of so many columns and rows.
    pub fn start(command: &mut Command, columns: u16, rows: u16) -> anyhow::Result<Screen> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None)?;
        let process = command
            .stdin(pty.slave.try_clone()?)
            .stdout(pty.slave.try_clone()?)
            .stderr(pty.slave)
            .spawn()?;
        // The command holds the other end too, until it is dropped or used again.
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let keyboard = File::from(pty.master);
        let shown: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut screen, all) = (keyboard.try_clone()?, Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal ends with an error.
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                all.lock().unwrap_or_else(PoisonError::into_inner).extend(&buffer[..count]);
            }
        });
        Ok(Screen { process, keyboard, shown })
    }

    /// Presses keys; `\r` is enter, as long as the program has the terminal raw.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("write to a terminal of ours");
    }

    /// All that was shown so far.
    pub fn text(&self) -> String {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Waits until this is shown.
    #[track_caller]
    pub fn until(&self, text: &str) {
        eventually(&format!("{text:?} on the screen"), || {
            let shown = self.text();
            if shown.contains(text) { Ok(()) } else { Err(shown) }
        });
    }

    /// Makes the window larger or smaller.
    pub fn resize(&self, columns: u16, rows: u16) -> anyhow::Result<()> {
        let size =
            rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.keyboard, size)?;
        // The terminal is nobody's controlling one, so the kernel tells nobody.
        Ok(kill(self.pid()?, Signal::SIGWINCH)?)
    }

    /// Closes the window on it.
    pub fn close(mut self) {
        self.process.kill().and_then(|()| self.process.wait()).expect("kill a process of ours");
    }

    /// Waits for its end; returns its exit code.
    #[track_caller]
    pub fn end(mut self) -> i32 {
        eventually("the program on the screen to end", || match self.process.try_wait() {
            Ok(Some(status)) => Ok(status.code().unwrap_or(-1)),
            _ => Err(self.text()),
        })
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.process.id())?))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
