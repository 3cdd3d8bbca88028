//! Health and readiness checks of running tasks.
//!
//! One small future per check. It only looks and tells the driver when its verdict changes;
//! killing an unhealthy task is the plan's decision. The timing is Mesos'.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use commonage_schemas::Task;
use commonage_schemas::task::{Check, Container};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::ledger::Uid;
use crate::task::spec::check_port;

/// Mesos' defaults, in seconds.
const INITIAL_DELAY_S: f64 = 15.0;
const PERIOD_S: f64 = 10.0;
const TIMEOUT_S: f64 = 20.0;
const GRACE_PERIOD_S: f64 = 10.0;
const FAILURE_THRESHOLD: i32 = 3;
/// Checks are never closer together than this, whatever the spec says.
const PERIOD_SHORTEST: Duration = Duration::from_millis(10);
/// No time in a spec is longer than this; it keeps the arithmetic of instants in range.
const LONGEST_S: f64 = 1e9;

/// A verdict that has changed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Healthy(bool),
    /// Unhealthy for good: the task is to be killed. In words.
    Failed(String),
    Ready(bool),
}

/// What one check looks at.
#[derive(Clone, Debug, PartialEq)]
enum Probe {
    Http { address: SocketAddr, path: String },
    Tcp { address: SocketAddr },
    Exec { command: Vec<String> },
}

/// Runs the commands of checks; in tests something else does.
pub trait Commands: Send + Sync {
    /// Runs one in a task's container to its end; what is wrong with it if that is not 0.
    /// Dropped, it is killed.
    fn run(&self, uid: &Uid, command: &[String])
    -> impl Future<Output = Result<(), String>> + Send;
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Health,
    Readiness,
}

#[derive(Clone, Copy, Debug)]
struct Timing {
    initial_delay: Duration,
    period: Duration,
    timeout: Duration,
    grace: Duration,
    threshold: i32,
}

/// Whose checks, how commands are run there, and who hears the verdicts.
struct Watched<C> {
    uid: Uid,
    container: Container,
    address: IpAddr,
    commands: C,
    verdicts: mpsc::Sender<(Uid, Verdict)>,
}

/// Runs all checks of a task until one fails for good or the future is dropped. `address` is that of the task's own
/// network; without one its ports are the machine's.
pub(crate) async fn watch(
    task: Task,
    address: Option<IpAddr>,
    commands: impl Commands,
    verdicts: mpsc::Sender<(Uid, Verdict)>,
) {
    let uid = crate::plan::uid_of(&task);
    let spec = task.spec;
    let address = address.unwrap_or(Ipv4Addr::LOCALHOST.into());
    let watched = Watched { uid, container: spec.container, address, commands, verdicts };
    let health = watched.repeat(Kind::Health, spec.health_check.as_ref());
    let readiness = watched.repeat(Kind::Readiness, spec.readiness_check.as_ref());
    tokio::join!(health, readiness);
}

impl<C: Commands> Watched<C> {
    async fn repeat(&self, kind: Kind, check: Option<&Check>) {
        let Some(check) = check else { return };
        let Some(probe) = probe(check, &self.container, self.address) else {
            // Refused before the launch; a task of an older agent may still have one.
            return;
        };
        let timing = timing(check);
        let mut judge = Judge::new(kind, timing, Instant::now());
        if kind == Kind::Readiness && self.tell(Verdict::Ready(false)).await.is_err() {
            return;
        }
        tokio::time::sleep(timing.initial_delay).await;
        loop {
            let result = match tokio::time::timeout(timing.timeout, self.look(&probe)).await {
                Ok(result) => result,
                Err(_) => Err(format!("{probe}: no answer within {:?}", timing.timeout)),
            };
            if let Err(why) = &result {
                tracing::debug!(uid = self.uid, ?kind, why, "check failed");
            }
            for verdict in judge.hear(result, Instant::now()) {
                let last = matches!(verdict, Verdict::Failed(_));
                if self.tell(verdict).await.is_err() || last {
                    return;
                }
            }
            tokio::time::sleep(timing.period).await;
        }
    }

    async fn tell(&self, verdict: Verdict) -> Result<(), ()> {
        self.verdicts.send((self.uid.clone(), verdict)).await.map_err(|_| ())
    }

    async fn look(&self, probe: &Probe) -> Result<(), String> {
        match probe {
            Probe::Exec { command } => {
                let run = self.commands.run(&self.uid, command).await;
                run.map_err(|why| format!("{probe}: {why}"))
            }
            Probe::Http { address, path } => look_http(probe, *address, path).await,
            Probe::Tcp { address } => connect(probe, *address).await.map(drop),
        }
    }
}

