//! What an edit makes of an object: everything between what a client wants and what is stored.
//!
//! Nothing here waits or writes: the same edit of the same object comes to the same.

use bytes::Bytes;
use commonage_apply::Unusual;
use serde_json::Value;

use super::super::commit::{clean, judge, take_version};
use super::super::managed::{self, Entries};
use super::super::{Engine, FieldValidation, PatchKind, WriteOptions, scale};
use super::{Attempt, Edit, Target};
use crate::meta;
use crate::object::Object;
use crate::patch;
use crate::resource::Origin;
use crate::schema::go;
use crate::status::{ApiError, Cause};

/// What made the new object, for what is said of one that cannot be read.
#[derive(Clone, Copy)]
pub(in crate::engine) enum By {
    Replacing,
    Patching,
    /// The object's `/scale`, which owns what it writes in its own name.
    Scaling,
}

/// What is to be stored.
pub(super) struct Ready {
    pub(super) new: Value,
    /// `metadata.managedFields`, where they are beside the tree and there are any.
    pub(super) entries: Option<String>,
    pub(super) warnings: Vec<String>,
    /// It is what is stored already.
    pub(super) unchanged: bool,
}

impl Engine {
    /// The object that an edit makes of `current`. `beside`: its entries are left text.
    pub(super) fn edited(
        &self,
        target: &Target,
        edit: &Edit,
        options: &WriteOptions,
        current: &Object,
        beside: bool,
    ) -> Result<Ready, Attempt> {
        let (old, entries) = match beside {
            true => {
                let (old, entries) = current.to_value_and_entries();
                (old, Entries::Beside(entries))
            }
            false => (current.to_value(), Entries::InTrees),
        };
        let (new, mut warnings) = match edit {
            Edit::Replace(new) => (new.clone(), Vec::new()),
            Edit::Patch { kind, body } => patched(target, old.clone(), *kind, body, options)?,
        };
        let by = match edit {
            Edit::Replace(_) => By::Replacing,
            Edit::Patch { .. } => By::Patching,
        };
        match self.checked(target, by, (old, new), entries, options, current) {
            Ok(mut ready) => {
                warnings.append(&mut ready.warnings);
                Ok(Ready { warnings, ..ready })
            }
            Err(Attempt::Failed(error)) => Err(Attempt::Failed(error.with_warnings(&warnings))),
            Err(again) => Err(again),
        }
    }

    /// Everything between what the client wants and what is to be stored.
    pub(super) fn checked(
        &self,
        target: &Target,
        by: By,
        (mut old, mut new): (Value, Value),
        entries: Entries,
        options: &WriteOptions,
        current: &Object,
    ) -> Result<Ready, Attempt> {
        let (def, subresource) = (&target.def, target.subresource.as_deref());
        let uid = new["metadata"]["uid"].as_str().unwrap_or_default();
        // A report names by its uid whom it is about, however it is sent: the name may be another's by
        // now. (What a patch of the whole object makes of its uid is refused as a change of it.)
        let insists = matches!(by, By::Replacing) || subresource.is_some();
        if insists && !uid.is_empty() && *uid != *current.uid {
            let (namespace, name) = (&target.namespace, &target.name);
            return Err(ApiError::uid_conflict(def, namespace, name, uid, &current.uid).into());
        }
        take_version(&mut old);
        check_version(target, take_version(&mut new).as_deref(), current)?;
        self.prepare_edit(target, options, &old, &mut new)?;
        let strategy = self.strategy_for(def, &new);
        strategy.default(&mut new);
        let part = if matches!(by, By::Scaling) { Some("scale") } else { subresource };
        let (about_entries, entries) = match entries {
            Entries::InTrees => (managed::record(def, part, Some(&old), &mut new, options), None),
            Entries::Beside(live) => {
                let live = live.as_deref();
                let entries = managed::record_beside(def, part, &old, &new, options, live);
                (false, entries.map_err(|Unusual| Attempt::Again)?)
            }
        };
        strategy.prepare_update(
            self.context(def, &target.namespace, &options.user),
            subresource,
            &old,
            &mut new,
        )?;
        if subresource.is_none() {
            meta::count_generation(def, &old, &mut new);
        }
        meta::check_type(def, &new)?;
        let mut causes = meta::validate_update(def, &old, &new);
        causes.extend(match subresource {
            Some("status") => def.schema.validate_status(&new, &old),
            _ => def.schema.validate_update(&new, &old),
        });
        causes.extend(scale::causes(def, &new, subresource == Some("status")));
        if causes.is_empty() {
            causes.extend(strategy.validate(&new, Some(&old)));
        }
        if !causes.is_empty() {
            return Err(ApiError::invalid(def, &target.name, causes).into());
        }
        let warnings = meta::warnings(def, Some(&old), &new);
        let unchanged = managed::is_unchanged(&mut old, &mut new, about_entries);
        Ok(Ready { new, entries, warnings, unchanged })
    }

