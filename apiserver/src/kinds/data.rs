//! ConfigMap and Secret: what their keys may be, bytes in base64, and that `immutable` means it.

use base64::Engine as _;
use serde_json::{Map, Value};

use crate::schema::go_types::{BASE64, decoded_length};
use crate::schema::{self, go};
use crate::status::Cause;
use crate::strategy::Strategy;

/// All values of one object together, as in Kubernetes.
const BYTES_MAX: usize = 1024 * 1024;
const KEY_LENGTH_MAX: usize = 253;
const KEY_SYNTAX: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
     'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const IMMUTABLE: &str = "field is immutable when `immutable` is set";
/// Kubernetes' type of secrets that mean nothing in particular to it.
const OPAQUE: &str = "Opaque";

fn members<'o>(object: &'o Value, field: &str) -> impl Iterator<Item = (&'o String, &'o Value)> {
    object.get(field).and_then(Value::as_object).into_iter().flatten()
}

fn key_errors(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if key.len() > KEY_LENGTH_MAX {
        errors.push(format!("must be no more than {KEY_LENGTH_MAX} bytes"));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if key.is_empty() || !key.chars().all(legal) {
        errors.push(KEY_SYNTAX.to_owned());
    }
    match key {
        "." => errors.push("must not be '.'".to_owned()),
        ".." => errors.push("must not be '..'".to_owned()),
        _ if key.starts_with("..") => errors.push("must not start with '..'".to_owned()),
        _ => {}
    }
    errors
}

fn check_keys(object: &Value, field: &str, causes: &mut Vec<Cause>) {
    for (key, _) in members(object, field) {
        for why in key_errors(key) {
            causes.push(Cause::invalid(format!("{field}[{key}]"), &key.as_str().into(), &why));
        }
    }
}

fn check_immutable(old: &Value, new: &Value, fields: &[&str], causes: &mut Vec<Cause>) {
    if old["immutable"] != true {
        return;
    }
    if new["immutable"] != true {
        causes.push(Cause::forbidden("immutable", IMMUTABLE));
    }
    let empty = Value::Object(Map::new());
    let of = |object: &Value, field: &str| {
        object.get(field).filter(|value| !value.is_null()).unwrap_or(&empty).clone()
    };
    for field in fields {
        if of(old, field) != of(new, field) {
            causes.push(Cause::forbidden(*field, IMMUTABLE));
        }
    }
}

pub(super) struct ConfigMaps;

impl Strategy for ConfigMaps {
    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = Vec::new();
        if let Some(old) = old {
            check_immutable(old, object, &["data", "binaryData"], &mut causes);
        }
        check_keys(object, "data", &mut causes);
        for (key, _) in members(object, "data") {
            if object.get("binaryData").is_some_and(|binary| binary.get(key).is_some()) {
                let why = "duplicate of key present in binaryData";
                let field = format!("data[{key}]");
                causes.push(Cause::invalid(field, &key.as_str().into(), why));
            }
        }
        check_keys(object, "binaryData", &mut causes);
        let text = members(object, "data").map(|(_, value)| value.as_str().map_or(0, str::len));
        let binary = members(object, "binaryData")
            .map(|(_, value)| decoded_length(value.as_str().unwrap_or("")).unwrap_or(0));
        if text.chain(binary).sum::<usize>() > BYTES_MAX {
            causes.push(Cause::too_long("[]", &format!("may not be more than {BYTES_MAX} bytes")));
        }
        causes
    }
}

/// ServiceAccount: of the secrets that it may use it keeps the names.
pub(super) struct ServiceAccounts;

impl Strategy for ServiceAccounts {
    fn default(&self, object: &mut Value) {
        let secrets = object.get_mut("secrets").and_then(Value::as_array_mut);
        for secret in secrets.into_iter().flatten() {
            if let Some(members) = secret.as_object_mut() {
                members.retain(|name, _| name == "name");
            }
        }
    }
}

pub(super) struct Secrets;

