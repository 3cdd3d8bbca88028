//! What is served: `/api`, `/apis` and below, plain and aggregated.

use kube::core::Version;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::resource::{ResourceDef, Scheme};

mod ordered;

/// Clients choose their behaviour by this, and it must parse as the semantic version of a
/// Kubernetes release: the one whose API we implement.
pub const GIT_VERSION: &str = "v1.34.0+commonage";

/// `GET /api` unaggregated: `APIVersions`.
pub fn api_versions(server_address: &str) -> Vec<u8> {
    bytes(&json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    }))
}

/// `GET /apis` unaggregated: `APIGroupList`.
pub fn api_group_list(scheme: &Scheme) -> Vec<u8> {
    let groups: Vec<Value> = groups(scheme)
        .into_iter()
        .filter(|group| !group.is_empty())
        .map(|group| group_value(scheme, group))
        .collect();
    bytes(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

/// `GET /apis/GROUP`; `None` when there is no such group.
pub fn api_group(scheme: &Scheme, group: &str) -> Option<Vec<u8>> {
    if group.is_empty() || versions(scheme, group).is_empty() {
        return None;
    }
    let mut value = group_value(scheme, group);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(bytes(&value))
}

/// `GET /apis/GROUP/VERSION` or (group empty) `/api/VERSION`; `None` when there is none.
pub fn api_resource_list(scheme: &Scheme, group: &str, version: &str) -> Option<Vec<u8>> {
    let mut resources = Vec::new();
    for def in scheme.in_group_version(group, version) {
        resources.push(resource_row(def));
        for subresource in subresources(def) {
            resources.push(subresource_row(def, &subresource));
        }
    }
    if resources.is_empty() {
        return None;
    }
    let group_version =
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let (kind, api_version) = ("APIResourceList", "v1");
    Some(bytes(&json!({
        "kind": kind, "apiVersion": api_version, "groupVersion": group_version, "resources": resources,
    })))
}

/// Which root an aggregated document describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// `/api`: the core group.
    Core,
    /// `/apis`: every named group.
    Groups,
}

/// `APIGroupDiscoveryList`, with its ETag (quoted).
pub fn aggregated(scheme: &Scheme, root: Root) -> (Vec<u8>, String) {
    let items: Vec<Value> = groups(scheme)
        .into_iter()
        .filter(|group| group.is_empty() == (root == Root::Core))
        .map(|group| {
            let versions: Vec<Value> = versions(scheme, group)
                .into_iter()
                .map(|version| version_value(scheme, group, version))
                .collect();
            let metadata = if group.is_empty() { json!({}) } else { json!({ "name": group }) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let list = bytes(&json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    }));
    let etag = format!("\"{:X}\"", Sha256::digest(&list));
    (list, etag)
}

/// `GET /version`.
pub fn version() -> Vec<u8> {
    let minor = "34";
    // As a release of Kubernetes: data of the one before is understood.
    let compatible = "33";
    bytes(&json!({
        "major": "1",
        "minor": minor,
        "emulationMajor": "1",
        "emulationMinor": minor,
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": compatible,
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_architecture()),
    }))
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A subresource of any kind, as discovery lists it.
struct Sub<'d> {
    name: &'d str,
    group: &'d str,
    version: &'d str,
    kind: &'d str,
    verbs: Vec<&'d str>,
}

fn subresources(def: &ResourceDef) -> Vec<Sub<'_>> {
    let status = def.has_status.then(|| Sub {
        name: "status",
        group: &def.group,
        version: &def.version,
        kind: &def.kind,
        verbs: vec!["get", "patch", "update"],
    });
    let own = def.subresources.iter().map(|subresource| Sub {
        name: &subresource.name,
        group: &subresource.group,
        version: &subresource.version,
        kind: &subresource.kind,
        verbs: subresource.verbs.iter().map(String::as_str).collect(),
    });
    status.into_iter().chain(own).collect()
}

fn resource_row(def: &ResourceDef) -> Value {
    let mut row = json!({
        "name": def.plural,
        "singularName": def.singular,
        "namespaced": def.is_namespaced(),
        "kind": def.kind,
        "verbs": def.verbs,
    });
    if def.is_stored() {
        row["storageVersionHash"] = def.storage_version_hash.as_str().into();
    }
    add_names(&mut row, def);
    row
}

fn subresource_row(def: &ResourceDef, subresource: &Sub<'_>) -> Value {
    let mut row = json!({
        "name": format!("{}/{}", def.plural, subresource.name),
        "singularName": "",
        "namespaced": def.is_namespaced(),
        "kind": subresource.kind,
        "verbs": subresource.verbs,
    });
    if (subresource.group, subresource.version) != (&def.group, &def.version) {
        row["group"] = subresource.group.into();
        row["version"] = subresource.version.into();
    }
    row
}

fn add_names(row: &mut Value, def: &ResourceDef) {
    if !def.short_names.is_empty() {
        row["shortNames"] = json!(def.short_names);
    }
    if !def.categories.is_empty() {
        row["categories"] = json!(def.categories);
    }
}

