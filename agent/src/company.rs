//! What tasks of one group mean to each other: they start together, and when one fails or is told to end, so are
//! the others. Pure, like the plan that asks.
//!
//! A group is known by its name as long as nothing of it has started. What starts together is a *round*, written
//! down with each of its tasks; so a name that is used again begins a new round, and what becomes of the old one
//! is no concern of the new.

use std::collections::BTreeSet;

use commonage_schemas::reasons::task as reasons;
use commonage_schemas::{Task, TaskState};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::ledger::{Membership, Uid};
use crate::plan::{Phase, Preparation, Record, Words};
use crate::prepare;
use crate::task::outcome;
use crate::task::spec;

/// Tasks of a group are bound at once; if some are not here by then, they never will be.
const ASSEMBLY_TIMEOUT: SignedDuration = SignedDuration::from_secs(60);
/// Waiting is worth a word after this long.
const SAY_AFTER: SignedDuration = SignedDuration::from_secs(5);

/// What a task's group means for it right now.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Standing {
    /// It may start, or go on. Also of a task without a group.
    #[default]
    Free,
    /// The others are not here, or not ready. To be looked at again then, with what there is to say meanwhile.
    Wait { until: Timestamp, words: Option<Words> },
    /// It is not to start any more, or to end: for programs, and in words.
    Over(Words),
}

/// The tasks of this machine that have one group's name.
#[derive(Clone, Debug)]
pub struct Company<'a>(pub Vec<(&'a Uid, &'a Record)>);

/// Which group a task belongs to; none without one.
pub fn key(task: &Task) -> Option<String> {
    let group = task.spec.group.as_deref()?;
    let framework = task.spec.framework.as_deref().unwrap_or_default();
    Some(format!("{}/{framework}/{group}", task.namespace().unwrap_or_default()))
}

/// The same of a record, also when its Task is gone.
pub fn key_of(record: &Record) -> Option<String> {
    let begun = record.actual.as_ref().and_then(|actual| actual.entry.group.as_ref());
    begun.map(|group| group.key.clone()).or_else(|| key(record.desired.as_ref()?))
}

impl Company<'_> {
    /// How things stand for one of them.
    pub fn standing(&self, uid: &Uid, now: Timestamp) -> Standing {
        let Some((_, me)) = self.0.iter().find(|(other, _)| *other == uid) else {
            return Standing::Free;
        };
        let others = || self.0.iter().filter(|(other, _)| *other != uid);
        if let Some(round) = self.round_of(uid) {
            let mut of_round = others().filter(|(other, _)| self.round_of(other) == Some(round));
            return match of_round.find_map(|(_, other)| blow(other)) {
                Some(why) => Standing::Over(ended(&why)),
                None => Standing::Free,
            };
        }
        let Some(task) = &me.desired else { return Standing::Free };
        let mut waiting = others().filter(|(other, _)| self.round_of(other).is_none());
        // One that failed before this one was made belongs to an attempt of the past.
        let blow = waiting.find_map(|(_, other)| {
            let old = finished_at(other).is_some_and(|at| Some(at) < created_at(task));
            blow(other).filter(|_| !old)
        });
        match blow.map(|why| ended(&why)).or_else(|| self.stranger(task)) {
            Some(words) => Standing::Over(words),
            None => self.assembly(task, now),
        }
    }

    /// What is wrong with a task that wants another network than the first of its group.
    fn stranger(&self, task: &Task) -> Option<Words> {
        let wanted =
            |task: &Task| task.spec.container.network.clone().unwrap_or_else(|| "Host".to_owned());
        let here = self.0.iter().filter(|(_, record)| is_wanted(record) || is_alive(record));
        let tasks = here.filter_map(|(_, record)| record.desired.as_ref());
        let first = tasks.min_by_key(|task| task.name_any())?;
        let (of_first, own) = (wanted(first), wanted(task));
        (of_first != own).then(|| Words {
            reason: reasons::UNSUPPORTED,
            message: format!(
                "spec.container.network: {own:?}, but the tasks of a group share one network, and {} has {of_first:?}",
                first.name_any()
            ),
        })
    }

    /// Whether all that start together are here and ready.
    fn assembly(&self, task: &Task, now: Timestamp) -> Standing {
        let here: Vec<&Record> =
            self.unbegun().into_iter().filter_map(|uid| self.record(uid)).collect();
        let sizes =
            here.iter().filter_map(|record| record.desired.as_ref()?.status.as_ref()?.group_size);
        let size = usize::try_from(sizes.max().unwrap_or(0)).unwrap_or(0);
        let missing = size.saturating_sub(here.len());
        let unready = here.iter().filter(|record| !is_ready(record)).count();
        if missing == 0 && unready == 0 {
            return Standing::Free;
        }
        let since = bound_at(task).unwrap_or(now);
        let (say_at, give_up_at) = (since + SAY_AFTER, since + ASSEMBLY_TIMEOUT);
        let group = task.spec.group.as_deref().unwrap_or_default();
        if missing > 0 && now >= give_up_at {
            let message = format!(
                "of the {size} tasks of group {group:?} only {} came to this agent within {} s",
                here.len(),
                ASSEMBLY_TIMEOUT.as_secs()
            );
            return Standing::Over(Words { reason: reasons::GROUP_INCOMPLETE, message });
        }
        let message = match missing {
            0 => format!("waits until {unready} of group {group:?} are ready to start with it"),
            _ => format!("waits for {missing} more of the {size} tasks of group {group:?}"),
        };
        let words = Words { reason: reasons::GROUP_INCOMPLETE, message };
        match now >= say_at {
            false => Standing::Wait { until: say_at, words: None },
            true => Standing::Wait { until: give_up_at.max(now + SAY_AFTER), words: Some(words) },
        }
    }

    /// The place in a round of a task that is about to be launched.
    pub fn join(&self, uid: &Uid, key: String) -> Membership {
        if let Some(round) = self.round_of(uid) {
            let mut known = self.0.iter().filter_map(|(_, record)| membership(record));
            let members =
                known.find(|group| group.round == *round).map(|group| group.members.clone());
            return Membership { key, round: round.clone(), members: members.unwrap_or_default() };
        }
        let members: Vec<Uid> = self.unbegun().into_iter().cloned().collect();
        // Who comes later joins those who are still well.
        let well = self.0.iter().find_map(|(other, record)| {
            let round = &membership(record).filter(|_| is_alive(record))?.round;
            let blow = |other: &Uid| self.record(other).and_then(blow).is_some();
            let ill = self.0.iter().any(|(one, _)| self.round_of(one) == Some(round) && blow(one));
            Some(round).filter(|_| !ill && *other != uid)
        });
        Membership { key, round: well.unwrap_or(uid).clone(), members }
    }

    /// Who was there when a round began.
    pub fn founders(&self, round: &Uid) -> &[Uid] {
        let first = self.record(round).and_then(membership);
        first.map_or(&[], |group| group.members.as_slice())
    }

    /// Those who have something to live for in a round.
    pub fn rounds_alive(&self) -> BTreeSet<Uid> {
        let alive = self.0.iter().filter(|(_, record)| match &record.actual {
            Some(_) => is_alive(record),
            None => is_wanted(record),
        });
        alive.filter_map(|(uid, _)| self.round_of(uid)).cloned().collect()
    }

    /// Wanted, and not yet part of any round.
    fn unbegun(&self) -> Vec<&Uid> {
        let mut uids: Vec<&Uid> = self
            .0
            .iter()
            .filter(|(uid, record)| is_wanted(record) && self.round_of(uid).is_none())
            .map(|(uid, _)| *uid)
            .collect();
        uids.sort_unstable();
        uids
    }

    fn record(&self, uid: &Uid) -> Option<&Record> {
        self.0.iter().find(|(other, _)| *other == uid).map(|(_, record)| *record)
    }

    /// By its own entry, or by that of one which was launched with it.
    fn round_of(&self, uid: &Uid) -> Option<&Uid> {
        let own = self.record(uid).and_then(membership);
        let of_others = || {
            let all = self.0.iter().filter_map(|(_, record)| membership(record));
            all.into_iter().find(|group| group.members.contains(uid))
        };
        own.or_else(of_others).map(|group| &group.round)
    }
}

