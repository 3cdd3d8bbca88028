//! Delete, of one object or of a collection.

use std::sync::Arc;

use commonage_store::{Compare, GuardedWrite, Op, Version};
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};

use super::commit::{CommitError, encode, has_finalizers, is_deleting, take_version};
use super::update::{Attempt, Target};
use super::{DeleteOptions, Deleted, Engine, List, ListOptions, Propagation, WriteOptions};
use crate::kinds::view;
use crate::meta;
use crate::object::Object;
use crate::resource::ResourceDef;
use crate::status::ApiError;

/// Objects of a collection that are deleted at once: enough to share a group commit.
const DELETES_AT_ONCE: usize = 32;
/// In `metadata`.
const GRACE: &str = "deletionGracePeriodSeconds";

impl Engine {
    pub(super) async fn delete_now(
        self: Arc<Self>,
        target: Target,
        delete: DeleteOptions,
        options: WriteOptions,
    ) -> Result<Deleted, ApiError> {
        let (engine, target, delete, options) = (&*self, &target, &delete, &options);
        let deleted = engine
            .retrying(target, move |current| {
                engine.delete_once(target, delete, options, current).boxed()
            })
            .await;
        let missing = match deleted {
            Err(error) if matches!(error.code, 404 | 500) => error,
            deleted => return deleted,
        };
        // (Looking made sure that the cache knows.)
        match engine.resource(&target.def)?.unreadable(&target.path()) {
            Some((version, _)) => engine.delete_unreadable(target, version, options).await,
            None => Err(missing),
        }
    }

    /// What can't be read has no finalizers that anybody could respect: it goes at once.
    async fn delete_unreadable(
        &self,
        target: &Target,
        version: Version,
        options: &WriteOptions,
    ) -> Result<Deleted, ApiError> {
        let Target { def, namespace, name, .. } = target;
        let stub = json!({
            "apiVersion": def.api_version(), "kind": def.kind,
            "metadata": {"name": name, "namespace": namespace},
        });
        let stub = self.pretended(def, &target.path(), &encode(&stub), version)?;
        if options.dry_run {
            return Ok(Deleted::Gone(stub));
        }
        let key = target.key();
        let write = GuardedWrite {
            compares: vec![Compare::At { key: key.clone(), version }],
            ops: vec![Op::Delete { key }],
        };
        match self.commit(write).await {
            Ok(_) => Ok(Deleted::Gone(stub)),
            Err(CommitError::Conflict(_)) => Err(ApiError::conflict(def, name)),
            Err(CommitError::Failed(error)) => Err(error),
        }
    }

    /// A kind on loan has nothing to delete but what it shows.
    pub(super) async fn delete_source(
        self: &Arc<Self>,
        def: &Arc<ResourceDef>,
        source: &Arc<ResourceDef>,
        namespace: &str,
        name: &str,
        mut delete: DeleteOptions,
        options: WriteOptions,
    ) -> Result<Deleted, ApiError> {
        delete.uid = delete.uid.map(|uid| view::source_uid(&uid));
        let target = Target::new(source, namespace, name, None);
        let deleted = self.detached(self.clone().delete_now(target, delete, options)).await;
        match deleted {
            Ok(Deleted::Gone(object)) => Ok(Deleted::Gone(object.seen_as(def))),
            Ok(Deleted::Marked(object)) => Ok(Deleted::Marked(object.seen_as(def))),
            Err(error) if error.code == 404 => Err(ApiError::not_found(def, name)),
            Err(error) => Err(error),
        }
    }

    async fn delete_once(
        &self,
        target: &Target,
        delete: &DeleteOptions,
        options: &WriteOptions,
        current: Arc<Object>,
    ) -> Result<Deleted, Attempt> {
        let def = &target.def;
        check_preconditions(target, delete, &current)?;
        let (mut object, entries) = match def.stored_as {
            None => current.to_value_and_entries(),
            Some(_) => (current.to_value(), None),
        };
        take_version(&mut object);
        let strategy = self.strategy(def);
        let context = self.context(def, &target.namespace, &options.user);
        strategy.may_delete(context, &object)?;
        let was_deleting = is_deleting(&object);
        let collected = def.kind != "Event" && set_finalizers(&mut object, delete.propagation);
        let orphans = delete.propagation == Some(Propagation::Orphan);
        let changed = orphans && strategy.orphan(&mut object) || collected;
        let own_grace_s = strategy.own_grace_s(&object);
        strategy.release(&mut object);
        let held = has_finalizers(&object) || strategy.is_held(&object);
        if held || (was_deleting && !changed) {
            if was_deleting {
                if !shorten(&mut object, own_grace_s, delete.grace_s) && !changed {
                    return Ok(Deleted::Marked(current));
                }
            } else {
                mark(&mut object, &meta::time_text(context.now));
                if own_grace_s.is_some() {
                    set_grace(&mut object, delete.grace_s);
                }
                strategy.prepare_delete(context, &mut object);
            }
            let entries = entries.as_deref();
            let marked =
                self.store_edit_with(target, &current, &object, entries, options.dry_run).await?;
            return Ok(Deleted::Marked(marked));
        }
        if options.dry_run {
            return Ok(Deleted::Gone(current));
        }
        let key = target.key();
        let write = GuardedWrite {
            compares: vec![Compare::At { key: key.clone(), version: current.version }],
            ops: vec![Op::Delete { key }],
        };
        match self.commit(write).await {
            Ok(_) => Ok(Deleted::Gone(current)),
            Err(CommitError::Conflict(_)) => Err(Attempt::Again),
            Err(CommitError::Failed(error)) => Err(error.into()),
        }
    }

