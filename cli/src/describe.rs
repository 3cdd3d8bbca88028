//! `cmn describe`: one object for people: what it is, what happened to it, why, and what next.

use std::process::ExitCode;

use clap::Args as ClapArgs;
use commonage_schemas::{Task, TaskState};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{
    errors::{Failure, Result},
    get,
    kinds::{Kind, Kinds, encode, get as fetch},
    kubeconfig::Cluster,
    output::{self, Stream, Tone, age, paint, tone_of_state},
    run::waits,
    table,
};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn describe task hello
  cmn describe agents           all of them")]
pub(crate) struct Args {
    /// A kind and names, or KIND/NAME; without names, all
    #[arg(required = true, value_name = "KIND [NAME]")]
    what: Vec<String>,
}

pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<ExitCode> {
    let mut first = true;
    for selection in get::select(&mut Kinds::of(&cluster.client), &args.what).await? {
        let kind = &selection.kind;
        let tried = format!("cannot describe {}", kind.plural);
        let mut objects: Vec<Value> = Vec::new();
        if selection.names.is_empty() {
            let mut list: Value =
                fetch(&cluster.client, &kind.path(Some(&cluster.namespace)), &tried).await?;
            if let Value::Array(items) = list["items"].take() {
                objects = items;
            }
        }
        for name in &selection.names {
            objects.push(
                fetch(&cluster.client, &kind.object_path(&cluster.namespace, name), &tried).await?,
            );
        }
        for object in objects {
            let events = events(cluster, kind, &object).await;
            let text = describe(kind, &object, &events, Timestamp::now())?;
            output::data(if first { text } else { format!("\n\n{text}") }.as_bytes())?;
            first = false;
        }
    }
    if first {
        output::note("nothing to describe");
    }
    Ok(ExitCode::SUCCESS)
}

