//! May this identity do this? The authorizer as a whole: the control plane everything, agents and
//! frameworks their own, everybody what roles and bindings grant; the first who allows, allows.
//!
//! Roles and bindings are read from the cache, where every decision sees the newest.
//! Never looks at a request's body: where the answer hangs on that, the verdict says so.

use std::sync::Arc;

use commonage_schemas::Task;

use super::agents::{self, Bound};
use super::authorizer::{Attributes, Decision, Verdict};
use super::frameworks;
use super::rbac::RBAC_GROUP;
use super::rbac::index::{Index, RoleRef};
use super::rbac::tracked::{Sources, Tracked};
use super::rbac::{Rule, cover};
use super::tasks;
use super::{CONTROLLERS, MASTERS, UserInfo};
use crate::cache::Selection;
use crate::cache::{Cache, ResourceCache};
use crate::resource::Scheme;
use crate::selector::FieldSelector;
use crate::status::ApiError;

/// The authorizer. Share it behind an `Arc`.
pub(crate) struct Access {
    /// Absent in tests of other kinds: then nobody but the control plane may do anything.
    policy: Option<Tracked>,
    tasks: Option<Arc<ResourceCache>>,
    offers: Option<Arc<ResourceCache>>,
    volumes: Option<Arc<ResourceCache>>,
}

impl Access {
    pub(crate) fn new(scheme: &Scheme, cache: &Cache) -> Access {
        let find = |group: &str, plural: &str| {
            scheme.get(group, "v1", plural).and_then(|def| cache.resource(def))
        };
        let sources = || {
            Some(Sources {
                roles: find(RBAC_GROUP, "roles")?,
                cluster_roles: find(RBAC_GROUP, "clusterroles")?,
                role_bindings: find(RBAC_GROUP, "rolebindings")?,
                cluster_role_bindings: find(RBAC_GROUP, "clusterrolebindings")?,
            })
        };
        Access {
            policy: sources().map(Tracked::new),
            tasks: find(agents::OUR_GROUP, "tasks"),
            offers: find(agents::OUR_GROUP, "offers"),
            volumes: find(agents::OUR_GROUP, "volumes"),
        }
    }

    pub(crate) fn decide(&self, user: &UserInfo, request: &Attributes<'_>) -> Decision {
        if user.is_in(MASTERS) || user.is_in(CONTROLLERS) {
            return Decision::allowed();
        }
        if user.task().is_some_and(|task| request.is_resource && tasks::may(task, request)) {
            return Decision::allowed();
        }
        let mut by_body = None;
        let mut refusal = "";
        if let Some(agent) = user.agent_name().filter(|_| request.is_resource) {
            match agents::decide(
                agent,
                request,
                || self.bound(request, "spec.agent"),
                || self.is_named_by_a_task(agent, request),
            ) {
                (Verdict::Allowed, _) => return Decision::allowed(),
                (Verdict::Denied, why) => refusal = why,
                (other, _) => by_body = Some(other),
            }
        }
        let Some(policy) = &self.policy else {
            return Decision::because(by_body.unwrap_or(Verdict::Denied), refusal);
        };
        let index = policy.index();
        let errors = match index.decide(user, request) {
            Ok(grant) => return Decision::by_grant(grant),
            Err(errors) => errors,
        };
        if let Some(verdict) = by_body {
            return Decision::because(verdict, "");
        }
        if request.is_resource {
            let may_use = |framework: Option<&str>| may_use(&index, user, request, framework);
            let bound = || self.bound(request, "spec.framework");
            match frameworks::decide(request, may_use, bound) {
                (Verdict::Denied, "") => {}
                (verdict, why) => return Decision::because(verdict, why),
            }
        }
        let all = match errors.as_slice() {
            [] => refusal.to_owned(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        };
        Decision::because(Verdict::Denied, all)
    }

    /// Whether the user speaks for this framework.
    pub(crate) fn may_use(&self, user: &UserInfo, namespace: &str, framework: &str) -> bool {
        let request = Attributes { namespace, ..Attributes::default() };
        self.policy
            .as_ref()
            .is_some_and(|policy| may_use(&policy.index(), user, &request, Some(framework)))
    }

    /// Every rule that speaks of the user in a namespace, and what could not be resolved.
    pub(crate) fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let mut rules = match (user.agent_name(), user.task()) {
            (Some(agent), _) => agents::rules(agent, namespace),
            (None, Some(task)) => tasks::rules(task, namespace),
            (None, None) => Vec::new(),
        };
        let Some(policy) = &self.policy else { return (rules, Vec::new()) };
        let index = policy.index();
        let (granted, errors) = index.rules_for(user, namespace);
        rules.extend(granted.into_iter().cloned());
        (rules, errors)
    }

