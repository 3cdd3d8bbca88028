//! Scenarios played through the allocator: a file says what happens step by step, and what must
//! come of it; or it says only what happens, and the plan of each step is told.
//!
//! The files speak Mesos (roles with `/`, `cpus`, `mem` in MB) and the allocator is set as Mesos
//! has it: whole agents, agent by agent, without expiry. What it decides is what it decides in a
//! cluster. What the vocabulary does not have is an error that names case, step and field; nothing
//! passes in silence.

mod bag;
mod check;
mod cluster;
mod format;
mod matching;
mod metrics;
mod role_names;
mod roles;
mod sorter;
mod told;

use serde_json::Value;

use self::format::Case;

/// What became of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All that it expects came true.
    Passed,
    /// What came otherwise.
    Failed(Vec<String>),
    /// It says nothing that can be played; the reason.
    Skipped(String),
    /// It expects nothing: what was decided in each step.
    Told(Vec<String>),
}

/// One case of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its name in the file.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// Plays all cases of a file: an object with `cases`, a list of cases, or one case.
///
/// # Errors
/// The text is no JSON, or no such file. A case with something unknown in it fails by itself.
pub fn replay(text: &str) -> Result<Vec<Report>, String> {
    let file: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let cases = match file {
        Value::Array(cases) => cases,
        Value::Object(mut file) => match file.remove("cases") {
            Some(Value::Array(cases)) => cases,
            Some(_) => return Err("`cases` is not a list".to_owned()),
            None if file.contains_key("steps") => vec![Value::Object(file)],
            None => return Err("neither `cases` nor `steps` in it".to_owned()),
        },
        _ => return Err("neither an object with `cases` nor a list of cases".to_owned()),
    };
    Ok(cases.into_iter().enumerate().map(|(at, case)| report(at, case)).collect())
}

fn report(at: usize, case: Value) -> Report {
    let name = case["name"].as_str().map_or_else(|| format!("case {}", at + 1), str::to_owned);
    let beside = matches!(case["kind"].as_str(), Some("roles" | "master"));
    let outcome = match Case::parse(case) {
        // Cases about Mesos' master and roles may do what only Mesos' interface has.
        Err(wrong) if beside && wrong.contains("unknown variant") => {
            Outcome::Skipped(format!("Mesos' own: {wrong}"))
        }
        case => {
            case.and_then(|case| play(&case)).unwrap_or_else(|wrong| Outcome::Failed(vec![wrong]))
        }
    };
    Report { name, outcome }
}

fn play(case: &Case) -> Result<Outcome, String> {
    if case.expected.iter().any(|expected| expected.prose.is_some()) {
        return Ok(Outcome::Skipped("it is told in prose".to_owned()));
    }
    if let Some(at) = case.steps.iter().position(format::Op::is_note) {
        return Ok(Outcome::Skipped(format!("step {} is told in prose", at + 1)));
    }
    let last = case.steps.len();
    for (at, expected) in case.expected.iter().enumerate() {
        if let Some(late) = expected.after_step.filter(|after| *after > last) {
            return Err(format!(
                "expectation {}: after_step {late}: there are {last} steps",
                at + 1
            ));
        }
        if let Some(field) = expected.out_of_place(&case.kind).first() {
            return Err(format!("expectation {}: {field}: not of kind {}", at + 1, case.kind));
        }
    }
    // These are compared after each step, and before the first there is nothing to compare.
    let is_early =
        |expected: &format::Expected| match expected.after_step.or(expected.raw_after_step()) {
            Some(after) => after == 0,
            None => last == 0,
        };
    if matches!(case.kind.as_str(), "roles" | "random_sorter")
        && let Some(at) = case.expected.iter().position(is_early)
    {
        return Err(format!("expectation {}: no step comes before it", at + 1));
    }
    match case.kind.as_str() {
        "allocator" => check::play(case),
        "sorter" => sorter::play(case),
        "random_sorter" => sorter::play_random(case),
        "roles" => roles::play(case),
        "master" if case.steps.is_empty() => Ok(Outcome::Skipped("it has no steps".to_owned())),
        "master" => check::play(case),
        other => Err(format!("kind: unknown {other:?}")),
    }
}

/// A verdict from what came otherwise.
fn verdict(case: &Case, wrong: Vec<String>, told: Vec<String>) -> Outcome {
    match (wrong.is_empty(), case.expected.is_empty()) {
        (false, _) => Outcome::Failed(wrong),
        (true, true) => Outcome::Told(told),
        (true, false) => Outcome::Passed,
    }
}
