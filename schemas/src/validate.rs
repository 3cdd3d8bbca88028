//! What the structural schema cannot say about our kinds: quantities that parse, names that form a
//! tree, ports that lie in what was allocated, exactly one of several fields.
//!
//! Works on the raw object, so that all errors of an object come back at once, each with the path
//! of its field. Called by the API server on every write; must never look anything up.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    quantity::{self, Unit},
    resources::{self, Amount, CPU, MEMORY},
};

mod container;

use container::{capability_names, check, command, mounts, ports};

/// Processor time of a task that names none: enough to start a program, too little to crowd out
/// those that asked.
pub const TASK_CPU_DEFAULT: &str = "100m";
/// Memory of a task that names none, by the same reasoning.
pub const TASK_MEMORY_DEFAULT: &str = "64Mi";
/// Least processor time of a task: the smallest step that is counted, and nothing would be booked
/// as nothing and run without a limit.
pub const TASK_CPU_MIN: &str = "1m";
/// Least memory of a task: below it a container can't even be started, so the shim refuses it
/// (its `MIN_MEMORY_BYTES`).
pub const TASK_MEMORY_MIN: &str = "4Mi";

/// What is wrong with one field. The kinds are those of Kubernetes' `field.Error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Path from the object's root, such as `spec.container.ports[0].hostPort`.
    pub field: String,
    pub kind: FieldErrorKind,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Kubernetes' `FieldValue*` causes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    Required,
    /// Carries the refused value, as JSON.
    Invalid(String),
    Forbidden,
    Duplicate(String),
}

impl FieldError {
    fn required(field: impl Into<String>, message: impl Into<String>) -> FieldError {
        FieldError { field: field.into(), kind: FieldErrorKind::Required, message: message.into() }
    }
    fn invalid(field: impl Into<String>, value: &Value, message: impl Into<String>) -> FieldError {
        FieldError {
            field: field.into(),
            kind: FieldErrorKind::Invalid(value.to_string()),
            message: message.into(),
        }
    }
    fn forbidden(field: impl Into<String>, message: impl Into<String>) -> FieldError {
        FieldError { field: field.into(), kind: FieldErrorKind::Forbidden, message: message.into() }
    }
    fn duplicate(field: impl Into<String>, value: &str) -> FieldError {
        FieldError {
            field: field.into(),
            kind: FieldErrorKind::Duplicate(format!("{value:?}")),
            message: "each may appear once".to_owned(),
        }
    }
}

/// Longest name of a queue: it is used as a label's value, which has this bound in Kubernetes.
pub const QUEUE_NAME_LENGTH_MAX: usize = 63;
/// Longest command line, in bytes: Linux refuses a single argument beyond 128 KiB, and an object
/// must stay well below what the store takes.
pub const COMMAND_BYTES_MAX: usize = 128 * 1024;
/// Longest value of an environment variable, in bytes: Linux refuses one of 128 KiB with its name.
pub const ENV_BYTES_MAX: usize = 120 * 1024;

/// All that is wrong with an object of kind `kind`; empty for kinds without rules of their own.
pub fn validate(kind: &str, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &object["spec"];
    match kind {
        "Queue" => queue(object, spec, &mut errors),
        "Framework" => framework(spec, &mut errors),
        "Agent" => agent(spec, &mut errors),
        "Offer" => amounts("spec.resources", &spec["resources"], &mut errors),
        "Task" => task("spec", spec, &mut errors),
        "Reservation" => {
            queue_name("spec.queue", &spec["queue"], &mut errors);
            amounts("spec.resources", &spec["resources"], &mut errors);
        }
        "Volume" => size("spec.size", &spec["size"], &mut errors),
        _ => {}
    }
    errors
}

fn queue(object: &Value, spec: &Value, errors: &mut Vec<FieldError>) {
    queue_name("metadata.name", &object["metadata"]["name"], errors);
    let weight = &spec["weight"];
    let positive = match weight {
        Value::Null => true,
        Value::Number(n) => n.as_f64().is_some_and(|w| w > 0.0),
        Value::String(s) => s.parse::<f64>().is_ok_and(|w| w > 0.0 && w.is_finite()),
        _ => false,
    };
    if !positive {
        errors.push(FieldError::invalid(
            "spec.weight",
            weight,
            "must be a number greater than 0, such as \"2\"",
        ));
    }
    amounts("spec.guarantee", &spec["guarantee"], errors);
    amounts("spec.limit", &spec["limit"], errors);
}