/// Turns results into verdicts; pure.
#[derive(Debug)]
struct Judge {
    kind: Kind,
    threshold: i32,
    grace_until: Instant,
    failures: i32,
    good: Option<bool>,
}

impl Judge {
    fn new(kind: Kind, timing: Timing, started: Instant) -> Judge {
        Judge {
            kind,
            threshold: timing.threshold,
            grace_until: started + timing.grace,
            failures: 0,
            good: None,
        }
    }

    fn hear(&mut self, result: Result<(), String>, now: Instant) -> Vec<Verdict> {
        let why = match result {
            Ok(()) => {
                self.failures = 0;
                return self.change(true);
            }
            // As in Mesos, the grace period is over with the first success.
            Err(_) if now < self.grace_until && self.good.is_none() => return Vec::new(),
            Err(why) => why,
        };
        self.failures += 1;
        let exhausted = self.failures >= self.threshold;
        match self.kind {
            Kind::Readiness if !exhausted => Vec::new(),
            Kind::Readiness => self.change(false),
            Kind::Health => {
                let mut verdicts = self.change(false);
                if exhausted {
                    verdicts.push(Verdict::Failed(format!(
                        "the health check failed {} times in a row, at last: {why}",
                        self.failures
                    )));
                }
                verdicts
            }
        }
    }

    fn change(&mut self, good: bool) -> Vec<Verdict> {
        if self.good == Some(good) {
            return Vec::new();
        }
        self.good = Some(good);
        vec![match self.kind {
            Kind::Health => Verdict::Healthy(good),
            Kind::Readiness => Verdict::Ready(good),
        }]
    }
}

fn timing(check: &Check) -> Timing {
    let seconds = |value: Option<f64>, default: f64| {
        let value = value.filter(|v| v.is_finite()).unwrap_or(default);
        Duration::from_secs_f64(value.clamp(0.0, LONGEST_S))
    };
    Timing {
        initial_delay: seconds(check.initial_delay_seconds, INITIAL_DELAY_S),
        period: seconds(check.period_seconds, PERIOD_S).max(PERIOD_SHORTEST),
        timeout: seconds(check.timeout_seconds, TIMEOUT_S),
        grace: seconds(check.grace_period_seconds, GRACE_PERIOD_S),
        threshold: check.failure_threshold.unwrap_or(FAILURE_THRESHOLD).max(1),
    }
}

fn probe(check: &Check, container: &Container, address: IpAddr) -> Option<Probe> {
    if let Some(exec) = &check.exec {
        return Some(Probe::Exec { command: exec.command.clone() });
    }
    let port_name = match (&check.http, &check.tcp) {
        (Some(http), _) => http.port.as_deref(),
        (None, Some(tcp)) => tcp.port.as_deref(),
        (None, None) => return None,
    };
    let port = check_port(container, port_name)?;
    let address = SocketAddr::from((address, port));
    Some(match &check.http {
        Some(http) => {
            Probe::Http { address, path: http.path.clone().unwrap_or_else(|| "/".to_owned()) }
        }
        None => Probe::Tcp { address },
    })
}

async fn connect(probe: &Probe, address: SocketAddr) -> Result<TcpStream, String> {
    let connected = TcpStream::connect(address).await;
    connected.map_err(|error| format!("{probe}: {}", crate::runtime::describe(&error)))
}

async fn look_http(probe: &Probe, address: SocketAddr, path: &str) -> Result<(), String> {
    let stream = connect(probe, address).await?;
    match get(stream, address, path).await {
        Ok(200..=399) => Ok(()),
        Ok(code) => Err(format!("{probe}: status {code}")),
        Err(error) => Err(format!("{probe}: {}", crate::runtime::describe(&*error))),
    }
}

async fn get(
    stream: TcpStream,
    address: SocketAddr,
    path: &str,
) -> Result<u16, Box<dyn std::error::Error + Send + Sync>> {
    let request = http::Request::get(path)
        .header(http::header::HOST, address.to_string())
        .header(http::header::USER_AGENT, "commonage-agent")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut response = std::pin::pin!(sender.send_request(request));
    let response = tokio::select! {
        response = &mut response => response,
        // The answer may have come together with the end of the connection.
        _ended = connection => response.await,
    };
    Ok(response?.status().as_u16())
}

impl std::fmt::Display for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Probe::Http { address, path } => write!(f, "GET http://{address}{path}"),
            Probe::Tcp { address } => write!(f, "connect to {address}"),
            Probe::Exec { command } => write!(f, "command {}", command.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests;
