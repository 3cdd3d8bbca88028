//! The frameworks and the tasks of a simulation.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use commonage_schemas::{
    Framework, FrameworkSpec, Offer, OfferAcceptance, OfferDecline, Resources, Task, TaskSpec,
    framework::{Demand, OfferPolicy, Placement},
    task::Constraints,
};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::LabelSelector};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::ObjectMeta,
    runtime::{WatchStreamExt, watcher},
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Duration, Instant},
};

use super::{
    NAMESPACE,
    clients::Clients,
    report::{Figures, Watcher},
};
use crate::{
    errors::{Failure, Result},
    output,
};

/// Requests under way at once.
const CREATES_AT_ONCE: usize = 64;
/// Tasks that one acceptance launches, at most.
const TASKS_PER_OFFER: usize = 50;
/// How long a framework that has all it wants refuses an offer, in seconds.
const REFUSE_SECONDS: f64 = 3600.0;
/// Finished tasks are deleted after so long: that belongs to their life.
const TTL_SECONDS: i64 = 5;
/// A probe that does not run by then counts as lost.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Load<'c> {
    pub(super) clients: &'c Clients,
    pub(super) watcher: &'c Arc<Watcher>,
    pub(super) frameworks: usize,
    pub(super) tasks: usize,
    pub(super) rate: Option<f64>,
    pub(super) each: Resources,
    pub(super) deadline: Instant,
}

impl Load<'_> {
    pub(super) async fn run(&self, probes: usize) -> Result<Figures> {
        make_namespace(&self.clients.requests()).await?;
        self.wait_for_default_framework().await?;
        let began = Instant::now();
        let mut schedulers = JoinSet::new();
        if self.frameworks == 0 {
            self.create_tasks().await?;
        } else {
            self.start_frameworks(&mut schedulers).await?;
        }
        self.wait_until(self.tasks).await;
        let ran = self.watcher.running();
        let took = began.elapsed().as_secs_f64();
        output::step(&format!("{ran} of {} tasks ran after {took:.1} s", self.tasks));
        self.probe(probes).await;
        drop(schedulers);
        Ok(self.watcher.figures("load-", "probe-", self.tasks))
    }

    /// Until so many tasks have run, or the time is up.
    async fn wait_until(&self, wanted: usize) {
        while self.watcher.running() < wanted && Instant::now() < self.deadline {
            let news = self.watcher.news.notified();
            let second = Instant::now() + Duration::from_secs(1);
            tokio::select! {
                () = news => {}
                () = tokio::time::sleep_until(second.min(self.deadline)) => {}
            }
        }
    }

    /// Tasks wait for it, and a second after the namespace it is there.
    async fn wait_for_default_framework(&self) -> Result<()> {
        let api = Api::<Framework>::namespaced(self.clients.requests(), NAMESPACE);
        let mut pause = tokio::time::interval(Duration::from_millis(200));
        loop {
            pause.tick().await;
            let found = api.get_opt("default").await;
            if found.map_err(|error| Failure::api("no framework", &error))?.is_some() {
                return Ok(());
            }
            if Instant::now() > self.deadline {
                return Err(Failure::new("the namespace got no framework `default`")
                    .hint("do the controllers run?"));
            }
        }
    }

    fn pace(&self) -> Pace {
        let every = self.rate.filter(|rate| *rate > 0.0);
        Pace { began: Instant::now(), every: every.map(|rate| 1.0 / rate) }
    }

    async fn create_tasks(&self) -> Result<()> {
        let pace = self.pace();
        stream::iter(0..self.tasks)
            .map(|number| async move {
                pace.turn_of(number).await;
                let name = format!("load-{number}");
                let api = Api::namespaced(self.clients.requests_of(number), NAMESPACE);
                self.watcher.begin(&name);
                api.create(&PostParams::default(), &task(&name, &self.each)).await
            })
            .buffer_unordered(CREATES_AT_ONCE)
            .try_for_each(|_| async { Ok(()) })
            .await
            .map_err(|error| Failure::api("a task was not created", &error))
    }

    async fn start_frameworks(&self, schedulers: &mut JoinSet<()>) -> Result<()> {
        let left = Arc::new(AtomicUsize::new(0));
        let pace = self.pace();
        // All of them together wait for no more than a third of the time that an offer stands.
        let at_once = pace.every.map_or(TASKS_PER_OFFER, |every| {
            (10.0 / every / self.frameworks as f64).clamp(1.0, TASKS_PER_OFFER as f64) as usize
        });
        let all = (0..self.frameworks).map(|number| {
            let share =
                self.tasks / self.frameworks + usize::from(number < self.tasks % self.frameworks);
            Scheduler {
                name: format!("sim-{number}"),
                client: self.clients.requests_of(number),
                watching: self.clients.watch_of(number),
                watcher: self.watcher.clone(),
                each: self.each.clone(),
                wanted: share,
                launched: 0,
                numbers: left.clone(),
                pace,
                at_once,
            }
        });
        // Beside each other: one after the other they would come as fast as an answer does, whatever the cluster can do.
        let mut registered = stream::iter(all)
            .map(async |scheduler| scheduler.register().await.map(|()| scheduler))
            .buffer_unordered(CREATES_AT_ONCE);
        while let Some(scheduler) = registered.next().await {
            schedulers.spawn(scheduler?.run());
        }
        Ok(())
    }

    /// One task after the other, while all others run.
    async fn probe(&self, count: usize) {
        for number in 0..count {
            let name = format!("probe-{number}");
            let api = Api::namespaced(self.clients.requests(), NAMESPACE);
            let before = self.watcher.running();
            self.watcher.begin(&name);
            if let Err(error) = api.create(&PostParams::default(), &task(&name, &self.each)).await {
                output::note(&format!("a probe was not created: {error}"));
                return;
            }
            let deadline = Instant::now() + PROBE_TIMEOUT;
            while self.watcher.running() <= before && Instant::now() < deadline {
                let news = self.watcher.news.notified();
                let soon = tokio::time::sleep(Duration::from_millis(20));
                tokio::select! { () = news => {}, () = soon => {} }
            }
        }
    }
}

