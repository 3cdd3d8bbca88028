//! Label and field selectors of list, watch and deletecollection.
//!
//! Parsed once per request, matched once per object or event: matching allocates nothing.

mod labels;

use crate::resource::ResourceDef;
use crate::schema::go::quoted;
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
        let requirements = labels::parse(text).map_err(ApiError::bad_request)?;
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

impl FieldSelector {
    /// `a=b,a==b,a!=b` with `\,`, `\=` and `\\` escaped; empty selects everything.
    ///
    /// # Errors
    /// 400 when malformed. Whether a kind supports the fields: [`FieldSelector::check_supported`].
    pub fn parse(text: &str) -> Result<FieldSelector, ApiError> {
        // In Kubernetes' order, which decides what is complained about.
        let mut terms: Vec<&str> = split_unescaped(text).filter(|term| !term.is_empty()).collect();
        terms.sort_unstable();
        let requirements: Result<Vec<_>, _> =
            terms.into_iter().map(|term| field_requirement(text, term)).collect();
        Ok(FieldSelector { requirements: requirements? })
    }

    /// `metadata.name=NAME`.
    pub fn of_name(name: &str) -> FieldSelector {
        FieldSelector::equal("metadata.name", name)
    }

    /// `FIELD=VALUE`, whatever the value is made of.
    pub(crate) fn equal(field: &str, value: &str) -> FieldSelector {
        let (field, value) = (field.to_owned(), value.to_owned());
        FieldSelector { requirements: vec![FieldRequirement { field, value, negated: false }] }
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// # Errors
    /// 400 naming the first field this kind cannot be selected by.
    pub fn check_supported(&self, def: &ResourceDef) -> Result<(), ApiError> {
        let Some(field) = self.fields().find(|field| !def.supports_field(field)) else {
            return Ok(());
        };
        // Kubernetes' kinds without fields of their own share one conversion with its own words.
        Err(ApiError::bad_request(match def.has_plain_fields() {
            true => format!(
                "{} is not a known field selector: only \"metadata.name\", \
                 \"metadata.namespace\"",
                quoted(field)
            ),
            false => format!("field label not supported: {field}"),
        }))
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

impl FieldSelector {
    /// With other values where `change` gives one for a field that must have a value.
    pub(crate) fn with(&self, change: impl Fn(&str, &str) -> Option<String>) -> FieldSelector {
        let changed = |one: &FieldRequirement| {
            let value = (!one.negated).then(|| change(&one.field, &one.value)).flatten();
            FieldRequirement { value: value.unwrap_or_else(|| one.value.clone()), ..one.clone() }
        };
        FieldSelector { requirements: self.requirements.iter().map(changed).collect() }
    }
}

fn field_requirement(selector: &str, term: &str) -> Result<FieldRequirement, ApiError> {
    // The first operator wins; a `!` alone is none.
    let operator = term.char_indices().find_map(|(at, _)| {
        let rest = &term[at..];
        let operator = ["!=", "==", "="].into_iter().find(|operator| rest.starts_with(operator))?;
        Some((at, operator))
    });
    let Some((at, operator)) = operator else {
        let message = format!("invalid selector: '{selector}'; can't understand '{term}'");
        return Err(ApiError::bad_request(message));
    };
    let value = unescape(&term[at + operator.len()..])?;
    Ok(FieldRequirement { field: term[..at].to_owned(), value, negated: operator == "!=" })
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

fn unescape(value: &str) -> Result<String, ApiError> {
    let refused = |why: String| ApiError::bad_request(format!("invalid field selector: {why}"));
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => plain.push(c),
                other => {
                    let sequence: String = ['\\'].into_iter().chain(other).collect();
                    return Err(refused(format!("invalid escape sequence: {sequence}")));
                }
            },
            // Kubernetes prints the character's number.
            '=' | ',' => {
                let number = u32::from(c);
                return Err(refused(format!("unescaped character in value: {number}")));
            }
            _ => plain.push(c),
        }
    }
    Ok(plain)
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
            ("example.com/x in (,)", true),
            ("app in (,web)", true),
            ("in in (in)", false),
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
        for text in [
            "a b", "a=b c", "a in", "a in (x", "=x", "a>x", "a,", "a,=", "a in ()", "-a=b",
            "a=b=c", "a=-",
        ] {
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
