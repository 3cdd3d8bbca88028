//! What is measured: a server of ours with one of its stores, started here, or somebody else's.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use commonage_store::Store;
use commonage_store::embedded::{EmbeddedOptions, EmbeddedStore};
use commonage_store::etcd::{EtcdOptions, EtcdStore};
use tempfile::TempDir;

use crate::client::{Request, Server};

/// A server with a million objects may take this long to come up before it is given up.
const START_TIME_MAX: Duration = Duration::from_secs(120);
/// Time of a process is counted in these, on every Linux that Debian runs on.
const TICK_US: f64 = 10_000.0;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Embedded,
    Etcd,
    Foreign,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Embedded => "embedded",
            Kind::Etcd => "etcd",
            Kind::Foreign => "foreign",
        }
    }
}

/// A child that is killed when the value goes.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> anyhow::Result<Process> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let started = command.spawn();
        Ok(Process(started.with_context(|| format!("start {:?}", command.get_program()))?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(|_| ())) {
            eprintln!("a process was not stopped: {error}");
        }
    }
}

pub(crate) struct Target {
    pub(crate) kind: Kind,
    /// Known once it has run.
    server: Option<Arc<Server>>,
    process: Option<Process>,
    etcd: Option<(Process, String)>,
    /// Of the server, where it is on this machine.
    pids: Vec<u32>,
    port: u16,
    data: Option<TempDir>,
}

/// Processor time used so far, in microseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) server: f64,
    pub(crate) etcd: f64,
    /// Of this process, which makes the load and shares the machine with the others.
    pub(crate) client: f64,
}

impl Cpu {
    /// What was used since `before`, for each of so many.
    pub(crate) fn since(self, before: Cpu, count: u64) -> Cpu {
        let each = |now: f64, then: f64| (now - then) / count.max(1) as f64;
        Cpu {
            server: each(self.server, before.server),
            etcd: each(self.etcd, before.etcd),
            client: each(self.client, before.client),
        }
    }
}

impl Target {
    /// A server of ours with nothing in it.
    pub(crate) async fn start(kind: Kind) -> anyhow::Result<Target> {
        let mut target = Target::prepared(kind)?;
        target.serve().await?;
        Ok(target)
    }

    /// The store of a server that does not run yet.
    fn prepared(kind: Kind) -> anyhow::Result<Target> {
        let data = tempfile::Builder::new().prefix("cmn-bench-").tempdir()?;
        let etcd = match kind {
            Kind::Etcd => Some(start_etcd(&data.path().join("etcd"))?),
            _ => None,
        };
        let (server, process, data) = (None, None, Some(data));
        Ok(Target { kind, server, process, etcd, pids: Vec::new(), port: free_port()?, data })
    }

    /// Somebody else's server. `pids` are its processes, where they are on this machine.
    pub(crate) fn foreign(kubeconfig: &Path, pids: Vec<u32>) -> anyhow::Result<Target> {
        let server = Some(Arc::new(Server::from_kubeconfig(kubeconfig)?));
        let (process, etcd) = (None, None);
        Ok(Target { kind: Kind::Foreign, server, process, etcd, pids, port: 0, data: None })
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.kind != Kind::Foreign
    }

    pub(crate) fn server(&self) -> &Arc<Server> {
        self.server.as_ref().expect("nobody asks before the server has run")
    }

    fn data(&self) -> &Path {
        self.data.as_ref().expect("our servers have a directory").path()
    }

    /// Starts the server on what its store has; how long it took until it was ready.
    pub(crate) async fn serve(&mut self) -> anyhow::Result<Duration> {
        let data = self.data().join("server");
        let store = match &self.etcd {
            Some((_, address)) => format!("etcd://{address}"),
            None => "embedded".to_owned(),
        };
        let started = Instant::now();
        let executable = std::env::var_os("CMN").context("CMN is to be the path of cmn")?;
        let process = Process::start(
            Command::new(executable)
                .args(["apiserver", "--listen", &format!("127.0.0.1:{}", self.port)])
                .args(["--store", &store, "--data-dir"])
                .arg(&data),
        )?;
        self.pids = vec![process.0.id()];
        self.process = Some(process);
        let kubeconfig = data.join("kubeconfig");
        loop {
            if let Some(Process(child)) = &mut self.process
                && let Some(status) = child.try_wait()?
            {
                bail!("the server ended with {status}");
            }
            if kubeconfig.exists()
                && let Ok(server) = Server::from_kubeconfig(&kubeconfig)
            {
                let server = Arc::new(server);
                let ready = server.once(&Request::get("/readyz")).await;
                self.server = Some(server);
                if matches!(ready, Ok((200, _))) {
                    return Ok(started.elapsed());
                }
            }
            if started.elapsed() > START_TIME_MAX {
                bail!("the server is not ready after {} s", START_TIME_MAX.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops the server; its store stays.
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// The store itself, while the server does not run.
    pub(crate) async fn store(&self) -> anyhow::Result<Arc<dyn Store>> {
        Ok(match &self.etcd {
            Some((_, address)) => {
                Arc::new(EtcdStore::connect(EtcdOptions::new([address.clone()])).await?)
            }
            None => {
                let path: PathBuf = self.data().join("server/store");
                Arc::new(EmbeddedStore::open(path, EmbeddedOptions::default())?)
            }
        })
    }

    pub(crate) fn cpu(&self) -> Cpu {
        Cpu {
            server: self.pids.iter().map(|pid| cpu_us(*pid)).sum(),
            etcd: self.etcd.as_ref().map_or(0.0, |(process, _)| cpu_us(process.0.id())),
            client: cpu_us(std::process::id()),
        }
    }

    /// Whether [`Target::cpu`] and [`Target::resident_bytes`] know the server's processes.
    pub(crate) fn is_local(&self) -> bool {
        !self.pids.is_empty()
    }

    pub(crate) fn resident_bytes(&self) -> f64 {
        self.pids.iter().map(|pid| resident_bytes(*pid)).sum()
    }
}

fn start_etcd(data: &Path) -> anyhow::Result<(Process, String)> {
    let (client, peer) = (free_port()?, free_port()?);
    let (client_url, peer_url) =
        (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let process = Process::start(
        Command::new("etcd")
            .arg("--data-dir")
            .arg(data)
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}")])
            // A million objects and their history do not fit into the default of 2 GiB.
            .args(["--quota-backend-bytes", "8589934592"]),
    )?;
    let started = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", client)).is_err() {
        if started.elapsed() > Duration::from_secs(30) {
            bail!("etcd does not listen");
        }
        // Between two looks, until the deadline above.
        #[allow(clippy::disallowed_methods)]
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((process, format!("127.0.0.1:{client}")))
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// User and system time of a process; zero when it is gone.
fn cpu_us(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may have spaces; utime and stime are the 12th and 13th after it.
    let after = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    after.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        * TICK_US
}

fn resident_bytes(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0
}
