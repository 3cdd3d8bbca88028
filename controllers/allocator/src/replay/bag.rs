//! Resources as scenarios write them, with the arithmetic that keeping books of them takes.

use std::collections::BTreeMap;
use std::fmt::Write;

use commonage_schemas::resources::{Amount, CPU, DISK, GPU, MEMORY, Ranges, Resources};
use serde::Deserialize;

use crate::parts::{Kind, Part};
use crate::replay::format::{Quantities, or_nothing};

/// Mesos keeps three decimals of every quantity.
const DECIMALS: f64 = 1000.0;
/// To the allocator a MB is so many thousands of steps, which it takes for bytes: a thousandth of it is a whole number.
const MB: i64 = 1000;
/// Stands for a dot in a role's name, as dots separate our queues: no other sign of a role's name sorts between the two.
const DOT: char = '/';

/// One entry of a list of resources.
#[derive(Deserialize)]
#[serde(try_from = "ItemText")]
pub(super) struct Item(ItemText);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemText {
    name: String,
    scalar: Option<f64>,
    ranges: Option<Vec<(u16, u16)>>,
    #[serde(default, deserialize_with = "or_nothing")]
    reserved: Vec<String>,
    #[serde(default, deserialize_with = "or_nothing")]
    revocable: bool,
    volume: Option<String>,
    #[serde(default, deserialize_with = "or_nothing")]
    shared: bool,
    copies: Option<u32>,
    disk_source: Option<String>,
}

impl TryFrom<ItemText> for Item {
    type Error = String;

    fn try_from(text: ItemText) -> Result<Self, String> {
        let name = &text.name;
        match (text.scalar, &text.ranges) {
            (Some(number), None) if number >= 0.0 && number.is_finite() => {}
            (None, Some(ranges)) if ranges.iter().all(|(low, high)| low <= high) => {}
            (Some(number), None) => {
                return Err(format!("{name}: scalar {number}: it must be 0 or more"));
            }
            (None, Some(_)) => return Err(format!("{name}: ranges: each is [low, high]")),
            _ => return Err(format!("{name}: one of scalar and ranges is wanted")),
        }
        if text.copies.is_some() && !text.shared {
            return Err(format!("{name}: copies: only of something shared"));
        }
        let known = ["MOUNT", "BLOCK", "RAW", "PATH"];
        match &text.disk_source {
            Some(source) if !known.contains(&source.as_str()) => {
                Err(format!("{name}: disk_source: unknown {source:?}"))
            }
            _ => Ok(Self(text)),
        }
    }
}

/// So much of one resource of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Much {
    steps: i64,
    ranges: Ranges,
    /// Of something shared.
    copies: u32,
}

impl Much {
    fn is_zero(&self) -> bool {
        (self.steps == 0 && self.ranges.is_empty()) || self.copies == 0
    }
}

/// Resources of several kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bag(BTreeMap<(Kind, String), Much>);

impl Bag {
    pub(super) fn of(items: &[Item]) -> Self {
        let mut bag = Self::default();
        for Item(item) in items {
            let kind = Kind {
                reserved: owners(&item.reserved).map(|role| queue_of(role)).collect(),
                revocable: item.revocable,
                volume: item.volume.clone(),
                shared: item.shared,
                indivisible: item.disk_source.as_ref().is_some_and(|source| source != "PATH"),
            };
            let name = name_of(&item.name);
            let much = Much {
                steps: item.scalar.map_or(0, |number| steps(name, number)),
                ranges: Ranges::from_pairs(item.ranges.iter().flatten().copied()),
                copies: item.copies.unwrap_or(1),
            };
            bag.put((kind, name.to_owned()), &much);
        }
        bag
    }

    pub(super) fn from_engine(resources: &Resources, parts: &[Part]) -> Self {
        let mut bag = Self::default();
        let plain = (&Kind::default(), resources);
        for (kind, resources) in
            std::iter::once(plain).chain(parts.iter().map(|part| (&part.kind, &part.resources)))
        {
            for (name, amount) in resources.iter() {
                let much = match amount {
                    Amount::Scalar(steps) => Much { steps: *steps, copies: 1, ..Much::default() },
                    Amount::Ranges(ranges) => {
                        Much { ranges: ranges.clone(), copies: 1, ..Much::default() }
                    }
                    Amount::Set(_) => continue,
                };
                bag.put((kind.clone(), name.to_owned()), &much);
            }
        }
        bag
    }

    /// What is plain, and the rest by kind.
    pub(super) fn to_engine(&self) -> (Resources, Vec<Part>) {
        let mut kinds: BTreeMap<&Kind, Resources> = BTreeMap::new();
        for ((kind, name), much) in &self.0 {
            let resources = kinds.entry(kind).or_default();
            if much.steps > 0 {
                resources.set_scalar(name.clone(), much.steps);
            }
            if !much.ranges.is_empty() {
                resources.set(name.clone(), Amount::Ranges(much.ranges.clone()));
            }
        }
        let plain = kinds.remove(&Kind::default()).unwrap_or_default();
        let parts =
            kinds.into_iter().map(|(kind, resources)| Part { kind: kind.clone(), resources });
        (plain, parts.collect())
    }

