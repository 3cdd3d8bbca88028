//! `cmn simulate`: how fast the running cluster is, with agents that only pretend to run tasks.
//!
//! Every agent and every framework is an ordinary client; they share connections, because a machine
//! has not enough ports for 50,000 of them. What is measured is the whole way of a task, from the
//! request that creates it to the answer to its agent's report that it runs.

mod clients;
mod load;
mod report;

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::{Args as ClapArgs, ValueEnum};
use commonage_agent::simulate::{Simulation, agent};
use commonage_schemas::{Agent, Resources};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams},
};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{clients::Clients, load::Load, report::Watcher};
use crate::{
    args::Global,
    errors::{Failure, Result},
    kubeconfig::Cluster,
    output,
    role::{self, Log},
};

/// All of it happens here.
const NAMESPACE: &str = "simulation";
/// Requests under way at once: the API server lets 200 writes in at a time, and others want some.
const WRITES_AT_ONCE: usize = 128;
/// How long agents may take to come up, for each thousand of them.
const READY_TIMEOUT_PER_THOUSAND: Duration = Duration::from_secs(60);

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn simulate --agents 1000                               10,000 tasks, placed by the allocator
  cmn simulate --agents 10000 --frameworks 200 --tasks 100000
  cmn simulate --agents 1000 --rate 500 -o json
  cmn simulate --agents 3 --gpu-agents 1 --gpus 2 --idle   agents to try things on, two GPUs among them

