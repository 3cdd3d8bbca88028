//! Encryption at rest: which kinds are encrypted in the store, with which keys.
//!
//! Read from kube-apiserver's EncryptionConfiguration, and stored in its form: a value begins with
//! the name of what encrypted it (`k8s:enc:aesgcm:v1:key1:`), so that every provider of the
//! configuration is tried on its own values only. The first provider of a kind encrypts. With `aesgcm`
//! values stand for their keys: one that is moved to another key cannot be decrypted.

mod cipher;
mod config;
mod store;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use parking_lot::Mutex;
use ring::rand::SystemRandom;

use cipher::Cipher;

pub(crate) use store::{EncryptedStore, UNDECIPHERABLE};

use crate::timed_store::{kind_of, resource};

/// What every encrypted value begins with.
pub(crate) const ENCRYPTED: &[u8] = b"k8s:enc:";
/// The longer nonce and a tag.
const SEAL_BYTES_MAX: usize = 24 + 16;

/// What is encrypted, and how.
pub(crate) struct Encryption {
    rules: Vec<Rule>,
    random: SystemRandom,
    /// Keys of the store whose values are not as the first provider would have them.
    stale: Mutex<std::collections::HashSet<Bytes>>,
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the keys.
        f.debug_struct("Encryption").field("rules", &self.rules.len()).finish_non_exhaustive()
    }
}

/// The first rule that names a resource is its.
struct Rule {
    resources: Vec<String>,
    providers: Vec<Provider>,
}

enum Provider {
    /// `prefix` is that of its values: `k8s:enc:aesgcm:v1:key1:`.
    Sealed { prefix: String, cipher: Cipher },
    /// As it is.
    Identity,
}

/// A value that no provider can decrypt; says which key would.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Undecipherable {
    #[error("no provider of the encryption configuration has its key ({0})")]
    NoKey(String),
    #[error(
        "the key {0} does not decrypt it: it is another key, or the value was changed or moved"
    )]
    WrongKey(String),
}

impl Encryption {
    /// # Errors
    /// The file can't be read, or is not a configuration that this server understands.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Arc<Encryption>> {
        let about = || format!("the encryption configuration {}", path.display());
        let text = std::fs::read_to_string(path).with_context(about)?;
        let mode = std::fs::metadata(path).with_context(about)?.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!(
                "{} holds keys and is readable for others (mode {:o}): chmod 600",
                path.display(),
                mode & 0o777
            );
        }
        Encryption::parse(&text).map(Arc::new).with_context(about)
    }

    /// What it names that none of these resources (`secrets`, `tasks.commonage.dev`) is.
    pub(crate) fn unknown<'a>(&'a self, resources: &[String]) -> Vec<&'a str> {
        let named = self.rules.iter().flat_map(|rule| &rule.resources).map(String::as_str);
        named.filter(|one| !resources.iter().any(|resource| is(one, resource))).collect()
    }

    fn parse(text: &str) -> anyhow::Result<Encryption> {
        let rules = config::rules(text)?;
        Ok(Encryption { rules, random: SystemRandom::new(), stale: Mutex::default() })
    }

    fn providers(&self, key: &[u8]) -> Option<&[Provider]> {
        let named = resource(kind_of(key));
        if named.is_empty() {
            return None;
        }
        let rule = self.rules.iter().find(|rule| rule.resources.iter().any(|one| is(one, &named)));
        rule.map(|rule| rule.providers.as_slice())
    }

    /// As it is to lie in the store.
    fn encrypt(&self, key: &[u8], value: Bytes) -> Bytes {
        match self.providers(key).and_then(<[Provider]>::first) {
            Some(Provider::Sealed { prefix, cipher }) => {
                let mut sealed = Vec::with_capacity(prefix.len() + value.len() + SEAL_BYTES_MAX);
                sealed.extend_from_slice(prefix.as_bytes());
                cipher.seal(&self.random, key, &value, &mut sealed);
                sealed.into()
            }
            Some(Provider::Identity) | None => value,
        }
    }

    /// As it was before it was stored.
    fn decrypt(&self, key: &Bytes, value: Bytes) -> Result<Bytes, Undecipherable> {
        let providers = self.providers(key);
        if !value.starts_with(ENCRYPTED) {
            if let Some(providers) = providers {
                self.note(key, matches!(providers.first(), Some(Provider::Identity)));
            }
            return Ok(value);
        }
        // A kind that is named no more may still have encrypted values.
        let all = self.rules.iter().flat_map(|rule| &rule.providers);
        let own = providers.unwrap_or_default();
        let found = own.iter().chain(all).find_map(|provider| match provider {
            Provider::Sealed { prefix, cipher } if value.starts_with(prefix.as_bytes()) => {
                Some((prefix, cipher))
            }
            _ => None,
        });
        let Some((prefix, cipher)) = found else {
            let end = value.iter().enumerate().filter(|(_, byte)| **byte == b':').nth(4);
            let end = end.map_or(ENCRYPTED.len(), |(at, _)| at + 1);
            let named = String::from_utf8_lossy(&value[..end]).into_owned();
            return Err(Undecipherable::NoKey(named));
        };
        let open = cipher.open(key, &value[prefix.len()..]);
        let open = open.ok_or_else(|| Undecipherable::WrongKey(prefix.clone()))?;
        let first =
            matches!(own.first(), Some(Provider::Sealed { prefix: first, .. }) if first == prefix);
        self.note(key, first);
        Ok(open.into())
    }

    fn note(&self, key: &Bytes, is_current: bool) {
        let mut stale = self.stale.lock();
        match is_current {
            true => drop(stale.remove(key)),
            false => drop(stale.insert(Bytes::copy_from_slice(key))),
        }
    }

    /// Whether the value is to be written again, though it says the same.
    pub(crate) fn is_stale(&self, key: &[u8]) -> bool {
        self.stale.lock().contains(key)
    }
}

