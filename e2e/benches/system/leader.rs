//! How long nobody decides when the leader of the controllers is gone, while simulated agents and frameworks keep it
//! busy: from its end to the first task that the next one gave an agent.
//!
//! `CMN_BENCH_AGENTS` says how many agents there are (1,000), `CMN_BENCH_TASKS` how many tasks the load has (ten for
//! each agent).

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use commonage_e2e::{process::Role, soon};
use commonage_schemas::{
    Agent, Task,
    names::{CONTROLLERS_LEASE, SYSTEM_NAMESPACE},
};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, PostParams, WatchEvent, WatchParams},
};
use tokio_util::task::AbortOnDropHandle;

use super::{Figures, task};

/// Changes of leaders of each sort; the median counts.
const TIMES: usize = 3;
/// Tasks that wait for a decision come so often.
const PROBE_EVERY: Duration = Duration::from_millis(50);
/// The load shall have begun.
const BUSY_AFTER: usize = 100;

pub(super) async fn leader(figures: &mut Figures) -> anyhow::Result<()> {
    let plane = Plane::start().await?;
    let number = |name: &str, default: usize| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let agents = number("CMN_BENCH_AGENTS", 1000);
    let tasks = number("CMN_BENCH_TASKS", agents * 10);
    let mut leader = plane.controllers("controllers-0")?;
    let _load = plane.load(agents, tasks).await?;
    let probes = Arc::default();
    let _probing = plane.probes(Arc::clone(&probes));
    let (mut restarted, mut stopped, mut killed) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..TIMES {
        // Nobody stands by: it is started anew, as a service manager does.
        leader.kill();
        let gone = Instant::now();
        leader = plane.controllers(&format!("restarted-{round}"))?;
        restarted.push(plane.decides_after(gone, &leader, &probes).await?);

        let next = plane.controllers(&format!("second-{round}"))?;
        plane.stands_by(&next).await;
        let gone = Instant::now();
        leader.stop();
        stopped.push(plane.decides_after(gone, &next, &probes).await?);

        let third = plane.controllers(&format!("third-{round}"))?;
        plane.stands_by(&third).await;
        next.kill();
        killed.push(plane.decides_after(Instant::now(), &third, &probes).await?);
        leader = third;
    }
    for (sort, mut times) in [
        ("killed and started anew", restarted),
        ("stopped, another stands by", stopped),
        ("killed, another stands by on its machine", killed),
    ] {
        times.sort_by(f64::total_cmp);
        let name = format!("leader {sort}, to a decision, {agents} agents");
        figures.add(&name, times[times.len() / 2], "s");
    }
    Ok(())
}

struct Plane {
    client: Client,
    directory: tempfile::TempDir,
    /// Dropped before the directory, after what talks to it.
    _apiserver: Role,
}

impl Plane {
    async fn start() -> anyhow::Result<Plane> {
        let directory = tempfile::Builder::new().prefix("cmn-bench-").tempdir()?;
        let path = directory.path().to_owned();
        let data = path.join("server").to_string_lossy().into_owned();
        let arguments = ["apiserver", "--listen", "127.0.0.1:0", "--data-dir", &data];
        let apiserver = Role::start(&path.join("apiserver.log"), &arguments)?;
        let file = path.join("server/kubeconfig");
        let client = soon("the API server", async || connect(&file).await).await;
        Ok(Plane { client, directory, _apiserver: apiserver })
    }

