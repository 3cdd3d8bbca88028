//! What is served: `/api`, `/apis` and below, plain and aggregated.

use crate::resource::Scheme;

/// `GET /api` unaggregated: `APIVersions`.
pub fn api_versions(_server_address: &str) -> Vec<u8> {
    Vec::new()
}

/// `GET /apis` unaggregated: `APIGroupList`.
pub fn api_group_list(_scheme: &Scheme) -> Vec<u8> {
    Vec::new()
}

/// `GET /apis/GROUP`; `None` when there is no such group.
pub fn api_group(_scheme: &Scheme, _group: &str) -> Option<Vec<u8>> {
    None
}

/// `GET /apis/GROUP/VERSION` or (group empty) `/api/VERSION`; `None` when there is none.
pub fn api_resource_list(_scheme: &Scheme, _group: &str, _version: &str) -> Option<Vec<u8>> {
    None
}

/// Which root an aggregated document describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// `/api`: the core group.
    Core,
    /// `/apis`: every named group.
    Groups,
}

/// `APIGroupDiscoveryList`, with its ETag (quoted).
pub fn aggregated(_scheme: &Scheme, _root: Root) -> (Vec<u8>, String) {
    (Vec::new(), String::new())
}

/// `GET /version`.
pub fn version() -> Vec<u8> {
    Vec::new()
}
