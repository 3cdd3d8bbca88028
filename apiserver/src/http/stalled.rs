//! Streams of HTTP/2 whose client takes nothing of its answer.
//!
//! Such a stream's window is closed while its connection goes on, so that the socket never stalls
//! ([`super::patience`] sees nothing), and hyper asks a body for more only when there is room for it:
//! the body would wait, and hold what it shows, as long as the connection lives. So whoever runs the
//! stream looks at the clock instead. A stream that is given up is reset (`CANCEL`); the others of its
//! connection go on.
//!
//! A watch that has handed over everything before its window closed looks like a quiet one from here:
//! what it can hold is bounded by its queue, which the cache closes when it is full, and it ends with
//! its connection.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use super::metrics::Metrics;

thread_local! {
    /// Of the stream that this thread is running now.
    static RUNNING: RefCell<Option<Arc<Turn>>> = const { RefCell::new(None) };
}

/// Since when it is the client's turn: it has been given something and has not come for more.
#[derive(Default)]
struct Turn(Mutex<Option<Instant>>);

/// Runs the streams of a connection, and gives up those whose clients take nothing for so long.
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) stall_time_max: Duration,
    pub(super) metrics: Arc<Metrics>,
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        tokio::spawn(Guarded {
            stream: Box::pin(stream),
            turn: Arc::default(),
            timer: None,
            of: self.clone(),
        });
    }
}

struct Guarded<F> {
    stream: Pin<Box<F>>,
    turn: Arc<Turn>,
    /// Made for the first answer that goes out.
    timer: Option<Pin<Box<Sleep>>>,
    of: Streams,
}

impl<F: Future> Future for Guarded<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let before = RUNNING.replace(Some(self.turn.clone()));
        let polled = self.stream.as_mut().poll(cx);
        RUNNING.set(before);
        if polled.is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = *self.turn.0.lock() else { return Poll::Pending };
        let until = since + self.of.stall_time_max;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        std::task::ready!(timer.as_mut().poll(cx));
        self.of.metrics.streams_reset.fetch_add(1, Relaxed);
        // Dropped with what it is sending, the stream is reset.
        Poll::Ready(())
    }
}

/// The answer, which tells the stream that it is sent on whose turn it is.
pub(super) fn noted(response: Response<Body>) -> Response<Body> {
    match RUNNING.with_borrow(Clone::clone) {
        Some(turn) => response.map(|body| Body::new(Noted { body, turn })),
        None => response,
    }
}

struct Noted {
    body: Body,
    turn: Arc<Turn>,
}

impl HttpBody for Noted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        *self.turn.0.lock() = match &polled {
            Poll::Ready(Some(Ok(_))) => Some(Instant::now()),
            _ => None,
        };
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http_body_util::BodyExt;
    use hyper::rt::Executor;
    use tokio::sync::oneshot;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    /// Runs a stream that takes one piece of an answer of two and then does `then`; whether it was
    /// given up.
    async fn given_up<F>(stall_time_max: Duration, then: fn(Body) -> F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (ended, end) = oneshot::channel();
        Streams { stall_time_max, metrics: Arc::default() }.execute(async move {
            let pieces = ["a", "b"].map(Ok::<_, std::convert::Infallible>);
            let body = Body::from_stream(futures::stream::iter(pieces));
            let mut body = noted(Response::new(body)).into_body();
            body.frame().await.unwrap().unwrap();
            then(body).await;
            let _ = ended.send(());
        });
        end.await.is_err()
    }

    #[tokio::test]
    async fn who_takes_nothing_is_given_up() {
        assert!(given_up(SOON, |_body| std::future::pending()).await);
    }

    #[tokio::test]
    async fn who_takes_is_not() {
        let long = Duration::from_secs(60);
        assert!(
            !given_up(long, |mut body| async move { while body.frame().await.is_some() {} }).await
        );
    }

    /// As a watch on which nothing happens: it is the server that has nothing to give.
    #[tokio::test]
    async fn who_is_given_nothing_is_not() {
        let waits = |mut body: Body| async move {
            while body.frame().await.is_some() {}
            tokio::time::sleep(10 * SOON).await;
        };
        assert!(!given_up(SOON, waits).await);
    }
}
