//! Resources: a map from a resource's name to how much of it, with checked arithmetic.
//!
//! On the wire every amount is text (`{"cpu": "500m", "memory": "4Gi", "ports": "31000-31005"}`;
//! JSON numbers are read too), in memory it is a fixed-point integer, ranges or a set. Nothing is
//! ever negative and nothing wraps: an operation that would says so with the resource's name.

mod amount;
mod ranges;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

pub use amount::{Amount, AmountError};
pub use ranges::{Ranges, RangesError};
pub use wire::parse_errors;

/// Processor time; one core is `1`, kept in thousandths.
pub const CPU: &str = "cpu";
/// Main memory in bytes.
pub const MEMORY: &str = "memory";
/// Local disk in bytes.
pub const DISK: &str = "disk";
/// Whole GPUs, kept in thousandths like every other count.
pub const GPU: &str = "gpu";
/// Host ports, as ranges.
pub const PORTS: &str = "ports";

/// An operation on resources that has no right answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourcesError {
    /// More was to be taken than there is.
    #[error("not enough {name}: {have} there, {want} wanted")]
    NotEnough {
        /// The resource.
        name: String,
        /// What there is, as text.
        have: String,
        /// What was to be taken, as text.
        want: String,
    },
    /// The sum or product does not fit 64 bits.
    #[error("too much {name}: the sum does not fit 64 bits")]
    Overflow {
        /// The resource.
        name: String,
    },
    /// A number on one side, ranges or a set on the other.
    #[error("{name} is {left} on one side and {right} on the other")]
    Mismatch {
        /// The resource.
        name: String,
        /// What the left side is: "a number", "ranges" or "a set".
        left: &'static str,
        /// What the right side is.
        right: &'static str,
    },
}

/// How much of which resource. A name that is absent means none of it.
///
/// An amount of zero may be present (a limit of `gpu: 0` says something), so equality is of what was
/// written; [`Resources::is_empty`] and [`Resources::contains`] look through zeros.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Resources(BTreeMap<String, Amount>);

impl Resources {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From texts, as they would stand in a manifest.
    ///
    /// # Errors
    /// The first text that is not an amount of its resource.
    pub fn from_pairs<'a, I>(pairs: I) -> Result<Self, AmountError>
    where
        I: IntoIterator<Item = (&'a str, &'a str)>,
    {
        pairs
            .into_iter()
            .map(|(name, text)| Ok((name.to_owned(), Amount::parse(name, text)?)))
            .collect()
    }