/// A cluster may have real agents too: they get none of the pretended tasks.
fn simulated_agents() -> LabelSelector {
    let labels = [("commonage.dev/simulated".to_owned(), "true".to_owned())];
    LabelSelector { match_labels: Some(labels.into()), ..LabelSelector::default() }
}

fn task(name: &str, each: &Resources) -> Task {
    let there = Constraints { required: Some(simulated_agents()), ..Constraints::default() };
    let mut spec = TaskSpec {
        resources: each.clone(),
        constraints: Some(there),
        ttl_seconds_after_finished: Some(TTL_SECONDS),
        ..TaskSpec::default()
    };
    spec.container.command = vec!["simulated".to_owned()];
    let mut task = Task::new(name, spec);
    task.metadata.namespace = Some(NAMESPACE.to_owned());
    task
}

async fn make_namespace(client: &Client) -> Result<()> {
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    match Api::all(client.clone()).create(&PostParams::default(), &namespace).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Err(Failure::new(format!(
            "there is a namespace {NAMESPACE} already: another simulation runs, or was left behind"
        ))
        .hint(format!("kubectl delete namespace {NAMESPACE}"))),
        made => made.map(drop).map_err(|error| Failure::api("no namespace", &error)),
    }
}

/// How fast tasks are created, at most.
#[derive(Clone, Copy)]
struct Pace {
    began: Instant,
    /// Seconds from one to the next, if there is a limit.
    every: Option<f64>,
}

impl Pace {
    /// Returns when the task of this number may be created.
    async fn turn_of(self, number: usize) {
        if let Some(every) = self.every {
            let at = self.began + Duration::from_secs_f64(every * number as f64);
            tokio::time::sleep_until(at).await;
        }
    }
}

/// One framework that answers its offers.
struct Scheduler {
    name: String,
    client: Client,
    watching: Client,
    watcher: Arc<Watcher>,
    each: Resources,
    wanted: usize,
    launched: usize,
    /// The next free number of a task, common to all.
    numbers: Arc<AtomicUsize>,
    pace: Pace,
    /// Tasks that one acceptance launches, at most.
    at_once: usize,
}

