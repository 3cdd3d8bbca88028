//! A socket whose peer must take what is sent: one that reads nothing for long is hung up on, so
//! that its answers do not stay in memory for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A person may stop the output of a terminal for a while; nobody else takes this long.
pub(crate) const STALL_TIME_MAX: Duration = Duration::from_secs(5 * 60);

pub(super) struct Patient<S> {
    socket: S,
    /// Runs while the peer takes nothing of what is to be sent; made when that first happens.
    stalled: Option<Pin<Box<Sleep>>>,
    stalls: bool,
    stall_time_max: Duration,
}

impl<S> Patient<S> {
    pub(super) fn new(socket: S, stall_time_max: Duration) -> Patient<S> {
        Patient { socket, stalled: None, stalls: false, stall_time_max }
    }

    /// Passes on what the socket says of a write, unless it has said "not yet" for too long.
    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stalls = false;
            return wrote;
        }
        let until = Instant::now() + self.stall_time_max;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if !self.stalls {
            self.stalls = true;
            timer.as_mut().reset(until);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.judge(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.judge(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wrote = Pin::new(&mut self.socket).poll_flush(cx);
        self.judge(cx, wrote)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wrote = Pin::new(&mut self.socket).poll_shutdown(cx);
        self.judge(cx, wrote)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn who_reads_nothing_is_hung_up_on() {
        let (server, _client) = duplex(16);
        let mut server = Patient::new(server, Duration::from_millis(20));
        let error = server.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_reads_is_not() {
        let (server, mut client) = duplex(16);
        let mut server = Patient::new(server, Duration::from_secs(30));
        let reads = tokio::spawn(async move {
            for _ in 0..8 {
                client.read_exact(&mut [0; 8]).await.unwrap();
            }
        });
        server.write_all(&[0; 64]).await.unwrap();
        assert!(!server.stalls);
        reads.await.unwrap();
    }
}
