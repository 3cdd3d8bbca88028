//! What a task needs before its container can be made: its image, the content of Secrets and ConfigMaps, its
//! Volumes, the files that it wants fetched.
//!
//! Nothing is written into the task's directory here, so that a task that is deleted meanwhile leaves nothing;
//! [`crate::runtime`] does that, in the same step that launches it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use commonage_image::{Credentials, Image, Images, Reference, Request};
use commonage_schemas::Task;
use commonage_schemas::reasons::task as reasons;
use commonage_schemas::task::Container;
use commonage_shim::launch::CniNetwork;
use kube::ResourceExt;
use tokio::sync::watch;

use crate::events::{Events, News};
use crate::networks::Networks;
use crate::plan::Words;
use crate::task::spec::mounts;

mod fetch;
mod objects;
mod token;

pub use fetch::Fetched;
pub(crate) use fetch::clean;
pub(crate) use objects::collect_volumes;
pub(crate) use token::renew;

/// A pull that takes longer is worth a word in the task's status, and then one at every such interval.
const SAY_EVERY: Duration = Duration::from_secs(1);
/// The first word comes sooner, and not for images that are there already.
const SAY_FIRST: Duration = Duration::from_millis(300);

/// What was got ready for a task.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// Kept on the machine at least as long as this.
    pub image: Option<Arc<Image>>,
    /// Variables whose values come from elsewhere.
    pub env: BTreeMap<String, String>,
    /// Content of Secrets and ConfigMaps, by the place of their mount.
    pub files: BTreeMap<usize, Files>,
    /// Directories of Volumes, by the place of their mount.
    pub volumes: BTreeMap<usize, PathBuf>,
    /// The sandbox, with what was fetched in it.
    pub fetched: Option<Fetched>,
    /// The task's own token and what goes with it.
    pub token: Option<Files>,
    /// The configuration of the network that it names.
    pub network: Option<CniNetwork>,
}

impl Prepared {
    /// What no disk is to have: files, and where they lie in the task's own memory.
    pub fn files_in_memory(&self) -> impl Iterator<Item = (PathBuf, &Files)> {
        let mounted = self.files.iter().map(|(place, files)| (mounts::files_at(*place), files));
        let token = self.token.iter().map(|token| (PathBuf::from(mounts::TOKEN_DIRECTORY), token));
        mounted.chain(token)
    }
}

/// Files by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// How the preparations went.
#[derive(Debug)]
pub(crate) enum Outcome {
    Ready(Box<Prepared>),
    /// Worth another try.
    Again(Words),
    Failed(Words),
}

/// Whether a task needs anything at all.
pub fn is_needed(task: &Task) -> bool {
    let container = &task.spec.container;
    container.image.is_some()
        || container.api_token
        || network_of(container).is_some()
        || !container.mounts.is_empty()
        || !task.spec.fetch.is_empty()
        || container.env.iter().any(|variable| variable.value_from.is_some())
}

/// The network that a task names, if it is one by plugins.
pub fn network_of(container: &Container) -> Option<&str> {
    container.network.as_deref().filter(|name| !matches!(*name, "Host" | "None"))
}

/// What preparing works with.
#[derive(Clone)]
pub(crate) struct Workshop {
    pub(crate) client: kube::Client,
    pub(crate) images: Images,
    pub(crate) events: Events,
    pub(crate) agent: String,
    /// Of the authority that the API server proves itself by.
    pub(crate) ca_pem: String,
    pub(crate) networks: Networks,
    /// Where Volumes and fetched files lie.
    pub(crate) directory: PathBuf,
}

impl Workshop {
    /// Gets everything ready. `say` hears what there is to tell while it goes on.
    pub(crate) async fn prepare(&self, task: &Task, say: impl Fn(Words)) -> Outcome {
        match self.try_prepare(task, say).await {
            Ok(prepared) => Outcome::Ready(Box::new(prepared)),
            Err(outcome) => {
                // A final state is told as an event by whoever tells all of them.
                if let Outcome::Again(words) = &outcome {
                    let (reason, message) = (words.reason, words.message.as_str());
                    let news = News { warning: true, reason, message, count: 1 };
                    self.events.tell(task, news).await;
                }
                outcome
            }
        }
    }

