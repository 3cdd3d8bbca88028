//! Streams of HTTP/2 whose client takes nothing of its answer.
//!
//! Such a stream's window is closed while its connection goes on, so that the socket never stalls
//! ([`super::patience`] sees nothing), and hyper asks a body for more only when there is room for it:
//! the body would wait, and hold what it shows, as long as the connection lives. So whoever runs the
//! stream looks at the clock instead. A stream that is given up is reset (`CANCEL`); the others of its
//! connection go on.
//!
//! A watch on which nothing happens has nothing to give either, but what it gave last may lie in the
//! HTTP/2 library's memory still, as that takes a whole piece when there is room for its first byte.
//! So a last byte is now and then held back and given by itself: there is room for it only once all
//! before it has gone out.

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

/// What a client that takes nothing can leave with us unseen, per stream: half of the window that
/// HTTP/2 begins with. (A frame more for so many bytes costs nothing that can be measured.)
const UNPROVED_BYTES_MAX: usize = 32 * 1024;

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
        Some(turn) => {
            response.map(|body| Body::new(Noted { body, turn, unproved_bytes: 0, last: None }))
        }
        None => response,
    }
}

struct Noted {
    body: Body,
    turn: Arc<Turn>,
    /// Given since there was last room for a byte that had been held back.
    unproved_bytes: usize,
    /// A piece's last byte, to be given next.
    last: Option<Bytes>,
}

impl Noted {
    /// The piece, perhaps without its last byte, which then comes by itself.
    fn proving(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let mut data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => return trailers,
        };
        self.unproved_bytes += data.len();
        if self.unproved_bytes > UNPROVED_BYTES_MAX && data.len() > 1 {
            self.last = Some(data.split_off(data.len() - 1));
            self.unproved_bytes = 0;
        }
        Frame::data(data)
    }
}

impl HttpBody for Noted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = match self.last.take() {
            Some(last) => Poll::Ready(Some(Ok(Frame::data(last)))),
            None => {
                let polled = Pin::new(&mut self.body).poll_frame(cx);
                polled.map(|frame| frame.map(|frame| frame.map(|frame| self.proving(frame))))
            }
        };
        *self.turn.0.lock() = match &polled {
            Poll::Ready(Some(Ok(_))) => Some(Instant::now()),
            _ => None,
        };
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.last.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let held_back = self.last.as_ref().map_or(0, Bytes::len) as u64;
        let mut hint = self.body.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + held_back);
        }
        hint.set_lower(hint.lower() + held_back);
        hint
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

    /// What comes out is what went in, and no piece is lost or empty.
    #[tokio::test]
    async fn bytes_that_are_held_back_come_by_themselves() {
        let (ended, end) = oneshot::channel();
        let turns = Streams { stall_time_max: Duration::from_secs(60), metrics: Arc::default() };
        turns.execute(async move {
            let sizes = [1, UNPROVED_BYTES_MAX, 5, 3 * UNPROVED_BYTES_MAX, 1];
            let pieces: Vec<_> =
                sizes.map(|size| Ok::<_, std::convert::Infallible>(vec![7u8; size])).into();
            let body = Body::from_stream(futures::stream::iter(pieces));
            let mut body = noted(Response::new(body)).into_body();
            let mut taken = Vec::new();
            while let Some(frame) = body.frame().await {
                taken.push(frame.unwrap().into_data().unwrap().len());
            }
            let _ = ended.send(taken);
        });
        let held = UNPROVED_BYTES_MAX;
        assert_eq!(end.await.unwrap(), [1, held - 1, 1, 5, 3 * held - 1, 1, 1]);
    }

    /// Gives one piece that is larger than the window, and then nothing: a quiet watch.
    struct Quiet {
        piece: Option<Bytes>,
        #[expect(dead_code, reason = "is dropped with it")]
        dropped: oneshot::Sender<()>,
    }

    impl HttpBody for Quiet {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            match self.piece.take() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                None => Poll::Pending,
            }
        }
    }

    #[tokio::test]
    async fn a_quiet_watch_that_nobody_reads_is_given_up() {
        const WINDOW_BYTES: u32 = 64 * 1024 - 1;
        let (ours, theirs) = tokio::io::duplex(1024 * 1024);
        let (dropped, is_dropped) = oneshot::channel();
        let dropped = Mutex::new(Some(dropped));
        let answer = hyper::service::service_fn(move |_| {
            let piece = Some(vec![7; 2 * WINDOW_BYTES as usize].into());
            let dropped = dropped.lock().take().unwrap();
            async move {
                let answer = Response::new(Body::new(Quiet { piece, dropped }));
                Ok::<_, std::convert::Infallible>(noted(answer))
            }
        });
        let streams = Streams { stall_time_max: SOON, metrics: Arc::default() };
        let io = hyper_util::rt::TokioIo::new(ours);
        let server = hyper::server::conn::http2::Builder::new(streams).serve_connection(io, answer);
        let server = tokio::spawn(server);
        let io = hyper_util::rt::TokioIo::new(theirs);
        let executor = hyper_util::rt::TokioExecutor::new();
        let mut client = hyper::client::conn::http2::Builder::new(executor);
        client.initial_stream_window_size(WINDOW_BYTES);
        let (mut client, connection) = client.handshake::<_, Body>(io).await.unwrap();
        let connection = tokio::spawn(connection);
        // The head is looked at, the body is not.
        let answer = client.send_request(http::Request::new(Body::empty())).await.unwrap();
        let given_up = tokio::time::timeout(Duration::from_secs(30), is_dropped).await;
        assert!(given_up.is_ok_and(|gone| gone.is_err()), "it is kept");
        drop(answer);
        server.abort();
        connection.abort();
    }
}
