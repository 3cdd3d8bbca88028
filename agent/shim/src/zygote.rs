//! The small single-threaded process that forks shims, and the agent's handle on it.

use std::io;
use std::path::Path;

/// `argv[1]` of a zygote.
pub const SUBCOMMAND: &str = "zygote";

/// The agent's end. Any thread may use it; it is cheap to share in an `Arc`.
pub struct ZygoteHandle {}

/// Starts a zygote: this same executable again, as `<exe> zygote`. `main` must call
/// [`crate::dispatch`] first thing.
///
/// # Errors
/// The executable cannot be run.
pub fn start() -> io::Result<ZygoteHandle> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The same with another executable that calls [`crate::dispatch`] (tests whose own `main` does
/// not).
///
/// # Errors
/// The executable cannot be run.
pub fn start_program(_program: &Path) -> io::Result<ZygoteHandle> {
    Err(io::ErrorKind::Unsupported.into())
}

impl ZygoteHandle {
    /// Forks a shim for a prepared state directory and returns its process id. Blocks for about
    /// a millisecond; a zygote that died is replaced. The shim is no child of the caller and
    /// survives both it and the zygote. What the shim makes of it: [`crate::client::scan`].
    ///
    /// # Errors
    /// No shim could be forked.
    pub fn launch(&self, _state_dir: &Path) -> io::Result<i32> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The zygote's `main`.
pub fn main() -> ! {
    std::process::exit(64)
}
