//! `/scale` of custom kinds: an autoscaling/v1 Scale read out of an object, and written back as one
//! number of its spec.

mod sent;

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use serde_json::{Map, Value, json};

use super::update::{Attempt, By, Edit, Target};
use super::{Engine, PatchKind, WriteOptions, Written, managed};
use crate::jsonpath::JsonPath;
use crate::meta;
use crate::object::Object;
use crate::patch;
use crate::resource::{ResourceDef, ScalePaths};
use crate::schema;
use crate::status::{ApiError, Cause};

const API_VERSION: &str = "autoscaling/v1";
const KIND: &str = "Scale";

/// A Scale, and whether the object says how many replicas it wants.
struct Scaled {
    scale: Value,
    has_replicas: bool,
}

/// The members that a simple path goes through.
fn members(path: &JsonPath) -> Vec<String> {
    let name = path.field_name().unwrap_or_default();
    name.split('.').map(str::to_owned).collect()
}

/// The value at a path of plain members.
///
/// # Errors
/// 500 in Kubernetes' words when something on the way, or the value itself, has another type.
fn look_up<'v>(
    object: &'v Value,
    path: &JsonPath,
    wanted: &str,
    fits: fn(&Value) -> bool,
) -> Result<Option<&'v Value>, ApiError> {
    let members = members(path);
    let mut at = object;
    for (depth, name) in members.iter().enumerate() {
        let Value::Object(map) = at else {
            let place = members[..depth].join(".");
            return Err(wrong_type(&place, at, "map[string]interface{}"));
        };
        match map.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(inner) => at = inner,
        }
    }
    match fits(at) {
        true => Ok(Some(at)),
        false => Err(wrong_type(&members.join("."), at, wanted)),
    }
}

fn wrong_type(place: &str, found: &Value, wanted: &str) -> ApiError {
    let (shown, what) = match found {
        Value::Null => ("<nil>".to_owned(), "<nil>"),
        Value::Bool(value) => (value.to_string(), "bool"),
        Value::Number(number) if number.is_f64() => (number.to_string(), "float64"),
        Value::Number(number) => (number.to_string(), "int64"),
        Value::String(text) => (text.clone(), "string"),
        Value::Array(_) => (found.to_string(), "[]interface {}"),
        Value::Object(_) => (found.to_string(), "map[string]interface {}"),
    };
    ApiError::unforeseen(format!(
        ".{place} accessor error: {shown} is of the type {what}, expected {wanted}"
    ))
}

fn scale_of(paths: &ScalePaths, object: &Value) -> Result<Scaled, ApiError> {
    let number = |path| look_up(object, path, "int64", Value::is_i64);
    let wanted = number(&paths.spec_replicas)?;
    let there = number(&paths.status_replicas)?;
    let selector = match &paths.label_selector {
        Some(path) => look_up(object, path, "string", Value::is_string)?,
        None => None,
    };
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut spec = Map::new();
    if let Some(replicas) = wanted.filter(|replicas| **replicas != 0) {
        spec.insert("replicas".into(), replicas.clone());
    }
    let mut status = Map::new();
    status.insert("replicas".into(), there.cloned().unwrap_or(json!(0)));
    if let Some(selector) = selector.filter(|selector| **selector != "") {
        status.insert("selector".into(), selector.clone());
    }
    let scale = json!({
        "kind": KIND, "apiVersion": API_VERSION, "metadata": metadata, "spec": spec, "status": status,
    });
    Ok(Scaled { scale, has_replicas: wanted.is_some() })
}

fn paths(def: &ResourceDef, name: &str) -> Result<ScalePaths, ApiError> {
    def.scale.clone().ok_or_else(|| ApiError::not_found(def, name))
}

/// The Scale of an object, as it is answered.
///
/// # Errors
/// 500 when the object does not say how many replicas it wants, or says it with another type.
pub(crate) fn read(def: &ResourceDef, object: &Object) -> Result<Value, ApiError> {
    let paths = paths(def, object.name())?;
    let Scaled { scale, has_replicas } = scale_of(&paths, &object.to_value())?;
    match has_replicas {
        true => Ok(scale),
        false => Err(ApiError::internal(format!(
            "the spec replicas field {:?} does not exist",
            paths.spec_replicas.as_str()
        ))),
    }
}

