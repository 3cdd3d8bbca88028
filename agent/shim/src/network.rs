//! The network of a container, from outside: its loopback, and connections to what listens there.

use std::ffi::c_char;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::client::{Phase, Shim};
use crate::launch::Network;

/// It is the same machine: whoever does not answer is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

fn of(pid: i32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/ns/net"))
}

/// Makes a network with nothing in it but a loopback, which is on. Other threads stay where they are.
pub(crate) fn make() -> io::Result<File> {
    let ours = own()?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let made = switch_on(c"lo".to_bytes()).and_then(|()| own());
    setns(ours, CloneFlags::CLONE_NEWNET)?;
    made
}

/// The calling thread's.
fn own() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

/// The network of a process of a control group, which stays as long as the file is open.
pub(crate) fn of_any(pids: impl IntoIterator<Item = i32>) -> Option<File> {
    pids.into_iter().find_map(|pid| of(pid).ok())
}

/// Switches the loopback of a process's network on: a network of one's own without it could not
/// even talk to itself. For a process with one thread, which visits that network for it.
pub(crate) fn start_loopback(pid: i32) -> io::Result<()> {
    switch_loopback_on(&of(pid)?)
}

/// The same for a network that is held.
pub(crate) fn switch_loopback_on(namespace: &File) -> io::Result<()> {
    let ours = own()?;
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let switched = switch_on(c"lo".to_bytes());
    setns(ours, CloneFlags::CLONE_NEWNET)?;
    switched
}

fn switch_on(name: &[u8]) -> io::Result<()> {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: a structure of plain numbers, for which zeros are values.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed() as c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: the structure outlives the call.
    let set = unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Shim {
    /// Connects to a port of the task's loopback, IPv4 first. Blocks until that has happened.
    ///
    /// # Errors
    /// The task does not run, or nobody listens there.
    pub fn connect_port(&mut self, port: u16) -> io::Result<TcpStream> {
        if self.state().launch()?.network == Network::Host {
            return connect(port);
        }
        let namespace = of(self.running()?)?;
        // Its process id was not a stranger's when the namespace was opened.
        self.running()?;
        // The thread stays in that network, and ends with it.
        let visit = thread::Builder::new().name("task-network".to_owned());
        let visit = visit.spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            connect(port)
        });
        visit?.join().map_err(|_| io::Error::other("the thread in the task's network died"))?
    }

    fn running(&mut self) -> io::Result<i32> {
        let status = self.status()?;
        match status.pid {
            Some(pid) if status.phase == Phase::Running => Ok(pid),
            _ => Err(io::Error::other("the task does not run")),
        }
    }
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let to =
        |host: IpAddr| TcpStream::connect_timeout(&SocketAddr::new(host, port), CONNECT_TIMEOUT);
    to(Ipv4Addr::LOCALHOST.into()).or_else(|error| {
        // The first error is the one that people expect.
        to(Ipv6Addr::LOCALHOST.into()).map_err(|_| error)
    })
}
