//! A stream both ways with a running task, over a WebSocket: what `exec`, `attach`, `cp` and
//! `port-forward` have in common. The protocol is Kubernetes' (`v5.channel.k8s.io`): the first
//! byte of each message names its channel.

use std::io::Read;

use bytes::Bytes;
use commonage_schemas::{Task, TaskState};
use futures::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Request, Response, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use kube::{Api, core::Status};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use crate::detach::DetachKeys;
use crate::errors::{Failure, Result, a};
use crate::kinds::encode;
use crate::kubeconfig::Cluster;
use crate::terminal::Size;
use crate::{logs, output};

pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
/// The channel named by the next byte is at its end.
const CLOSE: u8 = 255;

pub(crate) const V5: &str = "v5.channel.k8s.io";
const PIECE_BYTES: usize = 32 * 1024;
/// Pieces of input read ahead.
const PIECES_AHEAD: usize = 4;

/// What a session is opened with.
#[derive(Clone, Copy)]
pub(crate) struct Door<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) task: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) query: &'a str,
    /// What is said to have failed if it does.
    pub(crate) tried: &'a str,
}

impl Door<'_> {
    fn path(&self) -> String {
        let Self { cluster, task, subresource, query, tried: _ } = self;
        let (namespace, task) = (encode(&cluster.namespace), encode(task));
        format!("/apis/commonage.dev/v1/namespaces/{namespace}/tasks/{task}/{subresource}?{query}")
    }
}

/// `NAME` or `task/NAME`.
pub(crate) fn task_name(what: &str) -> Result<&str> {
    match what.split_once('/') {
        None | Some(("task" | "tasks" | "tk" | "pod" | "pods" | "po", _)) => {
            Ok(what.rsplit('/').next().unwrap_or(what))
        }
        Some((kind, _)) => Err(Failure::new(format!("{} runs nothing", a(kind)))
            .hint("name a task: `NAME` or `task/NAME`")),
    }
}

/// Opens a WebSocket. A refusal is the server's own, with what to do about it where the task's state tells.
pub(crate) async fn open(door: Door<'_>, protocol: &'static str) -> Result<Socket> {
    let Door { cluster, tried, .. } = door;
    let key = generate_key();
    let request = Request::get(door.path())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .header(SEC_WEBSOCKET_PROTOCOL, protocol)
        .body(Body::empty())
        .expect("names are percent-encoded, so the path is a valid URI");
    let response =
        cluster.client.send(request).await.map_err(|error| Failure::api(tried, &error))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refused(response, door).await);
    }
    let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT);
    if accepted.is_none_or(|accepted| accepted != derive_accept_key(key.as_bytes()).as_str()) {
        return Err(Failure::new(format!("{tried}: the server speaks no WebSocket")));
    }
    let upgraded = hyper::upgrade::on(response)
        .await
        .map_err(|error| Failure::new(format!("{tried}: {error}")))?;
    Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await)
}

async fn refused(response: Response<Body>, door: Door<'_>) -> Failure {
    let Door { cluster, task, tried, .. } = door;
    let code = response.status();
    let body = response.into_body().collect_bytes().await.unwrap_or_default();
    let failure = match serde_json::from_slice::<Status>(&body) {
        Ok(status) if !status.message.is_empty() => Failure::status(tried, &status),
        _ => Failure::new(format!("{tried}: the server answered {code}")),
    };
    if !matches!(code, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) {
        return failure;
    }
    // The words are the server's, and may change; what can be done follows from what the task is.
    let api: Api<Task> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    match api.get_opt(task).await {
        Ok(Some(now)) => match instead(&now) {
            Some(command) => failure.hint(format!("{command} {task}")),
            None => failure,
        },
        _ => failure,
    }
}

/// What one can do with a task that does not run.
fn instead(task: &Task) -> Option<&'static str> {
    match task.state() {
        TaskState::Running | TaskState::Killing => None,
        state if state.is_terminal() && logs::has_log(task) => Some("cmn logs"),
        _ => Some("cmn describe task"),
    }
}

/// What goes into a session: bytes, and the size of the terminal as it changes.
#[derive(Default)]
pub(crate) struct Inputs {
    pub(crate) stdin: Option<mpsc::Receiver<Bytes>>,
    pub(crate) sizes: Option<mpsc::Receiver<Size>>,
    /// The keys in the input that end the session, and nothing else.
    pub(crate) leave: Option<DetachKeys>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The command did, with this exit code.
    Exit(u8),
    /// Somebody has pressed the keys for it.
    Detached,
}

pub(crate) type Ended = Result<End>;

/// Opens a session of v5 and runs it to its end.
pub(crate) async fn run(
    door: Door<'_>,
    inputs: Inputs,
    output: impl FnMut(Stream, &[u8]) -> Result<()>,
) -> Ended {
    run_on(open(door, V5).await?, door.tried, inputs, output).await
}

