//! `cmn allocator plan`: where tasks of files would go on the running cluster.
//!
//! The server checks them and fills in what they leave out (a dry run of their creation); what there
//! is comes by ordinary lists; the allocator's own code decides over that, here.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use clap::{Args as ClapArgs, ValueEnum};
use commonage_controllers::whatif::{self, Verdict};
use commonage_schemas::Task;
use serde_json::{Value, json};

use crate::{
    apply,
    errors::{Failure, Result, exit},
    kinds::{Kinds, get_opt, request},
    kubeconfig::Cluster,
    output, table,
};

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// A file, a directory, or `-` for standard input; may be repeated
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

pub(super) async fn run(args: &Args, cluster: &Cluster) -> Result<ExitCode> {
    let documents = apply::read(&args.files)?;
    let mut kinds = Kinds::of(&cluster.client);
    let mut tasks: Vec<Task> = Vec::new();
    let mut there = Vec::new();
    for document in &documents {
        let kind = document.kind(&mut kinds).await?;
        if document.object["kind"] != "Task" {
            let what = document.object["kind"].as_str().unwrap_or_default();
            output::note(&format!("left out: {what} {}", document.name()?));
            continue;
        }
        let (name, namespace) = (document.name()?, document.namespace(cluster));
        let tried = format!("task {name} can't be planned");
        let path = kind.object_path(namespace, name);
        if let Some(found) = get_opt(&cluster.client, &path, &tried).await? {
            there.push(existing(&found));
            continue;
        }
        let mut object = document.object.clone();
        // On an offer it goes where the offer is, and nobody has to decide.
        if object["spec"]["offer"].is_string() {
            return Err(Failure::new(format!(
                "{tried}: it names an offer, which says where it goes"
            )));
        }
        object["metadata"]["namespace"] = json!(namespace);
        let path = format!("{}?dryRun=All&fieldValidation=Strict", kind.path(Some(namespace)));
        let request = request("POST", &path, object.to_string().into_bytes());
        let created = cluster.client.request::<Task>(request).await;
        let mut task = created.map_err(|error| Failure::api(&tried, &error))?;
        task.metadata.resource_version.get_or_insert_with(|| "1".to_owned());
        task.metadata.uid.get_or_insert_with(|| format!("planned-{namespace}-{name}"));
        tasks.push(task);
    }
    let decided = whatif::decide(&cluster.client, &tasks).await;
    let mut verdicts =
        decided.map_err(|error| Failure::api("the cluster can't be read", &error))?;
    verdicts.extend(there);
    match args.output {
        Output::Json => {
            let all = json!({"tasks": verdicts});
            let text = serde_json::to_string_pretty(&all).unwrap_or_default();
            output::line(&text)?;
        }
        Output::Table => print(&verdicts)?,
    }
    let waits = verdicts.iter().any(|verdict| verdict.agent.is_none());
    Ok(if waits { ExitCode::from(exit::REFUSED) } else { ExitCode::SUCCESS })
}

/// A task that was created before: it is where it is.
fn existing(task: &Value) -> Verdict {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let agent = task["spec"]["agent"].as_str().map(str::to_owned);
    let state = text(&task["status"]["state"]);
    Verdict {
        namespace: text(&task["metadata"]["namespace"]),
        task: text(&task["metadata"]["name"]),
        agent,
        why: Some(format!("it exists already, and is {state}")),
        ..Verdict::default()
    }
}

fn print(verdicts: &[Verdict]) -> Result<()> {
    let rows: Vec<Vec<String>> = verdicts
        .iter()
        .map(|verdict| {
            let agent = verdict.agent.clone().unwrap_or_else(|| "<waits>".to_owned());
            let ports: Vec<String> = verdict.host_ports.iter().map(u16::to_string).collect();
            let why = match &verdict.why {
                Some(why) => why.clone(),
                None => elsewhere(&verdict.elsewhere),
            };
            let ports = if ports.is_empty() { "-".to_owned() } else { ports.join(",") };
            vec![verdict.task.clone(), agent, ports, why]
        })
        .collect();
    output::data(
        table::plain(&["TASK", "AGENT", "PORTS", "WHY NOT ELSEWHERE"], &rows, "").as_bytes(),
    )?;
    for verdict in verdicts {
        for victim in &verdict.preempts {
            output::line(&format!("{}: would kill {victim}", verdict.task))?;
        }
    }
    Ok(())
}

/// `2 memory, 1 constraints, 3 would do too`.
fn elsewhere(counts: &BTreeMap<String, u64>) -> String {
    let each: Vec<String> = counts
        .iter()
        .map(|(by, agents)| match by.as_str() {
            "fits" => format!("{agents} would do too"),
            by => format!("{agents} {by}"),
        })
        .collect();
    if each.is_empty() { "there is no other agent".to_owned() } else { each.join(", ") }
}
