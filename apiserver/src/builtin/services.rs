//! Service: a kind of which there are no objects.
//!
//! `kubectl cluster-info` lists Services and fails where there is no such kind; tools that show a whole
//! cluster do so too. It can be listed and watched, and nothing is in it.

use k8s_openapi::api::core::v1::Service;

use super::{computed, core};
use crate::resource::{Column, ResourceDef, Verbs};

const VERBS: Verbs = &["get", "list", "watch"];

pub(super) fn definition() -> ResourceDef {
    let mut def = core::<Service>("Service", "services", &["svc"]);
    def.verbs = VERBS;
    def.categories = vec!["all".into()];
    let path = |name: &str, path: &str, words: &str| Column::path(name, "string", path, words);
    def.columns = vec![
        Column::name(),
        path("Type", ".spec.type", "How the service is reached"),
        path("Cluster-IP", ".spec.clusterIP", "The address inside of the cluster"),
        path("External-IP", ".spec.externalIPs[0]", "The address outside of the cluster"),
        computed("Port(s)", "The ports", |_, _| serde_json::Value::Null),
        Column::age(),
        Column {
            priority: 1,
            ..computed("Selector", "What serves it", |_, _| serde_json::Value::Null)
        },
    ];
    def
}
