//! What one version of a definition says: schema, subresources, columns, selectable fields.

use std::collections::HashSet;

use serde_json::Value;

use super::validate::text;
use crate::jsonpath::JsonPath;
use crate::schema::{Structural, structural};
use crate::status::Cause;

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const SELECTABLE_FIELDS_MAX: usize = 8;
const DEPRECATION_WARNING_MAX: usize = 256;
/// What the root of a schema may have beside a status of its own, by the names of Go's fields.
const ROOT_WITH_STATUS: [(&str, &str); 22] = [
    ("Description", "description"),
    ("Type", "type"),
    ("Format", "format"),
    ("Title", "title"),
    ("Maximum", "maximum"),
    ("ExclusiveMaximum", "exclusiveMaximum"),
    ("Minimum", "minimum"),
    ("ExclusiveMinimum", "exclusiveMinimum"),
    ("MaxLength", "maxLength"),
    ("MinLength", "minLength"),
    ("Pattern", "pattern"),
    ("MaxItems", "maxItems"),
    ("MinItems", "minItems"),
    ("UniqueItems", "uniqueItems"),
    ("MultipleOf", "multipleOf"),
    ("Required", "required"),
    ("Items", "items"),
    ("Properties", "properties"),
    ("ExternalDocs", "externalDocs"),
    ("Example", "example"),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields"),
    ("XValidations", "x-kubernetes-validations"),
];

/// What all versions have alike, and errors therefore name without a version.
pub(super) struct Common {
    schema: bool,
    subresources: bool,
    columns: bool,
    selectable: bool,
}

impl Common {
    pub(super) fn of(versions: &[Value]) -> Common {
        let alike =
            |field: &str| versions.windows(2).all(|pair| pair[0].get(field) == pair[1].get(field));
        Common {
            schema: alike("schema"),
            subresources: alike("subresources"),
            columns: alike("additionalPrinterColumns"),
            selectable: alike("selectableFields"),
        }
    }
}

/// All versions as Go prints apiextensions' internal type, into which nothing is written that all of
/// them have alike.
pub(super) fn shown(versions: &[Value]) -> String {
    let common = Common::of(versions);
    let own = |version: &Value, alike: bool, field: &str| match alike {
        true => Value::Null,
        false => version[field].clone(),
    };
    let one = |version: &Value| {
        let flag = |field: &str| version[field] == true;
        format!(
            "{{\"Name\":{:?},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\"Schema\":{},\
             \"Subresources\":{},\"AdditionalPrinterColumns\":{},\"SelectableFields\":{}}}",
            text(version, "name"),
            flag("served"),
            flag("storage"),
            flag("deprecated"),
            version["deprecationWarning"],
            own(version, common.schema, "schema"),
            own(version, common.subresources, "subresources"),
            own(version, common.columns, "additionalPrinterColumns"),
            own(version, common.selectable, "selectableFields"),
        )
    };
    format!("[{}]", versions.iter().map(one).collect::<Vec<_>>().join(","))
}

/// What is wrong with what this version has for itself.
pub(super) fn check(version: &Value, common: &Common, at: &str, causes: &mut Vec<Cause>) {
    check_deprecation(version, at, causes);
    if !common.schema {
        check_schema(version, &format!("{at}.schema"), causes);
    }
    if !common.subresources {
        check_scale(version, &format!("{at}.subresources"), causes);
    }
    if !common.columns {
        check_columns(version, &format!("{at}.additionalPrinterColumns"), causes);
    }
    if !common.selectable {
        check_selectable(version, &format!("{at}.selectableFields"), causes);
    }
}

/// What is wrong with what this version has in common with all others.
pub(super) fn check_common(version: &Value, common: &Common, causes: &mut Vec<Cause>) {
    if common.schema {
        check_schema(version, "spec.validation", causes);
    }
    if common.subresources {
        check_scale(version, "spec.subresources", causes);
    }
    if common.columns {
        check_columns(version, "spec.additionalPrinterColumns", causes);
    }
    if common.selectable {
        check_selectable(version, "spec.selectableFields", causes);
    }
}

