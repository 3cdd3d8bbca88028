//! How long agents have been silent, and what that means.
//!
//! Measured by our own clock from when a renewal was seen, as client-go does with leases: an agent's clock may be
//! an hour ahead or behind.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use commonage_schemas::Agent;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;

/// How long silence is put up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// An agent that has not renewed its lease for so long is unreachable. Kubernetes: 40 s, four renewals
    /// missed.
    pub unreachable_after: Duration,
    /// The tasks of an agent that has been silent for so long are lost. Kubernetes and Mesos: five and ten
    /// minutes.
    pub lost_after: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            unreachable_after: Duration::from_secs(40),
            lost_after: Duration::from_secs(600),
        }
    }
}

/// What an agent's silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Liveness {
    Alive,
    Unreachable,
    Lost,
}

impl Patience {
    pub(super) fn judge(&self, silent: Duration) -> Liveness {
        if silent <= self.unreachable_after {
            Liveness::Alive
        } else if silent <= self.lost_after {
            Liveness::Unreachable
        } else {
            Liveness::Lost
        }
    }
}

/// The last renewal of each agent that was seen.
#[derive(Debug, Default)]
pub(super) struct Silences(Mutex<HashMap<String, Heard>>);

#[derive(Clone, Copy, Debug)]
struct Heard {
    /// What the lease says, by the agent's clock.
    renewed: Option<Timestamp>,
    /// When we saw that.
    at: Instant,
    /// How long it had been silent by then: nothing, unless it was the first that we saw of it.
    before: Duration,
}

impl Silences {
    /// How long an agent has been silent. Before a renewal was seen by this process, the clocks are believed.
    pub(super) fn of(&self, agent: &Agent, lease: Option<&Lease>, now: Timestamp) -> Duration {
        let renewed = lease.and_then(|l| l.spec.as_ref()?.renew_time.as_ref()).map(|time| time.0);
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = agent.name_any();
        let seen = match heard.get(&name) {
            Some(seen) if seen.renewed == renewed => *seen,
            Some(_) => Heard { renewed, at: Instant::now(), before: Duration::ZERO },
            None => {
                let made = agent.metadata.creation_timestamp.as_ref().map(|time| time.0);
                let since = renewed.or(made).unwrap_or(now);
                let before = Duration::try_from(now.duration_since(since)).unwrap_or_default();
                Heard { renewed, at: Instant::now(), before }
            }
        };
        heard.insert(name, seen);
        seen.before + seen.at.elapsed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use commonage_schemas::AgentSpec;
    use k8s_openapi::{
        api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime,
    };

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn renewed(second: i64) -> Lease {
        let renew_time = Some(MicroTime(at(second)));
        Lease { spec: Some(LeaseSpec { renew_time, ..LeaseSpec::default() }), ..Lease::default() }
    }

    #[test]
    fn silence_is_first_unreachable_then_lost() {
        let judge = |seconds| Patience::default().judge(Duration::from_secs(seconds));
        assert_eq!(judge(40), Liveness::Alive);
        assert_eq!(judge(41), Liveness::Unreachable);
        assert_eq!(judge(600), Liveness::Unreachable);
        assert_eq!(judge(601), Liveness::Lost);
    }

    #[test]
    fn a_clock_that_is_wrong_is_believed_until_the_agent_is_heard() {
        let agent = Agent::new("a", AgentSpec::default());
        let silences = Silences::default();
        let silent = |lease: &Lease, second| silences.of(&agent, Some(lease), at(second)).as_secs();
        // Seen for the first time, an hour behind: silent for an hour, as far as we know.
        assert_eq!(silent(&renewed(1_000), 4_600), 3_600);
        assert_eq!(silent(&renewed(1_000), 4_600), 3_600);
        // It renews, and is heard, whatever its clock says.
        assert_eq!(silent(&renewed(1_010), 4_610), 0);
        assert_eq!(silent(&renewed(1_010), 9_999), 0);
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_make_an_agent_live_for_ever() {
        let agent = Agent::new("a", AgentSpec::default());
        let silences = Silences::default();
        assert_eq!(silences.of(&agent, Some(&renewed(9_000)), at(1_000)).as_secs(), 0);
        let seen = silences.0.lock().unwrap()["a"];
        assert_eq!(seen.before, Duration::ZERO);
        assert!(seen.at.elapsed() < Duration::from_secs(3600));
    }
}
