//! Frameworks that let offers end without an answer: how long each is spared the next one.

use std::collections::HashMap;

use commonage_schemas::offer::{DEFAULT_REFUSE_SECONDS, OfferVerdict};

use super::cache::Key;

/// However long nobody has answered: a scheduler that comes back waits no longer than this.
const REFUSED_MAX_MS: u64 = 5 * 60 * 1000;

/// How an offer ends, as far as its framework is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It has answered.
    Answered,
    /// It has not, although it could have: the offer expired, or stood in the way of a task.
    Unanswered,
    /// What the offer was made for is no longer so.
    Obsolete,
}

impl Ending {
    pub(crate) fn of(verdict: OfferVerdict) -> Ending {
        match verdict {
            OfferVerdict::Accepted | OfferVerdict::Declined => Ending::Answered,
            OfferVerdict::Expired => Ending::Unanswered,
            OfferVerdict::Rescinded => Ending::Obsolete,
        }
    }
}

/// Offers in a row that a framework has not answered, by framework and agent.
#[derive(Debug, Default)]
pub(crate) struct Unanswered(HashMap<Key, HashMap<String, u32>>);

impl Unanswered {
    /// Counts one more; returns for how long it counts as a refusal, in milliseconds: twice as long
    /// as the time before.
    pub(crate) fn one_more(&mut self, framework: &Key, agent: &str) -> u64 {
        let agents = self.0.entry(framework.clone()).or_default();
        let before = agents.entry(agent.to_owned()).or_default();
        let first = (DEFAULT_REFUSE_SECONDS * 1000.0) as u64;
        let for_ms = first.saturating_mul(1 << (*before).min(16)).min(REFUSED_MAX_MS);
        *before = before.saturating_add(1);
        for_ms
    }

    /// It has answered, or is gone.
    pub(crate) fn forget_framework(&mut self, framework: &Key) {
        self.0.remove(framework);
    }

    pub(crate) fn forget_agent(&mut self, agent: &str) {
        self.0.values_mut().for_each(|agents| {
            agents.remove(agent);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_doubles_up_to_five_minutes_and_an_answer_ends_it() {
        let mut unanswered = Unanswered::default();
        let framework = ("ns".to_owned(), "f".to_owned());
        let seconds: Vec<u64> =
            (0..9).map(|_| unanswered.one_more(&framework, "a") / 1000).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(unanswered.one_more(&framework, "b"), 5000, "each agent by itself");
        for _ in 0..100 {
            unanswered.one_more(&framework, "a");
        }
        assert_eq!(unanswered.one_more(&framework, "a"), 300_000);
        unanswered.forget_framework(&framework);
        assert_eq!(unanswered.one_more(&framework, "a"), 5000);
    }
}