/// Runs a session of v5 that was opened to its end.
pub(crate) async fn run_on(
    socket: Socket,
    tried: &str,
    inputs: Inputs,
    output: impl FnMut(Stream, &[u8]) -> Result<()>,
) -> Ended {
    let (mut sink, source) = socket.split();
    let Inputs { mut stdin, mut sizes, mut leave } = inputs;
    let inwards = async {
        loop {
            let message = tokio::select! {
                piece = received(&mut stdin) => match piece {
                    Some(piece) => match &mut leave {
                        None => packed(STDIN, &piece),
                        Some(keys) => match keys.take_out(&piece) {
                            Some(piece) => packed(STDIN, &piece),
                            None => return,
                        },
                    },
                    None => {
                        stdin = None;
                        packed(CLOSE, &[STDIN])
                    }
                },
                size = received(&mut sizes) => match size {
                    Some(size) => packed(RESIZE, size.json().as_bytes()),
                    None => {
                        sizes = None;
                        continue;
                    }
                },
            };
            if sink.send(message).await.is_err() {
                // Why is told by the other direction.
                return std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        ended = outwards(source, tried, output) => ended,
        () = inwards => Ok(End::Detached),
    }
}

/// The next piece; waits forever where there is nothing to come.
async fn received<T>(from: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match from {
        Some(from) => from.recv().await,
        None => std::future::pending().await,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

async fn outwards(
    mut source: impl futures::Stream<Item = Result<Message, WebSocketError>> + Unpin,
    tried: &str,
    mut output: impl FnMut(Stream, &[u8]) -> Result<()>,
) -> Ended {
    let broke = |why: &str| Failure::new(format!("{tried}: the session broke off{why}"));
    loop {
        let message = match source.next().await {
            Some(Ok(Message::Binary(message))) => message,
            Some(Ok(Message::Text(message))) => message.into(),
            Some(Ok(Message::Close(_))) | None => return Err(broke("")),
            Some(Ok(_)) => continue,
            // Who goes away without a word is killed, or was cut off; there is nothing more to say of it.
            Some(Err(WebSocketError::Io(_))) => return Err(broke("")),
            Some(Err(error)) => return Err(broke(&format!(": {error}"))),
        };
        match message.split_first() {
            Some((&STDOUT, data)) => output(Stream::Stdout, data)?,
            Some((&STDERR, data)) => output(Stream::Stderr, data)?,
            Some((&STATUS, data)) => return ended(data, tried),
            _ => {}
        }
    }
}

/// The exit code in a session's last word.
fn ended(status: &[u8], tried: &str) -> Ended {
    let status: Status = serde_json::from_slice(status)
        .map_err(|_| Failure::new(format!("{tried}: the session's end cannot be read")))?;
    if status.is_success() || status.status.is_none() {
        return Ok(End::Exit(0));
    }
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let code = causes.filter(|cause| cause.reason == "ExitCode").find_map(|cause| {
        let code: i32 = cause.message.parse().ok()?;
        // Codes beyond a byte have no meaning to a shell.
        Some(u8::try_from(code).unwrap_or(u8::MAX))
    });
    match code {
        Some(code) => Ok(End::Exit(code)),
        None => Err(Failure::status(tried, &status)),
    }
}

pub(crate) fn packed(channel: u8, data: &[u8]) -> Message {
    let mut message = Vec::with_capacity(1 + data.len());
    message.push(channel);
    message.extend_from_slice(data);
    Message::Binary(message.into())
}

/// Reads in a thread of its own: a read of a terminal cannot be given up, and must not hold up the
/// end of the process.
pub(crate) fn pieces(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Bytes> {
    let (to, pieces) = mpsc::channel(PIECES_AHEAD);
    std::thread::spawn(move || {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            let read = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    output::note(&format!("standard input cannot be read: {error}"));
                    break;
                }
            };
            if to.blocking_send(Bytes::copy_from_slice(&buffer[..read])).is_err() {
                break;
            }
        }
    });
    pieces
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use commonage_schemas::{TaskSpec, task::TaskStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn the_last_word_is_an_exit_code_or_a_reason() {
        let failed = br#"{"metadata":{},"status":"Failure","reason":"NonZeroExitCode","message":"m","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        assert_eq!(ended(failed, "t").unwrap(), End::Exit(3));
        assert_eq!(ended(br#"{"metadata":{},"status":"Success"}"#, "t").unwrap(), End::Exit(0));
        let refused = br#"{"metadata":{},"status":"Failure","reason":"InternalError","message":"no such file"}"#;
        assert!(ended(refused, "t").is_err());
        assert!(ended(b"?", "t").is_err());
    }

    #[test]
    fn where_nothing_runs_there_is_something_else_to_look_at() {
        let task = |state, started: bool| {
            let started_at = started.then_some(Time(jiff::Timestamp::UNIX_EPOCH));
            let mut task = Task::new("a", TaskSpec::default());
            task.status = Some(TaskStatus { state, started_at, ..TaskStatus::default() });
            task
        };
        assert_eq!(instead(&task(TaskState::Running, true)), None);
        assert_eq!(instead(&task(TaskState::Failed, true)), Some("cmn logs"));
        assert_eq!(instead(&task(TaskState::Error, false)), Some("cmn describe task"));
        assert_eq!(instead(&task(TaskState::Pending, false)), Some("cmn describe task"));
    }

    #[test]
    fn a_task_is_named_in_two_ways() {
        assert_eq!(task_name("web").unwrap(), "web");
        assert_eq!(task_name("task/web").unwrap(), "web");
        assert!(task_name("agent/a").is_err());
    }
}
