//! `GET /attach/{namespace}/{name}/{uid}`: a task's output from now on.
//!
//! A task has no input; what a client types is taken and forgotten, as for a container of
//! Kubernetes without `stdin`. The output is read from the log, by way of which it goes anyway.

use std::time::Duration;

use axum::extract::{Path, Request, State};
use commonage_shim::launch::Stream;
use tokio::time::{Instant, MissedTickBehavior};

use super::channels::{self, Incoming, Outgoing, STDERR, STDOUT};
use super::exec::PING_INTERVAL;
use super::query::Wanted;
use super::refusal::{Refusal, internal, success};
use super::{Answer, Sessions, TaskPath};
use crate::ledger::Ledger;
use crate::logs::Reader;

/// Between looks at a log that has nothing new. A person watches.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) async fn attach(
    State(sessions): State<Sessions>,
    Path(task): Path<TaskPath>,
    mut request: Request,
) -> Answer {
    let wanted = Wanted::parse(request.uri())?;
    sessions.find(&task).await?;
    let slot = sessions.slot()?;
    let dir = sessions.ledger.state_dir(&task.2);
    let streams =
        [(STDOUT, Stream::Stdout, wanted.stdout), (STDERR, Stream::Stderr, wanted.stderr)];
    // Where it begins is settled before the client is told that it has begun.
    let opened = tokio::task::spawn_blocking(move || {
        let wanted = streams.into_iter().filter(|(_, _, wanted)| *wanted);
        let open = |(channel, stream, _)| {
            let mut reader = Reader::new(dir.log(stream), Some(0));
            reader.begin().map(|_| (channel, reader))
        };
        wanted.map(open).collect::<std::io::Result<Vec<_>>>()
    });
    let Ok(Ok(readers)) = opened.await else {
        return Err(Refusal::internal("the log can't be opened"));
    };
    let (upgrade, answer) = channels::accept(&mut request)?;
    let ledger = sessions.ledger.clone();
    sessions.spawn(async move {
        let _slot = slot;
        let Some((incoming, outgoing)) = channels::open(upgrade).await else { return };
        serve(Watched { ledger, uid: task.2, readers }, incoming, outgoing).await;
    });
    Ok(answer)
}

/// A task whose output is passed on.
struct Watched {
    ledger: Ledger,
    uid: String,
    /// With their channels.
    readers: Vec<(u8, Reader)>,
}

async fn serve(mut watched: Watched, mut incoming: Incoming, mut outgoing: Outgoing) {
    let gone = async { while incoming.next().await.is_some() {} };
    let status = tokio::select! {
        result = watched.pass_on(&mut outgoing) => match result {
            Ok(()) => success(),
            Err(error) => internal(&format!("the log can't be read: {error}")),
        },
        () = gone => return,
    };
    outgoing.end(&status).await;
    incoming.finish().await;
}

impl Watched {
    /// Until the task has ended.
    async fn pass_on(&mut self, to: &mut Outgoing) -> std::io::Result<()> {
        let mut ping = tokio::time::interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Looked at before the output: what is there after the end is all.
            let (ended, messages) = self.look().await?;
            let silent = messages.is_empty();
            for message in messages {
                to.send(message).await.map_err(std::io::Error::other)?;
            }
            if silent && ended {
                return Ok(());
            }
            if silent {
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    _ = ping.tick() => to.ping().await.map_err(std::io::Error::other)?,
                }
            }
        }
    }

    /// Whether it has ended, and a piece of each output that has something new.
    async fn look(&mut self) -> std::io::Result<(bool, Vec<Vec<u8>>)> {
        let (ledger, uid) = (self.ledger.clone(), self.uid.clone());
        let mut readers = std::mem::take(&mut self.readers);
        let look = move || {
            let ended = ledger.has_ended(&uid);
            let mut messages = Vec::new();
            for (channel, reader) in &mut readers {
                if let Some(piece) = reader.read()? {
                    messages.push([&[*channel], piece.as_ref()].concat());
                }
            }
            Ok::<_, std::io::Error>((readers, ended, messages))
        };
        let looked = tokio::task::spawn_blocking(look).await.map_err(std::io::Error::other)?;
        let (readers, ended, messages) = looked?;
        self.readers = readers;
        Ok((ended, messages))
    }
}
