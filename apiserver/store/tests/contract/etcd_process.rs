//! A real etcd of one member, in a temporary directory, on free ports, killed when it is dropped.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// How long etcd may take to begin to serve.
const START_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct EtcdProcess {
    dir: tempfile::TempDir,
    client_port: u16,
    peer_port: u16,
    extra: Vec<String>,
    child: Child,
}

impl EtcdProcess {
    pub(crate) fn start() -> EtcdProcess {
        EtcdProcess::start_with(&[])
    }

    /// With further options. With a certificate among them it serves by TLS.
    pub(crate) fn start_with(extra: &[&str]) -> EtcdProcess {
        let extra: Vec<String> = extra.iter().map(|&option| option.to_owned()).collect();
        let dir = tempfile::tempdir().unwrap();
        // Somebody else may take a port between our looking and etcd's binding: look again.
        for _ in 0..5 {
            let (client_port, peer_port) = free_ports();
            if let Some(child) = spawn(dir.path(), client_port, peer_port, &extra) {
                return EtcdProcess { dir, client_port, peer_port, extra, child };
            }
        }
        panic!("etcd does not start; is it installed?");
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// Without a chance to finish anything.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// After `kill`, on the same directory and ports.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(self.dir.path(), self.client_port, self.peer_port, &self.extra).unwrap();
    }
}

impl Drop for EtcdProcess {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_ports() -> (u16, u16) {
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (client, peer) = (bind(), bind());
    (client.local_addr().unwrap().port(), peer.local_addr().unwrap().port())
}

/// Returns when etcd serves clients; `None` if it gave up.
fn spawn(
    dir: &std::path::Path,
    client_port: u16,
    peer_port: u16,
    extra: &[String],
) -> Option<Child> {
    let secure = extra.iter().any(|option| option == "--cert-file");
    let scheme = if secure { "https" } else { "http" };
    let client = format!("{scheme}://127.0.0.1:{client_port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    let mut child = Command::new("etcd")
        .arg("--data-dir")
        .arg(dir.join("etcd"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .args(extra)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("etcd is installed");
    let stderr = child.stderr.take().unwrap();
    let (serves, served) = mpsc::sync_channel(1);
    // Reads on to the end, so that etcd never waits for its log to be read.
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if line.contains("client requests") {
                let _ = serves.try_send(());
            }
        }
    });
    match served.recv_timeout(START_DEADLINE) {
        Ok(()) => Some(child),
        Err(outcome) => {
            assert_eq!(outcome, RecvTimeoutError::Disconnected, "etcd started, but never served");
            child.wait().unwrap();
            None
        }
    }
}
