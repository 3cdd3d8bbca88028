//! Images made in memory.

use std::collections::HashMap;
use std::io::Write;

use commonage_image::Digest;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// What a registry has.
#[derive(Clone, Default)]
pub(crate) struct Content {
    /// By tag and by digest: media type and bytes.
    pub(crate) manifests: HashMap<String, (String, Vec<u8>)>,
    pub(crate) blobs: HashMap<String, Vec<u8>>,
}

pub(crate) enum Packed {
    Plain,
    Gzip,
    Zstd,
}

/// A layer of an image: what is sent, and what it unpacks to.
pub(crate) struct Layer {
    pub(crate) blob: Vec<u8>,
    pub(crate) diff_id: Digest,
    pub(crate) media: &'static str,
}

impl Layer {
    pub(crate) fn new(tar: &[u8], packed: Packed) -> Layer {
        let (blob, media) = match packed {
            Packed::Plain => (tar.to_vec(), "application/vnd.oci.image.layer.v1.tar"),
            Packed::Gzip => {
                let mut gzip =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                gzip.write_all(tar).unwrap();
                (gzip.finish().unwrap(), "application/vnd.docker.image.rootfs.diff.tar.gzip")
            }
            Packed::Zstd => {
                (zstd::encode_all(tar, 1).unwrap(), "application/vnd.oci.image.layer.v1.tar+zstd")
            }
        };
        Layer { blob, diff_id: Digest::of(tar), media }
    }
}

/// An archive of files; a name that ends in a slash is a directory.
pub(crate) fn files(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, body) in entries {
        let mut header = Header::new_gnu();
        let kind = if path.ends_with('/') { EntryType::Directory } else { EntryType::Regular };
        header.set_entry_type(kind);
        header.set_size(body.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(1_700_000_000);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, *body).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn descriptor(media: &str, content: &[u8]) -> Value {
    json!({"mediaType": media, "digest": Digest::of(content).to_string(), "size": content.len()})
}

pub(crate) fn config_of(layers: &[Layer]) -> Value {
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    json!({
        "os": "linux",
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "config": {"Cmd": ["/bin/app"], "Env": ["A=1"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
}

pub(crate) fn manifest_of(config: &[u8], layers: &[Layer]) -> Value {
    let layers: Vec<Value> =
        layers.iter().map(|layer| descriptor(layer.media, &layer.blob)).collect();
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, config),
        "layers": layers,
    })
}

impl Content {
    /// An image under the tag `1`.
    pub(crate) fn image(layers: &[Layer]) -> Content {
        let config = config_of(layers).to_string().into_bytes();
        let manifest = manifest_of(&config, layers);
        Content::default().blob(config).layers(layers).manifest("1", &manifest)
    }

    pub(crate) fn layers(mut self, layers: &[Layer]) -> Content {
        for layer in layers {
            self = self.blob(layer.blob.clone());
        }
        self
    }

    pub(crate) fn blob(mut self, bytes: Vec<u8>) -> Content {
        self.blobs.insert(Digest::of(&bytes).to_string(), bytes);
        self
    }

    /// Under a tag, and under its digest.
    pub(crate) fn manifest(mut self, tag: &str, document: &Value) -> Content {
        let bytes = document.to_string().into_bytes();
        let media = document["mediaType"].as_str().unwrap_or(MANIFEST).to_owned();
        self.manifests.insert(Digest::of(&bytes).to_string(), (media.clone(), bytes.clone()));
        self.manifests.insert(tag.to_owned(), (media, bytes));
        self
    }

    pub(crate) fn digest(&self, tag: &str) -> Digest {
        Digest::of(&self.manifests[tag].1)
    }
}
