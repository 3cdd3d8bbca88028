//! May this identity do this? A small fixed table: control plane everything, agents their own,
//! everybody else the documents that describe the API.
//!
//! Pure: where the answer hangs on stored or sent data, the verdict says what has to hold and the
//! HTTP filters look it up. Rules that users write (RBAC) will stand beside this table.

use super::{ANONYMOUS, CONTROLLERS, MASTERS, UserInfo};
use crate::status::ApiError;

const OUR_GROUP: &str = "commonage.dev";
/// Heart-beats: one Lease per agent, of the agent's name.
const AGENT_LEASES: &str = "commonage-agents";

/// What is asked for. Names are empty where the request has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    /// False: only `path` and `verb` count.
    pub is_resource: bool,
    pub path: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    Denied,
    /// Allowed if the named Task's `spec.agent` is the caller's agent.
    IfTaskIsOwn,
    /// Allowed if the object sent carries the caller's agent name: a create has no name in its URL.
    IfNamedAsAgent,
}

pub fn decide(user: &UserInfo, request: &Attributes<'_>) -> Verdict {
    if user.is_in(MASTERS) || user.is_in(CONTROLLERS) {
        return Verdict::Allowed;
    }
    if !request.is_resource {
        return allowed_if(may_read_path(user, request));
    }
    match user.agent_name() {
        Some(agent) => agent_verdict(agent, request),
        None => Verdict::Denied,
    }
}

fn allowed_if(allowed: bool) -> Verdict {
    match allowed {
        true => Verdict::Allowed,
        false => Verdict::Denied,
    }
}

