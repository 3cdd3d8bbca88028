//! What an image says about how it is to be run: its configuration, in the one form of OCI and Docker.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::Error;
use crate::manifest::Platform;

/// How an image wants to be run; what a task says for itself wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// Name or number, with or without a group: `app`, `1000:1000`. Empty: root.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// `NAME=value`.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// Its arguments, or the program where there is no entrypoint.
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// Where it starts. Empty: `/`.
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    /// The signal that tells it to end, such as `SIGQUIT`. Empty: `SIGTERM`.
    #[serde(deserialize_with = "or_default")]
    pub stop_signal: String,
}

impl ImageConfig {
    /// The environment by name. What is not `NAME=value` is left out, as Docker does.
    #[must_use]
    pub fn environment(&self) -> BTreeMap<String, String> {
        let pairs = self.env.iter().filter_map(|text| text.split_once('='));
        pairs
            .filter(|(name, value)| !name.is_empty() && !value.contains('\0'))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }
}

/// Docker writes `null` where there is nothing.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    config: Option<ImageConfig>,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// What to run, and the digests of the layers when they are not compressed, lowest first.
pub(crate) fn read(
    bytes: &[u8],
    layers: usize,
    platform: &Platform,
) -> Result<(ImageConfig, Vec<Digest>), Error> {
    let raw: Raw = serde_json::from_slice(bytes)
        .map_err(|error| Error::Invalid(format!("config: {error}")))?;
    let other = |said: &str, here: &str| !said.is_empty() && said != here;
    if other(&raw.os, &platform.os) || other(&raw.architecture, &platform.architecture) {
        return Err(Error::NotFound(format!(
            "it is for {}/{}, and this machine is {}/{}",
            raw.os, raw.architecture, platform.os, platform.architecture
        )));
    }
    if raw.rootfs.diff_ids.len() != layers {
        return Err(Error::Invalid(format!(
            "config.rootfs.diff_ids: names {} layers, the manifest {layers}",
            raw.rootfs.diff_ids.len()
        )));
    }
    let mut diff_ids = Vec::with_capacity(layers);
    for (place, text) in raw.rootfs.diff_ids.iter().enumerate() {
        let digest = text
            .parse()
            .map_err(|what| Error::Invalid(format!("config.rootfs.diff_ids[{place}]: {what}")))?;
        diff_ids.push(digest);
    }
    Ok((raw.config.unwrap_or_default(), diff_ids))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn here() -> Platform {
        Platform { os: "linux".to_owned(), architecture: "amd64".to_owned() }
    }

    #[test]
    fn dockers_nulls_are_nothing() {
        let json = br#"{"os":"linux","architecture":"amd64",
            "config":{"Entrypoint":null,"Cmd":["sh"],"Env":["A=b=c","bad","=x"],"User":"app","Labels":{}},
            "rootfs":{"type":"layers","diff_ids":[]}}"#;
        let (config, diff_ids) = read(json, 0, &here()).unwrap();
        assert_eq!((config.cmd.as_slice(), config.entrypoint.len()), (&["sh".to_owned()][..], 0));
        assert_eq!(config.environment(), BTreeMap::from([("A".to_owned(), "b=c".to_owned())]));
        assert_eq!((config.user.as_str(), diff_ids.len()), ("app", 0));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (json, layers, said) in [
            ("{}", 0, "rootfs"),
            (r#"{"rootfs":{"diff_ids":[]}}"#, 1, "diff_ids: names 0 layers"),
            (r#"{"rootfs":{"diff_ids":["sha256:1"]}}"#, 1, "diff_ids[0]"),
            (r#"{"architecture":"s390x","rootfs":{"diff_ids":[]}}"#, 0, "s390x"),
            (r#"{"config":{"Env":7},"rootfs":{"diff_ids":[]}}"#, 0, "config"),
        ] {
            let error = read(json.as_bytes(), layers, &here()).unwrap_err().to_string();
            assert!(error.contains(said), "{json}: {error}");
        }
    }
}