fn framework(spec: &Value, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (i, name) in items(&spec["queues"]) {
        let field = format!("spec.queues[{i}]");
        queue_name(&field, name, errors);
        if let Some(name) = name.as_str()
            && !seen.insert(name)
        {
            errors.push(FieldError::duplicate(field, name));
        }
    }
    for (i, demand) in items(&spec["demand"]) {
        amounts(&format!("spec.demand[{i}].resources"), &demand["resources"], errors);
        queue_name(&format!("spec.demand[{i}].queue"), &demand["queue"], errors);
    }
    for (i, least) in items(&spec["offers"]["minAllocatable"]) {
        amounts(&format!("spec.offers.minAllocatable[{i}]"), least, errors);
    }
}

fn agent(spec: &Value, errors: &mut Vec<FieldError>) {
    amounts("spec.overcommit", &spec["overcommit"], errors);
}

/// The rules of a task's spec, with `at` the path of the spec: also used for the tasks inside an
/// acceptance, where it is `operations[0].launch.tasks[1].spec`.
pub fn task(at: &str, spec: &Value, errors: &mut Vec<FieldError>) {
    amounts(&format!("{at}.resources"), &spec["resources"], errors);
    amounts(&format!("{at}.limits"), &spec["limits"], errors);
    least(at, &spec["resources"], errors);
    limits(at, spec, errors);
    queue_name(&format!("{at}.queue"), &spec["queue"], errors);
    command(at, &spec["container"], errors);
    capability_names(at, &spec["container"], errors);
    ports(at, spec, errors);
    mounts(at, &spec["container"]["mounts"], errors);
    for check_name in ["healthCheck", "readinessCheck"] {
        check(&format!("{at}.{check_name}"), &spec[check_name], spec, errors);
    }
    let signal = &spec["killPolicy"]["signal"];
    if let Some(name) = signal.as_str()
        && signal_number(name).is_none()
    {
        errors.push(FieldError::invalid(
            format!("{at}.killPolicy.signal"),
            signal,
            "must be the name of a signal, such as \"TERM\", \"INT\" or \"USR1\"",
        ));
    }
}

/// The number of a signal by its name, with or without `SIG`, in either case. Linux' numbers.
pub fn signal_number(name: &str) -> Option<i32> {
    let name = name.to_ascii_uppercase();
    Some(match name.strip_prefix("SIG").unwrap_or(&name) {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ABRT" => 6,
        "KILL" => 9,
        "USR1" => 10,
        "USR2" => 12,
        "ALRM" => 14,
        "TERM" => 15,
        "CONT" => 18,
        "WINCH" => 28,
        _ => return None,
    })
}

/// Dotted DNS labels: `eng.web`. Absent is fine, the field's default applies.
fn queue_name(field: &str, name: &Value, errors: &mut Vec<FieldError>) {
    let Some(text) = name.as_str() else { return };
    let label = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    if text.len() > QUEUE_NAME_LENGTH_MAX || !text.split('.').all(label) {
        errors.push(FieldError::invalid(
            field,
            name,
            format!(
                "must be dotted names of lower-case letters, digits and '-', at most {QUEUE_NAME_LENGTH_MAX} characters, such as \"eng.web\""
            ),
        ));
    }
}

fn amounts(field: &str, value: &Value, errors: &mut Vec<FieldError>) {
    if value.is_null() {
        return;
    }
    for (name, message) in resources::parse_errors(field, value) {
        let refused = value.get(name.rsplit('.').next().unwrap_or_default()).unwrap_or(value);
        errors.push(FieldError::invalid(name, refused, message));
    }
}

/// The amount of a resource; none where there is none or where it can't be read, which `amounts`
/// reports.
fn amount(name: &str, value: &Value) -> Option<Amount> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    Amount::parse(name, &text).ok()
}

/// What a task names must be enough to be enforced. (What it does not name the server fills in.)
fn least(at: &str, resources: &Value, errors: &mut Vec<FieldError>) {
    for (name, min) in [(CPU, TASK_CPU_MIN), (MEMORY, TASK_MEMORY_MIN)] {
        let (given, least) = (amount(name, &resources[name]), Amount::parse(name, min).ok());
        if let (Some(given), Some(least)) = (given, least)
            && !given.contains(&least)
        {
            errors.push(FieldError::invalid(
                format!("{at}.resources.{name}"),
                &resources[name],
                format!("must be at least {min}: less can't be enforced"),
            ));
        }
    }
}

/// A limit below what is set aside would take away what was promised.
fn limits(at: &str, spec: &Value, errors: &mut Vec<FieldError>) {
    for (name, limit) in spec["limits"].as_object().into_iter().flatten() {
        let asked = &spec["resources"][name];
        if let (Some(Amount::Scalar(most)), Some(Amount::Scalar(least))) =
            (amount(name, limit), amount(name, asked))
            && most < least
        {
            let text = asked.as_str().map_or_else(|| asked.to_string(), str::to_owned);
            errors.push(FieldError::invalid(
                format!("{at}.limits.{name}"),
                limit,
                format!("must be at least {text}, what {at}.resources.{name} sets aside"),
            ));
        }
    }
}

