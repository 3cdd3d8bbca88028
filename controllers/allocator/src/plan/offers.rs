//! The offers of a plan.

use std::fmt;
use std::sync::Arc;

use commonage_schemas::resources::Resources;

use crate::plan::{Address, NewOffer};
use crate::table::Id;

/// Offers to make, in the order in which they were decided.
///
/// A plan may give out every agent there is. One that goes as a whole is three numbers here, and is
/// spelled out when it is looked at: counting references to fifty thousand names would take longer
/// than deciding about them.
#[derive(Clone, Default)]
pub struct Offers {
    names: Arc<Names>,
    amounts: Arc<Vec<Arc<Resources>>>,
    decided_at_ms: u64,
    whole: Vec<Whole>,
    others: Vec<NewOffer>,
}

/// What numbers stand for. A plan shares it with the allocator, which writes into one of its own if
/// a plan still has this one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    /// Of agents.
    pub(crate) agents: Vec<Arc<str>>,
    /// By leaf: to whom its offers go, and how long they stand, in milliseconds.
    pub(crate) seats: Vec<(Arc<Address>, u64)>,
}

/// All that is free of an agent, for a leaf.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole {
    pub(crate) leaf: Id,
    pub(crate) agent: Id,
    pub(crate) amount: u32,
}

impl Offers {
    pub(crate) fn new(
        names: Arc<Names>,
        amounts: Arc<Vec<Arc<Resources>>>,
        decided_at_ms: u64,
        whole: Vec<Whole>,
        others: Vec<NewOffer>,
    ) -> Self {
        Self { names, amounts, decided_at_ms, whole, others }
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.whole.len() + self.others.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One after the other, spelled out.
    pub fn iter(&self) -> impl Iterator<Item = NewOffer> + '_ {
        let whole = self.whole.iter().map(|whole| self.spell_out(whole));
        whole.chain(self.others.iter().cloned())
    }

    /// The one at this place.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<NewOffer> {
        match self.whole.get(at) {
            Some(whole) => Some(self.spell_out(whole)),
            None => self.others.get(at - self.whole.len()).cloned(),
        }
    }

    fn spell_out(&self, whole: &Whole) -> NewOffer {
        let (to, timeout_ms) = &self.names.seats[whole.leaf as usize];
        NewOffer {
            to: to.clone(),
            agent: self.names.agents[whole.agent as usize].clone(),
            resources: self.amounts[whole.amount as usize].clone(),
            parts: Vec::new(),
            expires_at_ms: self.decided_at_ms.saturating_add(*timeout_ms),
        }
    }
}

impl fmt::Debug for Offers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for Offers {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<const COUNT: usize> PartialEq<[NewOffer; COUNT]> for Offers {
    fn eq(&self, other: &[NewOffer; COUNT]) -> bool {
        self.len() == COUNT && self.iter().eq(other.iter().cloned())
    }
}
