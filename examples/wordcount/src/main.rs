//! A batch framework that answers its own offers: counts the words of a text file.
//!
//! A framework is an ordinary API client. This one registers itself, watches the Offers made to it,
//! accepts them with as many map tasks as fit, declines what it cannot use, watches its Tasks to
//! their ends, and runs one reduce task over their results. Each task is a container with a shell
//! pipeline that reads its share of the file; its answer is its log, read through the API.
//!
//! ```text
//! Offers ─► plan: which work fits? ─► accept {launch: tasks} ─► Tasks ─► log of each ─► partial counts
//!    └────► nothing fits or is left: decline                                └─► reduce task ─► result
//! ```

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File},
    io::{BufRead, BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
    pin::pin,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Parser;
use commonage_schemas::{
    Framework, FrameworkSpec, Offer, OfferAcceptance, OfferDecline, Resources, Task, TaskSpec,
    TaskState,
    task::{Container, EnvVar},
};
use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde::Serialize;
use serde_json::Value;

const NAME: &str = "wordcount";
/// Tells the tasks of this run from those of earlier ones.
const RUN_LABEL: &str = "wordcount/run";
/// A task that fails this often will not succeed the next time either.
const ATTEMPTS_MAX: u32 = 5;
/// The last line of every task's answer: without it, some of the log is missing.
const END_MARK: &str = "#end";

/// One word per line, lower case, counted: `WORD COUNT`, sorted by word.
const MAP: &str = r#"export LC_ALL=C; [ -r "$INPUT" ] || { echo "a task cannot read $INPUT (its /tmp is its own)" >&2; exit 66; }; tail -c +$((OFFSET + 1)) "$INPUT" | head -c "$LENGTH" | tr -cs A-Za-z '\n' | tr A-Z a-z |
    awk 'NF { count[$1]++ } END { for (word in count) print word, count[word] }' | sort && echo '#end'"#;
/// Merges partial counts, which are sorted already.
const REDUCE: &str = r#"export LC_ALL=C; cat "$INPUT"-*.counts | awk '{ count[$1] += $2 } END { for (word in count) print word, count[word] }' |
    sort && echo '#end'"#;

#[derive(Parser)]
#[command(about = "Counts the words of a text file on a Commonage cluster")]
struct Args {
    /// The text; every agent must have it at this path
    input: PathBuf,
    /// Where the result goes
    #[arg(long, default_value = "wordcount.txt")]
    output: PathBuf,
    /// Partial counts go here; the agent that reduces must have it at this path
    #[arg(long, default_value = ".")]
    work_dir: PathBuf,
    #[arg(long, default_value = "default")]
    namespace: String,
    #[arg(long, default_value = "batch")]
    queue: String,
    /// How many map tasks
    #[arg(long, default_value_t = 8)]
    splits: u64,
    /// What each task needs
    #[arg(long, default_value = "250m")]
    cpu: String,
    #[arg(long, default_value = "64Mi")]
    memory: String,
}

/// One thing to be done by one task, as often as it takes.
#[derive(Clone)]
struct Work {
    name: String,
    attempt: u32,
    script: &'static str,
    env: Vec<(&'static str, String)>,
}

impl Work {
    fn new(name: &str, script: &'static str, env: Vec<(&'static str, String)>) -> Self {
        Self { name: name.to_owned(), attempt: 1, script, env }
    }

    fn again(self) -> Self {
        Self { attempt: self.attempt + 1, ..self }
    }
}

struct Driver {
    client: Client,
    args: Args,
    run: String,
    each: Resources,
    waiting: VecDeque<Work>,
    /// By the name of its task.
    running: HashMap<String, Work>,
    maps_left: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut args = Args::parse();
    args.input = args.input.canonicalize().context("no text")?;
    fs::create_dir_all(&args.work_dir)?;
    args.work_dir = args.work_dir.canonicalize()?;
    let client = Client::try_default().await.context("set KUBECONFIG to what `cmn up` printed")?;
    let each = Resources::from_pairs([("cpu", &*args.cpu), ("memory", &*args.memory)])?;
    let waiting: VecDeque<Work> = split(&args.input, args.splits)?.into();
    println!("{} in {} shares, {each} each", args.input.display(), waiting.len());

    let frameworks: Api<Framework> = Api::namespaced(client.clone(), &args.namespace);
    register(&frameworks, &args.queue).await?;
    let run = std::process::id().to_string();
    let (running, maps_left) = (HashMap::new(), waiting.len());
    let mut driver = Driver { client, args, run, each, waiting, running, maps_left };
    let result = driver.drive().await;
    // Also after a failure: a framework that leaves gives back what it holds.
    frameworks.delete(NAME, &DeleteParams::default()).await.context("cannot deregister")?;
    result
}

async fn register(frameworks: &Api<Framework>, queue: &str) -> Result<()> {
    // `placement: Offers` is the default: we answer offers ourselves.
    let spec = FrameworkSpec { queues: vec![queue.to_owned()], ..FrameworkSpec::default() };
    match frameworks.create(&PostParams::default(), &Framework::new(NAME, spec)).await {
        Ok(_) => println!("registered framework {NAME} for queue {queue}"),
        // Left by a run that was killed. Its offers come to us now.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            println!("framework {NAME} is registered already")
        }
        Err(error) => return Err(error).context("cannot register"),
    }
    Ok(())
}

