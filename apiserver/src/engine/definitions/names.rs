//! Whether a definition gets the names that it asks for: apiextensions' naming and establishing
//! controllers, in one step.

use std::collections::HashSet;
use std::sync::Arc;

use futures::FutureExt;
use jiff::Timestamp;
use serde_json::Value;

use super::governor::{Condition, condition, set_condition};
use crate::cache::Objects;
use crate::engine::{Engine, Target, managed, take_version};
use crate::kinds;
use crate::object::Object;
use crate::resource::{ResourceDef, Scheme};
use crate::status::ApiError;

/// Names of one group that others have.
#[derive(Default)]
struct Taken {
    resources: HashSet<String>,
    kinds: HashSet<String>,
}

impl Engine {
    /// Writes what the definition's names and conditions ought to be, if they are not.
    pub(super) async fn accept_names(
        &self,
        kind: &Arc<ResourceDef>,
        definition: &Object,
    ) -> Result<(), ApiError> {
        let (others, _) = self.resource(kind)?.snapshot();
        let compiled = &self.definitions.compiled;
        let value = definition.to_value();
        if decided(&value, &others, compiled, Timestamp::now()) == value {
            return Ok(());
        }
        let target = &Target::new(kind, "", definition.name(), None);
        let others = &others;
        let decide = |current: Arc<Object>| async move {
            let mut old = current.to_value();
            take_version(&mut old);
            let mut new = decided(&old, others, compiled, Timestamp::now());
            if new == old || current.deleting {
                return Ok(());
            }
            managed::record_status(kind, &old, &mut new);
            self.store_edit(target, &current, &new, false).await.map(drop)
        };
        self.retrying(target, move |current| decide(current).boxed()).await
    }
}

/// The definition as it should be.
fn decided(definition: &Value, others: &Objects, compiled: &Scheme, now: Timestamp) -> Value {
    let mut new = definition.clone();
    let requested = definition["spec"]["names"].clone();
    let accepted = definition["status"]["acceptedNames"].clone();
    let taken = taken(definition, others, compiled);
    let mut problem: Option<(&'static str, String)> = None;
    let single = [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ];
    for (field, reason, used) in single {
        let wanted = requested[field].as_str().unwrap_or_default();
        if wanted != accepted[field].as_str().unwrap_or_default() && used.contains(wanted) {
            problem = Some((reason, format!("{wanted:?} is already in use")));
        } else if requested[field].is_string() {
            new["status"]["acceptedNames"][field] = requested[field].clone();
        }
        if field == "singular"
            && let Some(clash) = short_names(&requested, &accepted, &taken, &mut new)
        {
            problem = Some(("ShortNamesConflict", clash));
        }
    }
    set_list(&mut new, "categories", &requested["categories"]);
    let fine = problem.is_none();
    let (reason, message) =
        problem.unwrap_or_else(|| ("NoConflicts", "no conflicts found".to_owned()));
    set_condition(
        &mut new,
        &Condition { type_: "NamesAccepted", status: fine, reason, message },
        now,
    );
    let established =
        condition(definition, "Established").is_some_and(|known| known["status"] == "True");
    if !established {
        let (reason, message) = match fine {
            true => ("InitialNamesAccepted", "the initial names have been accepted"),
            false => ("NotAccepted", "not all names are accepted"),
        };
        let condition =
            Condition { type_: "Established", status: fine, reason, message: message.into() };
        set_condition(&mut new, &condition, now);
    }
    if let Some((status, reason, message)) = kinds::approval(definition) {
        let type_ = "KubernetesAPIApprovalPolicyConformant";
        set_condition(&mut new, &Condition { type_, status, reason, message }, now);
    }
    new
}

/// Accepts the short names, all of them or none; otherwise says why.
fn short_names(
    requested: &Value,
    accepted: &Value,
    taken: &Taken,
    new: &mut Value,
) -> Option<String> {
    let names = |value: &Value| -> Vec<String> {
        let names = value["shortNames"].as_array().into_iter().flatten();
        names.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (wanted, had) = (names(requested), names(accepted));
    let clashes: Vec<String> = wanted
        .iter()
        .filter(|name| !had.contains(name) && taken.resources.contains(*name))
        .map(|name| format!("{name:?} is already in use"))
        .collect();
    match clashes.as_slice() {
        [] => {
            set_list(new, "shortNames", &requested["shortNames"]);
            None
        }
        [only] => Some(only.clone()),
        all => Some(format!("[{}]", all.join(", "))),
    }
}

fn set_list(new: &mut Value, field: &str, value: &Value) {
    let accepted = &mut new["status"]["acceptedNames"];
    if value.as_array().is_some_and(|list| !list.is_empty()) {
        accepted[field] = value.clone();
    } else if let Some(accepted) = accepted.as_object_mut() {
        accepted.remove(field);
    }
}

fn taken(definition: &Value, others: &Objects, compiled: &Scheme) -> Taken {
    let group = &definition["spec"]["group"];
    let own = &definition["metadata"]["name"];
    let mut taken = Taken::default();
    for other in others.values().filter(|other| own != other.name()) {
        let other = other.to_value();
        if other["spec"]["group"] != *group {
            continue;
        }
        let names = &other["status"]["acceptedNames"];
        let single = |field: &str| names[field].as_str().unwrap_or_default().to_owned();
        let short = names["shortNames"].as_array().into_iter().flatten();
        let short = short.filter_map(Value::as_str).map(str::to_owned);
        taken.resources.extend([single("plural"), single("singular")].into_iter().chain(short));
        taken.kinds.extend([single("kind"), single("listKind")]);
    }
    for def in compiled.iter().filter(|def| *group == def.group.as_str()) {
        taken.resources.extend([def.plural.clone(), def.singular.clone()]);
        taken.resources.extend(def.short_names.iter().cloned());
        taken.kinds.extend([def.kind.clone(), def.list_kind.clone()]);
    }
    taken.resources.remove("");
    taken.kinds.remove("");
    taken
}
