//! As much of an object of any kind as the garbage collector looks at.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, api::ApiResource, core::DynamicResourceScope};
use serde::Deserialize;

/// The metadata. Unlike kube's `PartialObjectMeta`, which keeps apart what it does not know of an object until the
/// object ends, this passes over the rest as it reads: every change of every object comes by here, and of a task the
/// rest is most.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Followed {
    #[serde(default)]
    pub(crate) metadata: ObjectMeta,
}

impl Resource for Followed {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }

    fn api_version(of: &ApiResource) -> Cow<'_, str> {
        of.api_version.as_str().into()
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_rest_of_an_object_is_passed_over() {
        let text = r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"metadata":"{}"},
            "metadata":{"name":"a","ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"p","uid":"u"}]},
            "status":{"metadata":{"name":"b"}}}"#;
        let read: Followed = serde_json::from_str(text).unwrap();
        assert_eq!(read.metadata.name.as_deref(), Some("a"));
        assert_eq!(read.metadata.owner_references.unwrap()[0].uid, "u");
    }
}
