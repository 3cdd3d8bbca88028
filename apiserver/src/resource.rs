//! What the server knows about a kind: names, scope, schema, columns, selectable fields.
//!
//! A compiled-in kind and a CustomResourceDefinition of a user become the same [`ResourceDef`];
//! everything else in the server is generic over it. A definition never changes once made: a
//! changed CRD makes a new definition and a new [`Scheme`].

use std::sync::Arc;

use base64::Engine as _;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::jsonpath::JsonPath;
use crate::schema::Structural;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// A printer column of `kubectl get`.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    /// OpenAPI type: `string`, `integer`, `number`, `boolean`, `date`.
    pub type_: String,
    /// `name` for the column kubectl takes the object's name from, else mostly empty.
    pub format: String,
    pub description: String,
    /// Shown without `-o wide` only when zero.
    pub priority: i32,
    pub cell: Cell,
}

/// Where a column's value comes from.
#[derive(Clone, Debug)]
pub enum Cell {
    Path(JsonPath),
    /// Built-in kinds only: what kube-apiserver computes in Go.
    Computed(fn(&Value, Timestamp) -> Value),
}

/// Kubernetes treats its own kinds more kindly than custom ones: type and apiVersion may be left
/// out, strategic merge patches work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    BuiltIn,
    Custom,
}

/// One served version of one kind.
#[derive(Clone, Debug)]
pub struct ResourceDef {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub list_kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub scope: Scope,
    pub origin: Origin,
    pub schema: Structural,
    /// The schema as served in the OpenAPI documents.
    pub openapi: Value,
    /// All of them, `Name` included, in order.
    pub columns: Vec<Column>,
    /// Beyond `metadata.name` and `metadata.namespace`, which every kind has: `("spec.agent", path)`.
    pub selectable_fields: Vec<(String, JsonPath)>,
    pub has_status: bool,
    /// Subresources with verbs of their own (`accept`, `log`), for discovery.
    pub subresources: Vec<Subresource>,
    /// Discovery's fingerprint of group, version and kind.
    pub storage_version_hash: String,
    /// Whether an update may leave out `metadata.resourceVersion`.
    pub allow_unconditional_update: bool,
    /// The selectable field that most watches name exactly, worth an index (`spec.agent`).
    pub trigger_field: Option<String>,
}

/// A subresource other than `status`, as discovery lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    pub name: String,
    pub group: String,
    pub version: String,
    pub kind: String,
    pub verbs: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    #[error("{field}: Required value")]
    Missing { field: String },
    #[error("{field}: {message}")]
    Invalid { field: String, message: String },
}

/// A version of a CRD may ask for this many columns; more is a mistake, and every row pays for it.
const COLUMNS_MAX: usize = 64;

const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although \
     some resources may allow a client to request the generation of an appropriate name automatically. Name is \
     primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: \
     https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const AGE_DESCRIPTION: &str = "CreationTimestamp is a timestamp representing the server time when this object was \
     created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set \
     this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for \
     lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

impl Column {
    /// The first column of nearly every kind.
    pub fn name() -> Column {
        let mut column = Self::path("Name", "string", ".metadata.name", NAME_DESCRIPTION);
        column.format = "name".into();
        column
    }

    /// The last column of nearly every kind.
    pub fn age() -> Column {
        Self::path("Age", "date", ".metadata.creationTimestamp", AGE_DESCRIPTION)
    }

    /// # Panics
    /// `path` is not a JSONPath: for compiled-in columns only.
    pub fn path(name: &str, type_: &str, path: &str, description: &str) -> Column {
        let path = JsonPath::parse(path).expect("a compiled-in path parses");
        Column {
            name: name.into(),
            type_: type_.into(),
            format: String::new(),
            description: description.into(),
            priority: 0,
            cell: Cell::Path(path),
        }
    }
}

