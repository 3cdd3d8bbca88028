//! The body of a write as a tree, and what kube-apiserver says of one that it can't read.
//!
//! What the object must be like besides is `meta`'s and the schema's.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use super::protobuf;
use crate::resource::{Origin, ResourceDef};
use crate::schema::{self, Refused, go};
use crate::status::ApiError;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
/// Go's decoder collects what is wrong with a YAML text under this.
const YAML_ERRORS: &str = "yaml: unmarshal errors:";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// How much of a body is repeated to the client that sent it.
const SUMMARY_BYTES: usize = 30;
/// Go's type that finds apiVersion and kind, as its decoder prints it.
const TYPE_META: &str = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// Without its parameters, in lower case; `None` when the client sent none.
pub(super) fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media = value.split(';').next().unwrap_or_default().trim();
    (!media.is_empty()).then(|| media.to_ascii_lowercase())
}

/// A decoded body, and what a strict reader finds wrong with its text.
type Decoded = (Value, Vec<String>);

enum Failure {
    MediaType,
    /// In words of Go's decoders.
    Text(String),
    /// The same about a body whose kind is known.
    Value(String, Value),
}

/// Whether Go reads what follows the type: `; name=value`, as often as there are other names.
fn has_parameters(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_token = |text: &str| {
        let known = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c);
        !text.is_empty() && text.chars().all(known)
    };
    let quoted = |text: &str| text.len() > 1 && text.starts_with('"') && text.ends_with('"');
    let mut names = Vec::new();
    let (_, rest) = value.split_once(';').unwrap_or((value, ""));
    // (What is quoted may hold any sign but ours: charsets do not.)
    let parts: Vec<&str> = rest.split(';').map(str::trim).collect();
    parts.iter().enumerate().all(|(at, part)| match part.split_once('=') {
        None => part.is_empty() && at + 1 == parts.len(),
        Some((name, value)) => {
            let name = name.to_ascii_lowercase();
            let fits = is_token(&name) && (is_token(value) || quoted(value));
            let again = names.contains(&name);
            names.push(name);
            fits && !again
        }
    })
}

fn decode(headers: &HeaderMap, bytes: &Bytes) -> Result<Decoded, Failure> {
    if !has_parameters(headers) {
        return Err(Failure::MediaType);
    }
    match content_type(headers).as_deref() {
        // Some clients send no type at all.
        None | Some(JSON) => {
            let (value, duplicates) =
                schema::decode_strict(bytes).map_err(|refused| match refused {
                    Refused::Syntax(why) => {
                        Failure::Text(format!("couldn't get version/kind; json parse error: {why}"))
                    }
                    Refused::Value(why, value) => Failure::Value(why, value),
                })?;
            let findings = duplicates.iter().map(|path| format!("duplicate field {path:?}"));
            Ok((value, findings.collect()))
        }
        Some(YAML) => yaml(bytes),
        // Go clients send it for built-in kinds; no client sends it for custom ones.
        Some(PROTOBUF) => {
            protobuf::check_envelope(bytes).map_err(Failure::Text)?;
            let object = protobuf::decode(bytes).ok_or(Failure::MediaType)?;
            Ok((object, Vec::new()))
        }
        Some(_) => Err(Failure::MediaType),
    }
}

/// Go's decoder lets the last of two equal keys win, and a strict one complains.
fn yaml(bytes: &[u8]) -> Result<Decoded, Failure> {
    match schema::decode_yaml(bytes) {
        // One finding, of as many lines as Go's decoder has to say.
        Ok((value, repeated)) if repeated.is_empty() => Ok((value, Vec::new())),
        Ok((value, repeated)) => {
            let lines: String = repeated.iter().map(|line| format!("\n  {line}")).collect();
            Ok((value, vec![format!("{YAML_ERRORS}{lines}")]))
        }
        Err(why) => Err(Failure::Text(why)),
    }
}

fn unsupported() -> ApiError {
    ApiError::unsupported_media_type(&[JSON, YAML, PROTOBUF])
}

/// A body that is no object of a kind: `DeleteOptions`.
///
/// # Errors
/// 400 for what is no JSON or YAML object, 415 for other types.
pub(super) fn options(headers: &HeaderMap, bytes: &Bytes) -> Result<Value, ApiError> {
    match decode(headers, bytes) {
        Ok((mut value, _)) => {
            read_type(&mut value).map_err(ApiError::bad_request)?;
            Ok(value)
        }
        Err(Failure::MediaType) => Err(unsupported()),
        Err(Failure::Text(why) | Failure::Value(why, _)) => Err(ApiError::bad_request(why)),
    }
}

/// A Scale: it is of no kind that has a definition.
///
/// # Errors
/// As [`object`].
pub(super) fn scale(headers: &HeaderMap, bytes: &Bytes) -> Result<Value, ApiError> {
    match decode(headers, bytes) {
        Ok((mut value, _)) => {
            read_type(&mut value).map_err(|why| unrecognized("Scale", bytes, &why))?;
            Ok(value)
        }
        Err(Failure::MediaType) => Err(unsupported()),
        Err(Failure::Text(why) | Failure::Value(why, _)) => Err(unrecognized("Scale", bytes, &why)),
    }
}

fn unrecognized(kind: &str, bytes: &[u8], why: &str) -> ApiError {
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({})",
        summary(bytes)
    ))
}

