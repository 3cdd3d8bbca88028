//! `cmn sandbox ls`: what lies in the directory of a task, also of one that has ended.

use std::process::ExitCode;

use clap::{Args as ClapArgs, Subcommand};
use commonage_schemas::sandbox::{EntryKind, SandboxEntry, SandboxListing};
use jiff::Timestamp;

use crate::{
    errors::Result,
    kinds::{encode, get},
    kubeconfig::Cluster,
    output::{self, age},
    table,
};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List a directory of a sandbox
    #[command(after_help = "Examples:
  cmn sandbox ls web                 all that lies at its top
  cmn sandbox ls web results/today   a directory in it

A sandbox stays until its task is deleted. Of a running task `cmn cp` copies files out of it.")]
    Ls(Ls),
}

#[derive(Debug, ClapArgs)]
struct Ls {
    /// The task
    #[arg(value_name = "TASK")]
    task: String,
    /// Where in the sandbox
    #[arg(value_name = "PATH", default_value = "")]
    path: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Form::Table)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Table,
    Json,
    /// Names alone, one a line
    Name,
}

pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<ExitCode> {
    let Verb::Ls(Ls { task, path, output }) = args.verb;
    let task = task.strip_prefix("task/").unwrap_or(&task);
    let url = format!(
        "/apis/commonage.dev/v1/namespaces/{}/tasks/{}/sandbox?path={}",
        encode(&cluster.namespace),
        encode(task),
        encode(&path)
    );
    let tried = format!("cannot list the sandbox of task \"{task}\"");
    let listing: Result<SandboxListing> = get(&cluster.client, &url, &tried).await;
    let listing = listing.map_err(|failure| match path.as_str() {
        "" => failure,
        _ => failure.hint(format!("see what there is: `cmn sandbox ls {task}`")),
    })?;
    match output {
        Form::Json => {
            let text = serde_json::to_string_pretty(&listing).unwrap_or_default();
            output::line(&text)?;
        }
        Form::Name => {
            for entry in &listing.entries {
                output::line(&shown(&entry.name))?;
            }
        }
        Form::Table if listing.entries.is_empty() => output::note("nothing lies there"),
        Form::Table => {
            let now = Timestamp::now();
            let rows: Vec<Vec<String>> =
                listing.entries.iter().map(|entry| row(entry, now)).collect();
            let headers = ["MODE", "USER", "GROUP", "SIZE", "AGE", "NAME"];
            output::data(table::plain(&headers, &rows, "").as_bytes())?;
        }
    }
    if listing.truncated {
        output::note(&format!("only the first {} are shown", listing.entries.len()));
    }
    Ok(ExitCode::SUCCESS)
}

fn row(entry: &SandboxEntry, now: Timestamp) -> Vec<String> {
    let name = match (entry.kind, &entry.target) {
        (EntryKind::Directory, _) => format!("{}/", shown(&entry.name)),
        (_, Some(target)) => format!("{} -> {}", shown(&entry.name), shown(target)),
        _ => shown(&entry.name),
    };
    vec![
        mode(entry),
        entry.user.to_string(),
        entry.group.to_string(),
        entry.size_bytes.to_string(),
        age(entry.modified_at.0, now),
        name,
    ]
}

/// As `ls -l` has it.
fn mode(entry: &SandboxEntry) -> String {
    let bits = u32::from_str_radix(&entry.mode, 8).unwrap_or(0);
    let mut text = String::from(match entry.kind {
        EntryKind::File => '-',
        EntryKind::Directory => 'd',
        EntryKind::Link => 'l',
        EntryKind::Other => '?',
    });
    for shift in [6, 3, 0] {
        let three = bits >> shift;
        for (bit, letter) in [(4, 'r'), (2, 'w'), (1, 'x')] {
            text.push(if three & bit != 0 { letter } else { '-' });
        }
    }
    text
}

/// A name is the task's own choice, and may hold what a terminal would obey.
fn shown(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_entry_reads_like_one_of_ls() {
        let entry: SandboxEntry = serde_json::from_value(serde_json::json!({
            "name": "a\u{1b}[2J", "type": "Link", "sizeBytes": 3, "mode": "0751", "user": 0, "group": 7,
            "modifiedAt": "2026-01-01T00:00:00Z", "target": "b",
        }))
        .unwrap();
        let row = row(&entry, "2026-01-01T00:00:05Z".parse().unwrap());
        assert_eq!(row, ["lrwxr-x--x", "0", "7", "3", "5s", "a?[2J -> b"]);
    }
}
