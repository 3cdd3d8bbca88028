//! Scenarios with what Mesos 1.11 decides in them, and our own beside them.

use commonage_allocator::replay::{Outcome, replay};

/// Facts about Mesos' decisions.
const MESOS: &str = include_str!("../cases/allocator.json");

#[test]
fn what_mesos_decides_is_what_we_decide() {
    let reports = replay(MESOS).unwrap();
    let failed: Vec<String> = reports
        .iter()
        .filter_map(|report| match &report.outcome {
            Outcome::Failed(wrong) => Some(format!("{}:\n  {}", report.name, wrong.join("\n  "))),
            _ => None,
        })
        .collect();
    assert!(failed.is_empty(), "{} failed\n{}", failed.len(), failed.join("\n"));
    let passed = reports.iter().filter(|report| report.outcome == Outcome::Passed).count();
    assert_eq!((passed, reports.len()), (66, 78));
}
