//! CustomResourceDefinition: what it gets when it comes, and what must hold of it.
//!
//! What the server writes to it later (names, conditions, removal) is `engine/definitions`.

mod conversion;
mod names;
mod validate;
mod version;

use serde_json::{Value, json};

use crate::builtin::DEFINITION_FINALIZER;
use crate::engine::is_deleting;
use crate::meta;
use crate::status::{ApiError, Cause};
use crate::strategy::{Context, Strategy};

pub(crate) use validate::approval;

pub(super) struct Definitions;

impl Strategy for Definitions {
    fn default(&self, object: &mut Value) {
        default(object);
    }

    fn prepare_create(&self, cx: Context<'_>, object: &mut Value) -> Result<(), ApiError> {
        refuse_compiled(cx, object)?;
        object["status"] = json!({
            "conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": [],
        });
        note_stored_version(object);
        Ok(())
    }

    fn prepare_update(
        &self,
        _cx: Context<'_>,
        subresource: Option<&str>,
        _old: &Value,
        new: &mut Value,
    ) -> Result<(), ApiError> {
        if subresource.is_none() {
            note_stored_version(new);
        }
        Ok(())
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        validate::validate(object, old)
    }

    fn prepare_delete(&self, cx: Context<'_>, object: &mut Value) {
        let finalizers = &mut object["metadata"]["finalizers"];
        if !finalizers.is_array() {
            *finalizers = json!([]);
        }
        if let Some(finalizers) = finalizers.as_array_mut()
            && !finalizers.iter().any(|finalizer| finalizer == DEFINITION_FINALIZER)
        {
            finalizers.push(DEFINITION_FINALIZER.into());
        }
        let conditions = &mut object["status"]["conditions"];
        if !conditions.is_array() {
            *conditions = json!([]);
        }
        if let Some(conditions) = conditions.as_array_mut() {
            conditions.retain(|condition| condition["type"] != "Terminating");
            conditions.push(json!({
                "type": "Terminating", "status": "True", "reason": "InstanceDeletionPending",
                "lastTransitionTime": meta::time_text(cx.now),
                "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
            }));
        }
    }

    /// No definition goes before its objects.
    fn is_held(&self, object: &Value) -> bool {
        !is_deleting(object)
    }
}

/// What this server has compiled in can't be defined a second time.
fn refuse_compiled(cx: Context<'_>, definition: &Value) -> Result<(), ApiError> {
    let spec = &definition["spec"];
    let (group, plural) = (&spec["group"], &spec["names"]["plural"]);
    let scheme = cx.engine.scheme();
    let own = scheme.iter().find(|def| {
        !def.may_change && *group == def.group.as_str() && *plural == def.plural.as_str()
    });
    let Some(own) = own else { return Ok(()) };
    let detail =
        format!("{} is built into this server and cannot be defined", own.group_resource());
    let cause = Cause::forbidden("spec.names.plural", &detail);
    let name = definition["metadata"]["name"].as_str().unwrap_or_default();
    Err(ApiError::invalid(cx.def, name, vec![cause]))
}

/// What apiextensions fills in.
fn default(definition: &mut Value) {
    let Some(spec) = definition.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    let versions = spec.get_mut("versions").and_then(Value::as_array_mut);
    for version in versions.into_iter().flatten() {
        for flag in ["served", "storage"] {
            if version.is_object() && version[flag].is_null() {
                version[flag] = false.into();
            }
        }
    }
    let kind = spec.get("names").and_then(|names| names["kind"].as_str()).map(str::to_owned);
    if let Some(kind) = kind {
        let names = &mut spec["names"];
        if names["singular"].as_str().unwrap_or_default().is_empty() {
            names["singular"] = kind.to_lowercase().into();
        }
        if names["listKind"].as_str().unwrap_or_default().is_empty() && !kind.is_empty() {
            names["listKind"] = format!("{kind}List").into();
        }
    }
    if spec["conversion"].is_null() {
        spec["conversion"] = json!({"strategy": "None"});
    }
}

/// Objects may be stored as this version from now on.
fn note_stored_version(definition: &mut Value) {
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let storage = versions.filter(|version| version["storage"] == true);
    let Some(name) = storage.filter_map(|version| version["name"].as_str()).next() else { return };
    let name = name.to_owned();
    let stored = &mut definition["status"]["storedVersions"];
    if !stored.is_array() {
        *stored = json!([]);
    }
    if let Some(stored) = stored.as_array_mut()
        && !stored.iter().any(|known| *known == *name)
    {
        stored.push(name.into());
    }
}
