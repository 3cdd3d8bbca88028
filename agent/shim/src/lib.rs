//! One process per task: the shim, the zygote that forks it, and what the agent says to it.
//!
//! This crate alone knows libcontainer and it alone may use `unsafe`. libcontainer clones its
//! caller and lets the clone allocate, so a threaded caller deadlocks; it also changes the
//! caller's working directory and dumpable flag. Hence the rule that everything here follows:
//! *only a single-threaded process of its own, the shim, calls libcontainer*.
//!
//! ```text
//! agent (threads) ──ZygoteHandle──► zygote ──fork──► shim ──► init (process 1) ──► command
//!        └───────────client::Shim──► ctl.sock ────────┘
//! ```
//!
//! `main` calls [`dispatch`] before anything else: it runs the zygote and shim subcommands of
//! the same executable and returns only if the process is neither.
#![warn(missing_docs)]

mod allowance;
pub mod attach;
mod cgroup;
pub mod client;
mod cni;
mod control;
#[allow(unsafe_code)]
mod devices;
pub mod exec;
#[allow(unsafe_code)]
mod fds;
pub mod group;
mod idmap;
mod image;
#[allow(unsafe_code)]
mod init;
pub mod launch;
mod lock;
pub mod memory;
#[allow(unsafe_code)]
mod network;
pub mod orphans;
mod output;
#[allow(unsafe_code)]
pub mod quota;
mod rootfs;
pub mod run_dir;
mod seccomp;
mod shim;
mod spec;
mod stage;
mod state_dir;
mod supervise;
#[allow(unsafe_code)]
mod sys;
#[allow(unsafe_code)]
pub mod terminal;
pub mod times;
#[allow(unsafe_code)]
pub mod zygote;

use std::ffi::{OsStr, OsString};

pub use cgroup::Usage;
pub use client::{Observed, Phase, Shim, Status};
pub use group::Group;
pub use launch::{Exit, Launch};
pub use spec::{CAPABILITIES, MIN_MEMORY_BYTES, MIN_PIDS, check};
pub use state_dir::{StateDir, read_sealed, sealed};
pub use zygote::ZygoteHandle;

/// `argv[1]` of a shim started by hand: `<exe> shim --state-dir DIR`.
pub const SHIM_SUBCOMMAND: &str = "shim";

/// Runs `<exe> zygote` or `<exe> shim --state-dir DIR` if that is what the process was started
/// as, and then never returns. To be called first thing in `main`, before any thread.
pub fn dispatch() {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<Option<&str>> = args.iter().map(|arg| OsStr::to_str(arg)).collect();
    match words.as_slice() {
        [Some(zygote::SUBCOMMAND)] => zygote::main(),
        [Some(SHIM_SUBCOMMAND), Some("--state-dir"), _] => {
            sys::exit(shim_main(StateDir::new(args[2].clone())))
        }
        _ => {}
    }
}

/// Removes what is empty of the directory that all agents of a machine share, and that nobody else is about to use.
pub fn leave_run_dir() {
    run_dir::sweep(std::path::Path::new(group::PLACE));
    run_dir::sweep(std::path::Path::new(memory::PLACE));
    stage::leave();
}

/// A shim without a zygote, for debugging: this very process becomes it.
fn shim_main(state: StateDir) -> i32 {
    sys::close_from(3, &[]);
    match seccomp::Filters::compile() {
        Ok(filters) => shim::run(&state, &filters),
        Err(error) => {
            eprintln!("shim: {error}");
            1
        }
    }
}
