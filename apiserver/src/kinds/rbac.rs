//! Roles and bindings: their checks, and that nobody grants what they have not.

use serde_json::{Map, Value, json};

use crate::auth::authorizer::Attributes;
use crate::auth::rbac::index::RoleRef;
use crate::auth::rbac::{RBAC_GROUP, Rule, rule, urls};
use crate::auth::{CONTROLLERS, MASTERS, UserInfo};
use crate::meta;
use crate::status::{ApiError, Cause};
use crate::strategy::{Context, Strategy};

/// Role and ClusterRole.
pub(super) struct Roles;

/// RoleBinding and ClusterRoleBinding.
pub(super) struct Bindings;

impl Strategy for Roles {
    fn prepare_create(&self, cx: Context<'_>, object: &mut Value) -> Result<(), ApiError> {
        shape_role(object);
        check_role(cx, object, None)
    }

    fn prepare_update(
        &self,
        cx: Context<'_>,
        _subresource: Option<&str>,
        old: &Value,
        new: &mut Value,
    ) -> Result<(), ApiError> {
        shape_role(new);
        check_role(cx, new, Some(old))
    }

    fn validate(&self, object: &Value, _old: Option<&Value>) -> Vec<Cause> {
        let namespaced = object["kind"] == "Role";
        let rules = object["rules"].as_array().into_iter().flatten().enumerate();
        rules.flat_map(|(at, rule)| rule_causes(rule, namespaced, at)).collect()
    }
}

impl Strategy for Bindings {
    fn prepare_create(&self, cx: Context<'_>, object: &mut Value) -> Result<(), ApiError> {
        shape_binding(object);
        check_binding(cx, object)
    }

