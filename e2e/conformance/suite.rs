//! What a file of cases holds. Unknown words are refused: a misspelt expectation proves nothing.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::combine::Combinations;

/// Variables by name: `{name}` in any text of a case stands for the value.
pub(crate) type Variables = BTreeMap<String, String>;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subject {
    /// From the file's name.
    #[serde(skip)]
    pub(crate) name: String,
    /// Files of `definitions/` to install first. Without them the sets of variables with a
    /// `definition`, or the whole subject if it has no sets, are skipped.
    #[serde(default)]
    pub(crate) definitions: Vec<String>,
    /// Each case runs once with each of these sets of variables; without any, once.
    #[serde(default)]
    pub(crate) each: Vec<Variables>,
    /// Steps that come before those of every case.
    #[serde(default)]
    pub(crate) before: Vec<Step>,
    #[serde(default)]
    pub(crate) cases: Vec<Case>,
    /// Tables of more cases.
    #[serde(default)]
    combinations: Vec<Combinations>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Only with the sets of variables that have this value: `kind: Sample`.
    #[serde(default)]
    pub(crate) only: Variables,
    /// Why it does not hold of our server yet. It is told, and must go once it holds.
    pub(crate) pending: Option<String>,
    /// Without the subject's `before`.
    #[serde(default)]
    pub(crate) bare: bool,
    pub(crate) steps: Vec<Step>,
}

/// One request and its answer, or a look at a stream that an earlier step opened.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// `GET /path?query`.
    pub(crate) request: Option<String>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// Sent as JSON; `Content-Type: application/json` unless the headers say otherwise.
    pub(crate) body: Option<Value>,
    /// Sent as it stands, without a type of its own.
    pub(crate) text: Option<String>,
    /// Without credentials.
    #[serde(default)]
    pub(crate) anonymous: bool,
    /// Asked again until it is as expected, for what happens in the background.
    #[serde(default)]
    pub(crate) eventually: bool,
    /// Keeps the answer open under this name: a watch.
    pub(crate) open: Option<String>,
    /// Reads from the open stream of this name.
    pub(crate) read: Option<String>,
    #[serde(default)]
    pub(crate) expect: Expect,
    /// Variables for the steps to come, from the answer's body by JSON pointer, or (for a text
    /// that begins with `header:`) from a header.
    #[serde(default)]
    pub(crate) save: BTreeMap<String, String>,
}

/// What is not said is not looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) status: Option<u16>,
    /// A value, a placeholder, or null for "not there".
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, Option<String>>,
    /// The answer as JSON (or YAML, if its type says so) has at least this.
    pub(crate) body: Option<Value>,
    /// The answer as JSON is this and no more.
    pub(crate) exactly: Option<Value>,
    /// The answer's bytes.
    pub(crate) text: Option<String>,
    /// Texts that the answer contains.
    #[serde(default)]
    pub(crate) contains: Vec<String>,
    /// Of a stream: the next events, each at least this.
    #[serde(default)]
    pub(crate) events: Vec<Value>,
    /// Of a stream: after these events it ends.
    #[serde(default)]
    pub(crate) ends: bool,
}

impl Subject {
    pub(crate) fn read(file: &Path) -> Subject {
        let text = std::fs::read_to_string(file).unwrap();
        let mut subject: Subject = serde_saphyr::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let combined: Vec<Case> =
            subject.combinations.iter().flat_map(Combinations::cases).collect();
        subject.cases.extend(combined);
        subject.name = file.file_stem().unwrap().to_string_lossy().into_owned();
        subject
    }
}

/// The text with every known `{name}` replaced.
pub(crate) fn filled(text: &str, variables: &Variables) -> String {
    let mut text = text.to_owned();
    for (name, value) in variables {
        text = text.replace(&format!("{{{name}}}"), value);
    }
    text
}

/// As [`filled`], in every text of a tree, names of fields included.
pub(crate) fn filled_tree(value: &Value, variables: &Variables) -> Value {
    match value {
        Value::String(text) => filled(text, variables).into(),
        Value::Array(list) => list.iter().map(|one| filled_tree(one, variables)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, one)| (filled(name, variables), filled_tree(one, variables)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

/// A CustomResourceDefinition of `definitions/`.
pub(crate) fn definition(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/definitions");
    let text = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}
