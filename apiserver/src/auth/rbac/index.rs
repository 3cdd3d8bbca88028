//! Roles and bindings arranged by whom they speak of, so that a decision looks at nobody else's.
//!
//! Changes in place, by one role or binding at a time: what a change costs does not hang on how
//! many others there are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;

use super::{RBAC_GROUP, Rule, null_is_empty};
use crate::auth::UserInfo;
use crate::auth::authorizer::Attributes;

const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// What counts of a Role or ClusterRole.
#[derive(Debug, Deserialize)]
pub(crate) struct Role {
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) rules: Vec<Rule>,
}

/// What counts of a RoleBinding or ClusterRoleBinding.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Binding {
    metadata: Meta,
    role_ref: RoleRef,
    #[serde(default, deserialize_with = "null_is_empty")]
    subjects: Vec<Subject>,
}

#[derive(Clone, Debug, Deserialize)]
struct Meta {
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RoleRef {
    pub(crate) kind: String,
    pub(crate) name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

/// The roles, by name; those with a namespace by `namespace/name`.
#[derive(Debug, Default)]
pub(crate) struct Roles {
    pub(crate) namespaced: HashMap<Arc<str>, Arc<Role>>,
    pub(crate) cluster: HashMap<Arc<str>, Arc<Role>>,
}

impl Roles {
    /// # Errors
    /// In Kubernetes' words: there is no such role.
    pub(crate) fn get(&self, role: &RoleRef, namespace: &str) -> Result<&Arc<Role>, String> {
        self.at(role, &role.path(namespace))
    }

    /// As [`Roles::get`], of a role whose path is known.
    fn at(&self, role: &RoleRef, path: &str) -> Result<&Arc<Role>, String> {
        let found = match role.kind.as_str() {
            "Role" => self.namespaced.get(path),
            "ClusterRole" => self.cluster.get(path),
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        let missing =
            || format!("{}.{RBAC_GROUP} {:?} not found", role.kind.to_lowercase(), role.name);
        found.ok_or_else(missing)
    }
}

impl RoleRef {
    fn path(&self, namespace: &str) -> String {
        match self.kind.as_str() {
            "Role" => format!("{namespace}/{}", self.name),
            _ => format!("/{}", self.name),
        }
    }
}

/// One role given to one subject by one binding.
#[derive(Debug)]
pub(crate) struct Grant {
    /// Of the binding; grants are in the order of their paths.
    path: Arc<str>,
    binding: Arc<Binding>,
    /// Of the binding's subjects.
    subject: usize,
    /// Of the role, which may come, change and go.
    role: Arc<str>,
}

impl Grant {
    fn place(&self) -> (&str, usize) {
        (&self.path, self.subject)
    }

    fn rules<'r>(&self, roles: &'r Roles) -> Result<&'r [Rule], String> {
        roles.at(&self.binding.role_ref, &self.role).map(|role| role.rules.as_slice())
    }

    /// `ClusterRoleBinding "x" of ClusterRole "y" to User "z"`.
    pub(crate) fn source(&self) -> String {
        source(&self.binding, &self.binding.subjects[self.subject])
    }
}

#[derive(Debug, Default)]
struct Grants {
    users: HashMap<Box<str>, Vec<Arc<Grant>>>,
    groups: HashMap<Box<str>, Vec<Arc<Grant>>>,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    roles: Roles,
    cluster: Grants,
    namespaces: HashMap<Box<str>, Grants>,
}

impl Index {
    pub(crate) fn bind(&mut self, path: &Arc<str>, binding: Binding) {
        let binding = Arc::new(binding);
        let namespace = binding.metadata.namespace.as_str();
        let role: Arc<str> = binding.role_ref.path(namespace).into();
        let grants = match namespace {
            "" => &mut self.cluster,
            _ => self.namespaces.entry(namespace.into()).or_default(),
        };
        for (subject, to) in binding.subjects.iter().enumerate() {
            let Some((by_name, name)) = grants.of(to, namespace) else { continue };
            let (path, binding, role) = (path.clone(), binding.clone(), role.clone());
            let grant = Grant { path, binding, subject, role };
            let list = by_name.entry(name.into()).or_default();
            let at = list.partition_point(|other| other.place() < grant.place());
            list.insert(at, Arc::new(grant));
        }
    }

    /// Takes back what [`Index::bind`] gave for this binding as it was.
    pub(crate) fn unbind(&mut self, path: &str, binding: &Binding) {
        let namespace = binding.metadata.namespace.as_str();
        let grants = match namespace {
            "" => Some(&mut self.cluster),
            _ => self.namespaces.get_mut(namespace),
        };
        let Some(grants) = grants else { return };
        for subject in &binding.subjects {
            let Some((by_name, name)) = grants.of(subject, namespace) else { continue };
            let Some(list) = by_name.get_mut(name.as_str()) else { continue };
            // A list in the order of paths: those of one binding stand together.
            let from = list.partition_point(|grant| &*grant.path < path);
            let count = list[from..].iter().take_while(|grant| &*grant.path == path).count();
            list.drain(from..from + count);
            if list.is_empty() {
                by_name.remove(name.as_str());
            }
        }
        if grants.users.is_empty() && grants.groups.is_empty() && !namespace.is_empty() {
            self.namespaces.remove(namespace);
        }
    }

