//! What every cluster starts with: kube-apiserver's own roles and bindings as far as we serve what
//! they speak of, with rules for our kinds.
//!
//! Made at the start and completed at every later start unless an operator says otherwise
//! (annotation `rbac.authorization.kubernetes.io/autoupdate: "false"`).

use serde_json::{Value, json};

use super::{RBAC_GROUP, Rule, rule, urls};
use crate::auth::{AUTHENTICATED, CONTROLLERS, MASTERS, UNAUTHENTICATED};

pub(crate) const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const BOOTSTRAPPING: &str = "kubernetes.io/bootstrapping";
const DEFAULTS: &str = "rbac-defaults";
const AGGREGATE_TO: &str = "rbac.authorization.k8s.io/aggregate-to-";

const OURS: &str = "commonage.dev";
const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Every bootstrap ClusterRole.
pub(crate) fn cluster_roles() -> Vec<Value> {
    let plain = [
        ("cluster-admin", vec![rule(&["*"], "*", &["*"]), urls(&["*"], &["*"])]),
        ("system:discovery", vec![urls(&["get"], DISCOVERY)]),
        ("system:public-info-viewer", vec![urls(&["get"], PUBLIC)]),
        ("system:monitoring", vec![urls(&["get"], MONITORING)]),
        ("system:basic-user", basic_user()),
        ("system:service-account-issuer-discovery", vec![urls(&["get"], ISSUER)]),
        (
            "system:auth-delegator",
            vec![
                rule(&["create"], "authentication.k8s.io", &["tokenreviews"]),
                rule(&["create"], "authorization.k8s.io", &["subjectaccessreviews"]),
            ],
        ),
    ];
    let aggregated = [("admin", None), ("edit", Some("admin")), ("view", Some("edit"))];
    let parts = [("admin", admin_rules()), ("edit", edit_rules()), ("view", view_rules())];
    let mut roles: Vec<Value> =
        plain.into_iter().map(|(name, rules)| role(name, &rules, None)).collect();
    for (name, into) in aggregated {
        let mut whole = role(name, &[], into);
        whole["rules"] = Value::Null;
        let label = format!("{AGGREGATE_TO}{name}");
        whole["aggregationRule"] =
            json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        roles.push(whole);
    }
    for (into, rules) in parts {
        roles.push(role(&format!("system:aggregate-to-{into}"), &rules, Some(into)));
    }
    roles
}

/// Every bootstrap ClusterRoleBinding.
pub(crate) fn cluster_role_bindings() -> Vec<Value> {
    let issuer = "system:service-account-issuer-discovery";
    let bindings: [(&str, &str, &[&str]); 7] = [
        ("cluster-admin", "cluster-admin", &[MASTERS]),
        ("system:controllers", "cluster-admin", &[CONTROLLERS]),
        ("system:monitoring", "system:monitoring", &["system:monitoring"]),
        ("system:discovery", "system:discovery", &[AUTHENTICATED]),
        ("system:basic-user", "system:basic-user", &[AUTHENTICATED]),
        (
            "system:public-info-viewer",
            "system:public-info-viewer",
            &[AUTHENTICATED, UNAUTHENTICATED],
        ),
        (issuer, issuer, &["system:serviceaccounts"]),
    ];
    bindings
        .into_iter()
        .map(|(name, role, groups)| {
            let subjects: Vec<Value> = groups
                .iter()
                .map(|group| json!({"kind": "Group", "apiGroup": RBAC_GROUP, "name": group}))
                .collect();
            json!({
                "apiVersion": format!("{RBAC_GROUP}/v1"),
                "kind": "ClusterRoleBinding",
                "metadata": metadata(name, None),
                "roleRef": {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": role},
                "subjects": subjects,
            })
        })
        .collect()
}

const DISCOVERY: &[&str] = &[
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
];
const PUBLIC: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];
const MONITORING: &[&str] = &[
    "/healthz",
    "/healthz/*",
    "/livez",
    "/livez/*",
    "/metrics",
    "/metrics/slis",
    "/readyz",
    "/readyz/*",
];
const ISSUER: &[&str] = &["/.well-known/openid-configuration", "/openid/v1/jwks"];

fn role(name: &str, rules: &[Rule], aggregate_to: Option<&str>) -> Value {
    json!({
        "apiVersion": format!("{RBAC_GROUP}/v1"),
        "kind": "ClusterRole",
        "metadata": metadata(name, aggregate_to),
        "rules": rules,
    })
}

fn metadata(name: &str, aggregate_to: Option<&str>) -> Value {
    let mut labels = json!({BOOTSTRAPPING: DEFAULTS});
    if let Some(into) = aggregate_to {
        labels[format!("{AGGREGATE_TO}{into}")] = "true".into();
    }
    json!({"name": name, "labels": labels, "annotations": {AUTO_UPDATE: "true"}})
}

fn basic_user() -> Vec<Rule> {
    let own = ["selfsubjectaccessreviews", "selfsubjectrulesreviews"];
    vec![
        rule(&["create"], "authorization.k8s.io", &own),
        rule(&["create"], "authentication.k8s.io", &["selfsubjectreviews"]),
    ]
}

fn admin_rules() -> Vec<Rule> {
    vec![
        rule(&["create"], "authorization.k8s.io", &["localsubjectaccessreviews"]),
        rule(ALL_VERBS, RBAC_GROUP, &["rolebindings", "roles"]),
    ]
}

/// Agents, queues and reservations are the cluster's: no namespace's editor writes them.
fn edit_rules() -> Vec<Rule> {
    let into_pods = ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy"];
    let into_tasks = ["tasks/attach", "tasks/exec", "tasks/portforward"];
    vec![
        rule(READ, "", &[&into_pods[..], &["secrets"]].concat()),
        rule(&["impersonate"], "", &["serviceaccounts"]),
        rule(WRITE, "", &[&["pods"], &into_pods[..]].concat()),
        rule(&["create"], "", &["pods/eviction"]),
        rule(WRITE, "", &["configmaps", "events", "secrets", "serviceaccounts"]),
        rule(&["create"], "", &["serviceaccounts/token"]),
        rule(ALL_VERBS, "coordination.k8s.io", &["leases"]),
        rule(WRITE, OURS, &["frameworks", "tasks", "volumes"]),
        rule(&["create", "get"], OURS, &into_tasks),
        rule(&["create"], OURS, &["offers/accept", "offers/decline", "tasks/kill"]),
        // What an account may do that speaks for a framework: see `super::super::frameworks`.
        rule(&["use"], OURS, &["frameworks"]),
    ]
}

fn view_rules() -> Vec<Rule> {
    vec![
        rule(READ, "", &["configmaps", "pods", "serviceaccounts", "services"]),
        rule(READ, "", &["events", "namespaces/status", "pods/log", "pods/status"]),
        rule(READ, "", &["namespaces"]),
        rule(READ, "metrics.k8s.io", &["nodes", "pods"]),
        rule(
            READ,
            OURS,
            &[
                "frameworks",
                "frameworks/status",
                "offers",
                "offers/status",
                "tasks",
                "tasks/log",
                "tasks/sandbox",
                "tasks/status",
                "volumes",
                "volumes/status",
            ],
        ),
    ]
}
