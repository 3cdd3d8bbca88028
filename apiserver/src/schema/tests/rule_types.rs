//! The types of validation rules: what compiles, and in which words the rest is refused.
#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use crate::schema::structural;

fn schema() -> Value {
    let text = json!({"type": "string", "maxLength": 20});
    json!({"type": "object", "properties": {
        "n": {"type": "integer"}, "f": {"type": "number"}, "s": text, "b": {"type": "boolean"},
        "any": {"x-kubernetes-int-or-string": true},
        "time": {"type": "string", "format": "date-time"},
        "span": {"type": "string", "format": "duration"},
        "bytes": {"type": "string", "format": "byte", "maxLength": 20},
        "numbers": {"type": "array", "maxItems": 5, "items": {"type": "integer"}},
        "words": {"type": "array", "maxItems": 5, "items": text},
        "map": {"type": "object", "maxProperties": 5, "additionalProperties": {"type": "integer"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "untyped": {"x-kubernetes-preserve-unknown-fields": true},
        "inner": {"type": "object", "properties": {"a": text, "list": {
            "type": "array", "maxItems": 5,
            "items": {"type": "object", "properties": {"k": text, "v": {"type": "integer"}}},
        }}},
    }})
}

/// What is wrong with a rule of the object itself.
fn refused(rule: &str) -> Vec<String> {
    let mut schema = schema();
    schema["x-kubernetes-validations"] = json!([{"rule": rule}]);
    if rule.contains('\n') {
        schema["x-kubernetes-validations"][0]["message"] = "no".into();
    }
    let causes = structural::check(&schema, "S");
    let told = causes.into_iter().map(|cause| match cause.message.split_once("}: ") {
        Some((_, why)) => why.to_owned(),
        None => cause.message,
    });
    told.collect()
}

#[test]
fn what_fits_compiles() {
    let rules = [
        "self.metadata.name.startsWith('a') && self.kind == 'K' && self.apiVersion != ''",
        "self.n < self.f && self.f >= 1 && self.n < 2u",
        "self.s + 'x' == 'yx' && self.s.size() < 5 && size(self.words) > 0",
        "self.numbers + [1] == [1, 2] && self.numbers.sum() > 0 && self.words.isSorted()",
        "self.map['a'] > 0 && 'a' in self.map && self.map.all(k, k.size() > 0 && self.map[k] > 0)",
        "type(self.any) == int ? self.any > 5 : self.any == '50%'",
        "self.time > timestamp('2026-01-01T00:00:00Z') && self.time - self.time < duration('1h')",
        "self.time.getFullYear() == 2026 && self.span.getHours() < 5 && self.time + self.span != self.time",
        "self.inner.list.exists(e, e.k == 'a' && e.v > 0) && self.inner.list.map(e, e.v).max() < 9",
        "self.inner.list.filter(e, e.v > 1).map(e, e.v > 2, e.k) == ['a']",
        "has(self.inner.a) && !has(self.free) || has(self.map.x)",
        "self.words.all(i, w, i >= 0 && w != '') && self.map.exists(k, v, v > 0 && k != '')",
        "self.words.existsOne(i, w, w == 'a') && self.words.exists_one(w, w == 'a')",
        "self.words.transformList(i, w, i > 0, w + 'x') == ['bx']",
        "self.map.transformMap(k, v, v + 1)['a'] == 2",
        "self.words.transformMapEntry(i, w, {w: i})['a'] == 0",
        "self.?inner.?a.orValue('') == '' && self.inner.?list[?0].hasValue()",
        "self.?inner.a.optMap(a, a == 'x').orValue(true)",
        "optional.of(1).optFlatMap(v, optional.none()).orValue(2) == 2",
        "[?self.?s, 'b'].size() == 2 && {?'a': self.?n}.size() == 1",
        "quantity('1Gi').isGreaterThan(quantity('1Mi')) && quantity('1').add(1).asInteger() == 2",
        "ip('::1').family() == 6 && cidr('10.0.0.0/8').containsIP('10.0.0.1') && ip.isCanonical('::1')",
        "url('https://a/b?c=d').getQuery()['c'] == ['d'] && isURL(self.s)",
        "self.s.find('a') == '' && self.s.matches('^a') && self.s.split(',').size() == 1 && self.words.join('-') == ''",
        "format.dns1123Label().validate(self.s).hasValue() && !format.named('uuid').hasValue()",
        "semver('1.2.3').major() == 1 && isSemver(self.s)",
        "sets.contains(self.words, ['a']) && '%s-%d'.format([dyn(self.s), self.n]) == ''",
        "[] == [] && {} == {} && [1, 2] != [] && null != self.inner",
        "dyn(self.n) == 'x' || [dyn(1), 'a'].size() == 2 || !!true || - -1 == 1",
        "self.words.map(w, {'w': w}).all(m, m.w == 'a' && m['w'] != 'b')",
        "self == oldSelf",
    ];
    for rule in rules {
        assert_eq!(refused(rule), Vec::<String>::new(), "{rule}");
    }
}

#[test]
fn what_does_not_fit_is_told_with_its_place() {
    let at = |column: usize, rule: &str, why: &str| {
        let dots = ".".repeat(column - 1);
        format!("compilation failed: ERROR: <input>:1:{column}: {why}\n | {rule}\n | {dots}^")
    };
    let overload = |name: &str, applied: &str| {
        format!("found no matching overload for '{name}' applied to '{applied}'")
    };
    let undeclared = |name: &str| format!("undeclared reference to '{name}' (in container '')");
    let cases = [
        ("self.n == 'a'", 8, overload("_==_", "(int, string)")),
        ("self.n == self.f", 8, overload("_==_", "(int, double)")),
        ("self.s.startsWith(5)", 18, overload("startsWith", "string.(int)")),
        ("size(self.n) > 0", 5, overload("size", "(int)")),
        ("self.n + self.s == 'a'", 8, overload("_+_", "(int, string)")),
        ("self.n && true", 8, overload("_&&_", "(int, bool)")),
        ("!self.n", 1, overload("!_", "(int)")),
        ("self.n ? true : false", 8, overload("_?_:_", "(int, bool, bool)")),
        ("self.words[0] == self.numbers[0]", 15, overload("_==_", "(string, int)")),
        ("self.map[1] == 1", 9, overload("_[_]", "(map(string, int), int)")),
        ("self.numbers['a'] == 1", 13, overload("_[_]", "(list(int), string)")),
        ("'a' in self.numbers", 5, overload("@in", "(string, list(int))")),
        ("self.words.sum() == 'a'", 15, overload("sum", "list(string).()")),
        ("self.words.all(w, w > 1)", 21, overload("_>_", "(string, int)")),
        ("self.time < self.span", 11, overload("_<_", "(google.protobuf.Timestamp, google.protobuf.Duration)")),
        ("self.nothing == 1", 5, "undefined field 'nothing'".into()),
        ("self.inner.b == 'a'", 11, "undefined field 'b'".into()),
        ("has(self.nothing)", 4, "undefined field 'nothing'".into()),
        ("self.untyped == 1", 5, "undefined field 'untyped'".into()),
        ("self.free.x == 1", 10, "undefined field 'x'".into()),
        ("self.n.x == 1", 7, "type 'int' does not support field selection".into()),
        ("nothing == 1", 1, undeclared("nothing")),
        ("what(self.n)", 5, undeclared("what")),
        ("self.s.what()", 12, undeclared("what")),
        ("self.words.all(w, v == 'a')", 19, undeclared("v")),
        ("self.n.all(x, true)", 5, "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)".into()),
        ("[1, 'a'].size() == 2", 5, "expected type 'int' but found 'string'".into()),
        ("self.words.all(w.x, true)", 17, "argument must be a simple name".into()),
        ("has(self)", 5, "invalid argument to has() macro".into()),
        ("self.s.matches('(')", 16, "invalid matches argument".into()),
        ("self.span > duration('x')", 22, "invalid duration argument".into()),
        ("timestamp('x') == self.time", 11, "invalid timestamp argument".into()),
    ];
    for (rule, column, why) in cases {
        assert_eq!(refused(rule), [at(column, rule, &why)], "{rule}");
    }
    for rule in ["self.n", "self.any", "self.s + 'a'", "self.words", "self.?b.orValue(1)"] {
        let told = refused(rule);
        assert_eq!(told.len(), 1, "{rule}");
        let compiled = "cel expression must evaluate to a bool";
        assert!(told[0] == compiled || told[0].contains("no matching overload"), "{told:?}");
    }
}

#[test]
fn what_kubernetes_does_not_enable_is_unknown() {
    let rules = [
        "math.greatest(1, self.n) == 3",
        "base64.encode(self.bytes) == 'a'",
        "cel.bind(x, self.n, x > 1)",
        "lists.range(3) == [0, 1, 2]",
        "self.words.distinct() == self.words",
        "self.words.sort() == self.words",
        "self.words.sortBy(w, w) == self.words",
        "self.words.flatten() == self.words",
        "self.words.slice(0, 1) == self.words",
        "self.s.reverse() == self.s",
        "jsonpatch.escapeKey(self.s) == self.s",
    ];
    for rule in rules {
        let told = refused(rule);
        assert!(told.len() == 1 && told[0].contains("undeclared reference to"), "{rule}: {told:?}");
    }
}

#[test]
fn every_error_of_a_rule_is_told_in_its_order() {
    let rule = "self.x == 1 &&\n  what(self.n) && y";
    let why = [
        "compilation failed: ERROR: <input>:1:5: undefined field 'x'\n | self.x == 1 &&\n | ....^",
        "ERROR: <input>:2:7: undeclared reference to 'what' (in container '')\n |   what(self.n) && y\n | ......^",
        "ERROR: <input>:2:19: undeclared reference to 'y' (in container '')\n |   what(self.n) && y\n | ..................^",
    ];
    assert_eq!(refused(rule), [why.join("\n")]);
}

#[test]
fn a_rule_about_what_has_no_schema_is_refused() {
    let untyped = json!({"x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-validations": [{"rule": "true"}]});
    let schema = json!({"type": "object", "properties": {"x": untyped}});
    let causes = structural::check(&schema, "S");
    assert_eq!(causes[0].reason, "InternalError");
    assert_eq!(causes[0].field, "S.properties[x].x-kubernetes-validations");
    assert!(causes[0].message.ends_with("unable to convert structural schema to CEL declarations"));
}
