//! Pseudo-terminals: made inside a container, sized from outside.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Inside the container's own `devpts`, where nothing of a task can be put in its place, unlike
/// the link `/dev/ptmx`.
const MULTIPLEXER: &str = "/dev/pts/ptmx";

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Makes one: its master and its slave, both closed on exec.
fn make() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = open(MULTIPLEXER, flags, Mode::empty())?;
    // SAFETY: just opened, known to nobody else.
    let master = unsafe { OwnedFd::from_raw_fd(master) };
    let unlock: libc::c_int = 0;
    // SAFETY: the kernel reads one int, which outlives the call.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) })?;
    // SAFETY: takes flags and returns a new descriptor.
    let slave = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) })?;
    // SAFETY: just made, known to nobody else.
    Ok((master, unsafe { OwnedFd::from_raw_fd(slave as RawFd) }))
}

/// What a terminal of ours can do; programs look it up.
pub(crate) const TERM: &str = "TERM=xterm";

/// Makes one and has this process, which leads a session without one, run in it. Returns its master.
pub(crate) fn enter() -> io::Result<OwnedFd> {
    let (master, slave) = make()?;
    control(slave.as_fd())?;
    for place in 0..3 {
        nix::unistd::dup2(slave.as_raw_fd(), place)?;
    }
    Ok(master)
}

/// Makes it the controlling terminal of this process, which leads a session without one.
fn control(slave: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: touches no memory.
    check(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Tells a terminal its size in characters; whoever runs in it gets `SIGWINCH`.
///
/// # Errors
/// Not a terminal, or one that is gone.
pub fn resize(terminal: impl AsFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = terminal.as_fd().as_raw_fd();
    // SAFETY: the kernel reads the structure, which outlives the call.
    check(unsafe { libc::ioctl(terminal, libc::TIOCSWINSZ, &raw const size) }).map(drop)
}
