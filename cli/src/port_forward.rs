//! `cmn port-forward`: ports here that lead to ports of a running task.

use std::{process::ExitCode, time::Duration};

use bytes::Bytes;
use clap::Args as ClapArgs;
use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    errors::{Failure, Result},
    follow::{self, Interrupted},
    kubeconfig::Cluster,
    output, session,
};

/// Of the one port that a connection asks for.
const DATA: u8 = 0;
const ERROR: u8 = 1;
const PROTOCOL: &str = "v4.channel.k8s.io";
const PIECE_BYTES: usize = 32 * 1024;
/// How long the task may take over its answer when our side has said everything. The protocol
/// cannot tell the task that we have.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  cmn port-forward web 8080:80    port 8080 here is port 80 of the task `web`
  cmn port-forward web 80         the same port on both sides
  cmn port-forward web :80        any free port here; it is printed")]
pub(crate) struct Args {
    /// A task: `NAME` or `task/NAME`
    #[arg(value_name = "TASK")]
    task: String,
    /// Which ports
    #[arg(value_name = "[HERE:]THERE", required = true, value_parser = parse)]
    ports: Vec<Ports>,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    address: std::net::IpAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ports {
    here: u16,
    there: u16,
}

fn parse(text: &str) -> Result<Ports, String> {
    let port = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is no port"));
    let ports = match text.split_once(':') {
        None => Ports { here: port(text)?, there: port(text)? },
        Some(("", there)) => Ports { here: 0, there: port(there)? },
        Some((here, there)) => Ports { here: port(here)?, there: port(there)? },
    };
    match ports.there {
        0 => Err("port 0 of a task is none".to_owned()),
        _ => Ok(ports),
    }
}

pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<ExitCode> {
    let task = session::task_name(&args.task)?;
    let tried = format!("cannot forward to task \"{task}\"");
    let mut doors = Vec::new();
    for ports in &args.ports {
        // A task that is not there, or a user that may not, is told before anybody connects.
        let socket = connect(cluster, task, ports.there, &tried).await?;
        drop(socket);
        let listener = TcpListener::bind((args.address, ports.here)).await;
        let listener = listener
            .map_err(|error| Failure::new(format!("{tried}: port {}: {error}", ports.here)))?;
        let here = listener.local_addr().map_err(|error| Failure::new(error.to_string()))?;
        output::line(&format!("Forwarding from {here} -> {}", ports.there))?;
        doors.push(serve(cluster, task, ports.there, listener));
    }
    match follow::unless_interrupted(futures::future::join_all(doors)).await {
        Ok(_) | Err(Interrupted) => Ok(ExitCode::SUCCESS),
    }
}

async fn connect(cluster: &Cluster, task: &str, port: u16, tried: &str) -> Result<session::Socket> {
    let path = session::path(cluster, task, "portforward", &format!("ports={port}"));
    session::open(cluster, &path, PROTOCOL, tried).await
}

async fn serve(cluster: &Cluster, task: &str, port: u16, listener: TcpListener) {
    let mut open = futures::stream::FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => open.push(carry(cluster, task, port, stream)),
                Err(error) => output::note(&format!("a connection was lost: {error}")),
            },
            Some(carried) = open.next() => {
                let carried: Result<(), String> = carried;
                if let Err(why) = carried {
                    output::note(&why);
                }
            }
        }
    }
}

/// One connection, to its end.
async fn carry(
    cluster: &Cluster,
    task: &str,
    port: u16,
    mut stream: TcpStream,
) -> Result<(), String> {
    let tried = format!("a connection to port {port} failed");
    let socket = connect(cluster, task, port, &tried).await;
    let socket = socket.map_err(|_| format!("{tried}: the server refuses it"))?;
    let (mut sink, mut source) = socket.split();
    let (mut read, mut write) = stream.split();
    let inwards = async {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            if sink.send(session::packed(DATA, &buffer[..length])).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(ANSWER_WITHIN).await;
    };
    let outwards = async {
        // The first message of each channel is the number of its port.
        let mut named = [false; 2];
        while let Some(Ok(message)) = source.next().await {
            let message: Bytes = match message {
                Message::Binary(message) => message,
                Message::Close(_) => break,
                _ => continue,
            };
            let Some((&channel @ (DATA | ERROR), data)) = message.split_first() else { continue };
            if !std::mem::replace(&mut named[usize::from(channel)], true) {
                continue;
            }
            if channel == ERROR {
                return Err(String::from_utf8_lossy(data).into_owned());
            }
            if write.write_all(data).await.is_err() {
                break;
            }
        }
        // Who is gone needs no goodbye.
        let _ = write.shutdown().await;
        Ok(())
    };
    tokio::select! {
        () = inwards => Ok(()),
        done = outwards => done,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ports_are_written_as_kubectl_takes_them() {
        assert_eq!(parse("80").unwrap(), Ports { here: 80, there: 80 });
        assert_eq!(parse("8080:80").unwrap(), Ports { here: 8080, there: 80 });
        assert_eq!(parse(":80").unwrap(), Ports { here: 0, there: 80 });
        for bad in ["", "x", "80:", "0", "1:70000"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
