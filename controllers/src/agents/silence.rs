//! How long agents have been silent, and what that means.
//!
//! Renewals come by a watch, one after the other; nobody is asked for anything while an agent renews. Before
//! one is said to be silent its Lease is read once more: the watch may be behind.
//!
//! Measured by our own clock from when a renewal was seen, as client-go does with leases: an agent's clock may be
//! an hour ahead or behind. What was before we began to look says nothing: it may be the API server or the store that was
//! away, so that nobody could renew, nor lead. As Kubernetes' node controller does, a leader therefore begins every
//! agent's silence when it sees the agent for the first time; but what those before it have said of an agent stands
//! until that agent renews.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
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

    /// How long an agent had been silent at least when this was said of it.
    pub(super) fn said(&self, liveness: Liveness) -> Duration {
        match liveness {
            Liveness::Alive => Duration::ZERO,
            Liveness::Unreachable => self.unreachable_after,
            Liveness::Lost => self.lost_after,
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
    /// How long it had been silent by then: nothing, unless we have not seen it renew and it was said to be
    /// silent when we first looked at it. `None`: we have not looked at it.
    before: Option<Duration>,
    /// It was alive when it was last looked at: another renewal changes nothing.
    alive: bool,
}

impl Heard {
    fn first(renewed: Option<Timestamp>) -> Heard {
        Heard { renewed, at: Instant::now(), before: None, alive: false }
    }

    fn hear(&mut self, renewed: Option<Timestamp>) {
        if self.renewed != renewed {
            let before = Some(Duration::ZERO);
            *self = Heard { renewed, at: Instant::now(), before, ..*self };
        }
    }

    /// `said`: how long at least it had been silent, by what others have said when we look for the first time.
    fn silent_for(&mut self, said: Duration) -> Duration {
        *self.before.get_or_insert(said) + self.at.elapsed()
    }
}

fn renewed(lease: &Lease) -> Option<Timestamp> {
    lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0)
}

impl Silences {
    /// Takes in what the watch shows. Whether its agent is to be looked at: one that is known to be alive
    /// is not.
    pub(super) fn hear(&self, lease: &Lease) -> bool {
        let renewed = renewed(lease);
        let mut all = self.all();
        match all.get_mut(lease.metadata.name.as_deref().unwrap_or_default()) {
            Some(heard) => {
                heard.hear(renewed);
                !heard.alive
            }
            None => {
                all.insert(lease.name_any(), Heard::first(renewed));
                true
            }
        }
    }

    /// How long an agent has been silent, by what the watch has shown. `said`: how long at least when it was last
    /// said to be silent, see [`Patience::said`].
    pub(super) fn of(&self, agent: &Agent, said: Duration) -> Duration {
        self.with(agent, |heard| heard.silent_for(said))
    }

    /// As [`Silences::of`], by its Lease as it is now; `None`: it has none.
    pub(super) fn confirmed(
        &self,
        agent: &Agent,
        lease: Option<&Lease>,
        said: Duration,
    ) -> Duration {
        self.with(agent, |heard| {
            heard.hear(lease.and_then(renewed));
            heard.silent_for(said)
        })
    }

    /// All agents of which anything was seen.
    pub(super) fn names(&self) -> Vec<String> {
        self.all().keys().cloned().collect()
    }

    /// There is something of this agent. If it was never heard, its silence begins now.
    pub(super) fn expect(&self, name: &str) {
        self.all().entry(name.to_owned()).or_insert_with(|| Heard::first(None));
    }

    /// How long an agent has been silent that has no object, by what the watch has shown and by its Lease, if given.
    pub(super) fn of_name(&self, name: &str, lease: Option<&Lease>) -> Duration {
        let mut all = self.all();
        let Some(heard) = all.get_mut(name) else { return Duration::ZERO };
        if let Some(lease) = lease {
            heard.hear(renewed(lease));
        }
        // Whatever it was, it is to be looked at when it has an object again.
        heard.alive = false;
        heard.silent_for(Duration::ZERO)
    }

