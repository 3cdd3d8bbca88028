//! Clients at work, all at once, for as long as a test wants.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::watcher::{self, Follow};
use super::{Recorder, Server};
use crate::history::{Answer, Selector, Version, version_of};

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub writers: u32,
    pub watchers: u32,
    /// Names that all of them share: few, so that they meet.
    pub names: u64,
    /// Between two calls of one writer.
    pub pace: Duration,
    /// Somebody watches everything to the end. Of several loads at once one must, which must be the
    /// last to finish.
    pub witnessed: bool,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            writers: 8,
            watchers: 8,
            names: 16,
            pace: Duration::from_millis(4),
            witnessed: true,
        }
    }
}

const COLORS: [&str; 3] = ["red", "green", "blue"];
const GROUPS: [&str; 2] = ["a", "b"];

/// Clients at work.
pub struct Load {
    recorder: Arc<Recorder>,
    servers: Vec<Server>,
    stop: CancellationToken,
    /// Stops the witnesses, at a version that they must have seen.
    end: tokio::sync::watch::Sender<Option<Version>>,
    writers: JoinSet<()>,
    witnesses: JoinSet<()>,
}

impl Load {
    /// Starts writers and watchers on all servers, and on each server one that watches everything.
    pub async fn start(recorder: &Arc<Recorder>, servers: &[Server], shape: Shape) -> Load {
        let stop = CancellationToken::new();
        let (end, _) = tokio::sync::watch::channel(None);
        let (mut writers, mut witnesses) = (JoinSet::new(), JoinSet::new());
        let count = if shape.witnessed { servers.len() } else { 0 };
        for number in 0..count {
            // Each begins with a server of its own, and goes on to the next when it has to.
            let mut order = servers.to_vec();
            order.rotate_left(number);
            let follow =
                Follow { recorder: recorder.clone(), servers: order, end: end.subscribe() };
            witnesses.spawn(follow.run(Follow::start(recorder, servers).await));
        }
        let seed = recorder.now_us();
        for number in 0..shape.writers {
            let dice = Dice::new(seed + u64::from(number));
            let client = recorder.client();
            let writer = Writer {
                recorder: recorder.clone(),
                client,
                dice,
                shape,
                known: HashMap::new(),
                newest: 0,
            };
            writers.spawn(writer.run(servers.to_vec(), stop.clone()));
        }
        for number in 0..shape.watchers {
            let dice = Dice::new(seed ^ u64::from(number + 100));
            let selector = selector(u64::from(number));
            let run =
                watcher::wander(recorder.clone(), servers.to_vec(), selector, dice, stop.clone());
            writers.spawn(run);
        }
        Load {
            recorder: recorder.clone(),
            servers: servers.to_vec(),
            stop,
            end,
            writers,
            witnesses,
        }
    }

    /// Stops everybody, makes sure that the witnesses saw all of it, and looks at what there is.
    pub async fn finish(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.writers.join_next().await {
            ended.expect("a client does not panic");
        }
        if self.witnesses.is_empty() {
            return;
        }
        let client = self.recorder.client();
        let mut number = 0;
        // The last write of the history; what may land later would not be seen by the witnesses.
        let last = crate::soon("a last write", async || {
            number += 1;
            let server = &self.servers[number % self.servers.len()];
            let name = format!("end-{number}");
            match self.recorder.create(client, server, &name, ("red", "a")).await {
                Answer::Object(object) => Ok(version_of(&object)),
                answer => Err(format!("{answer:?}")),
            }
        })
        .await;
        self.end.send_replace(Some(last));
        while let Some(ended) = self.witnesses.join_next().await {
            ended.expect("a witness does not panic");
        }
        for server in &self.servers {
            crate::soon("a list of what there is", async || {
                let all = Selector::default();
                match self.recorder.list(client, server, &all, None, (false, 0)).await {
                    Answer::List { .. } => Ok(()),
                    answer => Err(format!("{answer:?}")),
                }
            })
            .await;
        }
    }
}

fn selector(number: u64) -> Selector {
    let label = |group: &str| Some(("group".to_owned(), group.to_owned()));
    let field = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
    match number % 6 {
        0 => Selector { label: None, field: field("spec.color", "red") },
        1 => Selector { label: label("a"), field: None },
        2 => Selector { label: None, field: field("metadata.name", "n3") },
        3 => Selector { label: label("b"), field: field("spec.color", "blue") },
        _ => Selector::default(),
    }
}

struct Writer {
    recorder: Arc<Recorder>,
    client: u32,
    dice: Dice,
    shape: Shape,
    /// What was last read of each name: its version and uid.
    known: HashMap<String, (Version, String)>,
    newest: Version,
}

impl Writer {
    async fn run(mut self, servers: Vec<Server>, stop: CancellationToken) {
        let mut pace = tokio::time::interval(self.shape.pace);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = pace.tick() => {}
            }
            let server = &servers[self.dice.roll(servers.len() as u64) as usize];
            let answer = self.call(server).await;
            if matches!(answer, Answer::Unknown { .. } | Answer::Refused { code: 429 | 503, .. }) {
                // As a client would: not again at once.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            self.learn(answer);
        }
    }

    async fn call(&mut self, server: &Server) -> Answer {
        let name = format!("n{}", self.dice.roll(self.shape.names));
        let color = COLORS[self.dice.roll(3) as usize];
        let look = (color, GROUPS[self.dice.roll(2) as usize]);
        let known = self.known.get(&name).cloned();
        let (recorder, client) = (self.recorder.clone(), self.client);
        match (self.dice.roll(100), known) {
            (0..20, _) => recorder.create(client, server, &name, look).await,
            (20..45, Some((at, _))) => recorder.update(client, server, &name, at, look).await,
            (45..60, _) => {
                let color = (self.dice.roll(2) == 0).then_some(color);
                recorder.patch(client, server, &name, color).await
            }
            (60..66, Some((_, uid))) => recorder.delete(client, server, &name, Some(&uid)).await,
            (60..70, _) => recorder.delete(client, server, &name, None).await,
            (70..88, _) | (20..45, None) => {
                let at = self.at();
                recorder.get(client, server, &name, at).await
            }
            _ => {
                let at = self.at();
                let selector = selector(self.dice.roll(6));
                let exact = at.is_some_and(|at| at > 0) && self.dice.roll(2) == 0;
                let limit = if self.dice.roll(2) == 0 { 0 } else { 5 };
                recorder.list(client, server, &selector, at, (exact, limit)).await
            }
        }
    }

    fn at(&mut self) -> Option<Version> {
        match self.dice.roll(10) {
            0 | 1 => Some(0),
            2..5 if self.newest > 0 => Some(self.newest),
            _ => None,
        }
    }

    fn learn(&mut self, answer: Answer) {
        let objects = match answer {
            Answer::Object(object) => vec![object],
            Answer::List { version, items } => {
                self.newest = self.newest.max(version);
                items
            }
            _ => return,
        };
        for object in objects {
            let version = version_of(&object);
            self.newest = self.newest.max(version);
            let text = |path: &str| object["metadata"][path].as_str().unwrap_or("").to_owned();
            self.known.insert(text("name"), (version, text("uid")));
        }
    }
}

/// Numbers that look random and come again with the same seed.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}