impl Strategy for Secrets {
    /// A type for those that do not say theirs; `stringData` is a way to write `data`.
    fn default(&self, object: &mut Value) {
        if object["type"].as_str().unwrap_or_default().is_empty() {
            object["type"] = OPAQUE.into();
        }
        let texts = object.as_object_mut().and_then(|members| members.remove("stringData"));
        let Some(Value::Object(texts)) = texts else { return };
        if !texts.is_empty() && !object["data"].is_object() {
            object["data"] = Value::Object(Map::new());
        }
        for (key, text) in texts {
            object["data"][key] = BASE64.encode(text.as_str().unwrap_or_default()).into();
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = Vec::new();
        if let Some(old) = old {
            if old["type"] != object["type"] {
                causes.push(Cause::invalid("type", &object["type"], "field is immutable"));
            }
            check_immutable(old, object, &["data"], &mut causes);
        }
        check_keys(object, "data", &mut causes);
        let bytes = members(object, "data")
            .map(|(_, value)| decoded_length(value.as_str().unwrap_or("")).unwrap_or(0));
        if bytes.sum::<usize>() > BYTES_MAX {
            causes
                .push(Cause::too_long("data", &format!("may not be more than {BYTES_MAX} bytes")));
        }
        check_secret_type(object, &mut causes);
        causes
    }
}

/// What Kubernetes' own types of secrets must hold.
fn check_secret_type(object: &Value, causes: &mut Vec<Cause>) {
    let has = |key: &str| object["data"].get(key).is_some();
    let mut require = |key: &str| causes.push(Cause::required(format!("data[{key}]"), ""));
    match object["type"].as_str().unwrap_or_default() {
        "kubernetes.io/service-account-token" => {
            const NAME: &str = "kubernetes.io/service-account.name";
            if object["metadata"]["annotations"][NAME].as_str().unwrap_or_default().is_empty() {
                causes.push(Cause::required(format!("metadata.annotations[{NAME}]"), ""));
            }
        }
        "kubernetes.io/dockercfg" => check_json(object, ".dockercfg", causes),
        "kubernetes.io/dockerconfigjson" => check_json(object, ".dockerconfigjson", causes),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            require("username");
            require("password");
        }
        "kubernetes.io/ssh-auth"
            if object["data"]["ssh-privatekey"].as_str().unwrap_or_default().is_empty() =>
        {
            require("ssh-privatekey");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|key| !has(key)) {
                require(key);
            }
        }
        _ => {}
    }
}

fn check_json(object: &Value, key: &str, causes: &mut Vec<Cause>) {
    let field = format!("data[{key}]");
    let Some(text) = object["data"].get(key).and_then(Value::as_str) else {
        causes.push(Cause::required(field, ""));
        return;
    };
    let bytes = BASE64.decode(text).unwrap_or_default();
    let why = match schema::decode_strict(&bytes) {
        Ok((Value::Object(_) | Value::Null, _)) => return,
        Ok((other, _)) => {
            let what = go::json_type(&other);
            format!("json: cannot unmarshal {what} into Go value of type map[string]interface {{}}")
        }
        Err(refused) => refused.into_message(),
    };
    causes.push(Cause::invalid(field, &"<secret contents redacted>".into(), &why));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(causes: Vec<Cause>) -> Vec<String> {
        causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn keys_and_sizes_are_those_of_kubernetes() {
        let map = json!({"data": {"a b": "x", "..": "y", "same": "z"}, "binaryData": {"same": ""}});
        let causes = told(ConfigMaps.validate(&map, None));
        assert_eq!(causes.len(), 3, "{causes:?}");
        assert_eq!(causes[0], "data[..]: Invalid value: \"..\": must not be '..'");
        assert!(
            causes[1].starts_with("data[a b]: Invalid value: \"a b\": a valid config key must")
        );
        assert!(causes[2].ends_with("duplicate of key present in binaryData"));
        let large = json!({"data": {"a": "x".repeat(BYTES_MAX + 1)}});
        let long = ["[]: Too long: may not be more than 1048576 bytes"];
        assert_eq!(told(ConfigMaps.validate(&large, None)), long);
    }

    #[test]
    fn what_is_immutable_stays() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let new = json!({"data": {"a": "2"}});
        assert_eq!(
            told(ConfigMaps.validate(&new, Some(&old))),
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ]
        );
        assert_eq!(told(ConfigMaps.validate(&old, Some(&old))), Vec::<String>::new());
    }

    #[test]
    fn types_of_secrets_demand_their_keys() {
        let of = |type_: &str, data: Value| {
            told(Secrets.validate(&json!({"type": type_, "data": data}), None))
        };
        assert_eq!(of("Opaque", json!({})), Vec::<String>::new());
        assert_eq!(
            of("kubernetes.io/tls", json!({})),
            ["data[tls.crt]: Required value", "data[tls.key]: Required value"]
        );
        assert_eq!(
            of("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": "e3g="})),
            [
                "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": invalid character 'x' looking \
              for beginning of object key string"
            ]
        );
        let (old, new) = (json!({"type": "a"}), json!({"type": "b"}));
        assert_eq!(
            told(Secrets.validate(&new, Some(&old))),
            ["type: Invalid value: \"b\": field is immutable"]
        );
    }

    #[test]
    fn base64_is_read_as_go_reads_it() {
        assert_eq!(decoded_length("aGk="), Ok(2));
        assert_eq!(decoded_length("aG\nk="), Ok(2));
        assert_eq!(decoded_length("not-base64!"), Err(3));
        assert_eq!(decoded_length("aGkab"), Err(4));
    }
}
