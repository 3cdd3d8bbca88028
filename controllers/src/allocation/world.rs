//! Everything that the allocator looks at, fed by one watch per kind.

use commonage_schemas::{Agent, Framework, Offer, Queue, Reservation, Task, Volume};
use kube::{Api, Client, Resource, runtime::watcher::Event};
use serde::de::DeserializeOwned;
use std::{borrow::Cow, collections::HashMap, fmt::Debug};
use tokio::sync::{mpsc, watch};

use super::{cache::Cache, follow::Follower};

/// What a watch may be ahead of the allocator, in events. A cycle takes milliseconds, and a watch
/// that must wait meanwhile loses nothing.
const INPUTS_WAITING_MAX: usize = 4096;

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
    /// Everything of this kind up to this version has come.
    Reached(Cow<'static, str>, u64),
}

/// Kinds that are followed.
const KINDS: usize = 7;

#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) agents: Cache<Agent>,
    pub(crate) frameworks: Cache<Framework>,
    pub(crate) queues: Cache<Queue>,
    pub(crate) offers: Cache<Offer>,
    pub(crate) tasks: Cache<Task>,
    pub(crate) reservations: Cache<Reservation>,
    pub(crate) volumes: Cache<Volume>,
    /// Up to where each kind is known to be known.
    reached: HashMap<Cow<'static, str>, u64>,
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

    /// Whether everything up to a version that was asked for is known.
    pub(crate) fn has_reached(&self, version: u64) -> bool {
        let reached = self.reached.values().filter(|reached| **reached >= version);
        self.synced() && (version == 0 || reached.count() == KINDS)
    }

    pub(crate) fn note_reached(&mut self, kind: Cow<'static, str>, version: u64) {
        self.reached.insert(kind, version);
    }

    /// Takes in an event, and nobody needs to know what has changed.
    pub(crate) fn take_in(&mut self, input: Input) {
        match input {
            Input::Agent(event) => drop(self.agents.apply(event)),
            Input::Framework(event) => drop(self.frameworks.apply(event)),
            Input::Queue(event) => drop(self.queues.apply(event)),
            Input::Offer(event) => drop(self.offers.apply(event)),
            Input::Task(event) => drop(self.tasks.apply(event)),
            Input::Reservation(event) => drop(self.reservations.apply(event)),
            Input::Volume(event) => drop(self.volumes.apply(event)),
            Input::Reached(kind, version) => self.note_reached(kind, version),
        }
    }
}

/// What happens, from the watches.
pub(crate) struct Inputs {
    receiver: mpsc::Receiver<Input>,
    wanted: watch::Sender<u64>,
}

impl Inputs {
    /// Starts the watches. They end when this is dropped.
    pub(crate) fn follow(client: &Client) -> Inputs {
        let (sender, receiver) = mpsc::channel(INPUTS_WAITING_MAX);
        let (wanted, asked) = watch::channel(0);
        let feed = Feed { client: client.clone(), sender, asked };
        feed.of(Input::Agent);
        feed.of(Input::Framework);
        feed.of(Input::Queue);
        feed.of(Input::Offer);
        feed.of(Input::Task);
        feed.of(Input::Reservation);
        feed.of(Input::Volume);
        Inputs { receiver, wanted }
    }

    /// Asks that each kind says when it is as of this version: [`World::has_reached`].
    pub(crate) fn want(&self, version: u64) {
        self.wanted.send_replace(version);
    }

    /// Appends what has arrived, at least one and at most so many; none only when all watches have ended. Cancel safe.
    pub(crate) async fn recv(&mut self, into: &mut Vec<Input>, most: usize) -> usize {
        self.receiver.recv_many(into, most).await
    }

    /// One more, if it is there already.
    pub(crate) fn try_recv(&mut self) -> Option<Input> {
        self.receiver.try_recv().ok()
    }
}

struct Feed {
    client: Client,
    sender: mpsc::Sender<Input>,
    asked: watch::Receiver<u64>,
}

impl Feed {
    fn of<K>(&self, wrap: fn(Event<K>) -> Input)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let (api, sender) = (Api::all(self.client.clone()), self.sender.clone());
        let follower = Follower { api, wrap, sender, wanted: self.asked.clone(), told: 0 };
        tokio::spawn(follower.run());
    }
}
