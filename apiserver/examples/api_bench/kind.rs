//! What the load is made of: a custom kind of its own, with a status and a selectable field.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::{Request, Server};
use crate::watches::{CAUSED_AT_DIGITS, now_ns};

const GROUP: &str = "bench.commonage.dev";
const PLURAL: &str = "loads";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// How long a server may take to serve a new kind.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(30);

/// The size that Kubernetes' own figures are stated for.
pub(crate) const SMALL_BYTES: usize = 256;

/// `/apis/…/loads` of a namespace.
pub(crate) fn collection(namespace: &str) -> String {
    format!("/apis/{GROUP}/v1/namespaces/{namespace}/{PLURAL}")
}

/// What the keys of the kind begin with in our store.
pub(crate) fn key_prefix() -> String {
    format!("/{GROUP}/{PLURAL}/")
}

/// An object whose JSON, as it is sent, has `bytes` bytes; it says when it was made.
pub(crate) fn object(name: &str, agent: &str, bytes: usize) -> String {
    let start = format!(
        r#"{{"apiVersion":"{GROUP}/v1","kind":"Load","metadata":{{"name":"{name}"}},"spec":{{"agent":"{agent}","at":"{:0width$}","filler":""#,
        now_ns(),
        width = CAUSED_AT_DIGITS
    );
    let missing = bytes.saturating_sub(start.len() + 3);
    format!("{start}{:x<missing$}\"}}}}", "")
}

pub(crate) fn create(namespace: &str, body: &str) -> Request {
    Request::new("POST", collection(namespace), body)
}

/// Defines the kind and waits until it is served.
pub(crate) async fn define(server: &Arc<Server>) -> anyhow::Result<()> {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{PLURAL}.{GROUP}")},
        "spec": {
            "group": GROUP,
            "names": {"plural": PLURAL, "singular": "load", "kind": "Load", "listKind": "LoadList"},
            "scope": "Namespaced",
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "selectableFields": [{"jsonPath": ".spec.agent"}],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": {"type": "object", "properties": {
                            "agent": {"type": "string"},
                            "at": {"type": "string"},
                            "filler": {"type": "string"},
                        }},
                        "status": {"type": "object", "properties": {
                            "counter": {"type": "integer"},
                        }},
                    },
                }},
            }],
        },
    });
    made(server, &Request::new("POST", DEFINITIONS, &definition.to_string())).await?;
    let deadline = Instant::now() + ESTABLISHED_WITHIN;
    loop {
        let (status, _) = server.once(&Request::get(collection("default"))).await?;
        if status == 200 {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the kind is not served: {status}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn make_namespace(server: &Arc<Server>, name: &str) -> anyhow::Result<()> {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    made(server, &Request::new("POST", "/api/v1/namespaces", &body.to_string())).await
}

/// Takes away what was made on somebody else's server.
pub(crate) async fn clean_up(server: &Arc<Server>, namespaces: &[&str]) -> anyhow::Result<()> {
    let definition = format!("{DEFINITIONS}/{PLURAL}.{GROUP}");
    let namespaces = namespaces.iter().map(|name| format!("/api/v1/namespaces/{name}"));
    for path in [definition].into_iter().chain(namespaces) {
        let (status, body) = server.once(&Request::new("DELETE", path.as_str(), "")).await?;
        if !matches!(status, 200 | 202 | 404) {
            bail!("DELETE {path}: {status} {}", String::from_utf8_lossy(&body));
        }
    }
    Ok(())
}

/// Sends a create; what is there already, of a run before, will do.
async fn made(server: &Arc<Server>, request: &Request) -> anyhow::Result<()> {
    let (status, body) = server.once(request).await?;
    if !matches!(status, 200 | 201 | 409) {
        bail!("POST {}: {status} {}", request.path, String::from_utf8_lossy(&body));
    }
    Ok(())
}

/// The version at which a watch of the collection begins with what comes next.
pub(crate) async fn version(server: &Arc<Server>, namespace: &str) -> anyhow::Result<String> {
    let (_, body) = server.once(&Request::get(collection(namespace) + "?limit=1")).await?;
    let list: Value = serde_json::from_slice(&body)?;
    Ok(list["metadata"]["resourceVersion"].as_str().context("a list without a version")?.to_owned())
}
