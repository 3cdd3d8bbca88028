//! What was decided, in words.

use crate::replay::cluster::{Cluster, Emitted, Inverse};

pub(super) fn offers(offers: &[Emitted]) -> Vec<String> {
    let line = |offer: &Emitted| {
        format!(
            "{} in {} on {}: {}",
            offer.framework,
            offer.role,
            offer.agent,
            offer.resources.told()
        )
    };
    offers.iter().map(line).collect()
}

pub(super) fn inverse(asked: &[Inverse]) -> Vec<String> {
    let line = |one: &Inverse| match one.start_in {
        Some(start) => format!("{} is asked to leave {} in {start} s", one.framework, one.agent),
        None => format!("{} is asked to leave {}", one.framework, one.agent),
    };
    asked.iter().map(line).collect()
}

/// What one step came to; empties what was collected.
pub(super) fn step(number: usize, cluster: &mut Cluster) -> Vec<String> {
    let offered = std::mem::take(&mut cluster.offered);
    let asked = std::mem::take(&mut cluster.inverse);
    let rescinded = std::mem::take(&mut cluster.rescinded);
    let mut lines: Vec<String> =
        offers(&offered).into_iter().map(|line| format!("offers {line}")).collect();
    lines.extend(inverse(&asked));
    lines.extend(rescinded.iter().map(|framework| format!("takes an offer of {framework} back")));
    lines.extend(cluster.result.iter().map(|result| format!("the operation: {result}")));
    let at = cluster.now_ms as f64 / 1000.0;
    if lines.is_empty() {
        lines.push("nothing to do".to_owned());
    }
    lines.into_iter().map(|line| format!("step {number} ({at} s): {line}")).collect()
}