    pub(crate) fn roles_mut(&mut self) -> &mut Roles {
        &mut self.roles
    }

    pub(crate) fn roles(&self) -> &Roles {
        &self.roles
    }

    /// The grant that allows the request; else what went wrong while looking.
    pub(crate) fn decide(
        &self,
        user: &UserInfo,
        request: &Attributes<'_>,
    ) -> Result<Arc<Grant>, Vec<String>> {
        self.find(user, request.namespace, |rule| rule.allows(request))
    }

    /// Whether the user may do this to some object, whatever its name.
    pub(crate) fn allows_some_name(&self, user: &UserInfo, request: &Attributes<'_>) -> bool {
        self.find(user, request.namespace, |rule| rule.allows_for_some_name(request)).is_ok()
    }

    fn find(
        &self,
        user: &UserInfo,
        namespace: &str,
        allows: impl Fn(&Rule) -> bool,
    ) -> Result<Arc<Grant>, Vec<String>> {
        let mut errors = Vec::new();
        for grant in self.grants(user, namespace) {
            match grant.rules(&self.roles) {
                Ok(rules) if rules.iter().any(&allows) => return Ok(grant.clone()),
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
        }
        Err(errors)
    }

    /// Every rule that speaks of the user there, and the roles that are missing.
    pub(crate) fn rules_for<'i>(
        &'i self,
        user: &'i UserInfo,
        namespace: &str,
    ) -> (Vec<&'i Rule>, Vec<String>) {
        let (mut rules, mut errors, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        for grant in self.grants(user, namespace) {
            // Two subjects of one binding may be the same user.
            if !seen.insert(&*grant.path) {
                continue;
            }
            match grant.rules(&self.roles) {
                Ok(found) => rules.extend(found),
                Err(error) => errors.push(error),
            }
        }
        (rules, errors)
    }

    fn grants<'i>(
        &'i self,
        user: &'i UserInfo,
        namespace: &str,
    ) -> impl Iterator<Item = &'i Arc<Grant>> {
        let local = (!namespace.is_empty()).then(|| self.namespaces.get(namespace)).flatten();
        [Some(&self.cluster), local].into_iter().flatten().flat_map(|grants| {
            let own = grants.users.get(user.name.as_str());
            let groups = user.groups.iter().filter_map(|group| grants.groups.get(group.as_str()));
            own.into_iter().chain(groups).flatten()
        })
    }
}

type ByName = HashMap<Box<str>, Vec<Arc<Grant>>>;

impl Grants {
    /// Where a subject's grants are, and under which name.
    fn of(&mut self, subject: &Subject, namespace: &str) -> Option<(&mut ByName, String)> {
        match subject.kind.as_str() {
            "User" => Some((&mut self.users, subject.name.clone())),
            "Group" => Some((&mut self.groups, subject.name.clone())),
            "ServiceAccount" => {
                let own = subject.namespace.as_str();
                let namespace = if own.is_empty() { namespace } else { own };
                let name = format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{}", subject.name);
                (!namespace.is_empty()).then_some((&mut self.users, name))
            }
            _ => None,
        }
    }
}

