//! Whether a watch kept its promises: its events against those that the log has for it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::calls::differences;
use super::facts::{Facts, start_of};
use super::{
    Event, Findings, From, Kind, Property, Selector, VERSIONS_PER_REVISION, Version, Watch,
    name_of, version_of,
};

/// What a watcher with this selector has to see of one change.
struct Due<'h> {
    kind: Kind,
    name: &'h str,
    /// As it is sent, but that a deletion's has the deletion's version.
    object: &'h Value,
}

pub(super) fn check(watch: &Watch, facts: &Facts<'_>, findings: &mut Findings) {
    let mut wrong = |property, text: String| {
        let text = format!(
            "client {} at {} watching {:?} {:?}: {text}",
            watch.client, watch.server, watch.from, watch.selector
        );
        findings.add(property, text);
    };
    let mut events = &*watch.events;
    let mut start = start_of(watch.from);
    if watch.from == From::Initial {
        let Some(end) = events.iter().position(|event| event.kind == Kind::Initial) else {
            return;
        };
        start = events[end].version;
        check_initial(watch, &events[..end], start, facts, &mut wrong);
        events = &events[end + 1..];
    }
    let due = due(&watch.selector, start, facts);
    let mut follower = Follower { start, last: start, begun: false, due, wrong: &mut wrong };
    for event in events {
        follower.see(event, watch, facts);
    }
    if watch.witness {
        let missing: Vec<Version> = follower.due.keys().copied().collect();
        if !missing.is_empty() {
            wrong(Property::Reliable, format!("until the end it did not see {missing:?}"));
        }
    }
}

/// The initial state is a list that arrives as events.
fn check_initial(
    watch: &Watch,
    events: &[Event],
    version: Version,
    facts: &Facts<'_>,
    wrong: &mut dyn FnMut(Property, String),
) {
    let known = facts.known_before(watch.began_us);
    if version < known {
        wrong(
            Property::LinearizableReads,
            format!("it begins with the state of {version}, but {known} was known before"),
        );
    }
    if let Some(event) = events.iter().find(|event| event.kind != Kind::Added) {
        wrong(Property::CreateFlag, format!("{:?} in the initial state", event.kind));
    }
    let stray = events
        .iter()
        .find(|event| !event.object.is_null() && !watch.selector.matches(&event.object));
    if let Some(stray) = stray {
        wrong(Property::Filtered, format!("{} does not match", name_of(&stray.object)));
    }
    let mut items: Vec<Value> = events.iter().map(|event| event.object.clone()).collect();
    items.sort_by(|a, b| name_of(a).cmp(name_of(b)));
    if let Some(difference) = differences(version, &watch.selector, &items, facts) {
        wrong(Property::Reliable, difference);
    }
}

fn due<'h>(selector: &Selector, start: Version, facts: &Facts<'h>) -> BTreeMap<Version, Due<'h>> {
    let later = facts.changes.range(start + 1..);
    later
        .filter_map(|(version, change)| {
            let name = change.name;
            let before = facts.at(name, version - 1).filter(|object| selector.matches(object));
            let now = change.object.filter(|object| selector.matches(object));
            let (kind, object) = match (before, now) {
                (None, None) => return None,
                (None, Some(now)) => (Kind::Added, now),
                (Some(_), Some(now)) => (Kind::Modified, now),
                (Some(before), None) => (Kind::Deleted, before),
            };
            Some((*version, Due { kind, name, object }))
        })
        .collect()
}

struct Follower<'h, 'w> {
    start: Version,
    /// Of the last event or bookmark.
    last: Version,
    /// An event has come.
    begun: bool,
    /// Not seen yet.
    due: BTreeMap<Version, Due<'h>>,
    wrong: &'w mut dyn FnMut(Property, String),
}

impl Follower<'_, '_> {
    fn see(&mut self, event: &Event, watch: &Watch, facts: &Facts<'_>) {
        match event.kind {
            Kind::Error => {}
            Kind::Bookmark | Kind::Initial => self.see_bookmark(event.version),
            _ => self.see_change(event, watch, facts),
        }
    }

