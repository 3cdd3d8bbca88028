//! The paths of a task's state directory, and how its files are written and read.
//!
//! The agent writes `task.json` before it asks for a shim; the shim writes all the rest. The
//! directory is the ledger from which a restarted agent learns what became of its tasks.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::launch::{Exit, Launch, Network, Stream};

/// The paths in one task's state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Names the directory; nothing is touched. The path must be absolute.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Creates the directory (mode 0700) and writes `task.json` (0600); after this a shim may be asked for. Not
    /// flushed: whether something was begun must outlive a power cut (the agent writes that down beside it), what
    /// exactly need not, and the seal tells when it did not.
    ///
    /// # Errors
    /// Whatever the file system says. A directory that exists is reused.
    pub fn prepare(&self, launch: &Launch) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        write_atomically(&self.task_json(), &sealed(serde_json::to_vec(launch)?))
    }

    /// Reads `task.json`.
    ///
    /// # Errors
    /// It is absent or not a [`Launch`].
    pub fn launch(&self) -> io::Result<Launch> {
        read_sealed(&self.task_json())
    }

    /// Reads `exit.json`, if the task has ended.
    ///
    /// # Errors
    /// It cannot be read; `InvalidData`: it is damaged (never half written: it is renamed into place).
    pub fn exit(&self) -> io::Result<Option<Exit>> {
        match read_sealed(&self.exit_json()) {
            Ok(exit) => Ok(Some(exit)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The order: a [`Launch`].
    #[must_use]
    pub fn task_json(&self) -> PathBuf {
        self.0.join("task.json")
    }

    /// The end: an [`Exit`]. There if and only if the task has ended and its log is complete.
    #[must_use]
    pub fn exit_json(&self) -> PathBuf {
        self.0.join("exit.json")
    }

    /// The newest log file of a stream; older ones have `.1`, `.2`, … appended. Raw bytes, as
    /// the task wrote them.
    #[must_use]
    pub fn log(&self, stream: Stream) -> PathBuf {
        self.0.join(match stream {
            Stream::Stdout => "stdout.log",
            Stream::Stderr => "stderr.log",
        })
    }

    /// How many bytes of the beginning of a stream's log are gone, because rotation keeps only so
    /// many files. Known while the task runs.
    #[must_use]
    pub fn log_bytes_gone(&self, stream: Stream) -> u64 {
        let text = std::fs::read_to_string(gone_file(&self.log(stream))).unwrap_or_default();
        text.trim_end().parse().unwrap_or(0)
    }

    /// The addresses of the task's own network, or of its group's; none if it has no such network.
    #[must_use]
    pub fn addresses(&self) -> Vec<std::net::IpAddr> {
        let own = crate::cni::addresses_of(self);
        match self.launch().map(|launch| launch.network) {
            Ok(Network::Shared(shared)) if own.is_empty() => shared.addresses,
            _ => own,
        }
    }

    pub(crate) fn network_json(&self) -> PathBuf {
        self.0.join("network.json")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub(crate) fn pid_json(&self) -> PathBuf {
        self.0.join("pid.json")
    }

    pub(crate) fn shim_log(&self) -> PathBuf {
        self.0.join("shim.log")
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.0.join("bundle")
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.0.join("rootfs")
    }

    pub(crate) fn runtime_root(&self) -> PathBuf {
        self.0.join("rt")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }

    /// What a task with an image writes outside of its sandbox and volumes.
    pub(crate) fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }

    /// Overlayfs's own.
    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// `/etc/hosts` and its like.
    pub(crate) fn etc(&self) -> PathBuf {
        self.0.join("etc")
    }
}

/// Where it is written how much of a log is gone.
pub(crate) fn gone_file(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".gone");
    PathBuf::from(name)
}

/// JSON with a line below that tells whether it is still what was written: a disk may return something else.
/// Sixteen hexadecimal digits of FNV-1a, which is for accidents and not for forgers.
#[must_use]
pub fn sealed(mut json: Vec<u8>) -> Vec<u8> {
    let seal = fnv_1a(&json);
    json.extend(format!("\n{seal:016x}\n").bytes());
    json
}

/// Reads a file that was written [`sealed`].
///
/// # Errors
/// The file system's; `InvalidData` if it is not what was written.
pub fn read_sealed<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let bytes = std::fs::read(path)?;
    let damaged = |what: &str| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
    };
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = text.iter().rposition(|byte| *byte == b'\n').ok_or_else(|| damaged("cut off"))?;
    let (json, seal) = (&text[..line], &text[line + 1..]);
    if seal != format!("{:016x}", fnv_1a(json)).as_bytes() {
        return Err(damaged("not what was written"));
    }
    serde_json::from_slice(json).map_err(|error| damaged(&error.to_string()))
}

fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Writes a file so that a reader sees all of it or none, as long as the machine is up.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_damaged_is_never_taken_for_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let whole = sealed(br#"{"code":3}"#.to_vec());
        std::fs::write(&path, &whole).unwrap();
        let read = |path: &Path| read_sealed::<serde_json::Value>(path);
        assert_eq!(read(&path).unwrap()["code"], 3);
        for length in 0..whole.len() - 1 {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "{length}");
        }
        for place in 0..whole.len() - 1 {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[place] ^= 1 << bit;
                std::fs::write(&path, &flipped).unwrap();
                assert!(read(&path).is_err(), "bit {bit} of byte {place}");
            }
        }
    }
}
