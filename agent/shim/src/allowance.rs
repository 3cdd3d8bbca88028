//! How fast a task's output is taken.
//!
//! The shim reads and writes it outside of the task's control group: without a bound, a task with a hundredth of a
//! processor could keep a whole one and a disk busy with what nobody reads. Nothing is lost: a task that says more
//! than this waits, as it would for a slow terminal.

use std::time::{Duration, Instant};

/// So much may come at once: a program's start with everything it has to tell, or a file that is printed.
pub(crate) const BURST_BYTES: i64 = 64 << 20;
/// And then so much each second: an eighth of what a plain disk writes, a hundred times what is ever read.
pub(crate) const BYTES_PER_SECOND: i64 = 16 << 20;
/// When it is used up, reading goes on when there is room for so much: not a wake-up for each few bytes.
const ROOM_BYTES: i64 = 256 << 10;

/// What a task may still say. Both of its streams share one.
#[derive(Debug)]
pub(crate) struct Allowance {
    left_bytes: i64,
    at: Instant,
}

impl Allowance {
    pub(crate) fn new(now: Instant) -> Allowance {
        Allowance { left_bytes: BURST_BYTES, at: now }
    }

    /// Something was read. The last of it may be more than was left.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.left_bytes -= i64::try_from(bytes).unwrap_or(i64::MAX);
    }

    /// How long nothing is to be read; `None`: it may be at once.
    pub(crate) fn rest(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.at);
        let grown =
            i64::try_from(passed.as_micros()).unwrap_or(i64::MAX).saturating_mul(BYTES_PER_SECOND);
        let grown = grown / 1_000_000;
        // What is less than a byte is kept for the next time.
        if grown > 0 {
            self.left_bytes = self.left_bytes.saturating_add(grown).min(BURST_BYTES);
            self.at = now;
        }
        if self.left_bytes > 0 {
            return None;
        }
        let missing = u64::try_from(ROOM_BYTES - self.left_bytes).unwrap_or(u64::MAX);
        Some(Duration::from_micros(missing.saturating_mul(1_000_000) / BYTES_PER_SECOND as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_the_rest_comes_at_its_pace() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert_eq!(allowance.rest(start), None);
        allowance.take(BURST_BYTES as usize);
        let rest = allowance.rest(start).unwrap_or_default();
        assert_eq!(rest, Duration::from_micros(15_625));
        assert_eq!(allowance.rest(start + rest), None);
        // Whoever says nothing for long may say as much as at first, and no more.
        let later = start + Duration::from_secs(3600);
        assert_eq!(allowance.rest(later), None);
        allowance.take(BURST_BYTES as usize);
        assert!(allowance.rest(later).is_some());
    }

    #[test]
    fn looking_often_neither_gains_nor_loses() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let mut taken = 0_u64;
        for micros in (0..2_000_000).step_by(7) {
            if allowance.rest(start + Duration::from_micros(micros)).is_none() {
                allowance.take(64 << 10);
                taken += 64 << 10;
            }
        }
        let most = BURST_BYTES as u64 + 2 * BYTES_PER_SECOND as u64;
        assert!((most - (1 << 20)..=most + (64 << 10)).contains(&taken), "{taken} of {most}");
    }
}