    fn prepare_update(
        &self,
        cx: Context<'_>,
        _subresource: Option<&str>,
        old: &Value,
        new: &mut Value,
    ) -> Result<(), ApiError> {
        shape_binding(new);
        match only_bookkeeping_changed(old, new) {
            true => Ok(()),
            false => check_binding(cx, new),
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = binding_causes(object);
        if old.is_some_and(|old| old["roleRef"] != object["roleRef"]) {
            let role = &object["roleRef"];
            let value =
                json!({"APIGroup": role["apiGroup"], "Kind": role["kind"], "Name": role["name"]});
            causes.push(Cause::invalid("roleRef", &value, "cannot change roleRef"));
        }
        causes
    }
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

/// Go always writes `rules`, be it null.
fn shape_role(object: &mut Value) {
    if object.get("rules").is_none() {
        object["rules"] = Value::Null;
    }
    if object["aggregationRule"].is_null()
        && let Some(object) = object.as_object_mut()
    {
        object.remove("aggregationRule");
    }
    for rule in object["rules"].as_array_mut().into_iter().flatten() {
        drop_nulls(rule);
        if rule.get("verbs").is_none() && rule.is_object() {
            rule["verbs"] = Value::Null;
        }
    }
}

/// Kubernetes' defaults, and the fields that Go always writes.
fn shape_binding(object: &mut Value) {
    if object["roleRef"].is_null() {
        object["roleRef"] = Value::Object(Map::new());
    }
    let role = &mut object["roleRef"];
    for field in ["apiGroup", "kind", "name"] {
        if role.is_object() && role[field].is_null() {
            role[field] = "".into();
        }
    }
    if text(role, "apiGroup").is_empty() && role.is_object() {
        role["apiGroup"] = RBAC_GROUP.into();
    }
    if object["subjects"].is_null()
        && let Some(object) = object.as_object_mut()
    {
        object.remove("subjects");
        return;
    }
    for subject in object["subjects"].as_array_mut().into_iter().flatten() {
        drop_nulls(subject);
        let group = matches!(text(subject, "kind"), "User" | "Group").then_some(RBAC_GROUP);
        let given = !text(subject, "apiGroup").is_empty();
        match (given, group, subject.as_object_mut()) {
            (false, Some(group), Some(subject)) => {
                subject.insert("apiGroup".into(), group.into());
            }
            (false, None, Some(subject)) => {
                subject.remove("apiGroup");
            }
            _ => {}
        }
    }
}

fn drop_nulls(value: &mut Value) {
    if let Some(object) = value.as_object_mut() {
        object.retain(|_, member| !member.is_null());
    }
}

fn rule_causes(rule: &Value, namespaced: bool, at: usize) -> Vec<Cause> {
    let field = |name: &str| format!("rules[{at}].{name}");
    let count = |name: &str| rule[name].as_array().map_or(0, Vec::len);
    let mut causes = Vec::new();
    let mut require = |missing: bool, name: &str, why: &str| {
        if missing {
            causes.push(Cause::required(field(name), why));
        }
    };
    require(count("verbs") == 0, "verbs", "verbs must contain at least one value");
    if count("nonResourceURLs") == 0 {
        let why = "resource rules must supply at least one api group";
        require(count("apiGroups") == 0, "apiGroups", why);
        let why = "resource rules must supply at least one resource";
        require(count("resources") == 0, "resources", why);
        return causes;
    }
    let urls = &rule["nonResourceURLs"];
    if namespaced {
        let why = "namespaced rules cannot apply to non-resource URLs";
        causes.push(Cause::invalid(field("nonResourceURLs"), urls, why));
    }
    if ["apiGroups", "resources", "resourceNames"].iter().any(|name| count(name) > 0) {
        let why = "rules cannot apply to both regular resources and non-resource URLs";
        causes.push(Cause::invalid(field("nonResourceURLs"), urls, why));
    }
    causes
}

fn binding_causes(object: &Value) -> Vec<Cause> {
    let namespaced = object["kind"] == "RoleBinding";
    let role = &object["roleRef"];
    let mut causes = Vec::new();
    if text(role, "apiGroup") != RBAC_GROUP {
        causes.push(Cause::not_supported("roleRef.apiGroup", &role["apiGroup"], [RBAC_GROUP]));
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&text(role, "kind")) {
        let kinds = kinds.iter().copied();
        causes.push(Cause::not_supported("roleRef.kind", &role["kind"], kinds));
    }
    match text(role, "name") {
        "" => causes.push(Cause::required("roleRef.name", "")),
        name => {
            for why in meta::path_segment_errors(name) {
                causes.push(Cause::invalid("roleRef.name", &name.into(), &why));
            }
        }
    }
    for (at, subject) in object["subjects"].as_array().into_iter().flatten().enumerate() {
        subject_causes(subject, namespaced, &format!("subjects[{at}]"), &mut causes);
    }
    causes
}

fn subject_causes(subject: &Value, namespaced: bool, at: &str, causes: &mut Vec<Cause>) {
    let field = |name: &str| format!("{at}.{name}");
    let (kind, name, group) =
        (text(subject, "kind"), text(subject, "name"), text(subject, "apiGroup"));
    if name.is_empty() {
        causes.push(Cause::required(field("name"), ""));
    }
    let wanted_group = match kind {
        "ServiceAccount" => "",
        "User" | "Group" => RBAC_GROUP,
        other => {
            let kinds = ["ServiceAccount", "User", "Group"];
            causes.push(Cause::not_supported(field("kind"), &other.into(), kinds));
            return;
        }
    };
    if kind == "ServiceAccount" {
        let reasons = if name.is_empty() { Vec::new() } else { meta::dns_subdomain_errors(name) };
        for why in reasons {
            causes.push(Cause::invalid(field("name"), &name.into(), &why));
        }
        if !namespaced && text(subject, "namespace").is_empty() {
            causes.push(Cause::required(field("namespace"), ""));
        }
    } else if name.is_empty() {
        let why = format!("{} name cannot be empty", kind.to_lowercase());
        causes.push(Cause::invalid(field("name"), &"".into(), &why));
    }
    if group != wanted_group {
        causes.push(Cause::not_supported(field("apiGroup"), &group.into(), [wanted_group]));
    }
}

/// The server itself, and who may do everything anyway.
fn is_beyond_question(user: &UserInfo) -> bool {
    user.name.is_empty() || user.is_in(MASTERS) || user.is_in(CONTROLLERS)
}

/// A change that only lets an object be deleted grants nothing.
fn only_bookkeeping_changed(old: &Value, new: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
                metadata.remove(field);
            }
        }
        object
    };
    rest(old) == rest(new)
}

fn rules_in(object: &Value) -> Vec<Rule> {
    // What is malformed is refused by the schema right after.
    let rules = object["rules"].as_array().into_iter().flatten();
    rules.filter_map(|rule| serde_json::from_value(rule.clone()).ok()).collect()
}

