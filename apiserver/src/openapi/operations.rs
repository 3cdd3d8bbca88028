//! What can be done with a kind, independent of the dialect that says so.
//!
//! kubectl decides from the patch operation's parameters whether the server validates fields and
//! knows dry runs: the paths are not decoration.

use super::components::{META, TOKEN_REQUEST, list_name, name, name_of};
use crate::engine::PatchKind;
use crate::resource::{Origin, ResourceDef, Subresource};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ParameterType {
    String,
    Integer,
    Boolean,
}

impl ParameterType {
    pub(super) fn name(self) -> &'static str {
        match self {
            ParameterType::String => "string",
            ParameterType::Integer => "integer",
            ParameterType::Boolean => "boolean",
        }
    }
}

pub(super) type Parameter = (&'static str, ParameterType);

/// One path with everything that can be done there.
pub(super) struct PathItem {
    pub(super) path: String,
    /// In the path: `name`, `namespace`.
    pub(super) path_parameters: Vec<&'static str>,
    pub(super) operations: Vec<Operation>,
}

pub(super) struct Operation {
    /// `get`, `post`, …
    pub(super) method: &'static str,
    /// `x-kubernetes-action`.
    pub(super) action: &'static str,
    /// Of `x-kubernetes-group-version-kind`.
    pub(super) kind: String,
    pub(super) id: String,
    pub(super) query: Vec<Parameter>,
    /// Media types and schema name of the request's body.
    pub(super) body: Option<(&'static [&'static str], String)>,
    /// Media types of the answer's body.
    pub(super) produces: &'static [&'static str],
    /// Status codes and the schema name of the answer.
    pub(super) responses: Vec<(&'static str, String)>,
}

const OBJECT: &[&str] = &["application/json", "application/yaml"];
const STREAM: &[&str] = &["application/json", "application/yaml", "application/json;stream=watch"];

const WRITE: [Parameter; 3] = [
    ("dryRun", ParameterType::String),
    ("fieldManager", ParameterType::String),
    ("fieldValidation", ParameterType::String),
];
const LIST: [Parameter; 10] = [
    ("allowWatchBookmarks", ParameterType::Boolean),
    ("continue", ParameterType::String),
    ("fieldSelector", ParameterType::String),
    ("labelSelector", ParameterType::String),
    ("limit", ParameterType::Integer),
    ("resourceVersion", ParameterType::String),
    ("resourceVersionMatch", ParameterType::String),
    ("sendInitialEvents", ParameterType::Boolean),
    ("timeoutSeconds", ParameterType::Integer),
    ("watch", ParameterType::Boolean),
];
const DELETE: [Parameter; 4] = [
    ("dryRun", ParameterType::String),
    ("gracePeriodSeconds", ParameterType::Integer),
    ("orphanDependents", ParameterType::Boolean),
    ("propagationPolicy", ParameterType::String),
];

/// Every path of a kind, in the order of their length.
pub(super) fn of(def: &ResourceDef) -> Vec<PathItem> {
    let root = match def.group.as_str() {
        "" => format!("/api/{}", def.version),
        group => format!("/apis/{group}/{}", def.version),
    };
    let mut items = Vec::new();
    let (collection, mut parameters) = if def.is_namespaced() {
        items.push(PathItem {
            path: format!("{root}/{}", def.plural),
            path_parameters: Vec::new(),
            operations: allowed(def, [("list", list(def, "ForAllNamespaces"))]),
        });
        (format!("{root}/namespaces/{{namespace}}/{}", def.plural), vec!["namespace"])
    } else {
        (format!("{root}/{}", def.plural), Vec::new())
    };
    items.push(PathItem {
        path: collection.clone(),
        path_parameters: parameters.clone(),
        operations: allowed(
            def,
            [
                ("list", list(def, "")),
                ("create", create(def)),
                ("deletecollection", delete_collection(def)),
            ],
        ),
    });
    parameters.insert(0, "name");
    items.push(PathItem {
        path: format!("{collection}/{{name}}"),
        path_parameters: parameters.clone(),
        operations: allowed(
            def,
            [
                ("get", read(def, "")),
                ("update", replace(def, "")),
                ("delete", delete(def)),
                ("patch", patch(def, "")),
            ],
        ),
    });
    if def.has_status {
        items.push(PathItem {
            path: format!("{collection}/{{name}}/status"),
            path_parameters: parameters.clone(),
            operations: vec![read(def, "Status"), replace(def, "Status"), patch(def, "Status")],
        });
    }
    items.retain(|item| !item.operations.is_empty());
    // What is only read (`log`, `sandbox`) is an agent's answer, not an object.
    let creates = |verbs: &[String]| verbs.iter().any(|verb| verb == "create");
    let with_body = def
        .subresources
        .iter()
        .filter(|subresource| subresource.kind != def.kind && creates(&subresource.verbs));
    // Those of kinds on loan are streams: nothing is sent or answered that has a schema.
    let with_body = with_body.filter(|_| def.is_stored());
    items.extend(with_body.map(|subresource| PathItem {
        path: format!("{collection}/{{name}}/{}", subresource.name),
        path_parameters: parameters.clone(),
        operations: vec![answer(def, subresource)],
    }));
    items
}

/// The operations whose verbs the kind knows.
fn allowed<const N: usize>(
    def: &ResourceDef,
    operations: [(&str, Operation); N],
) -> Vec<Operation> {
    let known = operations.into_iter().filter(|(verb, _)| def.allows(verb));
    known.map(|(_, operation)| operation).collect()
}

