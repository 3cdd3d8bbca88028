//! Prometheus' text format.

use std::fmt::Write as _;

use crate::histogram::Counted;

pub(super) fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

pub(super) fn line(
    text: &mut String,
    name: &str,
    labels: &[(&str, &str)],
    value: impl std::fmt::Display,
) {
    text.push_str(name);
    for (at, (key, value)) in labels.iter().enumerate() {
        text.push(if at == 0 { '{' } else { ',' });
        let _ = write!(text, "{key}=\"{value}\"");
    }
    if !labels.is_empty() {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
}

/// A bound in the unit that is shown, as Go writes numbers: label values are compared as text.
fn shown_bound(bound: u64, per_shown: f64) -> String {
    let shown = bound as f64 / per_shown;
    match shown < 1e6 {
        true => shown.to_string(),
        // Two digits at least.
        false => format!("{shown:e}").replace('e', "e+0"),
    }
}

pub(super) fn histogram(text: &mut String, name: &str, labels: &[(&str, &str)], counted: &Counted) {
    let bounds = counted.bounds;
    let buckets = format!("{name}_bucket");
    let mut cumulative = 0;
    let ends = bounds.upper.iter().map(|bound| shown_bound(*bound, bounds.per_shown));
    for (end, count) in ends.chain(["+Inf".to_owned()]).zip(&counted.counts) {
        cumulative += count;
        let mut labels = labels.to_vec();
        labels.push(("le", end.as_str()));
        line(text, &buckets, &labels, cumulative);
    }
    line(text, &format!("{name}_sum"), labels, counted.sum as f64 / bounds.per_shown);
    line(text, &format!("{name}_count"), labels, cumulative);
}
