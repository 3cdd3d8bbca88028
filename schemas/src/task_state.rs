//! The task state machine: Mesos' states in Kubernetes' spelling, and the one table of legal
//! transitions that the server, the controllers and the agents all use.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a task is in its life.
///
/// ```text
/// Pending → Staging → Starting → Running → Killing → Finished | Failed | Killed
/// any that is not terminal → Unreachable ⇄ what it was, or → Lost | Gone
/// before it ran: Error (the agent refuses the spec), Dropped (it never reached the agent)
/// ```
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum TaskState {
    /// Waits for resources.
    #[default]
    Pending,
    /// Has resources; its agent has not begun yet.
    Staging,
    /// Its agent prepares the container.
    Starting,
    /// Its command runs.
    Running,
    /// It was told to end.
    Killing,
    /// Its agent does not answer; the task may well be running.
    Unreachable,
    /// Ended by itself, with exit code 0.
    Finished,
    /// Ended by itself, otherwise.
    Failed,
    /// Ended because somebody wanted it to.
    Killed,
    /// The agent refused it; it never ran.
    Error,
    /// It never reached its agent.
    Dropped,
    /// Its agent is gone; nobody knows how it ended.
    Lost,
    /// Its agent was declared gone by the operator.
    Gone,
}

impl TaskState {
    pub const ALL: [TaskState; 13] = [
        TaskState::Pending,
        TaskState::Staging,
        TaskState::Starting,
        TaskState::Running,
        TaskState::Killing,
        TaskState::Unreachable,
        TaskState::Finished,
        TaskState::Failed,
        TaskState::Killed,
        TaskState::Error,
        TaskState::Dropped,
        TaskState::Lost,
        TaskState::Gone,
    ];

    /// Final: the state never changes again, and the task holds no resources.
    pub const fn is_terminal(self) -> bool {
        use TaskState::*;
        matches!(self, Finished | Failed | Killed | Error | Dropped | Lost | Gone)
    }

    /// The table. Staying in a state is always legal (and no transition); an agent may report late
    /// and so skip states that have already passed, but never go back.
    pub const fn can_become(self, next: TaskState) -> bool {
        use TaskState::*;
        match (self, next) {
            (Pending, Staging | Killed | Error | Dropped | Failed) => true,
            (Staging, Starting | Running | Killing) => true,
            (Staging, Finished | Failed | Killed | Error | Dropped) => true,
            (Starting, Running | Killing | Finished | Failed | Killed | Error) => true,
            (Running, Killing | Finished | Failed | Killed) => true,
            (Killing, Finished | Failed | Killed) => true,
            // The agent fell silent; what it reports on its return is the truth.
            (Staging | Starting | Running | Killing, Unreachable | Lost | Gone) => true,
            (Unreachable, Staging | Starting | Running | Killing) => true,
            (Unreachable, Finished | Failed | Killed | Error | Dropped | Lost | Gone) => true,
            _ => self as u8 == next as u8,
        }
    }

    pub const fn name(self) -> &'static str {
        use TaskState::*;
        match self {
            Pending => "Pending",
            Staging => "Staging",
            Starting => "Starting",
            Running => "Running",
            Killing => "Killing",
            Unreachable => "Unreachable",
            Finished => "Finished",
            Failed => "Failed",
            Killed => "Killed",
            Error => "Error",
            Dropped => "Dropped",
            Lost => "Lost",
            Gone => "Gone",
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::TaskState::{self, *};

    #[test]
    fn terminal_states_are_final() {
        for from in TaskState::ALL.into_iter().filter(|s| s.is_terminal()) {
            for to in TaskState::ALL {
                assert_eq!(from.can_become(to), from == to, "{from} → {to}");
            }
        }
    }

    #[test]
    fn a_task_that_left_pending_never_waits_again() {
        for from in TaskState::ALL.into_iter().filter(|s| *s != Pending) {
            assert!(!from.can_become(Pending), "{from} → Pending");
        }
    }

    #[test]
    fn no_live_state_is_a_dead_end() {
        for from in TaskState::ALL.into_iter().filter(|s| !s.is_terminal()) {
            assert!(
                TaskState::ALL.into_iter().any(|to| to.is_terminal() && from.can_become(to)),
                "{from} can never end"
            );
        }
    }

    #[test]
    fn the_table_says_what_the_picture_says() {
        let legal = [
            (Pending, Staging),
            (Staging, Starting),
            (Starting, Running),
            (Running, Killing),
            (Killing, Killed),
            (Running, Unreachable),
            (Unreachable, Running),
            (Unreachable, Lost),
            (Staging, Dropped),
            (Starting, Error),
            (Running, Finished),
        ];
        let illegal = [
            (Running, Starting),
            (Running, Error),
            (Killing, Running),
            (Finished, Running),
            (Pending, Running),
            (Pending, Unreachable),
        ];
        for (from, to) in legal {
            assert!(from.can_become(to), "{from} → {to}");
        }
        for (from, to) in illegal {
            assert!(!from.can_become(to), "{from} → {to}");
        }
    }

    #[test]
    fn names_are_what_json_says() {
        for state in TaskState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
    }
}
