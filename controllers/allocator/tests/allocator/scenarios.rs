//! Scenarios with what Mesos 1.11 decides in them, and our own beside them.

use commonage_allocator::replay::{Outcome, replay};

/// What Mesos never could, and what its master does beside the allocator.
const LEVELS: &str = include_str!("../cases/levels.json");
/// What follows from the rules that scenario files state.
const RULES: &str = include_str!("../cases/rules.json");
/// Facts about Mesos' decisions.
const MESOS: &str = include_str!("../cases/allocator.json");
/// More of them.
const MORE: &str = include_str!("../cases/mesos.json");
/// Several rules at once.
const COMBINATIONS: &str = include_str!("../cases/combinations.json");

#[test]
fn what_mesos_decides_is_what_we_decide() {
    assert_eq!(passed(MESOS), (68, 78));
}

#[test]
fn what_else_mesos_decides_is_what_we_decide() {
    let (passed, all) = passed(MORE);
    assert_eq!(passed, all);
}

#[test]
fn guarantees_and_limits_hold_at_every_level() {
    let (passed, all) = passed(LEVELS);
    assert_eq!(passed, all);
}

#[test]
fn the_rules_hold_where_no_test_of_mesos_looks() {
    let (passed, all) = passed(RULES);
    assert_eq!(passed, all);
}

#[test]
fn rules_hold_together() {
    let (passed, all) = passed(COMBINATIONS);
    assert_eq!(passed, all);
}

/// How many cases passed, and how many there are; none may fail.
fn passed(text: &str) -> (usize, usize) {
    let reports = replay(text).unwrap();
    let failed: Vec<String> = reports
        .iter()
        .filter_map(|report| match &report.outcome {
            Outcome::Failed(wrong) => Some(format!("{}:\n  {}", report.name, wrong.join("\n  "))),
            _ => None,
        })
        .collect();
    assert!(failed.is_empty(), "{} failed\n{}", failed.len(), failed.join("\n"));
    let passed = reports.iter().filter(|report| report.outcome == Outcome::Passed).count();
    (passed, reports.len())
}

