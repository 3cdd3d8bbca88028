//! Following etcd's log: one watch over all its keys.
//!
//! Without fragments etcd never splits a revision over two answers, and gives the changes of one
//! revision in the order in which they were made. The watch begins one revision early: then etcd
//! says "compacted" exactly when something after that revision could be missing, which it does not
//! always when asked for the revision right behind a compaction.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Event, EventType, WatchOptions, WatchResponse, WatchStream};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::time::Instant;

use super::members::Member;
use super::numbering::{self, Numbering};
use super::{Connection, etcd_revision, fault};
use crate::check::not_yet;
use crate::{Batch, Change, Revision, StoreError};

/// How long a tail tries to reach etcd again before it ends: longer than an election or a restart.
const RECONNECT_MAX: Duration = Duration::from_secs(30);
const RECONNECT_PAUSE_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);

struct Follower {
    connection: Connection,
    /// Everything up to here has been handed out or is in `ready`.
    position: Revision,
    ready: VecDeque<Batch>,
    /// The newest batch: it comes again with the next watch.
    last: Option<Batch>,
    watch: Option<WatchStream>,
    /// Where the watch is.
    member: Option<Member>,
}

pub(super) fn tail(
    connection: Connection,
    after: Revision,
) -> BoxStream<'static, Result<Batch, StoreError>> {
    let follower = Follower {
        connection,
        position: after,
        ready: VecDeque::new(),
        last: None,
        watch: None,
        member: None,
    };
    stream::unfold(Some((follower, false)), |follower| async {
        let (mut follower, begun) = follower?;
        let next = follower.next(begun).await;
        let rest = next.is_ok().then_some((follower, true));
        Some((next, rest))
    })
    .boxed()
}

impl Follower {
    /// The first watch must succeed at once; later ones may take a while.
    async fn next(&mut self, begun: bool) -> Result<Batch, StoreError> {
        let mut patience = begun;
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(batch);
            }
            let watch = match &mut self.watch {
                Some(watch) => watch,
                None => {
                    let watch = self.connect(patience).await?;
                    self.watch.insert(watch)
                }
            };
            patience = true;
            let left = async {
                match &self.member {
                    Some(member) => self.connection.members.left(member).await,
                    None => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                message = watch.message() => message,
                () = left => Ok(None),
            };
            match message {
                Ok(Some(response)) => self.take(&response)?,
                Ok(None) => self.lose(),
                Err(error) => {
                    tracing::info!(%error, "the watch broke off, watching again");
                    self.lose();
                }
            }
        }
    }

    /// The watch is gone; the next one is on another member, if there is one.
    fn lose(&mut self) {
        self.watch = None;
        if let Some(member) = self.member.take() {
            self.connection.members.leave(&member);
        }
    }

    async fn connect(&mut self, patience: bool) -> Result<WatchStream, StoreError> {
        let deadline = Instant::now() + RECONNECT_MAX;
        let mut pause = RECONNECT_PAUSE_FIRST;
        loop {
            match self.watch_on().await {
                Err(StoreError::Unavailable(_)) if patience && Instant::now() < deadline => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
                }
                outcome => return outcome,
            }
        }
    }

    async fn watch_on(&mut self) -> Result<WatchStream, StoreError> {
        // A watch from the future waits without a word: after a restore from a backup, for ever.
        let newest = self.connection.revision().await?;
        if newest < self.position {
            return Err(match self.last {
                Some(_) => StoreError::Restored { asked: self.position },
                None => not_yet(self.position, newest),
            });
        }
        let member = self.connection.members.current().clone();
        let watch = watch_from(&self.connection, &member, self.position).await;
        match watch {
            Ok(_) => self.member = Some(member),
            Err(_) => self.connection.members.leave(&member),
        }
        watch
    }

    fn take(&mut self, response: &WatchResponse) -> Result<(), StoreError> {
        if response.canceled() {
            let why = self.canceled(response);
            self.lose();
            return Err(why);
        }
        let events = response.events();
        let last = events.last().and_then(event_revision);
        for events in events.chunk_by(|a, b| event_revision(a) == event_revision(b)) {
            let Some(revision) = event_revision(&events[0]) else {
                continue;
            };
            if revision < self.position {
                continue;
            }
            let changes = changes(&self.connection.prefix, revision, events);
            if revision == self.position {
                self.check_history(&changes)?;
                continue;
            }
            self.position = revision;
            // Other people's revisions are told only to say how far the log is.
            if !changes.is_empty() || last == Some(revision) {
                let batch = Batch { revision, changes };
                self.last = Some(batch.clone());
                self.ready.push_back(batch);
            }
        }
        Ok(())
    }

    /// What comes again of the newest revision must be what came before. (Not all of it has to come:
    /// what was deleted by it may be compacted.)
    fn check_history(&self, again: &[Change]) -> Result<(), StoreError> {
        match &self.last {
            Some(last) if last.revision == self.position => {
                match again.iter().all(|change| last.changes.contains(change)) {
                    true => Ok(()),
                    false => Err(StoreError::Restored { asked: self.position }),
                }
            }
            _ => Ok(()),
        }
    }

    fn canceled(&self, response: &WatchResponse) -> StoreError {
        match u64::try_from(response.compact_revision()) {
            Ok(oldest) if oldest > 0 => {
                StoreError::Compacted { asked: self.position, oldest: Revision(oldest) }
            }
            _ => StoreError::Unavailable(format!(
                "etcd ended the watch: {}",
                response.cancel_reason()
            )),
        }
    }
}

async fn watch_from(
    connection: &Connection,
    member: &Member,
    revision: Revision,
) -> Result<WatchStream, StoreError> {
    let options = WatchOptions::new().with_all_keys().with_start_revision(etcd_revision(revision));
    let mut client = member.watch.clone();
    match tokio::time::timeout(connection.timeout, client.watch([], Some(options))).await {
        Ok(Ok(watch)) => Ok(watch),
        Ok(Err(error)) => Err(fault::of_read(&error)),
        Err(_) => Err(fault::no_answer(connection.timeout)),
    }
}

/// The oldest revision that can be read, if `asked` is older.
pub(super) async fn oldest_revision(connection: &Connection, asked: Revision) -> Option<Revision> {
    let ask = async {
        let member = connection.members.current();
        let mut watch = watch_from(connection, member, asked).await.ok()?;
        loop {
            let response = watch.message().await.ok()??;
            if response.canceled() || !response.events().is_empty() {
                return u64::try_from(response.compact_revision()).ok();
            }
        }
    };
    let oldest = tokio::time::timeout(connection.timeout, ask).await.ok()??;
    (oldest > 0).then_some(Revision(oldest))
}

fn event_revision(event: &Event) -> Option<Revision> {
    u64::try_from(event.kv()?.mod_revision()).ok().map(Revision)
}

/// Our changes among the events of one revision.
fn changes(prefix: &[u8], revision: Revision, events: &[Event]) -> Vec<Change> {
    let mut numbering = Numbering::of(revision);
    let mut changes = Vec::with_capacity(events.len());
    for event in events {
        let Some(pair) = event.kv() else { continue };
        let Some(key) = pair.key().strip_prefix(prefix).filter(|key| key.starts_with(b"/")) else {
            continue;
        };
        let key = Bytes::copy_from_slice(key);
        changes.push(match event.event_type() {
            EventType::Put => {
                let (value, index) = numbering::separate(pair.value().to_vec());
                Change { key, value: Some(value), version: numbering.put(index) }
            }
            EventType::Delete => Change { key, value: None, version: numbering.delete() },
        });
    }
    changes
}
