//! `cmn get`: objects of any kind, as a table that the server lays out, or as they are.

use std::{collections::BTreeSet, process::ExitCode};

use clap::{Args as ClapArgs, ValueEnum};
use futures::TryStreamExt;
use kube::core::WatchEvent;
use serde_json::{Value, json};

use crate::{
    errors::{Failure, Result},
    kinds::{Kind, Kinds, encode, request},
    kubeconfig::Cluster,
    output,
    table::{Columns, Layout},
};

const AS_TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn get tasks                     the tasks of the namespace
  cmn get tasks,offers,agents -A    several kinds, all namespaces
  cmn get task/hello -o yaml        one object as it is
  cmn get tasks -l app=web -w       follow changes")]
pub(crate) struct Args {
    /// Kinds (`tasks`, `tk`, `tasks,offers`) and names, or KIND/NAME
    #[arg(required = true, value_name = "KIND [NAME]")]
    what: Vec<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects with these labels, e.g. `app=web,tier!=db`
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Only objects with these fields, e.g. `spec.agent=node-1`
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<String>,
    /// After the list, follow changes
    #[arg(short, long)]
    watch: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// No line of column names
    #[arg(long)]
    no_headers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

/// A kind and, where some were given, names.
pub(crate) struct Selection {
    pub(crate) kind: Kind,
    pub(crate) names: Vec<String>,
}

/// Understands kubectl's grammar: `KIND[,KIND] [NAME...]` or `KIND/NAME...`.
pub(crate) async fn select(kinds: &mut Kinds<'_>, words: &[String]) -> Result<Vec<Selection>> {
    let mut selections: Vec<Selection> = Vec::new();
    if words.iter().any(|word| word.contains('/')) {
        for word in words {
            let Some((kind, name)) =
                word.split_once('/').filter(|(kind, name)| !kind.is_empty() && !name.is_empty())
            else {
                return Err(Failure::new(format!("\"{word}\" is not of the form KIND/NAME")).hint(
                    "either all are KIND/NAME, or the first is a KIND and the others are names",
                ));
            };
            let kind = kinds.find(kind).await?;
            match selections.iter_mut().find(|selection| selection.kind == kind) {
                Some(selection) => selection.names.push(name.to_owned()),
                None => selections.push(Selection { kind, names: vec![name.to_owned()] }),
            }
        }
        return Ok(selections);
    }
    let (first, names) = words
        .split_first()
        .ok_or_else(|| Failure::new("which kind?").hint("for instance: `tasks`"))?;
    let mut seen = BTreeSet::new();
    for word in first.split(',').filter(|word| !word.is_empty()) {
        let kind = kinds.find(word).await?;
        if seen.insert(kind.qualified()) {
            selections.push(Selection { kind, names: names.to_vec() });
        }
    }
    Ok(selections)
}

pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<ExitCode> {
    let selections = select(&mut Kinds::of(&cluster.client), &args.what).await?;
    let by_name = |s: &Selection| s.kind.namespaced && !s.names.is_empty();
    if args.all_namespaces && selections.iter().any(by_name) {
        return Err(Failure::new(
            "-A is for lists: a name says which object in one namespace only",
        )
        .hint(format!("`cmn get {} -n NAMESPACE`", args.what.join(" "))));
    }
    if args.watch && selections.len() != 1 {
        return Err(Failure::new("--watch follows one kind at a time")
            .hint(format!("`cmn get {} -w`", selections[0].kind.plural)));
    }
    match args.output {
        Output::Table | Output::Wide => tables(&args, cluster, &selections).await,
        _ => objects(&args, cluster, &selections).await,
    }
}

impl Args {
    fn namespace<'a>(&self, cluster: &'a Cluster) -> Option<&'a str> {
        (!self.all_namespaces).then_some(cluster.namespace.as_str())
    }

    fn query(&self, more: &[String]) -> String {
        let label =
            self.selector.as_ref().map(|selector| format!("labelSelector={}", encode(selector)));
        let field = self
            .field_selector
            .as_ref()
            .map(|selector| format!("fieldSelector={}", encode(selector)));
        let parts: Vec<String> =
            label.into_iter().chain(field).chain(more.iter().cloned()).collect();
        if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
    }
}

