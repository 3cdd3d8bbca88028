//! What an agent may do: read and report its own, and nothing else.
//!
//! Kubernetes has the like for its nodes. A certificate that got into the wrong hands shows the
//! tasks of one machine and touches no other. Pure: what hangs on a stored object is asked for
//! through [`Bound`].

use commonage_schemas::Task;

use super::authorizer::{Attributes, Verdict};
use super::rbac::{Rule, rule, strings};
use crate::selector::FieldSelector;

pub(super) const OUR_GROUP: &str = "commonage.dev";
/// Heart-beats: one Lease per agent, of the agent's name.
const AGENT_LEASES: &str = "commonage-agents";
const AGENT_FIELD: &str = "spec.agent";

/// Whose a Task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// There is no such Task: nobody's secret, and its agent must learn that it is gone.
    Missing,
    To(String),
}

/// The verdict, and the reason of a refusal that deserves one.
pub(super) fn decide(
    agent: &str,
    request: &Attributes<'_>,
    bound: impl FnOnce() -> Bound,
    named_by_a_task: impl FnOnce() -> bool,
) -> (Verdict, &'static str) {
    let plain = |allowed: bool| match allowed {
        true => (Verdict::Allowed, ""),
        false => (Verdict::Denied, ""),
    };
    let reads = matches!(request.verb, "get" | "list" | "watch");
    // Never delete: removing an agent's objects is the operator's decision, and a certificate that
    // got into wrong hands must not be able to take a machine out of the cluster.
    let writes = matches!(request.verb, "update" | "patch");
    let own = request.name == agent;
    match (request.group, request.resource, request.subresource) {
        (OUR_GROUP, "tasks", "" | "status") if request.verb == "get" => own_task(agent, bound()),
        (OUR_GROUP, "tasks", "") if reads => {
            match exact(request.field_selector, AGENT_FIELD).as_deref() == Some(agent) {
                true => (Verdict::Allowed, ""),
                false => {
                    (Verdict::Denied, "can only list/watch tasks with spec.agent field selector")
                }
            }
        }
        (OUR_GROUP, "tasks", "status") if writes => own_task(agent, bound()),
        // For the task's own eyes: an agent hands it on.
        (OUR_GROUP, "tasks", "token") if request.verb == "create" => own_task(agent, bound()),
        (OUR_GROUP, "agents", "") if request.verb == "create" => (Verdict::IfNamedAsAgent, ""),
        (OUR_GROUP, "agents", "" | "status") => plain((reads || writes) && own),
        ("coordination.k8s.io", "leases", "") if request.namespace == AGENT_LEASES => {
            match request.verb {
                "create" => (Verdict::IfNamedAsAgent, ""),
                _ => plain((writes || request.verb == "get") && own),
            }
        }
        // What its tasks name, by name: nothing to browse.
        ("", "secrets" | "configmaps", "") | (OUR_GROUP, "volumes", "")
            if request.verb == "get" =>
        {
            match named_by_a_task() {
                true => (Verdict::Allowed, ""),
                false => (Verdict::Denied, "no relationship found between agent and this object"),
            }
        }
        ("" | "events.k8s.io", "events", "") => {
            plain(matches!(request.verb, "create" | "patch" | "update"))
        }
        _ => plain(false),
    }
}

/// Whether a task that is not over names an object of a kind.
pub(super) fn names(task: &Task, resource: &str, name: &str) -> bool {
    if task.state().is_terminal() {
        return false;
    }
    let container = &task.spec.container;
    let sources = || container.env.iter().filter_map(|variable| variable.value_from.as_ref());
    let is = |named: &Option<String>| named.as_deref() == Some(name);
    match resource {
        "secrets" => {
            container.image_pull_secrets.iter().any(|secret| secret.name == name)
                || container.mounts.iter().any(|mount| is(&mount.secret))
                || sources().any(|s| s.secret_key_ref.as_ref().is_some_and(|r| r.name == name))
        }
        "configmaps" => {
            container.mounts.iter().any(|mount| is(&mount.config_map))
                || sources().any(|s| s.config_map_key_ref.as_ref().is_some_and(|r| r.name == name))
        }
        "volumes" => container.mounts.iter().any(|mount| is(&mount.volume)),
        _ => false,
    }
}

fn own_task(agent: &str, bound: Bound) -> (Verdict, &'static str) {
    match bound {
        Bound::Missing => (Verdict::Allowed, ""),
        Bound::To(other) if other == agent => (Verdict::Allowed, ""),
        Bound::To(_) => (Verdict::Denied, "no relationship found between agent and this task"),
    }
}

