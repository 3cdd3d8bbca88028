//! `ValidateObjectMeta`: what Kubernetes refuses in `metadata`, and how it says so.

use serde_json::{Map, Value};

use super::names::{
    dns_label_errors, dns_subdomain_errors, label_value_errors, path_segment_errors,
    qualified_name_errors,
};
use super::{owners, shape};
use crate::auth::rbac::RBAC_GROUP;
use crate::resource::{Origin, ResourceDef};
use crate::status::Cause;

/// Keys and values of all annotations together, as in Kubernetes.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// Finalizers of the garbage collector, which carry no domain.
pub const ORPHAN_FINALIZER: &str = "orphan";
pub const FOREGROUND_FINALIZER: &str = "foregroundDeletion";
/// Finalizers of Kubernetes' own that carry no domain.
const UNQUALIFIED_FINALIZERS: [&str; 3] = [FOREGROUND_FINALIZER, ORPHAN_FINALIZER, "kubernetes"];
const IMMUTABLE: &str = "field is immutable";

type NameRule = fn(&str) -> Vec<String>;

/// What a new object's name must be.
fn name_rule(def: &ResourceDef) -> NameRule {
    match (def.group.as_str(), def.kind.as_str()) {
        ("", "Namespace") => dns_label_errors,
        // `system:discovery`.
        (RBAC_GROUP, _) => path_segment_errors,
        _ => dns_subdomain_errors,
    }
}

/// Checks the metadata of a new object that [`super::prepare_create`] has gone over.
pub fn validate(def: &ResourceDef, object: &Value) -> Vec<Cause> {
    let mut causes = validate_named(object, name_rule(def));
    if has_own_finalizers(def) {
        check_own_finalizers(object, &mut causes);
    }
    causes
}

/// Kinds of Kubernetes' own that refuse finalizers of no domain: not Events, whose metadata nobody checks,
/// and not definitions.
fn has_own_finalizers(def: &ResourceDef) -> bool {
    checked_anew(def) || (def.origin == Origin::BuiltIn && def.kind == "Lease")
}

fn validate_named(object: &Value, rule: NameRule) -> Vec<Cause> {
    let mut causes = Vec::new();
    let Some(metadata) = object.get("metadata").and_then(Value::as_object) else {
        causes.push(Cause::required("metadata", ""));
        return causes;
    };
    check_name(rule, metadata, &mut causes);
    if metadata.get("generation").and_then(Value::as_i64).is_some_and(|number| number < 0) {
        let why = "must be greater than or equal to 0";
        causes.push(Cause::invalid("metadata.generation", &metadata["generation"], why));
    }
    check_labels(metadata, &mut causes);
    check_annotations(metadata, &mut causes);
    owners::check(metadata, &mut causes);
    check_finalizers(metadata, &mut causes);
    causes
}

/// What Kubernetes' own kinds demand of a finalizer besides: custom kinds only warn.
fn is_own_finalizer(finalizer: &str) -> bool {
    finalizer.contains('/') || UNQUALIFIED_FINALIZERS.contains(&finalizer)
}

const NO_OWN_FINALIZER: &str =
    "name is neither a standard finalizer name nor is it fully qualified";

fn check_own_finalizers(object: &Value, causes: &mut Vec<Cause>) {
    for (at, finalizer) in strings(object["metadata"].get("finalizers")).enumerate() {
        if !is_own_finalizer(finalizer) {
            let field = format!("metadata.finalizers[{at}]");
            causes.push(Cause::invalid(field, &finalizer.into(), NO_OWN_FINALIZER));
        }
    }
}

/// What is wrong with finalizers that are not those of `metadata`: a namespace's own.
pub(crate) fn finalizer_causes(finalizers: &Value, field: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    for finalizer in strings(Some(finalizers)) {
        for why in qualified_name_errors(finalizer) {
            causes.push(Cause::invalid(field, &finalizer.into(), &why));
        }
        if !is_own_finalizer(finalizer) {
            causes.push(Cause::invalid(field, &finalizer.into(), NO_OWN_FINALIZER));
        }
    }
    causes
}

/// Checks the metadata of an object inside of another, which needs no name. Fields are named from that
/// object on.
pub fn validate_embedded(object: &Value) -> Vec<Cause> {
    let Some(metadata) = object.get("metadata") else { return Vec::new() };
    let mut shaped = metadata.clone();
    if let Err(why) = shape::check_embedded(&mut shaped) {
        return vec![Cause::invalid("metadata", metadata, &why)];
    }
    if let Some(metadata) = shaped.as_object_mut() {
        metadata.entry("name").or_insert_with(|| "fakename".into());
    }
    let mut causes = Vec::new();
    if let Some(namespace) = shaped["namespace"].as_str() {
        for why in dns_label_errors(namespace) {
            causes.push(Cause::invalid("metadata.namespace", &namespace.into(), &why));
        }
    }
    causes.extend(validate_named(&serde_json::json!({ "metadata": shaped }), path_segment_errors));
    causes
}

/// Checks the metadata of a changed object. What is wrong is named as often as Kubernetes names it:
/// once by what all kinds have in common and again by the kind; clients see every cause.
pub fn validate_update(def: &ResourceDef, old: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = validate_named(new, path_segment_errors);
    let changes = changes(old, new);
    causes.extend(changes.iter().cloned());
    causes.extend(changes);
    if has_own_finalizers(def) {
        check_own_finalizers(new, &mut causes);
    }
    if checked_anew(def) {
        causes.extend(validate(def, new));
    }
    causes
}

