//! `cmn apply`: objects become what files say.
//!
//! As kubectl does without `--server-side`: the last applied text is kept in an annotation, and a
//! change is the difference from it, so that a field that leaves the file leaves the object, and
//! fields that others own stay. Both tools can work on the same objects by turns.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args as ClapArgs;
use serde_json::{Map, Value, json};

use crate::{
    errors::{Failure, Result, count, first_line},
    kinds::{Kind, Kinds, get_opt, request},
    kubeconfig::Cluster,
    output,
};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn apply -f examples/nginx.yaml
  cmn apply -f queues/                  all .yaml, .yml and .json files of a directory
  cmn get task/hello -o yaml | cmn apply -f -")]
pub(crate) struct Args {
    /// A file, a directory, or `-` for standard input; may be repeated
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// One object of a file, with where it came from.
pub(crate) struct Document {
    pub(crate) object: Value,
    place: String,
}

impl Document {
    fn text<'a>(&'a self, field: &'a Value, name: &str) -> Result<&'a str> {
        field.as_str().filter(|text| !text.is_empty()).ok_or_else(|| {
            Failure::new(format!("{}: the object has no {name}", self.place))
                .hint("every object begins with apiVersion, kind and metadata.name")
        })
    }

    pub(crate) fn name(&self) -> Result<&str> {
        self.text(&self.object["metadata"]["name"], "metadata.name")
    }

    pub(crate) async fn kind(&self, kinds: &mut Kinds<'_>) -> Result<Kind> {
        let api_version = self.text(&self.object["apiVersion"], "apiVersion")?;
        kinds.of_object(api_version, self.text(&self.object["kind"], "kind")?).await
    }

    /// The file's, else the command's.
    pub(crate) fn namespace<'a>(&'a self, cluster: &'a Cluster) -> &'a str {
        self.object["metadata"]["namespace"].as_str().unwrap_or(&cluster.namespace)
    }
}

/// All objects of the files, in order; the items of a List one by one.
pub(crate) fn read(files: &[PathBuf]) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for file in files {
        if file.as_os_str() == "-" {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|error| Failure::new(format!("cannot read standard input: {error}")))?;
            parse("standard input", &text, &mut documents)?;
        } else if file.is_dir() {
            for entry in sorted_files(file)? {
                parse_file(&entry, &mut documents)?;
            }
        } else {
            parse_file(file, &mut documents)?;
        }
    }
    match documents.is_empty() {
        true => {
            Err(Failure::new("there is no object in the files")
                .hint("an example: examples/nginx.yaml"))
        }
        false => Ok(documents),
    }
}

fn sorted_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |error: std::io::Error| {
        Failure::new(format!("cannot read {}: {error}", directory.display()))
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| {
            ["yaml", "yml", "json"].iter().any(|known| extension == *known)
        }) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn parse_file(path: &Path, documents: &mut Vec<Document>) -> Result<()> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
    parse(&path.display().to_string(), &text, documents)
}

/// JSON is YAML, so one parser does both.
fn parse(place: &str, text: &str, documents: &mut Vec<Document>) -> Result<()> {
    let parsed: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| {
        Failure::new(format!("{place}: this is neither YAML nor JSON: {}", first_line(&error)))
    })?;
    for (index, mut object) in parsed.into_iter().enumerate() {
        let place = format!("{place}, object {}", index + 1);
        match object.get_mut("items").map(Value::take) {
            Some(Value::Array(items))
                if object["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) =>
            {
                documents.extend(
                    items.into_iter().map(|object| Document { object, place: place.clone() }),
                );
            }
            _ if object.is_null() => {}
            _ => documents.push(Document { object, place }),
        }
    }
    Ok(())
}

pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<ExitCode> {
    let documents = read(&args.files)?;
    let mut kinds = Kinds::of(&cluster.client);
    let mut failed = 0;
    for document in &documents {
        // One bad object is no reason to leave the others out.
        match apply(document, &mut kinds, cluster).await {
            Ok(line) => output::line(&line)?,
            Err(failure) if documents.len() == 1 => return Err(failure),
            Err(failure) => {
                crate::errors::report(Err(failure));
                failed += 1;
            }
        }
    }
    match failed {
        0 => Ok(ExitCode::SUCCESS),
        n => {
            Err(Failure::new(format!("{} of {} not applied", n, count(documents.len(), "object"))))
        }
    }
}

/// A misspelled field is an error, as for kubectl; by default a server only warns.
const STRICT: &str = "?fieldManager=cmn-apply&fieldValidation=Strict";

