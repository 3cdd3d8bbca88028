//! Histories: what clients asked, what they were told, and whether that can have happened.
//!
//! Every answer of the API carries the version at which it is true, so nobody has to search for an
//! order that explains a history: it is replayed by version. [`check`] proves that writes and reads
//! are linearizable, and that every watch keeps the nine promises that etcd's robustness tests
//! hold etcd to, in the words of Kubernetes' watches.
//!
//! Pure: no clock, no network, no cluster. `recorder` beside it makes histories of real ones; a
//! history is a file of JSON lines, so that one that fails can be kept and checked again.
//!
//! The rules of a history: one kind in one namespace that was empty before; every write that puts
//! something carries a mark in `spec.mark` that no other write has; somebody watched everything
//! until the end ([`Watch::witness`]).

mod calls;
mod facts;
#[cfg(test)]
mod tests;
mod watches;

use std::fmt;
use std::io::{BufRead, Write};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use facts::Facts;

/// A `resourceVersion`.
pub type Version = u64;

/// Versions of one revision of the store: what was written together shares the revision.
const VERSIONS_PER_REVISION: u64 = 256;

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Record {
    Call(Call),
    Watch(Watch),
}

/// A request and its answer. Times are microseconds of one clock for all clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    pub client: u32,
    /// Which server was asked; only for whoever reads the history.
    pub server: String,
    pub began_us: u64,
    pub ended_us: u64,
    pub ask: Ask,
    pub answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ask {
    Create {
        name: String,
        mark: String,
    },
    /// Of an object as it was read at `at`.
    Update {
        name: String,
        mark: String,
        at: Version,
    },
    /// A merge patch of the mark and perhaps the colour, whatever the object's version.
    Patch {
        name: String,
        mark: String,
        color: Option<String>,
    },
    Delete {
        name: String,
        /// With a precondition.
        uid: Option<String>,
    },
    /// `at`: none is a consistent read, 0 any state, n a state not older than n.
    Get {
        name: String,
        at: Option<Version>,
    },
    List {
        selector: Selector,
        at: Option<Version>,
        /// Exactly at `at`.
        exact: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    Object(Value),
    /// Gone, and this was its uid.
    Deleted {
        uid: String,
    },
    /// All pages of a list, which were all at this version.
    List {
        version: Version,
        items: Vec<Value>,
    },
    /// Surely nothing was done.
    Refused {
        code: u16,
        reason: String,
    },
    /// It may or may not have been done: the answer did not come.
    Unknown {
        why: String,
    },
}

/// One stream of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    pub client: u32,
    pub server: String,
    pub began_us: u64,
    pub from: From,
    pub selector: Selector,
    pub events: Vec<Event>,
    /// It follows everything to the end: what it has not seen by the end of the history is lost.
    pub witness: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum From {
    /// Everything there is, ended by a bookmark that says so, then what happens.
    Initial,
    /// Everything after this version.
    Version(Version),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub at_us: u64,
    pub kind: Kind,
    pub version: Version,
    /// Of a bookmark and an error: null.
    pub object: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    /// The bookmark that ends the initial state.
    Initial,
    /// 410: the watch cannot be resumed from where it was to begin.
    Error,
}

/// Equality of a label and of a field, where given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selector {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<(String, String)>,
}

impl Selector {
    pub fn is_everything(&self) -> bool {
        self.label.is_none() && self.field.is_none()
    }

    /// Written anew and not taken from the server: that is what is checked.
    pub fn matches(&self, object: &Value) -> bool {
        let label = self
            .label
            .as_ref()
            .is_none_or(|(key, value)| object["metadata"]["labels"][key] == **value);
        let field = self.field.as_ref().is_none_or(|(path, value)| {
            path.split('.').fold(object, |object, part| &object[part]) == value.as_str()
        });
        label && field
    }
}

/// What a history must keep. The nine promises of watches are etcd's, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Property {
    /// Every write landed once, between its request and its answer, on the state it was guarded by;
    /// what was refused did not land, and the refusal was true.
    LinearizableWrites,
    /// Every read shows the state of one moment between its request and its answer.
    LinearizableReads,
    /// Events come in the order of their versions.
    Ordered,
    /// No event comes twice.
    Unique,
    /// What was written together is seen together: a part of a revision is never left out.
    Atomic,
    /// No event between two that were seen is left out.
    Reliable,
    /// A watch from a version begins right behind it.
    Resumable,
    /// A bookmark's version means: everything up to here has been sent, nothing of it will come.
    Bookmarkable,
    /// What does not match the selector is not sent.
    Filtered,
    /// DELETED carries the last state, of an object that leaves the selection too.
    PreviousValue,
    /// ADDED is what is new to this watcher, MODIFIED what it knows, DELETED what it loses.
    CreateFlag,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub property: Property,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.property, self.text)
    }
}

/// What was wrong, collected on the way.
#[derive(Debug, Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, property: Property, text: impl Into<String>) {
        self.0.push(Violation { property, text: text.into() });
    }
}

/// Everything that is wrong with a history; empty if it can have happened.
pub fn check(history: &[Record]) -> Vec<Violation> {
    let mut findings = Findings::default();
    let facts = Facts::of(history, &mut findings);
    for record in history {
        match record {
            Record::Call(call) => calls::check(call, &facts, &mut findings),
            Record::Watch(watch) => watches::check(watch, &facts, &mut findings),
        }
    }
    findings.0
}

/// Writes a history as JSON lines.
pub fn write(history: &[Record], to: &mut impl Write) -> anyhow::Result<()> {
    for record in history {
        serde_json::to_writer(&mut *to, record)?;
        to.write_all(b"\n")?;
    }
    Ok(())
}

/// Reads what [`write`] wrote.
pub fn read(from: impl BufRead) -> anyhow::Result<Vec<Record>> {
    let lines = from.lines().enumerate();
    lines
        .map(|(number, line)| {
            serde_json::from_str(&line?).with_context(|| format!("line {}", number + 1))
        })
        .collect()
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn uid_of(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// What its last writer marked an object with.
pub fn mark_of(object: &Value) -> &str {
    object["spec"]["mark"].as_str().unwrap_or_default()
}

/// The `uid` of metadata, or of the details of a status.
pub fn uid_in(metadata: &Value) -> String {
    metadata["uid"].as_str().unwrap_or_default().to_owned()
}

/// The version that an object says it is at; 0 if it says none.
pub fn version_of(object: &Value) -> Version {
    let version = object["metadata"]["resourceVersion"].as_str();
    version.and_then(|version| version.parse().ok()).unwrap_or(0)
}
