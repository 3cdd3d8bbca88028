//! Structural schemas: what an object may hold, compiled once, applied in place.
//!
//! The order of a write is decode → prune → default → validate, as in Kubernetes. Nothing here
//! clones an object; a pass over an object without findings allocates next to nothing.

mod cel;
mod compile;
mod decode;
mod defaults;
mod embedded;
mod findings;
mod format;
pub(crate) mod go;
mod go_json;
mod go_regexp;
pub(crate) mod go_time;
pub(crate) mod go_types;
mod lists;
mod node;
mod path;
mod props;
mod prune;
mod ratchet;
pub mod structural;
#[cfg(test)]
mod tests;
mod validate;
mod yaml;
mod yaml_text;

use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::Value;

pub(crate) use decode::decode_strict;
pub(crate) use findings::in_order_of_text;
pub(crate) use go_json::Refused;
pub(crate) use props::MARKER as SCHEMA_PROPS;
pub(crate) use yaml::decode_yaml;

use crate::status::Cause;
use node::Node;
use path::Path;
use validate::Validator;

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

    /// Removes what the schema does not know and returns the paths removed (`spec.contianer`), sorted.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut removed = Vec::new();
        prune::prune(Some(&self.root), object, &Path::Root, prune::Level::Resource, &mut removed);
        removed.sort_unstable();
        removed
    }

    /// Sets defaults of missing fields and of nulls where null is not allowed; drops such nulls
    /// that have no default (kube-rs sends `"agent": null` for every `None`).
    pub fn default(&self, object: &mut Value) {
        defaults::default(&self.root, object);
    }

    /// Removes unknown members of a value that is no resource itself, such as a default.
    fn prune_value(&self, value: &mut Value) -> Vec<String> {
        let level = prune::level_of(&self.root);
        let mut removed = Vec::new();
        prune::prune(Some(&self.root), value, &Path::Root, level, &mut removed);
        removed
    }

    /// Everything that is wrong, in Kubernetes' words. `metadata` is checked by `meta::validate`.
    pub fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut causes = self.validate_value(object);
        lists::check(&self.root, object, &Path::Root, &mut causes);
        self.run_rules(object, None, &mut causes);
        causes
    }

    /// Rules are run on what has the shape that they were written for.
    fn run_rules(&self, object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
        const SHAPE: [&str; 5] = [
            "FieldValueNotSupported",
            "FieldValueRequired",
            "FieldValueTooLong",
            "FieldValueTooMany",
            "FieldValueTypeInvalid",
        ];
        if !self.root.rules_below {
            return;
        }
        if causes.iter().any(|cause| SHAPE.contains(&&*cause.reason)) {
            causes.push(Cause::invalid(
                "<nil>",
                &Value::Null,
                "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
            ));
            return;
        }
        cel::run(&self.root, object, old, causes);
    }

    /// As [`Structural::validate`], for an object that replaces `old`: what was wrong already and
    /// has not been touched is tolerated.
    pub fn validate_update(&self, object: &Value, old: &Value) -> Vec<Cause> {
        let mut validator = Validator { causes: Vec::new(), ratchets: false };
        validator.validate(&self.root, object, None, &Path::Root);
        if !validator.causes.is_empty() {
            validator = Validator { causes: Vec::new(), ratchets: true };
            validator.validate(&self.root, object, Some(old), &Path::Root);
        }
        self.finish_update(validator.causes, object, old)
    }

    /// As [`Structural::validate_update`], for an update of the status alone.
    pub fn validate_status(&self, object: &Value, old: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        if let (Some(node), Some(status)) =
            (self.root.properties.get("status"), object.get("status"))
        {
            let mut validator = Validator { causes: Vec::new(), ratchets: true };
            validator.validate(node, status, old.get("status"), &Path::Root);
            // Messages name fields of the status, causes those of the object.
            causes.extend(validator.causes.into_iter().map(|mut cause| {
                cause.field = match cause.field.as_str() {
                    "<nil>" => "status".to_owned(),
                    inner => format!("status.{inner}"),
                };
                cause
            }));
        }
        self.finish_update(causes, object, old)
    }

    fn finish_update(&self, mut causes: Vec<Cause>, object: &Value, old: &Value) -> Vec<Cause> {
        embedded::check(&self.root, object, &Path::Root, &mut causes);
        let mut in_lists = Vec::new();
        lists::check(&self.root, object, &Path::Root, &mut in_lists);
        if !in_lists.is_empty() {
            let mut before = Vec::new();
            lists::check(&self.root, old, &Path::Root, &mut before);
            // Duplicates that were there before excuse those of now, whichever they are.
            if before.is_empty() {
                causes.extend(in_lists);
            }
        }
        self.run_rules(object, Some(old), &mut causes);
        causes
    }

    /// Types, values and embedded resources.
    fn validate_value(&self, value: &Value) -> Vec<Cause> {
        let mut validator = Validator { causes: Vec::new(), ratchets: false };
        validator.validate(&self.root, value, None, &Path::Root);
        let mut causes = validator.causes;
        embedded::check(&self.root, value, &Path::Root, &mut causes);
        causes
    }
}