The cluster is the one that other verbs talk to. Agents are called sim-N; they, the frameworks and the
tasks are deleted at the end.")]
pub(crate) struct Args {
    /// Simulated agents
    #[arg(long, default_value_t = 1000, value_name = "N")]
    agents: usize,
    /// Frameworks that answer offers; 0: tasks are placed by the allocator
    #[arg(long, default_value_t = 0, value_name = "N")]
    frameworks: usize,
    /// Tasks to run in all; default: ten for each agent
    #[arg(long, value_name = "N")]
    tasks: Option<usize>,
    /// Tasks created a second, at most; default: as many as go
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// How long a task runs, in seconds
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    task_seconds: f64,
    /// How much longer or shorter, at most, in seconds
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    task_jitter_seconds: f64,
    /// What each agent has
    #[arg(long, default_value = "cpu=32,memory=128Gi", value_name = "NAME=AMOUNT,...")]
    agent_resources: String,
    /// Agents that have GPUs: the first so many
    #[arg(long, default_value_t = 0, value_name = "N")]
    gpu_agents: usize,
    /// GPUs of each of those
    #[arg(long, default_value_t = 1, value_name = "N")]
    gpus: usize,
    /// Only the agents, until interrupted: there is no load, and nothing is measured
    #[arg(long)]
    idle: bool,
    /// What each task wants
    #[arg(long, default_value = "cpu=100m,memory=64Mi", value_name = "NAME=AMOUNT,...")]
    task_resources: String,
    /// Tasks that are created one after the other when all others run
    #[arg(long, default_value_t = 20, value_name = "N")]
    probes: usize,
    /// How often each agent renews its lease, in seconds
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    lease_seconds: u64,
    /// Give up after so long, in seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    /// Leave agents, frameworks and tasks as they are
    #[arg(long)]
    retain: bool,
    /// How to print the figures
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    log: Log,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

pub(crate) fn run(args: Args, global: &Global) -> Result<ExitCode> {
    args.log.start();
    let resources = |text: &str| {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        Resources::from_pairs(pairs)
            .map_err(|error| Failure::new(format!("{text:?} are no resources: {error}")))
    };
    let (has, wants) = (resources(&args.agent_resources)?, resources(&args.task_resources)?);
    role::block_on(async {
        let (config, _) = Cluster::config(global).await?;
        let clients = Clients::new(&config, args.agents + args.frameworks)?;
        let mut fleet = Fleet::start(&args, &clients, has).await?;
        if args.idle {
            output::note("Ctrl-C stops the agents and deletes them");
            role::asked_to_stop().await?;
            fleet.remove(&clients.requests()).await;
            return Ok(());
        }
        let watcher = fleet.watcher.clone();
        let load = Load {
            clients: &clients,
            watcher: &watcher,
            frameworks: args.frameworks,
            tasks: args.tasks.unwrap_or(args.agents * 10),
            rate: args.rate,
            each: wants,
            deadline: Instant::now() + Duration::from_secs(args.timeout),
        };
        let figures = tokio::select! {
            figures = load.run(args.probes) => figures,
            asked = role::asked_to_stop() => {
                asked?;
                Err(Failure::new("interrupted"))
            }
        };
        if !args.retain {
            fleet.clean_up(&clients.requests(), args.frameworks).await;
        }
        fleet.stop().await;
        let figures = figures?;
        match args.output {
            Output::Table => output::data(figures.table(args.agents, args.frameworks).as_bytes()),
            Output::Json => output::line(&figures.json(args.agents, args.frameworks).to_string()),
        }
    })
}

/// The simulated agents.
struct Fleet {
    watcher: Arc<Watcher>,
    stop: CancellationToken,
    agents: JoinSet<()>,
}

impl Fleet {
    /// Returns when the cluster knows all of them.
    async fn start(args: &Args, clients: &Clients, has: Resources) -> Result<Fleet> {
        let watcher = Arc::new(Watcher::default());
        let seen = watcher.clone();
        let simulation = Arc::new(Simulation {
            allocatable: has,
            task_seconds: args.task_seconds,
            task_jitter_seconds: args.task_jitter_seconds,
            lease_interval: Duration::from_secs(args.lease_seconds.max(1)),
            writes: Arc::new(Semaphore::new(WRITES_AT_ONCE)),
            seen: Box::new(move |task, state| seen.see(task, state)),
        });
        let stop = CancellationToken::new();
        let mut agents = JoinSet::new();
        let began = Instant::now();
        for number in 0..args.agents {
            let name = format!("sim-{number}");
            let both = (clients.requests_of(number), clients.watch_of(number));
            let (simulation, stop) = (simulation.clone(), stop.clone());
            let gpus = if number < args.gpu_agents { args.gpus } else { 0 };
            agents.spawn(async move {
                if let Err(error) = agent(name.clone(), both, simulation, gpus, stop).await {
                    tracing::error!(agent = name, %error, "a simulated agent died");
                }
            });
        }
        let fleet = Fleet { watcher, stop, agents };
        let thousands = u32::try_from(args.agents.div_ceil(1000)).unwrap_or(u32::MAX);
        fleet
            .wait(&clients.requests(), args.agents, READY_TIMEOUT_PER_THOUSAND * thousands)
            .await?;
        let took = began.elapsed().as_secs_f64();
        output::step(&format!("{} agents are ready after {took:.1} s", args.agents));
        Ok(fleet)
    }

    async fn wait(&self, client: &Client, wanted: usize, patience: Duration) -> Result<()> {
        let api = Api::<Agent>::all(client.clone());
        let simulated = ListParams::default().labels("commonage.dev/simulated=true");
        let deadline = Instant::now() + patience;
        let mut pause = tokio::time::interval(Duration::from_millis(500));
        loop {
            pause.tick().await;
            let list = api.list_metadata(&simulated).await;
            let list = list.map_err(|error| Failure::api("agents can't be listed", &error))?;
            if list.items.len() >= wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                let there = list.items.len();
                return Err(Failure::new(format!("only {there} of {wanted} agents came up")));
            }
        }
    }

    /// Deletes what the simulation made. The agents are still there to end their tasks.
    async fn clean_up(&mut self, client: &Client, frameworks: usize) {
        output::step("cleaning up");
        load::clean_up(client, frameworks).await;
        self.remove(client).await;
    }

    /// Ends the agents and deletes their objects.
    async fn remove(&mut self, client: &Client) {
        self.stop().await;
        let simulated = ListParams::default().labels("commonage.dev/simulated=true");
        let api = Api::<Agent>::all(client.clone());
        if let Err(error) = api.delete_collection(&DeleteParams::default(), &simulated).await {
            output::note(&format!("the agents were not deleted: {error}"));
        }
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        while self.agents.join_next().await.is_some() {}
    }
}
