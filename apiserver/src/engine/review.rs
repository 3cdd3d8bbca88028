//! Objects that are answered and not stored, made ready for their answer.

use std::sync::Arc;

use serde_json::Value;

use super::commit::{clean, judge};
use super::{Engine, WriteOptions, managed};
use crate::meta;
use crate::resource::ResourceDef;
use crate::status::ApiError;

impl Engine {
    /// Checks the type and the namespace of an object sent, prunes it, notes who sent what, and
    /// returns it with the warnings that are due. `subresource` is where it was sent, if to one.
    ///
    /// # Errors
    /// 400 for what does not fit the kind.
    pub(crate) fn prepare_review(
        &self,
        def: &Arc<ResourceDef>,
        namespace: &str,
        subresource: Option<&str>,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<(Value, Vec<String>), ApiError> {
        let scope = def.is_namespaced().then_some(namespace);
        meta::prepare_review(def, scope, &mut object)?;
        let findings = clean(def, &mut object, options);
        let warnings = judge(findings, options, |why| ApiError::undecodable(def, &object, &why))?;
        match def.schema.validate(&object).into_iter().next() {
            None => {
                managed::record(def, subresource, None, &mut object, options);
                Ok((object, warnings))
            }
            Some(cause) => Err(ApiError::bad_request(format!(
                "{kind} in version {version:?} cannot be handled as a {kind}: {field}: {message}",
                kind = def.kind,
                version = def.version,
                field = cause.field,
                message = cause.message
            ))),
        }
    }
}
