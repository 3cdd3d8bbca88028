//! What a kind may add to the generic way of a write.
//!
//! A strategy changes the object in memory and says no; it never writes by itself, except in the
//! subresources that are its own. Most kinds need none.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;

use crate::auth::UserInfo;
use crate::engine::{Engine, WriteOptions, Written};
use crate::resource::ResourceDef;
use crate::status::{ApiError, Cause};

/// What a strategy knows about the request besides the object.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub engine: &'a Engine,
    pub def: &'a Arc<ResourceDef>,
    /// Empty for cluster-scoped kinds.
    pub namespace: &'a str,
    pub user: &'a UserInfo,
    pub now: Timestamp,
}

/// An object that comes into being together with another.
pub struct Companion {
    pub def: Arc<ResourceDef>,
    pub namespace: String,
    pub body: Value,
}

/// A request to a subresource of one object.
pub struct SubresourceRequest {
    pub def: Arc<ResourceDef>,
    pub namespace: String,
    pub name: String,
    pub subresource: String,
    pub body: Value,
    pub options: WriteOptions,
}

/// The rules of one kind. The object has been pruned and defaulted by its schema before any of
/// these, and its metadata is in order.
#[async_trait]
pub trait Strategy: Send + Sync {
    /// Sets what Kubernetes sets while it decodes such an object. Whoever writes the object owns
    /// these values; what the other methods set belongs to nobody.
    fn default(&self, _object: &mut Value) {}

    fn prepare_create(&self, _cx: Context<'_>, _object: &mut Value) -> Result<(), ApiError> {
        Ok(())
    }

    /// `old` has no resourceVersion. With a subresource, everything that it may not change has
    /// been put back already.
    fn prepare_update(
        &self,
        _cx: Context<'_>,
        _subresource: Option<&str>,
        _old: &Value,
        _new: &mut Value,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    fn validate(&self, _object: &Value, _old: Option<&Value>) -> Vec<Cause> {
        Vec::new()
    }

    /// Whether a DELETE is legal at all.
    fn may_delete(&self, _cx: Context<'_>, _object: &Value) -> Result<(), ApiError> {
        Ok(())
    }

    /// The object is being deleted: takes off the finalizer of the kind's own if what it waits for is
    /// over already.
    fn release(&self, _object: &mut Value) {}

    /// The object is about to be marked for deletion: finalizers hold it.
    fn prepare_delete(&self, _cx: Context<'_>, _object: &mut Value) {}

    /// Seconds that an object of this kind takes to end unless the client says otherwise; `None`
    /// for kinds that end at once.
    fn own_grace_s(&self, _object: &Value) -> Option<i64> {
        None
    }

    /// The deletion is to leave what belongs to the object alone: takes off the finalizer that
    /// waits for it. Whether there was something to take off.
    fn orphan(&self, _object: &mut Value) -> bool {
        false
    }

    /// Something besides `metadata.finalizers` keeps a deleted object.
    fn is_held(&self, _object: &Value) -> bool {
        false
    }

    /// Objects to create in the same write.
    fn companions(&self, _cx: Context<'_>, _object: &Value) -> Vec<Companion> {
        Vec::new()
    }

    /// Whether a create may mean something else: then [`Strategy::create_otherwise`] is asked.
    fn is_created_otherwise(&self, _object: &Value) -> bool {
        false
    }

    /// A create that means something else: `Some` is its whole answer. `object` has no status, its
    /// metadata is in order.
    async fn create_otherwise(
        &self,
        _engine: &Arc<Engine>,
        _def: &Arc<ResourceDef>,
        _namespace: &str,
        _object: &Value,
        _options: &WriteOptions,
    ) -> Option<Result<Written, ApiError>> {
        None
    }

    /// POST on a subresource; `None` when the kind has no such one.
    async fn post(
        &self,
        _engine: &Arc<Engine>,
        _request: &SubresourceRequest,
    ) -> Option<Result<(u16, Bytes), ApiError>> {
        None
    }
}

/// A kind without rules of its own.
pub struct Plain;

impl Strategy for Plain {}
