//! Histories made by hand: one that is right, and one for each way to be wrong.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn object(name: &str, uid: &str, version: Version, mark: &str, color: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "uid": uid, "resourceVersion": version.to_string(),
            "labels": {"group": "a"},
        },
        "spec": {"mark": mark, "color": color},
    })
}

fn call(began_us: u64, ask: Ask, answer: Answer) -> Record {
    let ended_us = began_us + 5;
    Record::Call(Call { client: 1, server: "s".into(), began_us, ended_us, ask, answer })
}

fn create(at: u64, object: &Value) -> Record {
    let ask = Ask::Create { name: name_of(object).into(), mark: mark_of(object).into() };
    call(at, ask, Answer::Object(object.clone()))
}

fn update(at: u64, seen: Version, object: &Value) -> Record {
    let ask = Ask::Update { name: name_of(object).into(), mark: mark_of(object).into(), at: seen };
    call(at, ask, Answer::Object(object.clone()))
}

fn get(at: u64, name: &str, version: Option<Version>, answer: Answer) -> Record {
    call(at, Ask::Get { name: name.into(), at: version }, answer)
}

fn list(at: u64, version: Version, items: &[&Value]) -> Record {
    let ask = Ask::List { selector: Selector::default(), at: None, exact: false };
    let items = items.iter().copied().cloned().collect();
    call(at, ask, Answer::List { version, items })
}

fn refused(code: u16) -> Answer {
    Answer::Refused { code, reason: String::new() }
}

fn event(kind: Kind, version: Version, object: &Value) -> Event {
    let mut object = object.clone();
    if kind == Kind::Deleted {
        object["metadata"]["resourceVersion"] = version.to_string().into();
    }
    Event { at_us: 1_000, kind, version, object }
}

fn bookmark(version: Version) -> Event {
    Event { at_us: 1_000, kind: Kind::Bookmark, version, object: Value::Null }
}

fn watch(from: From, selector: Selector, events: Vec<Event>) -> Watch {
    Watch { client: 2, server: "s".into(), began_us: 0, from, selector, events, witness: false }
}

fn red() -> Selector {
    Selector { label: None, field: Some(("spec.color".into(), "red".into())) }
}

/// The objects of the story that all tests tell: versions 256, 512, 513 and 768; 1024 is the end of
/// the first one, 1280 makes another of its name.
struct Story {
    a1: Value,
    b1: Value,
    a2: Value,
    b2: Value,
    a3: Value,
}

fn story() -> Story {
    Story {
        a1: object("a", "u1", 256, "m1", "red"),
        b1: object("b", "u2", 512, "m2", "red"),
        // Written together with b1.
        a2: object("a", "u1", 513, "m3", "red"),
        b2: object("b", "u2", 768, "m4", "blue"),
        a3: object("a", "u3", 1280, "m5", "red"),
    }
}

fn all_events(story: &Story) -> Vec<Event> {
    vec![
        event(Kind::Added, 256, &story.a1),
        event(Kind::Added, 512, &story.b1),
        event(Kind::Modified, 513, &story.a2),
        event(Kind::Modified, 768, &story.b2),
        event(Kind::Deleted, 1024, &story.a2),
        event(Kind::Added, 1280, &story.a3),
    ]
}

/// The calls of the story, one after the other, and somebody who watched all of it.
fn told(story: &Story) -> Vec<Record> {
    let delete = Ask::Delete { name: "a".into(), uid: None };
    let witness =
        Watch { witness: true, ..watch(From::Version(1), Selector::default(), all_events(story)) };
    vec![
        create(10, &story.a1),
        create(20, &story.b1),
        update(30, 256, &story.a2),
        update(40, 512, &story.b2),
        call(50, delete, Answer::Deleted { uid: "u1".into() }),
        create(60, &story.a3),
        Record::Watch(witness),
    ]
}

#[track_caller]
fn finds(history: &[Record], property: Property) {
    let found = check(history);
    assert!(
        found.iter().any(|violation| violation.property == property),
        "{property:?} is not among {found:#?}"
    );
}

#[track_caller]
fn with(story: &Story, more: impl IntoIterator<Item = Record>) -> Vec<Record> {
    let mut history = told(story);
    history.extend(more);
    history
}

/// The story with one more watch, which must break this promise.
#[track_caller]
fn breaks(property: Property, from: Version, selector: Selector, events: Vec<Event>) {
    let watch = watch(From::Version(from), selector, events);
    finds(&with(&story(), [Record::Watch(watch)]), property);
}

