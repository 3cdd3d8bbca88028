//! Label and field selectors of list, watch and deletecollection.
//!
//! Parsed once per request, matched once per object or event: matching allocates nothing.

use crate::resource::ResourceDef;
use crate::status::ApiError;

/// A conjunction of label requirements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<LabelRequirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct LabelRequirement {
    key: String,
    test: LabelTest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum LabelTest {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

/// A conjunction of exact field requirements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldRequirement {
    field: String,
    value: String,
    negated: bool,
}

impl LabelSelector {
    /// `a=b,a==b,a!=b,a in (x,y),a notin (x),a,!a,a>1,a<1`; empty selects everything.
    ///
    /// # Errors
    /// 400 with what was found and what was expected.
    pub fn parse(text: &str) -> Result<LabelSelector, ApiError> {
        let mut parser = LabelParser { rest: text };
        let requirements = parser.requirements().map_err(|message| {
            ApiError::bad_request(format!("unable to parse requirement: {message}"))
        })?;
        Ok(LabelSelector { requirements })
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn matches<'v>(&self, label: impl Fn(&str) -> Option<&'v str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.test.holds(label(&requirement.key)))
    }
}

impl LabelTest {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            LabelTest::Exists => value.is_some(),
            LabelTest::Absent => value.is_none(),
            LabelTest::In(any) => value.is_some_and(|value| any.iter().any(|one| one == value)),
            LabelTest::NotIn(none) => value.is_none_or(|value| none.iter().all(|one| one != value)),
            LabelTest::Greater(bound) => number().is_some_and(|value| value > *bound),
            LabelTest::Less(bound) => number().is_some_and(|value| value < *bound),
        }
    }
}

struct LabelParser<'t> {
    rest: &'t str,
}

impl<'t> LabelParser<'t> {
    fn requirements(&mut self) -> Result<Vec<LabelRequirement>, String> {
        let mut all = Vec::new();
        self.spaces();
        while !self.rest.is_empty() {
            all.push(self.requirement()?);
            self.spaces();
            if self.eat(",") {
                self.spaces();
                if self.rest.is_empty() {
                    return Err("found '', expected: identifier after ','".into());
                }
            } else if !self.rest.is_empty() {
                return Err(format!("found '{}', expected: ',' or 'end of string'", self.word()));
            }
        }
        Ok(all)
    }

    fn requirement(&mut self) -> Result<LabelRequirement, String> {
        let absent = self.eat("!");
        self.spaces();
        let key = self.word().to_owned();
        if let Err(why) = crate::meta::check_qualified_name(&key) {
            return Err(format!("<nil>: Invalid value: {key:?}: {why}"));
        }
        self.spaces();
        let test = if absent {
            LabelTest::Absent
        } else if self.rest.is_empty() || self.rest.starts_with(',') {
            LabelTest::Exists
        } else {
            self.test(&key)?
        };
        Ok(LabelRequirement { key, test })
    }

    fn test(&mut self, key: &str) -> Result<LabelTest, String> {
        if self.eat("==") || self.eat("=") {
            return Ok(LabelTest::In(vec![self.value(key)?]));
        }
        if self.eat("!=") {
            return Ok(LabelTest::NotIn(vec![self.value(key)?]));
        }
        if self.eat(">") {
            return self.number(key).map(LabelTest::Greater);
        }
        if self.eat("<") {
            return self.number(key).map(LabelTest::Less);
        }
        match self.word() {
            "in" => self.values(key).map(LabelTest::In),
            "notin" => self.values(key).map(LabelTest::NotIn),
            other => Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
        }
    }

    fn value(&mut self, key: &str) -> Result<String, String> {
        self.spaces();
        let value = self.word();
        crate::meta::check_label_value(value)
            .map_err(|why| format!("values[0][{key}]: Invalid value: {value:?}: {why}"))?;
        Ok(value.to_owned())
    }

    fn number(&mut self, key: &str) -> Result<i64, String> {
        let value = self.value(key)?;
        value.parse().map_err(|_| {
            format!("values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer")
        })
    }

    fn values(&mut self, key: &str) -> Result<Vec<String>, String> {
        self.spaces();
        if !self.eat("(") {
            return Err(format!("found '{}' expected: '('", self.word()));
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value(key)?);
            self.spaces();
            if self.eat(")") {
                return Ok(values);
            }
            if !self.eat(",") {
                return Err(format!("found '{}', expected: ',', ')' or identifier", self.word()));
            }
        }
    }

    fn spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> &'t str {
        let end = self
            .rest
            .find(|c: char| {
                c.is_whitespace() || matches!(c, '=' | '!' | ',' | '(' | ')' | '<' | '>')
            })
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }
}

impl FieldSelector {
    /// `a=b,a==b,a!=b` with `\,`, `\=` and `\\` escaped; empty selects everything.
    ///
    /// # Errors
    /// 400 when malformed. Whether a kind supports the fields: [`FieldSelector::check_supported`].
    pub fn parse(text: &str) -> Result<FieldSelector, ApiError> {
        let mut requirements = Vec::new();
        for term in split_unescaped(text) {
            if !term.is_empty() {
                requirements.push(field_requirement(term)?);
            }
        }
        Ok(FieldSelector { requirements })
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// # Errors
    /// 400 naming the first field this kind cannot be selected by.
    pub fn check_supported(&self, def: &ResourceDef) -> Result<(), ApiError> {
        match self.fields().find(|field| !def.supports_field(field)) {
            Some(field) => {
                Err(ApiError::bad_request(format!("field label not supported: {field}")))
            }
            None => Ok(()),
        }
    }

    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.requirements.iter().map(|requirement| requirement.field.as_str())
    }

