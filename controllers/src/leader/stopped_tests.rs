//! A leader that is stopped for longer than its deadline, in the middle of the request that renews its Lease. The
//! runtime of these tests has one thread: an API that blocks it stops the leader and its clock's timers alike.

use std::{
    future::pending,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

const RENEW_DEADLINE: Duration = Duration::from_secs(1);
const RETRY_PERIOD: Duration = Duration::from_millis(400);
/// Longer than what is left of the deadline, and two periods.
const STOPPED_FOR: Duration = Duration::from_secs(2);

/// What the API answers to a renewal.
#[derive(Clone, Copy)]
enum Renewal {
    /// Yes.
    Granted,
    /// Nothing, ever.
    Unanswered,
    /// Nothing, and the process is stopped meanwhile.
    Stopped,
    /// Another one has written to the Lease, and leads.
    Overtaken,
}

/// An API whose answers to renewals are these, the last of them for ever; and how many it was asked for.
fn api(renewals: &'static [Renewal]) -> (Leases, Arc<AtomicUsize>) {
    let (client, asked) = client(renewals);
    (Leases::new(client, election(false)), asked)
}

fn client(renewals: &'static [Renewal]) -> (Client, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let count = count.clone();
        async move {
            let now = count.load(Relaxed);
            let last = renewals[now.saturating_sub(1).min(renewals.len() - 1)];
            let overtaken = now > 0 && matches!(last, Renewal::Overtaken);
            let answer = match *request.method() {
                Method::GET if now == 0 => refusal(StatusCode::NOT_FOUND),
                Method::GET if overtaken => lease("another", 1),
                Method::PUT => {
                    count.fetch_add(1, Relaxed);
                    match renewals[now.min(renewals.len() - 1)] {
                        Renewal::Granted => lease("us", 0),
                        Renewal::Unanswered => pending().await,
                        Renewal::Stopped => {
                            stop_everything();
                            pending().await
                        }
                        Renewal::Overtaken => refusal(StatusCode::CONFLICT),
                    }
                }
                _ => lease("us", 0),
            };
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    (Client::new(service, "n"), asked)
}

fn election(rejoin: bool) -> Election {
    Election {
        namespace: "n".into(),
        name: "l".into(),
        identity: "us".into(),
        lease_duration: Duration::from_secs(15),
        renew_deadline: RENEW_DEADLINE,
        retry_period: RETRY_PERIOD,
        rejoin,
    }
}

// It blocks this thread, and with it everything: that is what it is for.
#[allow(clippy::disallowed_methods)]
fn stop_everything() {
    std::thread::sleep(STOPPED_FOR);
}

fn lease(holder: &str, transitions: i32) -> Response<Body> {
    response(
        StatusCode::OK,
        &json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "l", "namespace": "n", "uid": "u", "resourceVersion": "1"},
            "spec": {"holderIdentity": holder, "leaseTransitions": transitions},
        }),
    )
}

fn refusal(code: StatusCode) -> Response<Body> {
    let reason = if code == StatusCode::NOT_FOUND { "NotFound" } else { "Conflict" };
    let body = json!({
        "kind": "Status", "status": "Failure", "message": "no", "reason": reason, "code": code.as_u16(),
    });
    response(code, &body)
}

fn response(code: StatusCode, body: &Value) -> Response<Body> {
    Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap()
}

async fn leads(leases: &Leases) -> Term {
    leases.try_take(&mut Seen::default()).await.unwrap().expect("nobody else leads")
}

#[tokio::test]
async fn a_leader_that_was_stopped_while_it_asked_asks_once_more() {
    let (leases, asked) = api(&[Renewal::Stopped, Renewal::Granted, Renewal::Unanswered]);
    let mut term = leads(&leases).await;
    let end = keep(&leases, &mut term).await;
    assert!(matches!(end, End::Unrenewed));
    // The second was granted: its deadline began anew.
    assert!(asked.load(Relaxed) >= 3, "{asked:?}");
}

#[tokio::test]
async fn a_leader_that_was_deposed_while_it_was_stopped_learns_that() {
    let (leases, _) = api(&[Renewal::Stopped, Renewal::Overtaken]);
    let mut term = leads(&leases).await;
    let end = keep(&leases, &mut term).await;
    assert!(matches!(end, End::Deposed));
}

#[tokio::test]
async fn a_leader_that_nobody_answers_gives_up() {
    let (leases, asked) = api(&[Renewal::Unanswered]);
    let mut term = leads(&leases).await;
    let end = keep(&leases, &mut term).await;
    assert!(matches!(end, End::Unrenewed));
    assert!(asked.load(Relaxed) >= 1, "{asked:?}");
}

#[tokio::test]
async fn a_leader_that_is_deposed_ends_or_stands_again_as_it_was_told() {
    let (deposed, _) = client(&[Renewal::Overtaken]);
    let shutdown = CancellationToken::new();
    let ended = run(deposed, Settings::default(), election(false), shutdown.clone()).await;
    assert!(ended.unwrap_err().to_string().contains("another process leads"));

    let (deposed, asked) = client(&[Renewal::Overtaken]);
    let standing = run(deposed, Settings::default(), election(true), shutdown.clone());
    let mut standing = pin!(standing);
    while asked.load(Relaxed) == 0 {
        assert!(timeout(RETRY_PERIOD, &mut standing).await.is_err(), "it ended");
    }
    // It has been told that another one leads, and goes on all the same.
    assert!(timeout(RETRY_PERIOD * 2, &mut standing).await.is_err(), "it ended");
    shutdown.cancel();
    timeout(Duration::from_secs(60), standing).await.expect("it stops").unwrap();
}
