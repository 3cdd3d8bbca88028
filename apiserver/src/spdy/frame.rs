//! Frames on the wire: control frames and data, both ways. Pure.
//!
//! However a peer lies, a decoder holds at most one control frame; data is passed on in the pieces
//! in which it comes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::headers::{Deflater, Headers, Inflater};

/// A peer that does not speak SPDY/3.1; the connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(super) &'static str);

/// A stream's number; odd ones are opened by the client.
pub(super) type StreamId = u32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    SynStream {
        id: StreamId,
        fin: bool,
        headers: Headers,
    },
    SynReply {
        id: StreamId,
        fin: bool,
        headers: Headers,
    },
    Reset {
        id: StreamId,
        status: u32,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last: StreamId,
        status: u32,
    },
    WindowUpdate {
        id: StreamId,
        delta: u32,
    },
    /// A piece; `fin` on the last one of the last frame.
    Data {
        id: StreamId,
        fin: bool,
        piece: Bytes,
    },
    /// SETTINGS, HEADERS and what nobody knows: read over.
    Other,
}

const HEAD_BYTES: usize = 8;
/// A header block of a stream is some hundred bytes.
const CONTROL_BYTES_MAX: usize = 64 * 1024;
const VERSION: u16 = 3;
const CONTROL: u16 = 0x8000;
const STREAM_MASK: u32 = 0x7fff_ffff;
const FLAG_FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Reads frames out of a growing buffer.
pub(super) struct Decoder {
    inflater: Inflater,
    /// Of a data frame that has not come whole: its stream, whether it is the last, bytes left.
    data: Option<(StreamId, bool, usize)>,
}

impl Decoder {
    pub(super) fn new() -> Decoder {
        Decoder { inflater: Inflater::new(), data: None }
    }

    /// The next frame; `None` when more bytes are needed.
    pub(super) fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
        if let Some((id, fin, left)) = self.data {
            return Ok(self.piece(id, fin, left, buffer));
        }
        if buffer.len() < HEAD_BYTES {
            return Ok(None);
        }
        let mut head = &buffer[..HEAD_BYTES];
        let (first, second) = (head.get_u32(), head.get_u32());
        let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
        if first >> 31 == 0 {
            buffer.advance(HEAD_BYTES);
            return Ok(self.piece(first & STREAM_MASK, flags & FLAG_FIN != 0, length, buffer));
        }
        if (first >> 16) as u16 & !CONTROL != VERSION {
            return Err(Malformed("not version 3 of SPDY"));
        }
        if length > CONTROL_BYTES_MAX {
            return Err(Malformed("a control frame is too large"));
        }
        if buffer.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        buffer.advance(HEAD_BYTES);
        let body = buffer.split_to(length).freeze();
        self.control(first as u16, flags & FLAG_FIN != 0, body).map(Some)
    }

    fn piece(
        &mut self,
        id: StreamId,
        fin: bool,
        length: usize,
        buffer: &mut BytesMut,
    ) -> Option<Frame> {
        let here = length.min(buffer.len());
        let left = length - here;
        self.data = (left > 0).then_some((id, fin, left));
        if here == 0 && left > 0 {
            return None;
        }
        let piece = buffer.split_to(here).freeze();
        Some(Frame::Data { id, fin: fin && left == 0, piece })
    }

    fn control(&mut self, kind: u16, fin: bool, mut body: Bytes) -> Result<Frame, Malformed> {
        let fixed = match kind {
            SYN_STREAM => 10,
            SYN_REPLY | PING | HEADERS => 4,
            RST_STREAM | GOAWAY | WINDOW_UPDATE => 8,
            _ => 0,
        };
        if body.len() < fixed {
            return Err(Malformed("a control frame is too short"));
        }
        Ok(match kind {
            SYN_STREAM => {
                let id = body.get_u32() & STREAM_MASK;
                // The stream that it belongs to, its priority and its slot: no use to us.
                body.advance(6);
                Frame::SynStream { id, fin, headers: self.inflater.headers(&body)? }
            }
            SYN_REPLY => {
                let id = body.get_u32() & STREAM_MASK;
                Frame::SynReply { id, fin, headers: self.inflater.headers(&body)? }
            }
            RST_STREAM => Frame::Reset { id: body.get_u32() & STREAM_MASK, status: body.get_u32() },
            PING => Frame::Ping { id: body.get_u32() },
            GOAWAY => Frame::GoAway { last: body.get_u32() & STREAM_MASK, status: body.get_u32() },
            HEADERS => {
                body.advance(4);
                // Read all the same: the blocks of a connection are one compressed stream.
                self.inflater.headers(&body)?;
                Frame::Other
            }
            WINDOW_UPDATE => Frame::WindowUpdate {
                id: body.get_u32() & STREAM_MASK,
                delta: body.get_u32() & STREAM_MASK,
            },
            _ => Frame::Other,
        })
    }
}

/// Writes frames.
pub(super) struct Encoder {
    deflater: Deflater,
}

impl Encoder {
    pub(super) fn new() -> Encoder {
        Encoder { deflater: Deflater::new() }
    }

    pub(super) fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            Frame::SynStream { id, fin, headers } => {
                let block = self.deflater.block(headers);
                control(out, SYN_STREAM, *fin, 10 + block.len());
                out.put_u32(*id);
                out.put_bytes(0, 6);
                out.put_slice(&block);
            }
            Frame::SynReply { id, fin, headers } => {
                let block = self.deflater.block(headers);
                control(out, SYN_REPLY, *fin, 4 + block.len());
                out.put_u32(*id);
                out.put_slice(&block);
            }
            Frame::Reset { id, status } => pair(out, RST_STREAM, *id, *status),
            Frame::Ping { id } => {
                control(out, PING, false, 4);
                out.put_u32(*id);
            }
            Frame::GoAway { last, status } => pair(out, GOAWAY, *last, *status),
            Frame::WindowUpdate { id, delta } => pair(out, WINDOW_UPDATE, *id, *delta),
            Frame::Data { id, fin, piece } => {
                out.put_u32(*id & STREAM_MASK);
                out.put_u32(u32::from(*fin) << 24 | (piece.len() as u32 & 0x00ff_ffff));
                out.put_slice(piece);
            }
            Frame::Other => {}
        }
    }
}

fn control(out: &mut BytesMut, kind: u16, fin: bool, length: usize) {
    out.put_u16(CONTROL | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(fin) << 24 | length as u32);
}

fn pair(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    control(out, kind, false, 8);
    out.put_u32(first);
    out.put_u32(second);
}