    /// A missing field counts as the empty string, as in Kubernetes.
    pub fn matches<'v>(&self, field: impl Fn(&str) -> Option<&'v str>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = field(&requirement.field).unwrap_or("");
            (value == requirement.value) != requirement.negated
        })
    }

    /// The value this field must have, if the selector names one.
    pub fn exact(&self, field: &str) -> Option<&str> {
        let requirement = self
            .requirements
            .iter()
            .find(|requirement| requirement.field == field && !requirement.negated)?;
        Some(&requirement.value)
    }
}

fn field_requirement(term: &str) -> Result<FieldRequirement, ApiError> {
    let malformed =
        || ApiError::bad_request(format!("invalid selector: '{term}'; can't understand '{term}'"));
    let at = term.find(['=', '!']).ok_or_else(malformed)?;
    let (field, rest) = term.split_at(at);
    let (negated, value) = if let Some(value) = rest.strip_prefix("!=") {
        (true, value)
    } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        (false, value)
    } else {
        return Err(malformed());
    };
    let value = unescape(value).ok_or_else(malformed)?;
    Ok(FieldRequirement { field: field.trim().to_owned(), value, negated })
}

/// Splits at commas that no backslash escapes.
fn split_unescaped(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let cut = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        cut
    })
}

fn unescape(value: &str) -> Option<String> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.push(chars.next().filter(|c| matches!(c, '\\' | ',' | '='))?),
            '=' | ',' => return None,
            _ => plain.push(c),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn label<'a>(labels: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<&'a str> {
        move |key| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    #[test]
    fn label_selectors_match_as_in_kubernetes() {
        let labels = [("app", "web"), ("n", "5"), ("example.com/x", "")];
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            (" app = web ", true),
            ("app!=web", false),
            ("gone!=web", true),
            ("app in (db,web)", true),
            ("app in (db)", false),
            ("app notin (db, web)", false),
            ("gone notin (db)", true),
            ("gone in (db)", false),
            ("app", true),
            ("gone", false),
            ("!app", false),
            ("!gone", true),
            ("n>4", true),
            ("n>5", false),
            ("n<6", true),
            ("app>1", false),
            ("example.com/x=", true),
            ("example.com/x in ()", true),
            ("app=web,n in (5,6),!gone", true),
            ("app=web,gone", false),
        ];
        for (text, wanted) in cases {
            assert_eq!(
                LabelSelector::parse(text).unwrap().matches(label(&labels)),
                wanted,
                "{text}"
            );
        }
    }

    #[test]
    fn malformed_label_selectors_are_refused() {
        for text in ["a b", "a=b c", "a in", "a in (x", "=x", "a>x", "a,", "-a=b", "a=b=c", "a=-"] {
            let error = LabelSelector::parse(text).unwrap_err();
            assert_eq!((error.code, &*error.reason), (400, "BadRequest"), "{text}");
        }
    }

    #[test]
    fn no_text_makes_the_parsers_panic() {
        let texts =
            ["a=b,c in (d,e),!f,g>1", "a=ä\\,b!=c\\=d", "(ä)=[ö", "{.a['b'][0][?(@.c==\"d\")]}"];
        for text in texts {
            let bounds = (0..=text.len()).filter(|at| text.is_char_boundary(*at));
            for cut in bounds {
                for piece in [
                    text[..cut].to_owned(),
                    text[cut..].to_owned(),
                    format!("{}ß{}", &text[..cut], &text[cut..]),
                ] {
                    // What comes out does not matter, only that something does.
                    let _ = LabelSelector::parse(&piece);
                    let _ = FieldSelector::parse(&piece);
                    let _ = crate::jsonpath::JsonPath::parse(&piece);
                }
            }
        }
    }

    #[test]
    fn field_selectors_compare_exactly() {
        let fields = [("spec.agent", "n1"), ("a", "x,y=z\\")];
        let cases = [
            ("", true),
            ("spec.agent=n1", true),
            ("spec.agent==n1", true),
            ("spec.agent!=n1", false),
            ("spec.agent=n2", false),
            ("spec.gone=", true),
            ("spec.gone!=", false),
            (r"a=x\,y\=z\\,spec.agent=n1", true),
        ];
        for (text, wanted) in cases {
            assert_eq!(
                FieldSelector::parse(text).unwrap().matches(label(&fields)),
                wanted,
                "{text}"
            );
        }
        for text in ["spec.agent", "a=b=c", "a!b", r"a=\x"] {
            assert!(FieldSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_exact_requirement_can_drive_an_index() {
        let selector = FieldSelector::parse("spec.agent=n1,status.state!=Lost").unwrap();
        assert_eq!(selector.exact("spec.agent"), Some("n1"));
        assert_eq!(selector.exact("status.state"), None);
    }
}
