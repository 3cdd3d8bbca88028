//! `portforward` in its three forms: SPDY, SPDY inside a WebSocket, and channels of a WebSocket. Each
//! connection of the client's is one of its own to the agent.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::Response;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::{
    Kind, Raw, Request, STREAM_PROTOCOL, negotiated, run, switching_to_spdy,
    switching_to_websocket, websocket,
};
use crate::http::App;
use crate::proxy::{AgentUpgrade, Place};
use crate::spdy::{self, Incoming, ReadHalf, WriteHalf};
use crate::status::ApiError;

const PIECE_BYTES: usize = 16 * 1024;
/// Ports of one WebSocket: each has two of the 256 channels.
const PORTS_MAX: usize = 127;
/// Data streams whose error streams have not come, or the other way round.
const HALVES_MAX: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Spdy,
    Channels,
}

const FORMS: [(&str, Form); 2] =
    [("SPDY/3.1+portforward.k8s.io", Form::Spdy), ("v4.channel.k8s.io", Form::Channels)];
const SPDY_FORMS: [(&str, ()); 1] = [("portforward.k8s.io", ())];

/// Reaches ports of one task.
#[derive(Clone)]
struct Ports {
    app: Arc<App>,
    place: Place,
}

impl Ports {
    fn of(request: &Request<'_>) -> Ports {
        Ports { app: request.app.clone(), place: request.place.clone() }
    }

    async fn connect(&self, port: u16) -> Result<Raw, ApiError> {
        let path = self.place.path(Kind::PortForward.path(), &format!("port={port}"));
        self.app.agents.upgrade(&self.place, &path, AgentUpgrade::Tcp).await
    }

    /// In the words of a kubelet.
    fn failure(&self, port: &str, why: &str) -> String {
        let Place { name, task_uid, .. } = &self.place;
        format!("error forwarding port {port} to pod {name}, uid : {task_uid}: {why}")
    }
}

pub(super) async fn over_spdy(
    request: &Request<'_>,
    upgrade: OnUpgrade,
) -> Result<Response<Body>, ApiError> {
    let (protocol, ()) = negotiated(request.headers, STREAM_PROTOCOL, &SPDY_FORMS, Some(()))?;
    let (ports, stop) = (Ports::of(request), request.stop());
    run(request, upgrade, async move |client| serve_spdy(client, ports, stop).await);
    Ok(switching_to_spdy(protocol))
}

pub(super) async fn over_websocket(
    request: &Request<'_>,
    upgrade: OnUpgrade,
) -> Result<Response<Body>, ApiError> {
    let (protocol, form) =
        negotiated(request.headers, SEC_WEBSOCKET_PROTOCOL, &FORMS, Some(Form::Channels))?;
    let answer = switching_to_websocket(request.headers, protocol)?;
    let (ports, stop) = (Ports::of(request), request.stop());
    match form {
        Form::Spdy => run(request, upgrade, async move |client| {
            let (ours, theirs) = tokio::io::duplex(4 * PIECE_BYTES);
            let socket = websocket::of_client(client).await;
            tokio::join!(websocket::as_bytes(socket, theirs), serve_spdy(ours, ports, stop));
        }),
        Form::Channels => {
            let wanted = wanted_ports(request)?;
            run(request, upgrade, async move |client| serve_channels(client, ports, wanted).await);
        }
    }
    Ok(answer)
}

fn wanted_ports(request: &Request<'_>) -> Result<Vec<u16>, ApiError> {
    let listed = request.query.all("ports").chain(request.query.all("port"));
    let listed = listed.flat_map(|list| list.split(',')).filter(|port| !port.is_empty());
    let mut ports = Vec::new();
    for text in listed {
        match text.trim().parse() {
            Ok(port @ 1..) => ports.push(port),
            Ok(0) => return Err(ApiError::bad_request(format!("port \"{text}\" must be > 0"))),
            Err(_) => {
                return Err(ApiError::bad_request(format!("unable to parse \"{text}\" as a port")));
            }
        }
    }
    match ports.len() {
        0 => Err(ApiError::bad_request("query parameter \"port\" is required")),
        count if count > PORTS_MAX => Err(ApiError::bad_request("too many ports")),
        _ => Ok(ports),
    }
}

/// The two streams of a connection come one after the other, with the same `requestID`.
async fn serve_spdy<Io>(client: Io, ports: Ports, stop: CancellationToken)
where
    Io: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut session = spdy::serve(client, stop);
    let mut halves: HashMap<String, Incoming> = HashMap::new();
    while let Some(stream) = session.accept().await {
        // Clients before 1.4 number nothing and open one pair after the other.
        let id = stream.headers.get("requestid").unwrap_or("").to_owned();
        let Some(other) = halves.remove(&id) else {
            if halves.len() < HALVES_MAX {
                halves.insert(id, stream);
            } else {
                stream.write.cancel().await;
            }
            continue;
        };
        let is_error = |stream: &Incoming| stream.headers.get("streamtype") == Some("error");
        let (error, data) = if is_error(&stream) { (stream, other) } else { (other, stream) };
        tokio::spawn(forward_pair(ports.clone(), error, data));
    }
}

