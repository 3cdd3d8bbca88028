//! Whether what was offered is what is expected, where the expectation may leave choices open.

use crate::replay::bag::{Bag, Item};
use crate::replay::cluster::{Emitted, Inverse};
use crate::replay::format::{InverseText, OfferText};

fn one_of<'a>(one: Option<&'a String>, many: Option<&'a Vec<String>>, is: &str) -> bool {
    let many = many.map_or(&[][..], Vec::as_slice);
    let mut all = one.into_iter().chain(many).peekable();
    all.peek().is_none() || all.any(|name| name == is)
}

fn fits(text: &OfferText, offer: &Emitted, with_agent: bool) -> bool {
    let is = |items: &Vec<Item>| Bag::of(items) == offer.resources;
    one_of(text.framework.as_ref(), text.framework_any_of.as_ref(), &offer.framework)
        && one_of(text.role.as_ref(), text.role_any_of.as_ref(), &offer.role)
        && (!with_agent || one_of(text.agent.as_ref(), text.agent_any_of.as_ref(), &offer.agent))
        && text.resources.as_ref().is_none_or(is)
        && text.resources_any_of.as_ref().is_none_or(|any| any.iter().any(is))
}

/// Each expected one with one that came, and none left over.
pub(super) fn same(expected: &[OfferText], offers: &[Emitted], with_agent: bool) -> bool {
    if expected.len() != offers.len() {
        return false;
    }
    let mut taken: Vec<Option<usize>> = vec![None; offers.len()];
    (0..expected.len()).all(|at| {
        let mut seen = vec![false; offers.len()];
        assign(at, expected, offers, with_agent, &mut taken, &mut seen)
    })
}

/// Finds a partner for one expectation, moving others to another partner where that helps.
fn assign(
    at: usize,
    expected: &[OfferText],
    offers: &[Emitted],
    with_agent: bool,
    taken: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    for (place, offer) in offers.iter().enumerate() {
        if seen[place] || !fits(&expected[at], offer, with_agent) {
            continue;
        }
        seen[place] = true;
        let free = match taken[place] {
            None => true,
            Some(other) => assign(other, expected, offers, with_agent, taken, seen),
        };
        if free {
            taken[place] = Some(at);
            return true;
        }
    }
    false
}

/// Each inverse offer that is expected with one that came, and none left over.
pub(super) fn same_inverse(wanted: &[InverseText], asked: &[Inverse]) -> bool {
    let mut left: Vec<&Inverse> = asked.iter().collect();
    for text in wanted {
        let found = left.iter().position(|one| {
            let start = text.unavailability_start_in;
            one_of(text.framework.as_ref(), text.framework_any_of.as_ref(), &one.framework)
                && one_of(text.agent.as_ref(), text.agent_any_of.as_ref(), &one.agent)
                && text.resources.is_empty()
                && start.is_none_or(|start| one.start_in == Some(start))
        });
        let Some(found) = found else { return false };
        left.remove(found);
    }
    left.is_empty()
}

/// An expected inverse offer in words.
pub(super) fn told_inverse(text: &InverseText) -> String {
    let framework = name(&text.framework, &text.framework_any_of);
    format!("{framework} on {}", name(&text.agent, &text.agent_any_of))
}

fn name(one: &Option<String>, many: &Option<Vec<String>>) -> String {
    match (one, many) {
        (Some(one), _) => one.clone(),
        (None, Some(many)) => format!("one of {}", many.join(", ")),
        (None, None) => "any".to_owned(),
    }
}

/// Sums over agents, by framework and role.
pub(super) fn totals(offers: &[Emitted]) -> Vec<Emitted> {
    let mut sums: Vec<Emitted> = Vec::new();
    for offer in offers {
        let same =
            |sum: &&mut Emitted| (&sum.framework, &sum.role) == (&offer.framework, &offer.role);
        match sums.iter_mut().find(same) {
            Some(sum) => sum.resources.add(&offer.resources),
            None => sums.push(Emitted { agent: "all agents".to_owned(), ..offer.clone() }),
        }
    }
    sums
}

/// An expectation in words.
pub(super) fn told(text: &OfferText) -> String {
    let what = match (&text.resources, &text.resources_any_of) {
        (Some(items), _) => Bag::of(items).told(),
        (None, Some(any)) => {
            let any: Vec<String> = any.iter().map(|items| Bag::of(items).told()).collect();
            format!("one of [{}]", any.join("] ["))
        }
        (None, None) => "anything".to_owned(),
    };
    format!(
        "{} in {} on {}: {what}",
        name(&text.framework, &text.framework_any_of),
        name(&text.role, &text.role_any_of),
        name(&text.agent, &text.agent_any_of)
    )
}