/// The value that a selector demands of a field.
pub(super) fn exact(selector: &str, field: &str) -> Option<String> {
    let selector = FieldSelector::parse(selector).ok()?;
    selector.exact(field).map(str::to_owned)
}

/// The same as rules, for who lists what an agent may do in a namespace.
pub(super) fn rules(agent: &str, namespace: &str) -> Vec<Rule> {
    let named = |rule: Rule| Rule { resource_names: strings(&[agent]), ..rule };
    let mut rules = vec![
        rule(&["get", "list", "watch"], OUR_GROUP, &["tasks"]),
        rule(&["get", "patch", "update"], OUR_GROUP, &["tasks/status"]),
        rule(&["create"], OUR_GROUP, &["tasks/token"]),
        named(rule(&["create", "get", "list", "patch", "update", "watch"], OUR_GROUP, &["agents"])),
        named(rule(&["get", "patch", "update"], OUR_GROUP, &["agents/status"])),
        rule(&["create", "patch", "update"], "", &["events"]),
        rule(&["create", "patch", "update"], "events.k8s.io", &["events"]),
    ];
    if namespace == AGENT_LEASES {
        let verbs = ["create", "get", "patch", "update"];
        rules.push(named(rule(&verbs, "coordination.k8s.io", &["leases"])));
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on<'a>(verb: &'a str, group: &'a str, resource: &'a str, name: &'a str) -> Attributes<'a> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            verb,
            is_resource: true,
            group,
            resource,
            subresource,
            namespace: "default",
            name,
            ..Attributes::default()
        }
    }

    #[test]
    fn an_agent_reaches_only_its_own() {
        let ours = OUR_GROUP;
        let lease = |verb, name| Attributes {
            namespace: AGENT_LEASES,
            ..on(verb, "coordination.k8s.io", "leases", name)
        };
        let selected =
            |verb, field_selector| Attributes { field_selector, ..on(verb, ours, "tasks", "") };
        let (yes, no) = (Verdict::Allowed, Verdict::Denied);
        for (request, verdict) in [
            (on("list", ours, "tasks", ""), no),
            (selected("list", "spec.agent=n1"), yes),
            (selected("watch", "status.state=Running,spec.agent==n1"), yes),
            (selected("watch", "spec.agent=n2"), no),
            (selected("watch", "spec.agent!=n1"), no),
            (selected("deletecollection", "spec.agent=n1"), no),
            (on("watch", ours, "agents", ""), no),
            (on("get", ours, "agents", "n1"), yes),
            (on("get", ours, "agents", "n2"), no),
            (on("create", ours, "agents", ""), Verdict::IfNamedAsAgent),
            (on("patch", ours, "agents/status", "n1"), yes),
            (on("patch", ours, "agents/status", "n2"), no),
            (on("update", ours, "agents", "n2"), no),
            (on("update", ours, "agents", "n1"), yes),
            (on("delete", ours, "agents", "n1"), no),
            (on("deletecollection", ours, "agents", ""), no),
            (lease("delete", "n1"), no),
            (on("get", ours, "tasks", "mine"), yes),
            (on("get", ours, "tasks", "foreign"), no),
            (on("get", ours, "tasks", "gone"), yes),
            (on("patch", ours, "tasks/status", "mine"), yes),
            (on("patch", ours, "tasks/status", "foreign"), no),
            (on("patch", ours, "tasks", "mine"), no),
            (on("create", ours, "tasks", ""), no),
            (on("get", "", "secrets", "named"), yes),
            (on("get", "", "secrets", "other"), no),
            (on("list", "", "secrets", "named"), no),
            (on("watch", "", "configmaps", "named"), no),
            (on("get", "", "configmaps", "named"), yes),
            (on("update", "", "secrets", "named"), no),
            (on("get", ours, "volumes", "named"), yes),
            (on("create", ours, "tasks/token", "mine"), yes),
            (on("create", ours, "tasks/token", "foreign"), no),
            (on("create", ours, "tasks/binding", "mine"), no),
            (on("get", ours, "tasks/log", "mine"), no),
            (on("create", "", "events", ""), yes),
            (on("get", "", "secrets", "x"), no),
            (lease("create", ""), Verdict::IfNamedAsAgent),
            (lease("update", "n1"), yes),
            (lease("update", "n2"), no),
            (on("update", "coordination.k8s.io", "leases", "n1"), no),
        ] {
            let bound = || match request.name {
                "mine" => Bound::To("n1".to_owned()),
                "gone" => Bound::Missing,
                _ => Bound::To("n2".to_owned()),
            };
            assert_eq!(
                decide("n1", &request, bound, || request.name == "named").0,
                verdict,
                "{request:?}"
            );
        }
    }
}
