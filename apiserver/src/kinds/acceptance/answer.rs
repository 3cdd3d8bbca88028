//! What an acceptance answers: its own body, with what has been made of it.
//!
//! The tasks go in as the bytes that the cache has of them: an acceptance may launch a hundred.

use std::collections::HashMap;
use std::sync::Arc;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::object::Object;
use crate::status::ApiError;

const OPERATIONS: &str = "operations";

/// Where a launched task stands: the number of its operation, the member of that, and its own number.
pub(super) type Place = (usize, &'static str, usize);

/// `body` with these members, and the tasks in their places.
pub(super) fn answer(
    body: &Value,
    members: Map<String, Value>,
    tasks: impl Iterator<Item = (Place, Arc<Object>)>,
) -> Result<Vec<u8>, ApiError> {
    let tasks: Vec<(Place, Arc<Object>)> = tasks.collect();
    let raw = tasks.iter().map(|(place, task)| {
        let raw: &RawValue = serde_json::from_slice(&task.body).map_err(ApiError::internal)?;
        Ok((*place, raw))
    });
    let tasks = raw.collect::<Result<HashMap<Place, &RawValue>, ApiError>>()?;
    let empty = Map::new();
    let body = body.as_object().unwrap_or(&empty);
    let answer = Answer { body, members: &members, tasks: &tasks };
    serde_json::to_vec(&answer).map_err(ApiError::internal)
}

struct Answer<'a> {
    body: &'a Map<String, Value>,
    members: &'a Map<String, Value>,
    tasks: &'a HashMap<Place, &'a RawValue>,
}

impl Serialize for Answer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Answer { body, members, tasks } = self;
        let mut names: Vec<&String> = body.keys().chain(members.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let mut map = serializer.serialize_map(Some(names.len()))?;
        for name in names {
            match members.get(name).or(body.get(name)) {
                Some(Value::Array(operations)) if name == OPERATIONS => {
                    map.serialize_entry(name, &Operations { operations, tasks })?;
                }
                value => map.serialize_entry(name, &value)?,
            }
        }
        map.end()
    }
}

struct Operations<'a> {
    operations: &'a [Value],
    tasks: &'a HashMap<Place, &'a RawValue>,
}

impl Serialize for Operations<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.operations.len()))?;
        for (number, value) in self.operations.iter().enumerate() {
            list.serialize_element(&Part {
                value,
                number,
                tasks: self.tasks,
                within: Within::Operation,
            })?;
        }
        list.end()
    }
}

/// An operation, or what is on the way from it to its tasks.
struct Part<'a> {
    value: &'a Value,
    /// Of the operation.
    number: usize,
    tasks: &'a HashMap<Place, &'a RawValue>,
    within: Within<'a>,
}

#[derive(Clone, Copy)]
enum Within<'a> {
    Operation,
    /// This member of it.
    Member(&'a str),
    Tasks(&'a str),
}

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let (Within::Tasks(member), Value::Array(sent)) = (self.within, self.value) {
            return self.serialize_tasks(member, sent, serializer);
        }
        let Value::Object(members) = self.value else { return self.value.serialize(serializer) };
        let mut map = serializer.serialize_map(Some(members.len()))?;
        for (name, value) in members {
            let within = match self.within {
                Within::Operation => Within::Member(name),
                Within::Member(member) if name == "tasks" => Within::Tasks(member),
                Within::Member(_) | Within::Tasks(_) => {
                    map.serialize_entry(name, value)?;
                    continue;
                }
            };
            map.serialize_entry(name, &Part { value, within, ..*self })?;
        }
        map.end()
    }
}

impl Part<'_> {
    fn serialize_tasks<S: Serializer>(
        &self,
        member: &str,
        sent: &[Value],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let tasks: &HashMap<(usize, &str, usize), &RawValue> = self.tasks;
        let mut list = serializer.serialize_seq(Some(sent.len()))?;
        for (place, sent) in sent.iter().enumerate() {
            match tasks.get(&(self.number, member, place)) {
                Some(task) => list.serialize_element(task)?,
                None => list.serialize_element(sent)?,
            }
        }
        list.end()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use commonage_store::Version;
    use serde_json::json;

    use super::*;
    use crate::cache::EventKind;
    use crate::object::{Fields, encode};
    use crate::resource::tests::task_def;

    #[test]
    fn tasks_stand_where_they_were_sent() {
        let def = task_def();
        let fields = Fields::of_all(&def, &[]);
        let task = |name: &str, version: u64| {
            let value =
                json!({"kind": "Task", "metadata": {"name": name, "labels": {"q": "\"\n"}}});
            let read = Object::decode(
                &fields,
                &format!("ns/{name}"),
                &encode(&value),
                Version(version),
                EventKind::Added,
            );
            Arc::new(read.unwrap().0)
        };
        let body = json!({
            "kind": "something else",
            "offers": ["other"],
            "operations": [
                {"reserve": {"tasks": "no list", "resources": {"cpus": 1}}},
                {"launch": {"tasks": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}},
                7,
            ],
        });
        let members = json!({"kind": "OfferAcceptance", "status": {"tasks": ["a", "b"]}});
        let (a, b) = (task("a", 300), task("b", 301));
        let tasks = [((1, "launch", 1), b.clone()), ((1, "launch", 0), a.clone())];
        let members = members.as_object().unwrap().clone();
        let text = answer(&body, members, tasks.into_iter()).unwrap();
        let mut expected = body;
        expected["kind"] = json!("OfferAcceptance");
        expected["status"] = json!({"tasks": ["a", "b"]});
        expected["operations"][1]["launch"]["tasks"] = json!([a.to_value(), b.to_value()]);
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), expected);
        assert_eq!(a.to_value()["metadata"]["resourceVersion"], "300");
    }
}
