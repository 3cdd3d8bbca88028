//! `cmn port-forward`: ports here that lead to ports of a running task.

use std::{process::ExitCode, time::Duration};

use bytes::Bytes;
use clap::Args as ClapArgs;
use commonage_schemas::{Task, task::ContainerPort};
use futures::{SinkExt, StreamExt};
use kube::Api;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    errors::{Failure, Result},
    follow::{self, Interrupted},
    kubeconfig::Cluster,
    output,
    session::{self, Door},
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
  cmn port-forward web :80        any free port here; it is printed
  cmn port-forward web 8080:http  by the name that the port has in the task")]
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

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ports {
    /// `None`: the same as there.
    here: Option<u16>,
    there: There,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum There {
    Number(u16),
    Name(String),
}

fn parse(text: &str) -> Result<Ports, String> {
    let here = |text: &str| text.parse().map_err(|_| format!("{text:?} is no port"));
    let (here, there) = match text.split_once(':') {
        None => (None, text),
        Some(("", there)) => (Some(0), there),
        Some((number, there)) => (Some(here(number)?), there),
    };
    let is_number = !there.is_empty() && there.bytes().all(|byte| byte.is_ascii_digit());
    let there = match there.parse() {
        Ok(0) => return Err("port 0 of a task is none".to_owned()),
        Ok(number) => There::Number(number),
        Err(_) if there.is_empty() || is_number => return Err(format!("{there:?} is no port")),
        Err(_) => There::Name(there.to_owned()),
    };
    Ok(Ports { here, there })
}

/// The number of a port that the task has given this name, as kubectl finds it: whatever the case.
fn find(task: &Task, name: &str) -> Result<u16, String> {
    let ports = &task.spec.container.ports;
    let is_it = |port: &&ContainerPort| {
        port.name.as_deref().is_some_and(|has| has.eq_ignore_ascii_case(name))
    };
    let Some(port) = ports.iter().find(is_it) else {
        let names: Vec<&str> = ports.iter().filter_map(|port| port.name.as_deref()).collect();
        return Err(match names.is_empty() {
            true => format!("it has no port called {name:?}, and none with a name"),
            false => format!("it has no port called {name:?}, but {}", names.join(", ")),
        });
    };
    // Inside a network of its own the task listens on another port than the machine.
    let is_apart = task.spec.container.network.as_deref().is_some_and(|network| network != "Host");
    let inside = port.container_port.filter(|_| is_apart).unwrap_or(port.host_port);
    match u16::try_from(inside) {
        Ok(0) | Err(_) => {
            Err(format!("port {name:?} has no number yet: the task waits for its resources"))
        }
        Ok(number) => Ok(number),
    }
}

pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<ExitCode> {
    let task = session::task_name(&args.task)?;
    let tried = format!("cannot forward to task \"{task}\"");
    let mut doors = Vec::new();
    for ports in &args.ports {
        let there = match &ports.there {
            There::Number(number) => *number,
            There::Name(name) => {
                let api = Api::<Task>::namespaced(cluster.client.clone(), &cluster.namespace);
                let found = api.get(task).await.map_err(|error| Failure::api(&tried, &error))?;
                find(&found, name).map_err(|why| Failure::new(format!("{tried}: {why}")))?
            }
        };
        let here = ports.here.unwrap_or(there);
        // A task that is not there, or a user that may not, is told before anybody connects.
        let socket = connect(cluster, task, there, &tried).await?;
        drop(socket);
        let listener = TcpListener::bind((args.address, here)).await;
        let listener =
            listener.map_err(|error| Failure::new(format!("{tried}: port {here}: {error}")))?;
        let here = listener.local_addr().map_err(|error| Failure::new(error.to_string()))?;
        output::line(&format!("Forwarding from {here} -> {there}"))?;
        doors.push(serve(cluster, task, there, listener));
    }
    match follow::unless_interrupted(futures::future::join_all(doors)).await {
        Ok(_) | Err(Interrupted) => Ok(ExitCode::SUCCESS),
    }
}

async fn connect(cluster: &Cluster, task: &str, port: u16, tried: &str) -> Result<session::Socket> {
    let query = format!("ports={port}");
    let door = Door { cluster, task, subresource: "portforward", query: &query, tried };
    session::open(door, PROTOCOL).await
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
        let ports = |here, there| Ports { here, there };
        assert_eq!(parse("80").unwrap(), ports(None, There::Number(80)));
        assert_eq!(parse("8080:80").unwrap(), ports(Some(8080), There::Number(80)));
        assert_eq!(parse(":80").unwrap(), ports(Some(0), There::Number(80)));
        assert_eq!(parse("http").unwrap(), ports(None, There::Name("http".to_owned())));
        assert_eq!(parse(":http").unwrap(), ports(Some(0), There::Name("http".to_owned())));
        for bad in ["", "80:", ":", "0", "1:70000", "x:80", "70000", ":0"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_ports_are_the_tasks_own() {
        let task = |network: &str| -> Task {
            serde_json::from_value(serde_json::json!({
                "apiVersion": "commonage.dev/v1", "kind": "Task", "metadata": {"name": "t"},
                "spec": {"container": {"network": network, "ports": [
                    {"name": "WEB", "containerPort": 80, "hostPort": 31007}, {"name": "later"},
                ]}},
            }))
            .unwrap()
        };
        assert_eq!(find(&task("Host"), "web"), Ok(31_007));
        assert_eq!(find(&task("bridge"), "WEB"), Ok(80));
        assert!(find(&task("Host"), "later").unwrap_err().contains("no number yet"));
        assert!(find(&task("Host"), "db").unwrap_err().ends_with("but WEB, later"));
    }
}
