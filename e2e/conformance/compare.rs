//! Whether an answer is what a case expects; placeholders stand for what differs between runs.

use serde_json::Value;

/// How much of an object an expectation has to name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// Fields that are not named may be there.
    AtLeast,
    Exactly,
}

/// Every place where `found` is not as `wanted`, as lines.
pub(crate) fn differences(wanted: &Value, found: &Value, strictness: Strictness) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", wanted, Some(found), strictness, &mut lines);
    lines
}

fn compare(
    place: &str,
    wanted: &Value,
    found: Option<&Value>,
    strictness: Strictness,
    lines: &mut Vec<String>,
) {
    if let Value::String(text) = wanted
        && text == "$absent"
    {
        if let Some(found) = found {
            lines.push(format!("{place}: should not be there, is {found}"));
        }
        return;
    }
    let Some(found) = found else {
        lines.push(format!("{place}: not there, should be {wanted}"));
        return;
    };
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            for (name, one) in wanted {
                compare(&format!("{place}/{name}"), one, found.get(name), strictness, lines);
            }
            if strictness == Strictness::Exactly {
                for (name, one) in found.iter().filter(|(name, _)| !wanted.contains_key(*name)) {
                    lines.push(format!("{place}/{name}: should not be there, is {one}"));
                }
            }
        }
        (Value::Array(wanted), Value::Array(found)) => {
            if wanted.len() != found.len() {
                let counts = format!("{} elements, should be {}", found.len(), wanted.len());
                lines.push(format!("{place}: {counts}: {}", Value::from(found.clone())));
                return;
            }
            for (at, (wanted, found)) in wanted.iter().zip(found).enumerate() {
                compare(&format!("{place}/{at}"), wanted, Some(found), strictness, lines);
            }
        }
        (Value::String(wanted), Value::String(found)) => {
            if !text_matches(wanted, found) {
                lines.push(format!("{place}:\n      {found:?}, should be\n      {wanted:?}"));
            }
        }
        (Value::String(wanted), Value::Object(_)) if wanted == "$object" => {}
        (Value::String(wanted), Value::Array(_)) if wanted == "$list" => {}
        (Value::String(wanted), found) if wanted == "$any" => {
            if found.is_null() {
                lines.push(format!("{place}: null, should be anything else"));
            }
        }
        (Value::Number(wanted), Value::Number(found)) if wanted.as_f64() == found.as_f64() => {}
        (wanted, found) if wanted == found => {}
        (wanted, found) => lines.push(format!("{place}: {found}, should be {wanted}")),
    }
}

/// `wanted` may be a placeholder (see README.md), or have one between other text: `a $version b`.
pub(crate) fn text_matches(wanted: &str, found: &str) -> bool {
    let Some(at) = wanted.find('$') else { return wanted == found };
    let (before, rest) = wanted.split_at(at);
    let length = rest[1..].find(|c: char| !c.is_ascii_lowercase()).map_or(rest.len(), |at| at + 1);
    let (placeholder, after) = rest.split_at(length);
    let Some(class) = class(placeholder) else { return wanted == found };
    let Some(found) = found.strip_prefix(before) else { return false };
    let longest =
        if placeholder == "$any" { found.len() } else { run(found, |c| class.contains(c)) };
    // The longest first; the text after the placeholder decides.
    (class.least()..=longest)
        .rev()
        .filter(|end| found.is_char_boundary(*end))
        .any(|end| text_matches(after, &found[end..]))
}

fn run(text: &str, holds: impl Fn(char) -> bool) -> usize {
    text.find(|c| !holds(c)).unwrap_or(text.len())
}

struct Class {
    characters: fn(char) -> bool,
    length_least: usize,
}

impl Class {
    fn contains(&self, c: char) -> bool {
        (self.characters)(c)
    }

    fn least(&self) -> usize {
        self.length_least
    }
}

fn class(placeholder: &str) -> Option<Class> {
    let (characters, length_least): (fn(char) -> bool, usize) = match placeholder {
        "$any" => (|_| true, 0),
        "$uid" => (|c| c.is_ascii_hexdigit() || c == '-', 36),
        "$version" | "$number" => (|c| c.is_ascii_digit(), 1),
        // 2026-11-20T15:41:51Z; microseconds have seven characters more.
        "$time" => (|c| c.is_ascii_digit() || "-:.TZ".contains(c), 20),
        "$age" => (|c| c.is_ascii_digit() || "smhdy".contains(c), 2),
        "$hash" => (|c| c.is_ascii_hexdigit(), 40),
        // What generateName appends.
        "$suffix" => (|c| "bcdfghjklmnpqrstvwxz2456789".contains(c), 5),
        "$token" => (|c| c.is_ascii_alphanumeric() || "-_=".contains(c), 1),
        _ => return None,
    };
    Some(Class { characters, length_least })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn placeholders_stand_for_what_differs() {
        for (wanted, found, same) in [
            ("a", "a", true),
            ("a", "b", false),
            ("$any", "", true),
            ("$version", "12", true),
            ("$version", "x", false),
            ("too old: $version ($version)", "too old: 1 (500)", true),
            ("too old: $version ($version)", "too old: 1 ()", false),
            ("$uid", "24aefcd3-9e72-4b58-9bb6-7216b9418a84", true),
            ("$time", "2026-11-20T15:41:51Z", true),
            ("x-$suffix", "x-bcdfg", true),
            ("costs $5", "costs $5", true),
        ] {
            assert_eq!(text_matches(wanted, found), same, "{wanted} {found}");
        }
    }

    #[test]
    fn what_is_not_named_may_be_there() {
        let found = json!({"a": 1, "b": [{"c": "x", "d": null}]});
        let wanted = json!({"b": [{"c": "$any", "e": "$absent"}]});
        assert_eq!(differences(&wanted, &found, Strictness::AtLeast), Vec::<String>::new());
        assert_eq!(differences(&wanted, &found, Strictness::Exactly).len(), 2);
        assert_eq!(differences(&json!({"b": []}), &found, Strictness::AtLeast).len(), 1);
        assert_eq!(differences(&json!({"z": null}), &found, Strictness::AtLeast).len(), 1);
    }
}