#[test]
fn what_can_have_happened_is_accepted() {
    let story = story();
    let Story { a1, b1, a2, b2, a3 } = &story;
    let left = event(Kind::Deleted, 768, b1);
    let of_red = vec![
        event(Kind::Modified, 513, a2),
        left.clone(),
        bookmark(800),
        event(Kind::Deleted, 1024, a2),
        event(Kind::Added, 1280, a3),
    ];
    let initial = Event { kind: Kind::Initial, ..bookmark(700) };
    let from_state = vec![
        event(Kind::Added, 513, a2),
        event(Kind::Added, 512, b1),
        initial,
        event(Kind::Modified, 768, b2),
        event(Kind::Deleted, 1024, a2),
    ];
    let mark = |mark: &str| Ask::Create { name: "a".into(), mark: mark.into() };
    let history = with(
        &story,
        [
            // Each answer may be of any moment of its call.
            get(12, "a", None, Answer::Object(a1.clone())),
            get(28, "a", None, Answer::Object(a1.clone())),
            get(28, "a", None, Answer::Object(a2.clone())),
            get(90, "a", Some(0), Answer::Object(a1.clone())),
            get(54, "a", None, refused(404)),
            list(45, 800, &[a2, b2]),
            list(70, 1500, &[a3, b2]),
            call(32, mark("x1"), refused(409)),
            call(32, mark("x2"), refused(503)),
            call(41, Ask::Update { name: "b".into(), mark: "x3".into(), at: 512 }, refused(409)),
            call(42, mark("x4"), Answer::Unknown { why: "cut".into() }),
            Record::Watch(watch(From::Version(512), red(), of_red)),
            Record::Watch(watch(From::Initial, Selector::default(), from_state)),
        ],
    );
    assert_eq!(check(&history), []);
}

#[test]
fn a_write_of_unknown_outcome_may_have_landed_but_only_once() {
    let story = story();
    let mut history = told(&story);
    let Record::Call(made) = &mut history[1] else { unreachable!() };
    made.answer = Answer::Unknown { why: "cut".into() };
    assert_eq!(check(&history), []);
    let Record::Call(made) = &mut history[1] else { unreachable!() };
    made.answer = refused(503);
    finds(&history, Property::LinearizableWrites);
    // b2 carries b1's mark: the write landed again.
    let Record::Watch(witness) = &mut history[6] else { unreachable!() };
    witness.events[3].object["spec"]["mark"] = "m2".into();
    history.remove(3);
    let Record::Call(made) = &mut history[1] else { unreachable!() };
    made.answer = Answer::Unknown { why: "cut".into() };
    finds(&history, Property::LinearizableWrites);
}

#[test]
fn lost_updates_and_double_creations_are_found() {
    let story = story();
    let mut history = told(&story);
    history[3] = update(40, 256, &story.b2);
    finds(&history, Property::LinearizableWrites);
    let mut history = told(&story);
    history[2] = create(30, &story.a2);
    finds(&history, Property::LinearizableWrites);
    // A refusal that nothing justifies.
    let ask = Ask::Create { name: "c".into(), mark: "x".into() };
    finds(&with(&story, [call(30, ask, refused(409))]), Property::LinearizableWrites);
    let ask = Ask::Update { name: "a".into(), mark: "x".into(), at: 1280 };
    finds(&with(&story, [call(70, ask, refused(409))]), Property::LinearizableWrites);
    let ask = Ask::Patch { name: "b".into(), mark: "x".into(), color: None };
    finds(&with(&story, [call(30, ask, refused(404))]), Property::LinearizableWrites);
}

#[test]
fn a_deletion_that_nobody_asked_for_or_that_never_came_is_found() {
    let story = story();
    let mut history = told(&story);
    history.remove(4);
    finds(&history, Property::LinearizableWrites);
    let ask = Ask::Delete { name: "b".into(), uid: None };
    let never = call(70, ask, Answer::Deleted { uid: "u2".into() });
    finds(&with(&story, [never]), Property::LinearizableWrites);
}

#[test]
fn writes_out_of_real_time_are_found() {
    let story = story();
    let mut history = told(&story);
    // a2 ends before b1, which has a smaller version, begins.
    let Record::Call(made) = &mut history[1] else { unreachable!() };
    (made.began_us, made.ended_us) = (36, 38);
    finds(&history, Property::LinearizableWrites);
}

