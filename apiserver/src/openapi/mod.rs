//! The OpenAPI documents of a scheme: what `kubectl explain`, create and apply read.
//!
//! Built once per scheme and kept as bytes with their hashes.

use crate::resource::Scheme;

/// One served document.
#[derive(Clone, Debug)]
pub struct Document {
    pub bytes: bytes::Bytes,
    /// Upper-case hex SHA-256; the `hash` of the URL, and the ETag (without quotes).
    pub hash: String,
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
    pub fn build(_scheme: &Scheme) -> Documents {
        let empty = Document {
            bytes: bytes::Bytes::new(),
            hash: String::new(),
        };
        Documents {
            v3_index: empty,
            v3: Vec::new(),
            v2_json: None,
            v2_protobuf: None,
        }
    }

    /// `path` is `apis/GROUP/VERSION` or `api/v1`.
    pub fn v3(&self, path: &str) -> Option<&Document> {
        self.v3
            .iter()
            .find(|(served, _)| served == path)
            .map(|(_, document)| document)
    }
}
