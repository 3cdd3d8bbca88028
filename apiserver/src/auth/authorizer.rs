//! The question whether an identity may do something, its answer, and the refusal in Kubernetes'
//! words. Who answers is [`super::access`].

use std::sync::Arc;

use super::UserInfo;
use super::rbac::index::Grant;
use crate::status::ApiError;

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
    /// Of a list, watch or deletecollection, as it was sent.
    pub field_selector: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    Denied,
    /// Allowed if the object sent carries the caller's agent name: a create has no name in its URL.
    IfNamedAsAgent,
    /// Allowed if the Task sent belongs to a framework that the caller may use.
    IfFrameworkIsOwn,
}

/// A verdict and why.
#[derive(Debug)]
pub struct Decision {
    pub verdict: Verdict,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Nothing,
    Grant(Arc<Grant>),
    Text(String),
}

impl Decision {
    pub(crate) fn allowed() -> Decision {
        Decision { verdict: Verdict::Allowed, why: Why::Nothing }
    }

    pub(crate) fn by_grant(grant: Arc<Grant>) -> Decision {
        Decision { verdict: Verdict::Allowed, why: Why::Grant(grant) }
    }

    pub(crate) fn because(verdict: Verdict, why: impl Into<String>) -> Decision {
        Decision { verdict, why: Why::Text(why.into()) }
    }

    pub fn is_denied(&self) -> bool {
        self.verdict == Verdict::Denied
    }

    /// For reviews, refusals and the audit log; may be empty.
    pub fn reason(&self) -> String {
        match &self.why {
            Why::Nothing => String::new(),
            Why::Grant(grant) => format!("RBAC: allowed by {}", grant.source()),
            Why::Text(text) => text.clone(),
        }
    }
}

/// The refusal, in Kubernetes' words; `reason` may be empty.
pub fn forbidden(user: &UserInfo, request: &Attributes<'_>, reason: &str) -> ApiError {
    let mut why = if request.is_resource {
        resource_refusal(user, request)
    } else {
        format!("User {:?} cannot {} path {:?}", user.name, request.verb, request.path)
    };
    // As kube-apiserver does, lest a browser take a name for markup.
    why = why.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    match request.is_resource {
        true => ApiError::forbidden(request.group, request.resource, request.name, &why),
        false => ApiError::forbidden("", "", "", &why),
    }
}

fn resource_refusal(user: &UserInfo, request: &Attributes<'_>) -> String {
    let resource = match request.subresource {
        "" => request.resource.to_owned(),
        subresource => format!("{}/{subresource}", request.resource),
    };
    let place = match request.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    format!(
        "User {:?} cannot {} resource {resource:?} in API group {:?} {place}",
        user.name, request.verb, request.group
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_kubernetes_own() {
        let alice = UserInfo::authenticated("alice", &[]);
        let tasks = Attributes {
            verb: "list",
            is_resource: true,
            group: "commonage.dev",
            resource: "tasks",
            namespace: "default",
            ..Attributes::default()
        };
        assert_eq!(
            forbidden(&alice, &tasks, "").message,
            "tasks.commonage.dev is forbidden: User \"alice\" cannot list resource \"tasks\" in \
             API group \"commonage.dev\" in the namespace \"default\""
        );
        let status = Attributes {
            verb: "get",
            resource: "agents",
            subresource: "status",
            namespace: "",
            name: "n1",
            ..tasks
        };
        assert_eq!(
            forbidden(&alice, &status, "no").message,
            "agents.commonage.dev \"n1\" is forbidden: User \"alice\" cannot get resource \
             \"agents/status\" in API group \"commonage.dev\" at the cluster scope: no"
        );
        let path = Attributes { verb: "get", path: "/apis", ..Attributes::default() };
        assert_eq!(
            forbidden(&UserInfo::anonymous(), &path, "").message,
            "forbidden: User \"system:anonymous\" cannot get path \"/apis\""
        );
    }
}
