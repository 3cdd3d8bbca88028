//! The index of roles and bindings, kept up with the cache: whoever asks first after a change takes
//! in what changed, so a binding holds as soon as its write is answered.

use std::sync::Arc;

use commonage_store::Version;
use imbl::ordmap::DiffItem;
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use serde::de::DeserializeOwned;

use super::index::{Binding, Index, Role};
use crate::cache::{Objects, ResourceCache};
use crate::object::Object;

/// The kinds that say who may what, in the order of [`Sources::caches`].
#[derive(Clone, Copy)]
enum Source {
    Roles,
    ClusterRoles,
    RoleBindings,
    ClusterRoleBindings,
}

/// The caches of these kinds.
pub(crate) struct Sources {
    pub(crate) roles: Arc<ResourceCache>,
    pub(crate) cluster_roles: Arc<ResourceCache>,
    pub(crate) role_bindings: Arc<ResourceCache>,
    pub(crate) cluster_role_bindings: Arc<ResourceCache>,
}

pub(crate) struct Tracked {
    sources: Sources,
    taken_in: RwLock<TakenIn>,
}

/// What the index was made of.
#[derive(Default)]
struct TakenIn {
    versions: [Version; 4],
    objects: [Objects; 4],
    index: Index,
}

impl Tracked {
    pub(crate) fn new(sources: Sources) -> Tracked {
        Tracked { sources, taken_in: RwLock::default() }
    }

    /// The index as of now. Nobody may ask a second time while holding it.
    pub(crate) fn index(&self) -> MappedRwLockReadGuard<'_, Index> {
        let now = self.sources.caches().map(|(_, cache)| cache.version());
        let taken_in = self.taken_in.read();
        if taken_in.versions == now {
            return RwLockReadGuard::map(taken_in, |taken_in| &taken_in.index);
        }
        drop(taken_in);
        let mut taken_in = self.taken_in.write();
        taken_in.catch_up(&self.sources);
        let taken_in = RwLockWriteGuard::downgrade(taken_in);
        RwLockReadGuard::map(taken_in, |taken_in| &taken_in.index)
    }
}

impl Sources {
    fn caches(&self) -> [(Source, &Arc<ResourceCache>); 4] {
        [
            (Source::Roles, &self.roles),
            (Source::ClusterRoles, &self.cluster_roles),
            (Source::RoleBindings, &self.role_bindings),
            (Source::ClusterRoleBindings, &self.cluster_role_bindings),
        ]
    }
}

impl TakenIn {
    fn catch_up(&mut self, sources: &Sources) {
        for (at, (source, cache)) in sources.caches().into_iter().enumerate() {
            let (now, version) = cache.snapshot();
            for change in self.objects[at].diff(&now) {
                let (path, old, new) = match change {
                    DiffItem::Add(path, new) => (path, None, Some(new)),
                    DiffItem::Update { old: (path, old), new: (_, new) } => {
                        (path, Some(old), Some(new))
                    }
                    DiffItem::Remove(path, old) => (path, Some(old), None),
                };
                change_one(&mut self.index, source, path, old, new);
            }
            self.objects[at] = now;
            self.versions[at] = version;
        }
    }
}

fn change_one(
    index: &mut Index,
    source: Source,
    path: &Arc<str>,
    old: Option<&Arc<Object>>,
    new: Option<&Arc<Object>>,
) {
    let roles = match source {
        Source::Roles => &mut index.roles_mut().namespaced,
        Source::ClusterRoles => &mut index.roles_mut().cluster,
        Source::RoleBindings | Source::ClusterRoleBindings => {
            if let Some(binding) = old.and_then(|old| parsed::<Binding>(path, old)) {
                index.unbind(path, &binding);
            }
            if let Some(binding) = new.and_then(|new| parsed::<Binding>(path, new)) {
                index.bind(path, binding);
            }
            return;
        }
    };
    match new.and_then(|new| parsed::<Role>(path, new)) {
        Some(role) => drop(roles.insert(path.clone(), Arc::new(role))),
        None => drop(roles.remove(path)),
    }
}

/// What cannot be parsed grants nothing.
fn parsed<T: DeserializeOwned>(path: &str, object: &Object) -> Option<T> {
    serde_json::from_slice(&object.body)
        .inspect_err(|error| {
            tracing::warn!(%path, %error, "an access rule cannot be read; it grants nothing");
        })
        .ok()
}
