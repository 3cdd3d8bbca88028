//! Health and readiness checks of running tasks.
//!
//! One small future per check. It only looks and tells the driver when its verdict changes;
//! killing an unhealthy task is the plan's decision. The timing is Mesos'.

use std::net::{Ipv4Addr, SocketAddr};
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

/// Runs all checks of a task until one fails for good or the future is dropped.
pub(crate) async fn watch(task: Task, verdicts: mpsc::Sender<(Uid, Verdict)>) {
    let spec = &task.spec;
    let uid = crate::plan::uid_of(&task);
    let health =
        repeat(Kind::Health, spec.health_check.as_ref(), &spec.container, (&uid, &verdicts));
    let readiness =
        repeat(Kind::Readiness, spec.readiness_check.as_ref(), &spec.container, (&uid, &verdicts));
    tokio::join!(health, readiness);
}

async fn repeat(
    kind: Kind,
    check: Option<&Check>,
    container: &Container,
    (uid, verdicts): (&Uid, &mpsc::Sender<(Uid, Verdict)>),
) {
    let Some(check) = check else { return };
    let Some(probe) = probe(check, container) else {
        // Refused before the launch; a task of an older agent may still have one.
        return;
    };
    let timing = timing(check);
    let mut judge = Judge::new(kind, timing, Instant::now());
    if kind == Kind::Readiness && tell(uid, verdicts, Verdict::Ready(false)).await.is_err() {
        return;
    }
    tokio::time::sleep(timing.initial_delay).await;
    loop {
        let result = match tokio::time::timeout(timing.timeout, look(&probe)).await {
            Ok(result) => result,
            Err(_) => Err(format!("{probe}: no answer within {:?}", timing.timeout)),
        };
        if let Err(why) = &result {
            tracing::debug!(uid, ?kind, why, "check failed");
        }
        for verdict in judge.hear(result, Instant::now()) {
            let last = matches!(verdict, Verdict::Failed(_));
            if tell(uid, verdicts, verdict).await.is_err() || last {
                return;
            }
        }
        tokio::time::sleep(timing.period).await;
    }
}

async fn tell(
    uid: &Uid,
    verdicts: &mpsc::Sender<(Uid, Verdict)>,
    verdict: Verdict,
) -> Result<(), ()> {
    verdicts.send((uid.clone(), verdict)).await.map_err(|_| ())
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

/// Tasks with checks are on the machine's own network, so its loopback reaches them.
fn probe(check: &Check, container: &Container) -> Option<Probe> {
    let port_name = match (&check.http, &check.tcp) {
        (Some(http), _) => http.port.as_deref(),
        (None, Some(tcp)) => tcp.port.as_deref(),
        (None, None) => return None,
    };
    let port = check_port(container, port_name)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Some(match &check.http {
        Some(http) => {
            Probe::Http { address, path: http.path.clone().unwrap_or_else(|| "/".to_owned()) }
        }
        None => Probe::Tcp { address },
    })
}

async fn look(probe: &Probe) -> Result<(), String> {
    let failed =
        |error: &dyn std::error::Error| format!("{probe}: {}", crate::runtime::describe(error));
    match probe {
        Probe::Tcp { address } => {
            TcpStream::connect(address).await.map_err(|e| failed(&e))?;
            Ok(())
        }
        Probe::Http { address, path } => {
            let stream = TcpStream::connect(address).await.map_err(|e| failed(&e))?;
            let code = get(stream, *address, path).await.map_err(|e| failed(&*e))?;
            match code {
                200..=399 => Ok(()),
                code => Err(format!("{probe}: status {code}")),
            }
        }
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
        }
    }
}

#[cfg(test)]
mod tests;
