//! Update and patch: read, change, compare, write; again when somebody was faster and the client
//! did not insist on a version.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commonage_store::{Compare, GuardedWrite, Op};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::time::Instant;

use super::commit::{CommitError, clean, has_finalizers, is_deleting, judge, take_version};
use super::create::unreadable;
use super::{Engine, FieldValidation, PatchKind, WriteOptions, Written, managed};
use crate::meta;
use crate::object::{Object, encode_as};
use crate::patch;
use crate::resource::{Origin, ResourceDef};
use crate::schema::go;
use crate::status::{ApiError, Cause};

/// How long a write that named no version waits for its turn and is tried again. kube-apiserver
/// goes on until the request's deadline, a minute there; half of that leaves time to answer.
pub(crate) const RETRY_FOR: Duration = Duration::from_secs(30);

/// The code of a write that may have landed. It is never tried again: what has changed since may be
/// its own doing, and it would land twice.
const OUTCOME_UNKNOWN: u16 = 504;

/// The object, or a part of it with rules of its own, that a request changes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) def: Arc<ResourceDef>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) subresource: Option<String>,
}

impl Target {
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    pub(crate) fn key(&self) -> Bytes {
        self.def.key(&self.namespace, &self.name).into()
    }
}

/// How the new object comes from the old one.
pub(super) enum Edit {
    Replace(Value),
    Patch { kind: PatchKind, body: Bytes },
}

/// What made the new object, for what is said of one that cannot be read.
#[derive(Clone, Copy)]
pub(super) enum By<'e> {
    Replacing,
    Patching,
    /// A strategic merge patch.
    Merging(&'e Bytes),
    /// The object's `/scale`, which owns what it writes in its own name.
    Scaling,
}

/// Why one attempt failed.
pub(crate) enum Attempt {
    /// Somebody was faster. (The next attempt compares the version that the client named, if any.)
    Again,
    Failed(ApiError),
}

impl From<ApiError> for Attempt {
    fn from(error: ApiError) -> Self {
        Attempt::Failed(error)
    }
}

impl Engine {
    pub(super) async fn edit_now(
        self: Arc<Self>,
        target: Target,
        edit: Edit,
        options: WriteOptions,
    ) -> Result<Written, ApiError> {
        check_subresource(&target)?;
        if let Edit::Patch { kind: PatchKind::Strategic, .. } = edit
            && target.def.origin == Origin::Custom
        {
            return Err(ApiError::unsupported_media_type(&PatchKind::CUSTOM));
        }
        if target.subresource.as_deref() == Some("scale") {
            return self.scale_now(target, edit, options).await;
        }
        let mut edit = edit;
        let mut warnings = Vec::new();
        if let Edit::Replace(body) = &mut edit {
            warnings = self.accept(&target.def, body, &options)?;
            let same = meta::check_same_object(&target.def, &target.namespace, &target.name, body);
            same.map_err(|error| error.with_warnings(&warnings))?;
        }
        let done = match &edit {
            Edit::Patch { kind: PatchKind::Apply { force }, body } => {
                let options = WriteOptions { applied: true, ..options };
                self.apply_now(&target, &edit, *force, body, options).await
            }
            _ => self.edit(&target, &edit, &options).await,
        };
        match done {
            Ok(mut written) => {
                warnings.append(&mut written.warnings);
                Ok(Written { warnings, ..written })
            }
            Err(error) => Err(error.with_warnings(&warnings)),
        }
    }

    async fn edit(
        &self,
        target: &Target,
        edit: &Edit,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        self.retrying(target, move |current| self.edit_once(target, edit, options, current).boxed())
            .await
    }

    /// A server-side apply creates what is not there.
    async fn apply_now(
        self: &Arc<Self>,
        target: &Target,
        edit: &Edit,
        force: bool,
        body: &Bytes,
        options: WriteOptions,
    ) -> Result<Written, ApiError> {
        let deadline = Instant::now() + RETRY_FOR;
        loop {
            let missing = match self.edit(target, edit, &options).await {
                Err(error) if error == ApiError::not_found(&target.def, &target.name) => error,
                done => return done,
            };
            if Instant::now() >= deadline || target.subresource.is_some() {
                return Err(missing);
            }
            let (mut object, warnings) = managed::apply(target, None, body, force, &options)?;
            take_version(&mut object);
            if let Some(refused) = &options.create_refused {
                return Err((**refused).clone());
            }
            let (def, namespace) = (target.def.clone(), target.namespace.clone());
            match self.clone().create_now(def, namespace, object, options.clone()).await {
                // Somebody else made it meanwhile.
                Err(error) if error.reason == "AlreadyExists" => {}
                done => {
                    return done.map(|written| Written {
                        warnings: [warnings, written.warnings].concat(),
                        ..written
                    });
                }
            }
        }
    }

