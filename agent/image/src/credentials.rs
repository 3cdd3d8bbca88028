//! Who one is to a registry, and where that is written: Docker's `config.json`, which Kubernetes keeps in
//! Secrets of type `kubernetes.io/dockerconfigjson`.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::digest::Digest;

/// A user's name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub username: String,
    /// The password, or what the registry takes for one.
    pub password: String,
}

impl Credentials {
    /// The value of the header `Authorization`.
    pub(crate) fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.username, self.password)))
    }
}

/// Never the password: this ends up in logs.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?})", self.username)
    }
}

/// Tells callers apart without knowing their secrets.
pub(crate) fn fingerprint(credentials: Option<&Credentials>) -> Digest {
    match credentials {
        None => Digest::of(b""),
        Some(known) => Digest::of(format!("{}\0{}", known.username, known.password).as_bytes()),
    }
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// The credentials for a registry in a `config.json` of Docker's.
///
/// # Errors
/// It is no such file; in words, without its content.
pub fn for_registry(config: &[u8], registry: &str) -> Result<Option<Credentials>, String> {
    let config: DockerConfig =
        serde_json::from_slice(config).map_err(|error| format!("not a Docker config: {error}"))?;
    let wanted = host_of(registry);
    let found = config.auths.iter().find(|(name, _)| host_of(name) == wanted);
    let Some((name, auth)) = found else { return Ok(None) };
    if !auth.username.is_empty() {
        let (username, password) = (auth.username.clone(), auth.password.clone());
        return Ok(Some(Credentials { username, password }));
    }
    let bytes = STANDARD.decode(auth.auth.trim());
    let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match text.as_deref().and_then(|text| text.split_once(':')) {
        Some((username, password)) => Ok(Some(Credentials {
            username: username.to_owned(),
            // Docker pads some with zero bytes.
            password: password.trim_end_matches('\0').to_owned(),
        })),
        None => Err(format!("auths[{name:?}].auth is not base64 of USER:PASSWORD")),
    }
}

/// `https://index.docker.io/v1/` is how Docker Hub is called in these files.
fn host_of(name: &str) -> &str {
    let rest = name.split_once("://").map_or(name, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or(rest) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn credentials_are_found_under_every_spelling() {
        let config = br#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"dTpwOnc="},
            "127.0.0.1:5000":{"username":"me","password":"secret"}},"credHelpers":{}}"#;
        let found = for_registry(config, "docker.io").unwrap().unwrap();
        assert_eq!((found.username.as_str(), found.password.as_str()), ("u", "p:w"));
        assert_eq!(for_registry(config, "127.0.0.1:5000").unwrap().unwrap().password, "secret");
        assert_eq!(for_registry(config, "127.0.0.1:5001").unwrap(), None);
        assert!(for_registry(b"[7]", "x").is_err());
        let error = for_registry(br#"{"auths":{"x":{"auth":"%hidden%"}}}"#, "x").unwrap_err();
        assert!(error.contains("auths[\"x\"]") && !error.contains("hidden"), "{error}");
        assert!(!format!("{found:?}").contains("p:w"));
    }
}
