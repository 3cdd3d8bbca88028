//! What happened, put together from everything that anybody was told: the log of changes, and
//! between which versions each call took effect.
//!
//! Whoever contradicts somebody else is found here; whoever contradicts the log, in `calls` and
//! `watches`.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::{
    Answer, Ask, Call, Event, Findings, From, Kind, Property, Record, Version, mark_of, name_of,
    uid_of, version_of,
};

/// One change: what the object was from then on, or that it was gone.
#[derive(Clone, Debug)]
pub(super) struct Change<'h> {
    pub(super) name: &'h str,
    pub(super) object: Option<&'h Value>,
}

#[derive(Debug, Default)]
pub(super) struct Facts<'h> {
    pub(super) changes: BTreeMap<Version, Change<'h>>,
    /// The versions at which each name changed, in order.
    names: HashMap<&'h str, Vec<Version>>,
    /// Where each uid ended.
    deletions: HashMap<&'h str, Version>,
    /// The greatest version that anybody knew by then, by time.
    known: Vec<(u64, Version)>,
    /// The smallest version of the writes that were begun then or later, by time.
    begun: Vec<(u64, Version)>,
}

impl<'h> Facts<'h> {
    pub(super) fn of(history: &'h [Record], findings: &mut Findings) -> Facts<'h> {
        let mut facts = Facts::default();
        for record in history {
            facts.gather_puts(record, findings);
        }
        for record in history {
            facts.gather_deletions(record, findings);
        }
        for (version, change) in &facts.changes {
            facts.names.entry(change.name).or_default().push(*version);
        }
        facts.check_lives(findings);
        facts.attribute(history, findings);
        facts.order(history);
        facts
    }

    fn gather_puts(&mut self, record: &'h Record, findings: &mut Findings) {
        match record {
            Record::Call(call) => match &call.answer {
                Answer::Object(object) => self.put(object, findings),
                Answer::List { items, .. } => {
                    items.iter().for_each(|item| self.put(item, findings));
                }
                _ => {}
            },
            Record::Watch(watch) => {
                for event in &watch.events {
                    if matches!(event.kind, Kind::Added | Kind::Modified) {
                        self.put(&event.object, findings);
                    }
                }
            }
        }
    }

    fn put(&mut self, object: &'h Value, findings: &mut Findings) {
        let change = Change { name: name_of(object), object: Some(object) };
        let version = version_of(object);
        let first = self.changes.entry(version).or_insert_with(|| change.clone());
        if first.object != Some(object) {
            let text = format!(
                "two objects at version {version}: {object} and {}",
                first.object.unwrap_or(&Value::Null)
            );
            findings.add(Property::LinearizableReads, text);
        }
    }

    /// After all puts: what is DELETED for a watcher with a selector may only have left it.
    fn gather_deletions(&mut self, record: &'h Record, findings: &mut Findings) {
        let Record::Watch(watch) = record else { return };
        for event in watch.events.iter().filter(|event| event.kind == Kind::Deleted) {
            let change = Change { name: name_of(&event.object), object: None };
            let known = self.changes.entry(event.version).or_insert_with(|| change.clone());
            if known.name != change.name {
                let text =
                    format!("version {} is {} and {}", event.version, known.name, change.name);
                findings.add(Property::LinearizableReads, text);
            } else if known.object.is_some() && watch.selector.is_everything() {
                let text = format!(
                    "{} was deleted at {} for one and changed for another",
                    change.name, event.version
                );
                findings.add(Property::LinearizableReads, text);
            }
        }
    }

    /// Each object lives once: created, changed, deleted.
    fn check_lives(&mut self, findings: &mut Findings) {
        let mut uids: HashSet<&str> = HashSet::new();
        for (name, versions) in &self.names {
            let mut alive: Option<&'h Value> = None;
            for version in versions {
                let now = self.changes[version].object;
                match (alive, now) {
                    (None, None) => findings.add(
                        Property::LinearizableWrites,
                        format!("{name} was deleted at {version} while it did not exist"),
                    ),
                    (None, Some(now)) if !uids.insert(uid_of(now)) => findings.add(
                        Property::LinearizableWrites,
                        format!("{name} came back at {version} with a uid that had ended"),
                    ),
                    (Some(before), Some(now)) if uid_of(before) != uid_of(now) => findings.add(
                        Property::LinearizableWrites,
                        format!("{name} became another at {version} without being deleted"),
                    ),
                    (Some(before), None) => {
                        self.deletions.insert(uid_of(before), *version);
                    }
                    _ => {}
                }
                alive = now;
            }
        }
    }

    /// Each change was asked for by somebody who was not told that it was refused.
    fn attribute(&self, history: &'h [Record], findings: &mut Findings) {
        let mut puts: HashMap<&str, &Call> = HashMap::new();
        let mut deletes: HashSet<&str> = HashSet::new();
        let calls = history.iter().filter_map(|record| match record {
            Record::Call(call) => Some(call),
            Record::Watch(_) => None,
        });
        for call in calls {
            match (&call.ask, &call.answer) {
                (
                    Ask::Create { mark, .. } | Ask::Update { mark, .. } | Ask::Patch { mark, .. },
                    _,
                ) => {
                    puts.insert(mark, call);
                }
                (Ask::Delete { name, .. }, Answer::Unknown { .. }) => {
                    deletes.insert(name);
                }
                (Ask::Delete { .. }, Answer::Deleted { uid }) => {
                    deletes.insert(uid);
                }
                _ => {}
            }
        }
        let mut used: HashSet<&str> = HashSet::new();
        let deletions: HashMap<Version, &str> =
            self.deletions.iter().map(|(uid, version)| (*version, *uid)).collect();
        for (version, change) in &self.changes {
            let what = change.name;
            let Some(object) = change.object else {
                let uid = deletions.get(version).copied().unwrap_or_default();
                if !deletes.contains(uid) && !deletes.contains(what) {
                    let text = format!("nobody deleted {what}, but it went at {version}");
                    findings.add(Property::LinearizableWrites, text);
                }
                continue;
            };
            let mark = mark_of(object);
            let wrong = match puts.get(mark) {
                None => Some("nobody wrote it".to_owned()),
                Some(Call { answer: Answer::Refused { code, .. }, .. }) => {
                    Some(format!("it was refused with {code}"))
                }
                Some(Call { answer: Answer::Object(told), .. }) if version_of(told) != *version => {
                    Some(format!("its writer was told version {}", version_of(told)))
                }
                Some(_) if !used.insert(mark) => Some("it landed before".to_owned()),
                Some(_) => None,
            };
            if let Some(wrong) = wrong {
                let text = format!("{what} has mark {mark} at {version}, but {wrong}");
                findings.add(Property::LinearizableWrites, text);
            }
        }
    }

    /// Who knew what, and when: for real time.
    fn order(&mut self, history: &'h [Record]) {
        let landed: HashMap<&str, Version> = self
            .changes
            .iter()
            .filter_map(|(version, change)| Some((mark_of(change.object?), *version)))
            .collect();
        for record in history {
            match record {
                Record::Call(call) => {
                    if let Some(version) = self.told(call) {
                        self.known.push((call.ended_us, version));
                    }
                    let version = match &call.ask {
                        Ask::Create { mark, .. }
                        | Ask::Update { mark, .. }
                        | Ask::Patch { mark, .. } => landed.get(mark.as_str()).copied(),
                        Ask::Delete { .. } => self.told(call),
                        _ => None,
                    };
                    if let Some(version) = version {
                        self.begun.push((call.began_us, version));
                    }
                }
                Record::Watch(watch) => {
                    let seen = |event: &Event| match (watch.from, event.kind) {
                        (_, Kind::Error) => None,
                        _ => Some((event.at_us, event.version)),
                    };
                    self.known.extend(watch.events.iter().filter_map(seen));
                }
            }
        }
        self.known.sort_unstable();
        let mut greatest = 0;
        for (_, version) in &mut self.known {
            greatest = greatest.max(*version);
            *version = greatest;
        }
        self.begun.sort_unstable();
        let mut smallest = Version::MAX;
        for (_, version) in self.begun.iter_mut().rev() {
            smallest = smallest.min(*version);
            *version = smallest;
        }
    }

    /// The version that an answer tells.
    fn told(&self, call: &Call) -> Option<Version> {
        match &call.answer {
            Answer::Object(object) => Some(version_of(object)),
            Answer::List { version, .. } => Some(*version),
            Answer::Deleted { uid } => self.deletion_of(uid),
            Answer::Refused { .. } | Answer::Unknown { .. } => None,
        }
    }

    pub(super) fn deletion_of(&self, uid: &str) -> Option<Version> {
        self.deletions.get(uid).copied()
    }

    /// Somebody knew this version before `time_us`: whoever begins then must not be behind it.
    pub(super) fn known_before(&self, time_us: u64) -> Version {
        let later = self.known.partition_point(|(at, _)| *at < time_us);
        later.checked_sub(1).map_or(0, |last| self.known[last].1)
    }

    /// The versions that existed before `time_us`, at most up to this one: what was begun after it
    /// cannot have been seen.
    pub(super) fn possible_until(&self, time_us: u64) -> Version {
        let later = self.begun.partition_point(|(at, _)| *at <= time_us);
        self.begun.get(later).map_or(Version::MAX, |(_, version)| version - 1)
    }

    /// The object of this name as it was at `version`.
    pub(super) fn at(&self, name: &str, version: Version) -> Option<&'h Value> {
        let versions = self.names.get(name)?;
        let later = versions.partition_point(|at| *at <= version);
        self.changes[&versions[later.checked_sub(1)?]].object
    }

    /// Each state that this name was in from `from` to `until`.
    pub(super) fn states(
        &self,
        name: &str,
        from: Version,
        until: Version,
    ) -> impl Iterator<Item = Option<&'h Value>> {
        let versions = self.names.get(name).map_or(&[][..], Vec::as_slice);
        let within = versions.iter().filter(move |at| **at > from && **at <= until);
        std::iter::once(self.at(name, from)).chain(within.map(|at| self.changes[at].object))
    }

    /// Everything as it was at `version`, by name.
    pub(super) fn all_at(&self, version: Version) -> BTreeMap<&'h str, &'h Value> {
        let names = self.names.keys();
        names.filter_map(|name| Some((*name, self.at(name, version)?))).collect()
    }
}

/// Where a watch's own events may begin.
pub(super) fn start_of(from: From) -> Version {
    match from {
        From::Initial => 0,
        From::Version(version) => version,
    }
}