/// Shares of about equal size that end where a line ends.
fn split(input: &Path, splits: u64) -> Result<Vec<Work>> {
    let mut file = BufReader::new(File::open(input)?);
    let size = file.get_ref().metadata()?.len();
    ensure!(size > 0 && splits > 0, "nothing to count");
    let mut work = Vec::new();
    let mut start = 0;
    for index in 1..=splits {
        let target = (size * index / splits).max(start);
        file.seek(SeekFrom::Start(target))?;
        let to_line_end =
            if target < size { file.read_until(b'\n', &mut Vec::new())? as u64 } else { 0 };
        let env = vec![
            ("INPUT", input.display().to_string()),
            ("OFFSET", start.to_string()),
            ("LENGTH", (target + to_line_end - start).to_string()),
        ];
        work.push(Work::new(&format!("map-{:02}", work.len()), MAP, env));
        start = target + to_line_end;
    }
    Ok(work)
}

impl Driver {
    /// Reacts to offers and to tasks until the reduce task has ended.
    async fn drive(&mut self) -> Result<()> {
        let namespace = self.args.namespace.clone();
        let offers: Api<Offer> = Api::namespaced(self.client.clone(), &namespace);
        let tasks: Api<Task> = Api::namespaced(self.client.clone(), &namespace);
        let mine = watcher::Config::default().fields(&format!("spec.framework={NAME}"));
        let this_run = watcher::Config::default().labels(&format!("{RUN_LABEL}={}", self.run));
        let mut offered = pin!(watcher(offers.clone(), mine).default_backoff().applied_objects());
        let mut changed =
            pin!(watcher(tasks.clone(), this_run).default_backoff().applied_objects());
        loop {
            tokio::select! {
                Some(offer) = offered.next() => match offer {
                    // One with a deletion time stamp has been answered.
                    Ok(offer) if offer.metadata.deletion_timestamp.is_some() => {}
                    Ok(offer) => self.answer(&offers, &offer).await?,
                    Err(error) => println!("offers: {error}; watching again"),
                },
                Some(task) = changed.next() => match task {
                    Ok(task) if !task.state().is_terminal() => {}
                    Ok(task) => if self.ended(&tasks, &task).await? { return Ok(()) },
                    Err(error) => println!("tasks: {error}; watching again"),
                },
            }
        }
    }

