//! Whether a set of rules allows all that another allows, and what is missing if not: nobody may
//! grant what they have not.

use std::collections::{BTreeMap, BTreeSet};

use super::{ALL, Rule, covers_path, has};

/// What `wanted` allows and `held` does not, as rules of one verb on one thing each.
pub(crate) fn missing<'r>(held: &[&Rule], wanted: impl IntoIterator<Item = &'r Rule>) -> Vec<Rule> {
    let parts = wanted.into_iter().flat_map(parts);
    parts.filter(|part| !held.iter().any(|rule| covers(rule, part))).collect()
}

/// A rule's single permissions.
fn parts(rule: &Rule) -> Vec<Rule> {
    let mut parts = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let part = Rule {
                    verbs: vec![verb.clone()],
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..Rule::default()
                };
                if rule.resource_names.is_empty() {
                    parts.push(part);
                    continue;
                }
                parts.extend(
                    rule.resource_names
                        .iter()
                        .map(|name| Rule { resource_names: vec![name.clone()], ..part.clone() }),
                );
            }
        }
    }
    for url in &rule.non_resource_urls {
        parts.extend(rule.verbs.iter().map(|verb| Rule {
            verbs: vec![verb.clone()],
            non_resource_urls: vec![url.clone()],
            ..Rule::default()
        }));
    }
    parts
}

/// `part` has at most one of everything.
fn covers(held: &Rule, part: &Rule) -> bool {
    let all = |held: &[String], asked: &[String]| asked.iter().all(|one| has(held, one));
    all(&held.verbs, &part.verbs)
        && all(&held.api_groups, &part.api_groups)
        && part.resources.iter().all(|resource| covers_resource(&held.resources, resource))
        && part
            .non_resource_urls
            .iter()
            .all(|path| held.non_resource_urls.iter().any(|url| covers_path(url, path)))
        && (held.resource_names.is_empty()
            || (!part.resource_names.is_empty()
                && part.resource_names.iter().all(|name| held.resource_names.contains(name))))
}

fn covers_resource(held: &[String], asked: &str) -> bool {
    let whole = |name: &str| held.iter().any(|one| one == name);
    whole(ALL)
        || whole(asked)
        || asked.split_once('/').is_some_and(|(_, sub)| whole(&format!("*/{sub}")))
}

/// The missing permissions in Kubernetes' words, one line for each resource.
pub(crate) fn describe(missing: &[Rule]) -> String {
    let mut simple: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    let mut lines = BTreeSet::new();
    for rule in missing {
        match (&rule.api_groups[..], &rule.resources[..]) {
            ([group], [resource]) if rule.resource_names.is_empty() => {
                let verbs = simple.entry((group.as_str(), resource.as_str())).or_default();
                verbs.extend(rule.verbs.iter().cloned());
            }
            _ => {
                lines.insert(line(rule));
            }
        }
    }
    for ((group, resource), verbs) in simple {
        lines.insert(line(&Rule { verbs, ..super::rule(&[], group, &[resource]) }));
    }
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

fn line(rule: &Rule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let parts = parts.into_iter().filter(|(_, list)| !list.is_empty());
    let parts = parts.map(|(name, list)| format!("{name}:{}", go_list(list)));
    format!("{{{}}}", parts.collect::<Vec<_>>().join(", "))
}

/// `["a" "b"]`: Go's `%q` of a list.
pub(crate) fn go_list(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|one| format!("{one:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use super::super::{rule, strings, urls};
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let held = rule(&["get", "list"], "", &["pods", "*/status"]);
        let named = Rule { resource_names: strings(&["a"]), ..rule(&["get"], "", &["secrets"]) };
        for (wanted, says) in [
            (rule(&["get"], "", &["pods"]), ""),
            (rule(&["get"], "", &["tasks/status"]), ""),
            (
                rule(&["get", "watch", "create"], "", &["pods"]),
                "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"watch\" \"create\"]}",
            ),
            (rule(&["*"], "*", &["*"]), "{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}"),
            (
                named,
                "{APIGroups:[\"\"], Resources:[\"secrets\"], ResourceNames:[\"a\"], Verbs:[\"get\"]}",
            ),
            (urls(&["get"], &["/x"]), "{NonResourceURLs:[\"/x\"], Verbs:[\"get\"]}"),
        ] {
            assert_eq!(describe(&missing(&[&held], [&wanted])), says);
            let admin = [&rule(&["*"], "*", &["*"]), &urls(&["*"], &["*"])];
            assert_eq!(missing(&admin, [&wanted]), []);
        }
    }

    #[test]
    fn a_named_permission_does_not_cover_all_names() {
        let held =
            Rule { resource_names: strings(&["a", "b"]), ..rule(&["get"], "", &["secrets"]) };
        let one = Rule { resource_names: strings(&["b"]), ..rule(&["get"], "", &["secrets"]) };
        assert_eq!(missing(&[&held], [&one]), []);
        assert_eq!(missing(&[&held], [&rule(&["get"], "", &["secrets"])]).len(), 1);
    }
}