#[test]
fn stale_and_torn_reads_are_found() {
    let story = story();
    let Story { a1, a2, b1, b2, a3 } = &story;
    let reads = [
        // The update had been answered before the read began.
        get(37, "a", None, Answer::Object(a1.clone())),
        get(70, "a", None, refused(404)),
        // Older than asked for.
        get(90, "a", Some(1280), Answer::Object(a2.clone())),
        // Half of what was written together.
        list(45, 800, &[a1, b2]),
        list(45, 800, &[b2]),
        list(70, 513, &[a2, b1]),
        list(70, 1500, &[a3, b2, b1]),
    ];
    for read in reads {
        finds(&with(&story, [read]), Property::LinearizableReads);
    }
    // From the future: the version was written by a call that began later.
    finds(
        &with(&story, [get(12, "a", None, Answer::Object(a2.clone()))]),
        Property::LinearizableReads,
    );
    // One version, two contents.
    let mut other = b1.clone();
    other["spec"]["color"] = "green".into();
    finds(&with(&story, [get(22, "b", None, Answer::Object(other))]), Property::LinearizableReads);
}

#[test]
fn ordered() {
    let mut events = all_events(&story());
    events.swap(3, 4);
    breaks(Property::Ordered, 1, Selector::default(), events);
}

#[test]
fn unique() {
    let mut events = all_events(&story());
    events.insert(4, events[3].clone());
    breaks(Property::Unique, 1, Selector::default(), events);
}

#[test]
fn atomic() {
    // 512 and 513 were written together.
    for missing in [1, 2] {
        let mut events = all_events(&story());
        events.remove(missing);
        breaks(Property::Atomic, 1, Selector::default(), events);
    }
}

#[test]
fn reliable() {
    let mut events = all_events(&story());
    events.remove(3);
    breaks(Property::Reliable, 1, Selector::default(), events);
    // A witness that ends too early.
    let mut history = told(&story());
    let Record::Watch(witness) = &mut history[6] else { unreachable!() };
    witness.events.pop();
    finds(&history, Property::Reliable);
}

#[test]
fn resumable() {
    let events = all_events(&story());
    // Begins too late, and too early.
    breaks(Property::Resumable, 256, Selector::default(), events[3..].to_vec());
    breaks(Property::Resumable, 512, Selector::default(), events[1..].to_vec());
}

#[test]
fn bookmarkable() {
    let events = all_events(&story());
    let mut early = events.clone();
    early.insert(2, bookmark(600));
    breaks(Property::Bookmarkable, 1, Selector::default(), early);
    let mut backwards = events;
    backwards.insert(4, bookmark(600));
    breaks(Property::Bookmarkable, 1, Selector::default(), backwards);
}

#[test]
fn filtered() {
    let story = story();
    let blue = vec![event(Kind::Modified, 768, &story.b2)];
    breaks(Property::Filtered, 513, red(), blue);
    let label = Selector { label: Some(("group".into(), "z".into())), field: None };
    breaks(Property::Filtered, 1, label, all_events(&story));
}

#[test]
fn previous_value_right() {
    let story = story();
    // An object that is deleted, and one that leaves the selection: both with a content that was
    // not their last one.
    breaks(Property::PreviousValue, 1000, red(), vec![event(Kind::Deleted, 1024, &story.a1)]);
    breaks(Property::PreviousValue, 700, red(), vec![event(Kind::Deleted, 768, &story.b2)]);
}

#[test]
fn create_flag_right() {
    let story = story();
    let all = Selector::default;
    breaks(Property::CreateFlag, 300, all(), vec![event(Kind::Modified, 512, &story.b1)]);
    breaks(Property::CreateFlag, 512, all(), vec![event(Kind::Added, 513, &story.a2)]);
    let blue = Selector { label: None, field: Some(("spec.color".into(), "blue".into())) };
    breaks(Property::CreateFlag, 600, blue, vec![event(Kind::Modified, 768, &story.b2)]);
}

#[test]
fn an_initial_state_with_something_missing_or_too_old_is_found() {
    let story = story();
    let initial = |version, events: &[Event]| {
        let mut events = events.to_vec();
        events.push(Event { kind: Kind::Initial, ..bookmark(version) });
        watch(From::Initial, Selector::default(), events)
    };
    let some = [event(Kind::Added, 513, &story.a2)];
    finds(&with(&story, [Record::Watch(initial(600, &some))]), Property::Reliable);
    let late = Watch { began_us: 70, ..initial(300, &[event(Kind::Added, 256, &story.a1)]) };
    finds(&with(&story, [Record::Watch(late)]), Property::LinearizableReads);
}

#[test]
fn a_history_can_be_kept_and_read_again() {
    let history = told(&story());
    let mut file = Vec::new();
    write(&history, &mut file).unwrap();
    assert_eq!(file.iter().filter(|byte| **byte == b'\n').count(), history.len());
    assert_eq!(read(&*file).unwrap(), history);
    let broken = read(&b"{}\n"[..]).unwrap_err();
    assert!(format!("{broken:#}").contains("line 1"), "{broken:#}");
}
