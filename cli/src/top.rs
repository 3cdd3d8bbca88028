//! `cmn top`: what tasks, frameworks and agents use right now, beside what they were given.
//!
//! Read from `metrics.k8s.io`, as `kubectl top` reads it; the server asks the agents.

use std::{collections::BTreeMap, process::ExitCode};

use clap::{Args as ClapArgs, ValueEnum};
use commonage_schemas::{
    Agent, Task,
    quantity::{self, Unit},
};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::Value;

use crate::{
    errors::{Failure, Result},
    kinds::{encode, get},
    kubeconfig::Cluster,
    output, table,
};

const ROOT: &str = "/apis/metrics.k8s.io/v1beta1";

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn top                         the tasks of the namespace
  cmn top tasks -A --sort memory  all tasks, who uses most memory first
  cmn top frameworks              what the tasks of each framework use together
  cmn top agents                  what machines use

Percentages are of what a task was given (its limit, where it has one), or of what a machine has. Disk
figures count from the task's start; what still lies in the machine's memory is not written yet.")]
pub(crate) struct Args {
    /// Of what
    #[arg(value_enum, value_name = "KIND", default_value_t = Kind::Tasks)]
    kind: Kind,
    /// Only these
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// All namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects with these labels, e.g. `app=web,tier!=db`
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// In which order
    #[arg(long, value_enum, default_value_t = Sort::Name)]
    sort: Sort,
    /// No line of column names
    #[arg(long)]
    no_headers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    #[value(alias = "task", alias = "tk", alias = "pods", alias = "pod")]
    Tasks,
    #[value(alias = "framework", alias = "fw")]
    Frameworks,
    #[value(alias = "agent", alias = "ag", alias = "nodes", alias = "node")]
    Agents,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    Name,
    Cpu,
    Memory,
}

/// One line of the table, in thousandths of a cpu and in bytes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    namespace: String,
    name: String,
    /// How many tasks it stands for.
    tasks: u64,
    used: Amounts,
    /// Of which the percentages are.
    given: Amounts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Amounts {
    cpu_millis: i64,
    memory_bytes: i64,
    read_bytes: i64,
    written_bytes: i64,
}

pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<ExitCode> {
    let mut rows = match args.kind {
        Kind::Tasks => tasks(&args, cluster).await?.into_iter().map(|(_, row)| row).collect(),
        Kind::Frameworks => by_framework(tasks(&args, cluster).await?),
        Kind::Agents => agents(&args, cluster).await?,
    };
    for name in &args.names {
        if !rows.iter().any(|row| row.name == *name) {
            return Err(Failure::new(format!("nothing is known about what \"{name}\" uses")).hint(
                match args.kind {
                    Kind::Tasks => {
                        format!("only running tasks use anything: cmn describe task {name}")
                    }
                    Kind::Frameworks => {
                        "only frameworks with running tasks use anything: cmn get frameworks"
                            .to_owned()
                    }
                    Kind::Agents => format!("cmn describe agent {name}"),
                },
            ));
        }
    }
    rows.retain(|row| args.names.is_empty() || args.names.contains(&row.name));
    if rows.is_empty() {
        output::note("nothing runs here");
        return Ok(ExitCode::SUCCESS);
    }
    rows.sort_by(|a, b| {
        let by_use = match args.sort {
            Sort::Name => std::cmp::Ordering::Equal,
            Sort::Cpu => b.used.cpu_millis.cmp(&a.used.cpu_millis),
            Sort::Memory => b.used.memory_bytes.cmp(&a.used.memory_bytes),
        };
        by_use.then_with(|| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)))
    });
    let text = layout(&args, &rows);
    let text = match args.no_headers {
        true => text.split_once('\n').map_or("", |(_, rest)| rest),
        false => &text,
    };
    output::data(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn layout(args: &Args, rows: &[Row]) -> String {
    let namespaced = args.all_namespaces && args.kind != Kind::Agents;
    let counted = args.kind == Kind::Frameworks;
    let mut headers = Vec::new();
    headers.extend(namespaced.then_some("NAMESPACE"));
    headers.push("NAME");
    headers.extend(counted.then_some("TASKS"));
    headers.extend(["CPU", "CPU%", "MEMORY", "MEMORY%", "READ", "WRITTEN"]);
    let cells = |row: &Row| {
        let mut cells = Vec::new();
        cells.extend(namespaced.then(|| row.namespace.clone()));
        cells.push(row.name.clone());
        cells.extend(counted.then(|| row.tasks.to_string()));
        cells.extend([
            format!("{}m", row.used.cpu_millis),
            percent(row.used.cpu_millis, row.given.cpu_millis),
            mebibytes(row.used.memory_bytes),
            percent(row.used.memory_bytes, row.given.memory_bytes),
            mebibytes(row.used.read_bytes),
            mebibytes(row.used.written_bytes),
        ]);
        cells
    };
    table::plain(&headers, &rows.iter().map(cells).collect::<Vec<_>>(), "")
}

fn percent(used: i64, given: i64) -> String {
    match given {
        ..=0 => "-".to_owned(),
        given => format!("{}%", i128::from(used) * 100 / i128::from(given)),
    }
}

/// As `kubectl top` writes them.
fn mebibytes(bytes: i64) -> String {
    format!("{}Mi", bytes >> 20)
}

/// Running tasks, each with its framework's name.
async fn tasks(args: &Args, cluster: &Cluster) -> Result<Vec<(String, Row)>> {
    let namespace = (!args.all_namespaces).then_some(cluster.namespace.as_str());
    let within = namespace.map(|name| format!("/namespaces/{}", encode(name))).unwrap_or_default();
    let metrics = metrics(args, cluster, &format!("{ROOT}{within}/pods")).await?;
    let api: Api<Task> = match namespace {
        Some(namespace) => Api::namespaced(cluster.client.clone(), namespace),
        None => Api::all(cluster.client.clone()),
    };
    let params = ListParams { label_selector: args.selector.clone(), ..ListParams::default() };
    let known = api.list(&params).await;
    let known = known.map_err(|error| Failure::api("cannot list tasks", &error))?;
    let known: BTreeMap<(String, String), Task> = known
        .items
        .into_iter()
        .map(|task| ((task.namespace().unwrap_or_default(), task.name_any()), task))
        .collect();
    let rows = metrics.iter().map(|pod| {
        let of = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
        let key = (of("namespace"), of("name"));
        let task = known.get(&key);
        let used = amounts(&pod["containers"][0]["usage"]);
        let given = task.map(given).unwrap_or_default();
        let framework = task.and_then(|task| task.spec.framework.clone()).unwrap_or_default();
        let (namespace, name) = key;
        (framework, Row { namespace, name, tasks: 1, used, given })
    });
    Ok(rows.collect())
}

fn given(task: &Task) -> Amounts {
    let limits = task.spec.limits.as_ref();
    let of = |name: &str| {
        let limit = limits.map_or(0, |limits| limits.scalar(name));
        if limit > 0 { limit } else { task.spec.resources.scalar(name) }
    };
    Amounts { cpu_millis: of("cpu"), memory_bytes: of("memory"), ..Amounts::default() }
}

fn by_framework(tasks: Vec<(String, Row)>) -> Vec<Row> {
    let mut sums: BTreeMap<(String, String), Row> = BTreeMap::new();
    for (framework, task) in tasks {
        let sum = sums.entry((task.namespace.clone(), framework.clone())).or_default();
        sum.namespace = task.namespace;
        sum.name = framework;
        sum.tasks += 1;
        sum.used = sum.used.plus(task.used);
        sum.given = sum.given.plus(task.given);
    }
    sums.into_values().collect()
}

impl Amounts {
    fn plus(self, other: Amounts) -> Amounts {
        Amounts {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            read_bytes: self.read_bytes.saturating_add(other.read_bytes),
            written_bytes: self.written_bytes.saturating_add(other.written_bytes),
        }
    }
}

async fn agents(args: &Args, cluster: &Cluster) -> Result<Vec<Row>> {
    let metrics = metrics(args, cluster, &format!("{ROOT}/nodes")).await?;
    let api: Api<Agent> = Api::all(cluster.client.clone());
    let known = api.list(&ListParams::default()).await;
    let known = known.map_err(|error| Failure::api("cannot list agents", &error))?;
    let capacity: BTreeMap<String, Amounts> = known
        .items
        .into_iter()
        .filter_map(|agent| {
            let capacity = agent.status.as_ref()?.capacity.as_ref()?;
            let (cpu_millis, memory_bytes) = (capacity.cpu_millis(), capacity.memory_bytes());
            Some((agent.name_any(), Amounts { cpu_millis, memory_bytes, ..Amounts::default() }))
        })
        .collect();
    let silent = capacity.len().saturating_sub(metrics.len());
    if silent > 0 && args.selector.is_none() {
        let whom =
            if silent == 1 { "1 agent does".to_owned() } else { format!("{silent} agents do") };
        output::note(&format!("{whom} not answer; left out: cmn get agents"));
    }
    let rows = metrics.iter().map(|node| {
        let name = node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let given = capacity.get(&name).copied().unwrap_or_default();
        Row { name, used: amounts(&node["usage"]), given, ..Row::default() }
    });
    Ok(rows.collect())
}

async fn metrics(args: &Args, cluster: &Cluster, path: &str) -> Result<Vec<Value>> {
    let query = args.selector.as_ref().map(|s| format!("?labelSelector={}", encode(s)));
    let path = format!("{path}{}", query.unwrap_or_default());
    let mut list: Value = get(&cluster.client, &path, "cannot ask what is in use").await?;
    match list["items"].take() {
        Value::Array(items) => Ok(items),
        _ => Ok(Vec::new()),
    }
}

fn amounts(usage: &Value) -> Amounts {
    let amount = |name: &str, unit| {
        usage[name].as_str().and_then(|text| quantity::parse(text, unit).ok()).unwrap_or(0)
    };
    Amounts {
        cpu_millis: amount("cpu", Unit::Thousandths),
        memory_bytes: amount("memory", Unit::Bytes),
        read_bytes: amount("commonage.dev/io-read", Unit::Bytes),
        written_bytes: amount("commonage.dev/io-written", Unit::Bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(framework: &str, name: &str, cpu_millis: i64, memory_bytes: i64) -> (String, Row) {
        let used = Amounts { cpu_millis, memory_bytes, ..Amounts::default() };
        let given = Amounts { cpu_millis: 200, memory_bytes: 64 << 20, ..Amounts::default() };
        let (namespace, name) = ("shop".to_owned(), name.to_owned());
        (framework.to_owned(), Row { namespace, name, tasks: 1, used, given })
    }

    #[test]
    fn amounts_are_read_as_the_server_writes_them() {
        let usage =
            json!({"cpu": "1500001n", "memory": "3072Ki", "commonage.dev/io-read": "1024Ki"});
        let expected =
            Amounts { cpu_millis: 2, memory_bytes: 3 << 20, read_bytes: 1 << 20, written_bytes: 0 };
        assert_eq!(amounts(&usage), expected);
    }

    #[test]
    fn a_frameworks_use_is_that_of_its_tasks() {
        let all =
            vec![row("web", "a", 50, 32 << 20), row("db", "b", 1, 0), row("web", "c", 150, 0)];
        let rows = by_framework(all);
        let web = rows.iter().find(|row| row.name == "web").expect("it has tasks");
        assert_eq!((web.tasks, web.used.cpu_millis, web.given.cpu_millis), (2, 200, 400));
        assert_eq!(percent(web.used.memory_bytes, web.given.memory_bytes), "25%");
        assert_eq!(percent(1, 0), "-");
    }
}
