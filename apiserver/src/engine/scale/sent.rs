//! A Scale that a client sent: whether it is one, and the one number in it that counts.

use serde_json::{Map, Value};

use super::super::WriteOptions;
use super::super::commit::judge;
use super::super::update::Attempt;
use super::{API_VERSION, KIND};
use crate::schema::{go, go_types};
use crate::status::ApiError;

/// Where Go's registry of Scales is made: it has no other name.
const SCHEME: &str = "k8s.io/client-go/scale/util.go:133";

/// Why a document is no Scale, in the words of Go's decoder.
#[derive(Debug)]
pub(super) enum Wrong {
    Version(String),
    Kind(String),
    Value(String),
}

impl Wrong {
    /// What a patch that made it hears.
    pub(super) fn why(&self) -> String {
        match self {
            Wrong::Version(given) => {
                format!("no kind {KIND:?} is registered for version {given:?} in scheme {SCHEME:?}")
            }
            Wrong::Kind(given) => {
                format!(
                    "no kind {given:?} is registered for version {API_VERSION:?} in scheme {SCHEME:?}"
                )
            }
            Wrong::Value(why) => why.clone(),
        }
    }
}

/// What who sent it hears.
impl From<Wrong> for ApiError {
    fn from(wrong: Wrong) -> ApiError {
        match &wrong {
            Wrong::Version(given) => ApiError::bad_request(format!(
                "the API version in the data ({given}) does not match the expected API version ({API_VERSION})"
            )),
            Wrong::Kind(given) => undecodable(given, &wrong.why()),
            Wrong::Value(why) => undecodable(KIND, why),
        }
    }
}

impl From<Wrong> for Attempt {
    fn from(wrong: Wrong) -> Attempt {
        ApiError::from(wrong).into()
    }
}

pub(super) fn undecodable(kind: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!("{kind} in version \"v1\" cannot be handled as a Scale: {why}"))
}

/// The number of replicas that are wanted; what has a default may be left out, and is filled in.
pub(super) fn replicas(scale: &mut Value) -> Result<i64, Wrong> {
    let Some(members) = scale.as_object_mut() else {
        let what = go::json_type(scale);
        return Err(Wrong::Value(format!(
            "json: cannot unmarshal {what} into Go value of type v1.Scale"
        )));
    };
    for (field, wanted) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        let given = members.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        match given.as_str() {
            "" => drop(members.insert(field.to_owned(), wanted.into())),
            given if given == wanted => {}
            given if field == "apiVersion" => return Err(Wrong::Version(given.to_owned())),
            given => return Err(Wrong::Kind(given.to_owned())),
        }
    }
    match go_types::mismatch(KIND, scale) {
        Some(why) => Err(Wrong::Value(why)),
        None => Ok(scale["spec"]["replicas"].as_i64().unwrap_or_default()),
    }
}

/// Warnings about what was `found` in the text and about fields that no Scale has.
///
/// # Errors
/// What `refuse` makes of them, where the client wants to be refused.
pub(super) fn judged(
    scale: &Value,
    mut found: Vec<String>,
    options: &WriteOptions,
    refuse: impl FnOnce(String) -> ApiError,
) -> Result<Vec<String>, ApiError> {
    let empty = Map::new();
    for (part, known) in [
        ("", &["apiVersion", "kind", "metadata", "spec", "status"][..]),
        ("spec", &["replicas"]),
        ("status", &["replicas", "selector"]),
    ] {
        let members = if part.is_empty() { scale } else { &scale[part] };
        for name in members.as_object().unwrap_or(&empty).keys() {
            if !known.contains(&name.as_str()) {
                let dot = if part.is_empty() { "" } else { "." };
                found.push(format!("unknown field \"{part}{dot}{name}\""));
            }
        }
    }
    judge(found, options, refuse)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_sent_is_checked() {
        let refused = |mut scale: Value| ApiError::from(replicas(&mut scale).unwrap_err()).message;
        assert_eq!(replicas(&mut json!({"spec": {"replicas": 5}})).unwrap(), 5);
        assert_eq!(replicas(&mut json!({})).unwrap(), 0);
        assert!(
            refused(json!({"apiVersion": "v1"})).starts_with("the API version in the data (v1)")
        );
        assert_eq!(
            refused(json!({"spec": {"replicas": "5"}})),
            "Scale in version \"v1\" cannot be handled as a Scale: json: cannot unmarshal string into Go struct field \
             ScaleSpec.spec.replicas of type int32"
        );
    }
}