    /// Runs an attempt on the newest version of the object until it succeeds, fails for good or
    /// has been tried for long enough. Whatever went wrong on a cached version may be the cache's
    /// fault: the first failure is checked against the store before it is believed.
    pub(crate) async fn retrying<'a, T>(
        &'a self,
        target: &'a Target,
        attempt: impl Fn(Arc<Object>) -> BoxFuture<'a, Result<T, Attempt>> + Send + Sync,
    ) -> Result<T, ApiError> {
        let path = target.path();
        let mut confirmed = false;
        let deadline = Instant::now() + RETRY_FOR;
        let turn = tokio::time::timeout_at(deadline, self.turns.take(target.key())).await;
        let Ok(_turn) = turn else {
            return Err(ApiError::timeout("too many others change the object at the same time"));
        };
        while Instant::now() < deadline {
            let current = self.resource(&target.def)?.get(&path);
            let version = current.as_ref().map(|object| object.version);
            let result = match current {
                Some(current) => attempt(current.seen_as(&target.def)).await,
                None => Err(Attempt::Failed(self.missing(target)?)),
            };
            let failure = match result {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            if let Attempt::Failed(error) = &failure
                && (confirmed || error.code == OUTCOME_UNKNOWN)
            {
                return Err(error.clone());
            }
            self.fresh(None).await?;
            let now = self.resource(&target.def)?.get(&path).map(|object| object.version);
            if let Attempt::Failed(error) = failure
                && now == version
            {
                return Err(error);
            }
            confirmed = true;
        }
        Err(ApiError::conflict(&target.def, &target.name))
    }

    /// Why an object is not there.
    fn missing(&self, target: &Target) -> Result<ApiError, ApiError> {
        let unreadable = self.resource(&target.def)?.unreadable(&target.path());
        Ok(match unreadable {
            Some((_, why)) => ApiError::unreadable(&target.def, &target.name, &why),
            None => ApiError::not_found(&target.def, &target.name),
        })
    }

    async fn edit_once(
        &self,
        target: &Target,
        edit: &Edit,
        options: &WriteOptions,
        current: Arc<Object>,
    ) -> Result<Written, Attempt> {
        let old = current.to_value();
        let (new, warnings) = match edit {
            Edit::Replace(new) => (new.clone(), Vec::new()),
            Edit::Patch { kind, body } => patched(target, old.clone(), *kind, body, options)?,
        };
        let by = match edit {
            Edit::Replace(_) => By::Replacing,
            Edit::Patch { kind: PatchKind::Strategic, body } => By::Merging(body),
            Edit::Patch { .. } => By::Patching,
        };
        match self.write_edit(target, by, old, new, options, current).await {
            Ok(mut written) => {
                written.warnings.splice(0..0, warnings);
                Ok(written)
            }
            Err(Attempt::Failed(error)) => Err(Attempt::Failed(error.with_warnings(&warnings))),
            Err(again) => Err(again),
        }
    }

    /// From the object that the client wants to the one that is stored. `old` is `current` as a tree.
    pub(super) async fn write_edit(
        &self,
        target: &Target,
        by: By<'_>,
        mut old: Value,
        mut new: Value,
        options: &WriteOptions,
        current: Arc<Object>,
    ) -> Result<Written, Attempt> {
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
        check_version(target, take_version(&mut new).as_deref(), &current)?;
        self.prepare_edit(target, options, &old, &mut new)?;
        let strategy = self.strategy(def);
        strategy.default(&mut new);
        let part = if matches!(by, By::Scaling) { Some("scale") } else { subresource };
        let about_entries = managed::record(def, part, Some(&old), &mut new, options);
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
        if let Some(why) = unreadable(def, &causes) {
            let error = match by {
                By::Replacing => ApiError::undecodable(def, &new, &why),
                By::Patching | By::Scaling => ApiError::invalid_patch(&new.to_string(), &why),
                By::Merging(patch) => unmergeable(patch, why),
            };
            return Err(error.into());
        }
        if causes.is_empty() {
            causes.extend(strategy.validate(&new, Some(&old)));
        }
        if !causes.is_empty() {
            return Err(ApiError::invalid(def, &target.name, causes).into());
        }
        let warnings = meta::warnings(def, Some(&old), &new);
        // What is encrypted with an old key is written again, though it says the same.
        let stale =
            || self.settings.encryption.as_ref().is_some_and(|it| it.is_stale(&target.key()));
        if managed::is_unchanged(&mut old, &mut new, about_entries) && !stale() {
            return Ok(Written { object: current, warnings, created: false });
        }
        let object = self.store_edit(target, &current, &new, options.dry_run).await?;
        Ok(Written { object, warnings, created: false })
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

    /// Writes the new object over `current`; removes it instead when nothing holds it any more.
    pub(crate) async fn store_edit(
        &self,
        target: &Target,
        current: &Object,
        new: &Value,
        dry_run: bool,
    ) -> Result<Arc<Object>, Attempt> {
        let (key, value) = (target.key(), encode_as(&target.def, new));
        if dry_run {
            return Ok(self.pretended(&target.def, &target.path(), &value, current.version)?);
        }
        let ends =
            is_deleting(new) && !has_finalizers(new) && !self.strategy(&target.def).is_held(new);
        let op = match ends {
            true => Op::Delete { key: key.clone() },
            false => self.put(&target.def, key.clone(), value.clone()),
        };
        let write = GuardedWrite {
            compares: vec![Compare::At { key, version: current.version }],
            ops: vec![op],
        };
        match self.commit(write).await {
            // What is gone has no version of its own: the answer is what was asked for.
            Ok(_) if ends => {
                Ok(self.pretended(&target.def, &target.path(), &value, current.version)?)
            }
            Ok(committed) => {
                Ok(self.written(&target.def, &target.path(), &value, committed.versions[0])?)
            }
            Err(CommitError::Conflict(_)) => Err(Attempt::Again),
            Err(CommitError::Failed(error)) => Err(error.into()),
        }
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

fn check_subresource(target: &Target) -> Result<(), ApiError> {
    let known = match target.subresource.as_deref() {
        None => true,
        Some("status") => target.def.has_status,
        Some("scale") => target.def.scale.is_some(),
        Some("finalize") => target.def.group.is_empty() && target.def.kind == "Namespace",
        Some(_) => false,
    };
    if known { Ok(()) } else { Err(ApiError::not_found(&target.def, &target.name)) }
}
