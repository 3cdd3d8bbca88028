//! The codec against itself and against noise; a session against a small client.
#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;

use super::frame::{Decoder, Encoder, Frame};
use super::headers::Headers;
use super::serve;

fn headers() -> Headers {
    Headers::of(&[("streamtype", "error"), ("port", "8080"), ("requestid", "0")])
}

fn data(id: u32, fin: bool, piece: &'static [u8]) -> Frame {
    Frame::Data { id, fin, piece: Bytes::from_static(piece) }
}

fn all(decoder: &mut Decoder, buffer: &mut BytesMut) -> Vec<Frame> {
    std::iter::from_fn(|| decoder.decode(buffer).unwrap()).collect()
}

fn samples() -> Vec<Frame> {
    vec![
        Frame::SynStream { id: 1, fin: false, headers: headers() },
        Frame::SynStream { id: 3, fin: true, headers: headers() },
        Frame::SynReply { id: 1, fin: false, headers: Headers::default() },
        data(1, false, b"hello"),
        data(1, true, b""),
        Frame::Reset { id: 3, status: 5 },
        Frame::Ping { id: 7 },
        Frame::WindowUpdate { id: 0, delta: 9 },
        Frame::GoAway { last: 3, status: 0 },
    ]
}

#[test]
fn frames_come_out_as_they_went_in() {
    let (mut encoder, mut decoder, mut wire) = (Encoder::new(), Decoder::new(), BytesMut::new());
    samples().iter().for_each(|frame| encoder.encode(frame, &mut wire));
    assert_eq!(all(&mut decoder, &mut wire), samples());
    assert!(wire.is_empty());
}

#[test]
fn a_connection_may_be_cut_anywhere() {
    let (mut encoder, mut wire) = (Encoder::new(), BytesMut::new());
    samples().iter().for_each(|frame| encoder.encode(frame, &mut wire));
    let (mut decoder, mut buffer, mut got) = (Decoder::new(), BytesMut::new(), Vec::new());
    for byte in wire {
        buffer.extend_from_slice(&[byte]);
        got.extend(all(&mut decoder, &mut buffer));
    }
    // Data is passed on byte by byte then.
    assert_eq!(got.len(), samples().len() + "hello".len() - 1);
    assert_eq!(got[..3], samples()[..3]);
    assert_eq!(got[got.len() - 4..], samples()[samples().len() - 4..]);
}

/// As the specification draws it: control bit and version, type, flags and length.
#[test]
fn a_ping_is_twelve_bytes() {
    let mut wire = BytesMut::new();
    Encoder::new().encode(&Frame::Ping { id: 1 }, &mut wire);
    assert_eq!(wire[..], [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]);
}

#[test]
fn a_first_block_names_the_dictionary() {
    let mut wire = BytesMut::new();
    let opens = Frame::SynStream { id: 1, fin: false, headers: headers() };
    Encoder::new().encode(&opens, &mut wire);
    assert_eq!(wire[..4], [0x80, 3, 0, 1]);
    assert_eq!(wire[18], 0x78);
    // zlib's header with a preset dictionary, and the dictionary's checksum.
    assert_eq!(wire[19] & 0x20, 0x20);
    assert_eq!(wire[20..24], [0xe3, 0xc6, 0xa7, 0xc2]);
}

#[test]
fn a_block_that_swells_is_refused() {
    let large = "x".repeat(1 << 20);
    let opens = Frame::SynStream { id: 1, fin: false, headers: Headers::of(&[("a", &large)]) };
    let mut wire = BytesMut::new();
    Encoder::new().encode(&opens, &mut wire);
    assert!(wire.len() < 64 * 1024, "{}", wire.len());
    Decoder::new().decode(&mut wire).unwrap_err();
}

proptest! {
    /// Noise never panics, and is never kept beyond one control frame.
    #[test]
    fn noise_is_refused_or_waited_for(noise in prop::collection::vec(any::<u8>(), 0..4096)) {
        let (mut decoder, mut buffer) = (Decoder::new(), BytesMut::from(&noise[..]));
        while let Ok(Some(_)) = decoder.decode(&mut buffer) {}
    }

    /// Frames that are nearly right: one byte differs.
    #[test]
    fn a_wrong_byte_is_survived(at in 0usize..200, wrong in any::<u8>()) {
        let (mut encoder, mut wire) = (Encoder::new(), BytesMut::new());
        samples().iter().for_each(|frame| encoder.encode(frame, &mut wire));
        let at = at % wire.len();
        wire[at] = wrong;
        let mut decoder = Decoder::new();
        while let Ok(Some(_)) = decoder.decode(&mut wire) {}
    }

    /// Header blocks of any bytes inside frames that are right.
    #[test]
    fn any_block_is_survived(block in prop::collection::vec(any::<u8>(), 0..512)) {
        let mut wire = BytesMut::from(&[0x80, 3, 0, 1, 0, 0][..]);
        wire.extend_from_slice(&(10 + block.len() as u16).to_be_bytes());
        wire.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2]);
        wire.extend_from_slice(&block);
        let mut decoder = Decoder::new();
        while let Ok(Some(_)) = decoder.decode(&mut wire) {}
    }
}

/// The other side of a session.
struct Client {
    io: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
    buffer: BytesMut,
}