impl ResourceDef {
    /// One definition per served version.
    ///
    /// # Errors
    /// A version without a schema, a schema that is not structural, a malformed JSONPath.
    pub fn from_crd(crd: &CustomResourceDefinition) -> Result<Vec<ResourceDef>, DefinitionError> {
        let served = crd.spec.versions.iter().enumerate().filter(|(_, version)| version.served);
        served
            .map(|(at, version)| from_version(crd, version, &format!("spec.versions[{at}]")))
            .collect()
    }

    /// `commonage.dev/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `tasks.commonage.dev`, or `namespaces` for the core group.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// `/commonage.dev/tasks/`: every object of the kind, whatever its version, has a key under it.
    pub fn key_prefix(&self) -> String {
        let group = if self.group.is_empty() { "core" } else { &self.group };
        format!("/{group}/{}/", self.plural)
    }

    /// `/commonage.dev/tasks/default/web-0`; a cluster-scoped object has an empty namespace.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        format!("{}{namespace}/{name}", self.key_prefix())
    }

    /// Whether a field selector may name this field.
    pub fn supports_field(&self, field: &str) -> bool {
        self.selectable_fields.iter().any(|(name, _)| name == field)
            || field == "metadata.name"
            || (field == "metadata.namespace" && self.is_namespaced())
    }
}

fn from_version(
    crd: &CustomResourceDefinition,
    version: &CustomResourceDefinitionVersion,
    at: &str,
) -> Result<ResourceDef, DefinitionError> {
    let invalid = |field: String, message: String| DefinitionError::Invalid { field, message };
    let field = format!("{at}.schema.openAPIV3Schema");
    let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
    let schema = schema.ok_or_else(|| DefinitionError::Missing { field: field.clone() })?;
    let mut openapi =
        serde_json::to_value(schema).map_err(|error| invalid(field.clone(), error.to_string()))?;
    make_integral(&mut openapi);
    let structural = Structural::compile_value(&openapi)
        .map_err(|error| invalid(format!("{field}.{}", error.path), error.message.clone()))?;
    let names = &crd.spec.names;
    let selectable_fields = selectable_fields(version, at)?;
    Ok(ResourceDef {
        group: crd.spec.group.clone(),
        version: version.name.clone(),
        kind: names.kind.clone(),
        list_kind: names.list_kind.clone().unwrap_or_else(|| format!("{}List", names.kind)),
        plural: names.plural.clone(),
        singular: names.singular.clone().unwrap_or_else(|| names.kind.to_lowercase()),
        short_names: names.short_names.clone().unwrap_or_default(),
        categories: names.categories.clone().unwrap_or_default(),
        scope: if crd.spec.scope == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
        origin: Origin::Custom,
        schema: structural,
        openapi,
        columns: columns(version, at)?,
        trigger_field: selectable_fields.first().map(|(name, _)| name.clone()),
        selectable_fields,
        has_status: version
            .subresources
            .as_ref()
            .is_some_and(|subresources| subresources.status.is_some()),
        subresources: Vec::new(),
        storage_version_hash: storage_version_hash(&crd.spec.group, &version.name, &names.kind),
        allow_unconditional_update: false,
    })
}

fn columns(
    version: &CustomResourceDefinitionVersion,
    at: &str,
) -> Result<Vec<Column>, DefinitionError> {
    let Some(asked) = version.additional_printer_columns.as_ref().filter(|asked| !asked.is_empty())
    else {
        return Ok(vec![Column::name(), Column::age()]);
    };
    let field = format!("{at}.additionalPrinterColumns");
    if asked.len() > COLUMNS_MAX {
        return Err(DefinitionError::Invalid {
            field,
            message: format!("must have at most {COLUMNS_MAX} items"),
        });
    }
    let mut columns = vec![Column::name()];
    for (index, column) in asked.iter().enumerate() {
        let path =
            JsonPath::parse(&column.json_path).map_err(|error| DefinitionError::Invalid {
                field: format!("{field}[{index}].jsonPath"),
                message: error.to_string(),
            })?;
        let words = || {
            format!("Custom resource definition column (in JSONPath format): {}", column.json_path)
        };
        columns.push(Column {
            name: column.name.clone(),
            type_: column.type_.clone(),
            format: column.format.clone().unwrap_or_default(),
            description: column
                .description
                .clone()
                .filter(|text| !text.is_empty())
                .unwrap_or_else(words),
            priority: column.priority.unwrap_or(0),
            cell: Cell::Path(path),
        });
    }
    Ok(columns)
}

