//! Who owns which field: the engine's one place that asks `commonage-apply`.
//!
//! [`record`] is called once in every create, update and patch, before the kind's own rules change
//! the object; [`apply`] makes the new object of a server-side apply. Writes that the server makes
//! by itself (deletion marks, bindings, answers of offers) own nothing, as in Kubernetes; only the
//! status of a definition is its own.

use commonage_apply::{ApplyError, Conflict, Unusual, Writer};
use jiff::Timestamp;
use serde_json::Value;

use super::commit::name_of;
use super::update::{Edit, Target};
use super::{FieldValidation, PatchKind, WriteOptions};
use crate::meta;
use crate::resource::ResourceDef;
use crate::schema;
use crate::status::{ApiError, Cause, StatusDetails};

/// The manager of a write that names none.
const UNKNOWN: &str = "unknown";
/// The manager of what the server writes by itself and not for a client.
const SELF: &str = "kube-apiserver";
/// Where the entries are in the metadata.
pub(super) const MEMBER: &str = "managedFields";

/// Notes what the write changed, unless it is an apply, which has settled that itself. Returns
/// whether the write is about the entries themselves: an apply, or a client that edits them.
pub(super) fn record(
    def: &ResourceDef,
    subresource: Option<&str>,
    old: Option<&Value>,
    new: &mut Value,
    options: &WriteOptions,
) -> bool {
    if options.applied {
        return true;
    }
    let (api_version, now) = (def.api_version(), meta::time_text(Timestamp::now()));
    let writer = writer(&api_version, subresource, &now, options);
    commonage_apply::record(&def.types, ignored(def, subresource), old, new, &writer)
}

/// Notes what the server itself changed of a status, as kube-apiserver does in its own name.
pub(super) fn record_status(def: &ResourceDef, old: &Value, new: &mut Value) {
    let manager = Some(SELF.to_owned());
    let options = WriteOptions { field_manager: manager, ..WriteOptions::default() };
    record(def, Some("status"), Some(old), new, &options);
}

/// The entries of an object that is being changed.
pub(super) enum Entries {
    /// In its trees, where the client may have changed them.
    InTrees,
    /// Beside them, as text: the client says nothing about them.
    Beside(Option<String>),
}

/// As [`record`], of entries that are beside the trees.
///
/// # Errors
/// They have to be read as trees.
pub(super) fn record_beside(
    def: &ResourceDef,
    subresource: Option<&str>,
    old: &Value,
    new: &Value,
    options: &WriteOptions,
    live: Option<&str>,
) -> Result<Option<String>, Unusual> {
    let (api_version, now) = (def.api_version(), meta::time_text(Timestamp::now()));
    let writer = writer(&api_version, subresource, &now, options);
    commonage_apply::record_text(&def.types, ignored(def, subresource), old, new, &writer, live)
}

/// As [`record`], of a new object without entries: returns them.
pub(super) fn record_new_beside(
    def: &ResourceDef,
    new: &Value,
    options: &WriteOptions,
) -> Option<String> {
    let (api_version, now) = (def.api_version(), meta::time_text(Timestamp::now()));
    let writer = writer(&api_version, None, &now, options);
    commonage_apply::record_new_text(&def.types, ignored(def, None), new, &writer)
}

/// Whether the entries of a new object can be kept beside it: it is stored as it is, and nobody has
/// said anything about them.
pub(super) fn may_be_beside(def: &ResourceDef, new: &Value, options: &WriteOptions) -> bool {
    def.stored_as.is_none()
        && def.view().is_none()
        && !options.applied
        && new["metadata"].get(MEMBER).is_none()
}

/// Whether an edit can't say anything about the entries. What is written with escapes may.
pub(super) fn is_silent_about_entries(edit: &Edit) -> bool {
    match edit {
        Edit::Replace(new) => new.get("metadata").is_none_or(|all| all.get(MEMBER).is_none()),
        Edit::Patch { kind: PatchKind::Merge | PatchKind::Strategic, body } => {
            let says = |text: &str| memchr::memmem::find(body, text.as_bytes()).is_some();
            !says(MEMBER) && !says("\\u")
        }
        Edit::Patch { .. } => false,
    }
}

/// Whether a write changes nothing. Neither times of managers count nor, in a write that is not
/// about them, the managers at all: then a rule of the kind has undone what the client changed.
pub(super) fn is_unchanged(old: &mut Value, new: &mut Value, about_entries: bool) -> bool {
    let (was, is) = (take_entries(old), take_entries(new));
    let same_entries = was == is
        || !about_entries
        || commonage_apply::differ_in_time_only(was.as_ref(), is.as_ref());
    let unchanged = same_entries && new == old;
    put_entries(new, is);
    unchanged
}

pub(super) fn take_entries(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove(MEMBER)
}

pub(super) fn put_entries(object: &mut Value, entries: Option<Value>) {
    if let (Some(entries), Some(Value::Object(metadata))) = (entries, object.get_mut("metadata")) {
        metadata.insert(MEMBER.into(), entries);
    }
}

