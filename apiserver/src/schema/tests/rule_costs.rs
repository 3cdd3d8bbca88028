//! The estimated cost of validation rules, by which definitions are refused. The bounds were
//! measured with kube-apiserver's own validation, of Kubernetes 1.36, by others.
#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use crate::schema::structural;

fn told(x: Value) -> Vec<(String, String)> {
    let schema = json!({"type": "object", "properties": {"x": x}});
    structural::check(&schema, "S").into_iter().map(|cause| (cause.field, cause.message)).collect()
}

fn words(items: Option<u64>, length: Option<u64>, rule: &str) -> Value {
    let mut list = json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": [{"rule": rule}]});
    if let Some(items) = items {
        list["maxItems"] = items.into();
    }
    if let Some(length) = length {
        list["items"]["maxLength"] = length.into();
    }
    list
}

#[test]
fn a_rule_is_as_expensive_as_its_bounds_allow() {
    let rule = "self.all(x, x.contains('gpu'))";
    let bounds = [(16, 909_090), (63, 333_333), (253, 94_339), (1024, 24_154)];
    for (length, most) in bounds {
        assert_eq!(told(words(Some(most), Some(length), rule)), [], "{length}");
        let refused = told(words(Some(most + 1), Some(length), rule));
        assert!(refused[0].1.contains("by factor of 1.0000"), "{length}: {refused:?}");
    }
}

#[test]
fn a_rule_that_is_too_expensive_is_told_in_kubernetes_words() {
    let advice = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    let at = "S.properties[x].x-kubernetes-validations[0].rule".to_owned();
    let forbidden = |field: &str, what: &str| (field.to_owned(), format!("Forbidden: {what}"));
    assert_eq!(
        told(words(None, None, "self.all(x, x.contains('gpu'))")),
        [
            forbidden(
                &at,
                &format!("estimated rule cost exceeds budget by factor of more than 100x {advice}")
            ),
            forbidden(
                &at,
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
            ),
            forbidden(
                "S",
                &format!(
                    "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x {advice}"
                )
            ),
        ]
    );
    let twice = told(words(Some(2_000_000), Some(16), "self.all(x, x.contains('gpu'))"));
    assert_eq!(
        twice,
        [forbidden(&at, &format!("estimated rule cost exceeds budget by factor of 2.2x {advice}"))]
    );
    let mut message = words(Some(10), Some(10), "true");
    message["x-kubernetes-validations"][0]["messageExpression"] =
        "self.map(a, self.map(b, self.map(c, self.map(d, self.map(e, self.map(f, f)))))).size() > 0 ? 'a' : 'b'".into();
    let told = told(message);
    assert_eq!(told[0].0, "S.properties[x].x-kubernetes-validations[0].messageExpression");
    assert!(
        told[0].1.starts_with("Forbidden: estimated messageExpression cost exceeds budget"),
        "{told:?}"
    );
}

#[test]
fn nesting_multiplies() {
    let numbers = |rule: &str| json!({"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [{"rule": rule}]});
    assert_eq!(told(numbers("self.all(x, x == 5)")), []);
    let lists = json!({"type": "array", "items": {"type": "array", "items": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.all(y, y.all(x, x == 5))"}]});
    assert!(told(lists)[0].1.contains("more than 100x"));
    // The rule of an item counts once for each.
    let items = |most: Option<u64>| {
        let item = json!({"type": "string", "maxLength": 10, "x-kubernetes-validations": [{"rule": "self.contains('abcdefghij')"}]});
        let mut list = json!({"type": "array", "items": item});
        if let Some(most) = most {
            list["maxItems"] = most.into();
        }
        list
    };
    assert_eq!(told(items(Some(100))), []);
    assert!(!told(items(Some(5_000_000))).is_empty());
}

#[test]
fn what_a_conversion_makes_has_no_bound() {
    // As in Kubernetes (issue 124234 there): only comparing it is cheap.
    let of = |rule: &str| json!({"type": "integer", "x-kubernetes-validations": [{"rule": rule}]});
    assert_eq!(told(of("string(self) == '5'")), []);
    assert!(told(of("string(self) + 'x' == '5x'"))[0].1.contains("more than 100x"));
    assert_eq!(told(of("'%d'.format([self]) != '' && ip('::1') == ip('::2')")), []);
}

#[test]
fn what_has_no_length_is_cheap() {
    let object = json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
    "x-kubernetes-validations": [
        {"rule": "has(self.a) && self.a > 0 && self.a < 100 || !has(self.b)"},
        {"rule": "self.b.size() < 10 && self.b.startsWith('abc')"},
        {"rule": "!has(oldSelf.a) || self.a >= oldSelf.a"},
        {"rule": "self.b == oldSelf.b", "message": "b is immutable"},
        {"rule": "self.b.matches('^[a-z]+$')"},
    ]});
    assert_eq!(told(object), []);
}
