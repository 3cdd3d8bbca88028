//! Which states the objects of a kind can be in, in the server's own words.

use serde_json::Value;

use crate::{
    errors::{Failure, Result},
    kinds::{self, Kind},
    kubeconfig::Cluster,
};

/// Refuses to wait for a state that no object of the kind is ever in.
pub(super) async fn check(cluster: &Cluster, kind: &Kind, wanted: &[String]) -> Result<()> {
    let root = if kind.group.is_empty() { "api" } else { "apis" };
    let path = format!("/openapi/v3/{root}/{}", kind.api_version());
    // What the server does not tell is no reason not to wait.
    let Ok(document) = kinds::get::<Value>(&cluster.client, &path, "").await else { return Ok(()) };
    let Some(there) = of(&document, kind) else { return Ok(()) };
    let is_there = |word: &&String| there.iter().any(|state| state.eq_ignore_ascii_case(word));
    match wanted.iter().find(|word| !is_there(word)) {
        None => Ok(()),
        Some(word) => {
            let kind = &kind.singular;
            let words = format!("no {kind} is ever {word}");
            Err(match there.is_empty() {
                true => Failure::new(format!("{words}: the kind has no states")).hint(format!(
                    "wait for a condition or a field: `cmn describe {kind}` shows them"
                )),
                false => Failure::new(words).hint(format!("its states: {}", there.join(", "))),
            }
            .exit(2))
        }
    }
}

/// The states of a kind as its schema has them; `None` where it leaves them open.
fn of<'d>(document: &'d Value, kind: &Kind) -> Option<Vec<&'d str>> {
    let is_it = |schema: &&Value| {
        let names = schema["x-kubernetes-group-version-kind"].as_array();
        names.into_iter().flatten().any(|name| {
            name["group"] == *kind.group
                && name["version"] == *kind.version
                && name["kind"] == *kind.kind
        })
    };
    let schema = document["components"]["schemas"].as_object()?.values().find(is_it)?;
    let status = schema["properties"]["status"]["properties"].as_object()?;
    match status.get("state").or(status.get("phase")) {
        None => Some(Vec::new()),
        Some(state) => Some(state["enum"].as_array()?.iter().filter_map(Value::as_str).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
    use serde_json::json;

    #[test]
    fn states_are_read_from_the_schema() {
        let schema = |kind: &str, status: Value| {
            json!({
                "x-kubernetes-group-version-kind": [{"group": "g", "version": "v1", "kind": kind}],
                "properties": {"status": {"properties": status}},
            })
        };
        let document = json!({"components": {"schemas": {
            "a": schema("A", json!({"state": {"enum": ["Running", null]}})),
            "b": schema("B", json!({"phase": {"type": "string"}})),
            "c": schema("C", json!({"conditions": {}})),
        }}});
        let of = |kind: &str| {
            let resource = APIResource { kind: kind.into(), ..APIResource::default() };
            super::of(&document, &Kind::new("g/v1", resource))
        };
        assert_eq!(of("A"), Some(vec!["Running"]));
        assert_eq!(of("B"), None);
        assert_eq!(of("C"), Some(vec![]));
        assert_eq!(of("D"), None);
    }
}
