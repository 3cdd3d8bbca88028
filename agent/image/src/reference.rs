//! Names of images: `redis:7`, `quay.io/org/app@sha256:…`, `127.0.0.1:5000/app`.
//!
//! The grammar is that of the `distribution` project, with Docker's two abbreviations: a name without a host
//! is Docker Hub's, and one without a slash lies in its `library`.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::Error;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// Which image of which registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Host and port as in the name; `docker.io` where it has none.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Where its registry listens: `docker.io` is served elsewhere.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        match self.registry.as_str() {
            DEFAULT_REGISTRY => "registry-1.docker.io",
            other => other,
        }
    }

    /// The path within the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest that it is pinned to, if it is.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// What the registry is asked for: the digest, else the tag, else `latest`.
    #[must_use]
    pub fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match (&self.tag, &self.digest) {
            (Some(tag), Some(digest)) => write!(f, ":{tag}@{digest}"),
            (Some(tag), None) => write!(f, ":{tag}"),
            (None, Some(digest)) => write!(f, "@{digest}"),
            (None, None) => write!(f, ":{DEFAULT_TAG}"),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference, Error> {
        parse(text).map_err(|what| Error::Reference(format!("image {text:?}: {what}")))
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse()?)),
        None => (text, None),
    };
    // A colon after the last slash begins the tag; one before it belongs to the port.
    let name_end = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[name_end..].find(':') {
        Some(colon) => (&rest[..name_end + colon], Some(&rest[name_end + colon + 1..])),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(format!("{:?} is not a tag", tag.unwrap_or_default()));
    }
    if name.is_empty() {
        return Err("it has no name".to_owned());
    }
    if name.len() > NAME_MAX {
        return Err(format!("its name is longer than {NAME_MAX} bytes"));
    }
    let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
    let (registry, path) = match name.split_once('/') {
        Some((host, path)) if is_host(host) => (host, path),
        _ => (DEFAULT_REGISTRY, name),
    };
    if !is_authority(registry) {
        return Err(format!("{registry:?} is not a host or host:port"));
    }
    if let Some(part) = path.split('/').find(|part| !is_path_part(part)) {
        return Err(format!(
            "{part:?} in its name: only lower-case letters and digits, with single '.', '_', '__' \
             or dashes between them"
        ));
    }
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    let repository = match (registry, path.contains('/')) {
        (DEFAULT_REGISTRY, false) => format!("library/{path}"),
        _ => path.to_owned(),
    };
    Ok(Reference { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=TAG_MAX).contains(&tag.len())
        && tag.starts_with(word)
        && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        // An IPv6 address in brackets.
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            }
            _ => return false,
        },
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_path_part(part: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !part.starts_with(alnum) || !part.ends_with(alnum) {
        return false;
    }
    // What stands between runs of letters and digits.
    part.split(alnum).all(|between| {
        matches!(between, "" | "." | "_" | "__") || between.chars().all(|c| c == '-')
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        for (text, full, endpoint) in [
            ("redis", "docker.io/library/redis:latest", "registry-1.docker.io"),
            ("redis:7", "docker.io/library/redis:7", "registry-1.docker.io"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest", "registry-1.docker.io"),
            ("index.docker.io/redis", "docker.io/library/redis:latest", "registry-1.docker.io"),
            ("localhost/app", "localhost/app:latest", "localhost"),
            ("127.0.0.1:5000/a/b:1.0", "127.0.0.1:5000/a/b:1.0", "127.0.0.1:5000"),
            ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000"),
            ("quay.io/org/a__b-c.d", "quay.io/org/a__b-c.d:latest", "quay.io"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.endpoint(), endpoint);
        }
    }

    #[test]
    fn a_digest_wins_over_a_tag() {
        let digest = Digest::of(b"x");
        let reference: Reference = format!("127.0.0.1:5000/app:1@{digest}").parse().unwrap();
        assert_eq!(reference.target(), digest.to_string());
        assert_eq!(reference.digest(), Some(digest));
        assert_eq!("app".parse::<Reference>().unwrap().target(), "latest");
    }

    #[test]
    fn what_is_no_name_is_refused_with_its_part() {
        for (text, part) in [
            ("", "no name"),
            ("App", "\"App\""),
            ("a//b", "\"\""),
            ("a/../b", "\"..\""),
            ("a:b c", "\"b c\""),
            ("a@sha256:12", "not a digest"),
            ("host:99999/a", "host:99999"),
            ("ho_st.x/a", "ho_st.x"),
            ("a___b", "a___b"),
            ("a\nb", "a\\nb"),
            (&"a".repeat(256), "255"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
