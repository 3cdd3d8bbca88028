//! The OpenAPI documents of a scheme: what `kubectl explain`, create and apply read.
//!
//! Built once per scheme and kept as bytes with their hashes.

mod components;
mod messages;
mod operations;
mod proto;
mod shared;
#[cfg(test)]
mod tests;
mod v2;
mod v3;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::resource::Scheme;
use components::Components;

/// One served document.
#[derive(Clone, Debug)]
pub struct Document {
    pub bytes: Bytes,
    /// Upper-case hex SHA-256; the `hash` of the URL, and the ETag (without quotes).
    pub hash: String,
    /// When it was made: its `Last-Modified`.
    pub built: jiff::Timestamp,
}

/// Everything under `/openapi`.
#[derive(Clone, Debug)]
pub struct Documents {
    /// `GET /openapi/v3`.
    pub v3_index: Document,
    v3: Vec<(String, Document)>,
    /// `GET /openapi/v2` as JSON.
    pub v2_json: Option<Document>,
    /// `GET /openapi/v2` as gnostic protobuf.
    pub v2_protobuf: Option<Document>,
}

impl Documents {
    pub fn build(scheme: &Scheme) -> Documents {
        let components = Components::of(scheme);
        let mut v3 = Vec::new();
        let mut index = Map::new();
        for (group, version) in scheme.group_versions() {
            let path = if group.is_empty() {
                format!("api/{version}")
            } else {
                format!("apis/{group}/{version}")
            };
            let document =
                Document::of(json_bytes(&v3::document(scheme, group, version, &components)));
            let url = format!("/openapi/v3/{path}?hash={}", document.hash);
            index.insert(path.clone(), json!({ "serverRelativeURL": url }));
            v3.push((path, document));
        }
        let v3_index = Document::of(json_bytes(&json!({ "paths": index })));
        let swagger = v2::document(scheme, &components);
        Documents {
            v3_index,
            v3,
            v2_protobuf: Some(Document::of(proto::encode(&swagger))),
            v2_json: Some(Document::of(json_bytes(&swagger))),
        }
    }

    /// `path` is `apis/GROUP/VERSION` or `api/v1`.
    pub fn v3(&self, path: &str) -> Option<&Document> {
        self.v3.iter().find(|(served, _)| served == path).map(|(_, document)| document)
    }
}

impl Document {
    fn of(bytes: Vec<u8>) -> Document {
        let hash = format!("{:X}", Sha256::digest(&bytes));
        Document { bytes: bytes.into(), hash, built: jiff::Timestamp::now() }
    }
}

fn json_bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a Value always serializes")
}
