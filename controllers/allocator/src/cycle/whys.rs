//! What was found against each agent for those that wait, kept from plan to plan: while only some
//! agents change, an explanation costs those and not all that there are.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cycle::why::Cause;
use crate::plan::{Excluded, Why};
use crate::shapes::Shape;
use crate::table::Id;

/// Who waits and for what: a mix of shapes, what stood in the way, and the agent that it is bound to.
pub(super) type Key = (Vec<Id>, Cause, Option<Id>);

/// What is known against agents.
#[derive(Debug, Clone, Default)]
pub(crate) struct Whys {
    pub(super) books: HashMap<Key, Book>,
    /// Agents that the last run had changed when it explained.
    pub(super) touched: Vec<Id>,
}

impl Whys {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// What is against each agent, for one who waits.
#[derive(Debug, Clone)]
pub(super) struct Book {
    /// The shapes: a number may stand for another by now.
    shapes: Vec<Arc<Shape>>,
    /// Reasons by number, and how many agents there are for each.
    reasons: Vec<(String, u64)>,
    /// By agent: its reason's number.
    against: Vec<u16>,
    /// The explanation, as long as nothing has changed.
    pub(super) why: Option<Arc<Why>>,
}

const NOTHING: u16 = u16::MAX;

impl Book {
    pub(super) fn new(shapes: Vec<Arc<Shape>>) -> Self {
        Self { shapes, reasons: Vec::new(), against: Vec::new(), why: None }
    }

    pub(super) fn is_of(&self, shapes: &[Arc<Shape>]) -> bool {
        self.shapes.len() == shapes.len()
            && self.shapes.iter().zip(shapes).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// Notes what is against an agent; nothing: it is not there.
    pub(super) fn note(&mut self, agent: Id, reason: Option<&str>) {
        let at = agent as usize;
        if at >= self.against.len() {
            self.against.resize(at + 1, NOTHING);
        }
        let before = self.against[at];
        let known = self.reasons.get(before as usize).map(|(reason, _)| &**reason);
        if known == reason {
            return;
        }
        if let Some((_, count)) = self.reasons.get_mut(before as usize) {
            *count -= 1;
        }
        self.against[at] = reason.map_or(NOTHING, |reason| self.number(reason));
        if let Some((_, count)) = self.reasons.get_mut(self.against[at] as usize) {
            *count += 1;
        }
        self.why = None;
    }

    fn number(&mut self, reason: &str) -> u16 {
        let known = self.reasons.iter().position(|(other, _)| other == reason);
        let at = known.unwrap_or_else(|| {
            self.reasons.push((reason.to_owned(), 0));
            self.reasons.len() - 1
        });
        u16::try_from(at).unwrap_or(NOTHING - 1)
    }

    /// How many agents each reason excludes, the most first.
    pub(super) fn excluded(&self) -> Vec<Excluded> {
        let there = self.reasons.iter().filter(|(_, count)| *count > 0);
        let mut excluded: Vec<Excluded> =
            there.map(|(by, agents)| Excluded { by: by.clone(), agents: *agents }).collect();
        excluded.sort_by(|a, b| b.agents.cmp(&a.agents).then_with(|| a.by.cmp(&b.by)));
        excluded
    }
}