/// What Go's decoder looks at first. Nulls are as good as nothing.
///
/// # Errors
/// No object, or one whose kind or apiVersion is no text.
fn read_type(value: &mut Value) -> Result<(), String> {
    let wrong = |what: String| {
        format!("couldn't get version/kind; json parse error: json: cannot unmarshal {what}")
    };
    match value {
        Value::Object(members) => {
            for field in ["kind", "apiVersion"] {
                match members.get(field) {
                    // Of `group/version` and `version`.
                    Some(Value::String(text))
                        if field == "apiVersion" && text.matches('/').count() > 1 =>
                    {
                        return Err(format!("unexpected GroupVersion string: {text}"));
                    }
                    None | Some(Value::String(_)) => {}
                    Some(Value::Null) => drop(members.remove(field)),
                    Some(other) => {
                        let what = go::json_type(other);
                        return Err(wrong(format!(
                            "{what} into Go struct field .{field} of type string"
                        )));
                    }
                }
            }
            Ok(())
        }
        Value::Null => {
            *value = Value::Object(serde_json::Map::new());
            Ok(())
        }
        other => Err(wrong(format!("{} into Go value of type {TYPE_META}", go::json_type(other)))),
    }
}

/// The object in a body, and what a strict reader finds wrong with the text.
///
/// # Errors
/// 400 for what is no object, 415 for other types than JSON, YAML and protobuf.
pub(super) fn object(
    def: &ResourceDef,
    headers: &HeaderMap,
    bytes: &Bytes,
) -> Result<Decoded, ApiError> {
    let unrecognized = |why: &str| unrecognized(&def.kind, bytes, why);
    let decoded = decode(headers, bytes).map_err(|failure| match failure {
        Failure::MediaType => unsupported(),
        Failure::Text(why) => unrecognized(&why),
        Failure::Value(why, value) => ApiError::undecodable(def, &value, &why),
    });
    let (mut value, findings) = decoded?;
    read_type(&mut value).map_err(|why| unrecognized(&why))?;
    if def.origin == Origin::Custom && value["kind"].as_str().unwrap_or_default().is_empty() {
        let text = String::from_utf8_lossy(bytes);
        return Err(unrecognized(&format!("Object 'Kind' is missing in '{text}'")));
    }
    Ok((value, findings))
}

/// Whether Go's decoder meets the fields of such a body one by one, as it fills a type of its own.
pub(super) fn is_read_in_order(def: &ResourceDef, headers: &HeaderMap) -> bool {
    def.origin == Origin::BuiltIn && matches!(content_type(headers).as_deref(), None | Some(JSON))
}

/// The beginning of a body: as it is if it looks like JSON, else in hexadecimal digits.
fn summary(bytes: &[u8]) -> String {
    let (head, more) = match bytes.len() > SUMMARY_BYTES {
        true => (&bytes[..SUMMARY_BYTES], " ..."),
        false => (bytes, ""),
    };
    match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => {
            let digits: String = head.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{digits}{more}")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::resource::tests::task_def;

    fn refused(kind: &str, text: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, kind.parse().unwrap());
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        object(&task_def(), &headers, &bytes).unwrap_err().message
    }

    #[test]
    fn bodies_are_refused_in_kubernetes_words() {
        let unrecognized = "the object provided is unrecognized (must be of type Task): ";
        let cases = [
            (
                "",
                "couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
            ),
            (
                "{}x",
                "couldn't get version/kind; json parse error: invalid character 'x' after top-level value ({}x)",
            ),
            (
                "[]",
                "couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type \
                 struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
                 \"json:\\\"kind,omitempty\\\"\" } (5b5d)",
            ),
            (
                r#"{"kind":5}"#,
                "couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field \
                 .kind of type string ({\"kind\":5})",
            ),
            (
                r#"{"apiVersion":"example.com/v1","metadata":{}}"#,
                r#"Object 'Kind' is missing in '{"apiVersion":"example.com/v1","metadata":{}}' ({"apiVersion":"example.com/v1" ...)"#,
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(
                refused("application/json", text),
                format!("{unrecognized}{wanted}"),
                "{text}"
            );
        }
        assert_eq!(
            refused("text/plain", "{}"),
            "the body of the request was in an unknown format - accepted media types include: application/json, \
             application/yaml, application/vnd.kubernetes.protobuf"
        );
        for kind in
            ["application/json;;;x", "application/json; charset", "application/json; a=b; a=c"]
        {
            assert!(
                refused(kind, "{}").starts_with("the body of the request was in an unknown format")
            );
        }
        for kind in ["application/json;", "application/json; charset=\"utf-8\"; q=1"] {
            assert!(refused(kind, "{}").contains("Object 'Kind' is missing"));
        }
        let protobuf = "application/vnd.kubernetes.protobuf";
        assert_eq!(refused(protobuf, ""), format!("{unrecognized}empty data (<empty>)"));
        assert_eq!(
            refused(protobuf, "xxxx"),
            format!(
                "{unrecognized}provided data does not appear to be a protobuf message, expected prefix \
                 [107 56 115 0] (78787878)"
            )
        );
        assert!(
            refused("application/yaml", "a: [")
                .contains(": yaml: line 1: did not find expected node content (")
        );
    }

    #[test]
    fn repeated_fields_are_found_in_both_languages() {
        let read = |kind: &str, text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            object(&task_def(), &headers, &Bytes::copy_from_slice(text.as_bytes())).unwrap()
        };
        let (value, findings) =
            read("application/json;charset=utf-8", r#"{"kind":"Task","a":1,"a":2}"#);
        assert_eq!((&value["a"], findings), (&2.into(), vec!["duplicate field \"a\"".to_owned()]));
        let (value, findings) = read("application/yaml", "kind: Task\na: 1\na: 2\n");
        assert_eq!((&value["a"], findings.len()), (&2.into(), 1));
        assert_eq!(read("application/yaml", "kind: Task\n").1, Vec::<String>::new());
    }
}