    async fn try_prepare(&self, task: &Task, say: impl Fn(Words)) -> Result<Prepared, Outcome> {
        let mut prepared = Prepared::default();
        if let Some(name) = network_of(&task.spec.container) {
            let found = self.networks.find(name);
            prepared.network = Some(found.map_err(|what| {
                failed(reasons::NETWORK_FAILED, format!("spec.container.network: {what}"))
            })?);
        }
        self.read_objects(task, &mut prepared).await?;
        if let Some(image) = &task.spec.container.image {
            prepared.image = Some(Arc::new(self.pull(task, image, &say).await?));
        }
        self.fetch(task, &mut prepared).await?;
        if task.spec.container.api_token {
            // Last: its time runs from now on.
            prepared.token = Some(self.token(task).await?);
        }
        Ok(prepared)
    }

    async fn pull(&self, task: &Task, image: &str, say: impl Fn(Words)) -> Result<Image, Outcome> {
        let reference: Reference = image.parse().map_err(refused)?;
        let credentials: Option<Credentials> = self.credentials(task, &reference).await?;
        let request = Request { reference, credentials };
        let began = Instant::now();
        let (heard, percent) = watch::channel(None);
        let pull = self.images.pull(&request, |progress| {
            if progress.total > 0 {
                heard.send_replace(Some(progress.percent()));
            }
        });
        let pulled = tokio::select! {
            pulled = pull => pulled,
            () = self.tell_progress(task, percent.clone(), say) => unreachable!("it never ends"),
        };
        let image_pulled = pulled.map_err(refused)?;
        if percent.borrow().is_some() {
            let (seconds, mib) = (began.elapsed().as_secs_f64(), image_pulled.bytes >> 20);
            let message = format!("Pulled {} in {seconds:.1} s ({mib} MiB)", request.reference);
            let news = News { warning: false, reason: "Pulled", message: &message, count: 1 };
            self.events.tell(task, news).await;
        }
        Ok(image_pulled)
    }

    /// `Pulling 43 %`, every now and then.
    async fn tell_progress(
        &self,
        task: &Task,
        mut percent: watch::Receiver<Option<u8>>,
        say: impl Fn(Words),
    ) {
        tokio::time::sleep(SAY_FIRST).await;
        let mut count = 0;
        let mut told = String::new();
        loop {
            let message = match *percent.borrow_and_update() {
                Some(percent) => format!("Pulling {percent} %"),
                None => "Pulling".to_owned(),
            };
            if message != told {
                told = message.clone();
                count += 1;
                say(Words { reason: reasons::PULLING, message: message.clone() });
                let reason = reasons::PULLING;
                let news = News { warning: false, reason, message: &message, count };
                self.events.tell(task, news).await;
            }
            tokio::time::sleep(SAY_EVERY).await;
            // The sender lives as long as the pull; then this is not polled any more.
            if percent.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Which end an image's error is.
fn refused(error: commonage_image::Error) -> Outcome {
    use commonage_image::Error;
    let message = error.to_string();
    match error {
        Error::Invalid(_) => failed(reasons::IMAGE_INVALID, message),
        Error::DiskFull(_) => failed(reasons::DISK_FULL, message),
        Error::Unavailable(_) | Error::Local(_) => again(reasons::IMAGE_PULL_FAILED, message),
        Error::Reference(_) | Error::NotFound(_) | Error::Denied(_) | Error::Forbidden(_) => {
            failed(reasons::IMAGE_PULL_FAILED, message)
        }
    }
}

fn failed(reason: &'static str, message: impl Into<String>) -> Outcome {
    Outcome::Failed(Words { reason, message: message.into() })
}

fn again(reason: &'static str, message: impl Into<String>) -> Outcome {
    Outcome::Again(Words { reason, message: message.into() })
}

/// For messages.
fn name_of(task: &Task) -> String {
    format!("{}/{}", task.namespace().unwrap_or_default(), task.name_any())
}
