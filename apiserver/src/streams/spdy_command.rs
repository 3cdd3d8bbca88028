//! `exec` and `attach` over SPDY: a stream for each of input, output, errors, status and terminal
//! sizes. kubectl before 1.30 knows no other way, and later ones fall back to it.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{SplitSink, SplitStream};
use http::Response;
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::Message;

use super::command::{self, CLOSE, RESIZE, STATUS, STDERR, STDIN, STDOUT};
use super::websocket::{self, Socket};
use super::{Raw, Request, STREAM_PROTOCOL, negotiated, run, switching_to_spdy};
use crate::spdy::{self, ReadHalf, Session, WriteHalf};
use crate::status::ApiError;

/// Which streams come is known from the query; a client opens them at once.
const STREAMS_TIME_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
struct Form {
    /// The error stream carries a Status; before v4, only the text of a failure.
    status: bool,
    /// With a terminal there is a stream of its sizes.
    resize: bool,
}

const FORMS: [(&str, Form); 4] = [
    ("v4.channel.k8s.io", Form { status: true, resize: true }),
    ("v3.channel.k8s.io", Form { status: false, resize: true }),
    ("v2.channel.k8s.io", Form { status: false, resize: false }),
    ("channel.k8s.io", Form { status: false, resize: false }),
];
const UNNAMED: Form = Form { status: false, resize: false };

pub(super) async fn open(
    request: &Request<'_>,
    upgrade: OnUpgrade,
) -> Result<Response<Body>, ApiError> {
    let (protocol, form) = negotiated(request.headers, STREAM_PROTOCOL, &FORMS, Some(UNNAMED))?;
    let asked = |flag| request.query.flag(flag) == Some(true);
    let tty = asked("tty");
    let count = 1
        + usize::from(asked("stdin"))
        + usize::from(asked("stdout"))
        + usize::from(asked("stderr") && !tty)
        + usize::from(tty && form.resize);
    let agent = command::to_agent(request).await?;
    let stop = request.stop();
    run(request, upgrade, async move |client| {
        let mut session = spdy::serve(client, stop.child_token());
        let streams = tokio::time::timeout(STREAMS_TIME_MAX, collect(&mut session, count)).await;
        if let Ok(Some(streams)) = streams {
            translate(streams, agent, form).await;
        }
    });
    Ok(switching_to_spdy(protocol))
}

/// A client's streams by what they are for.
#[derive(Default)]
struct Streams {
    stdin: Option<ReadHalf>,
    resize: Option<ReadHalf>,
    stdout: Option<WriteHalf>,
    stderr: Option<WriteHalf>,
    error: Option<WriteHalf>,
}

async fn collect(session: &mut Session, count: usize) -> Option<Streams> {
    let mut streams = Streams::default();
    for _ in 0..count {
        let stream = session.accept().await?;
        match stream.headers.get("streamtype") {
            Some("stdin") => streams.stdin = Some(stream.read),
            Some("resize") => streams.resize = Some(stream.read),
            Some("stdout") => streams.stdout = Some(stream.write),
            Some("stderr") => streams.stderr = Some(stream.write),
            Some("error") => streams.error = Some(stream.write),
            _ => return None,
        }
    }
    Some(streams)
}

async fn translate(streams: Streams, agent: Raw, form: Form) {
    let (to_agent, from_agent) = websocket::to_agent(agent).await.split();
    let Streams { stdin, resize, stdout, stderr, error } = streams;
    let outputs = Outputs { stdout, stderr, error };
    tokio::select! {
        () = input(stdin, resize, to_agent) => {}
        () = outputs.run(from_agent, form) => {}
    }
}

/// Never ends by itself: what the command says after its input's end counts.
async fn input(
    mut stdin: Option<ReadHalf>,
    mut resize: Option<ReadHalf>,
    mut to_agent: SplitSink<Socket, Message>,
) {
    loop {
        let sent = tokio::select! {
            piece = next(&mut stdin), if stdin.is_some() => match piece {
                Some(piece) => websocket::send(&mut to_agent, STDIN, &piece).await,
                None => {
                    stdin = None;
                    websocket::send(&mut to_agent, CLOSE, &[STDIN]).await
                }
            },
            size = next(&mut resize), if resize.is_some() => match size {
                Some(size) => websocket::send(&mut to_agent, RESIZE, &size).await,
                None => {
                    resize = None;
                    true
                }
            },
            else => break,
        };
        if !sent {
            break;
        }
    }
    std::future::pending().await
}

async fn next(stream: &mut Option<ReadHalf>) -> Option<Bytes> {
    stream.as_mut()?.next().await
}

struct Outputs {
    stdout: Option<WriteHalf>,
    stderr: Option<WriteHalf>,
    error: Option<WriteHalf>,
}

impl Outputs {
    async fn run(mut self, mut from_agent: SplitStream<Socket>, form: Form) {
        loop {
            let message = tokio::select! {
                message = websocket::next(&mut from_agent) => message,
                // The client has hung up: so does the agent then, and ends the command's session.
                () = given_up(&self.error) => return,
            };
            let Some(message) = message else { break };
            let Some((channel, data)) = message.split_first() else { continue };
            let data = match (*channel, form.status) {
                (STATUS, false) => Bytes::from(command::failure(data)),
                _ => message.slice(1..),
            };
            let stream = match *channel {
                STDOUT => &self.stdout,
                STDERR => &self.stderr,
                STATUS => &self.error,
                _ => continue,
            };
            // A client that has given one output up may still want the others.
            if let Some(stream) = stream
                && !data.is_empty()
            {
                stream.send(data).await;
            }
        }
        let streams = [self.stdout.take(), self.stderr.take(), self.error.take()];
        for stream in streams.into_iter().flatten() {
            stream.finish().await;
        }
    }
}

async fn given_up(stream: &Option<WriteHalf>) {
    match stream {
        Some(stream) => stream.given_up().await,
        None => std::future::pending().await,
    }
}