    /// Accepts an offer with all the work that fits into it, or declines it.
    async fn answer(&mut self, offers: &Api<Offer>, offer: &Offer) -> Result<()> {
        let name = offer.name_any();
        let mut rest = offer.spec.resources.clone();
        let mut launched = Vec::new();
        while let Ok(smaller) = rest.checked_sub(&self.each) {
            let Some(work) = self.waiting.pop_front() else {
                break;
            };
            rest = smaller;
            launched.push(work);
        }
        if launched.is_empty() {
            // With all work on its way we may need it again soon, should a task fail.
            let seconds = if self.waiting.is_empty() { 2.0 } else { 30.0 };
            say(offers, &name, "decline", &OfferDecline::new(Some(seconds))).await?;
            return Ok(());
        }
        let tasks: Vec<Task> = launched.iter().map(|work| self.task(work)).collect();
        let names: Vec<String> = tasks.iter().map(ResourceExt::name_any).collect();
        if say(offers, &name, "accept", &OfferAcceptance::launch(tasks)).await? {
            let shares: Vec<&str> = launched.iter().map(|work| work.name.as_str()).collect();
            println!("{name} ({}): launched {}", offer.spec.resources, shares.join(", "));
            self.running.extend(names.into_iter().zip(launched));
        } else {
            // There will be other offers. Should the tasks exist after all, nobody looks at them:
            // the next ones have other names.
            launched.into_iter().rev().for_each(|work| self.waiting.push_front(work.again()));
        }
        Ok(())
    }

    fn task(&self, work: &Work) -> Task {
        let env = work.env.iter();
        let container = Container {
            command: ["sh", "-c", work.script].map(str::to_owned).to_vec(),
            env: env
                .map(|(k, v)| EnvVar { name: (*k).to_owned(), value: v.clone(), value_from: None })
                .collect(),
            network: Some("None".to_owned()),
            ..Container::default()
        };
        let spec = TaskSpec { resources: self.each.clone(), container, ..TaskSpec::default() };
        let name = format!("{NAME}-{}-{}-{}", self.run, work.name, work.attempt);
        let mut task = Task::new(&name, spec);
        task.labels_mut().insert(RUN_LABEL.to_owned(), self.run.clone());
        task
    }

    /// Takes a task's answer, or has it done again. True when the last one is done.
    async fn ended(&mut self, tasks: &Api<Task>, task: &Task) -> Result<bool> {
        let name = task.name_any();
        // Seen before: a watch that resumes may repeat itself.
        let Some(work) = self.running.remove(&name) else {
            return Ok(false);
        };
        let answer = match task.state() {
            TaskState::Finished => self.answer_of(&name).await,
            state => Err(anyhow!("it is {state}: {}", serde_json::to_string(&task.status)?)),
        };
        if let (Err(error), true) = (&answer, work.attempt < ATTEMPTS_MAX) {
            println!("{}: {error:#}; trying again", work.name);
            self.waiting.push_front(work.again());
            return Ok(false);
        }
        let counts = answer.with_context(|| format!("{} failed for good", work.name))?;
        // If that fails, it goes with the framework.
        let _ = tasks.delete(&name, &DeleteParams::default()).await;
        let words = counts.lines().count();
        let partial = self.args.work_dir.join(&self.run).display().to_string();
        if self.maps_left == 0 {
            fs::write(&self.args.output, counts)?;
            println!("{}: {words} different words, in {}", work.name, self.args.output.display());
            return Ok(true);
        }
        fs::write(format!("{partial}-{}.counts", work.name), counts)?;
        self.maps_left -= 1;
        println!("{}: {words} different words, {} to go", work.name, self.maps_left);
        if self.maps_left == 0 {
            self.waiting.push_back(Work::new("reduce", REDUCE, vec![("INPUT", partial)]));
        }
        Ok(false)
    }

    /// What a task wrote, if it is whole.
    async fn answer_of(&self, task: &str) -> Result<String> {
        let namespace = &self.args.namespace;
        let tasks = format!("/apis/commonage.dev/v1/namespaces/{namespace}/tasks");
        let path = format!("{tasks}/{task}/log?stream=stdout");
        let request = http::Request::get(path).body(Vec::new())?;
        let log = self.client.request_text(request).await.context("cannot read its log")?;
        let counts = log.strip_suffix(&format!("{END_MARK}\n")).context("its log has no end")?;
        Ok(counts.to_owned())
    }
}

/// Answers an offer. False when it was too late (the offer has expired or was withdrawn), or when
/// nobody knows whether the answer arrived.
async fn say(offers: &Api<Offer>, name: &str, verb: &str, body: &impl Serialize) -> Result<bool> {
    match offers.create_subresource::<_, Value>(verb, name, &PostParams::default(), body).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if !matches!(status.code, 404 | 409 | 500..) => {
            bail!("cannot {verb} {name}: {}", status.message)
        }
        Err(_) => Ok(false),
    }
}