/// Whether the kind's own check of an update is its check of a new object and more: so it is of most of
/// Kubernetes' kinds, but not of custom ones.
fn checked_anew(def: &ResourceDef) -> bool {
    let kinds = ["ConfigMap", "Secret", "ServiceAccount", "Namespace"];
    let own =
        def.group == RBAC_GROUP || (def.group.is_empty() && kinds.contains(&def.kind.as_str()));
    def.origin == Origin::BuiltIn && own
}

/// `ValidateObjectMetaUpdate`.
fn changes(old: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if old["metadata"].get("deletionTimestamp").is_some() {
        check_no_new_finalizers(old, new, &mut causes);
    }
    let empty = Map::new();
    let old = old["metadata"].as_object().unwrap_or(&empty);
    let new = new["metadata"].as_object().unwrap_or(&empty);
    let fields = ["name", "namespace", "uid", "creationTimestamp"];
    let deletion = ["deletionTimestamp", "deletionGracePeriodSeconds"];
    for field in fields.into_iter().chain(deletion) {
        let (before, after) = (old.get(field), new.get(field));
        if before == after {
            continue;
        }
        let path = format!("metadata.{field}");
        causes.push(match after.and_then(Value::as_str) {
            Some(time) if field.ends_with("Timestamp") => {
                Cause::invalid(path, &go_time(time).into(), IMMUTABLE)
            }
            _ => Cause::invalid(path, after.unwrap_or(&Value::Null), IMMUTABLE),
        });
    }
    check_labels(new, &mut causes);
    check_annotations(new, &mut causes);
    owners::check(new, &mut causes);
    causes
}

/// Go keeps whole seconds, in UTC.
fn go_time(time: &str) -> String {
    let parsed = time.parse::<jiff::Timestamp>();
    parsed.map_or_else(|_| time.to_owned(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn check_no_new_finalizers(old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    let before: Vec<&str> = strings(old.pointer("/metadata/finalizers")).collect();
    let mut added: Vec<String> = strings(new.pointer("/metadata/finalizers"))
        .filter(|finalizer| !before.contains(finalizer))
        .map(|finalizer| format!("{finalizer:?}"))
        .collect();
    added.sort();
    added.dedup();
    if !added.is_empty() {
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers \
             []string{{{}}}",
            added.join(", ")
        );
        causes.push(Cause::forbidden("metadata.finalizers", &why));
    }
}

/// Texts for `Warning` headers about legal but unwise metadata of custom kinds. Finalizers that `old` has had are
/// not told about again.
pub fn warnings(def: &ResourceDef, old: Option<&Value>, object: &Value) -> Vec<String> {
    if def.origin == Origin::BuiltIn {
        return Vec::new();
    }
    let before: Vec<&str> =
        strings(old.and_then(|old| old["metadata"].get("finalizers"))).collect();
    strings(object["metadata"].get("finalizers"))
        .filter(|finalizer| !finalizer.contains('/') && !UNQUALIFIED_FINALIZERS.contains(finalizer))
        .filter(|finalizer| !before.contains(finalizer))
        .map(|finalizer| {
            format!(
                "metadata.finalizers: {finalizer:?}: prefer a domain-qualified finalizer name to avoid accidental \
                 conflicts with other finalizer writers"
            )
        })
        .collect()
}

fn strings(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn check_name(rule: NameRule, metadata: &Map<String, Value>, causes: &mut Vec<Cause>) {
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or("");
    let base = text("generateName");
    if !base.is_empty() {
        for why in rule(&masked(base)) {
            causes.push(Cause::invalid("metadata.generateName", &base.into(), &why));
        }
    }
    let name = text("name");
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
        return;
    }
    for why in rule(name) {
        causes.push(Cause::invalid("metadata.name", &name.into(), &why));
    }
}

/// A prefix may end in a hyphen, which a whole name may not.
fn masked(base: &str) -> String {
    match base.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let cut = rest.char_indices().next_back().map_or(0, |(at, _)| at);
            format!("{}a", &rest[..cut])
        }
        _ => base.to_owned(),
    }
}

fn check_labels(metadata: &Map<String, Value>, causes: &mut Vec<Cause>) {
    for (key, value) in metadata.get("labels").and_then(Value::as_object).into_iter().flatten() {
        for why in qualified_name_errors(key) {
            causes.push(Cause::invalid("metadata.labels", &key.as_str().into(), &why));
        }
        for why in label_value_errors(value.as_str().unwrap_or("")) {
            causes.push(Cause::invalid("metadata.labels", value, &why));
        }
    }
}

fn check_annotations(metadata: &Map<String, Value>, causes: &mut Vec<Cause>) {
    let mut bytes = 0;
    for (key, value) in metadata.get("annotations").and_then(Value::as_object).into_iter().flatten()
    {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        for why in qualified_name_errors(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &key.as_str().into(), &why));
        }
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        let why = format!("may not be more than {ANNOTATIONS_BYTES_MAX} bytes");
        causes.push(Cause::too_long("metadata.annotations", &why));
    }
}

fn check_finalizers(metadata: &Map<String, Value>, causes: &mut Vec<Cause>) {
    const FIELD: &str = "metadata.finalizers";
    let finalizers: Vec<&str> = strings(metadata.get("finalizers")).collect();
    for finalizer in &finalizers {
        for why in qualified_name_errors(finalizer) {
            causes.push(Cause::invalid(FIELD, &(*finalizer).into(), &why));
        }
    }
    if finalizers.contains(&ORPHAN_FINALIZER) && finalizers.contains(&FOREGROUND_FINALIZER) {
        let why =
            format!("finalizer {ORPHAN_FINALIZER} and {FOREGROUND_FINALIZER} cannot be both set");
        causes.push(Cause::invalid(FIELD, &metadata["finalizers"], &why));
    }
}