fn size(field: &str, value: &Value, errors: &mut Vec<FieldError>) {
    if let Some(text) = value.as_str()
        && let Err(problem) = quantity::parse(text, Unit::Bytes)
    {
        errors.push(FieldError::invalid(field, value, problem.to_string()));
    }
}

fn items(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    value.as_array().into_iter().flatten().enumerate()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(kind: &str, spec: Value) -> Vec<String> {
        let object = json!({"metadata": {"name": "x"}, "spec": spec});
        validate(kind, &object).into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn a_plain_task_is_fine() {
        let spec = json!({"resources": {"cpu": "100m", "memory": "32Mi"}, "container": {"command": ["true"]}});
        assert_eq!(fields("Task", spec), Vec::<String>::new());
    }

    #[test]
    fn each_bad_field_of_a_task_is_named() {
        let cases = [
            (
                json!({"resources": {"cpu": "-1"}, "container": {"command": ["true"]}}),
                "spec.resources.cpu",
            ),
            (
                json!({"resources": {"memory": "12X"}, "container": {"command": ["true"]}}),
                "spec.resources.memory",
            ),
            (
                json!({"resources": {"cpu": 0}, "container": {"command": ["true"]}}),
                "spec.resources.cpu",
            ),
            (
                json!({"resources": {"memory": "4095Ki"}, "container": {"command": ["true"]}}),
                "spec.resources.memory",
            ),
            (
                json!({"resources": {"cpu": "1"}, "limits": {"cpu": "999m", "memory": "8Mi"}, "container": {"command": ["true"]}}),
                "spec.limits.cpu",
            ),
            (json!({"container": {}}), "spec.container.command"),
            (json!({"container": {"command": ["a"], "user": "root"}}), "spec.container.user"),
            (
                json!({"container": {"command": ["a"], "workingDir": "tmp"}}),
                "spec.container.workingDir",
            ),
            (
                json!({"container": {"command": ["a"], "env": [{"name": "A=B"}]}}),
                "spec.container.env[0].name",
            ),
            (
                json!({"container": {"command": ["a"], "env": [{"name": "A", "value": "a\u{0}b"}]}}),
                "spec.container.env[0].value",
            ),
            (
                json!({"container": {"command": ["a"], "env": [{"name": "A", "value": "x".repeat(ENV_BYTES_MAX + 1)}]}}),
                "spec.container.env[0].value",
            ),
            (
                json!({"container": {"command": ["a"], "mounts": [{"path": "/x"}]}}),
                "spec.container.mounts[0]",
            ),
            (
                json!({"container": {"command": ["a"], "ports": [{"hostPort": 80}]}, "resources": {"ports": "31000-31002"}}),
                "spec.container.ports[0].hostPort",
            ),
            (
                json!({"container": {"command": ["a"]}, "healthCheck": {"tcp": {}}}),
                "spec.healthCheck.tcp.port",
            ),
            (json!({"container": {"command": ["a"]}, "healthCheck": {}}), "spec.healthCheck"),
            (
                json!({"container": {"command": ["a"]}, "killPolicy": {"signal": "BANG"}}),
                "spec.killPolicy.signal",
            ),
            (json!({"container": {"command": ["a"]}, "queue": "Eng..web"}), "spec.queue"),
            (
                json!({"container": {"command": ["a"], "capabilities": ["NET_ADMIN", "ALL"]}}),
                "spec.container.capabilities[1]",
            ),
            (
                json!({"container": {"command": ["a"], "dropCapabilities": ["ALL", "cap_kill", "X"]}}),
                "spec.container.dropCapabilities[2]",
            ),
        ];
        for (spec, field) in cases {
            assert_eq!(fields("Task", spec.clone()), vec![field.to_owned()], "{spec}");
        }
    }

    #[test]
    fn a_queue_needs_a_positive_weight() {
        for good in [json!(1), json!("0.5"), json!(2.5), Value::Null] {
            assert!(fields("Queue", json!({"weight": good})).is_empty());
        }
        for bad in [json!(0), json!("-1"), json!("heavy"), json!("inf")] {
            assert_eq!(fields("Queue", json!({"weight": bad})), vec!["spec.weight".to_owned()]);
        }
    }

    #[test]
    fn all_errors_come_at_once() {
        let spec = json!({"resources": {"cpu": "x", "memory": "y"}, "container": {}});
        assert_eq!(fields("Task", spec).len(), 3);
    }
}