/// What was reported about the object, oldest first. An extra: nothing is said if it cannot be had.
async fn events(cluster: &Cluster, kind: &Kind, object: &Value) -> Vec<Value> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    let selector = format!("involvedObject.name={name},involvedObject.kind={}", kind.kind);
    let path = format!(
        "/api/v1/namespaces/{}/events?fieldSelector={}",
        encode(namespace),
        encode(&selector)
    );
    let list: Result<Value, Failure> = fetch(&cluster.client, &path, "events").await;
    let mut events = match list.map(|mut list| list["items"].take()) {
        Ok(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    events.sort_by_key(|event| event_time(event).map(str::to_owned));
    events
}

fn event_time(event: &Value) -> Option<&str> {
    let times =
        [&event["lastTimestamp"], &event["eventTime"], &event["metadata"]["creationTimestamp"]];
    times.into_iter().find_map(Value::as_str)
}

fn describe(kind: &Kind, object: &Value, events: &[Value], now: Timestamp) -> Result<String> {
    let metadata = &object["metadata"];
    let mut text = String::new();
    field(&mut text, "Name", metadata["name"].as_str().unwrap_or_default());
    if let Some(namespace) = metadata["namespace"].as_str() {
        field(&mut text, "Namespace", namespace);
    }
    field(&mut text, "Kind", &format!("{} ({})", kind.kind, kind.api_version()));
    for (label, map) in [("Labels", &metadata["labels"]), ("Annotations", &metadata["annotations"])]
    {
        pairs(&mut text, label, map.as_object());
    }
    for (label, time) in
        [("Created", &metadata["creationTimestamp"]), ("Deleted", &metadata["deletionTimestamp"])]
    {
        if let Some(time) = time.as_str() {
            field(&mut text, label, &format!("{time} ({} ago)", since(time, now)));
        }
    }
    for (label, part) in
        [("Spec", &object["spec"]), ("Data", &object["data"]), ("Status", &object["status"])]
    {
        section(&mut text, label, &without_tables(part))?;
    }
    let status = &object["status"];
    rows(
        &mut text,
        "Conditions",
        &["TYPE", "STATUS", "REASON", "AGE", "MESSAGE"],
        &status["conditions"],
        |c| {
            vec![
                word(&c["type"]),
                word(&c["status"]),
                word(&c["reason"]),
                ago(&c["lastTransitionTime"], now),
                word(&c["message"]),
            ]
        },
    );
    rows(&mut text, "History", &["STATE", "AGE", "REASON"], &status["history"], |change| {
        vec![word(&change["state"]), ago(&change["time"], now), word(&change["reason"])]
    });
    rows(
        &mut text,
        "Events",
        &["AGE", "TYPE", "REASON", "MESSAGE"],
        &Value::Array(events.to_vec()),
        |event| {
            let time = event_time(event).map_or_else(String::new, |time| since(time, now));
            vec![time, word(&event["type"]), word(&event["reason"]), word(&event["message"])]
        },
    );
    let task = (kind.kind == "Task").then(|| serde_json::from_value::<Task>(object.clone()));
    if let Some(Ok(task)) = task {
        let (why, next) = why_and_next(&task);
        field(&mut text, "Why", &why);
        field(&mut text, "Next", &next);
    }
    Ok(text)
}

fn field(text: &mut String, label: &str, value: &str) {
    let value = match label {
        "Why" => {
            paint(Stream::Stdout, tone_of_state(value.split(':').next().unwrap_or_default()), value)
        }
        "Next" => paint(Stream::Stdout, Tone::Hint, value),
        _ => value.to_owned(),
    };
    text.push_str(&format!("{:<13}{value}\n", format!("{label}:")));
}

fn pairs(text: &mut String, label: &str, map: Option<&Map<String, Value>>) {
    // What `apply` keeps for itself is the object once more.
    let shown =
        map.into_iter().flatten().filter(|(key, _)| !key.ends_with("last-applied-configuration"));
    for (index, (key, value)) in shown.enumerate() {
        let line = format!("{key}={}", word(value));
        match index {
            0 => field(text, label, &line),
            _ => text.push_str(&format!("{:<13}{line}\n", "")),
        }
    }
}

/// A part of the object as YAML, indented.
fn section(text: &mut String, label: &str, part: &Value) -> Result<()> {
    if part.as_object().is_none_or(Map::is_empty) {
        return Ok(());
    }
    text.push_str(&format!("{label}:\n"));
    for line in get::yaml(part)?.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    Ok(())
}

/// Conditions and history have tables of their own.
fn without_tables(part: &Value) -> Value {
    let mut part = part.clone();
    if let Some(map) = part.as_object_mut() {
        map.remove("conditions");
        map.remove("history");
    }
    part
}

fn rows(
    text: &mut String,
    label: &str,
    headers: &[&str],
    list: &Value,
    row: impl Fn(&Value) -> Vec<String>,
) {
    let rows: Vec<Vec<String>> = list.as_array().into_iter().flatten().map(row).collect();
    if !rows.is_empty() {
        text.push_str(&format!("{label}:\n{}", table::plain(headers, &rows, "  ")));
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn ago(time: &Value, now: Timestamp) -> String {
    time.as_str().map_or_else(|| "-".to_owned(), |time| since(time, now))
}

fn since(time: &str, now: Timestamp) -> String {
    time.parse().map_or_else(|_| "?".to_owned(), |time| age(time, now))
}

/// The answer to "why is it so?", and the command that most people type next.
fn why_and_next(task: &Task) -> (String, String) {
    let name = task.metadata.name.as_deref().unwrap_or_default();
    let status = task.status.clone().unwrap_or_default();
    let state = status.state;
    let waiting = status.why_pending.as_ref().filter(|_| state == TaskState::Pending);
    let waiting = waiting.map(|why| waits(&status, why));
    let words = match (waiting, status.message.or(status.reason)) {
        (Some(words), _) => words,
        (_, Some(words)) => words,
        (_, None) => match state {
            TaskState::Pending => "nobody has looked at it yet".to_owned(),
            _ => status
                .agent
                .or(task.spec.agent.clone())
                .map(|a| format!("on agent {a}"))
                .unwrap_or_default(),
        },
    };
    let why = if words.is_empty() { state.to_string() } else { format!("{state}: {words}") };
    let next = match state {
        TaskState::Pending | TaskState::Staging => "cmn get agents -o wide".to_owned(),
        TaskState::Starting | TaskState::Running => format!("cmn logs -f {name}"),
        TaskState::Killing => format!("cmn wait task/{name} --for=delete"),
        TaskState::Unreachable => "cmn get agents".to_owned(),
        TaskState::Error | TaskState::Dropped => {
            format!("cmn delete task {name}    # correct it, then create it again")
        }
        _ if status.started_at.is_some() => format!("cmn logs {name}"),
        _ => format!("cmn delete task {name}"),
    };
    (why, next)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pending_task_says_why_and_what_next() {
        let task: Task = serde_json::from_value(json!({
            "apiVersion": "commonage.dev/v1", "kind": "Task",
            "metadata": {"name": "big"}, "spec": {},
            "status": {"state": "Pending", "whyPending": {"agents": 1, "excluded": [{"by": "memory", "agents": 1}]}},
        }))
        .unwrap();
        let (why, next) = why_and_next(&task);
        assert_eq!(why, "Pending: waits: 1 agent: 1 without enough memory");
        assert_eq!(next, "cmn get agents -o wide");
    }
}