fn may_read_path(user: &UserInfo, request: &Attributes<'_>) -> bool {
    if request.verb != "get" && request.verb != "head" {
        return false;
    }
    let under = |root: &str| {
        request.path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let health = ["/livez", "/readyz", "/healthz", "/version"];
    if health.iter().any(|root| under(root)) {
        return true;
    }
    user.name != ANONYMOUS && (["/api", "/apis", "/openapi"].iter().any(|root| under(root)))
}

fn agent_verdict(agent: &str, request: &Attributes<'_>) -> Verdict {
    let reads = matches!(request.verb, "get" | "list" | "watch");
    // Never delete: removing an agent's objects is the operator's decision, and a certificate that
    // got into wrong hands must not be able to take a machine out of the cluster.
    let writes = matches!(request.verb, "update" | "patch");
    let own = request.name == agent;
    match (request.group, request.resource, request.subresource) {
        (OUR_GROUP, "agents" | "tasks", "" | "status") if reads => Verdict::Allowed,
        (OUR_GROUP, "agents", "") if request.verb == "create" => Verdict::IfNamedAsAgent,
        (OUR_GROUP, "agents", "" | "status") => allowed_if(writes && own),
        (OUR_GROUP, "tasks", "status") if writes => Verdict::IfTaskIsOwn,
        ("coordination.k8s.io", "leases", "") if request.namespace == AGENT_LEASES => {
            match request.verb {
                "create" => Verdict::IfNamedAsAgent,
                _ => allowed_if((writes || request.verb == "get") && own),
            }
        }
        ("" | "events.k8s.io", "events", "") => {
            allowed_if(matches!(request.verb, "create" | "patch"))
        }
        _ => Verdict::Denied,
    }
}

/// The refusal, in Kubernetes' words.
pub fn forbidden(user: &UserInfo, request: &Attributes<'_>) -> ApiError {
    if !request.is_resource {
        let why =
            format!("User \"{}\" cannot {} path \"{}\"", user.name, request.verb, request.path);
        return ApiError::forbidden("", "", "", &why);
    }
    let resource = match request.subresource {
        "" => request.resource.to_owned(),
        subresource => format!("{}/{subresource}", request.resource),
    };
    let place = match request.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    let why = format!(
        "User \"{}\" cannot {} resource \"{resource}\" in API group \"{}\" {place}",
        user.name, request.verb, request.group
    );
    ApiError::forbidden(request.group, request.resource, request.name, &why)
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

    fn path<'a>(verb: &'a str, path: &'a str) -> Attributes<'a> {
        Attributes { verb, path, ..Attributes::default() }
    }

    #[test]
    fn the_control_plane_may_do_everything() {
        for user in [UserInfo::admin(), UserInfo::controllers()] {
            assert_eq!(decide(&user, &on("delete", "", "secrets", "x")), Verdict::Allowed);
            assert_eq!(decide(&user, &path("get", "/metrics")), Verdict::Allowed);
        }
    }

    #[test]
    fn an_agent_reaches_only_its_own() {
        let n1 = UserInfo::agent("n1");
        let ours = OUR_GROUP;
        let lease = |verb, name| Attributes {
            namespace: AGENT_LEASES,
            ..on(verb, "coordination.k8s.io", "leases", name)
        };
        for (request, verdict) in [
            (on("list", ours, "tasks", ""), Verdict::Allowed),
            (on("watch", ours, "agents", ""), Verdict::Allowed),
            (on("create", ours, "agents", ""), Verdict::IfNamedAsAgent),
            (on("patch", ours, "agents/status", "n1"), Verdict::Allowed),
            (on("patch", ours, "agents/status", "n2"), Verdict::Denied),
            (on("update", ours, "agents", "n2"), Verdict::Denied),
            (on("update", ours, "agents", "n1"), Verdict::Allowed),
            (on("delete", ours, "agents", "n1"), Verdict::Denied),
            (on("deletecollection", ours, "agents", ""), Verdict::Denied),
            (lease("delete", "n1"), Verdict::Denied),
            (on("patch", ours, "tasks/status", "t"), Verdict::IfTaskIsOwn),
            (on("patch", ours, "tasks", "t"), Verdict::Denied),
            (on("create", ours, "tasks", ""), Verdict::Denied),
            (on("create", ours, "tasks/binding", "t"), Verdict::Denied),
            (on("get", ours, "tasks/log", "t"), Verdict::Denied),
            (on("create", "", "events", ""), Verdict::Allowed),
            (on("get", "", "secrets", "x"), Verdict::Denied),
            (lease("create", ""), Verdict::IfNamedAsAgent),
            (lease("update", "n1"), Verdict::Allowed),
            (lease("update", "n2"), Verdict::Denied),
            (on("update", "coordination.k8s.io", "leases", "n1"), Verdict::Denied),
        ] {
            assert_eq!(decide(&n1, &request), verdict, "{request:?}");
        }
    }

    #[test]
    fn a_name_that_only_looks_like_an_agent_is_none() {
        let liar = UserInfo::authenticated("system:agent:n1", &[]);
        assert_eq!(decide(&liar, &on("list", OUR_GROUP, "tasks", "")), Verdict::Denied);
    }

    #[test]
    fn anonymous_sees_health_and_version_only() {
        let anonymous = UserInfo::anonymous();
        let alice = UserInfo::authenticated("alice", &[]);
        for (place, anonymously, known) in [
            ("/livez", true, true),
            ("/readyz/ping", true, true),
            ("/version/", true, true),
            ("/versions", false, false),
            ("/apis", false, true),
            ("/apis/commonage.dev/v1", false, true),
            ("/openapi/v3", false, true),
            ("/metrics", false, false),
        ] {
            let verdict = |user| decide(user, &path("get", place)) == Verdict::Allowed;
            assert_eq!(verdict(&anonymous), anonymously, "{place}");
            assert_eq!(verdict(&alice), known, "{place}");
        }
    }

    #[test]
    fn refusals_are_kubernetes_own() {
        let alice = UserInfo::authenticated("alice", &[]);
        let list = on("list", OUR_GROUP, "tasks", "");
        assert_eq!(
            forbidden(&alice, &list).message,
            "tasks.commonage.dev is forbidden: User \"alice\" cannot list resource \"tasks\" in \
             API group \"commonage.dev\" in the namespace \"default\""
        );
        let everywhere =
            Attributes { namespace: "", ..on("get", OUR_GROUP, "agents/status", "n1") };
        assert_eq!(
            forbidden(&alice, &everywhere).message,
            "agents.commonage.dev \"n1\" is forbidden: User \"alice\" cannot get resource \
             \"agents/status\" in API group \"commonage.dev\" at the cluster scope"
        );
        assert_eq!(
            forbidden(&UserInfo::anonymous(), &path("get", "/apis")).message,
            "forbidden: User \"system:anonymous\" cannot get path \"/apis\""
        );
    }
}
