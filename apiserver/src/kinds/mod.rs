//! The kinds with rules of their own, one file each.

mod acceptance;
mod checked;
mod claim;
mod data;
mod definition;
pub(crate) mod event;
mod framework;
mod kill;
mod lease;
pub(crate) mod measured;
pub mod namespace;
mod offer;
mod ports;
mod rbac;
mod reservation;
mod sandbox;
mod state;
mod task;
#[cfg(test)]
mod tests;
pub(crate) mod view;
mod volume;

pub(crate) use definition::approval;

use std::collections::HashMap;
use std::sync::Arc;

use commonage_schemas::GROUP;

use crate::auth::rbac::RBAC_GROUP;
use crate::builtin::DEFINITIONS;
use crate::strategy::Strategy;

/// By group, then by plural name: looked up without making a key.
pub(crate) type Strategies = HashMap<&'static str, HashMap<&'static str, Arc<dyn Strategy>>>;

/// Kinds that are not here have no rules of their own.
pub(crate) fn strategies() -> Strategies {
    let all: [(&str, &str, Arc<dyn Strategy>); 19] = [
        ("", "namespaces", Arc::new(namespace::Namespaces)),
        ("", "configmaps", Arc::new(data::ConfigMaps)),
        ("", "events", Arc::new(event::Events)),
        ("", "secrets", Arc::new(data::Secrets)),
        ("", "serviceaccounts", Arc::new(data::ServiceAccounts)),
        ("coordination.k8s.io", "leases", Arc::new(lease::Leases)),
        (event::GROUP, "events", Arc::new(event::Events)),
        (DEFINITIONS.0, DEFINITIONS.1, Arc::new(definition::Definitions)),
        (RBAC_GROUP, "clusterroles", Arc::new(rbac::Roles)),
        (RBAC_GROUP, "clusterrolebindings", Arc::new(rbac::Bindings)),
        (RBAC_GROUP, "roles", Arc::new(rbac::Roles)),
        (RBAC_GROUP, "rolebindings", Arc::new(rbac::Bindings)),
        (GROUP, "agents", Arc::new(checked::Checked)),
        (GROUP, "frameworks", Arc::new(framework::Frameworks)),
        (GROUP, "offers", Arc::new(offer::Offers)),
        (GROUP, "queues", Arc::new(checked::Checked)),
        (GROUP, "reservations", Arc::new(reservation::Reservations)),
        (GROUP, "tasks", Arc::new(task::Tasks)),
        (GROUP, "volumes", Arc::new(volume::Volumes)),
    ];
    let mut strategies = Strategies::new();
    for (group, plural, strategy) in all {
        strategies.entry(group).or_default().insert(plural, strategy);
    }
    strategies
}
