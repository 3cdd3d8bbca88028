//! Kubeconfig files with everything embedded, as kubectl, kube and client-go read them.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{Identity, PkiError, files};

/// What a kubeconfig is to say.
pub struct Kubeconfig<'a> {
    /// `https://host:port`
    pub server: &'a str,
    pub ca_pem: &'a str,
    pub user: &'a str,
    pub identity: &'a Identity,
}

/// Replaces the file at `path`; readable by its owner alone, since it carries a private key.
pub fn write_kubeconfig(path: &Path, config: &Kubeconfig<'_>) -> Result<(), PkiError> {
    let Kubeconfig { server, ca_pem, user, identity } = config;
    let context = format!("{user}@commonage");
    let document = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "commonage",
            "cluster": {
                "server": server,
                "certificate-authority-data": STANDARD.encode(ca_pem),
            },
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(&identity.certificate_pem),
                "client-key-data": STANDARD.encode(&identity.key_pem),
            },
        }],
        "contexts": [{
            "name": context,
            "context": {"cluster": "commonage", "user": user, "namespace": "default"},
        }],
        "current-context": context,
    });
    // JSON is YAML, but people open this file: keep it in the form they know.
    let text = serde_saphyr::to_string(&document).unwrap_or_else(|_| document.to_string());
    files::write_private(path, &text)
}