    fn role(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Role> {
        Role::start(&self.directory.path().join(format!("{name}.log")), arguments)
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join("server").join(name).to_string_lossy().into_owned()
    }

    /// With the times that everybody gets who says nothing.
    fn controllers(&self, name: &str) -> anyhow::Result<Role> {
        self.role(
            name,
            &["controllers", "--kubeconfig", &self.file("controllers.kubeconfig"), "-v"],
        )
    }

    /// Agents, and frameworks that answer offers; returns when they are busy.
    async fn load(&self, agents: usize, tasks: usize) -> anyhow::Result<Role> {
        let (agents, tasks) = (agents.to_string(), tasks.to_string());
        let kubeconfig = self.file("kubeconfig");
        let load = [
            &["--kubeconfig", &kubeconfig, "simulate", "--agents", &agents, "--tasks", &tasks][..],
            &["--frameworks", "200", "--timeout", "3600", "--retain"],
        ];
        let role = self.role("simulate", &load.concat())?;
        let all = Api::<Task>::all(self.client.clone());
        loop {
            let running =
                ListParams::default().fields("status.state=Running").limit(BUSY_AFTER as u32);
            if all.list_metadata(&running).await?.items.len() >= BUSY_AFTER {
                let known = Api::<Agent>::all(self.client.clone());
                let known = known.list_metadata(&ListParams::default()).await?.items.len();
                println!("{known} agents, {} probes a second", 1.0 / PROBE_EVERY.as_secs_f64());
                return Ok(role);
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }

    /// A small task every now and then that any agent will do for. Counts those that were begun.
    fn probes(&self, begun: Arc<AtomicU64>) -> AbortOnDropHandle<()> {
        let api = Api::<Task>::default_namespaced(self.client.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let number = begun.fetch_add(1, Relaxed);
                let Ok(mut task) = task(&format!("probe-{number}"), &["sleep", "1"]) else {
                    return;
                };
                task.spec.ttl_seconds_after_finished = Some(1);
                // A server that is too busy for one has the next soon.
                let _ = api.create(&PostParams::default(), &task).await;
                tokio::time::sleep(PROBE_EVERY).await;
            }
        }))
    }

    async fn lease(&self) -> kube::Result<Lease> {
        Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE).get(CONTROLLERS_LEASE).await
    }

    /// It has asked for the lead and been told that it is taken.
    async fn stands_by(&self, role: &Role) {
        soon("a candidate", async || match role.printed().contains("standing by") {
            true => Ok(()),
            false => Err(role.printed()),
        })
        .await;
    }

    /// Seconds from `gone` to the first decision of this leader: about a task that is younger than its term, for
    /// of older ones it is not known who bound them.
    async fn decides_after(
        &self,
        gone: Instant,
        leader: &Role,
        probes: &AtomicU64,
    ) -> anyhow::Result<f64> {
        let api = Api::<Task>::default_namespaced(self.client.clone());
        let mine = format!(".{}.", leader.pid());
        let lease = soon("the next leader", async || {
            let lease = self.lease().await.map_err(|error| error.to_string())?;
            let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
            match holder.unwrap_or_default().contains(&mine) {
                true => Ok(lease),
                false => Err(leader.printed()),
            }
        })
        .await;
        let elected = gone.elapsed().as_secs_f64();
        let first = probes.load(Relaxed);
        let version = lease.resource_version().context("a Lease has a version")?;
        let mut events = api.watch(&WatchParams::default(), &version).await?.boxed();
        while let Some(event) = events.try_next().await? {
            let WatchEvent::Modified(task) = event else { continue };
            let name = task.name_any();
            let number = name.strip_prefix("probe-").and_then(|number| number.parse().ok());
            if task.is_bound() && number.is_some_and(|number: u64| number >= first) {
                let took = gone.elapsed().as_secs_f64();
                println!("  elected after {elected:.2} s, decided after {took:.2} s");
                return Ok(took);
            }
        }
        anyhow::bail!("the watch ended before anything was decided")
    }
}

async fn connect(file: &Path) -> Result<Client, String> {
    let connect = async {
        let kubeconfig = kube::config::Kubeconfig::read_from(file)?;
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let client = Client::try_from(config)?;
        client.apiserver_version().await?;
        anyhow::Ok(client)
    };
    connect.await.map_err(|error: anyhow::Error| error.to_string())
}
