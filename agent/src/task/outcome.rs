//! What the end of a container means for its Task: state, reason, words.
//!
//! The order of the questions matters: a record of an exit beats any guess, an end that we asked
//! for is no failure of the command, and running out of memory explains a signal.

use commonage_schemas::reasons::task as reasons;
use commonage_schemas::{TaskState, TaskStatus};
use commonage_shim::launch::{Exit, ExitError, FailureReason};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nix::sys::signal::Signal;

use crate::ledger::{KillCause, KillOrder};

/// Exit code of a command that does not exist, as shells and container engines have it.
const EXIT_CODE_NOT_FOUND: i32 = 127;

/// How a container stopped existing.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Its shim recorded it.
    Recorded(Exit),
    /// Its shim died without a word, and what was left of it has been killed.
    ShimLost { seen_at: Timestamp },
    /// The machine was started anew meanwhile.
    Rebooted { seen_at: Timestamp },
    /// No shim could be had, or the ledger could not be written: it never ran. For programs and in words.
    NeverStarted { seen_at: Timestamp, reason: &'static str, message: String },
}

impl End {
    /// When it ended, or when we learned of it.
    pub fn at(&self) -> Timestamp {
        match self {
            End::Recorded(exit) => exit.finished_at,
            End::ShimLost { seen_at }
            | End::Rebooted { seen_at }
            | End::NeverStarted { seen_at, .. } => *seen_at,
        }
    }
}

/// The terminal status that an end amounts to, given the order to end it, if there was one.
pub fn of(end: &End, kill: Option<&KillOrder>) -> TaskStatus {
    let mut status = match end {
        End::Recorded(exit) => of_exit(exit, kill),
        End::ShimLost { .. } => failed(
            reasons::SHIM_LOST,
            "the process that watched the container died; the container was killed, and how it \
             would have ended is not known",
        ),
        End::Rebooted { .. } => failed(
            reasons::AGENT_REBOOTED,
            "the agent's machine was started anew while the task ran",
        ),
        End::NeverStarted { reason, message, .. } => failed(reason, message),
    };
    // A container that we had told to end and that is gone is what was wanted, however it went.
    if !matches!(end, End::Recorded(_))
        && let Some(kill) = kill
    {
        status = killed(kill);
    }
    status.finished_at = Some(Time(end.at()));
    status
}

fn of_exit(exit: &Exit, kill: Option<&KillOrder>) -> TaskStatus {
    // An exit before the order was the command's own doing; the order came too late.
    let kill = kill.filter(|kill| exit.finished_at >= kill.ordered_at);
    let mut status = match (kill, &exit.error) {
        (Some(kill), _) => killed(kill),
        (None, Some(error)) => of_error(error),
        (None, None) if exit.oom_killed => {
            failed(reasons::OOM_KILLED, "the task wanted more memory than its limit")
        }
        (None, None) => match (exit.exit_code, exit.signal) {
            (Some(0), _) => TaskStatus { state: TaskState::Finished, ..TaskStatus::default() },
            (_, Some(signal)) => failed(
                reasons::KILLED_BY_SIGNAL,
                &format!("the command was ended by signal {}", signal_name(signal)),
            ),
            (code, None) => failed(
                reasons::EXIT_CODE,
                &format!("the command ended with exit code {}", code.unwrap_or(-1)),
            ),
        },
    };
    status.exit_code = status.exit_code.or(exit.exit_code);
    status.signal = exit.signal;
    status.started_at = exit.started_at.map(Time);
    status
}

/// What a task becomes that never ran: a spec that can't be run is refused, a command that can't be
/// found has failed as it would in a shell.
fn of_error(error: &ExitError) -> TaskStatus {
    let state = match error.reason {
        FailureReason::InvalidLaunch | FailureReason::LimitsTooSmall => TaskState::Error,
        _ => TaskState::Failed,
    };
    TaskStatus {
        exit_code: (error.reason == FailureReason::CommandNotFound).then_some(EXIT_CODE_NOT_FOUND),
        ..with(state, error.reason.as_str(), &error.message)
    }
}

