//! One amount: a number, ranges or a set, and which of them a resource's name wants.

use std::collections::BTreeSet;

use super::{CPU, DISK, GPU, MEMORY, PORTS, Ranges, RangesError, ResourcesError};
use crate::quantity::{self, QuantityError, Unit};

/// How much of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Amount {
    /// A number: thousandths, or bytes for `memory` and `disk`.
    Scalar(i64),
    /// Numbers that can be had one by one, such as ports.
    Ranges(Ranges),
    /// Things that can be had one by one, by name: `{a,b}` as text.
    Set(BTreeSet<String>),
}

/// A text that is not an amount of its resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not a quantity.
    #[error("{name}: {error}")]
    Quantity {
        /// The resource.
        name: String,
        /// What is wrong with the text.
        error: QuantityError,
    },
    /// Not ranges.
    #[error("{name}: {error}")]
    Ranges {
        /// The resource.
        name: String,
        /// What is wrong with the text.
        error: RangesError,
    },
    /// A part of a GPU.
    #[error("{name}: {text:?} is not a whole number; GPUs are given out whole, for example \"1\"")]
    NotWhole {
        /// The resource.
        name: String,
        /// What was written.
        text: String,
    },
    /// `{` without `}`.
    #[error("{name}: {text:?} is not a set; write for example \"{{a,b}}\"")]
    Set {
        /// The resource.
        name: String,
        /// What was written.
        text: String,
    },
}

impl AmountError {
    /// The resource whose text is wrong.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Quantity { name, .. }
            | Self::Ranges { name, .. }
            | Self::NotWhole { name, .. }
            | Self::Set { name, .. } => name,
        }
    }
}

/// The unit of the numbers under a name.
#[must_use]
pub(crate) fn unit_of(name: &str) -> Unit {
    match name {
        MEMORY | DISK => Unit::Bytes,
        _ => Unit::Thousandths,
    }
}

/// What is wrong with a resource's name, if anything.
pub(crate) fn name_error(name: &str) -> Option<String> {
    if matches!(name, CPU | MEMORY | DISK | GPU | PORTS) {
        return None;
    }
    if let Some((domain, rest)) = name.split_once('/') {
        let ok = |part: &str| {
            let edge = |b: u8| b.is_ascii_alphanumeric();
            let bytes = part.as_bytes();
            bytes.first().is_some_and(|b| edge(*b))
                && bytes.last().is_some_and(|b| edge(*b))
                && bytes.len() <= 253
                && bytes.iter().all(|b| edge(*b) || matches!(b, b'-' | b'_' | b'.'))
        };
        return (!ok(domain) || !ok(rest)).then(|| {
            format!("{name:?} is not a resource name; write for example \"example.com/fpga\"")
        });
    }
    let meant = match name {
        "cpus" => Some(CPU),
        "mem" | "ram" => Some(MEMORY),
        "gpus" | "nvidia" => Some(GPU),
        "port" => Some(PORTS),
        "disks" | "storage" | "ephemeral-storage" => Some(DISK),
        _ => None,
    };
    Some(match meant {
        Some(meant) => format!("{name:?} is not a resource; did you mean {meant:?}?"),
        None => format!(
            "{name:?} is not a resource (cpu, memory, disk, gpu, ports); other names carry a \
             domain, for example \"example.com/{name}\""
        ),
    })
}

impl Amount {
    /// Reads the text of an amount; the name decides what it must be. Other names than ours may
    /// hold a number (`4`), ranges (`1-5`) or a set (`{a,b}`).
    ///
    /// # Errors
    /// [`AmountError`], which names the resource and gives an example.
    pub fn parse(name: &str, text: &str) -> Result<Self, AmountError> {
        let named = || name.to_owned();
        let trimmed = text.trim();
        let ranges = || {
            trimmed
                .parse()
                .map(Self::Ranges)
                .map_err(|error| AmountError::Ranges { name: named(), error })
        };
        if name == PORTS {
            return ranges();
        }
        let custom = !matches!(name, CPU | MEMORY | DISK | GPU);
        if custom && trimmed.starts_with('{') {
            let inner = trimmed[1..]
                .strip_suffix('}')
                .ok_or_else(|| AmountError::Set { name: named(), text: text.to_owned() })?;
            let items = inner.split(',').map(str::trim).filter(|item| !item.is_empty());
            return Ok(Self::Set(items.map(ToOwned::to_owned).collect()));
        }
        match quantity::parse(trimmed, unit_of(name)) {
            Ok(steps) if name == GPU && steps % 1000 != 0 => {
                Err(AmountError::NotWhole { name: named(), text: text.to_owned() })
            }
            Ok(steps) => Ok(Self::Scalar(steps)),
            Err(_) if custom && trimmed.contains(['-', ',']) && !trimmed.starts_with('-') => {
                ranges()
            }
            Err(error) => Err(AmountError::Quantity { name: named(), error }),
        }
    }

