//! What is wrong with a CustomResourceDefinition, in the words of apiextensions.k8s.io/v1.
//!
//! kube-apiserver validates an older form of the object, into which what all versions have in common
//! has moved up: its schema is `spec.validation`, its columns are `spec.additionalPrinterColumns`.
//! Clients see those places in errors, so they are these here too.

use std::collections::HashSet;

use serde_json::Value;

use super::{conversion, names, version};
use crate::status::Cause;

/// Domains whose definitions need the approval of the Kubernetes community.
const PROTECTED: [&str; 2] = ["k8s.io", "kubernetes.io"];
const APPROVAL: &str = "api-approved.kubernetes.io";
const APPROVAL_SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";

/// Everything that is wrong; `old` is what an update replaces.
pub(super) fn validate(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if old.is_none() {
        check_name(object, &mut causes);
    }
    check_spec(&object["spec"], &mut causes);
    if let Some(old) = old {
        check_fixed(object, old, &mut causes);
    }
    names::check(&object["status"]["acceptedNames"], "status.acceptedNames", &mut causes);
    check_stored_versions(object, &mut causes);
    check_approval(object, old, &mut causes);
    let unknown = &object["spec"]["preserveUnknownFields"];
    let was = old.is_some_and(|old| old["spec"]["preserveUnknownFields"] == true);
    if *unknown == true && !was {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                      spec.versions[*].schema instead";
        causes.push(Cause::invalid("spec.preserveUnknownFields", unknown, detail));
    }
    causes
}

pub(super) fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

fn check_name(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let wanted = format!("{}.{}", text(&spec["names"], "plural"), text(spec, "group"));
    let name = &object["metadata"]["name"];
    if *name != *wanted {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", name, detail));
    }
}

fn check_spec(spec: &Value, causes: &mut Vec<Cause>) {
    check_group(text(spec, "group"), causes);
    check_choice("spec.scope", &spec["scope"], &["Cluster", "Namespaced"], causes);
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let common = version::Common::of(versions);
    for (at, version) in versions.iter().enumerate() {
        if version["schema"]["openAPIV3Schema"].is_null() {
            let field = format!("spec.versions[{at}].schema.openAPIV3Schema");
            causes.push(Cause::required(field, "schemas are required"));
        }
    }
    let mut seen = HashSet::new();
    let mut unique = true;
    for (at, version) in versions.iter().enumerate() {
        let name = text(version, "name");
        unique &= seen.insert(name);
        if let Err(why) = names::check_dns_1035_label(name) {
            let field = format!("spec.versions[{at}].name");
            causes.push(Cause::invalid(field, &name.into(), &why));
        }
        version::check(version, &common, &format!("spec.versions[{at}]"), causes);
    }
    if !unique {
        let detail = "must contain unique version names";
        causes.push(Cause::invalid_shown("spec.versions", &version::shown(versions), detail));
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid_shown("spec.versions", &version::shown(versions), detail));
    }
    for field in ["plural", "singular", "kind", "listKind"] {
        if text(&spec["names"], field).is_empty() {
            causes.push(Cause::required(format!("spec.names.{field}"), ""));
        }
    }
    names::check(&spec["names"], "spec.names", causes);
    if let Some(first) = versions.first() {
        version::check_common(first, &common, causes);
    }
    conversion::check(&spec["conversion"], causes);
}

fn check_group(group: &str, causes: &mut Vec<Cause>) {
    let value = &Value::from(group);
    if group.is_empty() {
        causes.push(Cause::required("spec.group", ""));
    } else if let [why, ..] = &crate::meta::dns_subdomain_errors(group)[..] {
        causes.push(Cause::invalid("spec.group", value, why));
    } else if !group.contains('.') {
        let detail = "should be a domain with at least one dot";
        causes.push(Cause::invalid("spec.group", value, detail));
    }
}

pub(super) fn check_choice(field: &str, value: &Value, choices: &[&str], causes: &mut Vec<Cause>) {
    match value.as_str().unwrap_or_default() {
        "" => causes.push(Cause::required(field, "")),
        chosen if choices.contains(&chosen) => {}
        _ => causes.push(Cause::not_supported(field, value, choices.iter().copied())),
    }
}

