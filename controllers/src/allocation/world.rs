//! Everything that the allocator looks at, fed by one watch per kind.

use commonage_schemas::{Agent, Framework, Offer, Queue, Reservation, Task, Volume};
use futures::StreamExt;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::sync::mpsc;
use tracing::warn;

use super::cache::Cache;

/// What a watch may be ahead of the allocator, in events. A cycle takes milliseconds, and a watch
/// that must wait meanwhile loses nothing.
const INPUTS_WAITING_MAX: usize = 4096;

/// Objects in a page of the first list: a new leader decides nothing before it has read them all, and each page is a
/// round of its own. Some MB.
const PAGE_SIZE: u32 = 5000;

/// One event of one watch.
// An event lives for microseconds in a buffer of fixed size: a box for each would only cost.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub(crate) enum Input {
    Agent(Event<Agent>),
    Framework(Event<Framework>),
    Queue(Event<Queue>),
    Offer(Event<Offer>),
    Task(Event<Task>),
    Reservation(Event<Reservation>),
    Volume(Event<Volume>),
}

#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) agents: Cache<Agent>,
    pub(crate) frameworks: Cache<Framework>,
    pub(crate) queues: Cache<Queue>,
    pub(crate) offers: Cache<Offer>,
    pub(crate) tasks: Cache<Task>,
    pub(crate) reservations: Cache<Reservation>,
    pub(crate) volumes: Cache<Volume>,
}

impl World {
    pub(crate) fn synced(&self) -> bool {
        self.agents.synced()
            && self.frameworks.synced()
            && self.queues.synced()
            && self.offers.synced()
            && self.tasks.synced()
            && self.reservations.synced()
            && self.volumes.synced()
    }
}

/// Starts the watches. They end when the receiver is dropped.
pub(crate) fn watch(client: &Client) -> mpsc::Receiver<Input> {
    let (sender, receiver) = mpsc::channel(INPUTS_WAITING_MAX);
    feed(Api::all(client.clone()), Input::Agent, sender.clone());
    feed(Api::all(client.clone()), Input::Framework, sender.clone());
    feed(Api::all(client.clone()), Input::Queue, sender.clone());
    feed(Api::all(client.clone()), Input::Offer, sender.clone());
    feed(Api::all(client.clone()), Input::Reservation, sender.clone());
    feed(Api::all(client.clone()), Input::Volume, sender.clone());
    feed(Api::all(client.clone()), Input::Task, sender);
    receiver
}

fn feed<K>(api: Api<K>, wrap: fn(Event<K>) -> Input, sender: mpsc::Sender<Input>)
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    tokio::spawn(async move {
        let config = watcher::Config::default().page_size(PAGE_SIZE);
        let mut events = watcher(api, config).default_backoff().boxed();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                // Nobody listens any more; a watch that is quiet would not notice by itself.
                () = sender.closed() => return,
            };
            let Some(event) = event else { return };
            match event {
                Ok(event) => {
                    if sender.send(wrap(event)).await.is_err() {
                        return;
                    }
                }
                Err(error) => warn!(kind = %K::kind(&()), %error, "watch interrupted, resuming"),
            }
        }
    });
}