fn version_value(scheme: &Scheme, group: &str, version: &str) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let resources: Vec<Value> = scheme
        .in_group_version(group, version)
        .map(|def| {
            let mut row = json!({
                "resource": def.plural,
                "responseKind": kind(group, version, &def.kind),
                "scope": if def.is_namespaced() { "Namespaced" } else { "Cluster" },
                "singularResource": def.singular,
                "verbs": def.verbs,
            });
            add_names(&mut row, def);
            let subresources: Vec<Value> = subresources(def)
                .into_iter()
                .map(|sub| {
                    json!({
                        "subresource": sub.name,
                        "responseKind": kind(sub.group, sub.version, sub.kind),
                        "verbs": sub.verbs,
                    })
                })
                .collect();
            if !subresources.is_empty() {
                row["subresources"] = subresources.into();
            }
            row
        })
        .collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}

fn group_value(scheme: &Scheme, group: &str) -> Value {
    let versions: Vec<Value> = versions(scheme, group)
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({"name": group, "preferredVersion": versions[0], "versions": versions})
}

fn groups(scheme: &Scheme) -> Vec<&str> {
    let mut groups: Vec<&str> = scheme.iter().map(|def| def.group.as_str()).collect();
    groups.dedup();
    // Where no pods are served, clients would take what pods use for the pods themselves.
    if !scheme.in_group_version("", "v1").any(|def| def.plural == "pods") {
        groups.retain(|group| *group != "metrics.k8s.io");
    }
    groups
}

/// The preferred one first: stable before beta before alpha, newer before older.
fn versions<'s>(scheme: &'s Scheme, group: &str) -> Vec<&'s str> {
    let mut versions: Vec<&str> =
        scheme.iter().filter(|def| def.group == group).map(|def| def.version.as_str()).collect();
    versions.dedup();
    versions.sort_by_cached_key(|version| std::cmp::Reverse(Version::parse(version).priority()));
    versions
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(&ordered::Document(value)).expect("a Value always serializes")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::resource::tests::task_def;

    fn scheme() -> Scheme {
        let old = ResourceDef { version: "v1alpha1".into(), ..task_def() };
        Scheme::new(crate::builtin::definitions().into_iter().chain([task_def(), old]))
    }

    #[test]
    fn what_is_measured_is_listed_where_there_are_pods() {
        let lists = |scheme: &Scheme| groups(scheme).contains(&"metrics.k8s.io");
        assert!(!lists(&scheme()));
        assert!(lists(&scheme().with(crate::kinds::view::definitions())));
    }

    fn parse(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn a_group_lists_its_versions_best_first() {
        assert_eq!(
            parse(&api_group(&scheme(), "example.com").unwrap()),
            json!({
                "kind": "APIGroup", "apiVersion": "v1", "name": "example.com",
                "versions": [
                    {"groupVersion": "example.com/v1", "version": "v1"},
                    {"groupVersion": "example.com/v1alpha1", "version": "v1alpha1"},
                ],
                "preferredVersion": {"groupVersion": "example.com/v1", "version": "v1"},
            })
        );
        assert_eq!(api_group(&scheme(), "nobody.dev"), None);
        let names: Vec<Value> = parse(&api_group_list(&scheme()))["groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|group| group["name"].clone())
            .collect();
        assert_eq!(
            names,
            [
                "apiextensions.k8s.io",
                "authentication.k8s.io",
                "authorization.k8s.io",
                "coordination.k8s.io",
                "events.k8s.io",
                "example.com",
                "rbac.authorization.k8s.io",
            ]
        );
    }

    #[test]
    fn resources_are_listed_with_their_subresources() {
        let list = parse(&api_resource_list(&scheme(), "example.com", "v1").unwrap());
        assert_eq!(list["groupVersion"], "example.com/v1");
        assert_eq!(
            list["resources"],
            json!([
                {
                    "name": "tasks", "singularName": "task", "namespaced": true, "kind": "Task",
                    "verbs": ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"],
                    "shortNames": ["tk"], "categories": ["all", "example"],
                    "storageVersionHash": task_def().storage_version_hash,
                },
                {
                    "name": "tasks/status", "singularName": "", "namespaced": true, "kind": "Task",
                    "verbs": ["get", "patch", "update"],
                },
            ])
        );
        assert_eq!(parse(&api_resource_list(&scheme(), "", "v1").unwrap())["groupVersion"], "v1");
        assert_eq!(api_resource_list(&scheme(), "example.com", "v9"), None);
    }

    #[test]
    fn the_aggregated_document_says_the_same() {
        let (list, etag) = aggregated(&scheme(), Root::Groups);
        let list = parse(&list);
        assert_eq!(list["apiVersion"], "apidiscovery.k8s.io/v2");
        assert_eq!(list["items"][5]["metadata"]["name"], "example.com");
        let task = &list["items"][5]["versions"][0]["resources"][0];
        assert_eq!(
            task["responseKind"],
            json!({"group": "example.com", "version": "v1", "kind": "Task"})
        );
        assert_eq!(task["scope"], "Namespaced");
        assert_eq!(task["subresources"][0]["subresource"], "status");
        assert!(etag.starts_with('"') && etag.ends_with('"'));
        assert_eq!(etag, aggregated(&scheme(), Root::Groups).1);
        let core = parse(&aggregated(&scheme(), Root::Core).0);
        assert_eq!(core["items"][0]["metadata"], json!({}));
        assert_eq!(core["items"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn the_version_parses_as_a_kubernetes_release() {
        let version = parse(&version());
        assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.34."));
        assert_eq!(version["minor"], "34");
    }
}
