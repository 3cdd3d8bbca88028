//! What the whole system does on this machine (the API server alone: `api_bench`): `make bench`, or
//! `CMN=target/release/cmn cargo bench -p commonage-e2e`.
//!
//! Prints one line per figure and writes them all to `target/bench/system.json`. Figures of one run
//! belong together; machines differ and other work runs beside, so compare ratios, not runs.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    time::{Duration, Instant},
};

use anyhow::Context;
use commonage_e2e::{Cluster, repository};
use commonage_schemas::{Resources, Task, TaskSpec, TaskState, task::Container};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams},
};

mod leader;
mod thousand;

const STARTS: usize = 5;
const SINGLE_TASKS: usize = 100;
const MANY_TASKS: usize = 1000;
const IDLE_TASKS: usize = 20;
const CREATORS: usize = 32;

fn main() -> anyhow::Result<()> {
    // `cargo bench` passes arguments of its own; the only one of ours picks figures by name.
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let mut figures = Figures::default();
    let run = |name: &str| name.contains(&wanted);
    if run("start") {
        starts(&mut figures)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if run("tasks") {
        runtime.block_on(tasks(&mut figures))?;
    }
    if run("thousand") {
        runtime.block_on(thousand::thousand(&mut figures))?;
    }
    if run("leader") {
        runtime.block_on(leader::leader(&mut figures))?;
    }
    figures.write()
}

#[derive(Default)]
struct Figures(BTreeMap<String, f64>);

impl Figures {
    fn add(&mut self, name: &str, value: f64, unit: &str) {
        println!("{name:<58} {value:>12.1} {unit}");
        self.0.insert(format!("{name} [{unit}]"), value);
    }

    fn write(&self) -> anyhow::Result<()> {
        let path = repository().join("target/bench/system.json");
        fs::create_dir_all(path.parent().context("a file lies in a directory")?)?;
        fs::write(&path, serde_json::to_vec_pretty(&self.0)?)?;
        println!("written to {}", path.strip_prefix(repository())?.display());
        Ok(())
    }
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// From the start of the process until its agent is ready, seen through kubectl.
fn starts(figures: &mut Figures) -> anyhow::Result<()> {
    let mut times: Vec<f64> = Vec::new();
    for _ in 0..STARTS {
        let started = Instant::now();
        let mut cluster = Cluster::start();
        times.push(started.elapsed().as_secs_f64() * 1e3);
        cluster.stop();
    }
    times.sort_by(f64::total_cmp);
    figures.add("cmn up until its agent is ready, median of 5", percentile(&times, 50), "ms");
    Ok(())
}

async fn tasks(figures: &mut Figures) -> anyhow::Result<()> {
    let cluster = Cluster::start();
    let client = cluster.client().await?;
    figures.add("memory of cmn up, idle (resident)", resident_mib(cluster.pid())?, "MiB");
    single_tasks(figures, &client).await?;
    many_tasks(figures, &client).await?;
    figures.add(
        "memory of cmn up after 1,100 tasks (resident)",
        resident_mib(cluster.pid())?,
        "MiB",
    );
    shims(figures, &client).await
}

fn task(name: &str, command: &[&str]) -> anyhow::Result<Task> {
    let container = Container {
        command: command.iter().map(|w| (*w).to_owned()).collect(),
        ..Container::default()
    };
    // Many fit on the machine, and none is held back by its own quota.
    let resources = Resources::from_pairs([("cpu", "10m"), ("memory", "8Mi")])?;
    let limits = Some(Resources::from_pairs([("cpu", "1"), ("memory", "32Mi")])?);
    Ok(Task::new(name, TaskSpec { resources, limits, container, ..TaskSpec::default() }))
}

/// One task after the other: from the request to create it until a watch shows it running (or
/// already over), as its framework would see it.
async fn single_tasks(figures: &mut Figures, client: &Client) -> anyhow::Result<()> {
    let api = Api::<Task>::default_namespaced(client.clone());
    let mut times = Vec::new();
    for i in 0..SINGLE_TASKS {
        let name = format!("single-{i}");
        let version =
            api.list_metadata(&ListParams::default().limit(1)).await?.metadata.resource_version;
        let mine = WatchParams::default().fields(&format!("metadata.name={name}"));
        let mut events = api.watch(&mine, version.as_deref().unwrap_or("0")).await?.boxed();
        let started = Instant::now();
        api.create(&PostParams::default(), &task(&name, &["sleep", "0.05"])?).await?;
        while let Some(event) = events.try_next().await? {
            let (WatchEvent::Added(seen) | WatchEvent::Modified(seen)) = event else { continue };
            if seen.state() == TaskState::Running || seen.state().is_terminal() {
                break;
            }
        }
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    figures.add("create → Running of one task, p50 of 100", percentile(&times, 50), "ms");
    figures.add("create → Running of one task, p99 of 100", percentile(&times, 99), "ms");
    Ok(())
}

/// A thousand tasks at once, until the last one is over.
async fn many_tasks(figures: &mut Figures, client: &Client) -> anyhow::Result<()> {
    let api = Api::<Task>::default_namespaced(client.clone());
    let version =
        api.list_metadata(&ListParams::default().limit(1)).await?.metadata.resource_version;
    let mut events =
        api.watch(&WatchParams::default(), version.as_deref().unwrap_or("0")).await?.boxed();
    let started = Instant::now();
    let api_of = &api;
    let creating = stream::iter(0..MANY_TASKS)
        .map(|i| async move {
            api_of.create(&PostParams::default(), &task(&format!("many-{i}"), &["true"])?).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(CREATORS)
        .try_collect::<Vec<()>>();
    let ending = async {
        let mut ended: HashMap<String, TaskState> = HashMap::new();
        while ended.len() < MANY_TASKS {
            let event = events.try_next().await?.context("the watch ended")?;
            if let WatchEvent::Added(seen) | WatchEvent::Modified(seen) = event
                && seen.name_any().starts_with("many-")
                && seen.state().is_terminal()
            {
                ended.insert(seen.name_any(), seen.state());
            }
        }
        anyhow::Ok(ended)
    };
    let (created, ended) = tokio::join!(creating, ending);
    created?;
    let finished = ended?.values().filter(|s| **s == TaskState::Finished).count();
    anyhow::ensure!(finished == MANY_TASKS, "only {finished} of {MANY_TASKS} tasks finished well");
    figures.add(
        "1,000 tasks of `true`, create to the last end",
        MANY_TASKS as f64 / started.elapsed().as_secs_f64(),
        "tasks/s",
    );
    api.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    Ok(())
}

/// What one shim costs while its task sleeps.
async fn shims(figures: &mut Figures, client: &Client) -> anyhow::Result<()> {
    let api = Api::<Task>::default_namespaced(client.clone());
    let before = processes();
    for i in 0..IDLE_TASKS {
        api.create(&PostParams::default(), &task(&format!("idle-{i}"), &["sleep", "1000"])?)
            .await?;
    }
    let running = ListParams::default().fields("status.state=Running");
    let mut glance = tokio::time::interval(Duration::from_millis(50));
    while api.list_metadata(&running).await?.items.len() < IDLE_TASKS {
        glance.tick().await;
    }
    // A shim is the parent of a container's first process.
    let after = processes();
    let sleeping = after.iter().filter(|(pid, p)| !before.contains_key(*pid) && p.name == "sleep");
    let mut private: Vec<f64> = sleeping.filter_map(|(_, p)| private_kib(p.parent)).collect();
    anyhow::ensure!(
        private.len() == IDLE_TASKS,
        "{} shims found for {IDLE_TASKS} tasks",
        private.len()
    );
    private.sort_by(f64::total_cmp);
    figures.add("private memory of a shim, median of 20", percentile(&private, 50), "KiB");
    Ok(())
}

struct Process {
    name: String,
    parent: u32,
}

fn processes() -> HashMap<u32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let field = |name: &str| {
                status.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned())
            };
            Some((pid, Process { name: field("Name:")?, parent: field("PPid:")?.parse().ok()? }))
        })
        .collect()
}

fn private_kib(pid: u32) -> Option<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find(|l| l.starts_with("Private_Dirty:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse::<f64>()? / 1024.0)
}
