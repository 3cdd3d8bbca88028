//! `GET /exec/{namespace}/{name}/{uid}?command=…`: a further command in a running task.
//!
//! A client that goes away takes nothing but the command's streams along: it finds the end of its
//! input, cannot write any more, and with a terminal is hung up on. So do the nodes of Kubernetes.
//! The command of an agent that dies is killed.

use std::pin::pin;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use commonage_shim::exec::Order;
use tokio::time::{Instant, MissedTickBehavior};

use super::channels::{self, Incoming, Outgoing, STDERR, STDOUT, Said};
use super::process::{self, Ended, Input, NotStarted, Output, Process, Terminal};
use super::query::Wanted;
use super::refusal::{Refusal, exit_code, internal, success, timeout};
use super::{Answer, Sessions, TaskPath};

/// Bytes of output in one message, the channel included.
const MESSAGE_BYTES: usize = 32 * 1024;
/// What a command has started in the background may hold its output open. That long it is waited
/// for; a node of Kubernetes would wait for ever.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
/// Between questions whether a silent client is still there.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(30);

pub(super) async fn exec(
    State(sessions): State<Sessions>,
    Path(task): Path<TaskPath>,
    mut request: Request,
) -> Answer {
    let wanted = Wanted::parse(request.uri())?;
    if wanted.command.is_empty() {
        return Err(Refusal::bad_request("you must specify command"));
    }
    sessions.find(&task).await?;
    let slot = sessions.slot()?;
    let (upgrade, answer) = channels::accept(&mut request)?;
    let (shims, stop) = (sessions.shims.clone(), sessions.stop.clone());
    sessions.spawn(async move {
        let Some((incoming, outgoing)) = channels::open(upgrade).await else { return };
        let order = Order { command: wanted.command.clone(), stdin: wanted.stdin, tty: wanted.tty };
        match process::start(&shims, &task.2, order).await {
            Ok(process) => {
                let left = serve(process, &wanted, incoming, outgoing).await;
                drop(slot);
                // It goes on without its client, until it ends or the agent does.
                if let Some(mut end) = left {
                    let _ = stop.run_until_cancelled(end.wait()).await;
                }
            }
            Err(not) => {
                let mut outgoing = outgoing;
                let status = not_started(&not, &wanted, &mut outgoing).await;
                outgoing.end(&status).await;
                incoming.finish().await;
            }
        }
    });
    Ok(answer)
}

/// How a session ends whose command never ran. That there is no such program is told as a shell tells it, in words
/// where errors go and by its code: so whoever calls `kubectl exec` in a script can tell it from what broke on our side.
async fn not_started(
    not: &NotStarted,
    wanted: &Wanted,
    outgoing: &mut Outgoing,
) -> serde_json::Value {
    let why = format!("error executing command in container: {}", not.why());
    match not {
        NotStarted::Program(why, code) => {
            let (channel, end) = if wanted.stderr { (STDERR, "\n") } else { (STDOUT, "\r\n") };
            if wanted.stderr || wanted.tty {
                let line = [&[channel], why.as_bytes(), end.as_bytes()].concat();
                // Who does not take it is gone.
                let _ = outgoing.send(line).await;
            }
            exit_code(*code)
        }
        NotStarted::TooSlow(_) => timeout(&why),
        NotStarted::Other(_) => internal(&why),
    }
}

/// Returns the command's end if the client was the first to go.
async fn serve(
    process: Process,
    wanted: &Wanted,
    mut incoming: Incoming,
    mut outgoing: Outgoing,
) -> Option<process::End> {
    let Process { mut end, input, output, errors, terminal } = process;
    let input = input.filter(|_| wanted.stdin);
    let mut streams = Streams {
        output: Some(Pump::new(STDOUT, output, wanted.stdout)),
        errors: errors.map(|errors| Pump::new(STDERR, errors, wanted.stderr)),
    };
    let ended = {
        let mut listening = pin!(listen(&mut incoming, input, terminal));
        tokio::select! {
            ended = streams.pump(&mut end, &mut outgoing) => ended,
            () = &mut listening => None,
        }
    };
    let Some(ended) = ended else { return Some(end) };
    let status = match ended {
        Ended::Code(0) => success(),
        Ended::Code(code) => exit_code(code),
        Ended::NotStarted(not) => not_started(&not, wanted, &mut outgoing).await,
    };
    outgoing.end(&status).await;
    incoming.finish().await;
    None
}

/// Takes what the client says, until it is gone. While the command takes no input, nothing more
/// is read.
async fn listen(incoming: &mut Incoming, mut input: Option<Input>, terminal: Option<Terminal>) {
    while let Some(said) = incoming.next().await {
        match said {
            Said::Stdin(bytes) => {
                let Some(open) = &mut input else { continue };
                if open.write_all(&bytes).await.is_err() {
                    input = None;
                }
            }
            Said::StdinClosed => input = None,
            Said::Resize { columns, rows } => {
                if let Some(terminal) = &terminal {
                    terminal.resize(columns, rows);
                }
            }
        }
    }
}

/// One output on its way to the client.
struct Pump {
    output: Output,
    buffer: Vec<u8>,
    channel: u8,
    wanted: bool,
}

impl Pump {
    fn new(channel: u8, output: Output, wanted: bool) -> Pump {
        Pump { output, buffer: Vec::new(), channel, wanted }
    }

    /// The next message; `None` at the end. Safe to drop.
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            self.buffer.resize(MESSAGE_BYTES, 0);
            let read = self.output.read(&mut self.buffer[1..]).await;
            let count = read.ok().filter(|count| *count > 0)?;
            if self.wanted {
                let mut message = std::mem::take(&mut self.buffer);
                message.truncate(1 + count);
                message[0] = self.channel;
                return Some(message);
            }
        }
    }
}

struct Streams {
    output: Option<Pump>,
    errors: Option<Pump>,
}

impl Streams {
    /// Until the command has ended and all it printed was sent. `None`: the client is gone.
    async fn pump(&mut self, end: &mut process::End, to: &mut Outgoing) -> Option<Ended> {
        let mut waiting = pin!(end.wait());
        let mut ended = None;
        let mut drained = pin!(tokio::time::sleep(Duration::MAX));
        let mut ping = tokio::time::interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if ended.is_some() && self.output.is_none() && self.errors.is_none() {
                return ended;
            }
            let message = tokio::select! {
                message = next(&mut self.output), if self.output.is_some() => message,
                message = next(&mut self.errors), if self.errors.is_some() => message,
                how = &mut waiting, if ended.is_none() => {
                    if matches!(how, Ended::NotStarted(_)) {
                        return Some(how);
                    }
                    ended = Some(how);
                    drained.as_mut().reset(Instant::now() + DRAIN_TIME_MAX);
                    None
                }
                () = &mut drained, if ended.is_some() => return ended,
                _ = ping.tick() => {
                    to.ping().await.ok()?;
                    None
                }
            };
            if let Some(message) = message {
                to.send(message).await.ok()?;
            }
        }
    }
}

/// The next message of one output, which is no more at its end.
async fn next(pump: &mut Option<Pump>) -> Option<Vec<u8>> {
    let message = match pump {
        Some(pump) => pump.next().await,
        None => None,
    };
    if message.is_none() {
        *pump = None;
    }
    message
}