    /// The amount under a name, if it is there at all (it may be zero).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Amount> {
        self.0.get(name)
    }

    /// Sets an amount, and returns what was there.
    pub fn set(&mut self, name: impl Into<String>, amount: Amount) -> Option<Amount> {
        self.0.insert(name.into(), amount)
    }

    /// Takes a name out of the map.
    pub fn remove(&mut self, name: &str) -> Option<Amount> {
        self.0.remove(name)
    }

    /// The number under a name in its unit (thousandths, or bytes for memory and disk); 0 when it
    /// is absent or no number.
    #[must_use]
    pub fn scalar(&self, name: &str) -> i64 {
        match self.0.get(name) {
            Some(Amount::Scalar(steps)) => *steps,
            _ => 0,
        }
    }

    /// Sets a number, in the unit of that name. A negative number is kept as 0.
    pub fn set_scalar(&mut self, name: impl Into<String>, steps: i64) {
        self.0.insert(name.into(), Amount::Scalar(steps.max(0)));
    }

    /// Processor time in thousandths of a core.
    #[must_use]
    pub fn cpu_millis(&self) -> i64 {
        self.scalar(CPU)
    }

    /// Memory in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> i64 {
        self.scalar(MEMORY)
    }

    /// Disk in bytes.
    #[must_use]
    pub fn disk_bytes(&self) -> i64 {
        self.scalar(DISK)
    }

    /// Whole GPUs.
    #[must_use]
    pub fn gpus(&self) -> i64 {
        self.scalar(GPU) / 1000
    }

    /// The host ports; `None` when there are none.
    #[must_use]
    pub fn ports(&self) -> Option<&Ranges> {
        match self.0.get(PORTS) {
            Some(Amount::Ranges(ranges)) if !ranges.is_empty() => Some(ranges),
            _ => None,
        }
    }

    /// Sets the host ports; empty ranges take the name out.
    pub fn set_ports(&mut self, ports: Ranges) {
        if ports.is_empty() {
            self.0.remove(PORTS);
        } else {
            self.0.insert(PORTS.to_owned(), Amount::Ranges(ports));
        }
    }

    /// Whether there is nothing of anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Amount::is_zero)
    }

    /// Names and amounts, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Amount)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), amount))
    }

    /// Names and numbers, by name; what is no number is left out.
    pub fn scalars(&self) -> impl Iterator<Item = (&str, i64)> {
        self.iter().filter_map(|(name, amount)| match amount {
            Amount::Scalar(steps) => Some((name, *steps)),
            _ => None,
        })
    }

    /// Only the numbers, without zeros: what can be summed over agents.
    #[must_use]
    pub fn only_scalars(&self) -> Self {
        self.scalars()
            .filter(|(_, steps)| *steps > 0)
            .map(|(name, steps)| (name.to_owned(), Amount::Scalar(steps)))
            .collect()
    }

    /// Both together. Numbers add up; ranges and sets are united (the same port on two agents is
    /// one port in the sum, so sums over agents want [`Resources::only_scalars`]).
    ///
    /// # Errors
    /// [`ResourcesError::Overflow`] or [`ResourcesError::Mismatch`].
    pub fn checked_add(&self, other: &Self) -> Result<Self, ResourcesError> {
        let mut sum = self.clone();
        for (name, amount) in &other.0 {
            let added = match sum.0.get(name) {
                Some(have) => have.checked_add(name, amount)?,
                None => amount.clone(),
            };
            sum.0.insert(name.clone(), added);
        }
        Ok(sum)
    }

    /// What is left after taking `other` out; names of which nothing is left are gone.
    ///
    /// # Errors
    /// [`ResourcesError::NotEnough`] or [`ResourcesError::Mismatch`].
    pub fn checked_sub(&self, other: &Self) -> Result<Self, ResourcesError> {
        let mut rest = self.clone();
        for (name, amount) in other.iter().filter(|(_, amount)| !amount.is_zero()) {
            let have = self.0.get(name).ok_or_else(|| ResourcesError::NotEnough {
                name: name.to_owned(),
                have: "none".to_owned(),
                want: amount.to_text(name),
            })?;
            rest.0.insert(name.to_owned(), have.checked_sub(name, amount)?);
        }
        rest.0.retain(|_, amount| !amount.is_zero());
        Ok(rest)
    }

    /// Whether `other` could be taken out of this.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other.iter().all(|(name, amount)| self.holds(name, amount))
    }

    /// Whether this could be taken out of `room`.
    #[must_use]
    pub fn fits(&self, room: &Self) -> bool {
        room.contains(self)
    }

    /// The names of which `other` wants more than is here, by name.
    #[must_use]
    pub fn missing(&self, other: &Self) -> Vec<String> {
        other
            .iter()
            .filter(|(name, amount)| !self.holds(name, amount))
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    fn holds(&self, name: &str, amount: &Amount) -> bool {
        amount.is_zero() || self.0.get(name).is_some_and(|have| have.contains(amount))
    }

    /// What both have: the smaller number, the common ports and elements; names of only one side
    /// are left out.
    #[must_use]
    pub fn min(&self, other: &Self) -> Self {
        self.iter()
            .filter_map(|(name, amount)| {
                let common = amount.min(other.0.get(name)?)?;
                Some((name.to_owned(), common))
            })
            .collect()
    }

    /// This many times the numbers; ranges and sets stay as they are, there is only one of each.
    ///
    /// # Errors
    /// [`ResourcesError::Overflow`].
    pub fn scale(&self, times: u32) -> Result<Self, ResourcesError> {
        self.iter()
            .map(|(name, amount)| {
                let scaled = match amount {
                    Amount::Scalar(steps) => Amount::Scalar(
                        steps
                            .checked_mul(i64::from(times))
                            .ok_or_else(|| ResourcesError::Overflow { name: name.to_owned() })?,
                    ),
                    other => other.clone(),
                };
                Ok((name.to_owned(), scaled))
            })
            .collect()
    }

    /// Names that are neither ours nor carry a domain, with what to do about each.
    #[must_use]
    pub fn name_errors(&self) -> Vec<(String, String)> {
        self.0
            .keys()
            .filter_map(|name| amount::name_error(name).map(|message| (name.clone(), message)))
            .collect()
    }
}

impl FromIterator<(String, Amount)> for Resources {
    fn from_iter<I: IntoIterator<Item = (String, Amount)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl IntoIterator for Resources {
    type Item = (String, Amount);
    type IntoIter = std::collections::btree_map::IntoIter<String, Amount>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Resources {
    /// `cpu=500m, memory=4Gi`, or `nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (place, (name, amount)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={}", amount.to_text(name))?;
        }
        Ok(())
    }
}
