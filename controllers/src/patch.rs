//! The few writes that several controllers make, each with its precondition.

use std::fmt::Debug;

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What became of a guarded write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Yes,
    /// The object has changed or is gone since it was read: the change itself wakes us again.
    Overtaken,
}

/// Conflicts and absence are answers, everything else is an error.
pub(crate) fn overtaken<T>(result: kube::Result<T>) -> kube::Result<Written> {
    match result {
        Ok(_) => Ok(Written::Yes),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 410) => {
            Ok(Written::Overtaken)
        }
        Err(other) => Err(other),
    }
}

/// Takes `finalizer` off `object`, if it is still as it was read.
pub(crate) async fn remove_finalizer<K>(
    api: &Api<K>,
    object: &K,
    finalizer: &str,
) -> kube::Result<Written>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let rest: Vec<&String> =
        object.finalizers().iter().filter(|f| f.as_str() != finalizer).collect();
    set_finalizers(api, object, json!(rest)).await
}

/// Puts `finalizer` on `object`, if it is still as it was read.
pub(crate) async fn add_finalizer<K>(
    api: &Api<K>,
    object: &K,
    finalizer: &str,
) -> kube::Result<Written>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut all: Vec<&str> = object.finalizers().iter().map(String::as_str).collect();
    all.push(finalizer);
    set_finalizers(api, object, json!(all)).await
}

async fn set_finalizers<K>(api: &Api<K>, object: &K, finalizers: Value) -> kube::Result<Written>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let patch = json!({"metadata": {"resourceVersion": object.resource_version(), "finalizers": finalizers}});
    overtaken(api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await)
}

/// Merges `status` into the object's status. With `version`, only if the object still has that
/// resource version.
pub(crate) async fn status<K>(
    api: &Api<K>,
    name: &str,
    version: Option<String>,
    status: Value,
) -> kube::Result<Written>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut patch = json!({"status": status});
    if let Some(version) = version {
        patch["metadata"] = json!({"resourceVersion": version});
    }
    overtaken(api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await)
}
