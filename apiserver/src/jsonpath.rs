//! The JSONPath subset of printer columns, selectable fields and scale paths.
//!
//! Dotted names, `['name']`, `[0]`, `[-1]`, `[-1:]`, `[*]` and filters `[?(@.type=="Ready")]`;
//! anything else is an error when the definition is read, never when an object is printed.

use serde_json::Value;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    source: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Member(String),
    /// Negative counts from the end.
    Index(i64),
    /// From, to (not included) and by how many; negative places count from the end.
    Slice(Option<i64>, Option<i64>, usize),
    Every,
    Filter(Filter),
}

/// `[?(@.a.b == value)]`: keeps the elements whose member compares so.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    path: Vec<String>,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Exists,
    Equal(Value),
    NotEqual(Value),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} at byte {at} of {source_text:?}")]
pub struct JsonPathError {
    pub message: &'static str,
    pub at: usize,
    pub source_text: String,
}

impl JsonPath {
    /// # Errors
    /// Syntax outside the subset.
    pub fn parse(source: &str) -> Result<JsonPath, JsonPathError> {
        let inner =
            source.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(source);
        let mut parser = Parser { text: inner, at: 0 };
        let steps = parser.steps().map_err(|message| JsonPathError {
            message,
            at: parser.at,
            source_text: source.to_owned(),
        })?;
        Ok(JsonPath { source: source.to_owned(), steps })
    }

    /// The text it was parsed from.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// `spec.agent` of `.spec.agent`: the name a field selector uses. `None` unless plain members.
    pub fn field_name(&self) -> Option<String> {
        let names: Option<Vec<&str>> = self
            .steps
            .iter()
            .map(|step| match step {
                Step::Member(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        names.filter(|names| !names.is_empty()).map(|names| names.join("."))
    }

    /// The first value the path leads to, in document order.
    pub fn first<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        first_of(&self.steps, value)
    }
}

fn first_of<'v>(steps: &[Step], value: &'v Value) -> Option<&'v Value> {
    let Some((step, rest)) = steps.split_first() else { return Some(value) };
    match step {
        Step::Member(name) => first_of(rest, value.get(name)?),
        Step::Index(index) => {
            let list = value.as_array()?;
            first_of(rest, list.get(place(*index, list.len())?)?)
        }
        Step::Slice(from, to, step) => {
            let list = value.as_array()?;
            let from = from.map_or(Some(0), |from| place(from, list.len()))?;
            let to = to.map_or(Some(list.len()), |to| place(to, list.len()))?;
            let slice = list.get(from..to.min(list.len()))?;
            slice.iter().step_by(*step).find_map(|one| first_of(rest, one))
        }
        Step::Every => match value {
            Value::Array(list) => list.iter().find_map(|one| first_of(rest, one)),
            Value::Object(map) => map.values().find_map(|one| first_of(rest, one)),
            _ => None,
        },
        Step::Filter(filter) => value
            .as_array()?
            .iter()
            .filter(|one| filter.keeps(one))
            .find_map(|one| first_of(rest, one)),
    }
}

/// A place in a list of this length; `None` before its beginning.
fn place(at: i64, length: usize) -> Option<usize> {
    match usize::try_from(at) {
        Ok(at) => Some(at),
        Err(_) => length.checked_sub(at.unsigned_abs() as usize),
    }
}

impl Filter {
    fn keeps(&self, value: &Value) -> bool {
        let found = self.path.iter().try_fold(value, |at, name| at.get(name));
        match &self.test {
            Test::Exists => found.is_some(),
            Test::Equal(wanted) => found.is_some_and(|found| same(found, wanted)),
            Test::NotEqual(wanted) => found.is_some_and(|found| !same(found, wanted)),
        }
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn steps(&mut self) -> Result<Vec<Step>, &'static str> {
        let mut steps = Vec::new();
        self.eat("$");
        while !self.rest().is_empty() {
            if self.eat("..") {
                return Err("recursive descent is not supported");
            }
            if self.eat("[") {
                self.bracket(&mut steps)?;
            } else {
                if !self.eat(".") && !steps.is_empty() {
                    return Err("expected . or [");
                }
                if self.rest().is_empty() && steps.is_empty() {
                    break;
                }
                if self.rest().starts_with('[') {
                    continue;
                }
                let name = self.name();
                match name.as_str() {
                    "" => return Err("expected a field name"),
                    "*" => steps.push(Step::Every),
                    _ => steps.push(Step::Member(name)),
                }
            }
        }
        Ok(steps)
    }

