//! Types and values, with the messages of Kubernetes' OpenAPI validator, which clients print.
//!
//! The order of the checks at a place, what hides what, and which alternative of an `anyOf` is
//! reported (that with the most matches) are that validator's too.

use serde_json::{Map, Number, Value};

use super::node::{Checks, Node, Type};
use super::path::Path;
use super::ratchet;
use crate::status::Cause;

/// The value at the same place before an update, where it can be told.
pub(super) type Old<'v> = Option<&'v Value>;

pub(super) struct Validator {
    pub(super) causes: Vec<Cause>,
    /// An update: what was wrong before and has not been touched is tolerated.
    pub(super) ratchets: bool,
}

/// How much of a value a schema has a say in and agrees with; it ranks alternatives.
type Matches = usize;

impl Validator {
    fn add(&mut self, cause: Cause) {
        if !self.causes.contains(&cause) {
            self.causes.push(cause);
        }
    }

    fn invalid(&mut self, path: &Path<'_>, value: &Value, detail: &str) {
        self.add(Cause::invalid(path.field(), value, detail));
    }

    pub(super) fn validate(
        &mut self,
        node: &Node,
        value: &Value,
        old: Old<'_>,
        path: &Path<'_>,
    ) -> Matches {
        let before = self.causes.len();
        let matches = self.at(node, value, old, path);
        if self.ratchets && self.causes.len() > before && old == Some(value) {
            self.causes.truncate(before);
        }
        matches
    }

    fn at(&mut self, node: &Node, value: &Value, old: Old<'_>, path: &Path<'_>) -> Matches {
        // Every place counts itself, its enum and its junctors.
        let mut matches = 4;
        if !node.types.is_empty() {
            matches += 1 + usize::from(self.type_of(node, value, path));
        }
        if value.is_null() {
            self.value_of(node, value, path);
            return matches;
        }
        if node.logic.is_some() {
            matches += self.logic(node, value, old, path);
        }
        match value {
            Value::String(text) => {
                matches += 2;
                if let Some(checks) = &node.checks {
                    self.string(checks, value, text, path);
                }
            }
            Value::Number(number) => {
                matches += 2;
                self.range(node, "Checked", number, path);
                if let Some(checks) = &node.checks {
                    self.number(node, checks, value, number, path);
                }
            }
            Value::Array(list) => matches += self.array(node, list, old, path),
            _ => {}
        }
        self.value_of(node, value, path);
        if let Value::Object(map) = value {
            matches += self.object(node, map, old, path);
        }
        matches
    }

    fn type_of(&mut self, node: &Node, value: &Value, path: &Path<'_>) -> bool {
        if (value.is_null() && node.nullable) || node.types.iter().any(|type_| type_.holds(value)) {
            return true;
        }
        let found = Type::name_of(value);
        let wanted: Vec<&str> = node.types.iter().map(|type_| type_.name()).collect();
        let detail = format!("{path} in body must be of type {}: {found:?}", wanted.join(","));
        self.add(Cause::type_invalid(path.field(), &found.into(), &detail));
        false
    }

    fn value_of(&mut self, node: &Node, value: &Value, path: &Path<'_>) {
        if node.one_of_values.is_empty() || node.one_of_values.contains(value) {
            return;
        }
        let shown: Vec<String> = node
            .one_of_values
            .iter()
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect();
        self.add(Cause::not_supported(path.field(), value, shown.iter().map(String::as_str)));
    }

    /// The first of these that fails is told, no more.
    fn string(&mut self, checks: &Checks, value: &Value, text: &str, path: &Path<'_>) {
        // Characters are counted only where bytes do not settle it.
        if let Some(most) = checks.max_length
            && text.len() > most
            && text.chars().count() > most
        {
            let bytes = if most == 1 { "byte" } else { "bytes" };
            self.add(Cause::too_long(
                path.field(),
                &format!("may not be more than {most} {bytes}"),
            ));
        } else if let Some(least) = checks.min_length
            && (text.len() < least || text.chars().count() < least)
        {
            self.invalid(
                path,
                value,
                &format!("{path} in body should be at least {least} chars long"),
            );
        } else if let Some(pattern) = &checks.pattern
            && !pattern.regex.is_match(text)
        {
            let detail = format!("{path} in body should match '{}'", pattern.text);
            self.invalid(path, value, &detail);
        }
        if let Some(format) = checks.format
            && !format.holds(text)
        {
            let detail = format!("{path} in body must be of type {}: {text:?}", format.name());
            self.add(Cause::type_invalid(path.field(), value, &detail));
        }
    }

