//! References of images, as `image()` takes them apart: registry, repository, tag or digest.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::cel::Value;
use kube_cel::cel::objects::{Key, Map};

use super::eval::{Answer, no_overload};

/// Where an image is that names no registry.
const DEFAULT_REGISTRY: &str = "index.docker.io";
/// What people call it.
const DEFAULT_ALIAS: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
const DIGEST_PREFIX: &str = "sha256:";
const DIGEST_LENGTH: usize = 64;
const TAG_LENGTH_MAX: usize = 128;
const REPOSITORY_LENGTH: std::ops::RangeInclusive<usize> = 2..=255;

/// A reference that parsed. Rules see a map of its parts, which the checker of types hides.
pub(super) struct Image {
    registry: String,
    repository: String,
    /// Empty with a digest.
    tag: String,
    digest: String,
}

impl Image {
    /// `None` for what is no reference. Nothing is too short but the name of the repository.
    pub(super) fn parse(text: &str) -> Option<Image> {
        if let Some((base, digest)) = text.split_once('@') {
            let hex = digest.strip_prefix(DIGEST_PREFIX)?;
            let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            if hex.len() != DIGEST_LENGTH || !hex.bytes().all(is_hex) {
                return None;
            }
            let base = split_tag(base).map_or(base, |(base, _)| base);
            let (registry, repository) = place(base)?;
            return Some(Image { registry, repository, tag: String::new(), digest: digest.into() });
        }
        let (base, tag) = split_tag(text)?;
        let (registry, repository) = place(base)?;
        Some(Image { registry, repository, tag: tag.to_owned(), digest: String::new() })
    }

    pub(super) fn into_value(self) -> Value {
        let identifier = if self.digest.is_empty() { &self.tag } else { &self.digest }.clone();
        let parts = [
            ("registry", self.registry),
            ("repository", self.repository),
            ("tag", self.tag),
            ("digest", self.digest),
            ("identifier", identifier),
        ];
        let member = |(name, text): (&str, String)| {
            (Key::String(Arc::new(name.to_owned())), Value::String(Arc::new(text)))
        };
        Value::Map(Map { map: Arc::new(parts.into_iter().map(member).collect::<HashMap<_, _>>()) })
    }
}

/// A part of what [`Image::into_value`] made.
pub(super) fn part(image: &Map, name: &str) -> Answer {
    let key = Key::String(Arc::new(name.to_owned()));
    image.map.get(&key).cloned().map_or_else(no_overload, Ok)
}

/// What is before the tag, and the tag. A colon before a slash is a port's.
fn split_tag(text: &str) -> Option<(&str, &str)> {
    let Some((base, tag)) = text.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) else {
        return Some((text, DEFAULT_TAG));
    };
    let is_of_tags = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let is_tag = (1..=TAG_LENGTH_MAX).contains(&tag.len()) && tag.bytes().all(is_of_tags);
    is_tag.then_some((base, tag))
}

/// Registry and repository.
fn place(base: &str) -> Option<(String, String)> {
    let named = base
        .split_once('/')
        .filter(|(first, _)| first.contains(['.', ':']) || *first == "localhost");
    let (registry, repository) = named.unwrap_or((DEFAULT_REGISTRY, base));
    let registry = if registry == DEFAULT_ALIAS { DEFAULT_REGISTRY } else { registry };
    let is_of_names =
        |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'/');
    let valid = REPOSITORY_LENGTH.contains(&repository.len())
        && repository.bytes().all(is_of_names)
        && registry.parse::<http::uri::Authority>().is_ok();
    let implicit = registry == DEFAULT_REGISTRY && !repository.contains('/');
    let namespace = if implicit { "library/" } else { "" };
    valid.then(|| (registry.to_owned(), format!("{namespace}{repository}")))
}
