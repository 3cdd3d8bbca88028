//! Whether an answer can have been given: by the log, at a moment between request and answer.

use serde_json::Value;

use super::facts::Facts;
use super::{
    Answer, Ask, Call, Findings, Property, Selector, Version, mark_of, uid_of, version_of,
};

/// Codes that say nothing about any object: too busy, too late, the store is away.
const NOT_NOW: [u16; 5] = [410, 429, 503, 504, 507];

pub(super) fn check(call: &Call, facts: &Facts<'_>, findings: &mut Findings) {
    // The moment of the call lies between these.
    let span = Span {
        from: facts.known_before(call.began_us),
        until: facts.possible_until(call.ended_us),
    };
    let is_read = matches!(call.ask, Ask::Get { .. } | Ask::List { .. });
    let wrong = match &call.answer {
        Answer::Unknown { .. } => None,
        Answer::Refused { code, .. } if NOT_NOW.contains(code) => None,
        Answer::Refused { code, reason } => refusal(&call.ask, *code, reason, span, facts),
        _ if is_read => read(call, span, facts),
        _ => write(call, span, facts),
    };
    if let Some(wrong) = wrong {
        let property =
            if is_read { Property::LinearizableReads } else { Property::LinearizableWrites };
        let text = format!(
            "client {} at {} from {} to {} µs, {:?}: {wrong}",
            call.client, call.server, call.began_us, call.ended_us, call.ask
        );
        findings.add(property, text);
    }
}

#[derive(Clone, Copy)]
struct Span {
    from: Version,
    until: Version,
}

impl Span {
    fn outside(self, version: Version) -> Option<String> {
        if version <= self.from {
            return Some(format!("it is at {version}, but {} was known before", self.from));
        }
        (version > self.until)
            .then(|| format!("it is at {version}, but that cannot have been before {}", self.until))
    }
}

fn write(call: &Call, span: Span, facts: &Facts<'_>) -> Option<String> {
    if let (Ask::Delete { .. }, Answer::Deleted { uid }) = (&call.ask, &call.answer) {
        let Some(version) = facts.deletion_of(uid) else {
            return Some(format!("{uid} was said to be deleted, and never was"));
        };
        return span.outside(version);
    }
    let Answer::Object(object) = &call.answer else {
        return Some(format!("the answer does not fit: {:?}", call.answer));
    };
    let version = version_of(object);
    if let Some(outside) = span.outside(version) {
        return Some(outside);
    }
    let (name, mark) = match &call.ask {
        Ask::Create { name, mark } | Ask::Update { name, mark, .. } => (name, mark),
        Ask::Patch { name, mark, .. } => (name, mark),
        _ => return Some("an object answers no delete".to_owned()),
    };
    if mark_of(object) != mark {
        return Some(format!("the answer has the mark {}", mark_of(object)));
    }
    let before = facts.at(name, version - 1);
    match (&call.ask, before) {
        (Ask::Create { .. }, Some(before)) => {
            Some(format!("it existed already, at {}", version_of(before)))
        }
        (Ask::Create { .. }, None) => None,
        (_, None) => Some("it did not exist".to_owned()),
        (Ask::Update { at, .. }, Some(before)) => (version_of(before) != *at)
            .then(|| format!("it was at {}, not at {at}: an update is lost", version_of(before))),
        (Ask::Patch { color, .. }, Some(before)) => {
            let color = color.as_deref().or(before["spec"]["color"].as_str());
            let kept = object["spec"]["color"].as_str() == color
                && object["metadata"]["labels"] == before["metadata"]["labels"];
            (!kept).then(|| format!("the patch of {before} gave {object}"))
        }
        _ => None,
    }
}

/// A refusal is true if at some moment of the call its reason held.
fn refusal(ask: &Ask, code: u16, reason: &str, span: Span, facts: &Facts<'_>) -> Option<String> {
    let ever = |name: &str, holds: &dyn Fn(Option<&Value>) -> bool| {
        facts.states(name, span.from, span.until).any(holds)
    };
    let justified = match (ask, code) {
        (Ask::Create { name, .. }, 409) => ever(name, &|state| state.is_some()),
        (Ask::Update { name, at, .. }, 409) => {
            ever(name, &|state| state.is_none_or(|state| version_of(state) != *at))
        }
        // It was tried as often as the server likes.
        (Ask::Patch { .. }, 409) => true,
        (Ask::Delete { name, uid: Some(uid) }, 409) => {
            ever(name, &|state| state.is_none_or(|state| uid_of(state) != uid))
        }
        (
            Ask::Update { name, .. }
            | Ask::Patch { name, .. }
            | Ask::Delete { name, .. }
            | Ask::Get { name, at: None },
            404,
        ) => ever(name, &|state| state.is_none()),
        (Ask::Get { name, at: Some(at) }, 404) => {
            facts.states(name, *at, span.until).any(|state| state.is_none())
        }
        _ => false,
    };
    (!justified).then(|| format!("it was refused with {code} {reason}, but nothing says so"))
}

fn read(call: &Call, span: Span, facts: &Facts<'_>) -> Option<String> {
    match (&call.ask, &call.answer) {
        (Ask::Get { name, at }, Answer::Object(object)) => {
            let from = at.unwrap_or(span.from);
            let seen = facts.states(name, from, span.until).any(|state| state == Some(object));
            (!seen).then(|| {
                format!("version {} was not to be seen from {from} on", version_of(object))
            })
        }
        (Ask::List { selector, at, exact }, Answer::List { version, items }) => {
            let from = at.unwrap_or(span.from);
            if *version < from || *version > span.until {
                return Some(format!(
                    "the list is at {version}, not from {from} to {}",
                    span.until
                ));
            }
            if *exact && Some(*version) != *at {
                return Some(format!("the list is at {version}, not exactly where it was asked"));
            }
            differences(*version, selector, items, facts)
        }
        (_, answer) => Some(format!("the answer does not fit: {answer:?}")),
    }
}

/// What a list or an initial state at `version` has too much or too little.
pub(super) fn differences(
    version: Version,
    selector: &Selector,
    items: &[Value],
    facts: &Facts<'_>,
) -> Option<String> {
    let all = facts.all_at(version);
    let expected: Vec<&Value> =
        all.into_values().filter(|object| selector.matches(object)).collect();
    if expected.iter().copied().eq(items.iter()) {
        return None;
    }
    let said = |object: &Value| format!("{}@{}", super::name_of(object), version_of(object));
    let there: Vec<String> = items.iter().map(said).collect();
    let expected: Vec<String> = expected.into_iter().map(said).collect();
    Some(format!("at {version} it shows {there:?}, not {expected:?}"))
}