/// The new object of a server-side apply, and texts for warnings. `live` is `None` when the apply
/// is to create the object.
pub(super) fn apply(
    target: &Target,
    live: Option<&Value>,
    body: &[u8],
    force: bool,
    options: &WriteOptions,
) -> Result<(Value, Vec<String>), ApiError> {
    let def = &target.def;
    let (config, duplicates) = decode(body)?;
    check_type(def, &config)?;
    let (api_version, now) = (def.api_version(), meta::time_text(Timestamp::now()));
    let subresource = target.subresource.as_deref();
    let writer = writer(&api_version, subresource, &now, options);
    let ignored = ignored(def, subresource);
    let applied = commonage_apply::apply(&def.types, ignored, live, &config, &writer, force)
        .map_err(refused)?;
    let warnings = match (options.field_validation, duplicates) {
        (FieldValidation::Strict, Some(text)) => {
            return Err(ApiError::bad_request(format!("error strict decoding YAML: {text}")));
        }
        (FieldValidation::Warn, Some(text)) => vec![text],
        _ => Vec::new(),
    };
    check_name(target, live, &applied.object)?;
    Ok((applied.object, warnings))
}

fn writer<'a>(
    api_version: &'a str,
    subresource: Option<&'a str>,
    now: &'a str,
    options: &'a WriteOptions,
) -> Writer<'a> {
    let manager = options.field_manager.as_deref().filter(|manager| !manager.is_empty());
    Writer {
        manager: manager.unwrap_or(UNKNOWN),
        api_version,
        subresource: subresource.unwrap_or_default(),
        now,
    }
}

/// What a write to this part of the object cannot change, and so does not own.
fn ignored(def: &ResourceDef, subresource: Option<&str>) -> &'static [&'static str] {
    match subresource {
        Some("status") => &["spec", "metadata"],
        _ if def.has_status => &["status"],
        _ => &[],
    }
}

/// The body, which may be JSON whatever its type says, and what is wrong with it when read
/// strictly.
fn decode(body: &[u8]) -> Result<(Value, Option<String>), ApiError> {
    let bad = |error: String| ApiError::bad_request(format!("error decoding YAML: {error}"));
    let (value, repeated) = match schema::decode_strict(body) {
        Ok((value, duplicates)) => {
            // Go reads JSON as YAML too, where it is one line.
            let line = |path: &String| {
                let key = path.rsplit('.').next().unwrap_or(path);
                format!("line 1: key {key:?} already set in map")
            };
            (value, duplicates.iter().map(line).collect())
        }
        Err(_) => schema::decode_yaml(body)
            .map_err(|why| bad(format!("error converting YAML to JSON: {why}")))?,
    };
    let found = match &value {
        Value::Object(_) | Value::Null => None,
        Value::Array(_) => Some("array"),
        Value::String(_) => Some("string"),
        Value::Number(_) => Some("number"),
        Value::Bool(_) => Some("bool"),
    };
    if let Some(found) = found {
        return Err(bad(format!(
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
        )));
    }
    let strict = (!repeated.is_empty()).then(|| {
        let lines: String = repeated.iter().map(|line| format!("\n  {line}")).collect();
        format!("error converting YAML to JSON: yaml: unmarshal errors:{lines}")
    });
    Ok((value, strict))
}

fn check_type(def: &ResourceDef, config: &Value) -> Result<(), ApiError> {
    let text = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if api_version == def.api_version() && kind == def.kind {
        return Ok(());
    }
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    Err(ApiError::bad_request(format!("invalid object type: {group}/{version}, Kind={kind}")))
}

fn refused(error: ApplyError) -> ApiError {
    let message = error.to_string();
    match error {
        ApplyError::BadRequest(_) => ApiError::bad_request(message),
        ApplyError::Untyped(_) => ApiError::unforeseen(message),
        ApplyError::Conflicts(conflicts) => {
            let cause = |conflict: &Conflict| Cause {
                reason: "FieldManagerConflict".into(),
                message: conflict.message(),
                field: conflict.path.clone(),
            };
            let causes = conflicts.iter().map(cause).collect();
            ApiError::new(409, "Conflict", message)
                .with_details(StatusDetails { causes, ..StatusDetails::default() })
        }
    }
}

/// The object must be the one of the URL.
fn check_name(target: &Target, live: Option<&Value>, object: &Value) -> Result<(), ApiError> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let wanted = &target.name;
    if live.is_none() && !text("uid").is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {}, and no existing object was found",
            text("uid")
        );
        return Err(ApiError::conflict_because(&target.def, wanted, &why));
    }
    let (given, namespace) = (text("namespace"), &target.namespace);
    if !namespace.is_empty() && !given.is_empty() && given != namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let name = name_of(object);
    if name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        )));
    }
    if name != wanted {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        )));
    }
    Ok(())
}