fn selectable_fields(
    version: &CustomResourceDefinitionVersion,
    at: &str,
) -> Result<Vec<(String, JsonPath)>, DefinitionError> {
    let mut fields = Vec::new();
    for (index, selectable) in version.selectable_fields.iter().flatten().enumerate() {
        let invalid = |message: String| DefinitionError::Invalid {
            field: format!("{at}.selectableFields[{index}].jsonPath"),
            message,
        };
        let path =
            JsonPath::parse(&selectable.json_path).map_err(|error| invalid(error.to_string()))?;
        let name = path
            .field_name()
            .ok_or_else(|| invalid("is an invalid path: must be a simple path".into()))?;
        fields.push((name, path));
    }
    Ok(fields)
}

/// Limits arrive as floats; `minimum: 0` must not be served as `0.0`.
fn make_integral(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) =
                number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0)
                && float.abs() < 9e15
            {
                *number = (float as i64).into();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(make_integral),
        Value::Object(map) => map.values_mut().for_each(make_integral),
        _ => {}
    }
}

/// Kubernetes' own: the first eight bytes of SHA-256, base64.
pub(crate) fn storage_version_hash(group: &str, version: &str, kind: &str) -> String {
    let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

/// Every kind the server serves.
#[derive(Clone, Debug, Default)]
pub struct Scheme {
    defs: Vec<Arc<ResourceDef>>,
}

impl Scheme {
    /// Sorted by group, then version, then plural name, as discovery wants them.
    pub fn new(defs: impl IntoIterator<Item = ResourceDef>) -> Scheme {
        let mut defs: Vec<_> = defs.into_iter().map(Arc::new).collect();
        defs.sort_by(|a, b| {
            (&a.group, &a.version, &a.plural).cmp(&(&b.group, &b.version, &b.plural))
        });
        Scheme { defs }
    }

    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<ResourceDef>> {
        let wanted = (group, version, plural);
        let at = self
            .defs
            .binary_search_by(|def| (&*def.group, &*def.version, &*def.plural).cmp(&wanted))
            .ok()?;
        Some(&self.defs[at])
    }

    pub fn by_kind(&self, group: &str, kind: &str) -> Option<&Arc<ResourceDef>> {
        self.defs.iter().find(|def| def.group == group && def.kind == kind)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<ResourceDef>> {
        self.defs.iter()
    }

    /// `(group, version)` pairs in order, each once.
    pub fn group_versions(&self) -> Vec<(&str, &str)> {
        let mut all: Vec<_> = self.defs.iter().map(|def| (&*def.group, &*def.version)).collect();
        all.dedup();
        all
    }

    pub fn in_group_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<ResourceDef>> + 'a {
        self.defs.iter().filter(move |def| def.group == group && def.version == version)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    /// A CRD with one of everything.
    pub(crate) fn task_crd() -> CustomResourceDefinition {
        let string = json!({"type": "string"});
        let schema = json!({
            "type": "object", "description": "Task is one unit of work.", "required": ["spec"],
            "properties": {
                "spec": {
                    "type": "object", "description": "desired state", "required": ["command"],
                    "properties": {
                        "agent": {"type": "string", "description": "where it runs"},
                        "args": {"type": "array", "items": string, "x-kubernetes-list-type": "set"},
                        "command": {"type": "array", "minItems": 1, "items": string},
                        "cpus": {"type": "number", "default": 1, "minimum": 0},
                        "env": {
                            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                            "items": {
                                "type": "object", "required": ["name"],
                                "properties": {"name": string, "value": string},
                            },
                        },
                        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                        "limits": {
                            "type": "object",
                            "additionalProperties": {
                                "anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true,
                            },
                        },
                        "replicas": {"type": "integer", "format": "int32", "default": 1},
                        "restart": {"type": "string", "default": "Never", "enum": ["Always", "Never"]},
                    },
                },
                "status": {"type": "object", "properties": {"phase": string}},
            },
        });
        serde_json::from_value(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "tasks.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {
                    "plural": "tasks", "singular": "task", "kind": "Task", "listKind": "TaskList",
                    "shortNames": ["tk"], "categories": ["all", "example"],
                },
                "versions": [
                    {
                        "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                        "subresources": {"status": {}},
                        "additionalPrinterColumns": [
                            {"name": "Phase", "type": "string", "description": "the phase", "jsonPath": ".status.phase"},
                            {"name": "Agent", "type": "string", "jsonPath": ".spec.agent"},
                            {"name": "CPUs", "type": "number", "priority": 1, "jsonPath": ".spec.cpus"},
                            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                        ],
                        "selectableFields": [{"jsonPath": ".spec.agent"}],
                    },
                    {"name": "v2", "served": false, "storage": false},
                ],
            },
        }))
        .unwrap()
    }

    pub(crate) fn task_def() -> ResourceDef {
        ResourceDef::from_crd(&task_crd()).unwrap().remove(0)
    }

    #[test]
    fn a_crd_becomes_a_definition_per_served_version() {
        let defs = ResourceDef::from_crd(&task_crd()).unwrap();
        assert_eq!(defs.len(), 1);
        let def = &defs[0];
        assert_eq!(def.group_resource(), "tasks.example.com");
        assert_eq!(def.api_version(), "example.com/v1");
        assert_eq!(def.key("ns", "a"), "/example.com/tasks/ns/a");
        assert!(def.has_status && def.is_namespaced());
        assert_eq!(def.selectable_fields[0].0, "spec.agent");
        assert_eq!(def.trigger_field.as_deref(), Some("spec.agent"));
        assert!(def.supports_field("spec.agent") && !def.supports_field("spec.cpus"));
        let columns: Vec<&str> = def.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(columns, ["Name", "Phase", "Agent", "CPUs", "Age"]);
        assert_eq!(
            def.columns[2].description,
            "Custom resource definition column (in JSONPath format): .spec.agent"
        );
        assert_eq!(
            def.openapi.pointer("/properties/spec/properties/cpus/minimum"),
            Some(&json!(0))
        );
    }

    #[test]
    fn the_storage_hash_is_kubernetes_own() {
        // As every Kubernetes cluster's discovery shows them.
        assert_eq!(storage_version_hash("", "v1", "Namespace"), "Q3oi5N2YM8M=");
        assert_eq!(storage_version_hash("", "v1", "ConfigMap"), "qFsyl6wFWjQ=");
    }

    #[test]
    fn a_definition_that_cannot_work_is_refused_with_its_place() {
        let break_it = |change: fn(&mut CustomResourceDefinitionVersion)| {
            let mut crd = task_crd();
            change(&mut crd.spec.versions[0]);
            ResourceDef::from_crd(&crd).unwrap_err().to_string()
        };
        assert_eq!(
            break_it(|version| version.schema = None),
            "spec.versions[0].schema.openAPIV3Schema: Required value"
        );
        let message = break_it(|version| {
            version.selectable_fields.as_mut().unwrap()[0].json_path = ".a[0]".into()
        });
        assert!(
            message.starts_with("spec.versions[0].selectableFields[0].jsonPath: "),
            "{message}"
        );
        let message = break_it(|version| {
            version.additional_printer_columns.as_mut().unwrap()[1].json_path = "..a".into()
        });
        assert!(
            message.starts_with("spec.versions[0].additionalPrinterColumns[1].jsonPath: "),
            "{message}"
        );
    }

    #[test]
    fn a_scheme_finds_its_kinds() {
        let scheme = Scheme::new([task_def()]);
        assert_eq!(scheme.get("example.com", "v1", "tasks").unwrap().kind, "Task");
        assert!(scheme.get("example.com", "v2", "tasks").is_none());
        assert_eq!(scheme.by_kind("example.com", "Task").unwrap().plural, "tasks");
        assert_eq!(scheme.group_versions(), [("example.com", "v1")]);
    }
}
