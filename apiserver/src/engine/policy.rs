//! The roles and bindings that every cluster starts with, and ClusterRoles that gather the rules of
//! others.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use serde_json::{Value, json};

use super::{Engine, PatchKind, WatchOptions, WriteOptions};
use crate::auth::rbac::policy::{AUTO_UPDATE, cluster_role_bindings, cluster_roles};
use crate::auth::rbac::{RBAC_GROUP, Rule, cover};
use crate::cache::{Objects, range};
use crate::object::Object;
use crate::resource::ResourceDef;
use crate::selector::LabelSelector;
use crate::status::ApiError;

/// After a failure; the next change of a ClusterRole is another occasion.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The watch on ClusterRoles is opened anew after this long.
const WATCH_TIMEOUT: Duration = Duration::from_secs(3600);
/// Roles gather from roles that gather: `view` into `edit` into `admin`. Deeper is a circle.
const AGGREGATION_DEPTH_MAX: usize = 8;
const AGGREGATOR: &str = "clusterrole-aggregation-controller";

impl Engine {
    /// Makes what is missing of the bootstrap policy, and completes what an older version made.
    pub(super) async fn make_policy(self: &Arc<Self>) -> anyhow::Result<()> {
        let Some(roles) = self.policy_kind("ClusterRole") else { return Ok(()) };
        let Some(bindings) = self.policy_kind("ClusterRoleBinding") else { return Ok(()) };
        let wanted = cluster_roles().into_iter().map(|role| (&roles, role));
        let wanted = wanted
            .chain(cluster_role_bindings().into_iter().map(|binding| (&bindings, binding)))
            .map(|(def, object)| self.complete(def, object));
        try_join_all(wanted)
            .await
            .map_err(|error| anyhow::anyhow!("the first access rules can't be made: {error}"))?;
        for _ in 0..AGGREGATION_DEPTH_MAX {
            if !self.aggregate(&roles).await? {
                break;
            }
        }
        Ok(())
    }

    fn policy_kind(&self, kind: &str) -> Option<Arc<ResourceDef>> {
        self.scheme().by_kind(RBAC_GROUP, kind).cloned()
    }

    async fn complete(
        self: &Arc<Self>,
        def: &Arc<ResourceDef>,
        wanted: Value,
    ) -> Result<(), ApiError> {
        let name = wanted["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let Some(found) = self.resource(def)?.get(&format!("/{name}")) else {
            return match self.create(def, "", wanted, WriteOptions::default()).await {
                Err(error) if error.reason != "AlreadyExists" => Err(error),
                _ => Ok(()),
            };
        };
        let found = found.to_value();
        if found["metadata"]["annotations"][AUTO_UPDATE] != "true" {
            return Ok(());
        }
        let changes = match def.kind.as_str() {
            "ClusterRole" => role_changes(&found, &wanted),
            _ => binding_changes(&found, &wanted),
        };
        let Some(changes) = changes else { return Ok(()) };
        self.patch_policy(def, &name, changes).await
    }

    async fn patch_policy(
        self: &Arc<Self>,
        def: &Arc<ResourceDef>,
        name: &str,
        changes: Value,
    ) -> Result<(), ApiError> {
        let body = changes.to_string().into();
        let options =
            WriteOptions { field_manager: Some(AGGREGATOR.into()), ..WriteOptions::default() };
        self.patch(def, "", name, None, PatchKind::Merge, body, options).await.map(drop)
    }

    /// Gives every aggregating ClusterRole the rules that its selectors find; whether one changed.
    async fn aggregate(self: &Arc<Self>, def: &Arc<ResourceDef>) -> Result<bool, ApiError> {
        let (all, _) = self.resource(def)?.snapshot();
        let mut changed = false;
        for role in range(&all, None, None) {
            // A parse only for the few that aggregate.
            if !contains(&role.body, b"\"aggregationRule\"") {
                continue;
            }
            let value = role.to_value();
            let Some(rules) = gathered(&all, role, &value) else { continue };
            if value["rules"] == rules {
                continue;
            }
            match self.patch_policy(def, role.name(), json!({ "rules": rules })).await {
                Ok(()) => changed = true,
                Err(error) if error.reason == "NotFound" => {}
                Err(error) => return Err(error),
            }
        }
        Ok(changed)
    }

