//! Reads one output stream of a task through the rotation of its files.
//!
//! `x.log` is the newest file, `x.log.1` the one before, and so on; rotation renames each to the
//! next number, so a file is known by its inode and not by its name. When lines came is read from
//! beside them. Blocks on the disk.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use commonage_shim::times::{Mark, TimesReader};

/// Bytes of one piece: large enough to keep system calls rare, small enough for 400 readers.
const PIECE_BYTES: usize = 64 * 1024;
/// Files are looked for up to this number; the shim keeps five.
const FILES_MAX: u32 = 100;
/// And the times of one among so many; a log older than this kind of file has none.
const TIMES_LOOKS_MAX: u32 = 8;

/// A position in a stream.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    path: PathBuf,
    /// Lines to begin with, counted from the end; `None`: everything that is kept.
    tail_lines: Option<u64>,
    open: Option<File>,
    /// Of the open file, once found.
    times: Option<TimesReader>,
    begun: bool,
    /// How many of the `tail_lines` there were.
    tail_found: u64,
}

impl Reader {
    pub(crate) fn new(path: PathBuf, tail_lines: Option<u64>) -> Reader {
        Reader { path, tail_lines, ..Reader::default() }
    }

    /// The next bytes; `None` when there are no more for now.
    pub(crate) fn read(&mut self) -> io::Result<Option<Bytes>> {
        if self.open.is_none() && !self.begin()? {
            return Ok(None);
        }
        loop {
            if let Some(piece) = self.read_open()? {
                return Ok(Some(piece));
            }
            // Nobody writes into a file that has been renamed, so what a last look finds is all.
            match self.newer()? {
                None => return Ok(None),
                Some(newer) => {
                    if let Some(piece) = self.read_open()? {
                        return Ok(Some(piece));
                    }
                    self.open = Some(newer);
                    self.times = None;
                }
            }
        }
    }

    /// The same with the marks of the lines that begin in the piece, or before it and were not
    /// given yet; their offsets are counted from the beginning of the piece.
    pub(crate) fn read_marked(&mut self) -> io::Result<Option<(Bytes, Vec<Mark>)>> {
        let Some(piece) = self.read()? else {
            return Ok(None);
        };
        let end = self.open.as_mut().map_or(Ok(0), Seek::stream_position)?;
        let start = end - piece.len() as u64;
        if self.times.is_none()
            && let Some(file) = &self.open
        {
            let mut numbers = 0..FILES_MAX.min(TIMES_LOOKS_MAX);
            self.times = numbers.find_map(|number| TimesReader::open(&self.path, number, file));
        }
        let mut marks = Vec::new();
        if let Some(times) = &mut self.times {
            // Marks are made before their lines, so those of all that was read are there.
            while let Some(mark) = times.peek()?.filter(|mark| mark.offset < end) {
                times.take();
                marks.push(Mark { offset: mark.offset.saturating_sub(start), ..mark });
            }
        }
        Ok(Some((piece, marks)))
    }

    /// How many of the lines counted from the end were there, when reading began.
    pub(crate) fn tail_found(&self) -> u64 {
        self.tail_found
    }

    /// When the open file was last written to, for lines that have no mark. In nanoseconds.
    pub(crate) fn written_ns(&self) -> u64 {
        let metadata = self.open.as_ref().and_then(|file| file.metadata().ok());
        metadata
            .map_or(0, |file| (file.mtime() * 1_000_000_000 + file.mtime_nsec()).cast_unsigned())
    }

    fn read_open(&mut self) -> io::Result<Option<Bytes>> {
        let Some(file) = &mut self.open else {
            return Ok(None);
        };
        let mut piece = vec![0; PIECE_BYTES];
        let count = file.read(&mut piece)?;
        if count == 0 {
            return Ok(None);
        }
        piece.truncate(count);
        Ok(Some(Bytes::from(piece)))
    }

    /// Opens the file to begin with, at the place to begin at. False if there is none yet. Done by
    /// the first read unless it has been done before.
    pub(crate) fn begin(&mut self) -> io::Result<bool> {
        let mut files = Vec::new();
        for number in 0..FILES_MAX {
            match open(&numbered(&self.path, number))? {
                Some(file) => files.push(file),
                None => break,
            }
        }
        let first_look = !std::mem::replace(&mut self.begun, true);
        let (true, Some(lines)) = (first_look, self.tail_lines) else {
            // Without a tail the oldest file comes first.
            self.open = files.pop();
            self.times = None;
            return Ok(self.open.is_some());
        };
        let mut wanted = lines;
        let oldest = files.len().saturating_sub(1);
        for (place, mut file) in files.into_iter().enumerate() {
            let found = seek_back(&mut file, &mut wanted, place == 0)?;
            if found || place == oldest {
                let first = u64::from(!found && file.metadata()?.len() > 0);
                self.tail_found = (lines - wanted + first).min(lines);
                self.open = Some(file);
                break;
            }
        }
        Ok(self.open.is_some())
    }

