//! Update and patch: read, change, compare, write; again when somebody was faster and the client
//! did not insist on a version.

mod ready;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commonage_store::{Compare, GuardedWrite, Op};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::time::Instant;

use super::commit::{CommitError, has_finalizers, is_deleting, take_version};
use super::managed::Entries;
use super::{Engine, PatchKind, WriteOptions, Written, managed};
use crate::meta;
use crate::object::{Object, encode_as, encode_with};
use crate::resource::{Origin, ResourceDef};
use crate::status::ApiError;

pub(super) use ready::By;
use ready::Ready;

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
        [&self.namespace, "/", &self.name].concat()
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
            Edit::Replace(body)
                if target.subresource.is_none() && target.def.is_created_by_update() =>
            {
                self.replace_now(&target, &edit, body, options).await
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

    /// Of some built-in kinds a PUT creates what is not there.
    async fn replace_now(
        self: &Arc<Self>,
        target: &Target,
        edit: &Edit,
        body: &Value,
        options: WriteOptions,
    ) -> Result<Written, ApiError> {
        let not_found = ApiError::not_found(&target.def, &target.name);
        match self.edit(target, edit, &options).await {
            Err(error) if error == not_found => {}
            done => return done,
        }
        if let Some(refused) = &options.create_refused {
            return Err((**refused).clone());
        }
        let mut object = body.clone();
        take_version(&mut object);
        let (def, namespace) = (target.def.clone(), target.namespace.clone());
        match self.clone().create_now(def, namespace, object, options.clone()).await {
            // Somebody else made it meanwhile.
            Err(error) if error.reason == "AlreadyExists" => {
                self.edit(target, edit, &options).await
            }
            done => done,
        }
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
        let def = &target.def;
        // Nearly half of an object is about who owns what of it: that is not made a tree of if it need not.
        let beside = def.stored_as.is_none()
            && def.view().is_none()
            && managed::is_silent_about_entries(edit);
        let edited = |beside| self.edited(target, edit, options, &current, beside);
        let ready = match beside.then(|| edited(true)) {
            Some(Ok(ready)) => ready,
            // What is wrong is said about the whole of it.
            Some(Err(_)) | None => edited(false)?,
        };
        self.write_ready(target, ready, options, current).await
    }

    /// From the object that the client wants to the one that is stored. `old` is `current` as a tree.
    pub(super) async fn write_edit(
        &self,
        target: &Target,
        by: By,
        old: Value,
        new: Value,
        options: &WriteOptions,
        current: Arc<Object>,
    ) -> Result<Written, Attempt> {
        let ready = self.checked(target, by, (old, new), Entries::InTrees, options, &current)?;
        self.write_ready(target, ready, options, current).await
    }

    async fn write_ready(
        &self,
        target: &Target,
        ready: Ready,
        options: &WriteOptions,
        current: Arc<Object>,
    ) -> Result<Written, Attempt> {
        let Ready { new, entries, warnings, unchanged } = ready;
        // What is encrypted with an old key is written again, though it says the same.
        let stale =
            || self.settings.encryption.as_ref().is_some_and(|it| it.is_stale(&target.key()));
        if unchanged && !stale() {
            return Ok(Written { object: current, warnings, created: false });
        }
        let entries = entries.as_deref();
        match self.store_edit_with(target, &current, &new, entries, options.dry_run).await {
            Ok(object) => Ok(Written { object, warnings, created: false }),
            Err(Attempt::Failed(error)) => Err(Attempt::Failed(error.with_warnings(&warnings))),
            Err(again) => Err(again),
        }
    }

    /// Writes the new object over `current`; removes it instead when nothing holds it any more.
    pub(crate) async fn store_edit(
        &self,
        target: &Target,
        current: &Object,
        new: &Value,
        dry_run: bool,
    ) -> Result<Arc<Object>, Attempt> {
        self.store_edit_with(target, current, new, None, dry_run).await
    }

    /// As [`Engine::store_edit`]. With `entries`, `new` is without its `metadata.managedFields`, which
    /// are these; the kind is then one that is stored as `target` has it.
    pub(crate) async fn store_edit_with(
        &self,
        target: &Target,
        current: &Object,
        new: &Value,
        entries: Option<&str>,
        dry_run: bool,
    ) -> Result<Arc<Object>, Attempt> {
        let value = match entries {
            Some(entries) => encode_with(new, Some(entries)),
            None => encode_as(&target.def, new),
        };
        self.store_value(target, current, new, value, dry_run).await
    }

    /// As [`Engine::store_edit`]; `value` is how `new` is stored.
    async fn store_value(
        &self,
        target: &Target,
        current: &Object,
        new: &Value,
        value: Bytes,
        dry_run: bool,
    ) -> Result<Arc<Object>, Attempt> {
        let key = target.key();
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
