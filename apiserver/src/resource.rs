//! What the server knows about a kind: names, scope, schema, columns, selectable fields.
//!
//! A compiled-in kind and a CustomResourceDefinition of a user become the same [`ResourceDef`];
//! everything else in the server is generic over it. A definition never changes once made: a
//! changed CRD makes a new definition and a new [`Scheme`].

mod from_crd;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use from_crd::{Versions, storage_version_hash};

use std::sync::Arc;

use commonage_apply::Types;
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use crate::jsonpath::JsonPath;
use crate::kinds::measured::Measured;
use crate::kinds::view::View;
use crate::schema::Structural;

/// Each index costs a write a microsecond or less, and each object some forty bytes.
pub(crate) const TRIGGER_FIELDS_MAX: usize = 2;

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

/// Where the objects of a kind are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In the store, and in the cache.
    Stored,
    /// Nowhere: a create is answered by itself (`selfsubjectaccessreviews`).
    Virtual,
    /// Nowhere: a view of another kind's objects (`pods`).
    Projected(View),
    /// Nowhere: agents are asked for it when somebody looks (`pods.metrics.k8s.io`).
    Measured(Measured),
}

/// What can be asked of a kind's collection and objects, in the order that discovery tells it.
pub type Verbs = &'static [&'static str];

/// Every verb, in the order kube-apiserver lists them for custom kinds.
pub const VERBS_CUSTOM: Verbs =
    &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
/// Every verb, in the order kube-apiserver lists them for its own kinds.
pub const VERBS_BUILT_IN: Verbs =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The places of an object that its `/scale` reads and writes.
#[derive(Clone, Debug)]
pub struct ScalePaths {
    /// A simple path under `.spec`.
    pub spec_replicas: JsonPath,
    /// A simple path under `.status`.
    pub status_replicas: JsonPath,
    /// Where the object keeps its label selector, as text.
    pub label_selector: Option<JsonPath>,
}

/// The version of a kind that its objects are stored as, seen from another version.
#[derive(Clone, Debug)]
pub struct StoredAs {
    pub def: Arc<ResourceDef>,
    pub conversion: Conversion,
}

/// What differs between the stored version and another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// The name of the version only.
    Name,
    /// The name of the version, and what only one of the schemas knows.
    Fields,
    /// The names of some fields: events.k8s.io calls what core/v1 stores otherwise.
    Event,
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
    pub storage: Storage,
    pub verbs: Verbs,
    pub schema: Structural,
    /// How its objects merge, and who can own what in them.
    pub types: Arc<Types>,
    /// What an object of a built-in kind has whatever was written; `None` where nothing is filled in.
    pub zero: Option<Value>,
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
    /// The selectable fields that most watches and lists name exactly, worth an index each: no more
    /// than [`TRIGGER_FIELDS_MAX`] (`spec.agent`, `spec.framework`).
    pub trigger_fields: Vec<String>,
    /// What `/scale` reads and writes; `None` for kinds that have no such subresource.
    pub scale: Option<ScalePaths>,
    /// `None` when this is the version that objects are stored as.
    pub stored_as: Option<StoredAs>,
    /// It comes from a CustomResourceDefinition that may change at any time.
    pub may_change: bool,
    /// It is as it was first made: whoever wrote an object of this version of the kind knew it so.
    pub never_changed: bool,
    /// The CustomResourceDefinition is being deleted: no new objects.
    pub terminating: bool,
    /// What whoever uses this version is warned of.
    pub deprecation: Option<String>,
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
        let versions = from_crd::versions(crd)?;
        let fixed = |def: &Arc<ResourceDef>| ResourceDef { may_change: false, ..(**def).clone() };
        Ok(versions.served.iter().map(fixed).collect())
    }

    /// The versions of a kind as they are served, and the one that its objects are stored as
    /// (which need not be served).
    ///
    /// # Errors
    /// As [`ResourceDef::from_crd`], and when no version is the stored one.
    pub(crate) fn versions_of(crd: &CustomResourceDefinition) -> Result<Versions, DefinitionError> {
        from_crd::versions(crd)
    }

    /// `commonage.dev/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            [&self.group, "/", &self.version].concat()
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

    pub fn is_stored(&self) -> bool {
        self.storage == Storage::Stored
    }

    /// What the kind's objects are worked out by, if they are another kind's.
    pub(crate) fn view(&self) -> Option<View> {
        match self.storage {
            Storage::Projected(view) => Some(view),
            Storage::Stored | Storage::Virtual | Storage::Measured(_) => None,
        }
    }

    /// Whether the kind itself (not a subresource) knows this verb.
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// `/commonage.dev/tasks/`: every object of the kind, whatever its version, has a key under it.
    pub fn key_prefix(&self) -> String {
        let (group, plural) = self.key_parts();
        format!("/{group}/{plural}/")
    }

    /// The two parts of [`ResourceDef::key_prefix`].
    pub fn key_parts(&self) -> (&str, &str) {
        if let Some(stored) = &self.stored_as {
            return stored.def.key_parts();
        }
        let group = if self.group.is_empty() { "core" } else { &self.group };
        (group, &self.plural)
    }

    /// `/commonage.dev/tasks/default/web-0`; a cluster-scoped object has an empty namespace.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        let (group, plural) = self.key_parts();
        ["/", group, "/", plural, "/", namespace, "/", name].concat()
    }

    /// Kubernetes' kinds without fields of their own take both fields of every object, whatever
    /// their scope.
    pub(crate) fn has_plain_fields(&self) -> bool {
        self.origin == Origin::BuiltIn && self.selectable_fields.is_empty()
    }

    /// Whether an update of what is not there makes it, as Kubernetes has it for these kinds.
    pub(crate) fn is_created_by_update(&self) -> bool {
        let kinds: &[&str] = match self.group.as_str() {
            "" | "events.k8s.io" => &["Event"],
            "coordination.k8s.io" => &["Lease"],
            "rbac.authorization.k8s.io" => {
                &["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"]
            }
            _ => &[],
        };
        self.origin == Origin::BuiltIn && kinds.contains(&self.kind.as_str())
    }

    /// Whether a field selector may name this field.
    pub fn supports_field(&self, field: &str) -> bool {
        self.selectable_fields.iter().any(|(name, _)| name == field)
            || field == "metadata.name"
            || (field == "metadata.namespace" && (self.is_namespaced() || self.has_plain_fields()))
    }
}

/// Every kind the server serves.
#[derive(Clone, Debug, Default)]
pub struct Scheme {
    defs: Vec<Arc<ResourceDef>>,
}

impl Scheme {
    /// Sorted by group, then version, then plural name, as discovery wants them.
    pub fn new(defs: impl IntoIterator<Item = ResourceDef>) -> Scheme {
        Scheme::of(defs.into_iter().map(Arc::new).collect())
    }

    /// As [`Scheme::new`], of definitions that are shared already.
    pub(crate) fn of(mut defs: Vec<Arc<ResourceDef>>) -> Scheme {
        defs.sort_by(|a, b| {
            (&a.group, &a.version, &a.plural).cmp(&(&b.group, &b.version, &b.plural))
        });
        Scheme { defs }
    }

    /// With more kinds.
    pub(crate) fn with(&self, more: impl IntoIterator<Item = ResourceDef>) -> Scheme {
        Scheme::new(self.defs.iter().map(|def| ResourceDef::clone(def)).chain(more))
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
