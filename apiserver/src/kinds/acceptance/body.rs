//! What an `OfferAcceptance` asks for, with the place of everything in it for errors.

use std::collections::BTreeSet;

use commonage_schemas::GROUP;
use commonage_schemas::offer::{CreateVolume, DestroyVolume, Reserve, ResizeVolume, Unreserve};
use commonage_schemas::quantity::{self, Unit};
use commonage_schemas::resources;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::status::{ApiError, Cause};

/// An acceptance that has the right shape.
pub(super) struct Acceptance {
    /// The one in the path first, each once.
    pub(super) offers: Vec<String>,
    pub(super) operations: Vec<Operation>,
    /// All tasks of all launches, in order.
    pub(super) tasks: Vec<Launched>,
    pub(super) refuse_seconds: Option<f64>,
}

impl Acceptance {
    /// How many objects it writes beside tasks and offers, at most.
    pub(super) fn edits(&self) -> usize {
        let launches = |what: &What| matches!(what, What::Launch | What::LaunchGroup);
        self.operations.iter().filter(|one| !launches(&one.what)).count()
    }
}

/// One operation, and where it stands.
pub(super) struct Operation {
    pub(super) number: usize,
    pub(super) what: What,
}

impl Operation {
    /// The place of one of its fields.
    pub(super) fn field(&self, name: &str) -> String {
        format!("operations[{}].{}.{name}", self.number, self.what.member())
    }
}

pub(super) enum What {
    /// Its tasks are those of the acceptance with its number.
    Launch,
    /// The same, as one group.
    LaunchGroup,
    Reserve(Reserve),
    Unreserve(Unreserve),
    CreateVolume(CreateVolume),
    DestroyVolume(DestroyVolume),
    GrowVolume(ResizeVolume),
    ShrinkVolume(ResizeVolume),
}

/// What there is: the member's name, the fields that it needs, and those that it may have.
const OPERATIONS: [(&str, &[&str], &[&str]); 8] = [
    ("launch", &["tasks"], &[]),
    ("launchGroup", &["group", "tasks"], &[]),
    ("reserve", &["name", "resources"], &["queue", "parent"]),
    ("unreserve", &["reservation"], &["resources"]),
    ("createVolume", &["name", "reservation", "size"], &["shared"]),
    ("destroyVolume", &["volume"], &[]),
    ("growVolume", &["volume", "size"], &[]),
    ("shrinkVolume", &["volume", "size"], &[]),
];

impl What {
    pub(super) fn member(&self) -> &'static str {
        let place = match self {
            What::Launch => 0,
            What::LaunchGroup => 1,
            What::Reserve(_) => 2,
            What::Unreserve(_) => 3,
            What::CreateVolume(_) => 4,
            What::DestroyVolume(_) => 5,
            What::GrowVolume(_) => 6,
            What::ShrinkVolume(_) => 7,
        };
        OPERATIONS[place].0
    }
}

/// One task to launch.
pub(super) struct Launched {
    pub(super) operation: usize,
    pub(super) number: usize,
    /// `launch` or `launchGroup`.
    pub(super) member: &'static str,
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
        locate(&self.path, error)
    }
}

/// An error of what stands at `path` (which ends with a dot, or is empty), with its place.
pub(super) fn locate(path: &str, error: ApiError) -> ApiError {
    if path.is_empty() {
        return error;
    }
    if error.reason == "Invalid"
        && let Some(details) = error.details.as_deref().filter(|all| !all.causes.is_empty())
    {
        let causes = details.causes.iter().cloned();
        let causes = causes.map(|cause| Cause { field: format!("{path}{}", cause.field), ..cause });
        return ApiError::invalid_kind(GROUP, "OfferAcceptance", &details.name, causes.collect());
    }
    let message = format!("{}: {}", path.trim_end_matches('.'), error.message);
    ApiError { message, ..error }
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
    let (mut operations, mut tasks) = (Vec::new(), Vec::new());
    for (number, asked) in items(body, "operations", "operations", &mut causes) {
        let what = operation(number, asked, &mut tasks, &mut causes);
        operations.extend(what.map(|what| Operation { number, what }));
    }
    let refuse = &body["filter"]["refuseSeconds"];
    if !refuse.is_null() && !refuse.is_number() {
        causes.push(Cause::type_invalid("filter.refuseSeconds", refuse, "must be a number"));
    }
    if !causes.is_empty() {
        return Err(ApiError::invalid_kind(GROUP, "OfferAcceptance", name, causes));
    }
    Ok(Acceptance { offers, operations, tasks, refuse_seconds: refuse.as_f64() })
}