    /// What the type and its format can hold is asked of bounds too.
    fn range(&mut self, node: &Node, what: &str, number: &Number, path: &Path<'_>) {
        let Some(type_) = node.types.first() else { return };
        let format = node.number_format.as_deref();
        if !type_.has_room(format, number) {
            let format = format
                .map_or("(default format)".to_owned(), |format| format!("with format {format}"));
            let name = type_.name();
            let detail = format!("{what} value must be of type {name} {format} in {path}");
            self.add(Cause::invalid("<nil>", &"".into(), &detail));
        }
    }

    fn bound_range(&mut self, node: &Node, what: &str, bound: f64, path: &Path<'_>) {
        if let Some(bound) = Number::from_f64(bound) {
            self.range(node, what, &bound, path);
        }
    }

    fn number(
        &mut self,
        node: &Node,
        checks: &Checks,
        value: &Value,
        number: &Number,
        path: &Path<'_>,
    ) {
        let amount = number.as_f64().unwrap_or(f64::NAN);
        // An integer is compared with the integral part of the bound.
        let bound = |bound: f64| if number.is_f64() { bound } else { bound.trunc() };
        if let Some(unit) = checks.multiple_of {
            self.bound_range(node, "MultipleOf", unit, path);
            let times = if unit < 1.0 { 1.0 / unit * amount } else { amount / unit };
            if times.fract() != 0.0 {
                self.invalid(
                    path,
                    value,
                    &format!("{path} in body should be a multiple of {unit}"),
                );
            }
        }
        if let Some(least) = checks.minimum {
            self.bound_range(node, "Minimum boundary", least, path);
            let least = bound(least);
            if checks.exclusive_minimum && amount <= least {
                self.invalid(
                    path,
                    value,
                    &format!("{path} in body should be greater than {least}"),
                );
            } else if amount < least {
                let detail = format!("{path} in body should be greater than or equal to {least}");
                self.invalid(path, value, &detail);
            }
        }
        if let Some(most) = checks.maximum {
            self.bound_range(node, "Maximum boundary", most, path);
            let most = bound(most);
            if checks.exclusive_maximum && amount >= most {
                self.invalid(path, value, &format!("{path} in body should be less than {most}"));
            } else if amount > most {
                let detail = format!("{path} in body should be less than or equal to {most}");
                self.invalid(path, value, &detail);
            }
        }
    }

    fn array(&mut self, node: &Node, list: &[Value], old: Old<'_>, path: &Path<'_>) -> Matches {
        let mut matches = 2;
        if let Some(items) = &node.items {
            let old = ratchet::Items::of(node, old.filter(|_| self.ratchets));
            for (index, item) in list.iter().enumerate() {
                matches += self.validate(items, item, old.of_item(item), &Path::Item(path, index));
            }
        }
        if let Some(checks) = &node.checks {
            let size = list.len();
            if let Some(least) = checks.min_items.filter(|least| size < *least) {
                let detail = format!("{path} in body should have at least {least} items");
                self.invalid(path, &size.into(), &detail);
            }
            if let Some(most) = checks.max_items.filter(|most| size > *most) {
                self.add(Cause::too_many(path.field(), size, most));
            }
        }
        matches
    }

