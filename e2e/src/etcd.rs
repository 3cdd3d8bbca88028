//! A real etcd of its own, for as long as the value lives.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use anyhow::Context;
use tempfile::TempDir;

use crate::eventually;

#[derive(Debug)]
pub struct Etcd {
    process: Child,
    data: TempDir,
    address: String,
}

impl Etcd {
    /// Starts one member on free ports of the loopback address and waits until it answers.
    pub fn start() -> anyhow::Result<Etcd> {
        Etcd::start_at(free_address()?)
    }

    /// The same at this address for clients.
    pub fn start_at(address: String) -> anyhow::Result<Etcd> {
        let data = tempfile::Builder::new().prefix("cmn-etcd-").tempdir()?;
        let peer = free_address()?;
        let client_url = format!("http://{address}");
        let peer_url = format!("http://{peer}");
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start etcd; Debian's package is etcd-server")?;
        eventually("etcd to listen", || {
            std::net::TcpStream::connect(&address).map(|_| ()).map_err(|error| error.to_string())
        });
        Ok(Etcd { process, data, address })
    }

    /// `host:port` for clients.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether these bytes are in any of its files: every write is in its log before it is answered.
    pub fn has_written(&self, bytes: &[u8]) -> bool {
        let mut left = vec![self.data.path().to_owned()];
        while let Some(path) = left.pop() {
            // A file may be renamed meanwhile.
            if let Ok(entries) = std::fs::read_dir(&path) {
                left.extend(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())));
            } else if let Ok(content) = std::fs::read(&path)
                && memchr::memmem::find(&content, bytes).is_some()
            {
                return true;
            }
        }
        false
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait().map(|_| ())) {
            eprintln!("etcd was not stopped: {error}");
        }
    }
}

/// An address that nobody listens on at this moment.
pub fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