    /// Answers the objects as they were listed, like kube-apiserver.
    pub(super) async fn delete_collection_now(
        self: Arc<Self>,
        def: Arc<ResourceDef>,
        namespace: Option<String>,
        list: ListOptions,
        delete: DeleteOptions,
        options: WriteOptions,
    ) -> Result<List, ApiError> {
        let list = self.list(&def, namespace.as_deref(), list).await?;
        let deletions = list.items.iter().map(|object| {
            let target = Target {
                def: def.clone(),
                namespace: object.namespace().to_owned(),
                name: object.name().to_owned(),
                subresource: None,
            };
            self.clone().delete_now(target, delete.clone(), options.clone())
        });
        // (Collected first: a stream over the borrowing iterator would not be `Send`.)
        let deletions: Vec<_> = deletions.collect();
        let mut deletions = futures::stream::iter(deletions).buffered(DELETES_AT_ONCE);
        while let Some(deleted) = deletions.next().await {
            match deleted {
                Ok(_) => {}
                Err(error) if error.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(list)
    }
}

/// Sets the finalizers by which the garbage collector knows what is to become of dependents: none
/// for Background. What the client did not say, the object's finalizers say. Whether they changed.
fn set_finalizers(object: &mut Value, propagation: Option<Propagation>) -> bool {
    let Some(propagation) = propagation else { return false };
    let Some(metadata) = object["metadata"].as_object_mut() else { return false };
    let before: Vec<Value> =
        metadata.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    let ours = [meta::ORPHAN_FINALIZER, meta::FOREGROUND_FINALIZER];
    let mut after: Vec<Value> =
        before.iter().filter(|one| !ours.iter().any(|our| *one == our)).cloned().collect();
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => after.push(meta::FOREGROUND_FINALIZER.into()),
        Propagation::Orphan => after.push(meta::ORPHAN_FINALIZER.into()),
    }
    let same = before.len() == after.len() && after.iter().all(|one| before.contains(one));
    if same {
        return false;
    }
    match after.is_empty() {
        true => metadata.remove("finalizers"),
        false => metadata.insert("finalizers".into(), after.into()),
    };
    true
}

fn check_preconditions(
    target: &Target,
    delete: &DeleteOptions,
    current: &Object,
) -> Result<(), ApiError> {
    let (def, name) = (&target.def, &target.name);
    if def.group.is_empty() && def.kind == "Namespace" {
        return check_namespace_preconditions(target, delete, current);
    }
    if let Some(uid) = delete.uid.as_deref().filter(|uid| **uid != *current.uid) {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
             deleted and then recreated",
            current.uid
        );
        return Err(ApiError::delete_conflict(def, name, &why));
    }
    let version = current.version.0.to_string();
    match delete.resource_version.as_deref() {
        Some(wanted) if wanted != version => {
            let why = format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record \
                 ({version}). The object might have been modified"
            );
            Err(ApiError::delete_conflict(def, name, &why))
        }
        _ => Ok(()),
    }
}

/// Kubernetes asks for the same of its namespaces in other words.
fn check_namespace_preconditions(
    target: &Target,
    delete: &DeleteOptions,
    current: &Object,
) -> Result<(), ApiError> {
    let version = current.version.0.to_string();
    let asked = [
        ("UID", delete.uid.as_deref(), &*current.uid),
        ("ResourceVersion", delete.resource_version.as_deref(), &version),
    ];
    for (what, wanted, found) in asked {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            );
            return Err(ApiError::conflict_because(&target.def, &target.name, &why));
        }
    }
    Ok(())
}

/// What the client said about a kind that has a grace period of its own; nothing when it said
/// nothing: 0 would mean at once.
fn set_grace(object: &mut Value, seconds: Option<i64>) {
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    match seconds {
        Some(seconds) => metadata.insert(GRACE.to_owned(), json!(seconds)),
        None => metadata.remove(GRACE),
    };
}

/// A later deletion may give less time than an earlier one, never more. Whether it did.
fn shorten(object: &mut Value, own_s: Option<i64>, asked_s: Option<i64>) -> bool {
    let (Some(own_s), Some(asked_s)) = (own_s, asked_s) else { return false };
    let given_s = object["metadata"][GRACE].as_i64().unwrap_or(own_s);
    if asked_s >= given_s {
        return false;
    }
    set_grace(object, Some(asked_s));
    true
}

/// Sets what a deletion that has to wait for finalizers sets.
pub(crate) fn mark(object: &mut Value, now: &str) {
    let metadata = &mut object["metadata"];
    metadata["deletionTimestamp"] = json!(now);
    metadata[GRACE] = json!(0);
    meta::bump_generation(object);
}