fn wrong(text: &str) -> String {
    match &replay(text).unwrap()[0].outcome {
        Outcome::Failed(wrong) => wrong.join("\n"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_never_looked_at_does_not_pass() {
    for case in [
        r#"{"kind": "roles", "steps": [], "expected": [{"exist": ["a"]}]}"#,
        r#"{"kind": "roles", "steps": [{"op": "updateWeight", "role": "a", "weight": 2}], "expected": [{"after_step": 0, "exist": ["b"]}]}"#,
        r#"{"kind": "random_sorter", "clients": ["a"], "steps": [], "expected": [{"probability_of_client_i_at_position_j": [[0.0]]}]}"#,
    ] {
        assert!(wrong(case).contains("expectation 1: no step comes before it"), "{}", wrong(case));
    }
}

#[test]
fn what_is_unknown_is_named() {
    let unknown = wrong(r#"{"name": "x", "steps": [{"op": "fly", "to": "moon"}]}"#);
    assert!(unknown.contains("step 1") && unknown.contains("fly"), "{unknown}");
    let unknown = wrong(r#"{"steps": [{"op": "removeAgent", "agent": "a", "how": "fast"}]}"#);
    assert!(unknown.contains("step 1") && unknown.contains("how"), "{unknown}");
    let unknown = wrong(r#"{"steps": [], "expected": [{"after_step": 0, "mood": "good"}]}"#);
    assert!(unknown.contains("expectation 1") && unknown.contains("mood"), "{unknown}");
    for (step, said) in [
        (r#"{"op": "removeAgent", "agent": "a"}"#, "no \"a\" was ever there"),
        (
            r#"{"op": "recover", "framework": "f", "role": "r", "agent": "a"}"#,
            "no \"f\" was ever there",
        ),
        (r#"{"op": "suppress", "framework": "f"}"#, "no \"f\" there"),
        (
            r#"{"op": "addFramework", "framework": "f", "roles": ["r"], "capabilities": ["GPU"]}"#,
            "unknown \"GPU\"",
        ),
        (
            r#"{"op": "addAgent", "agent": "a", "resources": [], "capabilities": ["ROLE"]}"#,
            "unknown \"ROLE\"",
        ),
        (r#"{"op": "updateWeights", "weights": {"r": 0}}"#, "it must be above 0"),
        (
            r#"{"op": "addAgent", "agent": "a", "resources": [{"name": "cpus", "scalar": -1}]}"#,
            "0 or more",
        ),
        (
            r#"{"op": "addAgent", "agent": "a", "resources": [{"name": "cpus"}]}"#,
            "one of scalar and ranges",
        ),
        (
            r#"{"op": "addAgent", "agent": "a", "resources": [{"name": "ports", "ranges": [[2, 1]]}]}"#,
            "[low, high]",
        ),
        (
            r#"{"op": "addAgent", "agent": "a", "resources": [{"name": "disk", "scalar": 1, "disk_source": "TAPE"}]}"#,
            "TAPE",
        ),
        (
            r#"{"op": "addAgent", "agent": "a", "resources": [{"name": "disk", "scalar": 1, "copies": 2}]}"#,
            "copies",
        ),
        (r#"{"op": "sort"}"#, "not one of the allocator's"),
    ] {
        let unknown = wrong(&format!(r#"{{"steps": [{step}]}}"#));
        assert!(unknown.contains("step 1") && unknown.contains(said), "{step}: {unknown}");
    }
    for (kind, field) in [
        ("allocator", "order"),
        ("allocator", "rescinded"),
        ("sorter", "offers"),
        ("sorter", "metrics_absent"),
        ("random_sorter", "shares"),
        ("master", "count"),
    ] {
        let value = match field {
            "shares" => "{}",
            "count" => "1",
            _ => "[]",
        };
        let text =
            format!(r#"{{"kind": "{kind}", "steps": [], "expected": [{{"{field}": {value}}}]}}"#);
        let unknown = wrong(&text);
        assert!(unknown.contains(field) && unknown.contains(kind), "{text}: {unknown}");
    }
    let unknown = wrong(r#"{"kind": "poem", "steps": []}"#);
    assert!(unknown.contains("poem"), "{unknown}");
    let unknown = wrong(r#"{"options": {"mood": 1}, "steps": []}"#);
    assert!(unknown.contains("options") && unknown.contains("mood"), "{unknown}");
    for kind in ["allocator", "sorter", "roles", "random_sorter"] {
        let text =
            format!(r#"{{"kind": "{kind}", "steps": [], "expected": [{{"after_step": 3}}]}}"#);
        assert!(wrong(&text).contains("after_step 3"), "{text}");
    }
    let late = wrong(r#"{"steps": [], "expected": [{"after_step": 3, "offers": []}]}"#);
    assert!(late.contains("after_step 3"), "{late}");
}

#[test]
fn what_comes_otherwise_fails() {
    let text = r#"{"steps": [
        {"op": "addAgent", "agent": "a", "resources": [{"name": "cpus", "scalar": 1}]},
        {"op": "addFramework", "framework": "f", "roles": ["r"]}],
        "expected": [{"after_step": 2, "offers": []}]}"#;
    let wrong = wrong(text);
    assert_eq!(wrong, "after step 2: offers: expected none; came f in r on a: cpus 1");
}

#[test]
fn without_expectations_the_plan_is_told() {
    let text = r#"{"name": "mine", "steps": [
        {"op": "addAgent", "agent": "a", "resources": [{"name": "mem", "scalar": 64}]},
        {"op": "addFramework", "framework": "f", "roles": ["r/s"]}]}"#;
    let told = vec![
        "step 1 (0 s): nothing to do".to_owned(),
        "step 2 (0 s): offers f in r/s on a: mem 64".to_owned(),
    ];
    assert_eq!(replay(text).unwrap()[0].outcome, Outcome::Told(told));
}

#[test]
fn what_a_file_leaves_out_or_says_otherwise_is_understood() {
    let text = r#"{"steps": [
        {"op": "addFramework", "framework": "f", "roles": ["r"], "min_allocatable": []},
        {"op": "addAgent", "agent": "a", "total": [{"name": "cpus", "scalar": 2}],
         "unavailability": {"start_in": 60, "duration": 10}, "capabilities": ["MULTI_ROLE"]},
        {"op": "recover", "framework": "f", "agent": "a"},
        {"op": "updateWeights", "weights": [{"role": "r", "weight": 2}]},
        {"op": "suppress", "framework": "f"},
        {"op": "setWhitelist", "hostnames": ["b"]},
        {"op": "revive", "framework": "f"},
        {"op": "setWhitelist", "whitelist": null},
        {"op": "advance", "seconds": 1}],
        "expected": [
        {"after_step": 2, "totals": [{"framework": "f", "resources": [{"name": "cpus", "scalar": 2}]}],
         "inverse_offers": [{"agent_any_of": ["a", "b"], "unavailability_start_in": 60}]},
        {"after_step": 8, "offers": []},
        {"after_step": 9, "dominant_share": {"r": 0.5}}]}"#;
    assert_eq!(replay(text).unwrap()[0].outcome, Outcome::Passed);
    let sorter = r#"{"kind": "sorter", "steps": [
        {"op": "setAgent", "agent": "a", "total": [{"name": "cpus", "scalar": 10}]},
        {"op": "add", "client": "a/b"}, {"op": "activate", "client": "a/b"},
        {"op": "add", "client": "c"},
        {"op": "allocated", "client": "a/b", "agent": "a", "resources": [{"name": "cpus", "scalar": 1}]}],
        "expected": [{"after_step": 5, "order": ["a/b"], "count": 2,
            "contains": {"a": false, "a/b": true}, "shares": {"a/b": 0.1}}]}"#;
    assert_eq!(replay(sorter).unwrap()[0].outcome, Outcome::Passed);
}
