//! The end of a server, as its connections hear of it. Each is looked at with every wake-up of its
//! connection: that takes one atomic read and no lock that they all share.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};

use tokio::sync::watch;
use tokio::task::unconstrained;

/// Dropped, it tells every [`Stop`].
pub(super) struct Stopping(watch::Sender<()>);

#[derive(Clone)]
pub(super) struct Stop(watch::Receiver<()>);

pub(super) fn stopping() -> (Stopping, Stop) {
    let (sender, receiver) = watch::channel(());
    (Stopping(sender), Stop(receiver))
}

impl Stopping {
    pub(super) fn stop(self) {
        drop(self.0);
    }
}

impl Stop {
    /// What `work` comes to; `None` when the server stops before.
    pub(super) async fn or<F: Future>(&self, mut work: Pin<&mut F>) -> Option<F::Output> {
        let mut receiver = self.0.clone();
        // Not put off for a task that has had its share of work: it has to be registered.
        let mut told = pin!(unconstrained(receiver.changed()));
        // Who is woken already need not be registered again.
        let mut registered: Option<Waker> = None;
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            if self.0.has_changed().is_err() {
                return Poll::Ready(None);
            }
            if !registered.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                // Only the sender's end changes anything.
                if told.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                registered = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn who_waits_hears_of_the_end() {
        let (stopping, stop) = stopping();
        let (done, wait) = oneshot::channel();
        assert_eq!(stop.or(pin!(async { 1 })).await, Some(1));
        let waits = tokio::spawn({
            let stop = stop.clone();
            async move { stop.or(pin!(wait)).await }
        });
        assert!(stop.or(pin!(std::future::pending::<()>())).now_or_never().is_none());
        tokio::task::yield_now().await;
        stopping.stop();
        assert!(waits.await.is_ok_and(|done| done.is_none()));
        assert!(done.send(()).is_err());
        assert_eq!(stop.or(pin!(std::future::pending::<()>())).await, None);
        assert_eq!(stop.or(pin!(async { 2 })).await, Some(2), "what is done is done");
    }
}