fn source(binding: &Binding, subject: &Subject) -> String {
    let Meta { name, namespace } = &binding.metadata;
    let RoleRef { kind, name: role } = &binding.role_ref;
    let subject_name = match subject.kind.as_str() {
        "ServiceAccount" if subject.namespace.is_empty() => format!("{}/{namespace}", subject.name),
        "ServiceAccount" => format!("{}/{}", subject.name, subject.namespace),
        _ => subject.name.clone(),
    };
    let to = format!("of {kind} {role:?} to {} {subject_name:?}", subject.kind);
    match namespace.as_str() {
        "" => format!("ClusterRoleBinding {name:?} {to}"),
        namespace => format!("RoleBinding {:?} {to}", format!("{name}/{namespace}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::super::rule;
    use super::*;

    fn role(rules: Vec<Rule>) -> Arc<Role> {
        Arc::new(Role { rules })
    }

    fn binding(value: Value) -> Binding {
        serde_json::from_value(value).unwrap()
    }

    fn index() -> Index {
        let roles = Roles {
            namespaced: [("a/reader".into(), role(vec![rule(&["get"], "", &["pods"])]))].into(),
            cluster: [("/all".into(), role(vec![rule(&["*"], "*", &["*"])]))].into(),
        };
        let bind = |meta: Value, kind: &str, role: &str, subjects: Value| {
            binding(
                json!({"metadata": meta, "roleRef": {"kind": kind, "name": role}, "subjects": subjects}),
            )
        };
        let mut index = Index { roles, ..Index::default() };
        let bindings = [
            bind(
                json!({"name": "r", "namespace": "a"}),
                "Role",
                "reader",
                json!([
                    {"kind": "User", "name": "alice"}, {"kind": "ServiceAccount", "name": "bot"},
                ]),
            ),
            bind(
                json!({"name": "c"}),
                "ClusterRole",
                "all",
                json!([{"kind": "Group", "name": "root"}]),
            ),
            bind(
                json!({"name": "l", "namespace": "b"}),
                "ClusterRole",
                "all",
                json!([{"kind": "User", "name": "alice"}]),
            ),
            bind(
                json!({"name": "m"}),
                "ClusterRole",
                "gone",
                json!([{"kind": "User", "name": "bob"}]),
            ),
            bind(json!({"name": "n"}), "ClusterRole", "all", Value::Null),
        ];
        for binding in bindings {
            index.bind(&path(&binding), binding);
        }
        index
    }

    fn path(binding: &Binding) -> Arc<str> {
        format!("{}/{}", binding.metadata.namespace, binding.metadata.name).into()
    }

    #[test]
    fn a_grant_holds_where_its_binding_is() {
        let index = index();
        let ask = |user: &UserInfo, verb, namespace| {
            let request = Attributes {
                verb,
                is_resource: true,
                resource: "pods",
                namespace,
                name: "p",
                ..Attributes::default()
            };
            index.decide(user, &request).map(|grant| grant.source())
        };
        let alice = UserInfo::authenticated("alice", &[]);
        assert_eq!(
            ask(&alice, "get", "a").unwrap(),
            "RoleBinding \"r/a\" of Role \"reader\" to User \"alice\""
        );
        assert_eq!(ask(&alice, "delete", "a"), Err(vec![]));
        assert_eq!(
            ask(&alice, "delete", "b").unwrap(),
            "RoleBinding \"l/b\" of ClusterRole \"all\" to User \"alice\""
        );
        assert_eq!(ask(&alice, "get", ""), Err(vec![]));
        let bot = UserInfo::authenticated("system:serviceaccount:a:bot", &[]);
        assert_eq!(
            ask(&bot, "get", "a").unwrap(),
            "RoleBinding \"r/a\" of Role \"reader\" to ServiceAccount \"bot/a\""
        );
        assert_eq!(ask(&bot, "get", "b"), Err(vec![]));
        let root = UserInfo::authenticated("x", &["root"]);
        assert_eq!(
            ask(&root, "get", "").unwrap(),
            "ClusterRoleBinding \"c\" of ClusterRole \"all\" to Group \"root\""
        );
        let bob = UserInfo::authenticated("bob", &[]);
        assert_eq!(
            ask(&bob, "get", "a"),
            Err(vec!["clusterrole.rbac.authorization.k8s.io \"gone\" not found".to_owned()])
        );
    }

    #[test]
    fn all_rules_of_a_user_are_found() {
        let index = index();
        let alice = UserInfo::authenticated("alice", &["root"]);
        assert_eq!(index.rules_for(&alice, "a").0.len(), 2);
        assert_eq!(index.rules_for(&alice, "").0.len(), 1);
    }
    #[test]
    fn what_is_taken_back_leaves_nothing() {
        let mut index = index();
        let alice = UserInfo::authenticated("alice", &[]);
        let twice = binding(json!({
            "metadata": {"name": "twice", "namespace": "b"},
            "roleRef": {"kind": "ClusterRole", "name": "gone"},
            "subjects": [{"kind": "User", "name": "alice"}, {"kind": "User", "name": "alice"}],
        }));
        index.bind(&path(&twice), twice.clone());
        assert_eq!(index.rules_for(&alice, "b").1.len(), 1, "one binding, one missing role");
        index.roles_mut().cluster.insert("/gone".into(), role(vec![rule(&["list"], "", &["x"])]));
        assert_eq!(
            (index.rules_for(&alice, "b").0.len(), index.rules_for(&alice, "b").1.len()),
            (2, 0)
        );
        index.unbind(&path(&twice), &twice);
        assert_eq!(index.rules_for(&alice, "b").0.len(), 1);
        let last = binding(json!({
            "metadata": {"name": "l", "namespace": "b"},
            "roleRef": {"kind": "ClusterRole", "name": "all"},
            "subjects": [{"kind": "User", "name": "alice"}],
        }));
        index.unbind(&path(&last), &last);
        assert!(index.rules_for(&alice, "b").0.is_empty());
        assert!(
            !index.namespaces.contains_key("b"),
            "nothing is kept of a namespace without grants"
        );
    }
}