async fn forward_pair(ports: Ports, error: Incoming, data: Incoming) {
    let port = data.headers.get("port").unwrap_or("").to_owned();
    let connected = match port.parse() {
        Ok(port @ 1..) => ports.connect(port).await.map_err(|error| error.message),
        _ => Err("not a port".to_owned()),
    };
    match connected {
        Ok(agent) => {
            let Incoming { read, write, .. } = data;
            tokio::select! {
                () = write.given_up() => {}
                () = copy(agent, read, &write) => {}
            }
            write.finish().await;
        }
        Err(why) => {
            error.write.send(ports.failure(&port, &why).into()).await;
            data.write.finish().await;
        }
    }
    // Clients end a connection of theirs when both streams have ended.
    error.write.finish().await;
}

/// Until the port has said all. What a client still has to say after that is for nobody: so do
/// kubectl and the kubelet see it.
async fn copy(agent: Raw, mut from_client: ReadHalf, to_client: &WriteHalf) {
    let (mut from_agent, mut to_agent) = tokio::io::split(agent);
    let inwards = async {
        while let Some(piece) = from_client.next().await {
            if to_agent.write_all(&piece).await.is_err() {
                break;
            }
        }
        let _ = to_agent.shutdown().await;
        std::future::pending().await
    };
    let outwards = async {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(length @ 1..) = from_agent.read(&mut buffer).await {
            if !to_client.send(Bytes::copy_from_slice(&buffer[..length])).await {
                return;
            }
        }
    };
    tokio::select! {
        () = inwards => {}
        () = outwards => {}
    }
}

/// Channel `2n` carries the data of the n-th port, `2n + 1` why it failed; the first message of
/// each is the port, 16 bits, little-endian.
async fn serve_channels(client: Raw, ports: Ports, wanted: Vec<u16>) {
    let (mut to_client, mut from_client) = websocket::of_client(client).await.split();
    let (out, mut due) = mpsc::channel::<(u8, Bytes)>(4);
    let mut inputs = Vec::new();
    for (number, port) in wanted.into_iter().enumerate() {
        let (to_port, from_channel) = mpsc::channel::<Bytes>(4);
        inputs.push(to_port);
        tokio::spawn(forward_channel(
            ports.clone(),
            2 * number as u8,
            port,
            from_channel,
            out.clone(),
        ));
    }
    drop(out);
    let inwards = async {
        while let Some(message) = websocket::next(&mut from_client).await {
            let Some(channel) = message.first() else { continue };
            if let (0, Some(input)) = (channel % 2, inputs.get(usize::from(channel / 2))) {
                // The port's connection is over: its data goes nowhere.
                let _ = input.send(message.slice(1..)).await;
            }
        }
    };
    let outwards = async {
        while let Some((channel, data)) = due.recv().await {
            let mut message = Vec::with_capacity(1 + data.len());
            message.push(channel);
            message.extend_from_slice(&data);
            if to_client.send(Message::Binary(message.into())).await.is_err() {
                return;
            }
        }
        websocket::finish(&mut to_client).await;
    };
    tokio::select! {
        () = inwards => {}
        () = outwards => {}
    }
}

async fn forward_channel(
    ports: Ports,
    channel: u8,
    port: u16,
    mut from_client: mpsc::Receiver<Bytes>,
    out: mpsc::Sender<(u8, Bytes)>,
) {
    for channel in [channel, channel + 1] {
        let number = Bytes::copy_from_slice(&port.to_le_bytes());
        if out.send((channel, number)).await.is_err() {
            return;
        }
    }
    let agent = match ports.connect(port).await {
        Ok(agent) => agent,
        Err(error) => {
            let why = ports.failure(&port.to_string(), &error.message);
            let _ = out.send((channel + 1, why.into())).await;
            return;
        }
    };
    let (mut from_agent, mut to_agent) = tokio::io::split(agent);
    let inwards = async {
        while let Some(piece) = from_client.recv().await {
            if to_agent.write_all(&piece).await.is_err() {
                break;
            }
        }
        let _ = to_agent.shutdown().await;
        // The client is gone: what the port still says is for nobody.
    };
    let outwards = async {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(length @ 1..) = from_agent.read(&mut buffer).await {
            if out.send((channel, Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = inwards => {}
        () = outwards => {}
    }
}
