//! One layer from its bytes to a directory: hash, decompress, hash again, unpack; two threads, so that the
//! decompressor and the disk do not wait for each other.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as blocking;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use crate::digest::{Digest, Hasher};
use crate::error::{Error, local};
use crate::manifest::{Compression, Layer};
use crate::unpack::{Budget, Unpacked, unpack};

/// Decompressed at once, and handed over.
const PIECE: usize = 256 << 10;
/// Pieces between the two threads: enough to even out a slow file.
const PIECES: usize = 8;
/// The memory that a zstd frame may ask for, as a power of two: what `zstd --ultra` stays within.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Unpacks what comes out of `chunks` into `directory`. Blocks.
///
/// # Errors
/// [`Error::Invalid`] for content that is not what the digests say or can't be unpacked;
/// [`Error::Unavailable`] if the chunks end too soon: whoever sends them knows why.
pub(crate) fn apply(
    chunks: mpsc::Receiver<Bytes>,
    layer: &Layer,
    diff_id: Digest,
    directory: &Path,
    budget: &Budget,
) -> Result<Unpacked, Error> {
    let (pieces, taken) = blocking::sync_channel(PIECES);
    let (give_back, spare) = blocking::sync_channel(PIECES + 2);
    let finished = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let done = Arc::clone(&finished);
        let unpacking = scope.spawn(move || {
            let mut pieces = Pieces::new(taken, give_back);
            let result = unpack(&mut pieces, directory, budget);
            // Before the pieces are dropped, so that whoever sends them can tell an end from a failure.
            done.store(result.is_ok(), Ordering::Release);
            result
        });
        let sink = Sink { pieces, spare, finished };
        let hashed = decompress(chunks, layer, diff_id, sink, budget);
        let unpacked = unpacking.join();
        let unpacked = unpacked.map_err(|_| Error::Local("the unpacker died".to_owned()))?;
        match hashed {
            // The unpacker has said why nothing more was wanted.
            Err(Stop::Unwanted) => unpacked.and(Err(Error::Local("the unpacker stopped".into()))),
            // The unpacker knows in which entry.
            Err(Stop::TooMuch(error)) => unpacked.and(Err(error)),
            Err(Stop::Failed(error)) => Err(error),
            Ok(()) => unpacked,
        }
    })
}

enum Stop {
    /// Nobody takes the pieces.
    Unwanted,
    TooMuch(Error),
    Failed(Error),
}

/// Where pieces go.
struct Sink {
    pieces: blocking::SyncSender<Result<Vec<u8>, Error>>,
    spare: blocking::Receiver<Vec<u8>>,
    /// The unpacker has seen the end of the archive and wants no more.
    finished: Arc<AtomicBool>,
}

impl Sink {
    fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.spare.try_recv().unwrap_or_default();
        buffer.resize(PIECE, 0);
        buffer
    }

    /// False if the unpacker has stopped before its end.
    fn send(&self, piece: Vec<u8>) -> bool {
        self.pieces.send(Ok(piece)).is_ok() || self.finished.load(Ordering::Acquire)
    }

    fn fail(&self, error: Error) -> Stop {
        // Nobody may be there to hear it.
        let _ = self.pieces.send(Err(error.clone()));
        Stop::Failed(error)
    }
}

fn decompress(
    chunks: mpsc::Receiver<Bytes>,
    layer: &Layer,
    diff_id: Digest,
    sink: Sink,
    budget: &Budget,
) -> Result<(), Stop> {
    let mut blob = Blob::new(chunks);
    let pumped = match layer.compression {
        Compression::None => pump(&mut blob, &sink, budget),
        Compression::Gzip => pump(flate2::read::MultiGzDecoder::new(&mut blob), &sink, budget),
        Compression::Zstd => zstd_reader(&mut blob)
            .map_err(Broken::Content)
            .and_then(|reader| pump(reader, &sink, budget)),
    };
    let found = match pumped {
        Err(Broken::Unwanted) => return Err(Stop::Unwanted),
        Err(Broken::TooMuch(error)) => {
            sink.fail(error.clone());
            return Err(Stop::TooMuch(error));
        }
        Err(Broken::Content(error)) => Err(error),
        Ok(found) => Ok(found),
    };
    // To the end, also of what can't be decompressed: the digest says whose fault that is.
    blob.drain();
    let (length, digest) = blob.finish();
    if length < layer.blob.size {
        return Err(sink.fail(Error::Unavailable(format!(
            "the blob ended after {length} of {} bytes",
            layer.blob.size
        ))));
    }
    if digest != layer.blob.digest {
        return Err(sink.fail(Error::Invalid(format!(
            "digest: the registry's bytes have {digest}, the manifest says {}",
            layer.blob.digest
        ))));
    }
    match found {
        Err(error) => Err(sink.fail(Error::Invalid(format!("can't be decompressed: {error}")))),
        Ok(found) if found != diff_id => Err(sink.fail(Error::Invalid(format!(
            "its content has the digest {found}, config.rootfs.diff_ids says {diff_id}"
        )))),
        Ok(_) => Ok(()),
    }
}

