//! Role-based access control: what a rule allows.
//!
//! Pure but for [`tracked`], which knows where the objects come from. [`index`] finds the rules that
//! speak of a user, [`cover`] compares sets of rules, [`policy`] is what every cluster starts with.

pub(crate) mod cover;
pub(crate) mod index;
pub(crate) mod policy;
pub(crate) mod tracked;

use serde::{Deserialize, Deserializer, Serialize};

use super::authorizer::Attributes;

pub(crate) const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
/// Matches every verb, group, resource or path.
const ALL: &str = "*";

/// `PolicyRule`: some verbs on some resources, or on some paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rule {
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) verbs: Vec<String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub(crate) api_groups: Vec<String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub(crate) resources: Vec<String>,
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub(crate) resource_names: Vec<String>,
    #[serde(
        rename = "nonResourceURLs",
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) non_resource_urls: Vec<String>,
}

/// Go writes `null` for a list that it does not have.
pub(crate) fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

impl Rule {
    pub(crate) fn allows(&self, request: &Attributes<'_>) -> bool {
        if !has(&self.verbs, request.verb) {
            return false;
        }
        if !request.is_resource {
            return self.non_resource_urls.iter().any(|url| covers_path(url, request.path));
        }
        has(&self.api_groups, request.group)
            && self.resources.iter().any(|resource| names(resource, request))
            && (self.resource_names.is_empty()
                || self.resource_names.iter().any(|name| name == request.name))
    }

    /// As [`Rule::allows`], for some object whatever its name.
    pub(crate) fn allows_for_some_name(&self, request: &Attributes<'_>) -> bool {
        request.is_resource
            && has(&self.verbs, request.verb)
            && has(&self.api_groups, request.group)
            && self.resources.iter().any(|resource| names(resource, request))
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == wanted || one == ALL)
}

/// `tasks`, `tasks/status`, `*/status` and `*`, of which the last means subresources too.
fn names(resource: &str, request: &Attributes<'_>) -> bool {
    if resource == ALL {
        return true;
    }
    match resource.split_once('/') {
        None => request.subresource.is_empty() && resource == request.resource,
        Some((resource, subresource)) => {
            !request.subresource.is_empty()
                && subresource == request.subresource
                && (resource == ALL || resource == request.resource)
        }
    }
}

/// `/api/*` covers everything below, `*` everything.
fn covers_path(pattern: &str, path: &str) -> bool {
    pattern == path || (pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*')))
}

/// A rule on resources, for tables.
pub(crate) fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> Rule {
    Rule {
        verbs: strings(verbs),
        api_groups: vec![group.to_owned()],
        resources: strings(resources),
        ..Rule::default()
    }
}

/// A rule on paths, for tables.
pub(crate) fn urls(verbs: &[&str], urls: &[&str]) -> Rule {
    Rule { verbs: strings(verbs), non_resource_urls: strings(urls), ..Rule::default() }
}

pub(crate) fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask<'a>(verb: &'a str, resource: &'a str, name: &'a str) -> Attributes<'a> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            verb,
            is_resource: true,
            group: "g",
            resource,
            subresource,
            name,
            ..Attributes::default()
        }
    }

    #[test]
    fn resources_match_as_in_kubernetes() {
        for (ruled, asked, matches) in [
            ("tasks", "tasks", true),
            ("tasks", "tasks/status", false),
            ("tasks/status", "tasks/status", true),
            ("tasks/status", "tasks", false),
            ("*/status", "tasks/status", true),
            ("*/status", "tasks/scale", false),
            ("*/status", "tasks", false),
            ("*", "tasks", true),
            ("*", "tasks/status", true),
            ("tasks/*", "tasks/status", false),
        ] {
            let rule = rule(&["get"], "g", &[ruled]);
            assert_eq!(rule.allows(&ask("get", asked, "x")), matches, "{ruled} {asked}");
        }
    }

    #[test]
    fn verbs_groups_and_names_restrict() {
        let mut rule = rule(&["get", "list"], "g", &["tasks"]);
        assert!(!rule.allows(&ask("watch", "tasks", "")));
        assert!(!rule.allows(&Attributes { group: "h", ..ask("get", "tasks", "") }));
        rule.resource_names = strings(&["a"]);
        assert!(rule.allows(&ask("get", "tasks", "a")));
        assert!(!rule.allows(&ask("get", "tasks", "b")));
        assert!(!rule.allows(&ask("list", "tasks", "")));
        assert!(rule.allows_for_some_name(&ask("get", "tasks", "")));
        rule.verbs = strings(&["*"]);
        rule.api_groups = strings(&["*"]);
        assert!(rule.allows(&Attributes { group: "h", ..ask("frob", "tasks", "a") }));
    }

    #[test]
    fn paths_match_whole_or_by_their_beginning() {
        let path = |path| Attributes { verb: "get", path, ..Attributes::default() };
        for (pattern, asked, matches) in [
            ("/api", "/api", true),
            ("/api", "/api/v1", false),
            ("/api/*", "/api/v1", true),
            ("/api/*", "/api", false),
            ("*", "/metrics", true),
        ] {
            assert_eq!(
                urls(&["get"], &[pattern]).allows(&path(asked)),
                matches,
                "{pattern} {asked}"
            );
        }
        assert!(!rule(&["*"], "*", &["*"]).allows(&path("/api")));
        assert!(!urls(&["*"], &["*"]).allows(&ask("get", "tasks", "")));
    }
}
