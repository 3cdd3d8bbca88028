//! Roles and bindings (rbac.authorization.k8s.io/v1).

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde_json::Value;

use super::{CREATED_AT, as_printed, definition, leniently};
use crate::auth::rbac::RBAC_GROUP;
use crate::resource::{Cell, Column, ResourceDef, Scope};

pub(super) fn definitions() -> Vec<ResourceDef> {
    let mut cluster_role =
        definition::<ClusterRole>(RBAC_GROUP, "ClusterRole", "clusterroles", &[]);
    let mut cluster_role_binding = definition::<ClusterRoleBinding>(
        RBAC_GROUP,
        "ClusterRoleBinding",
        "clusterrolebindings",
        &[],
    );
    let mut role = definition::<Role>(RBAC_GROUP, "Role", "roles", &[]);
    let mut role_binding =
        definition::<RoleBinding>(RBAC_GROUP, "RoleBinding", "rolebindings", &[]);
    for def in [&mut cluster_role, &mut cluster_role_binding] {
        def.scope = Scope::Cluster;
    }
    for def in [&mut cluster_role, &mut role] {
        def.columns = role_columns();
    }
    for (def, what) in
        [(&mut cluster_role_binding, "clusterRoleBinding"), (&mut role_binding, "roleBinding")]
    {
        def.columns = binding_columns(what);
        as_printed(&mut def.columns, &def.openapi, &[("Role", "roleRef")]);
    }
    let mut all = vec![cluster_role, cluster_role_binding, role, role_binding];
    all.iter_mut().for_each(leniently);
    all
}

fn role_columns() -> Vec<Column> {
    let mut created = Column::age();
    created.name = CREATED_AT.into();
    created.cell = Cell::Computed(created_at);
    vec![Column::name(), created]
}

fn binding_columns(what: &str) -> Vec<Column> {
    let text = |name: &str, words: &str, cell: fn(&Value, Timestamp) -> Value| Column {
        cell: Cell::Computed(cell),
        ..Column::path(name, "string", ".", words)
    };
    let wide = |column: Column| Column { priority: 1, ..column };
    vec![
        Column::name(),
        text("Role", "The role that is granted", role_of),
        Column::age(),
        wide(text("Users", &format!("Users in the {what}"), |it, _| names(it, "User"))),
        wide(text("Groups", &format!("Groups in the {what}"), |it, _| names(it, "Group"))),
        wide(text("ServiceAccounts", &format!("ServiceAccounts in the {what}"), |it, _| {
            names(it, "ServiceAccount")
        })),
    ]
}

/// The instant itself: kubectl shows roles without their age.
fn created_at(object: &Value, _now: Timestamp) -> Value {
    object.pointer("/metadata/creationTimestamp").cloned().unwrap_or(Value::Null)
}

fn role_of(binding: &Value, _now: Timestamp) -> Value {
    let text = |field: &str| binding["roleRef"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("kind"), text("name")).into()
}

fn names(binding: &Value, kind: &str) -> Value {
    let subjects = binding["subjects"].as_array().into_iter().flatten();
    let names: Vec<String> = subjects
        .filter(|subject| subject["kind"] == kind)
        .map(|subject| {
            let text = |field: &str| subject[field].as_str().unwrap_or_default();
            match (kind, text("namespace")) {
                ("ServiceAccount", namespace) if !namespace.is_empty() => {
                    format!("{namespace}/{}", text("name"))
                }
                _ => text("name").to_owned(),
            }
        })
        .collect();
    names.join(", ").into()
}
