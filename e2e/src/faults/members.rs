//! An etcd of several members, each of which can be killed, paused, cut off and started again.
//!
//! On loopback ports, or each member in a network namespace of its own, joined by a bridge: then a
//! member can be cut off from everybody at once, as by a cable that is pulled.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::lan::{Harm, Lan};
use super::{free_port, signal};
use crate::eventually;

/// How long one member may take to answer.
const MEMBER_PATIENCE: Duration = Duration::from_secs(5);

/// Where the members live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    Loopback,
    /// Needs root and `ip`.
    Namespaces,
}

#[derive(Debug)]
pub struct Member {
    name: String,
    client: String,
    peer: String,
    namespace: Option<String>,
    arguments: Vec<String>,
    process: Option<Child>,
}

/// Stops and removes everything when dropped.
#[derive(Debug)]
pub struct Members {
    pub members: Vec<Member>,
    lan: Option<Lan>,
    data: TempDir,
}

impl Members {
    /// Starts `count` members and waits until they have a leader.
    pub fn start(count: usize, net: Net) -> anyhow::Result<Members> {
        Members::start_with(count, net, &[])
    }

    /// The same with more arguments for each etcd.
    pub fn start_with(count: usize, net: Net, arguments: &[&str]) -> anyhow::Result<Members> {
        let data = tempfile::Builder::new().prefix("cmn-members-").tempdir()?;
        let lan = match net {
            Net::Loopback => None,
            Net::Namespaces => Some(Lan::make(count)?),
        };
        let mut members = Vec::new();
        for number in 0..count {
            let (host, namespace) = match &lan {
                None => ("127.0.0.1".to_owned(), None),
                Some(lan) => (lan.address(number).to_string(), Some(lan.namespace(number))),
            };
            let (client, peer) = match &lan {
                None => (free_port()?, free_port()?),
                Some(_) => (2379, 2380),
            };
            members.push(Member {
                name: format!("m{number}"),
                client: format!("{host}:{client}"),
                peer: format!("http://{host}:{peer}"),
                namespace,
                arguments: Vec::new(),
                process: None,
            });
        }
        let cluster: Vec<String> =
            members.iter().map(|member| format!("{}={}", member.name, member.peer)).collect();
        for member in &mut members {
            let client = format!("http://{}", member.client);
            let dir = data.path().join(&member.name).to_string_lossy().into_owned();
            let own = [
                ("--name", member.name.clone()),
                ("--data-dir", dir),
                ("--listen-client-urls", client.clone()),
                ("--advertise-client-urls", client),
                ("--listen-peer-urls", member.peer.clone()),
                ("--initial-advertise-peer-urls", member.peer.clone()),
                ("--initial-cluster", cluster.join(",")),
            ];
            member.arguments = own.into_iter().flat_map(|(name, v)| [name.to_owned(), v]).collect();
            member.arguments.extend(arguments.iter().map(|text| (*text).to_owned()));
        }
        let mut members = Members { members, lan, data };
        for number in 0..count {
            members.up(number)?;
        }
        members.wait_for_leader();
        Ok(members)
    }

    /// Starts a member that is not running.
    pub fn up(&mut self, number: usize) -> anyhow::Result<()> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.data.path().join(format!("{number}.log")))?;
        let member = &mut self.members[number];
        let mut command = match &member.namespace {
            None => Command::new("etcd"),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, "etcd"]);
                command
            }
        };
        command.args(&member.arguments).env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        member.process =
            Some(command.spawn().context("start etcd; Debian's package is etcd-server")?);
        Ok(())
    }

    /// `host:port` of each member, for clients.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client.clone()).collect()
    }

    /// For `--store`.
    pub fn store(&self) -> String {
        format!("etcd://{}", self.endpoints().join(","))
    }

    /// Returns when there is a leader that all running members know.
    pub fn wait_for_leader(&self) {
        eventually("etcd to have a leader", || self.leader().ok_or_else(|| self.printed()));
    }

    /// The member that leads, if one can say so.
    pub fn leader(&self) -> Option<usize> {
        (0..self.members.len()).find(|number| {
            let endpoint = &self.members[*number].client;
            let status = ask(endpoint, "/v3/maintenance/status", &json!({})).unwrap_or_default();
            let leader = self::number(&status["leader"]);
            leader != 0 && leader == self::number(&status["header"]["member_id"])
        })
    }

    /// `kill -9`.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut process) = self.members[number].process.take() {
            process.kill().and_then(|()| process.wait()).expect("kill an etcd of ours");
        }
    }

    /// Everything stops, connections stay open.
    pub fn pause(&self, number: usize) {
        self.signal(number, Signal::SIGSTOP);
    }

    pub fn resume(&self, number: usize) {
        self.signal(number, Signal::SIGCONT);
    }

    fn signal(&self, number: usize, what: Signal) {
        if let Some(process) = &self.members[number].process {
            signal(process.id(), what);
        }
    }

    /// Pulls the member's cable, or puts it back. In namespaces only.
    pub fn cut(&self, number: usize, cut: bool) {
        let lan = self.lan.as_ref().expect("members in namespaces can be cut off");
        lan.harm(number, if cut { Harm::Cut } else { Harm::None });
    }

    /// Stops all, does something to their directories, starts them again.
    pub fn offline(&mut self, what: impl FnOnce(&std::path::Path)) -> anyhow::Result<()> {
        (0..self.members.len()).for_each(|number| self.kill(number));
        what(self.data.path());
        for number in 0..self.members.len() {
            self.up(number)?;
        }
        self.wait_for_leader();
        Ok(())
    }

    fn printed(&self) -> String {
        let log = std::fs::read_to_string(self.data.path().join("0.log")).unwrap_or_default();
        log.lines().rev().take(3).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for number in 0..self.members.len() {
            self.resume(number);
            self.kill(number);
        }
    }
}

/// One request to a member, by its JSON gateway: what `etcdctl` would do, which not every machine
/// with an etcd has. Numbers are strings there, keys and values base64.
pub fn ask(endpoint: &str, path: &str, body: &Value) -> Result<Value, String> {
    let answer = request(endpoint, "POST", path, &body.to_string())?;
    serde_json::from_str(&answer).map_err(|error| error.to_string())
}

/// What a member says about itself, as Prometheus' text.
pub fn metrics(endpoint: &str) -> Result<String, String> {
    request(endpoint, "GET", "/metrics", "")
}

fn request(endpoint: &str, method: &str, path: &str, body: &str) -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    let address = endpoint.parse().map_err(|_| format!("{endpoint} is no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, MEMBER_PATIENCE).map_err(text)?;
    stream.set_read_timeout(Some(MEMBER_PATIENCE)).map_err(text)?;
    // As HTTP/1.0 the answer ends with the connection, and is not in chunks.
    let head = format!(
        "{method} {path} HTTP/1.0\r\nhost: {endpoint}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).map_err(text)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(text)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("half an answer")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(answer),
    }
}

/// Base64, as the gateway wants keys and values.
pub fn encoded(bytes: &[u8]) -> Value {
    base64::engine::general_purpose::STANDARD.encode(bytes).into()
}

/// A number that the gateway wrote as text.
pub fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}
