//! Who is calling, and may they: authentication (certificates, tokens) and authorization.
//!
//! Called by the HTTP filters once per request (certificates: once per connection). It decides
//! from the identity, the parsed request and the cache, and must never look at a request's body.

pub(crate) mod access;
mod agents;
pub(crate) mod authenticator;
pub mod authorizer;
pub mod certificate;
mod frameworks;
pub(crate) mod jwt;
pub mod oidc;
pub(crate) mod rbac;
pub(crate) mod service_accounts;
mod tasks;
pub(crate) mod token_secrets;
pub mod tokens;

/// Everybody whose credentials were accepted.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Everybody who showed no credentials.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";
/// Members may do everything, and wait in no queue.
pub const MASTERS: &str = "system:masters";
/// The control plane's own controllers.
pub const CONTROLLERS: &str = "system:controllers";
/// Every agent; its user name is [`AGENT_PREFIX`] and the agent's name.
pub const AGENTS: &str = "system:agents";
pub const AGENT_PREFIX: &str = "system:agent:";
/// Every task that speaks for itself; its user name is [`TASK_PREFIX`], its namespace, a colon and its name.
pub const TASKS: &str = "system:tasks";
pub const TASK_PREFIX: &str = "system:task:";

/// The extra that says which credentials were shown, lest one token's deeds be taken for another's.
pub(crate) const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// An identity as Kubernetes describes one: the name and groups that rules speak of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    /// What the authenticator knows besides, such as the id of a token.
    pub extra: std::collections::BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// An identity whose credentials were accepted: `system:authenticated` is added to its groups.
    pub fn authenticated(name: impl Into<String>, groups: &[&str]) -> UserInfo {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        UserInfo { name: name.into(), groups, ..UserInfo::default() }
    }

    pub fn anonymous() -> UserInfo {
        UserInfo {
            name: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..UserInfo::default()
        }
    }

    /// The administrator's identity, as in the kubeconfig that the server writes.
    pub fn admin() -> UserInfo {
        UserInfo::authenticated("admin", &[MASTERS])
    }

    /// The identity of the controllers that run next to the API server.
    pub fn controllers() -> UserInfo {
        UserInfo::authenticated("system:controllers", &[CONTROLLERS])
    }

    /// The identity of the agent called `name`.
    pub fn agent(name: &str) -> UserInfo {
        UserInfo::authenticated(format!("{AGENT_PREFIX}{name}"), &[AGENTS])
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|member| member == group)
    }

    /// The agent's name, if this is an agent.
    pub fn agent_name(&self) -> Option<&str> {
        if !self.is_in(AGENTS) {
            return None;
        }
        self.name.strip_prefix(AGENT_PREFIX)
    }

    /// The task's namespace and name, if this is a task.
    pub fn task(&self) -> Option<(&str, &str)> {
        if !self.is_in(TASKS) {
            return None;
        }
        self.name.strip_prefix(TASK_PREFIX)?.split_once(':')
    }
}
