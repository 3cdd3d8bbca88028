//! `GET /attach/{namespace}/{name}/{uid}`: a task's output from now on, and its standard input if it has one.
//!
//! The output is read from the log, by way of which it goes anyway. What is typed goes to what the task's shim holds
//! of its input: see [`commonage_shim::attach`]. A client that goes away takes nothing along but itself, unless the
//! input is there for the first one only.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use commonage_shim::launch::{Stdio, Stream};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::channels::{self, Incoming, Outgoing, STDERR, STDOUT};
use super::exec::PING_INTERVAL;
use super::query::Wanted;
use super::refusal::{Refusal, internal, success};
use super::typed::{self, Keyboard};
use super::{Answer, Sessions, TaskPath};
use crate::ledger::Ledger;
use crate::logs::Reader;

/// Between looks at a log that has had nothing new for a while. A person watches.
const PAUSE: Duration = Duration::from_millis(20);
/// The first pause after something came, or was typed: then the answer is near.
const PAUSE_FIRST: Duration = Duration::from_millis(1);

pub(super) async fn attach(
    State(sessions): State<Sessions>,
    Path(task): Path<TaskPath>,
    mut request: Request,
) -> Answer {
    let wanted = Wanted::parse(request.uri())?;
    sessions.find(&task).await?;
    let slot = sessions.slot()?;
    let (dir, shims, asked) =
        (sessions.ledger.state_dir(&task.2), sessions.shims.clone(), task.clone());
    // Where it begins is settled before the client is told that it has begun.
    let opened = tokio::task::spawn_blocking(move || {
        let stdio = dir.launch().map(|launch| launch.stdio).unwrap_or_default();
        let attached = attach_to(&shims, &asked, &wanted, stdio)?;
        let streams =
            [(STDOUT, Stream::Stdout, wanted.stdout), (STDERR, Stream::Stderr, wanted.stderr)];
        let open = |(channel, stream, _)| {
            let mut reader = Reader::new(dir.log(stream), (!wanted.logs).then_some(0));
            reader.begin().map(|_| (channel, reader))
        };
        let readers = streams.into_iter().filter(|(_, _, wanted)| *wanted).map(open);
        match readers.collect::<std::io::Result<Vec<_>>>() {
            Ok(readers) => Ok((readers, attached, stdio)),
            Err(_) => Err(Refusal::internal("the log can't be opened")),
        }
    });
    let (readers, attached, stdio) = opened.await.map_err(|_| Refusal::internal("a bug"))??;
    let keyboard = attached.map(|attached| Keyboard::new(attached, stdio)).transpose();
    let keyboard = keyboard.map_err(|error| Refusal::internal(error.to_string()))?;
    let (upgrade, answer) = channels::accept(&mut request)?;
    let ledger = sessions.ledger.clone();
    sessions.spawn(async move {
        let _slot = slot;
        let Some((incoming, outgoing)) = channels::open(upgrade).await else { return };
        let typed = Arc::new(Notify::new());
        let watched = Watched { ledger, uid: task.2, readers, typed };
        serve(watched, keyboard, incoming, outgoing).await;
    });
    Ok(answer)
}

/// The way in, if one is asked for. Blocks.
fn attach_to(
    shims: &crate::runtime::Shims,
    (_, name, uid): &TaskPath,
    wanted: &Wanted,
    stdio: Stdio,
) -> Result<Option<commonage_shim::attach::Attachment>, Refusal> {
    if wanted.stdin && !stdio.stdin {
        return Err(Refusal::bad_request(format!(
            "task {name:?} has no standard input: that takes spec.container.stdin when it is created; attach without \
             it (no -i), or run a command in it (exec -i)"
        )));
    }
    let sizes = wanted.tty && stdio.tty;
    if !(wanted.stdin || sizes) {
        return Ok(None);
    }
    let attached = shims.attach(uid, wanted.stdin);
    attached.map(Some).map_err(|error| match error.kind() {
        // Its own words, not the connection's.
        std::io::ErrorKind::Other => Refusal::bad_request(error.to_string()),
        _ => Refusal::internal(format!("task {name:?} can't be reached: {error}")),
    })
}

/// A task whose output is passed on.
struct Watched {
    ledger: Ledger,
    uid: String,
    /// With their channels.
    readers: Vec<(u8, Reader)>,
    /// Something was.
    typed: Arc<Notify>,
}

async fn serve(
    mut watched: Watched,
    keyboard: Option<Keyboard>,
    mut incoming: Incoming,
    mut outgoing: Outgoing,
) {
    let typed = watched.typed.clone();
    let status = tokio::select! {
        result = watched.pass_on(&mut outgoing) => match result {
            Ok(()) => success(),
            Err(error) => internal(&format!("the log can't be read: {error}")),
        },
        () = typed::listen(&mut incoming, keyboard, &typed) => return,
    };
    outgoing.end(&status).await;
    incoming.finish().await;
}

impl Watched {
    /// Until the task has ended.
    async fn pass_on(&mut self, to: &mut Outgoing) -> std::io::Result<()> {
        let mut ping = tokio::time::interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pause = PAUSE;
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
            if !silent {
                pause = PAUSE_FIRST;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE),
                () = self.typed.notified() => pause = PAUSE_FIRST,
                _ = ping.tick() => to.ping().await.map_err(std::io::Error::other)?,
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
