//! Who holds a state directory.
//!
//! A POSIX record lock, not `flock`: it belongs to the process, so that the container's init,
//! which inherits every descriptor of the shim for a moment, never holds it; and it can be asked
//! about without being taken, so that looking never disturbs a starting shim. The file's content
//! says whether it was ever held.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::state_dir::StateDir;

/// Held as long as the process lives. It must never open and close the file a second time: that
/// would release it.
pub(crate) struct Lock {
    _file: File,
}

/// What a look at the lock tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Nobody ever.
    Never,
    /// This process.
    Process(i32),
    /// Somebody once.
    Gone,
}

impl Lock {
    /// Takes it for good. `None`: somebody has it, or had it before; a task runs once.
    pub(crate) fn take(state: &StateDir) -> io::Result<Option<Self>> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(state.lock())?;
        match fcntl(file.as_raw_fd(), FcntlArg::F_SETLK(&whole_file())) {
            Ok(_) => {}
            Err(Errno::EACCES | Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        if file.metadata()?.len() > 0 {
            return Ok(None);
        }
        writeln!(file, "{}", std::process::id())?;
        Ok(Some(Self { _file: file }))
    }

    /// Looks without touching.
    pub(crate) fn holder(state: &StateDir) -> io::Result<Holder> {
        let file = match OpenOptions::new().read(true).write(true).open(state.lock()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Never),
            Err(error) => return Err(error),
        };
        let mut lock = whole_file();
        fcntl(file.as_raw_fd(), FcntlArg::F_GETLK(&mut lock))?;
        if i32::from(lock.l_type) != libc::F_UNLCK {
            return Ok(Holder::Process(lock.l_pid));
        }
        Ok(if file.metadata()?.len() == 0 { Holder::Never } else { Holder::Gone })
    }
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