    /// Nothing is left of this agent.
    pub(super) fn forget(&self, name: &str) {
        self.all().remove(name);
    }

    /// Notes how the agent was found.
    pub(super) fn judged(&self, agent: &Agent, liveness: Liveness) {
        self.with(agent, |heard| heard.alive = liveness == Liveness::Alive);
    }

    fn with<T>(&self, agent: &Agent, act: impl FnOnce(&mut Heard) -> T) -> T {
        act(self.all().entry(agent.name_any()).or_insert_with(|| Heard::first(None)))
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Heard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn lease_renewed(second: i64) -> Lease {
        let renew_time = Some(MicroTime(Timestamp::from_second(second).unwrap()));
        let spec = Some(LeaseSpec { renew_time, ..LeaseSpec::default() });
        let mut lease = Lease { spec, ..Lease::default() };
        lease.metadata.name = Some("a".to_owned());
        lease
    }

    fn agent() -> Agent {
        Agent::new("a", AgentSpec::default())
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn silence_is_first_unreachable_then_lost() {
        let judge = |seconds| Patience::default().judge(Duration::from_secs(seconds));
        assert_eq!(judge(40), Liveness::Alive);
        assert_eq!(judge(41), Liveness::Unreachable);
        assert_eq!(judge(600), Liveness::Unreachable);
        assert_eq!(judge(601), Liveness::Lost);
    }

    #[test]
    fn what_was_before_we_looked_is_nobodys_silence_whatever_the_clocks_say() {
        for renewed in [1_000, 9_000_000_000] {
            let silences = Silences::default();
            assert!(silences.hear(&lease_renewed(renewed)));
            assert!(silences.of(&agent(), Duration::ZERO) < HOUR);
            let lease = lease_renewed(renewed);
            assert!(silences.confirmed(&agent(), Some(&lease), Duration::ZERO) < HOUR);
        }
        assert!(Silences::default().of(&agent(), Duration::ZERO) < HOUR);
    }

    #[test]
    fn what_was_said_of_an_agent_stands_until_it_renews() {
        for said in [Liveness::Unreachable, Liveness::Lost] {
            let silences = Silences::default();
            let patience = Patience::default();
            let judge = || {
                // Time goes on between two looks, by a nanosecond at least.
                let began = Instant::now();
                while began.elapsed().is_zero() {}
                patience.judge(silences.of(&agent(), patience.said(said)))
            };
            silences.hear(&lease_renewed(1_000));
            assert_eq!(judge(), said);
            silences.hear(&lease_renewed(1_000));
            assert_eq!(judge(), said);
            silences.hear(&lease_renewed(1_010));
            assert_eq!(judge(), Liveness::Alive);
        }
    }

    #[test]
    fn what_we_have_said_ourselves_does_not_add_to_the_silence() {
        let silences = Silences::default();
        silences.hear(&lease_renewed(1_000));
        assert!(silences.of(&agent(), Duration::ZERO) < HOUR);
        assert!(silences.of(&agent(), HOUR) < HOUR);
    }

    #[test]
    fn an_agent_is_looked_at_until_it_is_known_to_be_alive() {
        let silences = Silences::default();
        assert!(silences.hear(&lease_renewed(1_000)), "nobody knows it yet");
        assert!(silences.hear(&lease_renewed(1_010)), "nobody has looked at it yet");
        silences.judged(&agent(), Liveness::Alive);
        assert!(!silences.hear(&lease_renewed(1_020)));
        silences.judged(&agent(), Liveness::Unreachable);
        assert!(silences.hear(&lease_renewed(1_080)), "it is back");
    }

    #[test]
    fn what_the_watch_has_not_shown_counts_when_it_is_read() {
        let silences = Silences::default();
        silences.hear(&lease_renewed(1_000));
        let silent = |second| silences.confirmed(&agent(), Some(&lease_renewed(second)), HOUR);
        assert!(silent(1_000) >= HOUR);
        assert!(silent(1_010) < HOUR);
    }
}
