//! A task's output: read from its pipes, appended raw to rotating files.
//!
//! The shim reads, so that neither the agent's death nor a slow reader of the log ever blocks a
//! task. Bytes are bytes: no line is looked for, so none can be too long or not text.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::launch::LogLimits;
use crate::state_dir::{gone_file, write_atomically};

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
    limits: LogLimits,
    dropped_bytes: u64,
    /// Were in files that had to go.
    gone_bytes: u64,
}

impl RotatingLog {
    fn open(path: PathBuf, limits: &LogLimits) -> io::Result<Self> {
        let file = open_log(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size, limits: limits.clone(), dropped_bytes: 0, gone_bytes: 0 })
    }

    /// Never fails: a full disk costs the task its log, not its life.
    fn append(&mut self, bytes: &[u8]) {
        let length = bytes.len() as u64;
        if self.size > 0 && self.size.saturating_add(length) > self.limits.max_file_bytes {
            // On failure the current file grows on, and the next chunk tries again.
            let _ = self.rotate();
        }
        match self.file.write_all(bytes) {
            Ok(()) => self.size += length,
            Err(_) => self.dropped_bytes = self.dropped_bytes.saturating_add(length),
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let oldest = self.limits.max_files.saturating_sub(1);
        self.count_out(oldest)?;
        if oldest == 0 {
            self.file.set_len(0)?;
        } else {
            for number in (1..oldest).rev() {
                let from = numbered(&self.path, number);
                if from.exists() {
                    std::fs::rename(from, numbered(&self.path, number + 1))?;
                }
            }
            std::fs::rename(&self.path, numbered(&self.path, 1))?;
            self.file = open_log(&self.path)?;
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
