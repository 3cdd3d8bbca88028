//! Validation rules of custom resources: what they say, and when they are asked.
#![allow(clippy::unwrap_used)]
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::schema::{Structural, structural};

fn schema(x: Value) -> Value {
    json!({"type": "object", "properties": {"x": x}})
}

fn told(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
    let compiled = Structural::compile_value(schema).unwrap();
    let causes = match old {
        None => compiled.validate(object),
        Some(old) => compiled.validate_update(object, old),
    };
    causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}

/// What a rule says of a member `x` that is an object of many types.
fn of_rule(rule: &str, x: Value) -> Vec<String> {
    let of_x = json!({"type": "object",
        "x-kubernetes-validations": [{"rule": rule, "message": "no"}],
        "properties": {
            "n": {"type": "integer"}, "f": {"type": "number"}, "s": {"type": "string"}, "b": {"type": "boolean"},
            "t": {"type": "string", "format": "date-time"}, "d": {"type": "string", "format": "duration"},
            "bytes": {"type": "string", "format": "byte"},
            "list": {"type": "array", "items": {"type": "integer"}},
            "words": {"type": "array", "items": {"type": "string"}},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "any": {"x-kubernetes-int-or-string": true},
            "a_b": {"type": "integer"}, "c-d": {"type": "integer"}, "e__f": {"type": "integer"}, "namespace": {"type": "string"},
        },
    });
    told(&schema(of_x), &json!({"x": x}), None)
}

#[test]
fn the_language_and_kubernetes_libraries_work() {
    let x = json!({
        "n": 3, "f": 2, "s": "Hello", "b": true, "t": "2026-11-20T15:41:51Z", "d": "1h30m", "bytes": "aGk=",
        "list": [1, 2, 3], "words": ["b", "a"], "map": {"k-1": "v"}, "any": "50%",
        "a_b": 1, "c-d": 2, "e__f": 3, "namespace": "ns",
    });
    let holds = [
        "self.n == 3 && self.n + 1 > 3 && self.n * 2 == 6 && self.n / 2 == 1 && self.n % 2 == 1 && -self.n < 0",
        "self.f < 2.5 && self.f == 2.0",
        "self.s.startsWith('He') && self.s.endsWith('lo') && self.s.contains('ell') && size(self.s) == 5",
        "self.s.matches('^[A-Z][a-z]+$')",
        "self.b ? self.n == 3 : false",
        "!has(self.missing) || true",
        "has(self.n) && !has(self.map.nothing)",
        "self.list.all(i, i > 0) && self.list.exists(i, i == 2) && self.list.exists_one(i, i == 3)",
        "self.list.map(i, i * 2) == [2, 4, 6] && self.list.filter(i, i > 1).size() == 2",
        "2 in self.list && 'k-1' in self.map && self.map['k-1'] == 'v'",
        "self.map.all(k, self.map[k] == 'v')",
        "self.list[0] == 1",
        "self.t > timestamp('2026-01-01T00:00:00Z') && self.t.getFullYear() == 2026",
        "self.d == duration('90m') && self.d > duration('1h')",
        "size(self.bytes) == 2",
        "self.a_b == 1 && self.c__dash__d == 2 && self.e__underscores__f == 3 && self.__namespace__ == 'ns'",
        "type(self.any) == string ? self.any == '50%' : self.any == 50",
        "self.words.isSorted() == false && self.list.sum() == 6 && self.list.max() == 3 && self.list.min() == 1",
        "self.words.join('-') == 'b-a' && self.s.lowerAscii() == 'hello' && self.s.replace('l', 'L') == 'HeLLo'",
        "self.s.find('[a-z]+') == 'ello' && self.s.findAll('l').size() == 2 && 'a,b'.split(',').size() == 2",
        "isURL('https://example.com/a') && url('https://example.com:80/a').getPort() == '80'",
        "quantity('1Gi').isGreaterThan(quantity('1Mi')) && isQuantity('2') && !isQuantity('x')",
        "isIP('10.0.0.1') && ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.1.1')",
        "sets.contains([1, 2, 3], self.list) && sets.intersects(self.list, [3, 4])",
        "'%d-%s'.format([self.n, self.s]) == '3-Hello'",
        "isSemver('1.2.3') && semver('1.2.3').isGreaterThan(semver('1.0.0'))",
        "self.list.first().value() == 1 && self.list.last() == optional.of(3)",
        "optional.unwrap([self.?n, self.?missing]) == [3] && [self.?n].unwrapOpt() == [3]",
        "image('web').registry() == 'index.docker.io' && image('web').repository() == 'library/web'",
        "image('localhost:5000/a/b:v1').registry() == 'localhost:5000' && image('aa:v1').identifier() == 'v1'",
        "image('example.com/aa').tag() == 'latest' && !image('example.com/aa').containsDigest()",
        "isImage('docker.io/a/b') && !isImage('A') && !isImage('a:+') && !isImage('a@sha256:00') && !isImage('')",
        "optional.of(self.n).hasValue() && self.?n.orValue(0) == 3 && !self.?missing.hasValue()",
        "[1, 'x', 2].exists(i, i == 2)",
        "self.list.all(i, n, i + 1 == n) && self.map.exists(k, v, k == 'k-1' && v == 'v')",
        "self.words.existsOne(i, w, w == 'a' && i == 1) && !self.words.exists_one(i, w, i >= 0)",
        "self.words.transformList(i, w, w + string(i)) == ['b0', 'a1']",
        "self.words.transformList(i, w, i > 0, w) == ['a']",
        "self.map.transformMap(k, v, k + v) == {'k-1': 'k-1v'}",
        "self.map.transformMap(k, v, v != 'v', k).size() == 0",
        "self.words.transformMapEntry(i, w, {w: i}) == {'b': 0, 'a': 1}",
        "self.?s.optMap(s, s + '!').orValue('') == 'Hello!' && !self.?missing.optMap(s, s).hasValue()",
        "self.?s.optFlatMap(s, self.?n).orValue(0) == 3",
        "[?self.?missing, 1] == [1] && {?'a': self.?missing, 'b': 2} == {'b': 2}",
        "[[1, 2], [3]].all(l, l.all(n, n > 0)) && self.list.map(l, self.list.map(m, l * m))[1][2] == 6",
        r"!!true && - -1 == 1 && -1 < 0 && r'\d' == '\\d' && 'a' == '''a''' && 0x10 == 16 && 1e2 == 100.0",
        "self.list.exists(i, i / (i - 1) > 1 || i == 3)",
    ];
    let broken: Vec<_> = holds
        .into_iter()
        .filter_map(|rule| {
            Some((rule, of_rule(rule, x.clone()))).filter(|(_, told)| !told.is_empty())
        })
        .collect();
    assert_eq!(broken, []);
}

