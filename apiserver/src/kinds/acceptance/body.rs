//! What an `OfferAcceptance` asks for, with the place of everything in it for errors.

use std::collections::BTreeSet;

use commonage_schemas::GROUP;
use serde_json::Value;

use crate::status::{ApiError, Cause};

/// An acceptance that has the right shape.
pub(super) struct Acceptance {
    /// The one in the path first, each once.
    pub(super) offers: Vec<String>,
    pub(super) tasks: Vec<Launched>,
    pub(super) refuse_seconds: Option<f64>,
}

/// One task to launch.
pub(super) struct Launched {
    pub(super) operation: usize,
    pub(super) number: usize,
    /// `operations[0].launch.tasks[1].`; empty for a plain create.
    pub(super) path: String,
    pub(super) object: Value,
}

impl Launched {
    /// Its name is the server's to make.
    pub(super) fn is_unnamed(&self) -> bool {
        self.object["metadata"]["name"].as_str().unwrap_or_default().is_empty()
    }

    /// The causes, with the task's place in front of their fields.
    pub(super) fn located(&self, causes: Vec<Cause>) -> Vec<Cause> {
        causes
            .into_iter()
            .map(|cause| Cause { field: format!("{}{}", self.path, cause.field), ..cause })
            .collect()
    }

    /// An error of this task, with its place.
    pub(super) fn locate(&self, error: ApiError) -> ApiError {
        if self.path.is_empty() {
            return error;
        }
        if error.reason == "Invalid"
            && let Some(details) =
                error.details.as_deref().filter(|details| !details.causes.is_empty())
        {
            let causes = self.located(details.causes.clone());
            return ApiError::invalid_kind(GROUP, "OfferAcceptance", &details.name, causes);
        }
        let message = format!("{}: {}", self.path.trim_end_matches('.'), error.message);
        ApiError { message, ..error }
    }
}

/// Reads the body of an acceptance of the offer `name`.
pub(super) fn acceptance(body: &Value, name: &str) -> Result<Acceptance, ApiError> {
    if !body.is_object() {
        return Err(ApiError::bad_request("the body is not an OfferAcceptance"));
    }
    let kind = body["kind"].as_str().unwrap_or("OfferAcceptance");
    if kind != "OfferAcceptance" {
        return Err(ApiError::bad_request(format!("the body is a {kind}, not an OfferAcceptance")));
    }
    let mut causes = Vec::new();
    let offers = offers(body, name, &mut causes);
    let mut tasks = Vec::new();
    for (operation, asked) in items(body, "operations", "operations", &mut causes) {
        let at = format!("operations[{operation}]");
        let members: Vec<&str> =
            asked.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        if members != ["launch"] {
            let detail =
                "an operation has exactly one member; the one that is understood now is \"launch\"";
            causes.push(Cause::invalid(at, asked, detail));
            continue;
        }
        let field = format!("{at}.launch.tasks");
        for (number, task) in items(&asked["launch"], "tasks", &field, &mut causes) {
            tasks.push(launched(operation, number, task));
        }
    }
    let refuse = &body["filter"]["refuseSeconds"];
    if !refuse.is_null() && !refuse.is_number() {
        causes.push(Cause::type_invalid("filter.refuseSeconds", refuse, "must be a number"));
    }
    if !causes.is_empty() {
        return Err(ApiError::invalid_kind(GROUP, "OfferAcceptance", name, causes));
    }
    Ok(Acceptance { offers, tasks, refuse_seconds: refuse.as_f64() })
}

fn launched(operation: usize, number: usize, task: &Value) -> Launched {
    let mut object = task.clone();
    // As with built-in kinds, what can only be one thing need not be said.
    if object["kind"].is_null() {
        object["kind"] = "Task".into();
    }
    if object["apiVersion"].is_null() {
        object["apiVersion"] = format!("{GROUP}/{}", commonage_schemas::VERSION).into();
    }
    Launched {
        operation,
        number,
        path: format!("operations[{operation}].launch.tasks[{number}]."),
        object,
    }
}

fn offers(body: &Value, name: &str, causes: &mut Vec<Cause>) -> Vec<String> {
    let mut offers = vec![name.to_owned()];
    for (number, more) in items(body, "offers", "offers", causes) {
        match more.as_str() {
            Some(more) if offers.iter().any(|one| one == more) => {}
            Some(more) => offers.push(more.to_owned()),
            None => offers.push(format!("offers[{number}]")),
        }
    }
    offers
}

/// The numbered items of a list that may be absent.
fn items<'v>(
    of: &'v Value,
    name: &str,
    field: &str,
    causes: &mut Vec<Cause>,
) -> Vec<(usize, &'v Value)> {
    match &of[name] {
        Value::Null => Vec::new(),
        Value::Array(items) => items.iter().enumerate().collect(),
        other => {
            causes.push(Cause::type_invalid(field, other, "must be a list"));
            Vec::new()
        }
    }
}

/// Names that appear twice: the store would refuse the write.
pub(super) fn duplicates<'v>(
    launched: &[Launched],
    tasks: impl Iterator<Item = &'v Value>,
) -> Vec<Cause> {
    let mut seen = BTreeSet::new();
    let mut causes = Vec::new();
    for (launched, task) in launched.iter().zip(tasks) {
        let name = &task["metadata"]["name"];
        if !seen.insert(name.as_str().unwrap_or_default()) {
            causes.push(Cause::duplicate(format!("{}metadata.name", launched.path), name));
        }
    }
    causes
}
