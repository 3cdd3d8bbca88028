//! Why a command was not started in a task that uses all it may: which of its limits that is for.

use std::time::Duration;

use commonage_shim::Usage;
use commonage_shim::client;
use commonage_shim::exec::{START_TIME_MAX, StartFailure};
use commonage_shim::launch::Limits;

use super::process::NotStarted;
use crate::runtime::Shims;

/// The kernel's figures are asked for; a machine that does not even answer that in this time is its own explanation.
const ASK_TIME_MAX: Duration = Duration::from_secs(2);

/// A task, by what can be found out about its limits.
#[derive(Clone)]
pub(super) struct Limited {
    pub(super) shims: Shims,
    pub(super) uid: String,
}

impl Limited {
    /// For a command that init could not start.
    pub(super) async fn refused(&self, failure: StartFailure, command: &[String]) -> NotStarted {
        let why = failure.explain(command);
        match failure.exit_code() {
            Some(code) => NotStarted::Program(why, code),
            None if failure.lacks_room() => {
                let limit = self.ask().await.and_then(|(limits, usage)| reached(&limits, &usage));
                NotStarted::Other(limit.map_or(why.clone(), |limit| format!("{why}: {limit}")))
            }
            None => NotStarted::Other(why),
        }
    }

    /// For a command that did not start in time.
    pub(super) async fn too_slow(&self) -> NotStarted {
        let limits = self.ask().await.map(|(limits, usage)| described(&limits, &usage));
        NotStarted::TooSlow(format!(
            "the command was not started within {} s, and is given up: it would run within the task's own limits{}",
            START_TIME_MAX.as_secs(),
            limits.unwrap_or_default()
        ))
    }

    async fn ask(&self) -> Option<(Limits, Usage)> {
        let (shims, uid) = (self.shims.clone(), self.uid.clone());
        let ask = tokio::task::spawn_blocking(move || {
            let launch = shims.launch(&uid).ok()?;
            let usage = client::usage(&launch).ok()?;
            Some((launch.limits, usage))
        });
        tokio::time::timeout(ASK_TIME_MAX, ask).await.ok()?.ok()?
    }
}

/// The limit that leaves no room, if it is seen to.
fn reached(limits: &Limits, usage: &Usage) -> Option<String> {
    if usage.pids >= limits.pids {
        return Some(format!("it is at its limit of {} processes", limits.pids));
    }
    let bytes = limits.memory_bytes.filter(|most| usage.working_set_bytes >= most / 100 * 95)?;
    Some(format!("it is at its limit of {} of memory", mebibytes(bytes)))
}

/// Whatever is limited and how much of that is used.
fn described(limits: &Limits, usage: &Usage) -> String {
    let cpu = match (limits.cpu_quota_millis, limits.cpu_millis) {
        (Some(quota), _) => format!(", at most {quota}m of cpu"),
        (None, Some(share)) => format!(", a share of {share}m of cpu"),
        (None, None) => String::new(),
    };
    format!("{cpu} among {} processes (of {})", usage.pids, limits.pids)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_is_reached_is_named() {
        let limits = Limits {
            pids: 10,
            memory_bytes: Some(100 << 20),
            cpu_quota_millis: Some(200),
            ..Limits::default()
        };
        let used = |pids, working_set_bytes| Usage { pids, working_set_bytes, ..Usage::default() };
        let at_pids = reached(&limits, &used(10, 0));
        assert_eq!(at_pids.as_deref(), Some("it is at its limit of 10 processes"));
        let at_memory = reached(&limits, &used(9, 99 << 20));
        assert_eq!(at_memory.as_deref(), Some("it is at its limit of 100 MiB of memory"));
        assert_eq!(reached(&limits, &used(9, 50 << 20)), None);
        assert_eq!(
            described(&limits, &used(9, 0)),
            ", at most 200m of cpu among 9 processes (of 10)"
        );
    }
}
