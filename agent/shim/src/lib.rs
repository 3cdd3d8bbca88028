//! One process per task: the shim, the zygote that forks it, and what the agent says to it.
//!
//! This crate alone knows libcontainer and it alone may use `unsafe`. libcontainer clones its
//! caller and lets the clone allocate, so a threaded caller deadlocks; it also changes the
//! caller's working directory and dumpable flag. Hence the rule that everything here follows:
//! *only a single-threaded process of its own, the shim, calls libcontainer*.
//!
//! ```text
//! agent (threads) ──ZygoteHandle──► zygote (single-threaded) ──fork──► shim ──► container init ──► command
//!        └────────────client::Shim──► ctl.sock ─────────────────────────┘
//! ```
//!
//! `main` calls [`dispatch`] before anything else: it runs the zygote and shim subcommands of
//! the same executable and returns only if the process is neither.
#![warn(missing_docs)]

pub mod client;
pub mod launch;
pub mod zygote;

pub use client::{Observed, Shim};
pub use launch::{Exit, Launch, StateDir};
pub use zygote::ZygoteHandle;

/// Runs `<exe> zygote` or `<exe> shim --state-dir DIR` if that is what the process was started
/// as, and then never returns. To be called first thing in `main`, before any thread.
pub fn dispatch() {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some(zygote::SUBCOMMAND) => zygote::main(),
        _ => {}
    }
}
