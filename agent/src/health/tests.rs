#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn task(port: u16, spec: serde_json::Value) -> Task {
    let mut task = json!({
        "apiVersion": "commonage.dev/v1",
        "kind": "Task",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u-1"},
        "spec": {"container": {"command": ["x"], "ports": [{"name": "http", "hostPort": port}]}},
    });
    for (key, value) in spec.as_object().unwrap() {
        task["spec"][key] = value.clone();
    }
    serde_json::from_value(task).unwrap()
}

/// Answers every request with the given statuses, the last one for ever.
async fn server(statuses: Vec<u16>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut statuses = statuses.into_iter().peekable();
        let mut last = 200;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            last = statuses.next().unwrap_or(last);
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let answer =
                format!("HTTP/1.1 {last} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

fn fast(probe: serde_json::Value) -> serde_json::Value {
    let mut check = json!({
        "initialDelaySeconds": 0, "periodSeconds": 0.01, "timeoutSeconds": 5,
        "gracePeriodSeconds": 0, "failureThreshold": 2,
    });
    for (key, value) in probe.as_object().unwrap() {
        check[key] = value.clone();
    }
    check
}

/// Runs no commands: each is the code it ends with, or for ever.
#[derive(Default)]
struct Numbered {
    dropped: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Commands for Numbered {
    async fn run(&self, uid: &Uid, command: &[String]) -> Result<(), String> {
        struct Dropped(std::sync::Arc<std::sync::atomic::AtomicBool>);
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.0.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        }
        assert_eq!(uid, "u-1");
        let _dropped = Dropped(self.dropped.clone());
        match command[0].as_str() {
            "0" => Ok(()),
            "for-ever" => std::future::pending().await,
            code => Err(format!("exit code {code}")),
        }
    }
}

#[tokio::test]
async fn a_command_is_a_check() {
    let commands = Numbered::default();
    let dropped = commands.dropped.clone();
    let mut health = fast(json!({"exec": {"command": ["for-ever"]}}));
    health["timeoutSeconds"] = json!(0.01);
    let ready = fast(json!({"exec": {"command": ["0"]}}));
    let (verdicts, mut heard) = mpsc::channel(16);
    let task = task(1, json!({"healthCheck": health, "readinessCheck": ready}));
    let watching = tokio::spawn(watch(task, None, commands, verdicts));
    let mut seen = Vec::new();
    let failed = loop {
        match heard.recv().await.unwrap().1 {
            Verdict::Failed(why) => break why,
            verdict => seen.push(verdict),
        }
    };
    watching.abort();
    assert!(failed.ends_with("command for-ever: no answer within 10ms"), "{failed}");
    use Verdict::{Healthy, Ready};
    for verdict in [Ready(false), Ready(true), Healthy(false)] {
        assert!(seen.contains(&verdict), "{verdict:?} in {seen:?}");
    }
    assert!(dropped.load(std::sync::atomic::Ordering::SeqCst));
}

#[tokio::test]
async fn a_server_that_stops_working_fails_for_good() {
    let port = server(vec![200, 500, 302, 500, 500]).await;
    let task = task(port, json!({"healthCheck": fast(json!({"http": {"path": "/up"}}))}));
    let (verdicts, mut heard) = mpsc::channel(16);
    watch(task, None, Numbered::default(), verdicts).await;
    let mut seen = Vec::new();
    while let Some((uid, verdict)) = heard.recv().await {
        assert_eq!(uid, "u-1");
        seen.push(verdict);
    }
    let Some(Verdict::Failed(why)) = seen.pop() else {
        panic!("{seen:?}");
    };
    assert!(why.contains("2 times") && why.contains("/up: status 500"), "{why}");
    use Verdict::Healthy;
    assert_eq!(seen, [Healthy(true), Healthy(false), Healthy(true), Healthy(false)]);
}

#[tokio::test]
async fn ready_once_the_port_is_open() {
    let port = server(vec![]).await;
    let task = task(port, json!({"readinessCheck": fast(json!({"tcp": {"port": "http"}}))}));
    let (verdicts, mut heard) = mpsc::channel(16);
    let watching = tokio::spawn(watch(task, None, Numbered::default(), verdicts));
    assert_eq!(heard.recv().await.unwrap().1, Verdict::Ready(false));
    assert_eq!(heard.recv().await.unwrap().1, Verdict::Ready(true));
    watching.abort();
}

#[test]
fn failures_in_the_grace_period_do_not_count_until_the_first_success() {
    let start = Instant::now();
    let timing = Timing {
        initial_delay: Duration::ZERO,
        period: Duration::ZERO,
        timeout: Duration::ZERO,
        grace: Duration::from_secs(10),
        threshold: 1,
    };
    let at = |s| start + Duration::from_secs(s);
    let bad = || Err("refused".to_owned());
    let mut judge = Judge::new(Kind::Health, timing, start);
    assert_eq!(judge.hear(bad(), at(1)), []);
    assert_eq!(judge.hear(Ok(()), at(2)), [Verdict::Healthy(true)]);
    assert_eq!(judge.hear(Ok(()), at(3)), []);
    assert_eq!(judge.hear(bad(), at(4)).len(), 2);

    let mut never = Judge::new(Kind::Health, timing, start);
    assert_eq!(never.hear(bad(), at(9)), []);
    assert_eq!(never.hear(bad(), at(10)).len(), 2);
}

#[test]
fn timing_is_that_of_mesos_unless_said_otherwise() {
    let defaults = timing(&Check::default());
    assert_eq!(defaults.initial_delay, Duration::from_secs(15));
    assert_eq!(defaults.period, Duration::from_secs(10));
    assert_eq!(defaults.timeout, Duration::from_secs(20));
    assert_eq!(defaults.grace, Duration::from_secs(10));
    assert_eq!(defaults.threshold, 3);
    let absurd = timing(&Check {
        period_seconds: Some(f64::INFINITY),
        timeout_seconds: Some(-1.0),
        initial_delay_seconds: Some(f64::MAX),
        ..Check::default()
    });
    assert_eq!(absurd.period, Duration::from_secs(10));
    assert_eq!(absurd.timeout, Duration::ZERO);
    assert_eq!(absurd.initial_delay, Duration::from_secs(1_000_000_000));
}
