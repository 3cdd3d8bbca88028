//! From a CustomResourceDefinition to a [`ResourceDef`] per version.
//!
//! It takes a definition that was accepted: what is wrong with one is said by `definitions`.

use std::sync::Arc;

use base64::Engine as _;
use commonage_apply::Types;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use kube::core::Version;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    Cell, Column, Conversion, DefinitionError, Origin, ResourceDef, ScalePaths, Scope, Storage,
    StoredAs, Subresource, TRIGGER_FIELDS_MAX, VERBS_CUSTOM,
};
use crate::jsonpath::{JsonPath, JsonPathError};
use crate::schema::Structural;

/// A version of a CRD may ask for this many columns; more is a mistake, and every row pays for it.
const COLUMNS_MAX: usize = 64;

/// The versions of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Versions {
    pub(crate) served: Vec<Arc<ResourceDef>>,
    pub(crate) stored: Arc<ResourceDef>,
}

pub(super) fn versions(crd: &CustomResourceDefinition) -> Result<Versions, DefinitionError> {
    let all = &crd.spec.versions;
    let storage = all.iter().position(|version| version.storage);
    let storage = storage.ok_or_else(|| DefinitionError::Invalid {
        field: "spec.versions".into(),
        message: "must have exactly one version marked as storage version".into(),
    })?;
    let from = |at: usize| from_version(crd, &all[at], &format!("spec.versions[{at}]"));
    let stored = Arc::new(from(storage)?);
    let mut served = Vec::new();
    for (at, version) in all.iter().enumerate().filter(|(_, version)| version.served) {
        if version.storage {
            served.push(stored.clone());
            continue;
        }
        let mut def = from(at)?;
        def.storage_version_hash.clone_from(&stored.storage_version_hash);
        let conversion = match def.openapi == stored.openapi {
            true => Conversion::Name,
            false => Conversion::Fields,
        };
        def.stored_as = Some(StoredAs { def: stored.clone(), conversion });
        served.push(Arc::new(def));
    }
    Ok(Versions { served, stored })
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
    let scale = scale(version, at)?;
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
        storage: Storage::Stored,
        verbs: VERBS_CUSTOM,
        schema: structural,
        types: Arc::new(Types::compile(&openapi)),
        zero: None,
        openapi,
        columns: columns(version, at)?,
        trigger_fields: selectable_fields
            .iter()
            .take(TRIGGER_FIELDS_MAX)
            .map(|(name, _)| name.clone())
            .collect(),
        selectable_fields,
        has_status: version
            .subresources
            .as_ref()
            .is_some_and(|subresources| subresources.status.is_some()),
        subresources: scale.iter().map(|_| scale_row()).collect(),
        scale,
        stored_as: None,
        may_change: true,
        never_changed: crd.metadata.generation == Some(1),
        terminating: crd.metadata.deletion_timestamp.is_some(),
        deprecation: deprecation(crd, version),
        storage_version_hash: storage_version_hash(&crd.spec.group, &version.name, &names.kind),
        allow_unconditional_update: false,
    })
}

fn deprecation(
    crd: &CustomResourceDefinition,
    version: &CustomResourceDefinitionVersion,
) -> Option<String> {
    let (group, kind, name) = (&crd.spec.group, &crd.spec.names.kind, &version.name);
    let own = || version.deprecation_warning.clone();
    let text = || {
        let priority = |name: &str| Version::parse(name).priority();
        let newer = crd.spec.versions.iter().filter(|one| {
            one.served && one.deprecated != Some(true) && priority(&one.name) > priority(name)
        });
        let instead = newer.max_by_key(|one| priority(&one.name));
        let instead =
            instead.map(|one| format!("; use {group}/{} {kind}", one.name)).unwrap_or_default();
        own().unwrap_or_else(|| format!("{group}/{name} {kind} is deprecated{instead}"))
    };
    (version.deprecated == Some(true)).then(text)
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
    // As in Kubernetes: what cannot be followed costs this column and those after it, not the kind.
    let mut columns = vec![Column::name()];
    for column in asked.iter().map(asked_column) {
        match column {
            Ok(column) => columns.push(column),
            Err(error) => {
                tracing::warn!(%field, %error, "a column can't be followed; the kind has those before it");
                break;
            }
        }
    }
    Ok(columns)
}

fn asked_column(column: &CustomResourceColumnDefinition) -> Result<Column, JsonPathError> {
    let words =
        || format!("Custom resource definition column (in JSONPath format): {}", column.json_path);
    let description = column.description.clone().filter(|text| !text.is_empty());
    Ok(Column {
        name: column.name.clone(),
        type_: column.type_.clone(),
        format: column.format.clone().unwrap_or_default(),
        description: description.unwrap_or_else(words),
        priority: column.priority.unwrap_or(0),
        cell: Cell::Path(JsonPath::parse(&column.json_path)?),
    })
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

fn scale(
    version: &CustomResourceDefinitionVersion,
    at: &str,
) -> Result<Option<ScalePaths>, DefinitionError> {
    let Some(asked) = version.subresources.as_ref().and_then(|all| all.scale.as_ref()) else {
        return Ok(None);
    };
    let parse = |name: &str, path: &str| {
        JsonPath::parse(path).map_err(|error| DefinitionError::Invalid {
            field: format!("{at}.subresources.scale.{name}"),
            message: error.to_string(),
        })
    };
    let selector = asked.label_selector_path.as_deref().filter(|path| !path.is_empty());
    Ok(Some(ScalePaths {
        spec_replicas: parse("specReplicasPath", &asked.spec_replicas_path)?,
        status_replicas: parse("statusReplicasPath", &asked.status_replicas_path)?,
        label_selector: selector.map(|path| parse("labelSelectorPath", path)).transpose()?,
    }))
}

fn scale_row() -> Subresource {
    Subresource {
        name: "scale".into(),
        group: "autoscaling".into(),
        version: "v1".into(),
        kind: "Scale".into(),
        verbs: ["get", "patch", "update"].map(str::to_owned).into(),
    }
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
