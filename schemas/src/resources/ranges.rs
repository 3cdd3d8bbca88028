//! Sets of port numbers as inclusive ranges: `31000-31005,31010`.

use std::fmt;
use std::str::FromStr;

/// Inclusive ranges, sorted, apart by at least one number: one set has one form.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ranges(Vec<(u16, u16)>);

/// Why a text is not ranges.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangesError {
    /// A piece between two commas is no `low-high` and no number.
    #[error(
        "{text:?} is not a range of numbers from 0 to 65535; write for example \
         \"31000-31005,31010\""
    )]
    Piece {
        /// The piece.
        text: String,
    },
    /// `high-low`.
    #[error("{text:?} is the wrong way round: the lower number comes first")]
    Reversed {
        /// The piece.
        text: String,
    },
}

impl Ranges {
    /// No number.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From inclusive pairs in any order; overlapping and touching ones are joined, reversed ones
    /// hold nothing.
    #[must_use]
    pub fn from_pairs(pairs: impl IntoIterator<Item = (u16, u16)>) -> Self {
        let mut sorted: Vec<_> = pairs.into_iter().filter(|(low, high)| low <= high).collect();
        sorted.sort_unstable();
        let mut joined: Vec<(u16, u16)> = Vec::with_capacity(sorted.len());
        for (low, high) in sorted {
            match joined.last_mut() {
                Some(last) if u32::from(low) <= u32::from(last.1) + 1 => last.1 = last.1.max(high),
                _ => joined.push((low, high)),
            }
        }
        Self(joined)
    }

    /// The inclusive ranges, ascending.
    #[must_use]
    pub fn as_pairs(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// Whether there is no number in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|&(low, high)| usize::from(high - low) + 1).sum()
    }

    /// Every number, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().flat_map(|&(low, high)| low..=high)
    }

    /// Whether this number is in it.
    #[must_use]
    pub fn has(&self, number: u16) -> bool {
        let after = self.0.partition_point(|&(low, _)| low <= number);
        after > 0 && self.0[after - 1].1 >= number
    }

    /// Whether every number of `other` is in it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other.0.iter().all(|&(low, high)| {
            let after = self.0.partition_point(|&(start, _)| start <= low);
            after > 0 && self.0[after - 1].1 >= high
        })
    }

    /// The numbers of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        if other.is_empty() {
            return self.clone();
        }
        Self::from_pairs(self.0.iter().chain(&other.0).copied())
    }

    /// The numbers of this that are not in `other`.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let mut rest = Vec::with_capacity(self.0.len());
        for &(low, high) in &self.0 {
            // Wider than u16, so that "one past 65535" is a number like any other.
            let (mut from, end) = (u32::from(low), u32::from(high) + 1);
            let first = other.0.partition_point(|&(_, last)| last < low);
            for &(cut_low, cut_high) in &other.0[first..] {
                if u32::from(cut_low) >= end {
                    break;
                }
                push(&mut rest, from, u32::from(cut_low));
                from = from.max(u32::from(cut_high) + 1);
            }
            push(&mut rest, from, end);
        }
        Self(rest)
    }

    /// The numbers in both.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        self.subtract(&self.subtract(other))
    }

    /// The `count` lowest numbers and what is left without them; `None` when there are fewer.
    #[must_use]
    pub fn take(&self, count: usize) -> Option<(Vec<u16>, Self)> {
        let mut taken = Vec::with_capacity(count);
        let mut rest = Vec::with_capacity(self.0.len());
        for &(low, high) in &self.0 {
            let want = count - taken.len();
            let have = usize::from(high - low) + 1;
            taken.extend((low..=high).take(want));
            if want < have {
                rest.push((low + want as u16, high));
            }
        }
        (taken.len() == count).then_some((taken, Self(rest)))
    }
}

/// Pushes the half-open `from..end`, if there is anything in it.
fn push(ranges: &mut Vec<(u16, u16)>, from: u32, end: u32) {
    if from < end {
        let fits = "bounds come from u16 ranges";
        ranges.push((u16::try_from(from).expect(fits), u16::try_from(end - 1).expect(fits)));
    }
}

impl FromIterator<u16> for Ranges {
    fn from_iter<I: IntoIterator<Item = u16>>(numbers: I) -> Self {
        Self::from_pairs(numbers.into_iter().map(|number| (number, number)))
    }
}

impl FromStr for Ranges {
    type Err = RangesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Ok(Self::new());
        }
        let mut pairs = Vec::new();
        for piece in text.split(',') {
            let wrong = || RangesError::Piece { text: piece.trim().to_owned() };
            let (low, high) = piece.split_once('-').unwrap_or((piece, piece));
            let low: u16 = low.trim().parse().map_err(|_| wrong())?;
            let high: u16 = high.trim().parse().map_err(|_| wrong())?;
            if low > high {
                return Err(RangesError::Reversed { text: piece.trim().to_owned() });
            }
            pairs.push((low, high));
        }
        Ok(Self::from_pairs(pairs))
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (low, high)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            if low == high {
                write!(f, "{comma}{low}")?;
            } else {
                write!(f, "{comma}{low}-{high}")?;
            }
        }
        Ok(())
    }
}
