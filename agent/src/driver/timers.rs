//! When to look at which task again.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use crate::ledger::Uid;

/// One time per task.
#[derive(Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(Timestamp, Uid)>,
    by_uid: HashMap<Uid, Timestamp>,
}

/// Waits until a time; for ever if there is none.
pub(super) async fn until(time: Option<Timestamp>) {
    match time {
        Some(time) => {
            let wait = time.duration_since(Timestamp::now());
            // Rounded up by a little: a timer that rings too early finds nothing to do.
            let wait = Duration::try_from(wait).unwrap_or_default() + Duration::from_millis(1);
            tokio::time::sleep(wait).await;
        }
        None => std::future::pending().await,
    }
}

impl Timers {
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(time, _)| *time)
    }

    pub(super) fn set(&mut self, uid: &Uid, time: Option<Timestamp>) {
        if let Some(old) = self.by_uid.remove(uid) {
            self.by_time.remove(&(old, uid.clone()));
        }
        if let Some(time) = time {
            self.by_uid.insert(uid.clone(), time);
            self.by_time.insert((time, uid.clone()));
        }
    }

    pub(super) fn due(&mut self, now: Timestamp) -> Vec<Uid> {
        let mut due = Vec::new();
        while let Some((time, uid)) = self.by_time.first().cloned() {
            if time > now {
                break;
            }
            self.set(&uid, None);
            due.push(uid);
        }
        due
    }
}