    /// The rules of a role that is to be bound.
    ///
    /// # Errors
    /// 404: there is none.
    pub(crate) fn rules_of(&self, role: &RoleRef, namespace: &str) -> Result<Vec<Rule>, ApiError> {
        let resource = format!("{}s", role.kind.to_lowercase());
        let missing = || ApiError::not_found_in(RBAC_GROUP, &resource, &role.name);
        let policy = self.policy.as_ref().ok_or_else(missing)?;
        let index = policy.index();
        let found = index.roles().get(role, namespace).map_err(|_| missing())?;
        Ok(found.rules.clone())
    }

    /// # Errors
    /// In Kubernetes' words: the user would grant what it has not.
    pub(crate) fn check_escalation(
        &self,
        user: &UserInfo,
        namespace: &str,
        granted: &[Rule],
    ) -> Result<(), String> {
        let (held, errors) = self.rules_for(user, namespace);
        let missing = cover::missing(&held.iter().collect::<Vec<_>>(), granted);
        if missing.is_empty() {
            return Ok(());
        }
        let mut text = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            cover::go_list(&user.groups),
            cover::describe(&missing)
        );
        if !errors.is_empty() {
            text.push_str(&format!("; resolution errors: [{}]", errors.join(", ")));
        }
        Err(text)
    }

    /// Whether a task that is on this agent names a Secret, ConfigMap or Volume.
    fn is_named_by_a_task(&self, agent: &str, request: &Attributes<'_>) -> bool {
        // One that is gone is nobody's secret, and its agent must learn that it is gone.
        let path = format!("{}/{}", request.namespace, request.name);
        let gone = |volumes: &Arc<ResourceCache>| volumes.get(&path).is_none();
        if request.resource == "volumes" && self.volumes.as_ref().is_some_and(gone) {
            return true;
        }
        let Some(tasks) = &self.tasks else { return false };
        let fields = FieldSelector::equal("spec.agent", agent);
        let (known, namespace) = (Arc::clone(tasks.fields()), Some(request.namespace));
        let selection = Selection::new(known, namespace, None, Some(fields));
        let (bound, _) = tasks.snapshot_of(&selection);
        bound.values().filter(|task| selection.matches(task)).any(|task| {
            serde_json::from_slice(&task.body)
                .is_ok_and(|task: Task| agents::names(&task, request.resource, request.name))
        })
    }

    /// Whom a named Task or Offer belongs to, by one of its fields.
    fn bound(&self, request: &Attributes<'_>, field: &str) -> Bound {
        let cache = match request.resource {
            "tasks" => self.tasks.as_ref(),
            "offers" => self.offers.as_ref(),
            _ => None,
        };
        let Some(cache) = cache else { return Bound::Missing };
        let Some(object) = cache.get(&format!("{}/{}", request.namespace, request.name)) else {
            return Bound::Missing;
        };
        let at = cache.fields().position(field);
        let value = at.and_then(|at| object.fields[at].as_deref()).unwrap_or_default();
        match (value, field) {
            ("", "spec.framework") => Bound::To(commonage_schemas::names::DEFAULT_FRAMEWORK.into()),
            (value, _) => Bound::To(value.to_owned()),
        }
    }
}

fn may_use(
    index: &Index,
    user: &UserInfo,
    request: &Attributes<'_>,
    framework: Option<&str>,
) -> bool {
    let use_of = |name| Attributes {
        verb: "use",
        is_resource: true,
        group: agents::OUR_GROUP,
        resource: "frameworks",
        namespace: request.namespace,
        name,
        ..Attributes::default()
    };
    match framework {
        Some(name) => index.decide(user, &use_of(name)).is_ok(),
        None => index.allows_some_name(user, &use_of("")),
    }
}