    fn see_bookmark(&mut self, version: Version) {
        if version < self.last {
            let text = format!("a bookmark of {version} after {}", self.last);
            (self.wrong)(Property::Bookmarkable, text);
        }
        let rest = self.due.split_off(&(version + 1));
        let missed = std::mem::replace(&mut self.due, rest);
        if !missed.is_empty() {
            let missed: Vec<Version> = missed.into_keys().collect();
            let text = format!("a bookmark of {version}, but {missed:?} were not sent");
            (self.wrong)(Property::Bookmarkable, text);
        }
        self.last = self.last.max(version);
    }

    fn see_change(&mut self, event: &Event, watch: &Watch, facts: &Facts<'_>) {
        let version = event.version;
        let name = name_of(&event.object);
        if version <= self.last {
            self.see_late(event, watch);
            return;
        }
        let rest = self.due.split_off(&version);
        let missed = std::mem::replace(&mut self.due, rest);
        for missed in missed.into_keys() {
            let revision = |version: Version| version / VERSIONS_PER_REVISION;
            let (property, what) = if revision(missed) == revision(version)
                || (self.begun && revision(missed) == revision(self.last))
            {
                (Property::Atomic, "of the same revision as another that was sent")
            } else if self.begun {
                (Property::Reliable, "between two that were sent")
            } else {
                (Property::Resumable, "before the first that was sent")
            };
            (self.wrong)(property, format!("{missed} is missing, {what}, before {version}"));
        }
        (self.last, self.begun) = (version, true);
        let Some(due) = self.due.remove(&version) else {
            let change = facts.changes.get(&version);
            let text =
                format!("{:?} {name} at {version}, where the log has {change:?}", event.kind);
            (self.wrong)(Property::Filtered, text);
            return;
        };
        if due.kind != event.kind {
            let property = match due.kind {
                // What has left the selection is shown as if it were in it.
                Kind::Deleted => Property::Filtered,
                _ => Property::CreateFlag,
            };
            let text = format!("{:?} {name} at {version}, not {:?}", event.kind, due.kind);
            (self.wrong)(property, text);
        } else if due.name != name || !same(&event.object, due.object, version) {
            let property = match due.kind {
                Kind::Deleted => Property::PreviousValue,
                _ => Property::LinearizableReads,
            };
            let text =
                format!("{:?} at {version} has {}, not {}", due.kind, event.object, due.object);
            (self.wrong)(property, text);
        }
    }

    fn see_late(&mut self, event: &Event, watch: &Watch) {
        let version = event.version;
        let before = watch.events.iter().take_while(|earlier| !std::ptr::eq(*earlier, event));
        let mut changes = before.filter(|earlier| !earlier.object.is_null());
        let (property, what) = if version <= self.start {
            (Property::Resumable, "which is not after its start")
        } else if changes.any(|earlier| earlier.version == version) {
            (Property::Unique, "a second time")
        } else if before_bookmark(watch, event) {
            (Property::Bookmarkable, "which a bookmark had promised to be over")
        } else {
            (Property::Ordered, "which is older than the one before it")
        };
        (self.wrong)(property, format!("an event of {version}, {what}"));
    }
}

/// Whether the greatest version before this event was a bookmark's.
fn before_bookmark(watch: &Watch, event: &Event) -> bool {
    let before = watch.events.iter().take_while(|earlier| !std::ptr::eq(*earlier, event));
    let greatest = before.max_by_key(|earlier| earlier.version);
    greatest.is_some_and(|earlier| earlier.kind == Kind::Bookmark)
}

/// A deletion's object has the deletion's version and is otherwise the last state.
fn same(sent: &Value, expected: &Value, version: Version) -> bool {
    if version_of(sent) != version {
        return false;
    }
    let mut sent = sent.clone();
    sent["metadata"]["resourceVersion"] = expected["metadata"]["resourceVersion"].clone();
    sent == *expected
}
