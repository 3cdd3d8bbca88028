//! Structural schemas: what an object may hold, compiled once, applied in place.
//!
//! The order of a write is decode → prune → default → validate, as in Kubernetes. Nothing here
//! clones an object; a pass over an object without findings allocates next to nothing.

mod compile;
mod decode;
mod defaults;
mod format;
mod node;
mod path;
mod prune;
#[cfg(test)]
mod tests;
mod validate;

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::Value;

pub use decode::decode_strict;

use crate::status::Cause;
use node::Node;
use path::Path;

/// A compiled schema; cloning shares it.
#[derive(Clone, Debug)]
pub struct Structural {
    root: Arc<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct SchemaError {
    /// Place in the schema, such as `properties[spec].items`.
    pub path: String,
    pub message: String,
}

impl Structural {
    /// # Errors
    /// The schema uses something a structural schema must not, or a pattern does not compile.
    pub fn compile(schema: &JSONSchemaProps) -> Result<Structural, SchemaError> {
        let value = serde_json::to_value(schema)
            .map_err(|error| SchemaError { path: String::new(), message: error.to_string() })?;
        Self::compile_value(&value)
    }

    /// As [`Structural::compile`], from the schema as JSON.
    ///
    /// # Errors
    /// As [`Structural::compile`].
    pub fn compile_value(schema: &Value) -> Result<Structural, SchemaError> {
        Ok(Structural { root: Arc::new(compile::compile(schema, "")?) })
    }

    /// Removes what the schema does not know and returns the paths removed (`spec.contianer`).
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut removed = Vec::new();
        prune::prune(Some(&self.root), object, &Path::Root, prune::Level::Resource, &mut removed);
        removed
    }

    /// Sets defaults of missing fields and of nulls where null is not allowed; drops such nulls
    /// that have no default (kube-rs sends `"agent": null` for every `None`).
    pub fn default(&self, object: &mut Value) {
        defaults::default(&self.root, object);
    }

    /// Everything that is wrong, in Kubernetes' words. `metadata` is checked by `meta::validate`.
    pub fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        validate::validate(&self.root, object, &Path::Root, &mut causes);
        causes
    }
}
