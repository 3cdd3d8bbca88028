//! Request bodies, read within their limit; response bodies, made of bytes that others share.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http::header::EXPECT;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::object::Object;
use crate::status::ApiError;

/// Kubernetes' own limit, twice what etcd takes in one request: an object may be sent twice over,
/// as a JSON patch does.
pub(super) const REQUEST_BYTES_MAX: usize = 3 * 1024 * 1024;

/// A client that sends too much is read on without keeping anything, so that it sees the answer
/// and not a reset connection; until then:
const DRAIN_BYTES_MAX: usize = 256 * 1024 * 1024;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// Pieces that lists and watches are written in: large enough that the cost of a write is spread
/// over many objects, small enough that a hundred slow readers cost little.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// # Errors
/// 413 past the limit, 400 when the client breaks off.
pub(super) async fn read(headers: &HeaderMap, mut body: Body) -> Result<Bytes, ApiError> {
    let too_large = |body: Body| {
        // Who waits for "100 Continue" has sent nothing yet: asking for more would invite it.
        if !headers.contains_key(EXPECT) {
            tokio::spawn(tokio::time::timeout(DRAIN_TIME_MAX, drain(body)));
        }
        ApiError::too_large(REQUEST_BYTES_MAX)
    };
    let announced = body.size_hint().lower();
    if announced > REQUEST_BYTES_MAX as u64 {
        return Err(too_large(body));
    }
    let mut only = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::bad_request(format!("the body of the request cannot be read: {error}"))
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if only.len() + joined.len() + data.len() > REQUEST_BYTES_MAX {
            return Err(too_large(body));
        }
        if only.is_empty() && joined.is_empty() {
            // Nearly every body comes in one piece, which is then used as it is.
            only = data;
            continue;
        }
        joined.put_slice(&std::mem::take(&mut only));
        joined.put_slice(&data);
    }
    Ok(if joined.is_empty() { only } else { joined.freeze() })
}

async fn drain(mut body: Body) {
    let mut drained_bytes = 0;
    while drained_bytes < DRAIN_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        drained_bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}

/// A list: a head, the items' own bytes with commas between them, and a tail; never in memory as
/// a whole.
pub(super) struct ItemsBody {
    head: Bytes,
    items: std::vec::IntoIter<Arc<Object>>,
    /// What items begin with that is not repeated for each.
    omitted: Bytes,
    tail: Bytes,
    place: Place,
    bytes_left: u64,
    gzip: Option<GzEncoder<Vec<u8>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    FirstItem,
    Items,
    Ended,
}

impl ItemsBody {
    /// Of items that begin with `{`, then `omitted`, only the rest goes out.
    pub(super) fn new(
        head: Bytes,
        items: Vec<Arc<Object>>,
        omitted: Bytes,
        tail: Bytes,
    ) -> ItemsBody {
        let commas = items.len().saturating_sub(1);
        let length = |item: &Arc<Object>| match rest(item, &omitted) {
            Some(rest) => 1 + rest.len(),
            None => item.body.len(),
        };
        let bodies: usize = items.iter().map(length).sum();
        ItemsBody {
            bytes_left: (head.len() + bodies + commas + tail.len()) as u64,
            head,
            items: items.into_iter(),
            omitted,
            tail,
            place: Place::Head,
            gzip: None,
        }
    }

    /// Before compression.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes_left
    }

    pub(super) fn compressed(mut self) -> ItemsBody {
        self.gzip = Some(GzEncoder::new(Vec::new(), Compression::fast()));
        self
    }

    /// All of it in one piece, for what has to be parsed again.
    pub(super) fn whole(mut self) -> Bytes {
        let mut whole = BytesMut::with_capacity(self.bytes_left as usize);
        while let Some(piece) = self.next_piece() {
            whole.put_slice(&piece);
        }
        whole.freeze()
    }

    fn next_piece(&mut self) -> Option<Bytes> {
        if self.place == Place::Ended {
            return None;
        }
        let mut piece = BytesMut::with_capacity(PIECE_BYTES.min(self.bytes_left as usize));
        if self.place == Place::Head {
            piece.put_slice(&self.head);
            self.place = Place::FirstItem;
        }
        while piece.len() < PIECE_BYTES {
            let Some(item) = self.items.next() else {
                piece.put_slice(&self.tail);
                self.place = Place::Ended;
                break;
            };
            if self.place == Place::Items {
                piece.put_u8(b',');
            }
            self.place = Place::Items;
            match rest(&item, &self.omitted) {
                Some(rest) => {
                    piece.put_u8(b'{');
                    piece.put_slice(rest);
                }
                None => piece.put_slice(&item.body),
            }
        }
        self.bytes_left = self.bytes_left.saturating_sub(piece.len() as u64);
        Some(piece.freeze())
    }

    fn next_compressed(&mut self) -> Option<Bytes> {
        loop {
            let piece = self.next_piece();
            let encoder = self.gzip.as_mut()?;
            // Writing to memory does not fail.
            match piece {
                Some(piece) => {
                    encoder.write_all(&piece).ok()?;
                    if encoder.get_ref().len() >= PIECE_BYTES / 4 {
                        return Some(std::mem::take(encoder.get_mut()).into());
                    }
                }
                None => return self.gzip.take()?.finish().ok().map(Bytes::from),
            }
        }
    }
}

/// What follows `{` and `omitted`; `None` when nothing is omitted.
fn rest<'o>(item: &'o Object, omitted: &[u8]) -> Option<&'o [u8]> {
    if omitted.is_empty() {
        return None;
    }
    item.body.strip_prefix(b"{")?.strip_prefix(omitted)
}

impl HttpBody for ItemsBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = match self.gzip {
            Some(_) => self.next_compressed(),
            None => self.next_piece(),
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.place == Place::Ended && self.gzip.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.gzip {
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(self.bytes_left),
        }
    }
}

/// Compresses what is already in memory as a whole.
pub(super) fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    let written = encoder.write_all(bytes);
    let finished = encoder.finish();
    debug_assert!(written.is_ok(), "writing to memory does not fail");
    finished.unwrap_or_default().into()
}
