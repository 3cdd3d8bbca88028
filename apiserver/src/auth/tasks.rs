//! What a task may do by itself: read its own Task, and say how it is.
//!
//! Its token lies in its container, where whatever the task runs can take it: so it reaches one object, and what
//! it may say there is bounded by `kinds::task`. An operator may grant more, to the user or to `system:tasks:NAMESPACE`.

use super::agents::OUR_GROUP;
use super::authorizer::Attributes;
use super::rbac::{Rule, rule, strings};

/// Whether a task may do this without any grant.
pub(super) fn may(task: (&str, &str), request: &Attributes<'_>) -> bool {
    let own = (request.namespace, request.name) == task;
    let about_tasks = (request.group, request.resource) == (OUR_GROUP, "tasks");
    let known = match request.subresource {
        // A list or watch that a field selector narrows to one name is about that name.
        "" => matches!(request.verb, "get" | "list" | "watch"),
        "status" => matches!(request.verb, "get" | "patch"),
        _ => false,
    };
    own && about_tasks && known
}

/// The same as rules, for who lists what a task may do in a namespace.
pub(super) fn rules(task: (&str, &str), namespace: &str) -> Vec<Rule> {
    if task.0 != namespace {
        return Vec::new();
    }
    let named = |rule: Rule| Rule { resource_names: strings(&[task.1]), ..rule };
    vec![
        named(rule(&["get", "list", "watch"], OUR_GROUP, &["tasks"])),
        named(rule(&["get", "patch"], OUR_GROUP, &["tasks/status"])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_reaches_itself_and_nothing_else() {
        for (verb, resource, namespace, name, allowed) in [
            ("get", "tasks", "shop", "web-0", true),
            ("watch", "tasks", "shop", "web-0", true),
            ("get", "tasks/status", "shop", "web-0", true),
            ("patch", "tasks/status", "shop", "web-0", true),
            ("update", "tasks/status", "shop", "web-0", false),
            ("patch", "tasks", "shop", "web-0", false),
            ("delete", "tasks", "shop", "web-0", false),
            ("create", "tasks/kill", "shop", "web-0", false),
            ("create", "tasks/exec", "shop", "web-0", false),
            ("create", "tasks/token", "shop", "web-0", false),
            ("get", "tasks/log", "shop", "web-0", false),
            ("get", "tasks", "shop", "web-1", false),
            ("get", "tasks", "other", "web-0", false),
            ("list", "tasks", "shop", "", false),
            ("create", "tasks", "shop", "", false),
            ("get", "frameworks", "shop", "web-0", false),
        ] {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let request = Attributes {
                verb,
                is_resource: true,
                group: OUR_GROUP,
                resource,
                subresource,
                namespace,
                name,
                ..Attributes::default()
            };
            assert_eq!(may(("shop", "web-0"), &request), allowed, "{request:?}");
            assert!(!may(("shop", "web-0"), &Attributes { group: "", ..request }));
        }
    }
}