/// As [`read`], after a write: what is not said is zero.
///
/// # Errors
/// 400 for numbers of another type.
pub(crate) fn answer(def: &ResourceDef, object: &Object) -> Result<Value, ApiError> {
    let paths = paths(def, object.name())?;
    let scaled = scale_of(&paths, &object.to_value());
    scaled.map(|scaled| scaled.scale).map_err(|error| ApiError::bad_request(error.message))
}

/// What is wrong with the numbers and the selector in an object that has a Scale; only with those of the
/// status, if that is all that was written.
pub(super) fn causes(def: &ResourceDef, object: &Value, status_only: bool) -> Vec<Cause> {
    let Some(paths) = &def.scale else { return Vec::new() };
    let number = |path: &JsonPath| {
        let (at, most) = (path.as_str(), i64::from(i32::MAX));
        match look_up(object, path, "int64", Value::is_i64) {
            Err(error) => Some(Cause::invalid(at, &0.into(), &error.message)),
            Ok(found) => match found.and_then(Value::as_i64).unwrap_or_default() {
                few if few < 0 => {
                    Some(Cause::invalid(at, &few.into(), "should be a non-negative integer"))
                }
                many if many > most => {
                    let why = format!("should be less than or equal to {most}");
                    Some(Cause::invalid(at, &many.into(), &why))
                }
                _ => None,
            },
        }
    };
    let selector = paths.label_selector.as_ref().and_then(|path| {
        let error = look_up(object, path, "string", Value::is_string).err()?;
        Some(Cause::invalid(path.as_str(), &"".into(), &error.message))
    });
    let spec = number(&paths.spec_replicas).filter(|_| !status_only);
    spec.into_iter().chain(number(&paths.status_replicas)).chain(selector).collect()
}

impl Engine {
    pub(super) async fn scale_now(
        self: Arc<Self>,
        target: Target,
        edit: Edit,
        options: WriteOptions,
    ) -> Result<Written, ApiError> {
        let paths = paths(&target.def, &target.name)?;
        // The object itself is changed, by the rules of its kind.
        let target = Target { subresource: None, ..target };
        let (engine, target, edit) = (&*self, &target, &edit);
        let (options, paths) = (&options, &paths);
        engine
            .retrying(target, move |current| {
                engine.scale_once(target, paths, edit, options, current).boxed()
            })
            .await
    }

    async fn scale_once(
        &self,
        target: &Target,
        paths: &ScalePaths,
        edit: &Edit,
        options: &WriteOptions,
        current: Arc<Object>,
    ) -> Result<Written, Attempt> {
        let def = &target.def;
        let mut object = current.to_value();
        let Scaled { scale: mut wanted, has_replicas } = scale_of(paths, &object)?;
        let mut warnings = match edit {
            Edit::Replace(body) => {
                wanted = body.clone();
                sent::judged(&wanted, options.findings.clone(), options, |why| {
                    sent::undecodable(KIND, &why)
                })?
            }
            Edit::Patch { kind: PatchKind::Apply { force }, body } => {
                return self.apply_scale(target, paths, (body, *force), options, current).await;
            }
            Edit::Patch { kind, body } => {
                let findings =
                    patch::apply(def, &mut wanted, *kind, body, options.field_validation)?;
                let text = wanted.to_string();
                let refuse = |why: String| ApiError::invalid_patch(&text, &why);
                sent::replicas(&mut wanted.clone()).map_err(|wrong| refuse(wrong.why()))?;
                let warnings = sent::judged(&wanted, findings, options, refuse)?;
                if !has_replicas && wanted["spec"].get("replicas").is_none() {
                    return Err(without_replicas(paths).into());
                }
                warnings
            }
        };
        let replicas = sent::replicas(&mut wanted)?;
        meta::check_same_object(def, &target.namespace, &target.name, &mut wanted)?;
        let uid = wanted["metadata"]["uid"].as_str().unwrap_or_default();
        if !uid.is_empty() && *uid != *current.uid {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                current.uid
            );
            return Err(ApiError::conflict_because(def, &target.name, &why).into());
        }
        set(&mut object, &members(&paths.spec_replicas), replicas)?;
        if let Some(version) =
            wanted["metadata"]["resourceVersion"].as_str().filter(|version| !version.is_empty())
        {
            object["metadata"]["resourceVersion"] = version.into();
        }
        let old = current.to_value();
        let written = self.write_edit(target, By::Scaling, old, object, options, current).await?;
        warnings.extend(written.warnings);
        Ok(Written { warnings, ..written })
    }

    /// There is one number in a Scale that can be wanted: it is applied to the object, in the name of
    /// the subresource.
    async fn apply_scale(
        &self,
        target: &Target,
        paths: &ScalePaths,
        (body, force): (&Bytes, bool),
        options: &WriteOptions,
        current: Arc<Object>,
    ) -> Result<Written, Attempt> {
        let def = &target.def;
        let (mut scale, _) = schema::decode_yaml(body).map_err(|why| {
            let why = format!("error decoding YAML: error converting YAML to JSON: {why}");
            ApiError::bad_request(why)
        })?;
        let text = |field: &str| scale[field].as_str().unwrap_or_default().to_owned();
        if (text("apiVersion"), text("kind")) != (API_VERSION.to_owned(), KIND.to_owned()) {
            let (api_version, kind) = (text("apiVersion"), text("kind"));
            let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
            let why = format!("invalid object type: {group}/{version}, Kind={kind}");
            return Err(ApiError::bad_request(why).into());
        }
        let replicas = sent::replicas(&mut scale)?;
        let mut config = json!({
            "apiVersion": def.api_version(), "kind": def.kind, "metadata": scale["metadata"],
        });
        if config["metadata"].is_null() {
            config["metadata"] = json!({});
        }
        if scale["spec"].get("replicas").is_some_and(|replicas| !replicas.is_null()) {
            set(&mut config, &members(&paths.spec_replicas), replicas)?;
        }
        let config = config.to_string();
        let part = Target { subresource: Some("scale".to_owned()), ..target.clone() };
        let live = current.to_value();
        let (object, warnings) =
            managed::apply(&part, Some(&live), config.as_bytes(), force, options)?;
        if !scale_of(paths, &object)?.has_replicas {
            return Err(without_replicas(paths).into());
        }
        let options = &WriteOptions { applied: true, ..options.clone() };
        let by = By::Scaling;
        let mut written = self.write_edit(target, by, live, object, options, current).await?;
        written.warnings.splice(0..0, warnings);
        Ok(written)
    }
}