    /// Up to the next `.` or `[`; a backslash takes the next character as it is.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '.' | '[' | ' ' | ')' | '=' | '!' | ']' => {
                    self.at += at;
                    return name;
                }
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                _ => name.push(c),
            }
        }
        self.at = self.text.len();
        name
    }

    /// After `[`.
    fn bracket(&mut self, steps: &mut Vec<Step>) -> Result<(), &'static str> {
        if self.eat("?(") {
            steps.push(Step::Filter(self.filter()?));
            return Ok(());
        }
        let Some(end) = self.rest().find(']') else { return Err("unterminated [") };
        let inner = self.rest()[..end].trim();
        if inner == "*" {
            steps.push(Step::Every);
        } else if let Some(name) = quoted(inner) {
            // As Go has it, a name in quotes is a path: dots that are not escaped part it.
            steps.extend(Parser { text: name, at: 0 }.steps()?);
        } else if let Some(slice) = slice(inner)? {
            steps.push(slice);
        } else {
            let why = "expected an index, a slice, a quoted name, * or a filter";
            steps.push(Step::Index(inner.parse().map_err(|_| why)?));
        }
        self.at += end + 1;
        Ok(())
    }

    /// After `[?(`.
    fn filter(&mut self) -> Result<Filter, &'static str> {
        self.spaces();
        if !self.eat("@") {
            return Err("expected @");
        }
        let mut path = Vec::new();
        while self.eat(".") {
            path.push(self.name());
        }
        self.spaces();
        let equal = self.eat("==");
        let not_equal = !equal && self.eat("!=");
        let test = if equal || not_equal {
            self.spaces();
            let value = self.literal()?;
            if equal { Test::Equal(value) } else { Test::NotEqual(value) }
        } else {
            Test::Exists
        };
        self.spaces();
        if !self.eat(")]") {
            return Err("expected )]");
        }
        Ok(Filter { path, test })
    }

    fn literal(&mut self) -> Result<Value, &'static str> {
        let quote = self.rest().chars().next().filter(|c| *c == '"' || *c == '\'');
        if let Some(quote) = quote {
            let Some(end) = self.rest()[1..].find(quote) else { return Err("unterminated string") };
            let text = self.rest()[1..=end].to_owned();
            self.at += end + 2;
            return Ok(Value::String(text));
        }
        let end = self.rest().find([')', ' ']).ok_or("unterminated filter")?;
        let value = serde_json::from_str(&self.rest()[..end]).map_err(|_| "expected a literal")?;
        self.at += end;
        Ok(value)
    }
}

/// `from:to:step`, each of which may be missing; `None` without a colon.
fn slice(text: &str) -> Result<Option<Step>, &'static str> {
    const WHY: &str = "expected from:to or from:to:step";
    let mut parts = text.split(':').map(str::trim);
    let number = |part: Option<&str>| match part.filter(|part| !part.is_empty()) {
        None => Ok(None),
        Some(part) => part.parse::<i64>().map(Some).map_err(|_| WHY),
    };
    if !text.contains(':') {
        return Ok(None);
    }
    let (from, to) = (number(parts.next())?, number(parts.next())?);
    let step = number(parts.next())?.unwrap_or(1);
    match (usize::try_from(step), parts.next()) {
        (Ok(step), None) if step > 0 => Ok(Some(Step::Slice(from, to, step))),
        _ => Err(WHY),
    }
}

fn quoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| *c == '"' || *c == '\'')?;
    text.strip_prefix(quote)?.strip_suffix(quote)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_where_kubernetes_says() {
        let object = json!({
            "spec": {"agent": "n1", "a.b": 1, "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Full", "n": 3}]},
        });
        let cases = [
            (".spec.agent", Some(json!("n1"))),
            ("spec.agent", Some(json!("n1"))),
            ("{.spec.agent}", Some(json!("n1"))),
            ("$.spec.agent", Some(json!("n1"))),
            (".spec['agent']", Some(json!("n1"))),
            (".spec.a\\.b", Some(json!(1))),
            (".spec['a\\.b']", Some(json!(1))),
            (".spec['a.b']", None),
            (".spec.env[-1:].name", Some(json!("B"))),
            (".spec.env[0:1].name", Some(json!("A"))),
            (".spec.env[1:].name", Some(json!("B"))),
            (".spec.env[0:2:2].name", Some(json!("A"))),
            (".spec.env[2:].name", None),
            (".spec.env[-3:].name", None),
            (".spec.env[0].name", Some(json!("A"))),
            (".spec.env[-1].name", Some(json!("B"))),
            (".spec.env[*].value", Some(json!("1"))),
            (".spec.env[2].name", None),
            (".spec.env[-3].name", None),
            (".spec.nothing.at.all", None),
            (".status.conditions[?(@.type==\"Ready\")].status", Some(json!("True"))),
            (".status.conditions[?(@.type=='Gone')].status", None),
            (".status.conditions[?(@.type!='Ready')].type", Some(json!("Full"))),
            (".status.conditions[?(@.n)].type", Some(json!("Full"))),
            (".status.conditions[?(@.n == 3)].type", Some(json!("Full"))),
        ];
        for (path, wanted) in cases {
            let parsed = JsonPath::parse(path).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(parsed.first(&object), wanted.as_ref(), "{path}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_early() {
        for path in [
            "..name",
            ".spec[",
            ".spec[a]",
            ".spec[?(@.a==1]",
            ".spec..agent",
            ".a[?(b)]",
            ".a[1:x]",
            ".a[::0]",
        ] {
            assert!(JsonPath::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn only_plain_members_name_a_field() {
        assert_eq!(
            JsonPath::parse(".spec.agent").unwrap().field_name().as_deref(),
            Some("spec.agent")
        );
        assert_eq!(JsonPath::parse(".spec.env[0]").unwrap().field_name(), None);
    }
}