    fn prepare_edit(
        &self,
        target: &Target,
        options: &WriteOptions,
        old: &Value,
        new: &mut Value,
    ) -> Result<(), ApiError> {
        // What only takes a part of the object from the client still takes who applied it.
        let applied = options.applied.then(|| managed::take_entries(new));
        if target.subresource.as_deref() == Some("finalize") {
            let finalizers = new["spec"]["finalizers"].take();
            *new = old.clone();
            new["spec"]["finalizers"] =
                if finalizers.is_null() { Value::Array(Vec::new()) } else { finalizers };
        } else {
            meta::prepare_update(&target.def, target.subresource.as_deref(), old, new)?;
        }
        if let Some(entries) = applied {
            managed::take_entries(new);
            managed::put_entries(new, entries);
        }
        Ok(())
    }
}

/// The version that the client wants to change must be the current one. (A patched document carries
/// the version that it was made from, unless the patch put another one there.)
fn check_version(target: &Target, wanted: Option<&str>, current: &Object) -> Result<(), ApiError> {
    let def = &target.def;
    let Some(wanted) = wanted else {
        if def.allow_unconditional_update {
            return Ok(());
        }
        let (field, why) = ("metadata.resourceVersion", "must be specified for an update");
        let cause = Cause::invalid(field, &Value::from(0), why);
        // By its resource, not its kind: so says kube-apiserver's storage.
        return Err(ApiError::invalid_kind(&def.group, &def.plural, &target.name, vec![cause]));
    };
    match wanted.parse::<u64>() {
        Ok(version) if version == current.version.0 => Ok(()),
        Ok(_) => Err(ApiError::conflict(def, &target.name)),
        Err(_) => {
            let why = format!("strconv.ParseUint: parsing {wanted:?}: invalid syntax");
            Err(ApiError::unforeseen(why))
        }
    }
}

/// The patched document, resourceVersion included, read as an object of the kind; and warnings.
/// `new` is the document that is to be patched.
fn patched(
    target: &Target,
    mut new: Value,
    kind: PatchKind,
    body: &Bytes,
    options: &WriteOptions,
) -> Result<(Value, Vec<String>), ApiError> {
    let def = &target.def;
    if let PatchKind::Apply { force } = kind {
        let (mut new, warnings) = managed::apply(target, Some(&new), body, force, options)?;
        meta::check_shape(def, &mut new)
            .map_err(|why| ApiError::invalid_patch(&new.to_string(), &why))?;
        clean(def, &mut new, options);
        return Ok((new, warnings));
    }
    let findings = patch::apply(def, &mut new, kind, body, options.field_validation)?;
    if !new.is_object() {
        return Err(ApiError::unprocessable_patch());
    }
    if def.origin == Origin::Custom && new["kind"].as_str().unwrap_or_default().is_empty() {
        let text = new.to_string();
        let why = meta::missing_kind(&new, &text).unwrap_or_default();
        return Err(ApiError::invalid_patch(&text, &why));
    }
    let strict = options.field_validation == FieldValidation::Strict;
    let text = strict.then(|| new.to_string());
    meta::check_shape(def, &mut new).map_err(|why| match kind {
        PatchKind::Strategic => unmergeable(body, why),
        _ => ApiError::invalid_patch(&new.to_string(), &why),
    })?;
    let options = WriteOptions { findings, ..options.clone() };
    let findings = match meta::check_type(def, &new).is_ok() {
        true => clean(def, &mut new, &options),
        false => options.findings.clone(),
    };
    let mut warnings = judge(findings, &options, |why| {
        ApiError::invalid_patch(text.as_deref().unwrap_or_default(), &why)
    })?;
    meta::check_same_object(def, &target.namespace, &target.name, &mut new)?;
    warnings.extend(meta::dedup_owners(&mut new, " after mutating admission happens"));
    Ok((new, warnings))
}

/// A strategic merge patch came out as no object of the kind. It is shown itself, not what it made.
fn unmergeable(patch: &Bytes, why: String) -> ApiError {
    let why = go::conversion_error(&why).unwrap_or(why);
    ApiError::invalid_patch(&patch::printed(patch), &why)
}
