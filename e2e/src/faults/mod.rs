//! What the fault tests break things with: etcd members and API servers as processes that can be
//! killed, paused and cut off, and a proxy that harms the bytes on their way.

pub mod field;
pub mod lan;
pub mod members;
pub mod proxy;
pub mod servers;

use std::net::TcpListener;
use std::time::Duration;

/// How long a fault test keeps its load up around the fault: `CMN_FAULT_SECONDS`, or enough to see
/// something.
pub fn load_time() -> Duration {
    let seconds = std::env::var("CMN_FAULT_SECONDS").ok().and_then(|text| text.parse().ok());
    seconds.map_or(Duration::from_millis(1_500), Duration::from_secs)
}

/// Whether the longer versions are asked for.
pub fn is_long() -> bool {
    std::env::var_os("CMN_FAULT_SECONDS").is_some()
}

/// A port that nobody listens on at this moment.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Sends a signal to a process of ours.
pub(crate) fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid fits"));
    nix::sys::signal::kill(pid, signal).expect("signal a process of ours");
}