/// The answer for each name, or one answer for the whole list.
async fn fetch(
    args: &Args,
    cluster: &Cluster,
    selection: &Selection,
    accept: &str,
) -> Result<Vec<Value>> {
    let kind = &selection.kind;
    let paths: Vec<String> = match selection.names.as_slice() {
        [] => vec![kind.path(args.namespace(cluster)) + &args.query(&[])],
        names => names.iter().map(|name| kind.object_path(&cluster.namespace, name)).collect(),
    };
    let mut answers = Vec::new();
    for path in paths {
        let mut request = request("GET", &path, Vec::new());
        let accept = accept.parse().expect("a constant of this module");
        request.headers_mut().insert(http::header::ACCEPT, accept);
        let answer = cluster.client.request::<Value>(request).await;
        answers.push(
            answer.map_err(|error| Failure::api(format!("cannot get {}", kind.plural), &error))?,
        );
    }
    Ok(answers)
}

async fn tables(args: &Args, cluster: &Cluster, selections: &[Selection]) -> Result<ExitCode> {
    let columns = if args.output == Output::Wide { Columns::Wide } else { Columns::Usual };
    let mut printed = false;
    for selection in selections {
        let mut answers = fetch(args, cluster, selection, AS_TABLE).await?;
        let mut table = answers.remove(0);
        if table["kind"] != "Table" {
            table = own_table(&table);
        }
        for other in answers {
            let other = if other["kind"] == "Table" { other } else { own_table(&other) };
            if let (Some(rows), Some(more)) =
                (table["rows"].as_array_mut(), other["rows"].as_array())
            {
                rows.extend(more.iter().cloned());
            }
        }
        if selections.len() > 1 {
            prefix_names(&mut table, &selection.kind);
        }
        let mut layout =
            Layout::new(&table, columns, args.all_namespaces && selection.kind.namespaced);
        let rows = layout.rows(&table);
        if rows.is_empty() && !args.watch {
            continue;
        }
        if printed {
            output::line("")?;
        }
        let header = layout.header(&rows);
        if !args.no_headers && !rows.is_empty() {
            output::data(header.as_bytes())?;
        }
        output::data(layout.lines(&rows).as_bytes())?;
        printed = true;
        if args.watch {
            let version = table["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            watch(args, cluster, selection, version, AS_TABLE, |table| {
                let table = if table["kind"] == "Table" { table } else { own_table(&table) };
                let rows = layout.rows(&table);
                output::data(layout.lines(&rows).as_bytes())
            })
            .await?;
        }
    }
    if !printed {
        let place = match args
            .namespace(cluster)
            .filter(|_| selections.iter().any(|s| s.kind.namespaced))
        {
            Some(namespace) => format!(" in namespace {namespace} (`-A` looks in all)"),
            None => String::new(),
        };
        let kinds: Vec<&str> =
            selections.iter().map(|selection| selection.kind.plural.as_str()).collect();
        output::note(&format!("no {}{place}", kinds.join(", ")));
    }
    Ok(ExitCode::SUCCESS)
}