fn membership(record: &Record) -> Option<&Membership> {
    record.actual.as_ref()?.entry.group.as_ref()
}

/// What strikes the others of the group too, in words.
fn blow(record: &Record) -> Option<String> {
    let name = |task: &Task| task.name_any();
    if let Some(actual) = &record.actual {
        let name = &actual.entry.name;
        if let Phase::Ended(end) = &actual.phase {
            let status = outcome::of(end, actual.entry.kill.as_ref());
            let reason = status.reason.unwrap_or_default();
            return (status.state != TaskState::Finished)
                .then(|| format!("task {name} of its group is {} ({reason})", status.state));
        }
        return actual.entry.kill.as_ref().map(|kill| {
            format!("task {name} of its group is told to end ({})", outcome::killing(kill).0)
        });
    }
    let task = record.desired.as_ref()?;
    let state = task.state();
    let what = match &record.preparation {
        _ if state == TaskState::Finished => return None,
        _ if state.is_terminal() => state.to_string(),
        _ if task.metadata.deletion_timestamp.is_some() => "deleted".to_owned(),
        _ if task.spec.kill.is_some() => "told to end".to_owned(),
        Preparation::Failed(words) => format!("Failed ({})", words.reason),
        _ if spec::check(task).is_err() => "Error".to_owned(),
        _ => return None,
    };
    Some(format!("task {} of its group is {what}", name(task)))
}

fn ended(why: &str) -> Words {
    Words { reason: reasons::GROUP_ENDED, message: why.to_owned() }
}

fn is_alive(record: &Record) -> bool {
    let phase = record.actual.as_ref().map(|actual| &actual.phase);
    matches!(phase, Some(Phase::Launching { .. } | Phase::Running { .. }))
}

/// Bound to this agent, not begun, and not to be ended.
fn is_wanted(record: &Record) -> bool {
    let Some(task) = record.desired.as_ref().filter(|_| record.actual.is_none()) else {
        return false;
    };
    let state = task.state();
    let waits = state != TaskState::Pending && !state.is_terminal();
    waits && task.metadata.deletion_timestamp.is_none() && task.spec.kill.is_none()
}

fn is_ready(record: &Record) -> bool {
    let task = record.desired.as_ref();
    matches!(record.preparation, Preparation::Ready(_))
        || task.is_some_and(|task| !prepare::is_needed(task))
}

fn finished_at(record: &Record) -> Option<Timestamp> {
    record.desired.as_ref()?.status.as_ref()?.finished_at.as_ref().map(|time| time.0)
}

fn created_at(task: &Task) -> Option<Timestamp> {
    task.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// When it was given this agent: the latest change of its state.
fn bound_at(task: &Task) -> Option<Timestamp> {
    Some(task.status.as_ref()?.history.last()?.time.0)
}

#[cfg(test)]
mod tests;
