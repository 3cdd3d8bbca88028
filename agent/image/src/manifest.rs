//! Manifests, indexes and configurations of images, in OCI's form and Docker's, read strictly.
//!
//! Pure: bytes in, what they say or which field is wrong out.

use serde::Deserialize;
use serde_json::Value;

use crate::digest::Digest;
use crate::error::Error;
use crate::limits::Limits;

/// What a registry may answer when asked for a manifest.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Where content is and how much of it there must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// One layer as the manifest has it, lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) blob: Descriptor,
    pub(crate) compression: Compression,
}

/// What a document turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    /// Go on with this manifest (or index).
    Index(Descriptor),
    Manifest(Manifest),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Layer>,
}

/// For which machines an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// In Go's spelling, such as `amd64`.
    pub architecture: String,
}

impl Platform {
    /// This machine's.
    #[must_use]
    pub fn here() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        };
        Platform { os: "linux".to_owned(), architecture: architecture.to_owned() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    #[serde(default)]
    schema_version: Value,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<RawDescriptor>,
    #[serde(default)]
    layers: Option<Vec<RawDescriptor>>,
    #[serde(default)]
    manifests: Option<Vec<RawDescriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    digest: Value,
    #[serde(default)]
    size: Value,
    #[serde(default)]
    platform: Option<RawPlatform>,
}

#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

impl RawDescriptor {
    fn check(&self, field: &str) -> Result<Descriptor, Error> {
        let digest = self.digest.as_str().unwrap_or_default();
        let digest = digest.parse().map_err(|what| invalid(format!("{field}.digest: {what}")))?;
        let size = self.size.as_u64().ok_or_else(|| {
            invalid(format!("{field}.size: {} is not a number of bytes", self.size))
        })?;
        Ok(Descriptor { digest, size })
    }
}

/// Reads a manifest or an index that a registry sent as `content_type`.
pub(crate) fn read(
    bytes: &[u8],
    content_type: Option<&str>,
    platform: &Platform,
    limits: &Limits,
) -> Result<Document, Error> {
    let raw: RawDocument =
        serde_json::from_slice(bytes).map_err(|error| invalid(format!("manifest: {error}")))?;
    if raw.schema_version.as_u64() != Some(2) {
        return Err(invalid(format!(
            "manifest.schemaVersion: {} is not 2; images in Docker's first format can't be run",
            raw.schema_version
        )));
    }
    // A document that can be read as both would be two images under one digest (CVE-2021-41190).
    let is_index = match (&raw.manifests, &raw.layers, &raw.config) {
        (Some(_), None, None) => true,
        (None, Some(_), Some(_)) => false,
        (None, _, _) => return Err(invalid("manifest: has no config and layers".to_owned())),
        _ => return Err(invalid("manifest: is both an index and a manifest".to_owned())),
    };
    let allowed = if is_index { &INDEXES } else { &MANIFESTS };
    // What the header says goes for documents that do not name their own type.
    let plain = content_type.map(|text| text.split(';').next().unwrap_or(text).trim());
    let said = raw.media_type.as_deref().or(plain.filter(|text| text.contains("vnd.")));
    if let Some(said) = said.filter(|said| !allowed.contains(said)) {
        return Err(invalid(format!(
            "manifest.mediaType: {said:?} is not what it is, {}",
            if is_index { "an index" } else { "a manifest of an image" }
        )));
    }
    match raw.manifests {
        Some(manifests) => choose(&manifests, platform, limits).map(Document::Index),
        None => manifest(raw, limits).map(Document::Manifest),
    }
}

fn manifest(raw: RawDocument, limits: &Limits) -> Result<Manifest, Error> {
    let (Some(config), Some(layers)) = (raw.config, raw.layers) else {
        return Err(invalid("manifest: has no config and layers".to_owned()));
    };
    if !CONFIGS.contains(&config.media_type.as_str()) {
        return Err(invalid(format!(
            "manifest.config.mediaType: {:?} is not the configuration of an image",
            config.media_type
        )));
    }
    if layers.len() > limits.layers {
        return Err(invalid(format!(
            "manifest.layers: has {} layers, more than {}",
            layers.len(),
            limits.layers
        )));
    }
    let config = config.check("manifest.config")?;
    if config.size > limits.document_bytes {
        return Err(invalid(format!(
            "manifest.config.size: {} bytes, more than {}",
            config.size, limits.document_bytes
        )));
    }
    let mut total: u64 = 0;
    let mut checked = Vec::with_capacity(layers.len());
    for (place, raw) in layers.iter().enumerate() {
        let layer = layer(raw, place)?;
        total = total.saturating_add(layer.blob.size);
        checked.push(layer);
    }
    if total > limits.compressed_bytes {
        return Err(invalid(format!(
            "manifest.layers: {total} bytes to download, more than {}",
            limits.compressed_bytes
        )));
    }
    Ok(Manifest { config, layers: checked })
}

fn layer(raw: &RawDescriptor, place: usize) -> Result<Layer, Error> {
    let field = format!("manifest.layers[{place}]");
    let compression = match raw.media_type.as_str() {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => Compression::None,
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Compression::Gzip,
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
        other => {
            return Err(invalid(format!("{field}.mediaType: {other:?} is not a layer's")));
        }
    };
    Ok(Layer { blob: raw.check(&field)?, compression })
}

/// The first manifest of an index that is for this machine.
fn choose(
    manifests: &[RawDescriptor],
    platform: &Platform,
    limits: &Limits,
) -> Result<Descriptor, Error> {
    if manifests.len() > limits.index_entries {
        return Err(invalid(format!(
            "index.manifests: has {} entries, more than {}",
            manifests.len(),
            limits.index_entries
        )));
    }
    let known = |raw: &RawDescriptor| {
        let media = raw.media_type.as_str();
        INDEXES.contains(&media) || MANIFESTS.contains(&media)
    };
    let fits = |raw: &RawDescriptor| match &raw.platform {
        Some(p) => p.os == platform.os && p.architecture == platform.architecture,
        None => true,
    };
    let found = manifests.iter().position(|raw| known(raw) && fits(raw));
    let Some(place) = found else {
        let has: Vec<String> = manifests
            .iter()
            .filter_map(|raw| raw.platform.as_ref())
            .filter(|p| p.os != "unknown")
            .map(|p| format!("{}/{}", p.os, p.architecture))
            .collect();
        return Err(Error::NotFound(format!(
            "there is none for {}/{}; it has {}",
            platform.os,
            platform.architecture,
            if has.is_empty() { "none at all".to_owned() } else { has.join(", ") }
        )));
    };
    let chosen = manifests[place].check(&format!("index.manifests[{place}]"))?;
    if chosen.size > limits.document_bytes {
        return Err(invalid(format!(
            "index.manifests[{place}].size: {} bytes, more than {}",
            chosen.size, limits.document_bytes
        )));
    }
    Ok(chosen)
}

fn invalid(text: String) -> Error {
    Error::Invalid(text)
}

#[cfg(test)]
mod tests;
