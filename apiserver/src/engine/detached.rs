//! Work that goes on when whoever waits for it has gone.
//!
//! It runs where it is waited for, which costs nothing; only what is left in the middle of it becomes a
//! task of its own.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Tracked from its beginning to its end. Made and dropped within a runtime.
pub(super) struct Detached<F: Future + Send + 'static>
where
    F::Output: Send,
{
    /// `None` while it is polled, and when it has ended (or panicked).
    work: Option<Pin<Box<F>>>,
    token: TaskTrackerToken,
    runtime: Handle,
}

impl<F: Future + Send + 'static> Detached<F>
where
    F::Output: Send,
{
    pub(super) fn new(tracker: &TaskTracker, work: F) -> Detached<F> {
        let work = Some(Box::pin(work));
        Detached { work, token: tracker.token(), runtime: Handle::current() }
    }
}

impl<F: Future + Send + 'static> Future for Detached<F>
where
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut work = self.work.take().expect("it is not polled after its end");
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<F: Future + Send + 'static> Drop for Detached<F>
where
    F::Output: Send,
{
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        let token = self.token.clone();
        self.runtime.spawn(async move {
            work.await;
            drop(token);
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_has_begun_is_finished() {
        let tracker = TaskTracker::new();
        let (go, gone) = oneshot::channel::<()>();
        let (done, did) = oneshot::channel::<()>();
        let mut work = Detached::new(&tracker, async move {
            gone.await.unwrap();
            done.send(()).unwrap();
        });
        assert!((&mut work).now_or_never().is_none());
        tracker.close();
        drop(work);
        assert!(tracker.wait().now_or_never().is_none(), "it is waited for");
        go.send(()).unwrap();
        did.await.unwrap();
        tracker.wait().await;
    }

    #[tokio::test]
    async fn it_runs_where_it_is_waited_for() {
        tokio::task_local!(static HERE: u8);
        let tracker = TaskTracker::new();
        let inside = async { Detached::new(&tracker, async { HERE.get() }).await };
        assert_eq!(HERE.scope(7, inside).await, 7);
        tracker.close();
        tracker.wait().await;
    }
}