fn check_fixed(object: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let conditions = old["status"]["conditions"].as_array().into_iter().flatten();
    let established = conditions
        .filter(|condition| condition["type"] == "Established")
        .any(|condition| condition["status"] == "True");
    let fields: &[(&str, &str)] = match established {
        true => &[
            ("/spec/scope", "spec.scope"),
            ("/spec/names/kind", "spec.names.kind"),
            ("/spec/group", "spec.group"),
            ("/spec/names/plural", "spec.names.plural"),
        ],
        false => &[("/spec/group", "spec.group"), ("/spec/names/plural", "spec.names.plural")],
    };
    for (pointer, field) in fields {
        let (now, before) = (object.pointer(pointer), old.pointer(pointer));
        if now != before {
            causes.push(Cause::invalid(*field, now.unwrap_or(&Value::Null), "field is immutable"));
        }
    }
}

fn check_stored_versions(object: &Value, causes: &mut Vec<Cause>) {
    let stored = &object["status"]["storedVersions"];
    let known = stored.as_array().map_or(&[][..], Vec::as_slice);
    if known.is_empty() {
        let detail = "must have at least one stored version";
        causes.push(Cause::invalid("status.storedVersions", stored, detail));
        return;
    }
    let versions = object["spec"]["versions"].as_array().map_or(&[][..], Vec::as_slice);
    for version in versions.iter().filter(|version| version["storage"] == true) {
        if !known.contains(&version["name"]) {
            let detail = format!("must have the storage version {}", text(version, "name"));
            causes.push(Cause::invalid("status.storedVersions", stored, &detail));
        }
    }
    for (at, name) in known.iter().enumerate() {
        if !versions.iter().any(|version| version["name"] == *name) {
            let name_text = name.as_str().unwrap_or_default();
            let detail = format!(
                "missing from spec.versions; {name_text} was previously a storage version, and must \
                 remain in spec.versions until a storage migration ensures no data remains persisted \
                 in {name_text} and removes {name_text} from status.storedVersions"
            );
            causes.push(Cause::invalid(format!("status.storedVersions[{at}]"), name, &detail));
        }
    }
}

/// Whether the group of a definition is one of the Kubernetes community's, and then how it stands with
/// its approval: as `Some(reason)` of the condition, whether it is given, and why.
pub(crate) fn approval(definition: &Value) -> Option<(bool, &'static str, String)> {
    if !is_protected(text(&definition["spec"], "group")) {
        return None;
    }
    let annotation = &definition["metadata"]["annotations"][APPROVAL];
    let given = annotation.as_str().unwrap_or_default();
    Some(match Approval::of(annotation) {
        Approval::Missing => {
            (false, "MissingAnnotation", format!("{}, {APPROVAL_SEE}", must_have()))
        }
        Approval::Invalid => (false, "InvalidAnnotation", must_be()),
        Approval::Given if given.starts_with("unapproved") => {
            (false, "UnapprovedAnnotation", format!("not approved: {given:?}"))
        }
        Approval::Given => (true, "ApprovedAnnotation", format!("approved in {given}")),
    })
}

fn is_protected(group: &str) -> bool {
    PROTECTED.iter().any(|domain| group == *domain || group.ends_with(&format!(".{domain}")))
}

fn must_have() -> String {
    format!("protected groups must have approval annotation {APPROVAL:?}")
}

fn must_be() -> String {
    let must = must_have();
    format!("{must} with either a URL or a reason starting with \"unapproved\", {APPROVAL_SEE}")
}

fn check_approval(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let group = text(&object["spec"], "group");
    let protected = is_protected(group);
    let annotation = |object: &Value| object["metadata"]["annotations"][APPROVAL].clone();
    let approval = annotation(object);
    let changed = old.is_none_or(|old| Approval::of(&annotation(old)) != Approval::of(&approval));
    if !protected || !changed {
        return;
    }
    let field = format!("metadata.annotations[{APPROVAL}]");
    match Approval::of(&approval) {
        Approval::Given => {}
        Approval::Missing => {
            causes.push(Cause::required(field, &format!("{}, {APPROVAL_SEE}", must_have())));
        }
        Approval::Invalid => {
            causes.push(Cause::invalid(field, &approval, &must_be()));
        }
    }
}

#[derive(PartialEq, Eq)]
enum Approval {
    /// Or knowingly not asked for.
    Given,
    Missing,
    Invalid,
}

impl Approval {
    fn of(annotation: &Value) -> Approval {
        let Some(text) = annotation.as_str().filter(|text| !text.is_empty()) else {
            return Approval::Missing;
        };
        let is_whole = |uri: http::Uri| uri.scheme().is_some() && uri.host().is_some();
        let is_url = text.parse().is_ok_and(is_whole);
        match is_url || text.starts_with("unapproved") {
            true => Approval::Given,
            false => Approval::Invalid,
        }
    }
}
