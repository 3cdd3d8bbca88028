//! A task's output: read from its pipes, appended raw to rotating files.
//!
//! The shim reads, so that neither the agent's death nor a slow reader of the log ever blocks a
//! task. Bytes are bytes: none is looked at but for line breaks, so no line can be too long or not
//! text. When lines came is kept beside them: see [`crate::times`].

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::launch::LogLimits;
use crate::state_dir::{gone_file, write_atomically};
use crate::times::{self, TimesWriter};

/// Read at once; what a pipe holds by default.
const CHUNK_BYTES: usize = 64 * 1024;

/// Read at most after the task's end. A pipe holds at most 1 MiB (`pipe-max-size`), so more can
/// come only from a process outside the task that was handed the pipe, and that is not waited for.
const DRAIN_BYTES: usize = 2 * 1024 * 1024;

/// One stream of a task.
pub(crate) struct Output {
    pipe: Option<File>,
    log: RotatingLog,
}

impl Output {
    /// Takes the reading end of the task's pipe.
    pub(crate) fn new(pipe: OwnedFd, path: PathBuf, limits: &LogLimits) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        fcntl(pipe.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { pipe: Some(pipe.into()), log: RotatingLog::open(path, limits)? })
    }

    /// Takes what is read from now on, instead of the pipe that nobody else has: the master of the task's terminal.
    pub(crate) fn read_from(&mut self, master: OwnedFd) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        fcntl(master.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
        self.pipe = Some(master.into());
        Ok(())
    }

    /// What to poll for reading; nothing once every writer is gone.
    pub(crate) fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes what is there, at most one chunk, so that the streams share the shim's attention.
    pub(crate) fn pump(&mut self, buffer: &mut Vec<u8>) -> usize {
        let Some(pipe) = self.pipe.as_mut() else {
            return 0;
        };
        buffer.resize(CHUNK_BYTES, 0);
        match pipe.read(buffer) {
            Ok(0) => {
                self.pipe = None;
                0
            }
            Ok(bytes) => {
                self.log.append(&buffer[..bytes]);
                bytes
            }
            Err(error) if would_block(&error) => 0,
            Err(_) => {
                self.pipe = None;
                0
            }
        }
    }

    /// Takes all that a dead task left in the pipe.
    pub(crate) fn drain(&mut self, buffer: &mut Vec<u8>) {
        let mut total = 0;
        while total < DRAIN_BYTES {
            match self.pump(buffer) {
                0 => break,
                bytes => total += bytes,
            }
        }
        self.pipe = None;
    }

    pub(crate) fn rotated_away_bytes(&self) -> u64 {
        self.log.gone_bytes
    }

    pub(crate) fn dropped_bytes(&self) -> u64 {
        self.log.dropped_bytes
    }
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// `path`, `path.1`, `path.2`, … from new to old.
struct RotatingLog {
    path: PathBuf,
    file: File,
    size: u64,
    times: TimesWriter,
    /// Whether what comes next begins a line.
    at_line_start: bool,
    limits: LogLimits,
    dropped_bytes: u64,
    /// Were in files that had to go.
    gone_bytes: u64,
}

impl RotatingLog {
    fn open(path: PathBuf, limits: &LogLimits) -> io::Result<Self> {
        let file = open_log(&path)?;
        let size = file.metadata()?.len();
        let times = TimesWriter::new(&path, &file);
        let limits = limits.clone();
        let (at_line_start, dropped_bytes, gone_bytes) = (true, 0, 0);
        Ok(Self { path, file, size, times, at_line_start, limits, dropped_bytes, gone_bytes })
    }

    /// Never fails: a full disk costs the task its log, not its life.
    fn append(&mut self, mut bytes: &[u8]) {
        let full = self.size.saturating_add(bytes.len() as u64) > self.limits.max_file_bytes;
        if self.size > 0
            && (full || self.times.is_full(self.limits.max_file_bytes))
            && let Some(place) = self.place_to_rotate(bytes)
        {
            let (before, after) = bytes.split_at(place);
            self.write(before);
            // On failure the current file grows on, and the next chunk tries again.
            let _ = self.rotate();
            bytes = after;
        }
        self.write(bytes);
    }