fn zstd_reader(blob: &mut Blob) -> io::Result<zstd::Decoder<'static, io::BufReader<&mut Blob>>> {
    let mut decoder = zstd::Decoder::new(blob)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

enum Broken {
    Unwanted,
    TooMuch(Error),
    Content(io::Error),
}

/// Hands everything on, and returns its digest.
fn pump(mut reader: impl Read, sink: &Sink, budget: &Budget) -> Result<Digest, Broken> {
    let mut hasher = Hasher::new();
    // Headers and padding count here, files alone in the unpacker: an archive of nothing else ends too.
    let limits = budget.limits();
    let most = limits.unpacked_bytes.saturating_add(limits.inodes.saturating_mul(2048));
    let mut total: u64 = 0;
    loop {
        let mut piece = sink.buffer();
        let mut filled = 0;
        while filled < piece.len() {
            match reader.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken::Content(error)),
            }
        }
        if filled == 0 {
            return Ok(hasher.finish());
        }
        total += filled as u64;
        if total > most {
            let text = format!("unpacks to more than {} bytes", limits.unpacked_bytes);
            return Err(Broken::TooMuch(Error::Invalid(text)));
        }
        hasher.update(&piece[..filled]);
        piece.truncate(filled);
        if !sink.send(piece) {
            return Err(Broken::Unwanted);
        }
    }
}

/// The blob as it comes from the network, hashed on the way.
struct Blob {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
    hasher: Hasher,
    length: u64,
}

impl Blob {
    fn new(chunks: mpsc::Receiver<Bytes>) -> Blob {
        Blob { chunks, current: Bytes::new(), hasher: Hasher::new(), length: 0 }
    }

    /// False at the end.
    fn refill(&mut self) -> bool {
        while self.current.is_empty() {
            let Some(chunk) = self.chunks.blocking_recv() else { return false };
            self.hasher.update(&chunk);
            self.length += chunk.len() as u64;
            self.current = chunk;
        }
        true
    }

    fn drain(&mut self) {
        while self.refill() {
            self.current.clear();
        }
    }

    fn finish(self) -> (u64, Digest) {
        (self.length, self.hasher.finish())
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.refill() {
            return Ok(0);
        }
        let length = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// The unpacker's end.
struct Pieces {
    taken: blocking::Receiver<Result<Vec<u8>, Error>>,
    give_back: blocking::SyncSender<Vec<u8>>,
    current: Vec<u8>,
    read: usize,
}

impl Pieces {
    fn new(
        taken: blocking::Receiver<Result<Vec<u8>, Error>>,
        give_back: blocking::SyncSender<Vec<u8>>,
    ) -> Pieces {
        Pieces { taken, give_back, current: Vec::new(), read: 0 }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.current.len() {
            match self.taken.recv() {
                Ok(Ok(piece)) => {
                    let used = std::mem::replace(&mut self.current, piece);
                    // Full only if there are spare ones enough.
                    let _ = self.give_back.try_send(used);
                    self.read = 0;
                }
                Ok(Err(error)) => return Err(io::Error::other(error)),
                Err(_) => return Ok(0),
            }
        }
        let rest = &self.current[self.read..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.read += length;
        Ok(length)
    }
}

/// Makes the directory that a layer is unpacked into.
pub(crate) fn make_tree(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o755).create(path).map_err(local(path.display()))
}