impl Scheduler {
    async fn register(&self) -> Result<()> {
        let demand = Demand {
            queue: None,
            count: i64::try_from(self.wanted).unwrap_or(i64::MAX),
            resources: self.each.clone(),
        };
        let spec = FrameworkSpec {
            queues: vec![format!("simulation.{}", self.name)],
            placement: Placement::Offers,
            demand: Some(vec![demand]),
            offers: Some(OfferPolicy {
                match_: Some(simulated_agents()),
                ..OfferPolicy::default()
            }),
            ..FrameworkSpec::default()
        };
        let api = Api::<Framework>::namespaced(self.client.clone(), NAMESPACE);
        let made = api.create(&PostParams::default(), &Framework::new(&self.name, spec)).await;
        made.map(drop).map_err(|error| Failure::api("a framework was not created", &error))
    }

    async fn run(mut self) {
        let mine = format!("spec.framework={}", self.name);
        let api = Api::<Offer>::namespaced(self.watching.clone(), NAMESPACE);
        let config = watcher::Config::default().fields(&mine);
        let mut offers = Box::pin(watcher(api, config).default_backoff().applied_objects());
        while let Some(offer) = offers.next().await {
            let Ok(offer) = offer else { continue };
            if offer.metadata.deletion_timestamp.is_none() {
                self.answer(&offer).await;
            }
        }
    }

    async fn answer(&mut self, offer: &Offer) {
        let mut left = offer.spec.resources.clone();
        let mut tasks = Vec::new();
        let mut last = 0;
        while self.launched + tasks.len() < self.wanted && tasks.len() < self.at_once {
            match left.checked_sub(&self.each) {
                Ok(rest) => left = rest,
                Err(_) => break,
            }
            let number = self.numbers.fetch_add(1, Relaxed);
            tasks.push(task(&format!("load-{number}"), &self.each));
            last = number;
        }
        let result = if tasks.is_empty() {
            let decline = OfferDecline::new(Some(REFUSE_SECONDS));
            post(&self.client, &offer.name_any(), "decline", &decline).await
        } else {
            self.pace.turn_of(last).await;
            let names: Vec<String> = tasks.iter().map(ResourceExt::name_any).collect();
            names.iter().for_each(|name| self.watcher.begin(name));
            let acceptance = OfferAcceptance::launch(tasks);
            let result = post(&self.client, &offer.name_any(), "accept", &acceptance).await;
            match &result {
                Ok(_) => {
                    self.launched += names.len();
                    self.want().await;
                }
                Err(_) => names.iter().for_each(|name| self.watcher.forget(name)),
            }
            result
        };
        if let Err(error) = result {
            tracing::debug!(framework = self.name, %error, "not answered");
        }
    }

    /// Says how many more it could use.
    async fn want(&self) {
        let count = self.wanted - self.launched;
        let demand = json!({"spec": {"demand": [{"count": count, "resources": self.each}]}});
        let api = Api::<Framework>::namespaced(self.client.clone(), NAMESPACE);
        let patched = api.patch(&self.name, &PatchParams::default(), &Patch::Merge(demand)).await;
        if let Err(error) = patched {
            tracing::debug!(framework = self.name, %error, "demand not told");
        }
    }
}

async fn post(
    client: &Client,
    offer: &str,
    subresource: &str,
    body: &impl Serialize,
) -> kube::Result<Value> {
    let path = format!("{}/{offer}/{subresource}", Offer::url_path(&(), Some(NAMESPACE)));
    let request = http::Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(serde_json::to_vec(body).map_err(kube::Error::SerdeError)?)
        .map_err(kube::Error::HttpError)?;
    client.request(request).await
}

/// Deletes everything but the agents, and waits until the tasks are gone: nobody would end them
/// later.
pub(super) async fn clean_up(client: &Client, frameworks: usize) {
    if frameworks > 0 {
        let api = Api::<Framework>::namespaced(client.clone(), NAMESPACE);
        let all = ListParams::default();
        if let Err(error) = api.delete_collection(&DeleteParams::default(), &all).await {
            output::note(&format!("the frameworks were not deleted: {error}"));
        }
    }
    let namespaces = Api::<Namespace>::all(client.clone());
    if let Err(error) = namespaces.delete(NAMESPACE, &DeleteParams::default()).await {
        output::note(&format!("the namespace was not deleted: {error}"));
    }
    let mut pause = tokio::time::interval(Duration::from_millis(500));
    let deadline = Instant::now() + Duration::from_secs(120);
    while Instant::now() < deadline {
        pause.tick().await;
        if matches!(namespaces.get_opt(NAMESPACE).await, Ok(None)) {
            return;
        }
    }
    output::note("the namespace is still being emptied");
}