    /// Between two lines, so that each file begins with a whole one; within the limit if there is
    /// such a place. A line that goes an eighth beyond the limit is cut all the same.
    fn place_to_rotate(&self, bytes: &[u8]) -> Option<usize> {
        let max = self.limits.max_file_bytes;
        let room = usize::try_from(max.saturating_sub(self.size)).unwrap_or(usize::MAX);
        let fitting = &bytes[..room.min(bytes.len())];
        if let Some(end) = fitting.iter().rposition(|byte| *byte == b'\n') {
            return Some(end + 1);
        }
        if self.at_line_start {
            return Some(0);
        }
        if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            return Some(end + 1);
        }
        (self.size.saturating_add(bytes.len() as u64) > max.saturating_add(max / 8)).then_some(0)
    }

    fn write(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        let length = bytes.len() as u64;
        let start = match self.at_line_start {
            true => Some(0),
            false => bytes.iter().position(|byte| *byte == b'\n').map(|end| end + 1),
        };
        if let Some(start) = start.filter(|start| *start < bytes.len()) {
            self.times.mark(self.size + start as u64);
        }
        self.at_line_start = *last == b'\n';
        match self.file.write_all(bytes) {
            Ok(()) => self.size += length,
            Err(_) => {
                self.dropped_bytes = self.dropped_bytes.saturating_add(length);
                // Some of it may be there.
                self.size = self.file.metadata().map_or(self.size, |file| file.len());
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let oldest = self.limits.max_files.saturating_sub(1);
        self.count_out(oldest)?;
        if oldest == 0 {
            self.file.set_len(0)?;
            self.times = TimesWriter::new(&self.path, &self.file);
        } else {
            for number in (1..oldest).rev() {
                let from = numbered(&self.path, number);
                if from.exists() {
                    std::fs::rename(from, numbered(&self.path, number + 1))?;
                }
                times::rename(&self.path, number, number + 1);
            }
            std::fs::rename(&self.path, numbered(&self.path, 1))?;
            times::rename(&self.path, 0, 1);
            self.file = open_log(&self.path)?;
            self.times = TimesWriter::new(&self.path, &self.file);
        }
        self.size = 0;
        Ok(())
    }

    /// Notes, before a file goes for good, how much goes with it. A reader that comes in between
    /// looks again.
    fn count_out(&mut self, oldest: u32) -> io::Result<()> {
        let bytes = match oldest {
            0 => self.size,
            number => std::fs::metadata(numbered(&self.path, number)).map_or(0, |file| file.len()),
        };
        if bytes > 0 {
            let gone = self.gone_bytes.saturating_add(bytes);
            write_atomically(&gone_file(&self.path), format!("{gone}\n").as_bytes())?;
            self.gone_bytes = gone;
        }
        Ok(())
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::launch::Stream;
    use crate::state_dir::StateDir;

    #[test]
    fn rotation_keeps_the_newest_files_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stdout.log");
        let limits = LogLimits { max_file_bytes: 10, max_files: 3 };
        let mut log = RotatingLog::open(path.clone(), &limits).unwrap();
        for number in 0..6_u8 {
            log.append(&[b'0' + number; 8]);
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"55555555");
        assert_eq!(std::fs::read(numbered(&path, 1)).unwrap(), b"44444444");
        assert_eq!(std::fs::read(numbered(&path, 2)).unwrap(), b"33333333");
        assert!(!numbered(&path, 3).exists());
        assert_eq!((log.dropped_bytes, log.gone_bytes), (0, 24));
        assert_eq!(StateDir::new(directory.path()).log_bytes_gone(Stream::Stdout), 24);
    }

    #[test]
    fn files_begin_with_whole_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stdout.log");
        let limits = LogLimits { max_file_bytes: 100, max_files: 3 };
        let mut log = RotatingLog::open(path.clone(), &limits).unwrap();
        // In pieces that know nothing of lines.
        let text: Vec<u8> = (10..40).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        for piece in text.chunks(13) {
            log.append(piece);
        }
        for number in 0..3 {
            let name = if number == 0 { path.clone() } else { numbered(&path, number) };
            let kept = std::fs::read_to_string(name).unwrap();
            assert!(kept.starts_with("line ") && kept.ends_with('\n'), "{kept:?}");
            assert!(kept.len() <= 112, "{} bytes", kept.len());
        }
        assert_eq!(log.gone_bytes % 8, 0);
    }

    #[test]
    fn a_chunk_larger_than_a_file_is_kept_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stderr.log");
        let limits = LogLimits { max_file_bytes: 10, max_files: 1 };
        let mut log = RotatingLog::open(path.clone(), &limits).unwrap();
        log.append(&[b'x'; 100]);
        assert_eq!(std::fs::read(&path).unwrap().len(), 100);
        log.append(b"y");
        assert_eq!(std::fs::read(&path).unwrap(), b"y");
        assert_eq!(StateDir::new(directory.path()).log_bytes_gone(Stream::Stderr), 100);
    }
}
