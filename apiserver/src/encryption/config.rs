//! EncryptionConfiguration, as kube-apiserver has it (`apiserver.config.k8s.io/v1`).

use anyhow::{Context, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::cipher::Cipher;
use super::{Provider, Rule};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    resources: Vec<Resources>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resources {
    resources: Vec<String>,
    providers: Vec<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    name: String,
    secret: String,
}

pub(super) fn rules(text: &str) -> anyhow::Result<Vec<Rule>> {
    let configuration: Configuration = serde_saphyr::from_str(text)?;
    let (version, kind) = (&*configuration.api_version, &*configuration.kind);
    ensure!(
        version == "apiserver.config.k8s.io/v1" && kind == "EncryptionConfiguration",
        "expected an EncryptionConfiguration of apiserver.config.k8s.io/v1, found {kind} of {version}"
    );
    configuration.resources.into_iter().map(rule).collect()
}

fn rule(resources: Resources) -> anyhow::Result<Rule> {
    let Resources { resources, providers } = resources;
    ensure!(!resources.is_empty(), "an entry names no resources");
    let about = || format!("providers of {}", resources.join(", "));
    let mut all = Vec::new();
    for provider in providers {
        let mut kinds = provider.into_iter();
        let (Some((kind, value)), None) = (kinds.next(), kinds.next()) else {
            bail!("{}: each must be of one kind", about());
        };
        all.extend(of_kind(&kind, value).with_context(about)?);
    }
    ensure!(!all.is_empty(), "{}: there are none", about());
    Ok(Rule { resources, providers: all })
}

/// Each key of a provider counts as one: the first of all encrypts.
fn of_kind(kind: &str, value: Value) -> anyhow::Result<Vec<Provider>> {
    match kind {
        "identity" => Ok(vec![Provider::Identity]),
        "aesgcm" | "secretbox" => {
            let Keys { keys } = serde_json::from_value(value).context(kind.to_owned())?;
            ensure!(!keys.is_empty(), "{kind}: it has no keys");
            let mut names = std::collections::HashSet::new();
            let twice = keys.iter().find(|key| !names.insert(&key.name));
            if let Some(Key { name, .. }) = twice {
                bail!(
                    "{kind}: two keys are called {name:?}: values of the second could not be read"
                );
            }
            keys.iter().map(|key| sealed(kind, key)).collect()
        }
        other => {
            bail!("the provider {other} is not supported: use secretbox, aesgcm, or identity")
        }
    }
}

fn sealed(kind: &str, key: &Key) -> anyhow::Result<Provider> {
    let Key { name, secret } = key;
    ensure!(!name.is_empty() && !name.contains(':'), "{kind}: a key needs a name, without colons");
    let about = || format!("{kind}: key {name:?}");
    let secret = STANDARD.decode(secret.trim()).context("it is not base64").with_context(about)?;
    let cipher = match kind {
        "secretbox" => Cipher::secret_box(&secret),
        _ => Cipher::aes_gcm(&secret),
    };
    let prefix = format!("k8s:enc:{kind}:v1:{name}:");
    Ok(Provider::Sealed { prefix, cipher: cipher.with_context(about)? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_wrong_is_said() {
        let with = |providers: &str| {
            format!(
                "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
                 resources:\n- resources: [secrets]\n  providers: {providers}\n"
            )
        };
        assert!(rules(&with("[{identity: {}}]")).is_ok());
        for (providers, why) in [
            ("[]", "there are none"),
            ("[{aescbc: {keys: []}}]", "not supported"),
            ("[{aesgcm: {keys: []}}]", "no keys"),
            ("[{aesgcm: {keys: [{name: a, secret: '!'}]}}]", "base64"),
            ("[{aesgcm: {keys: [{name: a, secret: AAAA}]}}]", "16 or 32"),
            ("[{aesgcm: {keys: [{name: 'a:b', secret: AAAA}]}}]", "colons"),
            ("[{secretbox: {keys: [{name: a, secret: AAAA}]}}]", "takes 32"),
            ("[{secretbox: {}}]", "secretbox"),
            (
                "[{aesgcm: {keys: [{name: a, secret: AAAA}, {name: a, secret: BBBB}]}}]",
                "two keys are called \"a\"",
            ),
            ("[{kms: {}}]", "use secretbox, aesgcm, or identity"),
        ] {
            let error = format!("{:#}", rules(&with(providers)).err().unwrap());
            assert!(error.contains(why), "{providers}: {error}");
        }
        assert!(rules("apiVersion: v1\nkind: Secret\nresources: []\n").is_err());
    }
}
