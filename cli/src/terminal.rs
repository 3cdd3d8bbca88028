//! The terminal that a session is passed through to.

use std::io::{self, IsTerminal};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    width: u16,
    height: u16,
}

impl Size {
    fn now() -> Option<Size> {
        let size = rustix::termios::tcgetwinsize(io::stdin()).ok()?;
        Some(Size { width: size.ws_col, height: size.ws_row })
    }

    pub(crate) fn json(self) -> String {
        format!("{{\"Width\":{},\"Height\":{}}}", self.width, self.height)
    }
}

/// The size now, and again whenever it changes.
pub(crate) fn sizes() -> mpsc::Receiver<Size> {
    let (to, sizes) = mpsc::channel(1);
    tokio::spawn(async move {
        let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
        loop {
            if let Some(size) = Size::now()
                && to.send(size).await.is_err()
            {
                return;
            }
            if changes.recv().await.is_none() {
                return;
            }
        }
    });
    sizes
}

pub(crate) fn is_there() -> bool {
    io::stdin().is_terminal()
}

/// While this lives, keys go to the session as they are typed. Nothing is changed for an input
/// that is no terminal.
pub(crate) struct Raw(Option<Termios>);

impl Raw {
    pub(crate) fn enter() -> Raw {
        let Ok(before) = tcgetattr(io::stdin()) else { return Raw(None) };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        let set = tcsetattr(io::stdin(), SetArg::TCSANOW, &raw);
        Raw(set.is_ok().then_some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing is left to be done about a terminal that is gone.
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
    }
}
