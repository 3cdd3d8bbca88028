//! When what ended tasks have left on the disk goes: their sandboxes and logs.
//!
//! The rule is Mesos' (`gc_delay`, `gc_disk_headroom`): the fuller the disk, the younger what goes, and when it is as
//! full as it may be, all of it. The task's end, its exit code and its place in the ledger stay until its object is
//! deleted; who asks for its log is told that it is gone, and why.

use std::time::Duration;

use jiff::Timestamp;

use crate::ledger::Uid;

/// How long sandboxes are kept, and how full the disk may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sandboxes {
    /// On an empty disk, counted from the task's end. Mesos: a week.
    pub delay: Duration,
    /// The share of the disk from which on the agent takes nothing new, 0 to 1. Kubernetes and Mesos: 0.9.
    pub pressure: f64,
}

impl Default for Sandboxes {
    fn default() -> Sandboxes {
        Sandboxes { delay: Duration::from_secs(7 * 24 * 3600), pressure: 0.9 }
    }
}

impl Sandboxes {
    /// Whether the disk is too full for anything new.
    pub fn is_pressed(&self, used: f64) -> bool {
        used > self.pressure
    }

    /// What ended longer ago than this goes.
    fn age_max(&self, used: f64) -> Duration {
        self.delay.mul_f64((self.pressure - used).clamp(0.0, 1.0))
    }

    /// Those of the ended tasks whose time is over.
    pub fn due(&self, ended: &[(Uid, Timestamp)], used: f64, now: Timestamp) -> Vec<Uid> {
        let age_max = self.age_max(used);
        let is_due = |at: Timestamp| {
            // A clock that was set back makes nobody older.
            Duration::try_from(now.duration_since(at)).is_ok_and(|age| age >= age_max)
        };
        ended.iter().filter(|(_, at)| is_due(*at)).map(|(uid, _)| uid.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_fuller_the_disk_the_younger_is_what_goes() {
        let rule = Sandboxes { delay: Duration::from_secs(1000), pressure: 0.9 };
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let ended = [0, 90, 399, 401, 901].map(|age: i64| {
            (age.to_string(), Timestamp::from_second(1_800_000_000 - age).unwrap())
        });
        let due = |used| rule.due(&ended, used, now).join(" ");
        assert_eq!(due(0.0), "901");
        assert_eq!(due(0.5), "401 901");
        assert_eq!(due(0.8), "399 401 901");
        for full in [0.9, 0.95, 1.0] {
            assert_eq!(due(full), "0 90 399 401 901");
        }
        assert_eq!([0.89, 0.9, 0.91].map(|used| rule.is_pressed(used)), [false, false, true]);
        let tomorrow = vec![("later".to_owned(), Timestamp::from_second(1_800_086_400).unwrap())];
        assert_eq!(rule.due(&tomorrow, 1.0, now), Vec::<String>::new());
    }
}
