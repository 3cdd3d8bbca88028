//! Ranges of sizes and costs, which never overflow.

/// Characters, items or members; or steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub(super) min: u64,
    pub(super) max: u64,
}

/// What reading a character costs, and a character of a pattern: kube-apiserver's numbers.
pub(super) const PER_CHARACTER: f64 = 0.1;
pub(super) const PER_PATTERN_CHARACTER: f64 = 0.25;

impl Range {
    pub(super) const UNKNOWN: Range = Range { min: 0, max: u64::MAX };
    pub(super) const NONE: Range = Range { min: 0, max: 0 };
    pub(super) const ONE: Range = Range { min: 1, max: 1 };

    pub(super) fn exactly(value: u64) -> Range {
        Range { min: value, max: value }
    }

    pub(super) fn plus(self, other: Range) -> Range {
        Range { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(super) fn times(self, other: Range) -> Range {
        Range { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    /// Rounded up.
    pub(super) fn scaled(self, factor: f64) -> Range {
        // The cast saturates.
        let scale = |value: u64| (value as f64 * factor).ceil() as u64;
        Range { min: scale(self.min), max: scale(self.max) }
    }

    pub(super) fn or(self, other: Range) -> Range {
        Range { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}
