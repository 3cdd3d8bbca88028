//! Delete, of one object or of a collection.

use std::sync::Arc;

use commonage_store::{Compare, GuardedWrite, Op};
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};

use super::commit::{CommitError, has_finalizers, is_deleting, take_version};
use super::update::{Attempt, Target};
use super::{DeleteOptions, Deleted, Engine, List, ListOptions, Propagation, WriteOptions};
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
        engine
            .retrying(target, move |current| {
                engine.delete_once(target, delete, options, current).boxed()
            })
            .await
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
        let mut object = current.to_value();
        take_version(&mut object);
        let strategy = self.strategy(def);
        let context = self.context(def, &target.namespace, &options.user);
        strategy.may_delete(context, &object)?;
        // There is no garbage collector yet: Foreground and Orphan would add finalizers that
        // nobody removes, so every propagation is Background, but for kinds that know better.
        let orphans = delete.propagation == Some(Propagation::Orphan);
        let orphaned = orphans && strategy.orphan(&mut object);
        let own_grace_s = strategy.own_grace_s(&object);
        if has_finalizers(&object) || strategy.is_held(&object) || is_deleting(&object) {
            if is_deleting(&object) {
                if !shorten(&mut object, own_grace_s, delete.grace_s) && !orphaned {
                    return Ok(Deleted::Marked(current));
                }
            } else {
                mark(&mut object, &meta::time_text(context.now));
                if own_grace_s.is_some() {
                    set_grace(&mut object, delete.grace_s);
                }
                strategy.prepare_delete(context, &mut object);
            }
            let marked = self.store_edit(target, &current, &object, options.dry_run).await?;
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

    pub(super) async fn delete_collection_now(
        self: Arc<Self>,
        def: Arc<ResourceDef>,
        namespace: Option<String>,
        list: ListOptions,
        delete: DeleteOptions,
        options: WriteOptions,
    ) -> Result<List, ApiError> {
        let mut list = self.list(&def, namespace.as_deref(), list).await?;
        let deletions = std::mem::take(&mut list.items).into_iter().map(|object| {
            let target = Target {
                def: def.clone(),
                namespace: object.namespace().to_owned(),
                name: object.name().to_owned(),
                subresource: None,
            };
            self.clone().delete_now(target, delete.clone(), options.clone())
        });
        let mut deletions = futures::stream::iter(deletions).buffered(DELETES_AT_ONCE);
        while let Some(deleted) = deletions.next().await {
            match deleted {
                Ok(Deleted::Gone(object) | Deleted::Marked(object)) => list.items.push(object),
                Err(error) if error.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(list)
    }
}

fn check_preconditions(
    target: &Target,
    delete: &DeleteOptions,
    current: &Object,
) -> Result<(), ApiError> {
    if let Some(uid) = delete.uid.as_deref().filter(|uid| **uid != *current.uid) {
        return Err(ApiError::uid_conflict(&target.def, &target.name, uid, &current.uid));
    }
    let version = current.version.0.to_string();
    match delete.resource_version.as_deref() {
        Some(wanted) if wanted != version => {
            Err(ApiError::version_conflict(&target.def, &target.name, wanted, &version))
        }
        _ => Ok(()),
    }
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