    /// The text that [`Amount::parse`] reads back under the same name.
    #[must_use]
    pub fn to_text(&self, name: &str) -> String {
        match self {
            Self::Scalar(steps) => quantity::format(*steps, unit_of(name)),
            Self::Ranges(ranges) => match ranges.as_pairs() {
                // Under a name of somebody's own, "5" would be read as a number.
                [(low, high)] if low == high && name != PORTS => format!("{low}-{high}"),
                _ => ranges.to_string(),
            },
            Self::Set(items) => {
                let items: Vec<_> = items.iter().map(String::as_str).collect();
                format!("{{{}}}", items.join(","))
            }
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Scalar(steps) => *steps == 0,
            Self::Ranges(ranges) => ranges.is_empty(),
            Self::Set(items) => items.is_empty(),
        }
    }

    /// Whether `other` could be taken out of this.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Scalar(have), Self::Scalar(want)) => have >= want,
            (Self::Ranges(have), Self::Ranges(want)) => have.contains(want),
            (Self::Set(have), Self::Set(want)) => have.is_superset(want),
            _ => other.is_zero(),
        }
    }

    const fn shape(&self) -> &'static str {
        match self {
            Self::Scalar(_) => "a number",
            Self::Ranges(_) => "ranges",
            Self::Set(_) => "a set",
        }
    }

    fn mismatch(&self, name: &str, other: &Self) -> ResourcesError {
        ResourcesError::Mismatch { name: name.to_owned(), left: self.shape(), right: other.shape() }
    }

    pub(super) fn checked_add(&self, name: &str, other: &Self) -> Result<Self, ResourcesError> {
        Ok(match (self, other) {
            (Self::Scalar(a), Self::Scalar(b)) => Self::Scalar(
                a.checked_add(*b)
                    .ok_or_else(|| ResourcesError::Overflow { name: name.to_owned() })?,
            ),
            (Self::Ranges(a), Self::Ranges(b)) => Self::Ranges(a.union(b)),
            (Self::Set(a), Self::Set(b)) => Self::Set(a | b),
            _ => return Err(self.mismatch(name, other)),
        })
    }

    pub(super) fn checked_sub(&self, name: &str, other: &Self) -> Result<Self, ResourcesError> {
        let rest = match (self, other) {
            (Self::Scalar(a), Self::Scalar(b)) => a.checked_sub(*b).map(Self::Scalar),
            (Self::Ranges(a), Self::Ranges(b)) => Some(Self::Ranges(a.subtract(b))),
            (Self::Set(a), Self::Set(b)) => Some(Self::Set(a - b)),
            _ => return Err(self.mismatch(name, other)),
        };
        rest.filter(|_| self.contains(other)).ok_or_else(|| ResourcesError::NotEnough {
            name: name.to_owned(),
            have: self.to_text(name),
            want: other.to_text(name),
        })
    }

    /// What both have; `None` when they are of different shapes.
    pub(super) fn min(&self, other: &Self) -> Option<Self> {
        Some(match (self, other) {
            (Self::Scalar(a), Self::Scalar(b)) => Self::Scalar(*a.min(b)),
            (Self::Ranges(a), Self::Ranges(b)) => Self::Ranges(a.intersect(b)),
            (Self::Set(a), Self::Set(b)) => Self::Set(a & b),
            _ => return None,
        })
    }
}