fn check_deprecation(version: &Value, at: &str, causes: &mut Vec<Cause>) {
    let Some(warning) = version["deprecationWarning"].as_str() else { return };
    let mut say = |detail: &str| {
        let field = format!("{at}.deprecationWarning");
        causes.push(Cause::invalid(field, &version["deprecationWarning"], detail));
    };
    if version["deprecated"] != true {
        say("can only be set for deprecated versions");
        return;
    }
    if warning.len() > DEPRECATION_WARNING_MAX {
        say("must be <= 256 characters long");
    }
    if warning.is_empty() {
        say("must not be an empty string");
    }
    if let Some(place) = warning.find(char::is_control) {
        say(&format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {place}"
        ));
    }
}

fn check_schema(version: &Value, at: &str, causes: &mut Vec<Cause>) {
    let schema = &version["schema"]["openAPIV3Schema"];
    let Some(members) = schema.as_object() else { return };
    let field = format!("{at}.openAPIV3Schema");
    let before = causes.len();
    if version["subresources"]["status"].is_object() {
        if text(schema, "type") != "object" && !text(schema, "type").is_empty() {
            let detail = "only \"object\" is allowed as the type at the root of the schema if the \
                          status subresource is enabled";
            causes.push(Cause::invalid(format!("{field}.type"), &schema["type"], detail));
        }
        let allowed = |name: &String| ROOT_WITH_STATUS.iter().any(|(_, known)| known == name);
        if members.iter().any(|(name, value)| !allowed(name) && is_set(value)) {
            let names: Vec<&str> = ROOT_WITH_STATUS.iter().map(|(name, _)| *name).collect();
            let detail = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is \
                 enabled",
                names.join(" ")
            );
            causes.push(Cause::invalid(&*field, schema, &detail));
        }
    }
    causes.extend(structural::check(schema, &field));
    // What the check lets through must compile too, or the kind could not be served.
    if causes.len() == before
        && let Err(error) = Structural::compile_value(schema)
    {
        let place = match error.path.as_str() {
            "" => field,
            path => format!("{field}.{path}"),
        };
        causes.push(Cause::invalid(place, &Value::from(""), &error.message));
    }
}

/// Not what Go has when nothing was said.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

fn check_scale(version: &Value, at: &str, causes: &mut Vec<Cause>) {
    let scale = &version["subresources"]["scale"];
    if !scale.is_object() {
        return;
    }
    let replicas = [
        ("specReplicasPath", ".spec.", "should be a json path under .spec"),
        ("statusReplicasPath", ".status.", "should be a json path under .status"),
    ];
    for (name, prefix, detail) in replicas {
        let field = format!("{at}.scale.{name}");
        let path = text(scale, name);
        if path.is_empty() {
            causes.push(Cause::required(field, ""));
        } else if check_path(path, &field, causes) && !path.starts_with(prefix) {
            causes.push(Cause::invalid(field, &scale[name], detail));
        }
    }
    let selector = text(scale, "labelSelectorPath");
    let field = format!("{at}.scale.labelSelectorPath");
    if !selector.is_empty()
        && check_path(selector, &field, causes)
        && ![".spec.", ".status."].iter().any(|prefix| selector.starts_with(prefix))
    {
        let detail = "should be a json path under either .spec or .status";
        causes.push(Cause::invalid(field, &scale["labelSelectorPath"], detail));
    }
}

const NO_PATH: &str = "must be a simple json path starting with .";

/// Whether a path that is not empty may be one.
fn check_path(path: &str, field: &str, causes: &mut Vec<Cause>) -> bool {
    if !path.starts_with('.') {
        causes.push(Cause::invalid(field, &path.into(), NO_PATH));
        return false;
    }
    if let Err(error) = JsonPath::parse(path) {
        causes.push(Cause::invalid(field, &path.into(), &error.to_string()));
        return false;
    }
    true
}