    fn put(&mut self, key: (Kind, String), more: &Much) {
        if more.is_zero() {
            return;
        }
        let shared = key.0.shared;
        let much = self.0.entry(key).or_default();
        much.ranges = much.ranges.union(&more.ranges);
        much.steps = if shared { more.steps } else { much.steps + more.steps };
        much.copies = if shared { much.copies + more.copies } else { 1 };
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (key, much) in &other.0 {
            self.put(key.clone(), much);
        }
    }

    /// Takes out what is there of `other`.
    pub(super) fn sub(&mut self, other: &Self) {
        for (key, less) in &other.0 {
            let Some(much) = self.0.get_mut(key) else { continue };
            if key.0.shared {
                much.copies = much.copies.saturating_sub(less.copies);
            } else {
                much.steps = (much.steps - less.steps).max(0);
                much.ranges = much.ranges.subtract(&less.ranges);
            }
        }
        self.0.retain(|_, much| !much.is_zero());
    }

    pub(super) fn contains(&self, other: &Self) -> bool {
        other.0.iter().all(|(key, want)| {
            self.0.get(key).is_some_and(|have| {
                want.steps <= have.steps
                    && have.ranges.contains(&want.ranges)
                    && (!key.0.shared || want.copies <= have.copies)
            })
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of one resource, in the scenario's unit, whatever its kind.
    pub(super) fn quantity(&self, resource: &str) -> f64 {
        let name = name_of(resource);
        let of_it = self.0.iter().filter(|((_, n), _)| n == name);
        of_it.map(|(_, m)| number(name, m.steps) + m.ranges.len() as f64).sum()
    }

    /// In words.
    pub(super) fn told(&self) -> String {
        let words: Vec<String> = self.0.iter().map(|(key, much)| tell(key, much)).collect();
        if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
    }
}

/// For whom something is reserved; by `*` Mesos means nobody.
fn owners(stack: &[String]) -> impl Iterator<Item = &String> {
    stack.iter().filter(|role| *role != "*")
}

fn tell((kind, name): &(Kind, String), much: &Much) -> String {
    let mut text = format!("{} ", role_name(name));
    if much.ranges.is_empty() {
        let _ = write!(text, "{}", number(name, much.steps));
    } else {
        let pairs = much.ranges.as_pairs().iter().map(|(low, high)| format!("{low}-{high}"));
        text.push_str(&pairs.collect::<Vec<_>>().join(" "));
    }
    if !kind.reserved.is_empty() {
        let stack: Vec<String> = kind.reserved.iter().map(|queue| role_of(queue)).collect();
        let _ = write!(text, " reserved for {}", stack.join(" then "));
    }
    if let Some(volume) = &kind.volume {
        let _ = write!(text, " of volume {volume}");
    }
    let flags = [
        (kind.revocable, " revocable"),
        (kind.shared, " shared"),
        (kind.indivisible, " of one piece"),
    ];
    text.extend(flags.iter().filter(|(is, _)| *is).map(|(_, word)| *word));
    text
}

/// Our name of a resource.
pub(super) fn name_of(resource: &str) -> &str {
    match resource {
        "cpus" => CPU,
        "mem" => MEMORY,
        "gpus" => GPU,
        other => other,
    }
}

fn role_name(name: &str) -> &str {
    match name {
        CPU => "cpus",
        MEMORY => "mem",
        GPU => "gpus",
        other => other,
    }
}

fn steps(name: &str, number: f64) -> i64 {
    let thousandths = (number * DECIMALS).round() as i64;
    thousandths.saturating_mul(if name == MEMORY || name == DISK { MB } else { 1 })
}

fn number(name: &str, steps: i64) -> f64 {
    let thousandths = if name == MEMORY || name == DISK { steps / MB } else { steps };
    thousandths as f64 / DECIMALS
}

pub(super) fn resources_of(quantities: &Quantities) -> Resources {
    let mut resources = Resources::new();
    for (name, number) in quantities {
        let name = name_of(name);
        resources.set_scalar(name, steps(name, *number));
    }
    resources
}

/// Our name of a role.
pub(super) fn queue_of(role: &str) -> String {
    let signs = role.chars().map(|sign| match sign {
        '.' => DOT,
        '/' => '.',
        other => other,
    });
    signs.collect()
}

pub(super) fn role_of(queue: &str) -> String {
    let signs = queue.chars().map(|sign| match sign {
        DOT => '.',
        '.' => '/',
        other => other,
    });
    signs.collect()
}