fn check_role(cx: Context<'_>, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    if is_beyond_question(cx.user) || old.is_some_and(|old| only_bookkeeping_changed(old, object)) {
        return Ok(());
    }
    let access = cx.engine.access();
    let name = text(&object["metadata"], "name");
    let escalate = Attributes {
        verb: "escalate",
        is_resource: true,
        group: RBAC_GROUP,
        resource: &cx.def.plural,
        namespace: cx.namespace,
        // A create names nothing in its URL, which is what counts.
        name: if old.is_some() { name } else { "" },
        ..Attributes::default()
    };
    if !access.decide(cx.user, &escalate).is_denied() {
        return Ok(());
    }
    let forbidden = |why: &str| ApiError::forbidden(RBAC_GROUP, &cx.def.plural, name, why);
    access
        .check_escalation(cx.user, cx.namespace, &rules_in(object))
        .map_err(|why| forbidden(&why))?;
    let aggregates = |object: &Value| object["aggregationRule"].is_object();
    if aggregates(object) || old.is_some_and(aggregates) {
        // It may gather anything, now or later.
        let everything = [rule(&["*"], "*", &["*"]), urls(&["*"], &["*"])];
        access.check_escalation(cx.user, cx.namespace, &everything).map_err(|why| {
            forbidden(&format!(
                "must have cluster-admin privileges to use the aggregationRule: {why}"
            ))
        })?;
    }
    Ok(())
}

fn check_binding(cx: Context<'_>, object: &Value) -> Result<(), ApiError> {
    if is_beyond_question(cx.user) {
        return Ok(());
    }
    let access = cx.engine.access();
    let role = RoleRef {
        kind: text(&object["roleRef"], "kind").to_owned(),
        name: text(&object["roleRef"], "name").to_owned(),
    };
    let resource = match role.kind.as_str() {
        "Role" => "roles",
        "ClusterRole" => "clusterroles",
        // Refused by the validation right after.
        _ => return Ok(()),
    };
    let bind = Attributes {
        verb: "bind",
        is_resource: true,
        group: RBAC_GROUP,
        resource,
        namespace: cx.namespace,
        name: &role.name,
        ..Attributes::default()
    };
    if !access.decide(cx.user, &bind).is_denied() {
        return Ok(());
    }
    let rules = access.rules_of(&role, cx.namespace)?;
    access.check_escalation(cx.user, cx.namespace, &rules).map_err(|why| {
        let name = text(&object["metadata"], "name");
        ApiError::forbidden(RBAC_GROUP, &cx.def.plural, name, &why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role_says(kind: &str, rule: Value) -> Vec<String> {
        let causes = Roles.validate(&json!({"kind": kind, "rules": [rule]}), None);
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn rules_are_checked_in_kubernetes_words() {
        assert_eq!(
            role_says("Role", json!({"verbs": []})),
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ]
        );
        let urls = json!({"verbs": ["get"], "nonResourceURLs": ["/x"]});
        assert_eq!(role_says("ClusterRole", urls.clone()), [""; 0]);
        assert_eq!(
            role_says("Role", urls),
            [
                "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs"
            ]
        );
        let both = json!({"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": ["pods"]});
        assert_eq!(
            role_says("ClusterRole", both),
            [
                "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular resources and non-resource URLs"
            ]
        );
    }

    #[test]
    fn bindings_are_defaulted_and_checked() {
        let mut binding = json!({
            "kind": "ClusterRoleBinding",
            "roleRef": {"kind": "Role", "name": "a/b"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}, {"kind": "Robot", "name": "r"}],
        });
        shape_binding(&mut binding);
        assert_eq!(binding["roleRef"]["apiGroup"], RBAC_GROUP);
        assert_eq!(binding["subjects"][0]["apiGroup"], RBAC_GROUP);
        let causes = Bindings.validate(&binding, None);
        let says: Vec<String> =
            causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        assert_eq!(
            says,
            [
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "roleRef.name: Invalid value: \"a/b\": may not contain '/'",
                "subjects[1].namespace: Required value",
                "subjects[2].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
            ]
        );
    }

    #[test]
    fn a_role_reference_never_changes() {
        let binding = |role: &str| json!({"kind": "RoleBinding", "roleRef": {"apiGroup": RBAC_GROUP, "kind": "Role", "name": role}});
        let causes = Bindings.validate(&binding("b"), Some(&binding("a")));
        assert_eq!(causes[0].field, "roleRef");
        assert_eq!(
            causes[0].message,
            "Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"Role\",\"Name\":\"b\"}: cannot change roleRef"
        );
        assert_eq!(Bindings.validate(&binding("a"), Some(&binding("a"))), []);
    }
}