/// Whether what a configuration names (`secrets`, `tasks.commonage.dev`, `*.commonage.dev`, `*.*`)
/// is this resource.
fn is(pattern: &str, resource: &str) -> bool {
    let group = resource.split_once('.').map_or("", |(_, group)| group);
    match pattern.strip_prefix("*.") {
        Some("*") => true,
        Some(of_group) => of_group == group,
        None => pattern == resource,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(super) fn configuration(keys: &[(&str, u8)], identity: bool) -> String {
        use base64::Engine as _;
        let mut text = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
                        resources:\n- resources: [secrets, '*.example.com']\n  providers:\n"
            .to_owned();
        for (name, byte) in keys {
            let secret = base64::engine::general_purpose::STANDARD.encode([*byte; 32]);
            text.push_str(&format!(
                "  - aesgcm:\n      keys:\n      - {{name: {name}, secret: {secret}}}\n"
            ));
        }
        if identity {
            text.push_str("  - identity: {}\n");
        }
        text
    }

    #[test]
    fn values_come_back_and_keys_turn() {
        let key = Bytes::from_static(b"/core/secrets/default/s");
        let old = Encryption::parse(&configuration(&[("old", 1)], false)).unwrap();
        let value = Bytes::from_static(b"{\"kind\":\"Secret\"}");
        let stored = old.encrypt(&key, value.clone());
        assert!(stored.starts_with(b"k8s:enc:aesgcm:v1:old:"));
        assert_ne!(stored, old.encrypt(&key, value.clone()), "each has a nonce of its own");
        assert_eq!(old.decrypt(&key, stored.clone()).unwrap(), value);
        assert!(!old.is_stale(&key));

        let both = Encryption::parse(&configuration(&[("new", 2), ("old", 1)], true)).unwrap();
        assert_eq!(both.decrypt(&key, stored.clone()).unwrap(), value);
        assert!(both.is_stale(&key));
        let again = both.encrypt(&key, value.clone());
        assert!(again.starts_with(b"k8s:enc:aesgcm:v1:new:"));
        assert_eq!(both.decrypt(&key, again).unwrap(), value);
        assert!(!both.is_stale(&key));
        assert_eq!(both.decrypt(&key, value.clone()).unwrap(), value, "what was plain is read");
        assert!(both.is_stale(&key));
    }

    #[test]
    fn what_cannot_be_decrypted_says_which_key_is_missing() {
        let key = Bytes::from_static(b"/core/secrets/default/s");
        let elsewhere = Bytes::from_static(b"/core/secrets/default/t");
        let one = Encryption::parse(&configuration(&[("one", 1)], false)).unwrap();
        let stored = one.encrypt(&key, Bytes::from_static(b"{}"));
        let other = Encryption::parse(&configuration(&[("other", 1)], false)).unwrap();
        let missing = other.decrypt(&key, stored.clone()).unwrap_err().to_string();
        assert!(missing.contains("k8s:enc:aesgcm:v1:one:"), "{missing}");
        let wrong = Encryption::parse(&configuration(&[("one", 9)], false)).unwrap();
        assert!(matches!(wrong.decrypt(&key, stored.clone()), Err(Undecipherable::WrongKey(_))));
        assert!(matches!(one.decrypt(&elsewhere, stored), Err(Undecipherable::WrongKey(_))));
    }

    #[test]
    fn what_names_no_kind_is_found() {
        let one = Encryption::parse(&configuration(&[("one", 1)], false)).unwrap();
        let unknown = |resources: &[&str]| {
            let resources: Vec<String> = resources.iter().map(|&one| one.to_owned()).collect();
            one.unknown(&resources).len()
        };
        assert_eq!(unknown(&["secrets", "widgets.example.com"]), 0);
        assert_eq!(unknown(&["secrets"]), 1);
        assert_eq!(one.unknown(&["secret.example.com".to_owned()]), ["secrets"]);
    }

    #[test]
    fn kinds_are_named_as_kubernetes_does() {
        let one = Encryption::parse(&configuration(&[("one", 1)], false)).unwrap();
        let is_encrypted = |key: &'static str| {
            one.encrypt(key.as_bytes(), Bytes::from_static(b"{}")).starts_with(ENCRYPTED)
        };
        assert!(is_encrypted("/core/secrets/default/s"));
        assert!(is_encrypted("/example.com/widgets/default/w"));
        assert!(!is_encrypted("/core/configmaps/default/s"));
        assert!(!is_encrypted("/commonage.dev/tasks/default/s"));
        assert!(is("*.*", "secrets") && is("*.", "secrets") && !is("*.", "a.b"));
    }
}