fn check_columns(version: &Value, at: &str, causes: &mut Vec<Cause>) {
    let columns = version["additionalPrinterColumns"].as_array();
    for (place, column) in columns.into_iter().flatten().enumerate() {
        let field = |name: &str| format!("{at}[{place}].{name}");
        if text(column, "name").is_empty() {
            causes.push(Cause::required(field("name"), ""));
        }
        let types = format!("must be one of {}", COLUMN_TYPES.join(","));
        match text(column, "type") {
            "" => causes.push(Cause::required(field("type"), &types)),
            known if COLUMN_TYPES.contains(&known) => {}
            _ => causes.push(Cause::invalid(field("type"), &column["type"], &types)),
        }
        let format = text(column, "format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let detail = format!("must be one of {}", COLUMN_FORMATS.join(","));
            causes.push(Cause::invalid(field("format"), &column["format"], &detail));
        }
        match text(column, "jsonPath") {
            "" => causes.push(Cause::required(field("JSONPath"), "")),
            // What cannot be followed is known when the kind is served, with its usual columns.
            path if path.starts_with('.') => {}
            path => causes.push(Cause::invalid(field("JSONPath"), &path.into(), NO_PATH)),
        }
    }
}

fn check_selectable(version: &Value, at: &str, causes: &mut Vec<Cause>) {
    let fields = version["selectableFields"].as_array();
    let mut seen = HashSet::new();
    for (place, selectable) in fields.into_iter().flatten().enumerate() {
        let field = format!("{at}[{place}].jsonPath");
        let (value, path) = (&selectable["jsonPath"], text(selectable, "jsonPath"));
        if path.is_empty() {
            causes.push(Cause::required(field, ""));
            continue;
        }
        let found = match schema_at(&version["schema"]["openAPIV3Schema"], path) {
            Ok(found) => found,
            Err(why) => {
                let detail = format!("is an invalid path: {why}");
                causes.push(Cause::invalid(field, value, &detail));
                continue;
            }
        };
        if path.starts_with(".metadata") {
            let detail = "must not point to fields in metadata";
            causes.push(Cause::invalid(&*field, value, detail));
        }
        if !["string", "boolean", "integer"].contains(&text(found, "type")) {
            let detail = "must point to a field of type string, boolean or integer. Enum string \
                          fields and strings with formats are allowed.";
            causes.push(Cause::invalid(&*field, value, detail));
        }
        if !seen.insert(path) {
            causes.push(Cause::duplicate(field, value));
        }
    }
    if seen.len() > SELECTABLE_FIELDS_MAX {
        causes.push(Cause::too_many(at, seen.len(), SELECTABLE_FIELDS_MAX));
    }
}

/// The schema of a field, as Kubernetes follows a path that has no places in lists.
///
/// # Errors
/// Why it leads nowhere, as Kubernetes says it.
fn schema_at<'s>(mut schema: &'s Value, path: &str) -> Result<&'s Value, String> {
    let mut tokens = path.split_inclusive(['.', '[', ']']).flat_map(|part| {
        let (name, end) = part.split_at(part.trim_end_matches(['.', '[', ']']).len());
        [name, end].into_iter().filter(|token| !token.is_empty())
    });
    while let Some(token) = tokens.next() {
        match token {
            "[" => return Err("array notation is not allowed".to_owned()),
            "." => {
                let name = tokens.next().ok_or("unexpected end of JSON path")?;
                schema = match (schema["properties"].get(name), &schema["additionalProperties"]) {
                    (Some(property), _) => property,
                    (None, values @ Value::Object(_)) => values,
                    _ => return Err("does not refer to a valid field".to_owned()),
                };
            }
            other => return Err(format!("expected [ or . but got: {other}")),
        }
    }
    Ok(schema)
}
