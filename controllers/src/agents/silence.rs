//! How long agents have been silent, and what that means.
//!
//! Renewals come by a watch, one after the other; nobody is asked for anything while an agent renews. Before
//! one is said to be silent its Lease is read once more: the watch may be behind.
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
    /// It was alive when it was last looked at: another renewal changes nothing.
    alive: bool,
}

impl Heard {
    /// Seen for the first time: the clocks are believed.
    fn first(renewed: Option<Timestamp>, since: Timestamp, now: Timestamp) -> Heard {
        let before = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        Heard { renewed, at: Instant::now(), before, alive: false }
    }

    fn hear(&mut self, renewed: Option<Timestamp>) {
        if self.renewed != renewed {
            *self = Heard { renewed, at: Instant::now(), before: Duration::ZERO, ..*self };
        }
    }

    fn silent_for(&self) -> Duration {
        self.before + self.at.elapsed()
    }
}

fn renewed(lease: &Lease) -> Option<Timestamp> {
    lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0)
}

impl Silences {
    /// Takes in what the watch shows. Whether its agent is to be looked at: one that is known to be alive
    /// is not.
    pub(super) fn hear(&self, lease: &Lease, now: Timestamp) -> bool {
        let renewed = renewed(lease);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(lease.metadata.name.as_deref().unwrap_or_default()) {
            Some(heard) => {
                heard.hear(renewed);
                !heard.alive
            }
            None => {
                let heard = Heard::first(renewed, renewed.unwrap_or(now), now);
                all.insert(lease.name_any(), heard);
                true
            }
        }
    }

    /// How long an agent has been silent, by what the watch has shown.
    pub(super) fn of(&self, agent: &Agent, now: Timestamp) -> Duration {
        self.with(agent, now, |_| {})
    }

    /// As [`Silences::of`], by its Lease as it is now; `None`: it has none.
    pub(super) fn confirmed(
        &self,
        agent: &Agent,
        lease: Option<&Lease>,
        now: Timestamp,
    ) -> Duration {
        self.with(agent, now, |heard| heard.hear(lease.and_then(renewed)))
    }

    /// All agents of which anything was seen.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// There is something of this agent. If it was never heard, its silence begins now.
    pub(super) fn expect(&self, name: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Timestamp::now();
        all.entry(name.to_owned()).or_insert_with(|| Heard::first(None, now, now));
    }

    /// How long an agent has been silent that has no object, by what the watch has shown and by its Lease, if given.
    pub(super) fn of_name(&self, name: &str, lease: Option<&Lease>) -> Duration {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(heard) = all.get_mut(name) else { return Duration::ZERO };
        if let Some(lease) = lease {
            heard.hear(renewed(lease));
        }
        // Whatever it was, it is to be looked at when it has an object again.
        heard.alive = false;
        heard.silent_for()
    }

    /// Nothing is left of this agent.
    pub(super) fn forget(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Notes how the agent was found.
    pub(super) fn judged(&self, agent: &Agent, liveness: Liveness, now: Timestamp) {
        self.with(agent, now, |heard| heard.alive = liveness == Liveness::Alive);
    }

    fn with(&self, agent: &Agent, now: Timestamp, act: impl FnOnce(&mut Heard)) -> Duration {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let made = agent.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
        let heard = all.entry(agent.name_any()).or_insert_with(|| Heard::first(None, made, now));
        act(heard);
        heard.silent_for()
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

    fn lease_renewed(second: i64) -> Lease {
        let renew_time = Some(MicroTime(at(second)));
        let spec = Some(LeaseSpec { renew_time, ..LeaseSpec::default() });
        let mut lease = Lease { spec, ..Lease::default() };
        lease.metadata.name = Some("a".to_owned());
        lease
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
        let silent = |lease: &Lease, second| {
            silences.hear(lease, at(second));
            silences.of(&agent, at(second)).as_secs()
        };
        // Seen for the first time, an hour behind: silent for an hour, as far as we know.
        assert_eq!(silent(&lease_renewed(1_000), 4_600), 3_600);
        assert_eq!(silent(&lease_renewed(1_000), 4_600), 3_600);
        // It renews, and is heard, whatever its clock says.
        assert_eq!(silent(&lease_renewed(1_010), 4_610), 0);
        assert_eq!(silent(&lease_renewed(1_010), 9_999), 0);
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_make_an_agent_live_for_ever() {
        let agent = Agent::new("a", AgentSpec::default());
        let silences = Silences::default();
        silences.hear(&lease_renewed(9_000), at(1_000));
        assert_eq!(silences.of(&agent, at(1_000)).as_secs(), 0);
        let seen = silences.0.lock().unwrap()["a"];
        assert_eq!(seen.before, Duration::ZERO);
        assert!(seen.at.elapsed() < Duration::from_secs(3600));
    }

    #[test]
    fn an_agent_is_looked_at_until_it_is_known_to_be_alive() {
        let agent = Agent::new("a", AgentSpec::default());
        let silences = Silences::default();
        assert!(silences.hear(&lease_renewed(1_000), at(1_000)), "nobody knows it yet");
        assert!(silences.hear(&lease_renewed(1_010), at(1_010)), "nobody has looked at it yet");
        silences.judged(&agent, Liveness::Alive, at(1_010));
        assert!(!silences.hear(&lease_renewed(1_020), at(1_020)));
        silences.judged(&agent, Liveness::Unreachable, at(1_070));
        assert!(silences.hear(&lease_renewed(1_080), at(1_080)), "it is back");
    }

    #[test]
    fn what_the_watch_has_not_shown_counts_when_it_is_read() {
        let agent = Agent::new("a", AgentSpec::default());
        let silences = Silences::default();
        silences.hear(&lease_renewed(1_000), at(4_600));
        assert_eq!(silences.of(&agent, at(4_600)).as_secs(), 3_600);
        assert_eq!(
            silences.confirmed(&agent, Some(&lease_renewed(1_000)), at(4_600)).as_secs(),
            3_600
        );
        assert_eq!(silences.confirmed(&agent, Some(&lease_renewed(1_010)), at(4_600)).as_secs(), 0);
        assert_eq!(silences.of(&agent, at(4_600)).as_secs(), 0);
    }
}
