//! What a user reads when something did not work: what failed, on what, why, and what to type next.
//!
//! Every verb returns [`Failure`]; only [`report`] prints it. The exit code says whose turn it is:
//! see [`exit`].

mod connection;

use std::{fmt, io, process::ExitCode};

use kube::core::Status;

/// Exit codes, by who can do something about it. `cmn run` also passes on the task's own code.
pub(crate) mod exit {
    /// The server refused the request, or what was asked for did not happen.
    pub(crate) const REFUSED: u8 = 1;
    /// No API server, or no usable kubeconfig.
    pub(crate) const UNREACHABLE: u8 = 3;
    /// The machine lacks something that a role needs.
    pub(crate) const HOST: u8 = 4;
    /// `cmn wait --timeout` ran out. The code that timeout(1) uses.
    pub(crate) const TIMED_OUT: u8 = 124;
    /// `cmn run`: the task never ran. The code that docker run uses.
    pub(crate) const NEVER_RAN: u8 = 125;
    /// Ctrl-C: 128 + SIGINT, as shells report it.
    pub(crate) const INTERRUPTED: u8 = 130;
    /// Nobody reads our output any more: 128 + SIGPIPE.
    pub(crate) const BROKEN_PIPE: u8 = 141;
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// One failed command, in the words that its user gets.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    reason: String,
    details: Vec<String>,
    hint: Option<String>,
    exit: u8,
    quiet: bool,
}

impl Failure {
    /// `what` names what failed, on what, and why, in one sentence without a full stop.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            reason: String::new(),
            details: Vec::new(),
            hint: None,
            exit: exit::REFUSED,
            quiet: false,
        }
    }

    /// Ends with this exit code, and says nothing.
    pub(crate) fn quiet(exit: u8) -> Self {
        Self { quiet: true, exit, ..Self::new("") }
    }

    /// The sentence, for where it is told among others.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// The next command to type.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// Writing to stdout failed. A reader that went away is not worth a word.
    pub(crate) fn stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::quiet(exit::BROKEN_PIPE);
        }
        Self::new(format!("cannot write to standard output: {error}"))
    }

    /// What the API server, or the way to it, answered to what was tried.
    pub(crate) fn api(tried: impl fmt::Display, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::status(tried, status),
            other => connection::failure(tried, other),
        }
    }

    /// The API server's refusal: one line per refused field.
    pub(crate) fn status(tried: impl fmt::Display, status: &Status) -> Self {
        let causes: Vec<String> = status
            .details
            .iter()
            .flat_map(|details| &details.causes)
            .map(|cause| match cause.field.as_str() {
                "" => cause.message.clone(),
                field => format!("{field}: {}", cause.message),
            })
            .collect();
        // With causes, the message only repeats them all in one long line.
        let mut all = status.details.iter().flat_map(|details| &details.causes);
        let is_of_fields = all.any(|cause| !cause.field.is_empty());
        let what = match is_of_fields {
            false => {
                let tried = tried.to_string();
                format!("{tried}: {}", said_once(&tried, &status.message))
            }
            true => format!("{tried}: {} refused", count(causes.len(), "field")),
        };
        let mut failure = Self::new(what);
        // Some refusals have no words but these.
        failure.reason = status.reason.clone();
        if status.message == status.reason {
            failure.reason.clear();
        }
        failure.details = if is_of_fields { causes } else { Vec::new() };
        failure.hint = hint_for(status);
        failure
    }
}

/// A refusal whose task is named before it, without that name.
fn said_once<'m>(tried: &str, message: &'m str) -> std::borrow::Cow<'m, str> {
    let named = message.strip_prefix("task ").and_then(|rest| rest.split_once(' '));
    match named {
        Some((name, rest)) if tried.contains(&format!("task \"{}\"", name.trim_matches('"'))) => {
            format!("it {rest}").into()
        }
        _ => message.into(),
    }
}

/// Kinds whose objects are in no namespace.
const CLUSTER_WIDE: [&str; 9] = [
    "agents",
    "queues",
    "reservations",
    "namespaces",
    "nodes",
    "customresourcedefinitions",
    "clusterroles",
    "clusterrolebindings",
    "persistentvolumes",
];