    fn object(
        &mut self,
        node: &Node,
        map: &Map<String, Value>,
        old: Old<'_>,
        path: &Path<'_>,
    ) -> Matches {
        let mut matches = 1;
        if let Some(checks) = &node.checks {
            let size = map.len();
            // A wrong number of members hides everything else about them.
            if let Some(least) = checks.min_properties.filter(|least| size < *least) {
                let detail = format!("{path} in body should have at least {least} properties");
                self.invalid(path, &size.into(), &detail);
                return matches;
            }
            if let Some(most) = checks.max_properties.filter(|most| size > *most) {
                self.add(Cause::too_many(path.field(), size, most));
                return matches;
            }
        }
        let old = old.filter(|_| self.ratchets && node.granular);
        for (name, value) in map {
            if let Some(child) = node.properties.get(name).or(node.additional.as_deref()) {
                let old = old.and_then(|old| old.get(name));
                matches += self.validate(child, value, old, &Path::Member(path, name));
            }
        }
        for name in &node.required {
            if !map.contains_key(name) {
                self.add(Cause::required(Path::Member(path, name).to_string(), ""));
            }
        }
        matches
    }

    fn logic(&mut self, node: &Node, value: &Value, old: Old<'_>, path: &Path<'_>) -> Matches {
        let Some(logic) = &node.logic else { return 0 };
        let mut matches = 0;
        let ratchets = self.ratchets;
        let alternative = |schema: &Node| {
            let mut inner = Validator { causes: Vec::new(), ratchets };
            let matches = inner.validate(schema, value, old, path);
            (matches, inner.causes)
        };
        if !logic.any_of.is_empty() {
            let mut best: Option<(Matches, Vec<Cause>)> = None;
            for schema in &logic.any_of {
                let found = alternative(schema);
                let is_valid = found.1.is_empty();
                if is_valid || best.as_ref().is_none_or(|best| found.0 > best.0) {
                    best = Some(found);
                }
                if is_valid {
                    break;
                }
            }
            let (count, causes) = best.unwrap_or_default();
            matches += count;
            if !causes.is_empty() {
                self.of_whole(path, "must validate at least one schema (anyOf)");
                causes.into_iter().for_each(|cause| self.add(cause));
            }
        }
        if !logic.one_of.is_empty() {
            matches += self.one_of(logic.one_of.iter().map(alternative).collect(), path);
        }
        let mut valid = 0;
        for schema in &logic.all_of {
            let mut inner = Validator { causes: Vec::new(), ratchets };
            matches += inner.validate(schema, value, old, path);
            valid += usize::from(inner.causes.is_empty());
            inner.causes.into_iter().for_each(|cause| self.add(cause));
        }
        if valid < logic.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            self.of_whole(path, &format!("must validate all the schemas (allOf){none}"));
        }
        if let Some(not) = &logic.not {
            let mut inner = Validator { causes: Vec::new(), ratchets };
            inner.validate(not, value, old, path);
            if inner.causes.is_empty() {
                self.of_whole(path, "must not validate the schema (not)");
            }
        }
        matches
    }

    fn one_of(&mut self, found: Vec<(Matches, Vec<Cause>)>, path: &Path<'_>) -> Matches {
        let valid = found.iter().filter(|(_, causes)| causes.is_empty()).count();
        if valid > 1 {
            let detail = "must validate one and only one schema (oneOf). Found";
            self.of_whole(path, &format!("{detail} {valid} valid alternatives"));
            return 0;
        }
        if valid == 1 {
            let valid = found.into_iter().find(|(_, causes)| causes.is_empty());
            return valid.map_or(0, |(count, _)| count);
        }
        self.of_whole(path, "must validate one and only one schema (oneOf). Found none valid");
        // The first of those with the most matches.
        let best = found.into_iter().reduce(|best, one| if one.0 > best.0 { one } else { best });
        let (count, causes) = best.unwrap_or_default();
        causes.into_iter().for_each(|cause| self.add(cause));
        count
    }

    /// Kubernetes reports junctors about the whole object, whose path prints as `<nil>`.
    fn of_whole(&mut self, path: &Path<'_>, what: &str) {
        let detail = format!("{:?} {what}", path.to_string());
        self.add(Cause::invalid("<nil>", &"".into(), &detail));
    }
}
