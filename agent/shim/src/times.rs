//! When the lines of a log came, in a file beside each of its files.
//!
//! The log itself stays what the task wrote. For `stdout.log.1` there is `stdout.times.1`: first
//! the log file's inode, by which a reader knows that the two belong together although both are
//! renamed by rotation; then *marks*, each the offset at which a line begins and when it came.
//! Lines without a mark of their own came with the one before: a mark is made per read of the
//! task's pipe, not per line, so that a chatty task pays for it by the chunk. All are pairs of
//! little-endian 64-bit numbers.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Of one pair of numbers.
const RECORD_BYTES: usize = 16;

/// Marks may take a quarter of what the log may: more would only come of lines of a few bytes,
/// each written by itself.
const SHARE: u64 = 4;

/// However small the log's limit.
const MIN_BYTES: u64 = 64 * 1024;

/// Marks read at once.
const READ_RECORDS: usize = 1024;

/// From this offset on, until the next mark, lines begin that came at this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Bytes from the beginning of the log file.
    pub offset: u64,
    /// Nanoseconds since 1970.
    pub at_ns: u64,
}

/// `number` 0 is the newest.
fn path_of(log: &Path, number: u32) -> PathBuf {
    let mut path = log.with_extension("times").into_os_string();
    if number > 0 {
        path.push(format!(".{number}"));
    }
    path.into()
}

fn record(one: u64, two: u64) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[..8].copy_from_slice(&one.to_le_bytes());
    bytes[8..].copy_from_slice(&two.to_le_bytes());
    bytes
}

/// Renames one along with its log. What is not there is not missed.
pub(crate) fn rename(log: &Path, from: u32, to: u32) {
    let _ = std::fs::rename(path_of(log, from), path_of(log, to));
}

/// The marks of the log file that is being written. Never fails: then there are none.
pub(crate) struct TimesWriter {
    state: State,
    bytes: u64,
    last_ns: u64,
}

enum State {
    /// Nothing to mark yet: most tasks print to one stream only.
    Absent {
        path: PathBuf,
        inode: u64,
    },
    Open(File),
    Broken,
}

impl TimesWriter {
    pub(crate) fn new(log: &Path, file: &File) -> Self {
        let path = path_of(log, 0);
        // Of the same file, when it was emptied instead of renamed.
        let _ = std::fs::remove_file(&path);
        let state = match file.metadata() {
            Ok(metadata) => State::Absent { path, inode: metadata.ino() },
            Err(_) => State::Broken,
        };
        Self { state, bytes: 0, last_ns: 0 }
    }

    /// To be called before the line is written: a mark without a line does no harm. Times never go
    /// back, whatever the clock does.
    pub(crate) fn mark(&mut self, offset: u64) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_ns = u64::try_from(since.as_nanos()).unwrap_or(0).max(self.last_ns);
        if let Err(_full) = self.write(&record(offset, self.last_ns)) {
            // Half of one would make nonsense of all that follow.
            self.state = State::Broken;
        }
    }

    fn write(&mut self, record: &[u8; RECORD_BYTES]) -> io::Result<()> {
        if let State::Absent { path, inode } = &self.state {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut times = options.open(path)?;
            times.write_all(&self::record(*inode, 0))?;
            self.state = State::Open(times);
        }
        if let State::Open(times) = &mut self.state {
            times.write_all(record)?;
            self.bytes += RECORD_BYTES as u64;
        }
        Ok(())
    }

    /// Whether the log is to be rotated on its account.
    pub(crate) fn is_full(&self, max_log_bytes: u64) -> bool {
        self.bytes > (max_log_bytes / SHARE).max(MIN_BYTES)
    }
}

/// Reads the marks of one log file, also while it grows.
#[derive(Debug)]
pub struct TimesReader {
    file: File,
    /// Read, and not yet whole.
    rest: Vec<u8>,
    marks: std::collections::VecDeque<Mark>,
}

impl TimesReader {
    /// Those of an open log file that is called `log` and this number now; `None` if it has none,
    /// or another number by the time.
    #[must_use]
    pub fn open(log: &Path, number: u32, file: &File) -> Option<Self> {
        let mut times = File::open(path_of(log, number)).ok()?;
        let mut header = [0; RECORD_BYTES];
        times.read_exact(&mut header).ok()?;
        let inode = file.metadata().ok()?.ino();
        let ours = header == record(inode, 0);
        ours.then(|| Self { file: times, rest: Vec::new(), marks: Default::default() })
    }

    /// The next mark, which stays; `None` if there is none yet.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn peek(&mut self) -> io::Result<Option<Mark>> {
        if self.marks.is_empty() {
            let limit = (READ_RECORDS * RECORD_BYTES - self.rest.len()) as u64;
            Read::by_ref(&mut self.file).take(limit).read_to_end(&mut self.rest)?;
            let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
            let whole = self.rest.len() / RECORD_BYTES * RECORD_BYTES;
            for bytes in self.rest[..whole].chunks_exact(RECORD_BYTES) {
                let (offset, at_ns) = (number(&bytes[..8]), number(&bytes[8..]));
                self.marks.push_back(Mark { offset, at_ns });
            }
            self.rest.drain(..whole);
        }
        Ok(self.marks.front().copied())
    }

    /// Takes the mark that [`Self::peek`] shows.
    pub fn take(&mut self) {
        self.marks.pop_front();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn marks_are_read_as_they_are_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stdout.log");
        let log = File::create(&path).unwrap();
        let mut writer = TimesWriter::new(&path, &log);
        assert!(TimesReader::open(&path, 0, &log).is_none());
        writer.mark(0);
        let mut reader = TimesReader::open(&path, 0, &log).unwrap();
        let first = reader.peek().unwrap().unwrap();
        reader.take();
        assert_eq!(reader.peek().unwrap(), None);
        writer.mark(7);
        let second = reader.peek().unwrap().unwrap();
        reader.take();
        assert_eq!((first.offset, second.offset, reader.peek().unwrap()), (0, 7, None));
        assert!(first.at_ns > 0 && first.at_ns <= second.at_ns);
        // Another log's are not taken for its own.
        rename(&path, 0, 1);
        let other = File::create(directory.path().join("other")).unwrap();
        assert!(TimesReader::open(&path, 1, &other).is_none());
        assert!(TimesReader::open(&path, 1, &log).is_some());
    }
}
