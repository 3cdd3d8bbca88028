//! One SPDY connection, seen from the server: streams that the client opens, each a pipe both ways.
//!
//! The known clients neither keep nor grant windows, so what we send is bounded by the connection
//! alone; what we take is acknowledged, for clients that do count. A stream that nobody reads holds
//! up its connection: a few pieces per stream are all the memory that a peer can make us use.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::frame::{Decoder, Encoder, Frame, Malformed, StreamId};
use super::headers::Headers;

/// Open at once on a connection. A forwarded connection takes two.
const STREAMS_MAX: usize = 512;
/// Pieces that wait for a stream's reader.
const PIECES_MAX: usize = 4;
/// Frames that wait to be sent, of all streams.
const FRAMES_MAX: usize = 16;
/// A piece of data at most, either way.
const READ_BYTES: usize = 16 * 1024;
/// So much taken is acknowledged: a fraction of the protocol's first window of 64 KiB.
const ACKNOWLEDGE_BYTES: u32 = 16 * 1024;

const REFUSED_STREAM: u32 = 3;
const CANCEL: u32 = 5;
const GOAWAY_OK: u32 = 0;
const GOAWAY_PROTOCOL_ERROR: u32 = 1;

/// A stream that the client has opened.
pub(crate) struct Incoming {
    pub(crate) headers: Headers,
    pub(crate) read: ReadHalf,
    pub(crate) write: WriteHalf,
}

/// What the client sends on a stream.
pub(crate) struct ReadHalf {
    id: StreamId,
    pieces: mpsc::Receiver<Bytes>,
    frames: mpsc::Sender<Frame>,
    unacknowledged: u32,
    _alive: Arc<()>,
}

impl ReadHalf {
    /// `None` when the client has said all, or the stream is no more.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.recv().await?;
        self.unacknowledged += piece.len() as u32;
        if self.unacknowledged >= ACKNOWLEDGE_BYTES {
            let delta = std::mem::take(&mut self.unacknowledged);
            for id in [self.id, 0] {
                // A connection that is gone needs no acknowledgement.
                let _ = self.frames.send(Frame::WindowUpdate { id, delta }).await;
            }
        }
        Some(piece)
    }
}

/// What we send on a stream.
pub(crate) struct WriteHalf {
    id: StreamId,
    frames: mpsc::Sender<Frame>,
    reset: CancellationToken,
    _alive: Arc<()>,
}

impl WriteHalf {
    /// False: the stream is no more.
    pub(crate) async fn send(&self, piece: Bytes) -> bool {
        self.put(piece, false).await
    }

    /// Says that nothing more comes.
    pub(crate) async fn finish(self) {
        self.put(Bytes::new(), true).await;
    }

    /// The client has given the stream up.
    pub(crate) async fn given_up(&self) {
        self.reset.cancelled().await;
    }

    /// Gives the stream up.
    pub(crate) async fn cancel(self) {
        let _ = self.frames.send(Frame::Reset { id: self.id, status: CANCEL }).await;
    }

    async fn put(&self, piece: Bytes, fin: bool) -> bool {
        if self.reset.is_cancelled() {
            return false;
        }
        self.frames.send(Frame::Data { id: self.id, fin, piece }).await.is_ok()
    }
}

/// A running connection; its streams, in the order in which they are opened. The connection ends
/// when this and all halves of streams are dropped.
pub(crate) struct Session {
    incoming: mpsc::Receiver<Incoming>,
}

impl Session {
    /// `None` when the client is gone.
    pub(crate) async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }
}

/// Runs a connection until its client is gone, nobody holds the session and its streams any more,
/// or `stop` is cancelled.
pub(crate) fn serve<Io>(io: Io, stop: CancellationToken) -> Session
where
    Io: AsyncRead + AsyncWrite + Send + 'static,
{
    let (incoming_to, incoming) = mpsc::channel(FRAMES_MAX);
    let (frames, frames_due) = mpsc::channel(FRAMES_MAX);
    let (read, write) = tokio::io::split(io);
    let reader = Reader {
        frames: frames.downgrade(),
        incoming: incoming_to,
        streams: HashMap::new(),
        last: 0,
    };
    // The streams' halves keep the queue open, and so does this until the client is gone.
    let ends = stop.child_token();
    let reader_ends = ends.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = reader_ends.cancelled() => {}
            () = reader.run(read, frames) => {}
        }
    });
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = write_frames(write, frames_due) => {}
        }
        // Nobody is left who could say anything: the reader has nothing to wait for either.
        ends.cancel();
    });
    Session { incoming }
}

async fn write_frames<W: AsyncWrite + Unpin>(mut out: W, mut frames: mpsc::Receiver<Frame>) {
    let mut encoder = Encoder::new();
    let mut buffer = BytesMut::new();
    while let Some(frame) = frames.recv().await {
        encoder.encode(&frame, &mut buffer);
        while buffer.len() < READ_BYTES
            && let Ok(frame) = frames.try_recv()
        {
            encoder.encode(&frame, &mut buffer);
        }
        let written = async {
            out.write_all(&buffer).await?;
            out.flush().await
        };
        if written.await.is_err() {
            return;
        }
        buffer.clear();
    }
    let _ = out.shutdown().await;
}