#[test]
fn failures_are_told_in_kubernetes_words() {
    let x = json!({"n": 0, "list": [1], "map": {}, "any": "a"});
    let cases = [
        ("self.n > 0", "x: Invalid value: no"),
        ("10 / self.n == 1", "x: Invalid value: \"object\": division by zero evaluating rule: no"),
        ("10 % self.n == 1", "x: Invalid value: \"object\": modulus by zero evaluating rule: no"),
        (
            "self.list[3] == 1",
            "x: Invalid value: \"object\": index out of bounds: 3 evaluating rule: no",
        ),
        ("self.map.k == 'v'", "x: Invalid value: \"object\": no such key: k evaluating rule: no"),
        ("self.s == 'v'", "x: Invalid value: \"object\": no such key: s evaluating rule: no"),
        (
            "self.any > 5",
            "x: Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, function or macro signature for rule: no",
        ),
    ];
    for (rule, wanted) in cases {
        assert_eq!(of_rule(rule, x.clone()), [wanted], "{rule}");
    }
}

#[test]
fn a_rule_says_its_message_reason_and_field() {
    let rule = |rule: Value| {
        let x = json!({"type": "object", "x-kubernetes-validations": [rule], "properties": {
            "n": {"type": "integer"}, "map": {"type": "object", "additionalProperties": {"type": "integer"}}}});
        let compiled = Structural::compile_value(&schema(x)).unwrap();
        let causes = compiled.validate(&json!({"x": {"n": 7}}));
        let told =
            causes.into_iter().map(|cause| (cause.reason.into_owned(), cause.field, cause.message));
        told.collect::<Vec<_>>()
    };
    let cases = [
        (
            json!({"rule": " self.n < 5 "}),
            "FieldValueInvalid",
            "x",
            "Invalid value: failed rule: self.n < 5",
        ),
        (
            json!({"rule": "self.n < 5", "messageExpression": "'n is ' + string(self.n)"}),
            "FieldValueInvalid",
            "x",
            "Invalid value: n is 7",
        ),
        (
            json!({"rule": "self.n < 5", "message": "too big", "messageExpression": "self.map.k"}),
            "FieldValueInvalid",
            "x",
            "Invalid value: too big",
        ),
        (
            json!({"rule": "self.n < 5", "message": "no", "reason": "FieldValueForbidden", "fieldPath": ".n"}),
            "FieldValueForbidden",
            "x.n",
            "Forbidden: no",
        ),
        (
            json!({"rule": "self.n < 5", "message": "no", "reason": "FieldValueRequired", "fieldPath": ".map['k']"}),
            "FieldValueRequired",
            "x.map[k]",
            "Required value: no",
        ),
        (
            json!({"rule": "self.n < 5", "message": "no", "reason": "FieldValueDuplicate"}),
            "FieldValueDuplicate",
            "x",
            "Duplicate value",
        ),
    ];
    for (of_rule, reason, field, message) in cases {
        let wanted = (reason.to_owned(), field.to_owned(), message.to_owned());
        assert_eq!(rule(of_rule.clone()), [wanted], "{of_rule}");
    }
}