    /// The file that follows the open one, if it has been rotated away.
    fn newer(&self) -> io::Result<Option<File>> {
        let Some(current) = &self.open else {
            return Ok(None);
        };
        let current = identity(current)?;
        let mut newer = None;
        for number in 0..FILES_MAX {
            let Some(file) = open(&numbered(&self.path, number))? else {
                break;
            };
            if identity(&file)? == current {
                return Ok(newer);
            }
            newer = Some(file);
        }
        // Ours is gone: so many bytes were written meanwhile that the oldest kept ones are next.
        Ok(newer)
    }
}

/// Moves to the beginning of the last `wanted` lines of a file; false, at its beginning, if it has
/// fewer, and `wanted` is what is left to find in older files.
fn seek_back(file: &mut File, wanted: &mut u64, newest: bool) -> io::Result<bool> {
    const BLOCK: u64 = 64 * 1024;
    let length = file.seek(SeekFrom::End(0))?;
    if *wanted == 0 {
        return Ok(true);
    }
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let mut block = vec![0; usize::try_from(end - start).unwrap_or(0)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        for (place, byte) in block.iter().enumerate().rev() {
            let position = start + place as u64;
            // The line break at the very end closes the last line, it begins none.
            if *byte != b'\n' || (newest && position + 1 == length) {
                continue;
            }
            *wanted -= 1;
            if *wanted == 0 {
                file.seek(SeekFrom::Start(position + 1))?;
                return Ok(true);
            }
        }
        end = start;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(false)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    fn all(reader: &mut Reader) -> String {
        let mut text = Vec::new();
        while let Some(piece) = reader.read().unwrap() {
            text.extend_from_slice(&piece);
        }
        String::from_utf8(text).unwrap()
    }

    fn append(path: &Path, text: &str) {
        use std::io::Write;
        let mut options = fs::OpenOptions::new();
        let mut file = options.append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rotate(path: &Path, keep: u32) {
        for number in (0..keep - 1).rev() {
            let from = numbered(path, number);
            if from.exists() {
                fs::rename(from, numbered(path, number + 1)).unwrap();
            }
        }
        append(path, "");
    }

    #[test]
    fn nothing_is_lost_or_repeated_across_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("stdout.log");
        let mut reader = Reader::new(log.clone(), None);
        assert_eq!(all(&mut reader), "");
        append(&log, "a\n");
        assert_eq!(all(&mut reader), "a\n");
        append(&log, "b\n");
        rotate(&log, 5);
        append(&log, "c\n");
        rotate(&log, 5);
        append(&log, "d\n");
        assert_eq!(all(&mut reader), "b\nc\nd\n");
        assert_eq!(all(&mut reader), "");
        // A new reader begins with the oldest.
        assert_eq!(all(&mut Reader::new(log.clone(), None)), "a\nb\nc\nd\n");
        // Rotated beyond what is kept: it goes on with the oldest that is there.
        fs::remove_file(numbered(&log, 2)).unwrap();
        for text in ["e\n", "f\n", "g\n"] {
            rotate(&log, 2);
            append(&log, text);
        }
        assert_eq!(all(&mut reader), "f\ng\n");
    }

    #[test]
    fn a_tail_counts_lines_from_the_end_of_all_files() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("stdout.log");
        append(&log, "1\n2\n3\n");
        rotate(&log, 5);
        append(&log, "4\n5\n");
        for (lines, found) in [(0, 0), (1, 1), (3, 3), (5, 5), (9, 5)] {
            let mut reader = Reader::new(log.clone(), Some(lines));
            reader.begin().unwrap();
            assert_eq!(reader.tail_found(), found, "{lines} lines");
        }
        for (lines, want) in [
            (0, ""),
            (1, "5\n"),
            (2, "4\n5\n"),
            (3, "3\n4\n5\n"),
            (5, "1\n2\n3\n4\n5\n"),
            (99, "1\n2\n3\n4\n5\n"),
        ] {
            let mut reader = Reader::new(log.clone(), Some(lines));
            assert_eq!(all(&mut reader), want, "{lines} lines");
        }
        // A last line without a line break is a line too.
        append(&log, "6");
        assert_eq!(all(&mut Reader::new(log.clone(), Some(2))), "5\n6");
        // A line longer than any block.
        append(&log, &format!("{}\n", "x".repeat(200_000)));
        assert_eq!(all(&mut Reader::new(log, Some(1))).len(), 200_002);
    }

    #[test]
    fn a_tail_of_a_log_that_does_not_exist_yet_shows_all_of_it_later() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("stdout.log");
        let mut reader = Reader::new(log.clone(), Some(1));
        assert_eq!(all(&mut reader), "");
        append(&log, "1\n2\n");
        assert_eq!(all(&mut reader), "1\n2\n");
    }
}
