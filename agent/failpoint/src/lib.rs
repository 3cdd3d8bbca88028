//! Failpoints: places in the work of agent, shim and images that have a name, so that a test can
//! have the process die right there.
//!
//! ```text
//! COMMONAGE_FAILPOINTS=agent.ledger_renamed          dies as by `kill -9` when it gets there
//!                      agent.ledger_renamed@2        … the second time
//!                      shim.after_cgroup:stop        stands still, as by SIGSTOP
//!                      shim.after_cgroup:pause       goes on, but only after two seconds
//!                      a:stop,b@3                    several
//! ```
//!
//! Only in builds with debug assertions; in a release build [`reach`] is nothing, and the variable is not read.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::ffi::OsString;

/// The environment variable that says what happens where.
pub const VARIABLE: &str = "COMMONAGE_FAILPOINTS";

/// Every failpoint, in the order in which a task's life passes them.
pub const ALL: &[&str] = &[
    "image.layer_half_written",
    "image.after_unpack_before_commit",
    "image.after_commit_before_name",
    "agent.after_watch_before_ledger",
    "agent.ledger_tmp_written",
    "agent.ledger_renamed",
    "agent.after_ledger_before_shim",
    "shim.after_lock",
    "shim.before_cgroup",
    "shim.after_cgroup",
    "shim.after_create_before_start",
    "shim.after_start",
    "agent.after_shim_before_report",
    "agent.after_status_persist_before_send",
    "agent.after_send_before_ack",
    "shim.after_exit_before_report",
    "shim.after_report_before_cleanup",
    "shim.after_cgroup_removed",
    "agent.after_ack_before_trim",
    "agent.after_trim_of_entry",
];

/// The process is at this failpoint. `name` is one of [`ALL`].
#[inline]
pub fn reach(name: &'static str) {
    #[cfg(debug_assertions)]
    armed::reach(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

/// What a process that is started with an empty environment has to be given, so that failpoints work there.
#[must_use]
pub fn environment() -> Option<(&'static str, OsString)> {
    if !cfg!(debug_assertions) {
        return None;
    }
    std::env::var_os(VARIABLE).map(|value| (VARIABLE, value))
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::{ALL, VARIABLE};

    /// Longer than anything around a failpoint takes by itself.
    const PAUSE: Duration = Duration::from_secs(2);

    struct Armed {
        name: String,
        /// `None`: it goes on after a while.
        signal: Option<Signal>,
        /// At which arrival.
        turn: u32,
        arrived: AtomicU32,
    }

    static ARMED: LazyLock<Vec<Armed>> = LazyLock::new(|| {
        parse(&std::env::var(VARIABLE).unwrap_or_default())
            .unwrap_or_else(|error| panic!("{VARIABLE}: {error}"))
    });

    pub(super) fn reach(name: &'static str) {
        debug_assert!(ALL.contains(&name), "{name} is no failpoint");
        for armed in ARMED.iter().filter(|armed| armed.name == name) {
            if armed.arrived.fetch_add(1, Ordering::SeqCst) + 1 == armed.turn {
                eprintln!("failpoint {name}");
                let Some(signal) = armed.signal else {
                    std::thread::park_timeout(PAUSE);
                    continue;
                };
                // To itself, which cannot be refused.
                let _ = kill_process(getpid(), signal);
                // A stop takes its time to reach all threads, and this one must not go on meanwhile.
                loop {
                    std::thread::park();
                }
            }
        }
    }

    fn parse(text: &str) -> Result<Vec<Armed>, String> {
        text.split(',').filter(|one| !one.is_empty()).map(parse_one).collect()
    }

    fn parse_one(text: &str) -> Result<Armed, String> {
        let (rest, turn) = match text.split_once('@') {
            Some((rest, turn)) => (rest, turn.parse().map_err(|_| format!("{turn}: no number"))?),
            None => (text, 1),
        };
        let (name, signal) = match rest.split_once(':') {
            Some((name, "stop")) => (name, Some(Signal::STOP)),
            Some((name, "pause")) => (name, None),
            Some((_, action)) => {
                return Err(format!("{action}: no action; there are stop and pause"));
            }
            None => (rest, Some(Signal::KILL)),
        };
        if !ALL.contains(&name) {
            return Err(format!("{name}: no such failpoint; there are {}", ALL.join(", ")));
        }
        Ok(Armed { name: name.to_owned(), signal, turn, arrived: AtomicU32::new(0) })
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used)]
        use super::*;

        #[test]
        fn what_happens_where_is_read_from_one_line() {
            let armed =
                parse("shim.after_cgroup:stop,agent.ledger_renamed@2,shim.after_lock:pause")
                    .unwrap();
            let read: Vec<_> =
                armed.iter().map(|one| (one.name.as_str(), one.signal, one.turn)).collect();
            assert_eq!(
                read,
                [
                    ("shim.after_cgroup", Some(Signal::STOP), 1),
                    ("agent.ledger_renamed", Some(Signal::KILL), 2),
                    ("shim.after_lock", None, 1),
                ]
            );
            assert!(parse("").unwrap().is_empty());
            for wrong in ["nowhere", "shim.after_cgroup:sleep", "shim.after_cgroup@often"] {
                assert!(parse(wrong).is_err(), "{wrong}");
            }
        }
    }
}