#[test]
fn rules_hold_at_every_level_and_after_everything_else() {
    let positive = json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0", "message": "no"}]});
    let schema = json!({"type": "object",
    "x-kubernetes-validations": [{"rule": "self.metadata.name.startsWith('a')", "message": "name"}],
    "properties": {
        "list": {"type": "array", "items": positive},
        "map": {"type": "object", "additionalProperties": positive},
    }});
    let object = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "b", "uid": "u"}, "list": [1, 0], "map": {"k": 0}});
    assert_eq!(
        told(&schema, &object, None),
        [
            "<nil>: Invalid value: name",
            "list[1]: Invalid value: 0: no",
            "map[k]: Invalid value: 0: no",
        ]
    );
    let object = json!({"metadata": {"name": "b"}, "list": [0, "x"]});
    assert_eq!(
        told(&schema, &object, None),
        [
            "list[1]: Invalid value: \"string\": list[1] in body must be of type integer: \"string\"",
            "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ]
    );
}

#[test]
fn transition_rules_compare_with_what_was_there() {
    let fixed = json!({"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is immutable"}]});
    let schema = json!({"type": "object", "properties": {
        "fixed": fixed,
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": fixed}}},
        "once": {"type": "integer", "x-kubernetes-validations": [
            {"rule": "!oldSelf.hasValue() ? self == 1 : self > oldSelf.value()", "optionalOldSelf": true, "message": "must grow from 1"}]},
    }});
    let old = json!({"fixed": "a", "map": [{"k": "x", "v": "1"}, {"k": "y", "v": "2"}], "once": 1});
    assert_eq!(told(&schema, &old, None), Vec::<String>::new());
    let mut new = old.clone();
    new["once"] = json!(2);
    assert_eq!(told(&schema, &new, Some(&old)), Vec::<String>::new());
    let new = json!({"fixed": "b", "map": [{"k": "z", "v": "9"}, {"k": "y", "v": "3"}], "once": 1});
    assert_eq!(
        told(&schema, &new, Some(&old)),
        [
            "fixed: Invalid value: \"b\": is immutable",
            "map[1].v: Invalid value: \"3\": is immutable",
            "once: Invalid value: 1: must grow from 1",
        ]
    );
    assert_eq!(
        told(&schema, &json!({"once": 5}), None),
        ["once: Invalid value: 5: must grow from 1"]
    );
}

