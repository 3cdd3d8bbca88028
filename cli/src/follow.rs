//! Following objects over time: one stream of what an object is now, through every interruption.

use std::{future::Future, pin::Pin, time::Duration};

use commonage_schemas::Task;
use futures::{Stream, StreamExt};
use kube::{Api, runtime::watcher};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    errors::{Failure, Result, exit},
    output,
};

/// After a failed request to the server; short, because somebody is waiting.
const RETRY: Duration = Duration::from_millis(500);
/// How often a request is tried again before we give up: 20 times 500 ms, enough for a restart.
const RETRIES_MAX: u32 = 20;

pub(crate) type TaskStream = Pin<Box<dyn Stream<Item = Result<Option<Task>>> + Send>>;

/// What a task is, now and after each change; `None` when it does not exist.
pub(crate) fn task(api: Api<Task>, name: &str) -> TaskStream {
    let raw = watcher::watch_object(api, name);
    Box::pin(patiently(raw))
}

/// Goes on after failures, saying so once; gives up when they do not end.
pub(crate) fn patiently<T: Send + 'static>(
    raw: impl Stream<Item = watcher::Result<T>> + Send + 'static,
) -> impl Stream<Item = Result<T>> + Send {
    let start = (Box::pin(raw), 0_u32);
    futures::stream::unfold(Some(start), async |state| {
        let (mut raw, mut failures) = state?;
        loop {
            match raw.next().await? {
                Ok(item) => return Some((Ok(item), Some((raw, 0)))),
                Err(error) if is_final(&error) || failures >= RETRIES_MAX => {
                    return Some((Err(failure(&error)), None));
                }
                Err(_) => {
                    if failures == 1 {
                        output::note("the API server does not answer; trying again");
                    }
                    failures += 1;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    })
}

/// Whether trying again cannot help.
fn is_final(error: &watcher::Error) -> bool {
    let code = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => status.code,
        _ => return false,
    };
    matches!(code, 400..=409 | 422)
}

fn failure(error: &watcher::Error) -> Failure {
    match error {
        watcher::Error::InitialListFailed(inner)
        | watcher::Error::WatchStartFailed(inner)
        | watcher::Error::WatchFailed(inner) => Failure::api("cannot watch", inner),
        watcher::Error::WatchError(status) => Failure::status("cannot watch", status),
        other => Failure::new(format!("cannot watch: {other}")).exit(exit::UNREACHABLE),
    }
}

/// What Ctrl-C leaves behind, and how to come back to it.
pub(crate) struct Interrupted;

/// Runs something until it ends, Ctrl-C is pressed, or this process is told to end in another way: then what the work
/// holds, a terminal in raw mode for instance, is given back.
pub(crate) async fn unless_interrupted<T>(work: impl Future<Output = T>) -> Result<T, Interrupted> {
    tokio::select! {
        done = work => Ok(done),
        () = told_to_end() => Err(Interrupted),
    }
}

async fn told_to_end() {
    let wait = async |kind| match signal(kind) {
        Ok(mut signals) => drop(signals.recv().await),
        // There is nothing to wait for, and the signal ends the process anyway.
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::hangup()) => {}
    }
}

/// Says how to resume, and ends like a program that Ctrl-C ended.
pub(crate) fn resume_with(hints: &[&str]) -> Failure {
    output::note("");
    for hint in hints {
        output::message(output::Tone::Hint, "next:", hint);
    }
    Failure::quiet(exit::INTERRUPTED)
}