/// The description of an answer.
pub(super) fn words_of(code: &str) -> &'static str {
    match code {
        "201" => "Created",
        "202" => "Accepted",
        _ => "OK",
    }
}

/// `CommonageDev`; `Core`.
fn group_words(def: &ResourceDef) -> String {
    let group = if def.group.is_empty() { "core" } else { &def.group };
    let group = group.strip_suffix(".k8s.io").unwrap_or(group);
    group.split(['.', '-']).map(capitalized).collect()
}

/// Under which a group's operations come together: `commonageDev_v1`, `core_v1`.
pub(super) fn tag(def: &ResourceDef) -> String {
    let words = group_words(def);
    let (first, rest) = words.split_at(words.chars().next().map_or(0, char::len_utf8));
    format!("{}{rest}_{}", first.to_ascii_lowercase(), def.version)
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map(|first| first.to_ascii_uppercase().to_string() + chars.as_str())
        .unwrap_or_default()
}

/// `readCommonageDevV1NamespacedTaskStatus`.
fn id(def: &ResourceDef, verb: &str, suffix: &str) -> String {
    id_of(def, verb, "", suffix)
}

/// `of`: what of the kind, `Collection`.
fn id_of(def: &ResourceDef, verb: &str, of: &str, suffix: &str) -> String {
    let scope = if def.is_namespaced() && suffix != "ForAllNamespaces" { "Namespaced" } else { "" };
    let (group, version) = (group_words(def), capitalized(&def.version));
    format!("{verb}{group}{version}{of}{scope}{}{suffix}", def.kind)
}

fn list(def: &ResourceDef, suffix: &str) -> Operation {
    Operation {
        method: "get",
        action: "list",
        kind: def.kind.clone(),
        id: id(def, "list", suffix),
        query: LIST.to_vec(),
        body: None,
        // A custom kind's watch is not described.
        produces: if def.origin == Origin::Custom { OBJECT } else { STREAM },
        responses: vec![("200", list_name(def))],
    }
}

fn create(def: &ResourceDef) -> Operation {
    Operation {
        method: "post",
        action: "post",
        kind: def.kind.clone(),
        id: id(def, "create", ""),
        query: WRITE.to_vec(),
        body: Some((OBJECT, name(def))),
        produces: OBJECT,
        responses: ["200", "201", "202"].map(|code| (code, name(def))).into(),
    }
}

/// The POST of a subresource that takes and answers an object of its own kind.
fn answer(def: &ResourceDef, subresource: &Subresource) -> Operation {
    let body = match subresource.kind == TOKEN_REQUEST.1 {
        true => TOKEN_REQUEST.0.to_owned(),
        false => name_of(def, &subresource.kind),
    };
    Operation {
        method: "post",
        action: "post",
        kind: subresource.kind.clone(),
        id: id(def, "create", &capitalized(&subresource.name)),
        query: WRITE.to_vec(),
        body: Some((OBJECT, body.clone())),
        produces: OBJECT,
        responses: ["200", "201"].map(|code| (code, body.clone())).into(),
    }
}

fn delete_collection(def: &ResourceDef) -> Operation {
    Operation {
        method: "delete",
        action: "deletecollection",
        kind: def.kind.clone(),
        id: id_of(def, "delete", "Collection", ""),
        // Kubernetes describes a custom kind's by what it selects only.
        query: match def.origin {
            Origin::Custom => LIST.to_vec(),
            Origin::BuiltIn => {
                let list = LIST.iter().filter(|(name, _)| *name != "watch");
                list.chain(&DELETE).copied().collect()
            }
        },
        body: (def.origin == Origin::BuiltIn).then(|| (OBJECT, format!("{META}.DeleteOptions"))),
        produces: OBJECT,
        responses: vec![("200", format!("{META}.Status"))],
    }
}

fn read(def: &ResourceDef, suffix: &str) -> Operation {
    Operation {
        method: "get",
        action: "get",
        kind: def.kind.clone(),
        id: id(def, "read", suffix),
        query: vec![("resourceVersion", ParameterType::String)],
        body: None,
        produces: OBJECT,
        responses: vec![("200", name(def))],
    }
}

fn replace(def: &ResourceDef, suffix: &str) -> Operation {
    Operation {
        method: "put",
        action: "put",
        kind: def.kind.clone(),
        id: id(def, "replace", suffix),
        query: WRITE.to_vec(),
        body: Some((OBJECT, name(def))),
        produces: OBJECT,
        responses: ["200", "201"].map(|code| (code, name(def))).into(),
    }
}

fn delete(def: &ResourceDef) -> Operation {
    Operation {
        method: "delete",
        action: "delete",
        kind: def.kind.clone(),
        id: id(def, "delete", ""),
        query: DELETE.to_vec(),
        body: Some((OBJECT, format!("{META}.DeleteOptions"))),
        produces: OBJECT,
        responses: ["200", "202"].map(|code| (code, format!("{META}.Status"))).into(),
    }
}

fn patch(def: &ResourceDef, suffix: &str) -> Operation {
    let kinds: &[&str] = match def.origin {
        Origin::BuiltIn => &PatchKind::BUILT_IN,
        Origin::Custom => &PatchKind::CUSTOM,
    };
    Operation {
        method: "patch",
        action: "patch",
        kind: def.kind.clone(),
        id: id(def, "patch", suffix),
        query: WRITE.iter().copied().chain([("force", ParameterType::Boolean)]).collect(),
        body: Some((kinds, format!("{META}.Patch"))),
        produces: OBJECT,
        responses: vec![("200", name(def))],
    }
}