#[test]
fn a_rule_that_did_not_hold_before_is_tolerated_until_its_field_is_touched() {
    let schema = schema(json!({"type": "object", "properties": {"n": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.n > 5", "message": "no"}]}));
    let old = json!({"x": {"n": 1}});
    assert_eq!(
        told(&schema, &json!({"x": {"n": 1}, "metadata": {}}), Some(&old)),
        Vec::<String>::new()
    );
    assert_eq!(told(&schema, &json!({"x": {"n": 2}}), Some(&old)), ["x: Invalid value: no"]);
}

#[test]
fn sets_and_maps_are_equal_in_any_order() {
    let part = json!({"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}});
    let of = |rule: &str| {
        schema(
            json!({"type": "object", "x-kubernetes-validations": [{"rule": rule, "message": "no"}],
            "properties": {
                "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}},
                "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": part},
                "atoms": {"type": "array", "items": {"type": "integer"}},
            }}),
        )
    };
    let of_parts = |set: Value, parts: [(&str, i64); 2]| {
        let parts = parts.map(|(key, value)| json!({"k": key, "v": value}));
        json!({"x": {"set": set, "map": parts, "atoms": set}})
    };
    let old = of_parts(json!([1, 2]), [("a", 1), ("b", 2)]);
    let new = of_parts(json!([2, 1]), [("b", 2), ("a", 1)]);
    let other = of_parts(json!([2, 3]), [("b", 2), ("a", 3)]);
    for (rule, turned, changed) in [
        ("self.set == oldSelf.set", true, false),
        ("self.map == oldSelf.map", true, false),
        ("self.atoms == oldSelf.atoms", false, false),
        ("self.set != oldSelf.set", false, true),
        ("self.set + [1] == [2, 1] || self.set + [1] == [2, 3, 1]", true, true),
        ("(self.map + oldSelf.map).size() == 2 && (self.set + self.set).size() == 2", true, true),
        ("self.set[0] == 2", true, true),
    ] {
        assert_eq!(told(&of(rule), &new, Some(&old)).is_empty(), turned, "{rule}");
        assert_eq!(told(&of(rule), &other, Some(&old)).is_empty(), changed, "{rule}");
    }
}

#[test]
fn no_rule_stalls_the_server() {
    let list: Vec<i64> = (0..3000).collect();
    let long = "a".repeat(1 << 20);
    let limits = [
        "self.list.all(a, self.list.all(b, self.list.all(c, a + b + c >= 0)))",
        "self.s.replace('a', self.s).size() > 0",
        "self.list.map(a, self.list).size() > 0 && self.list.map(a, self.list.map(b, self.list)).size() > 0",
        "'%.999999999f'.format([1.0]).size() > 0",
    ];
    for rule in limits {
        let started = Instant::now();
        let told = of_rule(rule, json!({"list": list, "s": long}));
        assert!(
            told.len() == 1 && told[0].contains("call cost exceeds limit for rule: no"),
            "{rule}: {told:?}"
        );
        assert!(started.elapsed() < Duration::from_secs(20), "{rule}: {:?}", started.elapsed());
    }
    let nested = format!("{}true{}", "(".repeat(5000), ")".repeat(5000));
    let sum = format!("{}1 > 0", "1 + ".repeat(5000));
    for rule in [nested, sum] {
        let schema =
            schema(json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}]}));
        assert_eq!(structural::check(&schema, "S").len(), 1);
    }
}

#[test]
fn rules_that_cannot_hold_are_refused_with_the_definition() {
    let of_rule = |rule: Value| {
        let x = json!({"type": "object", "properties": {"n": {"type": "integer"}, "s": {"type": "string"}},
            "x-kubernetes-validations": [rule]});
        let causes = structural::check(&schema(x), "S");
        let told = causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message));
        told.filter(|told| told.starts_with("S.properties[x].x-")).collect::<Vec<_>>()
    };
    let shown = |rule: &str, why: &str| {
        format!(
            "S.properties[x].x-kubernetes-validations[0].rule: Invalid value: {{\"Rule\":{},\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}}: {why}",
            Value::from(rule)
        )
    };
    let cases = [
        (
            "self.foo > 0",
            "compilation failed: ERROR: <input>:1:5: undefined field 'foo'\n | self.foo > 0\n | ....^",
        ),
        (
            "self.n == 'a'",
            "compilation failed: ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(int, string)'\n | self.n == 'a'\n | .......^",
        ),
        (
            "what(self.n)",
            "compilation failed: ERROR: <input>:1:5: undeclared reference to 'what' (in container '')\n | what(self.n)\n | ....^",
        ),
        (
            "nothing == 1",
            "compilation failed: ERROR: <input>:1:1: undeclared reference to 'nothing' (in container '')\n | nothing == 1\n | ^",
        ),
        ("self.n + 1", "cel expression must evaluate to a bool"),
    ];
    for (rule, why) in cases {
        assert_eq!(of_rule(json!({"rule": rule})), [shown(rule, why)]);
    }
    let told = of_rule(json!({"rule": "self.n >"}));
    assert!(told[0].contains("compilation failed: ERROR: <input>:1:9: Syntax error: "), "{told:?}");
    assert_eq!(of_rule(json!({"rule": "self.n > 0"})), Vec::<String>::new());

    let x = json!({"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 10, "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}});
    let causes = structural::check(&schema(x), "S");
    assert_eq!(
        causes[0].message,
        "Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within S.properties[x]"
    );
}
