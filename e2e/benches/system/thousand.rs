//! A thousand tasks on one agent, each role a process of its own: how fast they start and end, and what they cost
//! while they sleep.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use commonage_e2e::faults::field::{Field, Seat};
use commonage_e2e::host;
use commonage_schemas::{Task, TaskState};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};

use super::{CREATORS, Figures, resident_mib, task};

const TASKS: usize = 1000;
/// Long enough for a share of a core that is told in hundredths of a second.
const IDLE: Duration = Duration::from_secs(20);
/// More than the machine has: they sleep.
const RESOURCES: [&str; 2] = ["--resources", "cpu=64,memory=64Gi"];

pub(super) async fn thousand(figures: &mut Figures) -> anyhow::Result<()> {
    let field = Field::start(&["node"], &[]).await?;
    let mut seat = field.agent("node");
    seat.start(&[&RESOURCES[..], &["--keep-deleted-logs", "0s"]].concat(), &[])?;
    field.until_ready(&seat).await;
    let api = field.tasks();
    let mut states = States::watch(&api).await?;
    let began = Instant::now();
    let creating = stream::iter(0..TASKS)
        .map(|number| {
            let api = api.clone();
            async move {
                let task = task(&format!("many-{number}"), &["sleep", "100000"])?;
                api.create(&PostParams::default(), &task).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(CREATORS)
        .try_collect::<Vec<()>>();
    let (created, running) =
        tokio::join!(creating, states.until(|state| state == TaskState::Running));
    created?;
    running?;
    figures.add(
        "1,000 tasks at once, create to the last Running",
        began.elapsed().as_secs_f64(),
        "s",
    );
    idle(figures, &seat).await?;

    let began = Instant::now();
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    api.delete_collection(&at_once, &ListParams::default()).await?;
    states.until_gone().await?;
    figures.add(
        "1,000 tasks killed, until the last object is gone",
        began.elapsed().as_secs_f64(),
        "s",
    );
    seat.leaves_nothing();
    Ok(())
}

/// What the agent costs with a thousand sleeping tasks.
async fn idle(figures: &mut Figures, seat: &Seat) -> anyhow::Result<()> {
    let agent = seat.pid().context("the agent runs")?;
    let before = processor_seconds(agent)?;
    let began = Instant::now();
    tokio::time::sleep(IDLE).await;
    let share = (processor_seconds(agent)? - before) / began.elapsed().as_secs_f64();
    figures.add("agent with 1,000 idle tasks, of a core", share * 100.0, "%");
    figures.add("agent with 1,000 idle tasks (resident)", resident_mib(agent)?, "MiB");
    let shims = seat.shims();
    let private: u64 = shims.iter().filter_map(|pid| kib(*pid, "Private_Dirty:")).sum();
    figures.add(
        "private memory of a shim, mean of 1,000",
        private as f64 / shims.len() as f64,
        "KiB",
    );
    let zygotes = host::children(i32::try_from(agent)?);
    let zygote = zygotes.into_iter().find(|pid| host::name_of(*pid) == "cmn-zygote");
    let zygote = zygote.and_then(|pid| kib(pid, "Private_Dirty:")).unwrap_or_default();
    figures.add("private memory of the zygote", zygote as f64, "KiB");
    Ok(())
}

/// User and system time of a process, in seconds: fields 14 and 15 of proc(5), in hundredths.
fn processor_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / 100.0)
}

fn kib(pid: i32, line: &str) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    rollup.lines().find_map(|l| l.strip_prefix(line))?.split_whitespace().next()?.parse().ok()
}

/// The states of all tasks, as a framework sees them.
struct States {
    api: Api<Task>,
    known: HashMap<String, TaskState>,
    version: String,
}

impl States {
    async fn watch(api: &Api<Task>) -> anyhow::Result<States> {
        let version = api.list_metadata(&ListParams::default().limit(1)).await?;
        let version = version.metadata.resource_version.context("a list has a version")?;
        Ok(States { api: api.clone(), known: HashMap::new(), version })
    }

    async fn until(&mut self, good: impl Fn(TaskState) -> bool) -> anyhow::Result<()> {
        self.follow(|known| known.len() == TASKS && known.values().all(|state| good(*state))).await
    }

    async fn until_gone(&mut self) -> anyhow::Result<()> {
        self.follow(HashMap::is_empty).await
    }

    async fn follow(
        &mut self,
        done: impl Fn(&HashMap<String, TaskState>) -> bool,
    ) -> anyhow::Result<()> {
        let mut events = self.api.watch(&WatchParams::default(), &self.version).await?.boxed();
        while !done(&self.known) {
            let event = events.try_next().await?.context("the watch ended")?;
            match event {
                WatchEvent::Added(task) | WatchEvent::Modified(task) => {
                    self.version = task.resource_version().unwrap_or_default();
                    self.known.insert(task.name_any(), task.state());
                }
                WatchEvent::Deleted(task) => {
                    self.version = task.resource_version().unwrap_or_default();
                    self.known.remove(&task.name_any());
                }
                WatchEvent::Error(error) => anyhow::bail!("{error:?}"),
                WatchEvent::Bookmark(_) => {}
            }
        }
        Ok(())
    }
}