/// The connection as it is read.
struct Reader {
    frames: mpsc::WeakSender<Frame>,
    incoming: mpsc::Sender<Incoming>,
    streams: HashMap<StreamId, Open>,
    /// The newest stream's number.
    last: StreamId,
}

/// A stream that may still receive.
struct Open {
    /// `None` after the client's last piece.
    pieces: Option<mpsc::Sender<Bytes>>,
    reset: CancellationToken,
    /// Dead when both halves are dropped.
    alive: Weak<()>,
}

impl Drop for Reader {
    /// Who only writes learns it too.
    fn drop(&mut self) {
        self.streams.values().for_each(|open| open.reset.cancel());
    }
}

impl Reader {
    async fn run<R: AsyncRead + Unpin>(mut self, mut input: R, frames: mpsc::Sender<Frame>) {
        // Held until somebody waits for streams no more: then only streams keep the writer going.
        let mut keeping = Some(frames);
        let (mut decoder, mut buffer) = (Decoder::new(), BytesMut::with_capacity(READ_BYTES));
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => {
                    if let Err(error) = self.take(frame).await {
                        return self.refuse(&error).await;
                    }
                    continue;
                }
                Ok(None) => {}
                Err(error) => return self.refuse(&error).await,
            }
            buffer.reserve(READ_BYTES);
            let mut piece = (&mut input).take(READ_BYTES as u64);
            tokio::select! {
                read = piece.read_buf(&mut buffer) => if !matches!(read, Ok(1..)) { return },
                () = self.incoming.closed(), if keeping.is_some() => {
                    if let Some(frames) = keeping.take() {
                        let bye = Frame::GoAway { last: self.last, status: GOAWAY_OK };
                        let _ = frames.send(bye).await;
                    }
                }
            }
        }
    }

    async fn refuse(&self, error: &Malformed) {
        tracing::debug!(%error, "a SPDY client is out of step");
        self.say(Frame::GoAway { last: self.last, status: GOAWAY_PROTOCOL_ERROR }).await;
    }

    async fn say(&self, frame: Frame) {
        if let Some(frames) = self.frames.upgrade() {
            // A connection that can't be written to is read to its end, which is near.
            let _ = frames.send(frame).await;
        }
    }

    async fn take(&mut self, frame: Frame) -> Result<(), Malformed> {
        match frame {
            Frame::SynStream { id, fin, headers } => return self.open(id, fin, headers).await,
            Frame::Data { id, fin, piece } => self.data(id, fin, piece).await,
            Frame::Reset { id, .. } => {
                if let Some(open) = self.streams.remove(&id) {
                    open.reset.cancel();
                }
            }
            // Odd: a question of the client. Even would be an answer to one of ours.
            Frame::Ping { id } if id % 2 == 1 => self.say(Frame::Ping { id }).await,
            _ => {}
        }
        Ok(())
    }

    async fn open(&mut self, id: StreamId, fin: bool, headers: Headers) -> Result<(), Malformed> {
        if id.is_multiple_of(2) || id <= self.last {
            return Err(Malformed("a stream's number is not the next"));
        }
        self.last = id;
        self.streams.retain(|_, open| open.alive.strong_count() > 0);
        let Some(frames) = self.frames.upgrade() else { return Ok(()) };
        if self.streams.len() >= STREAMS_MAX || self.incoming.is_closed() {
            self.say(Frame::Reset { id, status: REFUSED_STREAM }).await;
            return Ok(());
        }
        let (to, pieces) = mpsc::channel(PIECES_MAX);
        let (reset, alive) = (CancellationToken::new(), Arc::new(()));
        let open = Open {
            pieces: (!fin).then_some(to),
            reset: reset.clone(),
            alive: Arc::downgrade(&alive),
        };
        self.streams.insert(id, open);
        self.say(Frame::SynReply { id, fin: false, headers: Headers::default() }).await;
        let read = ReadHalf {
            id,
            pieces,
            frames: frames.clone(),
            unacknowledged: 0,
            _alive: alive.clone(),
        };
        let write = WriteHalf { id, frames, reset, _alive: alive };
        let _ = self.incoming.send(Incoming { headers, read, write }).await;
        Ok(())
    }

    async fn data(&mut self, id: StreamId, fin: bool, piece: Bytes) {
        let Some(open) = self.streams.get_mut(&id) else { return };
        if let Some(pieces) = &open.pieces
            && !piece.is_empty()
        {
            // Nobody reads it any more: read over.
            let _ = pieces.send(piece).await;
        }
        if fin {
            open.pieces = None;
        }
    }
}