fn without_replicas(paths: &ScalePaths) -> ApiError {
    let path = paths.spec_replicas.as_str();
    ApiError::bad_request(format!("the spec replicas field {path:?} cannot be empty"))
}

fn set(object: &mut Value, members: &[String], replicas: i64) -> Result<(), ApiError> {
    let Some((last, parents)) = members.split_last() else { return Ok(()) };
    let mut at = object;
    for name in parents {
        let Value::Object(map) = at else {
            return Err(ApiError::unforeseen("value cannot be set because it is not a map"));
        };
        at = map.entry(name).or_insert_with(|| json!({}));
    }
    at[last] = replicas.into();
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn paths() -> ScalePaths {
        let path = |text| JsonPath::parse(text).unwrap();
        ScalePaths {
            spec_replicas: path(".spec.size"),
            status_replicas: path(".status.count"),
            label_selector: Some(path(".status.selector")),
        }
    }

    #[test]
    fn a_scale_is_read_from_its_places() {
        let object = json!({
            "metadata": {"name": "a", "namespace": "ns", "uid": "u", "labels": {"x": "y"}},
            "spec": {"size": 3}, "status": {"count": 2, "selector": "app=a"},
        });
        let scaled = scale_of(&paths(), &object).unwrap();
        assert!(scaled.has_replicas);
        assert_eq!(
            scaled.scale,
            json!({
                "kind": "Scale", "apiVersion": "autoscaling/v1",
                "metadata": {"name": "a", "namespace": "ns", "uid": "u"},
                "spec": {"replicas": 3}, "status": {"replicas": 2, "selector": "app=a"},
            })
        );
        let empty = scale_of(&paths(), &json!({"metadata": {"name": "a"}})).unwrap();
        assert!(!empty.has_replicas);
        assert_eq!(
            (&empty.scale["spec"], &empty.scale["status"]),
            (&json!({}), &json!({"replicas": 0}))
        );
        let error = scale_of(&paths(), &json!({"spec": {"size": "x"}})).err().unwrap();
        assert_eq!(
            (error.code, error.message.as_str()),
            (500, ".spec.size accessor error: x is of the type string, expected int64")
        );
    }

    #[test]
    fn a_number_is_set_where_it_belongs() {
        let mut object = json!({});
        set(&mut object, &["spec".to_owned(), "size".to_owned()], 4).unwrap();
        assert_eq!(object, json!({"spec": {"size": 4}}));
    }
}