/// What a task becomes that ended because of our order.
fn killed(kill: &KillOrder) -> TaskStatus {
    match &kill.cause {
        KillCause::HealthCheckFailed(how) => failed(reasons::HEALTH_CHECK_FAILED, how),
        KillCause::DiskLimit(how) => failed(reasons::DISK_LIMIT, how),
        KillCause::MaxCompletionTime => failed(
            reasons::MAX_COMPLETION_TIME,
            "the task ran for longer than spec.maxCompletionSeconds",
        ),
        KillCause::Ordered { reason, message } => ended_by_order(reason, message),
        KillCause::GroupEnded(why) => ended_by_order(reasons::GROUP_ENDED, why),
        KillCause::AgentShutdown => {
            ended_by_order(reasons::AGENT_SHUTDOWN, "the agent was stopped together with its tasks")
        }
        KillCause::Deleted | KillCause::Abandoned => {
            ended_by_order(reasons::DELETED, "the Task object was deleted")
        }
    }
}

/// Reason and words for a task that is still to end because of `kill`.
pub fn killing(kill: &KillOrder) -> (&str, String) {
    let (reason, why) = match &kill.cause {
        KillCause::HealthCheckFailed(how) => (reasons::HEALTH_CHECK_FAILED, how.as_str()),
        KillCause::DiskLimit(how) => (reasons::DISK_LIMIT, how.as_str()),
        KillCause::MaxCompletionTime => {
            (reasons::MAX_COMPLETION_TIME, "it ran for longer than spec.maxCompletionSeconds")
        }
        KillCause::Ordered { reason, message } => (reason.as_str(), message.as_str()),
        KillCause::AgentShutdown => (reasons::AGENT_SHUTDOWN, "the agent is being stopped"),
        KillCause::GroupEnded(why) => (reasons::GROUP_ENDED, why.as_str()),
        KillCause::Deleted | KillCause::Abandoned => {
            (reasons::DELETED, "the Task object is being deleted")
        }
    };
    let signal = signal_name(kill.signal);
    let grace = kill.grace_seconds;
    (reason, format!("{why}; sent {signal}, KILL follows after {grace} s"))
}

/// The status of a task that was to end before it ever ran.
pub fn never_ran(reason: &str, message: &str, now: Timestamp) -> TaskStatus {
    TaskStatus { finished_at: Some(Time(now)), ..ended_by_order(reason, message) }
}

/// The status of a task that this agent refuses.
pub fn refused(reason: &str, message: &str, now: Timestamp) -> TaskStatus {
    TaskStatus { finished_at: Some(Time(now)), ..with(TaskState::Error, reason, message) }
}

/// The status of a task that what it needs can't be got ready for.
pub fn not_prepared(reason: &str, message: &str, now: Timestamp) -> TaskStatus {
    TaskStatus { finished_at: Some(Time(now)), ..failed(reason, message) }
}

fn failed(reason: &str, message: &str) -> TaskStatus {
    with(TaskState::Failed, reason, message)
}

fn ended_by_order(reason: &str, message: &str) -> TaskStatus {
    with(TaskState::Killed, reason, message)
}

fn with(state: TaskState, reason: &str, message: &str) -> TaskStatus {
    TaskStatus {
        state,
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..TaskStatus::default()
    }
}