async fn apply(document: &Document, kinds: &mut Kinds<'_>, cluster: &Cluster) -> Result<String> {
    let kind = document.kind(kinds).await?;
    let (name, namespace) = (document.name()?, document.namespace(cluster));
    let title = format!("{}/{name}", kind.qualified());
    let path = kind.object_path(namespace, name);
    let wanted = with_last_applied(&document.object);
    let tried = format!("{title} was not applied");
    let Some(current) = get_opt(&cluster.client, &path, &tried).await? else {
        let path = format!("{}{STRICT}", kind.path(Some(namespace)));
        let request = request("POST", &path, wanted.to_string().into_bytes());
        let created = cluster.client.request::<Value>(request).await;
        created.map_err(|error| refused(&tried, &error, &kind))?;
        return Ok(format!("{title} created"));
    };
    let last = current["metadata"]["annotations"][LAST_APPLIED].as_str();
    let last: Value =
        last.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| json!({}));
    let mut patch = wanted;
    remove_what_left(&last, &document.object, &mut patch);
    let before = current["metadata"]["resourceVersion"].clone();
    let path = format!("{path}{STRICT}");
    let mut request = request("PATCH", &path, patch.to_string().into_bytes());
    let merge_patch = http::HeaderValue::from_static("application/merge-patch+json");
    request.headers_mut().insert(http::header::CONTENT_TYPE, merge_patch);
    let patched = cluster
        .client
        .request::<Value>(request)
        .await
        .map_err(|error| refused(&tried, &error, &kind))?;
    let verb =
        if patched["metadata"]["resourceVersion"] == before { "unchanged" } else { "configured" };
    Ok(format!("{title} {verb}"))
}

/// With a hint where the object has a field that its kind has not.
fn refused(tried: &str, error: &kube::Error, kind: &Kind) -> Failure {
    let failure = Failure::api(tried, error);
    let words = error.to_string();
    let unknown = words.split_once("unknown field \"").and_then(|(_, rest)| rest.split_once('"'));
    let Some((field, _)) = unknown else { return failure };
    // The field above it has the right one; items of lists have no place in such a path.
    let above = field.rsplit_once('.').map_or("", |(above, _)| above);
    let path: Vec<&str> = [kind.singular.as_str()]
        .into_iter()
        .chain(above.split('.').map(|part| part.split('[').next().unwrap_or_default()))
        .filter(|part| !part.is_empty())
        .collect();
    failure.hint(format!("what fields there are: `kubectl explain {}`", path.join(".")))
}

fn with_last_applied(object: &Value) -> Value {
    let mut wanted = object.clone();
    let annotations = wanted["metadata"]["annotations"].take();
    let mut annotations = annotations.as_object().cloned().unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    let mut plain = object.clone();
    plain["metadata"]["annotations"] = Value::Object(annotations.clone());
    annotations.insert(LAST_APPLIED.to_owned(), (plain.to_string() + "\n").into());
    wanted["metadata"]["annotations"] = Value::Object(annotations);
    wanted
}

/// Adds a null to the merge patch for every field that the last text had and the new one has not.
fn remove_what_left(last: &Value, wanted: &Value, patch: &mut Value) {
    let (Some(last), Some(patch)) = (last.as_object(), patch.as_object_mut()) else {
        return;
    };
    let empty = Map::new();
    let wanted = wanted.as_object().unwrap_or(&empty);
    for (field, was) in last {
        match wanted.get(field) {
            None => {
                patch.entry(field.clone()).or_insert(Value::Null);
            }
            Some(now) if was.is_object() && now.is_object() => {
                remove_what_left(was, now, &mut patch[field.as_str()]);
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_field_that_left_the_file_leaves_the_object() {
        let last = json!({"metadata": {"name": "q", "labels": {"a": "1", "b": "2"}}, "spec": {"weight": "2", "limit": {"cpu": "1"}}});
        let wanted =
            json!({"metadata": {"name": "q", "labels": {"a": "1"}}, "spec": {"weight": "3"}});
        let mut patch = wanted.clone();
        remove_what_left(&last, &wanted, &mut patch);
        let expected = json!({"metadata": {"name": "q", "labels": {"a": "1", "b": null}}, "spec": {"weight": "3", "limit": null}});
        assert_eq!(patch, expected);
    }

    #[test]
    fn lists_and_empty_documents() {
        let text = "---\n---\nkind: Queue\nmetadata: {name: a}\n---\nkind: List\nitems: [{kind: Queue}, {kind: Task}]\n";
        let mut documents = Vec::new();
        parse("here", text, &mut documents).unwrap();
        let kinds: Vec<&str> =
            documents.iter().map(|d| d.object["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["Queue", "Queue", "Task"]);
        assert_eq!(documents[0].name().unwrap(), "a");
        assert!(documents[1].name().is_err());
    }

    #[test]
    fn the_annotation_never_contains_itself() {
        let once = with_last_applied(&json!({"metadata": {"name": "a"}}));
        let twice = with_last_applied(&once);
        let text = twice["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
        assert!(!text.contains(LAST_APPLIED), "{text}");
    }
}
