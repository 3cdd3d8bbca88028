//! `audit.k8s.io/v1` Policy: what of which requests is written down. The first rule that matches a
//! request decides; a request that none matches is not written down.

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::auth::UserInfo;
use crate::auth::authorizer::Attributes;

/// How much is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

/// When it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[allow(dead_code)] // every object has it
    metadata: serde_json::Value,
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

/// What the policy says of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) level: Level,
    pub(crate) omit_stages: Vec<Stage>,
    pub(crate) omit_managed_fields: bool,
}

impl Policy {
    /// # Errors
    /// The file can't be read, or is no policy.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Policy> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the audit policy {}", path.display()))?;
        Policy::parse(&text).with_context(|| format!("{} is no audit policy", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Policy> {
        let file: File = serde_saphyr::from_str(text)?;
        anyhow::ensure!(
            (file.api_version.as_str(), file.kind.as_str()) == ("audit.k8s.io/v1", "Policy"),
            "it is {} {}, not audit.k8s.io/v1 Policy",
            file.api_version,
            file.kind
        );
        anyhow::ensure!(!file.rules.is_empty(), "it has no rules");
        for (at, rule) in file.rules.iter().enumerate() {
            let on_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            anyhow::ensure!(
                !on_resources || rule.non_resource_urls.is_empty(),
                "rules[{at}] cannot apply to both regular resources and non-resource URLs"
            );
        }
        Ok(Policy {
            rules: file.rules,
            omit_stages: file.omit_stages,
            omit_managed_fields: file.omit_managed_fields,
        })
    }

    /// `user` is `None` for those whose credentials were refused. `None`: nothing is written down.
    pub(crate) fn wants(
        &self,
        user: Option<&UserInfo>,
        request: &Attributes<'_>,
    ) -> Option<Wanted> {
        let rule = self.rules.iter().find(|rule| rule.matches(user, request))?;
        if rule.level == Level::None {
            return None;
        }
        let omitted = self.omit_stages.iter().chain(&rule.omit_stages);
        Some(Wanted {
            level: rule.level,
            omit_stages: omitted.copied().collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        })
    }
}

fn holds(list: &[String], value: &str) -> bool {
    list.iter().any(|one| one == value)
}

impl Rule {
    fn matches(&self, user: Option<&UserInfo>, request: &Attributes<'_>) -> bool {
        let named = |user: &UserInfo| holds(&self.users, &user.name);
        if !self.users.is_empty() && !user.is_some_and(named) {
            return false;
        }
        let member = |user: &UserInfo| user.groups.iter().any(|one| holds(&self.user_groups, one));
        if !self.user_groups.is_empty() && !user.is_some_and(member) {
            return false;
        }
        if !self.verbs.is_empty() && !holds(&self.verbs, request.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return request.is_resource && self.matches_resource(request);
        }
        if !self.non_resource_urls.is_empty() {
            return !request.is_resource
                && self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
                    Some(prefix) => request.path.starts_with(prefix),
                    None => request.path == url,
                });
        }
        true
    }

    fn matches_resource(&self, request: &Attributes<'_>) -> bool {
        if !self.namespaces.is_empty() && !holds(&self.namespaces, request.namespace) {
            return false;
        }
        self.resources.is_empty() || self.resources.iter().any(|one| one.matches(request))
    }
}

impl GroupResources {
    fn matches(&self, request: &Attributes<'_>) -> bool {
        if self.group != request.group {
            return false;
        }
        if !self.resource_names.is_empty() && !holds(&self.resource_names, request.name) {
            return false;
        }
        let of_kind = |wanted: &String| match wanted.split_once('/') {
            None if request.subresource.is_empty() => wanted == "*" || wanted == request.resource,
            None => wanted == "*",
            Some((resource, subresource)) => {
                (resource == "*" && !request.subresource.is_empty() || resource == request.resource)
                    && (subresource == "*" || subresource == request.subresource)
            }
        };
        self.resources.is_empty() || self.resources.iter().any(of_kind)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [system:controllers]
  verbs: [watch]
- level: RequestResponse
  resources:
  - group: commonage.dev
    resources: [tasks, "tasks/status"]
  namespaces: [default]
- level: Metadata
  resources:
  - group: ""
    resources: [secrets, "*/token"]
    resourceNames: []
  omitStages: [ResponseStarted]
- level: None
  userGroups: [system:authenticated]
  nonResourceURLs: ["/api*", /version]
- level: Request
  verbs: [create, delete]
"#;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = Policy::parse(POLICY).unwrap();
        let level = |user: &UserInfo, verb, group, resource, subresource, namespace| {
            let request = Attributes {
                verb,
                is_resource: true,
                group,
                resource,
                subresource,
                namespace,
                ..Attributes::default()
            };
            policy.wants(Some(user), &request).map(|wanted| wanted.level)
        };
        let (alice, controllers) = (UserInfo::authenticated("alice", &[]), UserInfo::controllers());
        let ours = "commonage.dev";
        for (user, verb, group, resource, subresource, namespace, expected) in [
            (&controllers, "watch", ours, "tasks", "", "default", None),
            (&alice, "watch", ours, "tasks", "", "default", Some(Level::RequestResponse)),
            (&alice, "update", ours, "tasks", "status", "default", Some(Level::RequestResponse)),
            (&alice, "get", ours, "tasks", "log", "default", None),
            (&alice, "create", ours, "tasks", "", "other", Some(Level::Request)),
            (&alice, "get", "", "secrets", "", "other", Some(Level::Metadata)),
            (&alice, "create", "", "serviceaccounts", "token", "other", Some(Level::Metadata)),
            (&alice, "get", "", "serviceaccounts", "", "other", None),
        ] {
            let found = level(user, verb, group, resource, subresource, namespace);
            assert_eq!(found, expected, "{verb} {resource}/{subresource}");
        }
        let path = |path, user| {
            let request = Attributes { verb: "create", path, ..Attributes::default() };
            policy.wants(user, &request).map(|wanted| wanted.level)
        };
        assert_eq!(path("/apis/x", Some(&alice)), None);
        assert_eq!(path("/versions", Some(&alice)), Some(Level::Request));
        assert_eq!(path("/apis/x", None), Some(Level::Request));
    }

    #[test]
    fn omitted_stages_add_up() {
        let policy = Policy::parse(POLICY).unwrap();
        let request =
            Attributes { is_resource: true, resource: "secrets", ..Attributes::default() };
        let wanted = policy.wants(None, &request).unwrap();
        assert_eq!(wanted.omit_stages, [Stage::RequestReceived, Stage::ResponseStarted]);
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for text in [
            "{}",
            "apiVersion: v1\nkind: Policy\nrules: [{level: None}]",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Much}]",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, user: [a]}]",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, namespaces: [a], nonResourceURLs: [/x]}]",
        ] {
            assert!(Policy::parse(text).is_err(), "{text}");
        }
    }
}
