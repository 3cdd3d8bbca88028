//! API servers as processes of their own over one store, on ports that stay theirs when they are
//! started again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{free_port, signal};
use crate::process::Role;
use crate::recorder::Server;
use crate::{eventually, soon};

/// Stopped in the end, the data directories removed.
#[derive(Debug)]
pub struct Servers {
    running: Vec<Option<Role>>,
    host: IpAddr,
    ports: Vec<u16>,
    arguments: Vec<String>,
    dir: TempDir,
}

impl Servers {
    /// Starts `count` servers with these arguments, `--store` among them, and waits until they are
    /// ready. They share one authority.
    pub async fn start(count: usize, arguments: &[&str]) -> anyhow::Result<Servers> {
        Servers::prepare(count, arguments)?.started().await
    }

    /// One that listens at another address of this machine.
    pub async fn start_at(host: IpAddr, arguments: &[&str]) -> anyhow::Result<Servers> {
        let mut servers = Servers::prepare(1, arguments)?;
        servers.host = host;
        servers.started().await
    }

    /// Chooses ports and directories, and starts nothing.
    pub fn prepare(count: usize, arguments: &[&str]) -> anyhow::Result<Servers> {
        let dir = tempfile::Builder::new().prefix("cmn-servers-").tempdir()?;
        let ports = (0..count).map(|_| free_port()).collect::<anyhow::Result<Vec<u16>>>()?;
        let arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
        let running = (0..count).map(|_| None).collect();
        Ok(Servers { running, host: Ipv4Addr::LOCALHOST.into(), ports, arguments, dir })
    }

    async fn started(mut self) -> anyhow::Result<Servers> {
        for number in 0..self.ports.len() {
            if number > 0 {
                // Where they are told apart by name and not by authority, clients can go anywhere.
                copy_files(&self.data_dir(0).join("pki"), &self.data_dir(number).join("pki"))?;
            }
            self.up(number)?;
            self.ready(number).await?;
        }
        Ok(self)
    }

    /// Starts a server that is not running; does not wait.
    pub fn up(&mut self, number: usize) -> anyhow::Result<()> {
        let listen = self.address(number).to_string();
        let data = self.data_dir(number).to_string_lossy().into_owned();
        let mut arguments = vec!["apiserver", "--listen", &listen, "--data-dir", &data];
        arguments.extend(self.arguments.iter().map(String::as_str));
        let role = Role::start(&self.dir.path().join(format!("{number}.log")), &arguments)?;
        self.running[number] = Some(role);
        Ok(())
    }

    /// Returns when the server says that it is ready.
    pub async fn ready(&self, number: usize) -> anyhow::Result<()> {
        eventually("the kubeconfig", || match self.kubeconfig(number).exists() {
            true => Ok(()),
            false => Err(self.printed(number)),
        });
        let server = self.server(number).await?;
        soon("an API server to be ready", async || {
            match server.ask(http::Method::GET, "/readyz", None).await {
                Ok((status, _)) if status.is_success() => Ok(()),
                other => Err(format!("{other:?}\n{}", self.printed(number))),
            }
        })
        .await;
        Ok(())
    }

    pub fn data_dir(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("data-{number}"))
    }

    /// The administrator's.
    pub fn kubeconfig(&self, number: usize) -> PathBuf {
        self.data_dir(number).join("kubeconfig")
    }

    pub fn address(&self, number: usize) -> SocketAddr {
        SocketAddr::new(self.host, self.ports[number])
    }

    pub fn pid(&self, number: usize) -> u32 {
        self.running[number].as_ref().map_or(0, Role::pid)
    }

    /// What the server printed since it was started last.
    pub fn printed(&self, number: usize) -> String {
        self.running[number].as_ref().map_or(String::new(), Role::printed)
    }

    /// The administrator as a client of one server.
    pub async fn server(&self, number: usize) -> anyhow::Result<Server> {
        let url = format!("https://{}", self.address(number));
        Server::connect(&self.kubeconfig(number), Some(&url)).await
    }

    /// The same by way of somebody else, a proxy.
    pub async fn server_by(&self, number: usize, way: SocketAddr) -> anyhow::Result<Server> {
        Server::connect(&self.kubeconfig(number), Some(&format!("https://{way}"))).await
    }

    /// Clients of all servers.
    pub async fn all(&self) -> anyhow::Result<Vec<Server>> {
        let mut all = Vec::new();
        for number in 0..self.ports.len() {
            all.push(self.server(number).await?);
        }
        Ok(all)
    }

    /// Its exit code, if it has ended by itself.
    pub fn ended(&mut self, number: usize) -> Option<i32> {
        self.running[number].as_mut().and_then(Role::ended)
    }

    /// `kill -9`.
    pub fn kill(&mut self, number: usize) {
        if let Some(role) = self.running[number].take() {
            role.kill();
        }
    }

    /// As a service manager would; returns the exit code.
    pub fn stop(&mut self, number: usize) -> i32 {
        self.running[number].take().map_or(0, |mut role| role.stop())
    }

    pub fn signal(&self, number: usize, what: nix::sys::signal::Signal) {
        signal(self.pid(number), what);
    }
}

/// All but those that are not written to their ends yet, whose names begin with a dot: the first server may
/// still be making certificates.
fn copy_files(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
    for file in std::fs::read_dir(from)? {
        let file = file?;
        let name = file.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        match file.file_type()?.is_dir() {
            true => copy_files(&file.path(), &to.join(name))?,
            false => drop(std::fs::copy(file.path(), to.join(name))?),
        }
    }
    Ok(())
}
