//! The move from kubectl's client-side apply, whose record is an annotation, to server-side apply:
//! only for the manager `kubectl`, as in Kubernetes.

use serde_json::{Map, Value};

use crate::apply::Refused;
use crate::entries::Writer;
use crate::fields;
use crate::types::Type;
use crate::walk;

pub(crate) const MANAGER: &str = "kubectl";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Kubernetes' limit of all annotations together; past it the annotation is dropped.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

fn annotation(object: &Value) -> Option<&str> {
    let text = object.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str()?;
    (!text.is_empty()).then_some(text)
}

/// Conflicts about fields that the annotation says kubectl had applied, with the value they still
/// have, are none.
pub(crate) fn without_allowed(
    root: &Type,
    live: &Value,
    writer: &Writer<'_>,
    refused: Vec<Refused>,
) -> Vec<Refused> {
    let last = annotation(live).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let Some(last) = last.filter(|last| last["apiVersion"].as_str() == Some(writer.api_version))
    else {
        return refused;
    };
    if walk::validate(root, &last, false).is_err() {
        return refused;
    }
    let mut allowed = walk::to_set(root, &last);
    let delta = walk::compare_objects(root, Some(&last), live, &[]);
    for changed in delta.taken.iter().chain(&delta.removed) {
        fields::subtract(&mut allowed, changed);
    }
    let mut left = refused;
    for one in &mut left {
        fields::subtract(&mut one.fields, &allowed);
    }
    left.retain(|one| !one.fields.is_empty());
    left
}

/// Keeps the annotation true, where the object has it: older clients read it.
pub(crate) fn refresh(object: &mut Value, config: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(Value::Object(annotations)) = config.pointer_mut("/metadata/annotations") {
        annotations.remove(ANNOTATION);
    }
    let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") else {
        return;
    };
    annotations.insert(ANNOTATION.into(), go_json(&config).into());
    if bytes(annotations) > ANNOTATIONS_BYTES_MAX {
        annotations.remove(ANNOTATION);
    }
}

fn bytes(annotations: &Map<String, Value>) -> usize {
    let length = |value: &Value| value.as_str().map_or(0, str::len);
    annotations.iter().map(|(name, value)| name.len() + length(value)).sum()
}

/// As Go's encoder writes it: safe inside HTML, with a newline at the end.
fn go_json(value: &Value) -> String {
    let text = value.to_string();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026") + "\n"
}