/// `9 (KILL)`, or only the number of a real-time signal.
fn signal_name(signal: i32) -> String {
    match Signal::try_from(signal) {
        Ok(known) => format!("{signal} ({})", known.as_str().trim_start_matches("SIG")),
        Err(_) => signal.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn exit(code: Option<i32>, signal: Option<i32>) -> Exit {
        Exit {
            exit_code: code,
            signal,
            oom_killed: false,
            oom_kills: 0,
            started_at: Some(at(0)),
            finished_at: at(10),
            error: None,
            log_bytes_dropped: 0,
            log_bytes_rotated_away: 0,
        }
    }

    fn order(cause: KillCause, second: i64) -> KillOrder {
        KillOrder { cause, ordered_at: at(second), signal: 15, grace_seconds: 30 }
    }

    fn said(status: &TaskStatus) -> String {
        let reason = status.reason.as_deref().unwrap_or("-");
        let code = status.exit_code.map_or("-".to_owned(), |c| c.to_string());
        let signal = status.signal.map_or("-".to_owned(), |s| s.to_string());
        format!("{} {reason} {code} {signal}", status.state)
    }

    #[test]
    fn every_end_has_one_meaning() {
        let oom = Exit { oom_killed: true, ..exit(None, Some(9)) };
        let absent = Exit {
            error: Some(ExitError {
                reason: FailureReason::CommandNotFound,
                message: "nosuch: not found".to_owned(),
            }),
            started_at: None,
            ..exit(None, None)
        };
        let tiny = Exit {
            error: Some(ExitError {
                reason: FailureReason::LimitsTooSmall,
                message: "memory limit of 1 byte".to_owned(),
            }),
            ..absent.clone()
        };
        let nameless = Exit {
            error: Some(ExitError {
                reason: FailureReason::InvalidLaunch,
                message: "command: must name a program".to_owned(),
            }),
            ..absent.clone()
        };
        let deleted = order(KillCause::Deleted, 5);
        let late = order(KillCause::Deleted, 11);
        let unhealthy = order(KillCause::HealthCheckFailed("GET / got 500".to_owned()), 5);
        let slow = order(KillCause::MaxCompletionTime, 5);
        let shutdown = order(KillCause::AgentShutdown, 5);
        let recorded = |exit: &Exit| End::Recorded(exit.clone());
        let lost = End::ShimLost { seen_at: at(20) };
        let table: Vec<(End, Option<&KillOrder>, &str)> = vec![
            (recorded(&exit(Some(0), None)), None, "Finished - 0 -"),
            (recorded(&exit(Some(3), None)), None, "Failed ExitCode 3 -"),
            (recorded(&exit(None, Some(11))), None, "Failed KilledBySignal - 11"),
            (recorded(&oom), None, "Failed OomKilled - 9"),
            (recorded(&absent), None, "Failed CommandNotFound 127 -"),
            (recorded(&tiny), None, "Error LimitsTooSmall - -"),
            (recorded(&nameless), None, "Error InvalidLaunch - -"),
            (recorded(&exit(None, Some(15))), Some(&deleted), "Killed Deleted - 15"),
            (recorded(&exit(Some(0), None)), Some(&deleted), "Killed Deleted 0 -"),
            (recorded(&exit(Some(0), None)), Some(&late), "Finished - 0 -"),
            (recorded(&exit(None, Some(9))), Some(&unhealthy), "Failed HealthCheckFailed - 9"),
            (recorded(&exit(None, Some(9))), Some(&slow), "Failed MaxCompletionTimeExceeded - 9"),
            (recorded(&exit(None, Some(15))), Some(&shutdown), "Killed AgentShutdown - 15"),
            (lost.clone(), None, "Failed ShimLost - -"),
            (lost, Some(&deleted), "Killed Deleted - -"),
            (End::Rebooted { seen_at: at(20) }, None, "Failed AgentRebooted - -"),
        ];
        for (end, kill, want) in table {
            let status = of(&end, kill);
            assert_eq!(said(&status), want, "{end:?} {kill:?}");
            assert_eq!(status.finished_at, Some(Time(end.at())));
        }
    }

    #[test]
    fn signals_have_their_names() {
        assert_eq!(signal_name(9), "9 (KILL)");
        assert_eq!(signal_name(40), "40");
    }
}
