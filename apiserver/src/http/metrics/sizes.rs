//! The sizes of answers: known at once, or counted while the answer goes out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::Series;

struct Measured {
    body: Body,
    series: Arc<Series>,
    bytes: u64,
}

impl Drop for Measured {
    fn drop(&mut self) {
        self.series.sizes.observe(self.bytes);
    }
}

impl Series {
    /// The same body, its size noted: now if it says it, else when it has gone out.
    pub(in crate::http) fn measure(self: Arc<Series>, body: Body) -> Body {
        match body.size_hint().exact() {
            Some(bytes) => {
                self.sizes.observe(bytes);
                body
            }
            None => Body::new(Measured { body, series: self, bytes: 0 }),
        }
    }
}

impl HttpBody for Measured {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