impl Client {
    fn new(io: DuplexStream) -> Client {
        let (encoder, decoder) = (Encoder::new(), Decoder::new());
        Client { io, encoder, decoder, buffer: BytesMut::new() }
    }

    async fn say(&mut self, frame: Frame) {
        let mut wire = BytesMut::new();
        self.encoder.encode(&frame, &mut wire);
        self.io.write_all(&wire).await.unwrap();
    }

    /// `None` at the connection's end.
    async fn hear(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            if self.io.read_buf(&mut self.buffer).await.unwrap() == 0 {
                return None;
            }
        }
    }
}

#[tokio::test]
async fn a_stream_is_a_pipe_both_ways() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let mut session = serve(theirs, CancellationToken::new());
    let mut client = Client::new(ours);
    client.say(Frame::SynStream { id: 1, fin: false, headers: headers() }).await;
    let mut stream = session.accept().await.unwrap();
    assert_eq!(stream.headers.get("port"), Some("8080"));
    let reply = Frame::SynReply { id: 1, fin: false, headers: Headers::default() };
    assert_eq!(client.hear().await, Some(reply));
    client.say(data(1, false, b"ab")).await;
    client.say(data(1, true, b"c")).await;
    assert_eq!(stream.read.next().await.unwrap(), "ab");
    assert_eq!(stream.read.next().await.unwrap(), "c");
    assert_eq!(stream.read.next().await, None);
    assert!(stream.write.send(Bytes::from_static(b"xyz")).await);
    assert_eq!(client.hear().await, Some(data(1, false, b"xyz")));
    stream.write.finish().await;
    assert_eq!(client.hear().await, Some(data(1, true, b"")));
    client.say(Frame::Ping { id: 1 }).await;
    assert_eq!(client.hear().await, Some(Frame::Ping { id: 1 }));

    drop((session, stream.read));
    assert_eq!(client.hear().await, Some(Frame::GoAway { last: 1, status: 0 }));
    assert_eq!(client.hear().await, None);
}

#[tokio::test]
async fn what_is_taken_is_acknowledged() {
    let (ours, theirs) = tokio::io::duplex(256 * 1024);
    let mut session = serve(theirs, CancellationToken::new());
    let mut client = Client::new(ours);
    client.say(Frame::SynStream { id: 1, fin: false, headers: headers() }).await;
    client.hear().await.unwrap();
    let mut stream = session.accept().await.unwrap();
    let piece = Bytes::from(vec![0; 20_000]);
    client.say(Frame::Data { id: 1, fin: true, piece }).await;
    let mut taken = 0;
    while let Some(piece) = stream.read.next().await {
        taken += piece.len();
    }
    assert_eq!(taken, 20_000);
    let Some(Frame::WindowUpdate { id: 1, delta }) = client.hear().await else { panic!() };
    assert!(delta >= 16 * 1024, "{delta}");
    assert_eq!(client.hear().await, Some(Frame::WindowUpdate { id: 0, delta }));
}

#[tokio::test]
async fn a_client_that_goes_takes_its_streams_along() {
    let (ours, theirs) = tokio::io::duplex(1024);
    let mut session = serve(theirs, CancellationToken::new());
    let mut client = Client::new(ours);
    client.say(Frame::SynStream { id: 1, fin: true, headers: headers() }).await;
    client.say(Frame::SynStream { id: 3, fin: false, headers: headers() }).await;
    client.say(Frame::Reset { id: 1, status: 5 }).await;
    let first = session.accept().await.unwrap();
    let mut second = session.accept().await.unwrap();
    first.write.given_up().await;
    drop(client);
    second.write.given_up().await;
    assert_eq!(second.read.next().await, None);
    assert!(session.accept().await.is_none());
}

#[tokio::test]
async fn nonsense_is_told_goodbye() {
    for wrong in [
        Frame::SynStream { id: 2, fin: false, headers: headers() },
        Frame::SynStream { id: 0, fin: false, headers: headers() },
    ] {
        let (ours, theirs) = tokio::io::duplex(1024);
        let _session = serve(theirs, CancellationToken::new());
        let mut client = Client::new(ours);
        client.say(wrong).await;
        assert_eq!(client.hear().await, Some(Frame::GoAway { last: 0, status: 1 }));
    }
}

#[tokio::test]
async fn streams_beyond_the_bound_are_refused_until_others_end() {
    let (ours, theirs) = tokio::io::duplex(1024 * 1024);
    let mut session = serve(theirs, CancellationToken::new());
    let mut client = Client::new(ours);
    let mut open = Vec::new();
    for number in 0..512 {
        client.say(Frame::SynStream { id: 2 * number + 1, fin: true, headers: headers() }).await;
        open.push(session.accept().await.unwrap());
        assert!(matches!(client.hear().await, Some(Frame::SynReply { .. })));
    }
    client.say(Frame::SynStream { id: 1025, fin: true, headers: headers() }).await;
    assert_eq!(client.hear().await, Some(Frame::Reset { id: 1025, status: 3 }));
    open.pop();
    client.say(Frame::SynStream { id: 1027, fin: true, headers: headers() }).await;
    assert!(matches!(client.hear().await, Some(Frame::SynReply { id: 1027, .. })));
}