    /// Keeps aggregated ClusterRoles up to date until the engine stops.
    pub(super) async fn follow_cluster_roles(self: Arc<Self>) {
        let Some(def) = self.policy_kind("ClusterRole") else { return };
        let work = async {
            loop {
                if let Err(error) = self.aggregate_on_change(&def).await {
                    tracing::warn!(%error, "cluster roles can't be aggregated; trying again");
                    tokio::time::sleep(TRY_AGAIN_AFTER).await;
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    async fn aggregate_on_change(self: &Arc<Self>, def: &Arc<ResourceDef>) -> Result<(), ApiError> {
        let options = WatchOptions {
            label_selector: None,
            field_selector: None,
            resource_version: None,
            version_match: None,
            bookmarks: false,
            send_initial_events: None,
            timeout: WATCH_TIMEOUT,
        };
        let mut changes = self.watch(def, None, options).await?;
        while changes.next().await.is_some() {
            self.aggregate(def).await?;
        }
        Ok(())
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// The rules of every role that the aggregation rule of `role` selects, each once; `None` when it
/// has no such rule.
fn gathered(all: &Objects, role: &Object, value: &Value) -> Option<Value> {
    let selectors = value.pointer("/aggregationRule/clusterRoleSelectors")?.as_array()?;
    let mut rules: Vec<Value> = Vec::new();
    for selector in selectors.iter().filter_map(selector) {
        let selected = range(all, None, None)
            .filter(|other| other.path() != role.path())
            .filter(|other| selector.matches(|key| other.label(key)));
        for other in selected {
            for rule in other.to_value()["rules"].as_array().into_iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(match rules.is_empty() {
        true => Value::Null,
        false => rules.into(),
    })
}

/// A `LabelSelector` object as the text that our selectors parse; `None` selects nothing.
fn selector(selector: &Value) -> Option<LabelSelector> {
    let mut terms = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        terms.push(format!("{key}={}", value.as_str()?));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str()?;
        let values = expression["values"].as_array().into_iter().flatten();
        let values: Vec<&str> = values.filter_map(Value::as_str).collect();
        terms.push(match expression["operator"].as_str()? {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    LabelSelector::parse(&terms.join(",")).ok()
}

/// A merge patch that adds what an existing bootstrap role lacks.
fn role_changes(found: &Value, wanted: &Value) -> Option<Value> {
    let mut changes = json!({ "metadata": missing_metadata(found, wanted) });
    if wanted["aggregationRule"].is_object() {
        if found["aggregationRule"].is_null() {
            changes["aggregationRule"] = wanted["aggregationRule"].clone();
        }
    } else {
        let rules = |object: &Value| -> Vec<Rule> {
            serde_json::from_value(object["rules"].clone()).unwrap_or_default()
        };
        let mut held = rules(found);
        let missing = cover::missing(&held.iter().collect::<Vec<_>>(), &rules(wanted));
        if !missing.is_empty() {
            held.extend(missing);
            changes["rules"] = json!(held);
        }
    }
    (changes != json!({"metadata": {}})).then_some(changes)
}

/// As [`role_changes`], for subjects. A binding to another role is somebody's own decision.
fn binding_changes(found: &Value, wanted: &Value) -> Option<Value> {
    let mut changes = json!({ "metadata": missing_metadata(found, wanted) });
    let list = |object: &Value| object["subjects"].as_array().cloned().unwrap_or_default();
    let mut subjects = list(found);
    let missing: Vec<Value> =
        list(wanted).into_iter().filter(|subject| !subjects.contains(subject)).collect();
    if !missing.is_empty() {
        subjects.extend(missing);
        changes["subjects"] = subjects.into();
    }
    (changes != json!({"metadata": {}})).then_some(changes)
}

fn missing_metadata(found: &Value, wanted: &Value) -> Value {
    let mut missing = json!({});
    for part in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][part].as_object().into_iter().flatten() {
            if found["metadata"][part].get(key).is_none() {
                missing[part][key] = value.clone();
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_older_policy_is_completed_and_nothing_taken_away() {
        let wanted = cluster_roles()
            .into_iter()
            .find(|role| role["metadata"]["name"] == "system:basic-user");
        let wanted = wanted.unwrap();
        assert_eq!(role_changes(&wanted, &wanted), None);
        let mut older = wanted.clone();
        older["rules"] = json!([{"verbs": ["get"], "apiGroups": ["x"], "resources": ["y"]}]);
        older["metadata"]["labels"] = json!({"mine": "1"});
        let changes = role_changes(&older, &wanted).unwrap();
        assert_eq!(changes["rules"][0], older["rules"][0]);
        assert_eq!(changes["rules"].as_array().unwrap().len(), 4);
        assert_eq!(
            changes["metadata"]["labels"],
            json!({"kubernetes.io/bootstrapping": "rbac-defaults"})
        );
    }

    #[test]
    fn a_selector_object_selects_as_its_text_does() {
        let selects = |value: Value, label: &str| {
            selector(&value)
                .is_some_and(|selector| selector.matches(|key| (key == "a").then_some(label)))
        };
        assert!(selects(json!({"matchLabels": {"a": "x"}}), "x"));
        assert!(!selects(json!({"matchLabels": {"a": "x"}}), "y"));
        let any = |operator: &str| json!({"matchExpressions": [{"key": "a", "operator": operator, "values": ["x"]}]});
        assert!(selects(any("In"), "x") && !selects(any("In"), "y"));
        assert!(selects(any("NotIn"), "y") && selects(any("Exists"), "y"));
        assert!(!selects(any("DoesNotExist"), "y") && !selects(any("Sideways"), "x"));
    }
}
