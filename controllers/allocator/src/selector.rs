//! Label selectors, as Kubernetes defines them.

use std::collections::BTreeMap;

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// The label is there, with one of the values.
    In,
    /// The label is not there, or has none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what; only for `In` and `NotIn`.
    pub values: Vec<String>,
}

/// Conditions that must all hold; without any, everything matches.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(pub Vec<Requirement>);

impl Selector {
    /// From a selector's `matchLabels`; add expressions with [`Selector::and`].
    pub fn labels<K: Into<String>, V: Into<String>>(
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self(
            labels
                .into_iter()
                .map(|(key, value)| Requirement {
                    key: key.into(),
                    operator: Operator::In,
                    values: vec![value.into()],
                })
                .collect(),
        )
    }

    /// With one more condition.
    #[must_use]
    pub fn and(
        mut self,
        key: impl Into<String>,
        operator: Operator,
        values: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        self.0.push(Requirement { key: key.into(), operator, values });
        self
    }

    /// Whether there is no condition.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether these labels meet every condition.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match requirement.operator {
                Operator::In => value.is_some_and(|value| requirement.values.contains(value)),
                Operator::NotIn => value.is_none_or(|value| !requirement.values.contains(value)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator() {
        let labels = BTreeMap::from([("rack".to_owned(), "r7".to_owned())]);
        let none: [&str; 0] = [];
        for (key, operator, values, matches) in [
            ("rack", Operator::In, &["r6", "r7"][..], true),
            ("rack", Operator::In, &["r6"], false),
            ("zone", Operator::In, &["z"], false),
            ("rack", Operator::NotIn, &["r6"], true),
            ("rack", Operator::NotIn, &["r7"], false),
            ("zone", Operator::NotIn, &["z"], true),
            ("rack", Operator::Exists, &none, true),
            ("zone", Operator::Exists, &none, false),
            ("rack", Operator::DoesNotExist, &none, false),
            ("zone", Operator::DoesNotExist, &none, true),
        ] {
            let selector = Selector::default().and(key, operator, values.iter().copied());
            assert_eq!(selector.matches(&labels), matches, "{selector:?}");
        }
        assert!(Selector::default().matches(&labels));
        let both = Selector::labels([("rack", "r7")]).and("zone", Operator::Exists, none);
        assert!(!both.matches(&labels));
    }
}