fn operation(
    number: usize,
    asked: &Value,
    tasks: &mut Vec<Launched>,
    causes: &mut Vec<Cause>,
) -> Option<What> {
    let at = format!("operations[{number}]");
    let members: Vec<&String> =
        asked.as_object().into_iter().flatten().map(|(key, _)| key).collect();
    let known = match members.as_slice() {
        [one] => OPERATIONS.iter().find(|(name, ..)| name == one),
        _ => None,
    };
    let Some((member, needed, optional)) = known else {
        let names: Vec<&str> = OPERATIONS.iter().map(|(name, ..)| *name).collect();
        let detail = format!("an operation has exactly one member, one of: {}", names.join(", "));
        causes.push(Cause::invalid(at, asked, &detail));
        return None;
    };
    let (body, path) = (&asked[*member], format!("{at}.{member}"));
    let before = causes.len();
    check_members(body, &path, needed, optional, causes);
    if causes.len() > before {
        return None;
    }
    if *member == "launch" {
        for (place, task) in items(body, "tasks", &format!("{path}.tasks"), causes) {
            tasks.push(launched(number, place, task, member));
        }
        return Some(What::Launch);
    }
    if *member == "launchGroup" {
        let found = items(body, "tasks", &format!("{path}.tasks"), causes);
        if found.is_empty() && causes.len() == before {
            causes.push(Cause::required(format!("{path}.tasks"), "a group has at least one task"));
        }
        for (place, task) in found {
            let mut one = launched(number, place, task, member);
            let own = &one.object["spec"]["group"];
            if !own.is_null() && *own != body["group"] {
                let detail = format!("the group of the operation is {}", body["group"]);
                causes.push(Cause::invalid(format!("{}spec.group", one.path), own, &detail));
            }
            if one.object["spec"].is_null() || one.object["spec"].is_object() {
                one.object["spec"]["group"] = body["group"].clone();
            }
            tasks.push(one);
        }
        return Some(What::LaunchGroup);
    }
    match *member {
        "reserve" => read(body, &path, causes).map(What::Reserve),
        "unreserve" => read(body, &path, causes).map(What::Unreserve),
        "createVolume" => read(body, &path, causes).map(What::CreateVolume),
        "destroyVolume" => read(body, &path, causes).map(What::DestroyVolume),
        "growVolume" => read(body, &path, causes).map(What::GrowVolume),
        _ => read(body, &path, causes).map(What::ShrinkVolume),
    }
}

/// Each field by itself, so that all that is wrong is said, each in its place.
fn check_members(
    body: &Value,
    path: &str,
    needed: &[&str],
    optional: &[&str],
    causes: &mut Vec<Cause>,
) {
    let Some(members) = body.as_object() else {
        causes.push(Cause::type_invalid(path, body, "must be an object"));
        return;
    };
    for name in needed.iter().filter(|name| body[**name].is_null() && **name != "tasks") {
        causes.push(Cause::required(format!("{path}.{name}"), ""));
    }
    for (name, value) in members {
        let field = format!("{path}.{name}");
        if !needed.iter().chain(optional).any(|known| known == name) {
            causes.push(Cause::forbidden(field, "there is no such field"));
            continue;
        }
        match name.as_str() {
            _ if value.is_null() => {}
            "tasks" => {}
            "resources" => {
                let wrong = resources::parse_errors(&field, value);
                causes.extend(wrong.into_iter().map(|(at, why)| Cause::invalid(at, value, &why)));
            }
            "shared" if value.is_boolean() => {}
            "shared" => causes.push(Cause::type_invalid(field, value, "must be true or false")),
            _ if !value.is_string() => {
                causes.push(Cause::type_invalid(field, value, "must be a string"));
            }
            "size" => {
                let text = value.as_str().unwrap_or_default();
                match quantity::parse(text, Unit::Bytes) {
                    Err(error) => causes.push(Cause::invalid(field, value, &error.to_string())),
                    Ok(0) => causes.push(Cause::invalid(field, value, "must be greater than 0")),
                    Ok(_) => {}
                }
            }
            _ => {}
        }
    }
}

fn read<T: DeserializeOwned>(body: &Value, path: &str, causes: &mut Vec<Cause>) -> Option<T> {
    let read = serde_json::from_value(body.clone());
    read.map_err(|error| causes.push(Cause::invalid(path, body, &error.to_string()))).ok()
}

fn launched(operation: usize, number: usize, task: &Value, member: &'static str) -> Launched {
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
        member,
        path: format!("operations[{operation}].{member}.tasks[{number}]."),
        object,
    }
}

fn offers(body: &Value, name: &str, causes: &mut Vec<Cause>) -> Vec<String> {
    let mut offers = vec![name.to_owned()];
    for (number, more) in items(body, "offers", "offers", causes) {
        match more.as_str() {
            Some(more) if offers.iter().any(|one| one == more) => {}
            Some(more) => offers.push(more.to_owned()),
            None => {
                let field = format!("offers[{number}]");
                causes.push(Cause::type_invalid(field, more, "must be the name of an offer"));
            }
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