async fn objects(args: &Args, cluster: &Cluster, selections: &[Selection]) -> Result<ExitCode> {
    let mut found: Vec<Value> = Vec::new();
    let single = selections.len() == 1 && selections[0].names.len() == 1;
    for selection in selections {
        let mut version = String::new();
        for mut answer in fetch(args, cluster, selection, "application/json").await? {
            version = answer["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
            match answer.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => {
                    found.extend(items.into_iter().map(|item| typed(item, &selection.kind)))
                }
                _ => found.push(answer),
            }
        }
        if args.watch {
            for object in found.drain(..) {
                print_object(args.output, &object)?;
            }
            watch(args, cluster, selection, &version, "application/json", |object| {
                print_object(args.output, &object)
            })
            .await?;
        }
    }
    match args.output {
        Output::Name => found.iter().try_for_each(|object| print_object(args.output, object))?,
        _ if args.watch => {}
        _ if single => print_object(args.output, &found[0])?,
        _ => print_object(
            args.output,
            &json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": found}),
        )?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Items of a list leave out what the list says for all of them.
fn typed(mut item: Value, kind: &Kind) -> Value {
    if let Some(item) = item.as_object_mut() {
        item.entry("apiVersion").or_insert_with(|| kind.api_version().into());
        item.entry("kind").or_insert_with(|| kind.kind.clone().into());
    }
    item
}

fn print_object(output: Output, object: &Value) -> Result<()> {
    let text = match output {
        Output::Name => {
            let group = object["apiVersion"]
                .as_str()
                .and_then(|version| version.split_once('/'))
                .map(|(group, _)| group);
            let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            group.map_or(format!("{kind}/{name}\n"), |group| format!("{kind}.{group}/{name}\n"))
        }
        Output::Yaml => format!("---\n{}", yaml(object)?),
        _ => {
            serde_json::to_string_pretty(object)
                .map_err(|e| Failure::new(format!("cannot print: {e}")))?
                + "\n"
        }
    };
    let text = if output == Output::Yaml { text.trim_start_matches("---\n") } else { &text };
    output::data(text.as_bytes())
}

pub(crate) fn yaml(object: &Value) -> Result<String> {
    let text = serde_saphyr::to_string(object)
        .map_err(|error| Failure::new(format!("cannot print as YAML: {error}")))?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}

/// Follows changes from a version on until the server ends the stream; the server may do so at any
/// time, and then we go on where it stopped.
async fn watch(
    args: &Args,
    cluster: &Cluster,
    selection: &Selection,
    from: &str,
    accept: &str,
    mut show: impl FnMut(Value) -> Result<()>,
) -> Result<()> {
    let kind = &selection.kind;
    let mut version = from.to_owned();
    let field = match selection.names.as_slice() {
        [] => None,
        [name] => Some(format!("fieldSelector={}", encode(&format!("metadata.name={name}")))),
        _ => {
            return Err(Failure::new("--watch follows one name, or all")
                .hint(format!("`cmn get {} -w`", kind.plural)));
        }
    };
    let tried = format!("cannot watch {}", kind.plural);
    loop {
        let mut more = vec!["watch=true".to_owned(), "allowWatchBookmarks=true".to_owned()];
        more.push(format!("resourceVersion={version}"));
        more.extend(field.clone());
        let path = kind.path(args.namespace(cluster)) + &args.query(&more);
        let mut request = request("GET", &path, Vec::new());
        request
            .headers_mut()
            .insert(http::header::ACCEPT, accept.parse().expect("a constant of this module"));
        let events = cluster.client.request_events::<Value>(request).await;
        let mut events = std::pin::pin!(events.map_err(|error| Failure::api(&tried, &error))?);
        while let Some(event) =
            events.try_next().await.map_err(|error| Failure::api(&tried, &error))?
        {
            match event {
                WatchEvent::Added(object)
                | WatchEvent::Modified(object)
                | WatchEvent::Deleted(object) => {
                    // A Table has the version of its row's object.
                    let newer = object["metadata"]["resourceVersion"].as_str().or_else(|| {
                        object["rows"][0]["object"]["metadata"]["resourceVersion"].as_str()
                    });
                    if let Some(newer) = newer.filter(|newer| !newer.is_empty()) {
                        version = newer.to_owned();
                    }
                    show(object)?;
                }
                WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                WatchEvent::Error(status) => return Err(Failure::status(&tried, &status)),
            }
        }
    }
}

/// With several kinds in one output a name alone says too little.
fn prefix_names(table: &mut Value, kind: &Kind) {
    for row in table["rows"].as_array_mut().into_iter().flatten() {
        if let Some(name) = row["cells"][0].as_str() {
            row["cells"][0] = format!("{}/{name}", kind.qualified()).into();
        }
    }
}

/// For a server that sends no tables: name and age.
fn own_table(answer: &Value) -> Value {
    let objects = match answer["items"].as_array() {
        Some(items) => items.iter().collect(),
        None => vec![answer],
    };
    let now = jiff::Timestamp::now();
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| {
            let created = object["metadata"]["creationTimestamp"].as_str().and_then(|time| time.parse().ok());
            let age = created.map(|created| output::age(created, now));
            json!({"cells": [object["metadata"]["name"], age], "object": {"metadata": object["metadata"]}})
        })
        .collect();
    json!({
        "kind": "Table",
        "metadata": answer["metadata"],
        "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Age", "priority": 0}],
        "rows": rows,
    })
}
