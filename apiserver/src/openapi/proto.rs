//! Swagger 2.0 as protobuf: gnostic's `openapi.v2.Document`, the only form that kubectl asks for.
//!
//! From the JSON form, which is made first; the messages are in `messages`.

use prost::Message as _;
use serde_json::{Map, Value};

use super::messages::*;

/// The protobuf form of a Swagger document as JSON.
pub(super) fn encode(swagger: &Value) -> Vec<u8> {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or("").to_owned();
    let each = |key: &str| swagger[key].as_object().into_iter().flatten();
    let document = Document {
        swagger: text(swagger, "swagger"),
        info: Some(Info {
            title: text(&swagger["info"], "title"),
            version: text(&swagger["info"], "version"),
        }),
        paths: Some(Paths {
            path: each("paths")
                .map(|(name, item)| NamedPathItem {
                    name: name.clone(),
                    value: Some(path_item(item)),
                })
                .collect(),
        }),
        definitions: Some(Schemas {
            additional_properties: each("definitions").map(named_schema).collect(),
        }),
    };
    document.encode_to_vec()
}

fn any(value: &Value) -> Any {
    Any { yaml: value.to_string() }
}

fn extensions(value: &Map<String, Value>) -> Vec<NamedAny> {
    let all = value.iter().filter(|(key, _)| key.starts_with("x-"));
    all.map(|(key, value)| NamedAny { name: key.clone(), value: Some(any(value)) }).collect()
}

fn named_schema((name, value): (&String, &Value)) -> NamedSchema {
    NamedSchema { name: name.clone(), value: Some(schema(value)) }
}

fn schema(value: &Value) -> Schema {
    let Value::Object(map) = value else { return Schema::default() };
    let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let kind = match map.get("additionalProperties") {
        Some(Value::Bool(allowed)) => Some(AdditionalKind::Boolean(*allowed)),
        Some(value) => Some(AdditionalKind::Schema(Box::new(schema(value)))),
        None => None,
    };
    let properties = map.get("properties").and_then(Value::as_object);
    let type_ = text("type");
    Schema {
        reference: text("$ref"),
        format: text("format"),
        description: text("description"),
        default: map.get("default").map(any),
        required: strings(map.get("required")),
        enumeration: map
            .get("enum")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(any)
            .collect(),
        additional_properties: kind.map(|kind| Box::new(AdditionalProperties { kind: Some(kind) })),
        type_: (!type_.is_empty()).then(|| Strings { value: vec![type_] }),
        items: map.get("items").map(|items| Items { schema: vec![schema(items)] }),
        properties: properties
            .map(|all| Schemas { additional_properties: all.iter().map(named_schema).collect() }),
        vendor_extension: extensions(map),
    }
}

fn strings(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|one| one.as_str().map(str::to_owned)).collect()
}

fn path_item(value: &Value) -> PathItem {
    let method = |name: &str| value.get(name).and_then(Value::as_object).map(operation);
    PathItem {
        get: method("get"),
        put: method("put"),
        post: method("post"),
        delete: method("delete"),
        patch: method("patch"),
        parameters: parameters(value.get("parameters")),
    }
}

fn operation(value: &Map<String, Value>) -> Operation {
    let responses = value.get("responses").and_then(Value::as_object).into_iter().flatten();
    Operation {
        tags: strings(value.get("tags")),
        operation_id: value.get("operationId").and_then(Value::as_str).unwrap_or("").to_owned(),
        produces: strings(value.get("produces")),
        consumes: strings(value.get("consumes")),
        parameters: parameters(value.get("parameters")),
        responses: Some(Responses { response_code: responses.map(response).collect() }),
        schemes: strings(value.get("schemes")),
        vendor_extension: extensions(value),
    }
}

fn response((code, value): (&String, &Value)) -> NamedResponse {
    let response = Response {
        description: value["description"].as_str().unwrap_or("").to_owned(),
        schema: value.get("schema").map(|value| SchemaItem { schema: Some(schema(value)) }),
    };
    NamedResponse { name: code.clone(), value: Some(ResponseValue { response: Some(response) }) }
}

fn parameters(list: Option<&Value>) -> Vec<ParametersItem> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.map(|value| ParametersItem { parameter: Some(Parameter { kind: Some(parameter(value)) }) })
        .collect()
}

fn parameter(value: &Value) -> ParameterKind {
    let text = |key: &str| value[key].as_str().unwrap_or("").to_owned();
    let flag = |key: &str| value[key].as_bool().unwrap_or(false);
    let (name, place, type_) = (text("name"), text("in"), text("type"));
    match place.as_str() {
        "body" => ParameterKind::Body(Box::new(BodyParameter {
            name,
            place,
            required: flag("required"),
            schema: value.get("schema").map(schema),
        })),
        "path" => ParameterKind::NonBody(NonBodyParameter {
            kind: Some(NonBodyKind::Path(PathParameter {
                required: true,
                place,
                name,
                type_,
                unique_items: flag("uniqueItems"),
            })),
        }),
        _ => ParameterKind::NonBody(NonBodyParameter {
            kind: Some(NonBodyKind::Query(QueryParameter {
                place,
                name,
                type_,
                unique_items: flag("uniqueItems"),
            })),
        }),
    }
}