/// What to type next, per reason that the API server gives.
fn hint_for(status: &Status) -> Option<String> {
    let details = status.details.as_ref();
    let (kind, name) = details.map_or(("", ""), |d| (d.kind.as_str(), d.name.as_str()));
    let kind = if kind.is_empty() { "tasks" } else { kind };
    Some(match status.reason.as_str() {
        "AlreadyExists" => {
            format!("choose another name, or remove that one: `cmn delete {kind} {name}`")
        }
        "NotFound" if CLUSTER_WIDE.contains(&kind) => {
            format!("see what there is: `cmn get {kind}`")
        }
        "NotFound" => format!("see what there is: `cmn get {kind} -A`"),
        "Forbidden" => {
            "ask the cluster's administrator, or use the kubeconfig that `cmn up` printed"
                .to_owned()
        }
        "Unauthorized" => {
            "the credentials were not accepted: use the kubeconfig that `cmn up` printed".to_owned()
        }
        "Conflict" => format!(
            "somebody else changed it meanwhile: look at it and try again: `cmn get {kind} {name} -o yaml`"
        ),
        "OfferGone" => {
            "offers live only for some seconds: `cmn get offers -A` has today's".to_owned()
        }
        "IllegalTransition" => {
            format!("a state follows its table only: `cmn describe {kind} {name}`")
        }
        "Invalid" => {
            format!(
                "what fields there are: `kubectl explain {}.spec`",
                kind.to_lowercase().trim_end_matches('s')
            )
        }
        "RequestEntityTooLarge" => {
            "objects are small: put data where tasks can fetch it".to_owned()
        }
        _ => return None,
    })
}

/// Parsers draw a picture of the place below; their first line says it.
pub(crate) fn first_line(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// `a task`, `an agent`.
pub(crate) fn a(noun: &str) -> String {
    let an = noun.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U']);
    format!("{} {noun}", if an { "an" } else { "a" })
}

/// `1 field`, `2 fields`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// An error and its sources, each once, joined by colons.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = inner.source();
    }
    text
}

/// An `anyhow` error of one of the roles: its whole chain in one sentence.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(format!("{error:#}"))
    }
}

/// Prints a failure in its place and shape, and turns the result into the process's exit code.
pub(crate) fn report(result: Result<ExitCode>) -> ExitCode {
    let failure = match result {
        Ok(code) => return code,
        Err(failure) => failure,
    };
    if !failure.quiet {
        let reason = match failure.reason.as_str() {
            "" => String::new(),
            reason => format!("   ({reason})"),
        };
        crate::output::message(
            crate::output::Tone::Bad,
            "error:",
            &format!("{}{reason}", failure.what),
        );
        for line in &failure.details {
            crate::output::note(&format!("  {line}"));
        }
        if let Some(hint) = &failure.hint {
            crate::output::message(crate::output::Tone::Hint, "hint:", hint);
        }
    }
    ExitCode::from(failure.exit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_line_per_refused_field() {
        let status: Status = serde_json::from_value(serde_json::json!({
            "status": "Failure", "code": 422, "reason": "Invalid", "message": "a long line",
            "details": {"name": "x", "kind": "tasks", "causes": [
                {"reason": "FieldValueInvalid", "message": "must be > 0 (got -1)", "field": "spec.resources.cpu"},
                {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.container.command"},
            ]},
        }))
        .unwrap();
        let failure = Failure::status("task \"x\" was not created", &status);
        assert_eq!(failure.what, "task \"x\" was not created: 2 fields refused");
        assert_eq!(failure.details[0], "spec.resources.cpu: must be > 0 (got -1)");
        assert_eq!(failure.hint.unwrap(), "what fields there are: `kubectl explain task.spec`");
    }

    #[test]
    fn a_task_is_named_once() {
        let tried = "cannot attach to task \"a\"";
        assert_eq!(said_once(tried, "task \"a\" has ended"), "it has ended");
        assert_eq!(said_once(tried, "task a has not been placed"), "it has not been placed");
        assert_eq!(said_once(tried, "task \"b\" has ended"), "task \"b\" has ended");
        assert_eq!(said_once(tried, "no task"), "no task");
    }

    #[test]
    fn a_reader_that_went_away_gets_no_words() {
        let failure = Failure::stdout(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(failure.quiet);
        assert_eq!(failure.exit, exit::BROKEN_PIPE);
    }
}
