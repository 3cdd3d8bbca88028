//! The engine: CRUD, list and watch over every kind alike.
//!
//! Its caller is `http/`, which hands it decoded requests, and the in-process helpers of this
//! crate. It owns the order of a write (decode, prune, default, strategy, validate, compare,
//! commit, wait until published) and never looks at a socket or a header.

mod options;

pub use options::{
    DeleteOptions, Deleted, FieldValidation, List, ListOptions, PatchKind, Propagation, UserInfo,
    VersionMatch, WatchOptions, WriteOptions, Written,
};

pub use crate::cache::{Chunk, EventKind, Watch, WatchEvent};

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::object::Object;
use crate::resource::{ResourceDef, Scheme};
use crate::status::ApiError;

/// Everything between a decoded request and the store. Share it behind an `Arc`.
pub struct Engine {}

impl Engine {
    /// Loads the cache, makes the namespaces that always exist, and starts the background work
    /// (tail, namespace removal), which ends when `shutdown` is cancelled.
    pub async fn start(
        _store: Arc<dyn commonage_store::Store>,
        _scheme: Arc<Scheme>,
        _shutdown: tokio_util::sync::CancellationToken,
    ) -> anyhow::Result<Arc<Engine>> {
        todo!()
    }

    pub fn scheme(&self) -> &Arc<Scheme> {
        todo!()
    }

    /// False while the cache is being (re)built: for `/readyz`.
    pub fn ready(&self) -> bool {
        todo!()
    }

    /// `version`: `None` is a consistent read, `Some(0)` any, `Some(n)` not older than n.
    pub async fn get(
        &self,
        _def: &ResourceDef,
        _namespace: &str,
        _name: &str,
        _version: Option<u64>,
    ) -> Result<Arc<Object>, ApiError> {
        todo!()
    }

    /// `namespace`: `None` is all namespaces (and what cluster-scoped kinds use).
    pub async fn list(
        &self,
        _def: &ResourceDef,
        _namespace: Option<&str>,
        _options: ListOptions,
    ) -> Result<List, ApiError> {
        todo!()
    }

    /// Errors that come before the stream are answered as a Status; a version that is too old is
    /// an ERROR event in the stream, as Kubernetes does it.
    pub async fn watch(
        &self,
        _def: &ResourceDef,
        _namespace: Option<&str>,
        _options: WatchOptions,
    ) -> Result<Watch, ApiError> {
        todo!()
    }

    /// `namespace` is empty for cluster-scoped kinds, here and below.
    pub async fn create(
        self: &Arc<Self>,
        _def: &Arc<ResourceDef>,
        _namespace: &str,
        _body: Value,
        _options: WriteOptions,
    ) -> Result<Written, ApiError> {
        todo!()
    }

    /// PUT of the object or of a subresource (`status`, `finalize`).
    pub async fn update(
        self: &Arc<Self>,
        _def: &Arc<ResourceDef>,
        _namespace: &str,
        _name: &str,
        _subresource: Option<&str>,
        _body: Value,
        _options: WriteOptions,
    ) -> Result<Written, ApiError> {
        todo!()
    }

    /// `body` is JSON.
    #[allow(clippy::too_many_arguments)]
    pub async fn patch(
        self: &Arc<Self>,
        _def: &Arc<ResourceDef>,
        _namespace: &str,
        _name: &str,
        _subresource: Option<&str>,
        _kind: PatchKind,
        _body: Bytes,
        _options: WriteOptions,
    ) -> Result<Written, ApiError> {
        todo!()
    }

    pub async fn delete(
        self: &Arc<Self>,
        _def: &Arc<ResourceDef>,
        _namespace: &str,
        _name: &str,
        _delete: DeleteOptions,
        _options: WriteOptions,
    ) -> Result<Deleted, ApiError> {
        todo!()
    }

    /// Returns what was deleted or marked, as it was or became.
    pub async fn delete_collection(
        self: &Arc<Self>,
        _def: &Arc<ResourceDef>,
        _namespace: Option<&str>,
        _list: ListOptions,
        _delete: DeleteOptions,
        _options: WriteOptions,
    ) -> Result<List, ApiError> {
        todo!()
    }

    /// POST on a subresource of one object: `offers/accept`, `offers/decline`, `tasks/binding`.
    /// The answer is the HTTP status and the JSON body. 404 for a subresource that the kind has not.
    pub async fn post_subresource(
        self: &Arc<Self>,
        _def: &Arc<ResourceDef>,
        _namespace: &str,
        _name: &str,
        _subresource: &str,
        _body: Value,
        _options: WriteOptions,
    ) -> Result<(u16, Bytes), ApiError> {
        todo!()
    }
}
